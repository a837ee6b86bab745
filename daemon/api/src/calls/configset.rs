//! `POST /wallet/{walletname}/configset` (`spec/api.md` 6.23).

use std::sync::Arc;

use axum::Json;
use serde_json::{Value, json};

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::error::ApiError;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let body = body.object()?;
    let section = body.string("section")?.to_owned();
    let field = body.string("field")?.to_owned();
    let value = match body.required("value")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => return Err(ApiError::invalid("value")),
    };
    app.loaded(&name)?;
    let settings = Arc::clone(&app.settings);
    // Kept values are made durable before the answer.
    tokio::task::spawn_blocking(move || settings.set(&section, &field, &value))
        .await
        .map_err(|_| ApiError::Internal("panic"))??;
    Ok(Json(json!({})))
}
