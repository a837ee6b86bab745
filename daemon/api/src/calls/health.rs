//! `GET /health` (`spec/api.md` Appendix C 18): for supervisors and status pages.

use axum::Json;
use serde_json::{Value, json};

use super::{App, State};

pub(super) async fn handle(State(app): App) -> Json<Value> {
    let chain = app.chain_status();
    Json(json!({
        "ok": chain.connected,
        "electrum": chain.connected,
        "electrum_configured": chain.configured,
        "electrum_error": chain.last_error,
        "version": app.config.version,
    }))
}
