//! `GET /wallet/{walletname}/address/timelock/new/{lockdate}` (`spec/api.md` 6.12): the address of a
//! fidelity bond, the same for the same month.

use axum::Json;
use joinery_proto::fidelity_bond::TimeNumber;
use joinery_wallet::types::{Network, WalletType};
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::error::ApiError;

/// Reads `YYYY-MM`; a month of one digit is fine too.
fn month(text: &str) -> Result<TimeNumber, ApiError> {
    let padded = match text.split_once('-') {
        Some((year, month)) if month.len() == 1 => format!("{year}-0{month}"),
        _ => text.to_owned(),
    };
    TimeNumber::from_month(&padded)
        .map_err(|error| ApiError::invalid_because("lockdate", "bad_lockdate", error.to_string()))
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params((name, lockdate)): Params<(String, String)>,
) -> Answer {
    let wallet = app.loaded(&name)?;
    let snapshot = wallet.snapshot();
    if snapshot.wallet_type != WalletType::FidelityBond {
        return Err(joinery_wallet::service::ServiceError::NoBonds.into());
    }
    let month = month(&lockdate)?;
    // A board without a clock battery may believe that it is 1970; the chain knows better.
    let chain_time = snapshot.tip.map_or(0, |tip| u64::from(tip.median_time));
    let now = app.config.clock.wall().max(chain_time);
    if snapshot.network == Network::Mainnet && u64::from(month.locktime()) <= now {
        return Err(ApiError::invalid_because(
            "lockdate",
            "lockdate_in_the_past",
            "the month has begun already",
        ));
    }
    let address = wallet.handle.bond_address(month.number()).await?;
    Ok(Json(json!({"address": address.to_string()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_one_or_two_digits() {
        assert_eq!(month("2020-01").unwrap().number(), 0);
        assert_eq!(month("2026-1").unwrap(), month("2026-01").unwrap());
        assert_eq!(month("2099-12").unwrap().number(), 959);
        for bad in [
            "",
            "2100-01",
            "2019-12",
            "2026-13",
            "2026-0",
            "2026-00",
            "-2026-01",
            "2026",
            "2026-",
            "2026-001",
            "26-01",
            "2026-1-1",
            "2026-x",
            " 2026-01",
            "２０２６-01",
        ] {
            assert!(month(bad).is_err(), "{bad}");
        }
    }
}
