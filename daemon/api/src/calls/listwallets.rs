//! `GET /wallet/all` (`spec/api.md` 6.4).

use axum::Json;
use serde_json::{Value, json};

use super::{App, State};
use crate::error::ApiError;

pub(super) async fn handle(State(app): App) -> Result<Json<Value>, ApiError> {
    let directory = app.directory.clone();
    let names = tokio::task::spawn_blocking(move || directory.list())
        .await
        .map_err(|_| ApiError::Internal("panic"))?;
    Ok(Json(json!({"wallets": names})))
}
