//! `GET /wallet/{walletname}/getrescaninfo` (`spec/api.md` 6.25).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer {
    let sync = app.loaded(&name)?.snapshot().sync;
    let mut body = json!({"walletname": name, "rescanning": sync.scanning.is_some()});
    if let Some(progress) = sync.scanning {
        body["progress"] = json!(progress.clamp(0.0, 1.0));
    } else {
        body["error"] = json!(sync.failed.then_some("the last scan did not finish"));
    }
    Ok(Json(body))
}
