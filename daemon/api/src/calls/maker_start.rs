//! `POST /wallet/{walletname}/maker/start` (`spec/api.md` 6.16). Everything is checked; the maker itself
//! is not part of this program yet, so where it would start the answer is 503.

use axum::Json;
use joinery_wallet::bitcoin::Amount;
use joinery_wallet::types::WalletType;
use serde_json::Value;

use super::{App, Params, State, largest_offerable};
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;

/// No offer is smaller, and this much of a mixdepth is held back for change. Satoshi.
const DUST_THRESHOLD: u64 = 27_300;

/// Terms of an offer, as a client asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    /// Offer type for native wallets without its prefix: `reloffer` or `absoffer`.
    kind: Kind,
    prefix: Prefix,
    /// Miner fee contribution, satoshi.
    txfee: u64,
    /// Absolute fee, satoshi.
    cjfee_a: u64,
    /// Relative fee, as plain decimal text.
    cjfee_r: String,
    /// Smallest amount, satoshi.
    minsize: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Relative,
    Absolute,
}

/// What an offer type says about the addresses of its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Unsaid,
    Native,
    Nested,
}

fn offer_type(text: &str) -> Option<(Prefix, Kind)> {
    let (prefix, kind) = if let Some(rest) = text.strip_prefix("sw0") {
        (Prefix::Native, rest)
    } else if let Some(rest) = text.strip_prefix("sw") {
        (Prefix::Nested, rest)
    } else {
        (Prefix::Unsaid, text)
    };
    match kind {
        "reloffer" => Some((prefix, Kind::Relative)),
        "absoffer" => Some((prefix, Kind::Absolute)),
        _ => None,
    }
}

/// Reads and checks the body as far as that needs no wallet.
fn terms(body: &Object) -> Result<Terms, ApiError> {
    let text = body.string("ordertype")?;
    let (prefix, kind) = offer_type(text).ok_or(ApiError::invalid("ordertype"))?;
    let cjfee_r = body.decimal("cjfee_r")?;
    let fraction: f64 = cjfee_r.parse().map_err(|_| ApiError::invalid("cjfee_r"))?;
    let in_range = match kind {
        Kind::Relative => fraction > 0.0 && fraction < 1.0,
        Kind::Absolute => fraction >= 0.0,
    };
    if !in_range {
        return Err(ApiError::invalid("cjfee_r"));
    }
    for factor in ["cjfee_factor", "size_factor", "txfee_factor"] {
        let value = body.optional_decimal(factor)?.map(|text| text.parse::<f64>());
        if !value.is_none_or(|value| value.is_ok_and(|value| (0.0..=1.0).contains(&value))) {
            return Err(ApiError::invalid(factor));
        }
    }
    let sats = |key: &'static str| {
        let sats = body.unsigned(key)?;
        if sats > Amount::MAX_MONEY.to_sat() { Err(ApiError::invalid(key)) } else { Ok(sats) }
    };
    Ok(Terms {
        kind,
        prefix,
        txfee: sats("txfee")?,
        cjfee_a: sats("cjfee_a")?,
        cjfee_r,
        minsize: sats("minsize")?,
    })
}

/// The smallest amount that is really offered: a relative fee must cover the promised miner fee one and a
/// half times over.
fn effective_minsize(terms: &Terms) -> u64 {
    let covering = match terms.kind {
        Kind::Absolute => 0,
        Kind::Relative => {
            let fraction: f64 = terms.cjfee_r.parse().unwrap_or(f64::NAN);
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )] // the reference's float formula; the cast saturates and NaN gives 0
            let covering = (1.5 * terms.txfee as f64 / fraction) as u64;
            covering
        }
    };
    terms.minsize.max(covering).max(DUST_THRESHOLD)
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Result<Json<Value>, ApiError> {
    let terms = terms(&body.object()?)?;
    let snapshot = app.loaded(&name)?.snapshot();
    let nested = snapshot.wallet_type == WalletType::NestedSegwit;
    match terms.prefix {
        Prefix::Native if nested => return Err(ApiError::invalid("ordertype")),
        Prefix::Nested if !nested => return Err(ApiError::invalid("ordertype")),
        _ => {}
    }
    if app.activity.current().is_some() {
        return Err(ApiError::ServiceAlreadyStarted);
    }
    let largest = largest_offerable(&snapshot).to_sat();
    if largest == 0 {
        return Err(ApiError::NoCoinsForMaker);
    }
    let maxsize = largest.saturating_sub(terms.txfee.max(DUST_THRESHOLD));
    let minsize = effective_minsize(&terms);
    if minsize > maxsize {
        return Err(ApiError::MinsizeTooLarge { minsize, maxsize });
    }
    Err(ApiError::BackendNotReady("maker_not_available"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<Terms, &'static str> {
        let mut body = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
            "ordertype": "sw0reloffer", "minsize": "100000"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        terms(&Object::new(body.as_object().unwrap().clone())).map_err(|error| match error {
            ApiError::InvalidRequest { field, .. } => field,
            _ => "other",
        })
    }

    #[test]
    fn accepts_what_clients_send() {
        let jam = read(&json!({})).unwrap();
        assert_eq!((jam.kind, jam.minsize), (Kind::Relative, 100_000));
        let absolute = read(&json!({"ordertype": "sw0absoffer", "cjfee_a": "250", "cjfee_r": "0"}));
        assert_eq!(absolute.unwrap().cjfee_a, 250);
        let phone = json!({"txfee": 0, "cjfee_a": 0, "cjfee_r": 0.0003, "minsize": 100_000});
        assert_eq!(read(&phone).unwrap().cjfee_r, "0.0003");
        assert_eq!(read(&json!({"ordertype": "reloffer"})).unwrap().prefix, Prefix::Unsaid);
        assert_eq!(read(&json!({"cjfee_r": "3e-7"})).unwrap().cjfee_r, "0.0000003");
    }

    #[test]
    fn rejects_terms_that_cannot_be() {
        for (change, field) in [
            (json!({"ordertype": "sw1reloffer"}), "ordertype"),
            (json!({"ordertype": ""}), "ordertype"),
            (json!({"ordertype": 5}), "ordertype"),
            (json!({"cjfee_r": "0"}), "cjfee_r"),
            (json!({"cjfee_r": "1"}), "cjfee_r"),
            (json!({"cjfee_r": "-0.1"}), "cjfee_r"),
            (json!({"cjfee_r": "NaN"}), "cjfee_r"),
            (json!({"ordertype": "sw0absoffer", "cjfee_r": "-1"}), "cjfee_r"),
            (json!({"txfee": "-1"}), "txfee"),
            (json!({"cjfee_a": 1.5}), "cjfee_a"),
            (json!({"minsize": true}), "minsize"),
            (json!({"minsize": null}), "minsize"),
            (json!({"minsize": "99999999999999999"}), "minsize"),
            (json!({"size_factor": "1.1"}), "size_factor"),
        ] {
            assert_eq!(read(&change), Err(field), "{change}");
        }
    }

    #[test]
    fn minsize_covers_the_miner_fee_and_the_dust() {
        let minsize = |change: &Value| effective_minsize(&read(change).unwrap());
        assert_eq!(minsize(&json!({})), 100_000);
        assert_eq!(minsize(&json!({"minsize": 1})), DUST_THRESHOLD);
        assert_eq!(minsize(&json!({"txfee": 1000, "cjfee_r": "0.001"})), 1_500_000);
        assert_eq!(minsize(&json!({"txfee": 1000, "ordertype": "absoffer"})), 100_000);
    }
}
