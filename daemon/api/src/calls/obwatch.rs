//! `/obwatch/…` (`spec/api.md` 12): the order book, for anybody, with or without a wallet.

use axum::Json;
use serde_json::{Value, json};

use super::{App, State};

pub(super) async fn orderbook() -> Json<Value> {
    // Nothing has been collected yet: the same answer as while connecting.
    Json(json!({"offers": [], "fidelitybonds": []}))
}

pub(super) async fn refresh(State(app): App) -> Json<Value> {
    if app.order_book.refresh_is_due() {
        tracing::debug!("order book refresh asked for");
    }
    Json(json!({}))
}
