//! `GET /wallet/{walletname}/taker/status` (`spec/api.md` 14.9).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::activity::Role;
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer {
    app.loaded(&name)?;
    let running = app.activity.current() == Some(Role::Taker);
    let status = if running { "running" } else { "idle" };
    Ok(Json(json!({"status": status, "txid": null, "error": null})))
}
