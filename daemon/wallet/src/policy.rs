//! The settings of `[POLICY]` that the wallet itself obeys (`spec/api.md` 10.1). The API layer owns the
//! text form and publishes validated values here.

use std::time::Duration;

/// Rule by which coins are chosen (`spec/wallet.md` 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MergeAlgorithm {
    /// Smallest single coin that suffices, else largest first.
    #[default]
    Default,
    /// Window over the ascending small coins.
    Gradual,
    /// Ascending accumulation, then drop what is not needed.
    Greedy,
    /// Shortest ascending prefix.
    Greediest,
}

/// How the miner fee rate is found (`spec/wallet.md` 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxFees {
    /// Confirmation target in blocks, 1 to 1000.
    Blocks(u16),
    /// Rate in satoshi per 1000 vbytes, above 1000.
    SatPerKvb(u64),
}

/// Validated wallet policy. Defaults are those of `spec/api.md` 10.1.
#[derive(Debug, Clone, PartialEq)]
pub struct WalletPolicy {
    /// `gaplimit`: captured when a wallet is opened.
    pub gap_limit: u32,
    /// `tx_fees`.
    pub tx_fees: TxFees,
    /// `tx_fees_factor`, 0 to 1: upward random variance of the rate.
    pub tx_fees_factor: f64,
    /// `absurd_fee_per_kb`, satoshi per 1000 vbytes: above it nothing is sent.
    pub absurd_fee_per_kvb: u64,
    /// `max_sats_freeze_reuse`: -1 freezes every coin on a reused address, else coins up to this value.
    pub max_sats_freeze_reuse: i64,
    /// `merge_algorithm`.
    pub merge_algorithm: MergeAlgorithm,
    /// `taker_utxo_retries`: commitments allowed per coin.
    pub taker_utxo_retries: u8,
    /// `interest_rate` of the bond value formula.
    pub interest_rate: f64,
    /// `bond_value_exponent`.
    pub bond_value_exponent: f64,
    /// How long the coins of a signed coinjoin stay reserved while nobody sees its transaction
    /// (`spec/roles.md` 4.10).
    pub pending_tx_timeout: Duration,
    /// How long they stay reserved when it was seen and has vanished, or when it is kept for others to send.
    pub missing_tx_timeout: Duration,
    /// Whether we send the complete transaction of a taker's round that was interrupted before anybody was seen to have
    /// sent it: not when `tx_broadcast` is `not-self`.
    pub send_interrupted: bool,
}

impl Default for WalletPolicy {
    fn default() -> Self {
        Self {
            gap_limit: 6,
            tx_fees: TxFees::Blocks(3),
            tx_fees_factor: 0.2,
            absurd_fee_per_kvb: 350_000,
            max_sats_freeze_reuse: -1,
            merge_algorithm: MergeAlgorithm::Default,
            taker_utxo_retries: 3,
            interest_rate: 0.015,
            bond_value_exponent: 1.3,
            pending_tx_timeout: Duration::from_secs(60 * 60),
            send_interrupted: true,
            missing_tx_timeout: Duration::from_secs(72 * 60 * 60),
        }
    }
}
