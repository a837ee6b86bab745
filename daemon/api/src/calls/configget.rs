//! `POST /wallet/{walletname}/configget` (`spec/api.md` 6.22).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::body::RawBody;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let body = body.object()?;
    let (section, field) = (body.string("section")?, body.string("field")?);
    app.loaded(&name)?;
    Ok(Json(json!({"configvalue": app.settings.get(section, field)?})))
}
