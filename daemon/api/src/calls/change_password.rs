//! `POST /wallet/{walletname}/change-password` (`spec/api.md` Appendix C 20): another password for the wallet
//! file. Ends every token, as whoever changes a password may do so because somebody else knew it; the answer
//! is a fresh login. The wallet and whatever runs on it go on.

use axum::Json;
use secrecy::ExposeSecret;

use super::{Answer, App, Params, State, token};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::error::ApiError;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let mut body = body.object()?;
    let current = body.take_secret("password")?;
    let new = body.take_secret("new_password")?;
    if new.expose_secret().is_empty() {
        return Err(ApiError::invalid("new_password"));
    }
    app.loaded(&name)?;
    let tokens = app.change_password(name.clone(), current, new).await?;
    Ok(Json(token::with_wallet(&name, &tokens)))
}
