//! `GET|POST /wallet/{walletname}/maker/stop` (`spec/api.md` 6.17).

use axum::Json;
use http::StatusCode;
use serde_json::{Value, json};

use super::{App, Params, State};
use crate::activity::Role;
use crate::auth::Authenticated;
use crate::error::ApiError;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    app.loaded(&name)?;
    let was_running = app.activity.stop(Role::Maker);
    // Also one that waits for its coins after a power cut.
    app.forget_resume().await;
    if was_running {
        Ok((StatusCode::ACCEPTED, Json(json!({}))))
    } else {
        Err(ApiError::ServiceNotStarted)
    }
}
