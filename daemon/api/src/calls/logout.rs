//! `POST /logout` (`spec/api.md` Appendix C 10): ends the caller's own tokens. Wallet and maker go on.

use axum::Json;
use serde_json::json;

use super::{Answer, App, State};
use crate::auth::Authenticated;

pub(super) async fn handle(State(app): App, caller: Authenticated) -> Answer {
    app.tokens.revoke(&caller.0.family);
    Ok(Json(json!({})))
}
