//! `POST|GET /wallet/{walletname}/taker/schedule` (`spec/api.md` 6.19, 6.20). Everything is checked; the
//! tumbler itself is not part of this program yet, so where it would start the answer is 503.

use axum::Json;
use serde_json::Value;

use super::{App, Params, State, offerable, payment_address};
use crate::app::AppState;
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;
use crate::number;

/// Most destinations of one schedule.
const MAX_DESTINATIONS: usize = 100;

/// Checks a list of addresses to tumble to.
pub(super) fn destinations<'a>(
    app: &AppState,
    body: &'a Object,
    key: &'static str,
) -> Result<Vec<&'a str>, ApiError> {
    let list =
        body.optional_strings(key, MAX_DESTINATIONS)?.ok_or_else(|| ApiError::invalid(key))?;
    if list.is_empty() {
        return Err(ApiError::invalid(key));
    }
    for text in &list {
        payment_address(text, app.directory.network(), key)?;
    }
    Ok(list)
}

/// Checks the recognised options; unknown ones mean nothing.
pub(super) fn options(options: &Object) -> Result<(), ApiError> {
    const KEY: &str = "tumbler_options";
    let bad = |name: &str| {
        ApiError::invalid_because(KEY, "bad_tumbler_option", format!("bad value of {name}"))
    };
    let float = |value: &Value| number::decimal(value)?.parse::<f64>().ok();
    for (name, least, most) in [
        ("addrcount", 1, 100),
        ("minmakercount", 1, 99),
        ("mixdepthcount", 1, 100),
        ("mintxcount", 1, 1000),
        ("mincjamount", 0, 2_100_000_000_000_000),
        ("amtmixdepths", -1, 100),
    ] {
        let Some(value) = options.get(name) else { continue };
        if !number::int(value).is_some_and(|value| (least..=most).contains(&value)) {
            return Err(bad(name));
        }
    }
    for (name, most) in [
        ("timelambda", 1e6),
        ("stage1_timelambda_increase", 1e6),
        ("liquiditywait", 1e9),
        ("waittime", 1e9),
        ("rounding_chance", 1.0),
    ] {
        let Some(value) = options.get(name) else { continue };
        if !float(value).is_some_and(|value| (0.0..=most).contains(&value)) {
            return Err(bad(name));
        }
    }
    for (name, count) in
        [("makercountrange", 2), ("txcountparams", 2), ("rounding_sigfig_weights", 5)]
    {
        let Some(value) = options.get(name) else { continue };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(float).collect());
        let fine = numbers.is_some_and(|numbers| {
            numbers.len() == count && numbers.iter().all(|number| (0.0..=1e6).contains(number))
        });
        if !fine {
            return Err(bad(name));
        }
    }
    Ok(())
}

pub(super) async fn start(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Result<Json<Value>, ApiError> {
    if app.activity.current().is_some() {
        return Err(ApiError::ScheduleBusy);
    }
    let body = body.object()?;
    let addresses = destinations(&app, &body, "destination_addresses")?;
    if let Some(value) = body.get("tumbler_options") {
        let map = value.as_object().ok_or(ApiError::invalid("tumbler_options"))?;
        let given = Object::new(map.clone());
        options(&given)?;
        // Fewer addresses than asked for would mean asking somebody at a terminal.
        let count = given.optional_int("addrcount")?;
        if count.is_some_and(|count| usize::try_from(count) != Ok(addresses.len())) {
            return Err(ApiError::invalid("destination_addresses"));
        }
    }
    let snapshot = app.loaded(&name)?.snapshot();
    if app.settings.maker_fee_limits().is_none() {
        return Err(ApiError::ConfigNotPresent);
    }
    if offerable(&snapshot).next().is_none() {
        return Err(ApiError::NoCoinsForTumbler);
    }
    Err(ApiError::BackendNotReady("tumbler_not_available"))
}

pub(super) async fn show(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Result<Json<Value>, ApiError> {
    app.loaded(&name)?;
    Err(ApiError::NoSchedule)
}
