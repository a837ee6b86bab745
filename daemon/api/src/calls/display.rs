//! `GET /wallet/{walletname}/display` (`spec/api.md` 6.9, 7).

use axum::response::Response;
use http::HeaderMap;
use joinery_wallet::display::wallet_info;
use serde::Serialize;

use super::{App, Params, State};
use crate::auth::Authenticated;
use crate::conditional::{Tag, unless_known};
use crate::dto::wallet_info::WalletInfo;
use crate::error::ApiError;

#[derive(Debug, Serialize)]
pub(super) struct Display {
    walletname: String,
    walletinfo: WalletInfo,
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wallet = app.loaded(&name)?;
    let snapshot = wallet.snapshot();
    let now = app.config.clock.wall();
    // Besides the snapshot only the states of bonds change, each once: when its time comes.
    let unlocked = snapshot
        .coins
        .iter()
        .filter_map(|coin| coin.locktime)
        .filter(|time| now >= u64::from(*time));
    let tag = Tag::new(wallet.loading, snapshot.revision, unlocked.count() as u64);
    Ok(unless_known(&headers, &tag, || Display {
        walletname: name,
        walletinfo: wallet_info(&snapshot, now).into(),
    }))
}
