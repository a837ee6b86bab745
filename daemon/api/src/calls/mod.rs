//! One file per API call. What several of them check is here (`spec/api.md` 1.6, 1.7, 6).

mod address_label;
mod address_new;
mod address_timelock;
mod change_password;
mod config;
mod configget;
mod configset;
mod create;
mod direct_send;
mod display;
mod estimate_fee;
mod fees;
mod fidelity_bonds;
mod freeze;
mod freeze_batch;
mod getinfo;
mod getrescaninfo;
mod getseed;
mod health;
mod history;
mod jam;
mod listwallets;
mod lock;
mod logout;
mod maker_start;
mod maker_stop;
mod obwatch;
mod openapi;
mod recover;
mod rescan;
mod rounds;
mod routes;
mod session;
mod signmessage;
mod taker_coinjoin;
mod taker_schedule;
mod taker_status;
mod taker_stop;
mod token;
mod tumbler;
mod unlock;
mod update;
mod utxos;
mod yieldgen_report;

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use http::HeaderMap;
use http::request::Parts;
use joinery_wallet::bitcoin::{self, Address, Amount, OutPoint};
use joinery_wallet::policy::TxFees;
use joinery_wallet::snapshot::{Coin, Snapshot};
use joinery_wallet::spend::{DestinationError, parse_destination};
use joinery_wallet::types::{Mixdepth, Network};
use serde::de::DeserializeOwned;

use crate::app::AppState;
use crate::body::Object;
use crate::error::ApiError;
use crate::settings::tx_fees_of;
pub(crate) use maker_start::MakerStart;
pub(crate) use routes::{api, order_book};
pub(crate) use session::warnings;

/// See [`crate::openapi`].
pub(crate) const fn openapi_document() -> &'static str {
    openapi::DOCUMENT
}

/// The shared state, as handlers take it.
type App = State<Arc<AppState>>;

/// A JSON answer or an error.
type Answer<T = serde_json::Value> = Result<axum::Json<T>, ApiError>;

/// Most coins or flags that one request may name.
const MAX_LIST: usize = 1000;

/// Path parameters; whatever is wrong with them (an encoding that is not UTF-8, say) is a 400 in JSON.
struct Params<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<AppState>> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(_) => Err(ApiError::invalid("path")),
        }
    }
}

/// Reads a whole number of a path: decimal digits and nothing else.
fn digits<T: FromStr>(text: &str, field: &'static str) -> Result<T, ApiError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::invalid(field));
    }
    text.parse().map_err(|_| ApiError::invalid(field))
}

/// Reads a mixdepth of a body; whether the wallet has it is the wallet's to say.
fn mixdepth(body: &Object, wallet: &Snapshot) -> Result<Mixdepth, ApiError> {
    let number = u8::try_from(body.unsigned("mixdepth")?).ok().map(Mixdepth);
    number.filter(|m| *m <= wallet.max_mixdepth()).ok_or(ApiError::invalid("mixdepth"))
}

/// Reads an address that coins may be sent to.
fn payment_address(text: &str, network: Network, field: &'static str) -> Result<Address, ApiError> {
    parse_destination(text, network).map_err(|error| {
        let code = match error {
            DestinationError::OtherNetwork(_) => "wrong_network_address",
            _ => "bad_address",
        };
        // Not the error's own text: it may quote what was sent.
        let reason = match error {
            DestinationError::OtherNetwork(_) => format!("not an address of {network}"),
            _ => "not an address that can be paid".to_owned(),
        };
        ApiError::invalid_because(field, code, reason)
    })
}

/// Reads `txid:vout`.
fn outpoint(text: &str, field: &'static str) -> Result<OutPoint, ApiError> {
    // 64 digits, a colon, at most 10 digits.
    let fits = text.len() <= 75 && text.as_bytes().get(64) == Some(&b':');
    let parsed = if fits { OutPoint::from_str(text).ok() } else { None };
    parsed.ok_or_else(|| ApiError::invalid(field))
}

/// Reads the optional `input_utxos`: not empty, no coin twice.
fn input_utxos(body: &Object) -> Result<Option<Vec<OutPoint>>, ApiError> {
    let Some(list) = body.optional_strings("input_utxos", MAX_LIST)? else { return Ok(None) };
    let coins: Vec<OutPoint> =
        list.into_iter().map(|text| outpoint(text, "input_utxos")).collect::<Result<_, _>>()?;
    let distinct: std::collections::HashSet<_> = coins.iter().collect();
    if coins.is_empty() || distinct.len() != coins.len() {
        return Err(ApiError::invalid("input_utxos"));
    }
    Ok(Some(coins))
}

