//! `GET /wallet/{walletname}/display` (`spec/api.md` 6.9, 7).

use axum::Json;
use joinery_wallet::display::wallet_info;
use serde::Serialize;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::dto::wallet_info::WalletInfo;

#[derive(Debug, Serialize)]
pub(super) struct Display {
    walletname: String,
    walletinfo: WalletInfo,
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer<Display> {
    let snapshot = app.loaded(&name)?.snapshot();
    let info = wallet_info(&snapshot, app.config.clock.wall());
    Ok(Json(Display { walletname: name, walletinfo: info.into() }))
}
