//! `GET /getinfo` (`spec/api.md` 6.1): version gates of browser wallets. Never waits, never asks for a
//! token.

use axum::Json;
use serde_json::{Value, json};

use super::{App, State};

/// Version of the reference whose API this is; clients enable features by it.
pub(crate) const API_VERSION: &str = "0.9.12";

/// Additive abilities that a client can look for.
const EXTENSIONS: [&str; 12] = [
    "input_utxos",
    "scan_range",
    "mnemonic_extension",
    "freeze_batch",
    "address_label",
    "estimate_fee",
    "fidelity_bonds",
    "logout",
    "etag",
    "idempotency_key",
    "config",
    "fees",
];

pub(super) async fn handle(State(app): App) -> Json<Value> {
    let chain = app.chain_status();
    Json(json!({
        "version": API_VERSION,
        "backend": "joinery",
        "backend_version": app.config.version,
        "network": app.directory.network().name(),
        "block_height": chain.tip.map(|tip| tip.height),
        "electrum_connected": chain.connected,
        "api_extensions": EXTENSIONS,
    }))
}
