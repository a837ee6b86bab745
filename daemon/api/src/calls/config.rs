//! `GET /config` (`spec/api.md` Appendix C 12): all effective settings in one call, as `configget` would give them.

use axum::Json;
use serde_json::json;

use super::{Answer, App, State};
use crate::auth::Authenticated;

pub(super) async fn handle(State(app): App, _caller: Authenticated) -> Answer {
    Ok(Json(json!({"config": app.settings.all()})))
}
