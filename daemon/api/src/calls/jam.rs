//! Helpers of the packaged browser wallet (`spec/api.md` 13, 14.8): features, log, backend.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::json;

use super::{Answer, App, State};
use crate::auth::Authenticated;
use crate::error::ApiError;

/// Most of the log that is sent, bytes: its end.
const MAX_LOG: usize = 1 << 20;

pub(super) async fn features(State(app): App, _caller: Authenticated) -> Answer {
    Ok(Json(json!({"features": {"logs": app.config.log_tail.is_some()}})))
}

pub(super) async fn info(State(app): App, _caller: Authenticated) -> Answer {
    Ok(Json(json!({"backend": {"name": "joinery", "version": app.config.version}})))
}

pub(super) async fn log(State(app): App, _caller: Authenticated) -> Result<Response, ApiError> {
    let tail = app.config.log_tail.clone().ok_or(ApiError::NoLog)?;
    let mut text = tokio::task::spawn_blocking(move || tail())
        .await
        .map_err(|_| ApiError::Internal("panic"))?;
    if let Some(excess) = text.len().checked_sub(MAX_LOG) {
        text.drain(..excess);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
