//! `GET /wallet/{walletname}/history?limit=N` (`spec/api.md` 14.6). The roles keep the history of what they
//! did; without them there is none to tell, and an empty one would be a lie about deposits and payments.

use axum::Json;
use http::Uri;
use serde_json::Value;

use super::{App, Params, State, digits};
use crate::auth::Authenticated;
use crate::error::ApiError;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    for pair in uri.query().unwrap_or_default().split('&') {
        match pair.split_once('=') {
            Some(("limit", number)) => drop(digits::<u32>(number, "limit")?),
            _ => continue,
        }
    }
    app.loaded(&name)?;
    Err(ApiError::BackendNotReady("history_not_available"))
}
