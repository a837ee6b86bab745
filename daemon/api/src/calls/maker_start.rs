//! `POST /wallet/{walletname}/maker/start` (`spec/api.md` 6.16): checks what can be known at once, then the maker goes
//! on by itself.

use std::sync::Arc;

use axum::Json;
use http::StatusCode;
use joinery_proto::maker_offers::Spread;
use joinery_proto::offer::OrderType;
use joinery_roles::ask::WalletView;
use joinery_roles::maker::{CoinRules, MakerTerms, StartRefusal, check_start};
use joinery_wallet::bitcoin::Amount;
use joinery_wallet::types::WalletType;
use serde_json::{Value, json};

use super::{App, Params, State, largest_offerable};
use crate::activity::Role;
use crate::app::{AppState, LoadedWallet};
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;
use crate::roles::{MakerRun, RoleRunner};

/// What an offer type says about the addresses of its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Unsaid,
    Native,
    Nested,
}

/// The offer type for native wallets; what a bare one is taken for.
fn offer_type(text: &str) -> Option<(Prefix, OrderType)> {
    let (prefix, kind) = if let Some(rest) = text.strip_prefix("sw0") {
        (Prefix::Native, rest)
    } else if let Some(rest) = text.strip_prefix("sw") {
        (Prefix::Nested, rest)
    } else {
        (Prefix::Unsaid, text)
    };
    match kind {
        "reloffer" => Some((prefix, OrderType::Sw0Relative)),
        "absoffer" => Some((prefix, OrderType::Sw0Absolute)),
        _ => None,
    }
}

/// Reads and checks the body as far as that needs no wallet.
fn terms(body: &Object) -> Result<(Prefix, MakerTerms), ApiError> {
    let text = body.string("ordertype")?;
    let (prefix, order_type) = offer_type(text).ok_or(ApiError::invalid("ordertype"))?;
    let mut terms = MakerTerms::new(order_type);
    let fraction = body.decimal("cjfee_r")?;
    let bad_fraction = || ApiError::invalid("cjfee_r");
    if order_type.is_relative() {
        terms.relative_fee = fraction.parse().map_err(|_| bad_fraction())?;
        if terms.relative_fee.is_zero() {
            return Err(bad_fraction());
        }
    } else if !fraction.parse::<f64>().is_ok_and(|fraction| fraction >= 0.0) {
        // Means nothing for an absolute offer; clients send 0.
        return Err(bad_fraction());
    }
    let sats = |key: &'static str| {
        let sats = body.unsigned(key)?;
        if sats > Amount::MAX_MONEY.to_sat() { Err(ApiError::invalid(key)) } else { Ok(sats) }
    };
    terms.tx_fee = sats("txfee")?;
    terms.absolute_fee = sats("cjfee_a")?;
    terms.min_size = sats("minsize")?;
    terms.spread = spread(body)?;
    Ok((prefix, terms))
}

/// The factors of randomised offers; exact ones, as the reference's API makes, when none is given.
fn spread(body: &Object) -> Result<Option<Spread>, ApiError> {
    let factor = |name: &'static str| {
        let value = body.optional_decimal(name)?.map(|text| text.parse::<f64>());
        match value {
            None => Ok(None),
            Some(Ok(value)) if (0.0..=1.0).contains(&value) => Ok(Some(value)),
            Some(_) => Err(ApiError::invalid(name)),
        }
    };
    let (cj_fee, size) = (factor("cjfee_factor")?, factor("size_factor")?);
    let tx_fee = factor("txfee_factor")?;
    let given = [cj_fee, size, tx_fee].iter().any(Option::is_some);
    Ok(given.then(|| Spread {
        tx_fee: tx_fee.unwrap_or_default(),
        cj_fee: cj_fee.unwrap_or_default(),
        size: size.unwrap_or_default(),
    }))
}

/// Everything that a body may say.
const KEYS: [&str; 8] = [
    "ordertype",
    "txfee",
    "cjfee_a",
    "cjfee_r",
    "minsize",
    "cjfee_factor",
    "size_factor",
    "txfee_factor",
];

/// A maker as it was asked for.
#[derive(Debug)]
pub(crate) struct MakerStart {
    prefix: Prefix,
    terms: MakerTerms,
    /// The body, for the next start of the daemon.
    body: Value,
}

