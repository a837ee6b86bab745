//! `/obwatch/…` (`spec/api.md` 12): the order book, for anybody, with or without a wallet.

use axum::Json;
use serde_json::{Value, json};

use super::{App, State};
use crate::error::ApiError;
use crate::order_book;

/// In `details` of the answer when the order book is switched off.
const DISABLED: ApiError = ApiError::BackendNotReady("order_book_disabled");

pub(super) async fn orderbook(State(app): App) -> Result<Json<order_book::Json>, ApiError> {
    app.order_book.json().map(Json).ok_or(DISABLED)
}

pub(super) async fn refresh(State(app): App) -> Result<Json<Value>, ApiError> {
    app.order_book.refresh().await.ok_or(DISABLED)?;
    Ok(Json(json!({})))
}
