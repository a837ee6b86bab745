//! `POST /wallet/{walletname}/unlock` (`spec/api.md` 6.7): the login, also to a wallet that is open.

use axum::Json;

use super::{Answer, App, Params, State, create, token};
use crate::body::RawBody;
use crate::peer::Peer;

pub(super) async fn handle(
    State(app): App,
    Peer(from): Peer,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let name = create::wallet_name(&name)?;
    let password = body.object()?.take_secret("password")?;
    let text = name.as_str().to_owned();
    let tokens = app.unlock_wallet(name, password, from).await?;
    Ok(Json(token::with_wallet(&text, &tokens)))
}