/// Reads the optional `txfee`: up to 1000 blocks, above it satoshi per kvB.
fn txfee(body: &Object) -> Result<Option<TxFees>, ApiError> {
    let number = body.optional_int("txfee")?;
    number.map(|number| tx_fees_of(number).ok_or(ApiError::invalid("txfee"))).transpose()
}

/// Reads the optional `Idempotency-Key`: the client's own name for this request (`spec/api.md` Appendix C 31).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let mut values = headers.get_all(NAME).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len()));
            text.map(Some).ok_or(ApiError::invalid(NAME))
        }
        _ => Err(ApiError::invalid(NAME)),
    }
}

/// Reads `amount_sats`: 0 means everything.
fn amount(body: &Object) -> Result<Option<Amount>, ApiError> {
    let amount = Amount::from_sat(body.unsigned("amount_sats")?);
    if amount > Amount::MAX_MONEY {
        return Err(ApiError::invalid("amount_sats"));
    }
    Ok((amount > Amount::ZERO).then_some(amount))
}

/// Coins that a role could work with: confirmed, not frozen, not timelocked.
fn offerable(snapshot: &Snapshot) -> impl Iterator<Item = &Coin> {
    snapshot
        .coins
        .iter()
        .filter(|coin| coin.height.is_some() && !coin.frozen && !coin.place.is_bond())
}

/// The largest sum of [`offerable`] coins of one mixdepth.
fn largest_offerable(snapshot: &Snapshot) -> Amount {
    let sum_of = |mixdepth: Mixdepth| -> Amount {
        offerable(snapshot)
            .filter(|coin| coin.mixdepth() == mixdepth)
            .map(|coin| coin.value)
            .fold(Amount::ZERO, |sum, value| sum.checked_add(value).unwrap_or(Amount::MAX_MONEY))
    };
    let sums = snapshot.accounts.iter().map(|account| sum_of(account.mixdepth));
    sums.max().unwrap_or(Amount::ZERO)
}

/// The rust-bitcoin network of the daemon.
fn bitcoin_network(app: &AppState) -> bitcoin::Network {
    app.directory.network().bitcoin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(outcome: Result<Address, ApiError>) -> &'static str {
        outcome.map_or_else(|error| error.parts().code, |_| "fine")
    }

    #[test]
    fn only_addresses_in_use_on_our_network_are_paid() {
        for (text, expected) in [
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "fine"),
            ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "fine"),
            ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "fine"),
            ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "fine"),
            ("bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr", "fine"),
            ("bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3", "fine"),
            ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "wrong_network_address"),
            ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "wrong_network_address"),
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "bad_address"),
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8F3T4", "bad_address"),
            (" bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bad_address"),
            ("bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bad_address"),
            // Version 1 with 40 bytes, pay to anchor.
            (
                "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
                "bad_address",
            ),
            ("bc1pfeessrawgf", "bad_address"),
            ("BURN", "bad_address"),
            ("INTERNAL", "bad_address"),
            ("", "bad_address"),
            (&"a".repeat(5000), "bad_address"),
        ] {
            let found = payment_address(text, Network::Mainnet, "destination");
            assert_eq!(code(found), expected, "{text}");
        }
        let test = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
        for network in [Network::Testnet, Network::Testnet4, Network::Signet] {
            assert!(payment_address(test, network, "destination").is_ok(), "{network}");
        }
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        assert!(payment_address(regtest, Network::Regtest, "destination").is_ok());
    }

    #[test]
    fn outpoints_have_one_form() {
        let txid = "a".repeat(64);
        for good in
            [format!("{txid}:0"), format!("{txid}:4294967295"), format!("{}:1", "A".repeat(64))]
        {
            assert!(outpoint(&good, "utxo-string").is_ok(), "{good}");
        }
        for bad in [
            String::new(),
            ":".to_owned(),
            txid.clone(),
            format!("{txid}:"),
            format!("{txid}:-1"),
            format!("{txid}:4294967296"),
            format!("{txid}:1:2"),
            format!("{txid}: 1"),
            format!("{}:0", "a".repeat(63)),
            format!("{}:0", "a".repeat(65)),
            format!("{}:0", "g".repeat(64)),
        ] {
            assert!(outpoint(&bad, "utxo-string").is_err(), "{bad}");
        }
    }

    #[test]
    fn path_numbers_are_digits() {
        assert_eq!(digits::<u8>("4", "x").unwrap(), 4);
        for bad in ["", "-1", "+1", " 1", "1 ", "0x1", "1e1", "1.0", "٣", "256", "99999999999"] {
            assert!(digits::<u8>(bad, "x").is_err(), "{bad}");
        }
    }
}
