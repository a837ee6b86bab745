//! `GET /wallet/{walletname}/getseed` (`spec/api.md` 6.13).

use axum::Json;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer {
    let (phrase, extension) = app.loaded(&name)?.handle.seed().await?;
    let mut body = json!({"seedphrase": phrase.expose_secret()});
    if let Some(extension) = extension {
        body["mnemonic_extension"] = Value::String(extension.expose_secret().to_owned());
    }
    Ok(Json(body))
}
