//! `/wallet/{walletname}/tumbler/…` (`spec/api.md` 14.1 to 14.5): the tumbler in the words of
//! joinmarket-ng. No plan can exist yet, and where one would be made the answer is 503.

use axum::Json;
use serde_json::Value;

use super::taker_schedule::{destinations, options};
use super::{App, Params, State, offerable};
use crate::activity::Role;
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;

type Refusal = Result<Json<Value>, ApiError>;

pub(super) async fn plan(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Refusal {
    let body = body.object()?;
    destinations(&app, &body, "destinations")?;
    if let Some(value) = body.get("parameters") {
        let map = value.as_object().ok_or(ApiError::invalid("parameters"))?;
        options(&Object::new(map.clone()))?;
    }
    if body.get("force").is_some() {
        body.boolean("force")?;
    }
    let snapshot = app.loaded(&name)?.snapshot();
    if app.activity.current().is_some() {
        return Err(ApiError::ServiceAlreadyStarted);
    }
    if offerable(&snapshot).next().is_none() {
        return Err(ApiError::invalid_because(
            "destinations",
            "no_coins_for_tumbler",
            "no confirmed coins",
        ));
    }
    Err(ApiError::BackendNotReady("tumbler_not_available"))
}

pub(super) async fn status(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Refusal {
    app.loaded(&name)?;
    Err(ApiError::NoPlan)
}

pub(super) async fn start(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Refusal {
    app.loaded(&name)?;
    if app.activity.current().is_some() {
        return Err(ApiError::ServiceAlreadyStarted);
    }
    Err(ApiError::NoPlan)
}

pub(super) async fn stop(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Result<(http::StatusCode, Json<Value>), ApiError> {
    app.loaded(&name)?;
    if app.activity.stop(Role::Taker) {
        Ok((http::StatusCode::ACCEPTED, Json(serde_json::json!({}))))
    } else {
        Err(ApiError::ServiceNotStarted)
    }
}

pub(super) async fn delete(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Refusal {
    app.loaded(&name)?;
    Err(ApiError::NoPlan)
}
