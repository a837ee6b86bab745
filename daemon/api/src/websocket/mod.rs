//! The websocket: who listens, and when it is told (`spec/api.md` 11).

mod connection;
mod idle;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;

use crate::app::AppState;
use crate::error::ApiError;
pub(crate) use idle::IdleSockets;

/// Longest message or frame that is read, bytes: a token has about 250.
const MAX_MESSAGE: usize = 8 * 1024;

/// `GET` with an upgrade: on the RPC port at three paths, on its own port at any.
pub(crate) async fn upgrade(
    State(app): State<Arc<AppState>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::NotAWebsocket)?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| connection::serve(app, socket)))
}
