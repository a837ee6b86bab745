//! `GET /wallet/{walletname}/fidelity-bonds` (`spec/api.md` Appendix C 8): what clients would otherwise
//! have to guess from key paths.

use std::time::Duration;

use axum::Json;
use joinery_proto::fidelity_bond::{BondTerms, bond_value};
use joinery_wallet::chain::ChainSource;
use joinery_wallet::display::utxo_list;
use serde::Serialize;

use super::{Answer, App, Params, State};
use crate::auth::Authenticated;

/// How long the server may take to tell when a bond was confirmed.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
pub(super) struct Bond {
    utxo: String,
    address: String,
    path: String,
    /// Unix time.
    locktime: u32,
    locktime_iso: String,
    /// Satoshi.
    amount: u64,
    confirmations: u32,
    frozen: bool,
    expired: bool,
    /// Satoshi to the power of `bond_value_exponent`; null while the coin is unconfirmed or the server
    /// does not tell the time of its block.
    bond_value: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Bonds {
    fidelity_bonds: Vec<Bond>,
}

async fn confirmed_at(chain: &dyn ChainSource, height: Option<u32>) -> Option<u64> {
    let time = tokio::time::timeout(PATIENCE, chain.block_time(height?)).await;
    time.ok()?.ok().map(u64::from)
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
) -> Answer<Bonds> {
    let snapshot = app.loaded(&name)?.snapshot();
    let policy = app.settings.policy().load_full();
    // Locks are measured against the median time of the chain.
    let now = snapshot.tip.map_or_else(|| app.config.clock.wall(), |tip| tip.median_time.into());
    let mut fidelity_bonds = Vec::new();
    for view in utxo_list(&snapshot, policy.taker_utxo_retries) {
        let coin = snapshot.coins.iter().find(|coin| coin.outpoint == view.outpoint);
        let Some((coin, locktime)) = coin.and_then(|coin| Some((coin, coin.locktime?))) else {
            continue;
        };
        let time = confirmed_at(app.chain.as_ref(), coin.height).await;
        let value = time.map(|confirmation_time| {
            let terms =
                BondTerms { amount: coin.value, confirmation_time, locktime: locktime.into() };
            bond_value(&terms, now, policy.interest_rate, policy.bond_value_exponent)
        });
        fidelity_bonds.push(Bond {
            utxo: view.outpoint.to_string(),
            address: view.address.to_string(),
            path: view.path,
            locktime,
            locktime_iso: view
                .locktime
                .map(|text| text.replace(' ', "T") + "Z")
                .unwrap_or_default(),
            amount: coin.value.to_sat(),
            confirmations: view.confirmations,
            frozen: coin.frozen,
            expired: u64::from(locktime) <= now,
            bond_value: value,
        });
    }
    Ok(Json(Bonds { fidelity_bonds }))
}