impl MakerStart {
    fn read(body: &Object) -> Result<Self, ApiError> {
        let (prefix, terms) = terms(body)?;
        let said = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), body.get(key)?.clone())));
        Ok(Self { prefix, terms, body: Value::Object(said.collect()) })
    }

    /// Reads what an earlier daemon kept; `None` when this one does not understand it.
    pub(crate) fn restore(kept: &[u8]) -> Option<Self> {
        let body: serde_json::Map<String, Value> = serde_json::from_slice(kept).ok()?;
        Self::read(&Object::new(body)).ok()
    }

    /// Checks what can be known at once, and lets the maker go on by itself.
    pub(crate) fn begin(
        &self,
        app: &Arc<AppState>,
        wallet: &Arc<LoadedWallet>,
    ) -> Result<(), ApiError> {
        let &Self { prefix, terms, ref body } = self;
        let (rules, roles) = check(app, wallet, prefix, &terms)?;
        let guard = app.activity.begin(Role::Maker).ok_or(ApiError::ServiceAlreadyStarted)?;
        app.keep_for_resume(wallet, body, guard.stopped().clone());
        let desk = app.board.maker_desk(guard);
        let (wallet, settings) = (wallet.handle.clone(), app.settings.roles());
        roles.maker(MakerRun { wallet, terms, rules, settings, desk });
        Ok(())
    }
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let start = MakerStart::read(&body.object()?)?;
    let wallet = app.loaded(&name)?;
    start.begin(&app, &wallet)?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

fn check<'a>(
    app: &'a AppState,
    wallet: &LoadedWallet,
    prefix: Prefix,
    terms: &MakerTerms,
) -> Result<(CoinRules, &'a Arc<dyn RoleRunner>), ApiError> {
    let snapshot = wallet.snapshot();
    let nested = snapshot.wallet_type == WalletType::NestedSegwit;
    match prefix {
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
    if nested {
        // Its offers would be of a pit that nobody visits any more, and its coins are not P2WPKH.
        return Err(ApiError::invalid_because(
            "walletname",
            "nested_segwit_wallet",
            "makers need a native segwit wallet; send the coins to a new one".to_owned(),
        ));
    }
    let policy = app.settings.policy().load_full();
    let rules = CoinRules { merge_algorithm: policy.merge_algorithm, ..CoinRules::default() };
    check_start(terms, &rules, &WalletView::from(&*snapshot)).map_err(|refusal| match refusal {
        StartRefusal::NoCoins => ApiError::NoCoinsForMaker,
        StartRefusal::MinimumTooLarge => ApiError::MinsizeTooLarge {
            minsize: terms.min_size,
            maxsize: largest.saturating_sub(terms.tx_fee.max(joinery_proto::offer::DUST_THRESHOLD)),
        },
        refusal => ApiError::invalid_because("ordertype", refusal.code(), refusal.to_string()),
    })?;
    Ok((rules, app.roles("maker_not_available")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<MakerTerms, &'static str> {
        let mut body = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
            "ordertype": "sw0reloffer", "minsize": "100000"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let object = Object::new(body.as_object().unwrap().clone());
        terms(&object).map(|(_, terms)| terms).map_err(|error| match error {
            ApiError::InvalidRequest { field, .. } => field,
            _ => "other",
        })
    }

    #[test]
    fn accepts_what_clients_send() {
        let jam = read(&json!({})).unwrap();
        assert_eq!((jam.order_type, jam.min_size), (OrderType::Sw0Relative, 100_000));
        assert_eq!(jam.spread, None);
        let absolute = read(&json!({"ordertype": "sw0absoffer", "cjfee_a": "250", "cjfee_r": "0"}));
        assert_eq!(absolute.unwrap().absolute_fee, 250);
        let phone = json!({"txfee": 0, "cjfee_a": 0, "cjfee_r": 0.0003, "minsize": 100_000});
        assert_eq!(read(&phone).unwrap().relative_fee.to_string(), "0.0003");
        let bare = read(&json!({"ordertype": "reloffer"})).unwrap();
        assert_eq!(bare.order_type, OrderType::Sw0Relative);
        let spread = read(&json!({"size_factor": "0.1"})).unwrap().spread.unwrap();
        assert_eq!((spread.size, spread.cj_fee, spread.tx_fee), (0.1, 0.0, 0.0));
        assert_eq!(
            read(&json!({"cjfee_r": "3e-7"})).unwrap().relative_fee.to_string(),
            "0.0000003"
        );
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
}
