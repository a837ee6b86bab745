//! `GET|POST /wallet/{walletname}/lock` (`spec/api.md` 6.8).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer {
    let was_open = app.lock_wallet(name.clone()).await?;
    Ok(Json(json!({"walletname": name, "already_locked": !was_open})))
}
