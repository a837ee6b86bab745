//! `POST /wallet/create` (`spec/api.md` 6.5).

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use http::StatusCode;
use joinery_wallet::directory::WalletName;
use joinery_wallet::types::WalletType;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::token::with_wallet;
use super::{App, State};
use crate::app::AppState;
use crate::body::{Object, RawBody};
use crate::error::ApiError;
use crate::lifecycle::NewWallet;

/// 201 with a JSON body.
type Created = Result<(StatusCode, Json<Value>), ApiError>;

/// A wallet name of a request: one safe path component.
pub(super) fn wallet_name(text: &str) -> Result<WalletName, ApiError> {
    WalletName::from_str(text).map_err(|error| {
        ApiError::invalid_because("walletname", "bad_wallet_name", error.to_string())
    })
}

/// What create and recover have in common.
pub(super) fn common(body: &mut Object) -> Result<NewWallet, ApiError> {
    let name = wallet_name(body.string("walletname")?)?;
    let wallet_type = match body.optional_string("wallettype")? {
        None => WalletType::FidelityBond,
        Some(text) => WalletType::from_api_name(text).ok_or(ApiError::invalid("wallettype"))?,
    };
    let password = body.take_secret("password")?;
    if password.expose_secret().is_empty() {
        return Err(ApiError::invalid("password"));
    }
    let extension = body.take_optional_secret("mnemonic_extension")?;
    Ok(NewWallet { name, password, wallet_type, extension, phrase: None, scan_range: None })
}

/// Makes the wallet; `shown` is the phrase to answer with, if not the wallet's own.
pub(super) async fn make(app: &Arc<AppState>, new: NewWallet, shown: Option<String>) -> Created {
    let name = new.name.as_str().to_owned();
    let made = app.make_wallet(new).await?;
    let mut body = with_wallet(&name, &made.tokens);
    let phrase = shown.unwrap_or_else(|| made.phrase.expose_secret().to_owned());
    body["seedphrase"] = Value::String(phrase);
    Ok((StatusCode::CREATED, Json(body)))
}

pub(super) async fn handle(State(app): App, body: RawBody) -> Created {
    app.check_none_loaded()?;
    let new = common(&mut body.object()?)?;
    make(&app, new, None).await
}
