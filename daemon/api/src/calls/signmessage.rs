//! `POST /wallet/{walletname}/signmessage` (`spec/api.md` 6.26).

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
    let (path, message) = (body.string("hd_path")?, body.string("message")?);
    let wallet = app.loaded(&name)?;
    if path.is_empty() {
        return Err(ApiError::SignWithoutPath);
    }
    if message.is_empty() {
        return Err(ApiError::SignWithoutMessage);
    }
    let (signature, address) = wallet.handle.sign_message(path, message).await?;
    Ok(Json(json!({
        "signature": signature,
        "message": message,
        "address": address.to_string(),
    })))
}
