//! `POST /wallet/{walletname}/address/label` (`spec/api.md` Appendix C 23).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::error::ApiError;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let body = body.object()?;
    let address = body.string("address")?;
    let label = body.string("label")?;
    // A label is one line of text: others would forge lines in whatever shows it.
    if label.chars().any(char::is_control) {
        return Err(ApiError::invalid("label"));
    }
    let wallet = app.loaded(&name)?;
    wallet.handle.set_label(address, label).await?;
    Ok(Json(json!({})))
}
