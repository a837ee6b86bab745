//! `GET /wallet/{walletname}/utxos` (`spec/api.md` 6.10, 8).

use axum::response::Response;
use http::HeaderMap;
use joinery_wallet::display::utxo_list;
use serde::Serialize;

use super::{App, Params, State};
use crate::auth::Authenticated;
use crate::conditional::{Tag, unless_known};
use crate::dto::utxos::Utxo;
use crate::error::ApiError;

#[derive(Debug, Serialize)]
pub(super) struct Utxos {
    utxos: Vec<Utxo>,
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wallet = app.loaded(&name)?;
    let snapshot = wallet.snapshot();
    let retries = app.settings.policy().load().taker_utxo_retries;
    let tag = Tag::new(wallet.loading, snapshot.revision, retries.into());
    Ok(unless_known(&headers, &tag, || Utxos {
        utxos: utxo_list(&snapshot, retries).into_iter().map(Utxo::from).collect(),
    }))
}
