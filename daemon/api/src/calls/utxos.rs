//! `GET /wallet/{walletname}/utxos` (`spec/api.md` 6.10, 8).

use axum::Json;
use joinery_wallet::display::utxo_list;
use serde::Serialize;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;
use crate::dto::utxos::Utxo;

#[derive(Debug, Serialize)]
pub(super) struct Utxos {
    utxos: Vec<Utxo>,
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer<Utxos> {
    let snapshot = app.loaded(&name)?.snapshot();
    let retries = app.settings.policy().load().taker_utxo_retries;
    let utxos = utxo_list(&snapshot, retries).into_iter().map(Utxo::from).collect();
    Ok(Json(Utxos { utxos }))
}
