//! Entries of `/utxos` (`spec/api.md` 8).

use std::sync::Arc;

use joinery_wallet::display::UtxoView;
use serde::Serialize;

/// One coin of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Utxo {
    utxo: String,
    address: Arc<str>,
    path: String,
    label: Arc<str>,
    value: u64,
    tries: u8,
    tries_remaining: u8,
    /// Always false: commitments of foreign coins are never listed, browser wallets add them up.
    external: bool,
    mixdepth: u8,
    confirmations: u32,
    frozen: bool,
    /// `YYYY-MM-DD HH:MM:SS`; absent unless timelocked, since clients only look whether it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    locktime: Option<String>,
}

impl From<UtxoView> for Utxo {
    fn from(view: UtxoView) -> Self {
        Self {
            utxo: view.outpoint.to_string(),
            address: view.address,
            path: view.path,
            label: view.label,
            value: view.value.to_sat(),
            tries: view.tries,
            tries_remaining: view.tries_remaining,
            external: false,
            mixdepth: view.mixdepth.0,
            confirmations: view.confirmations,
            frozen: view.frozen,
            locktime: view.locktime,
        }
    }
}
