//! The JoinMarket wallet: keys and wallet files, the coin graph on BDK, coin selection, fees, direct
//! sends, the durable store and the single task that owns a wallet's state.
//!
//! What it deliberately is not: it opens no socket (a [`chain::ChainSource`] is handed in), knows no
//! HTTP, and takes no part in a coinjoin (the roles crate decides, this crate keeps the coins).
//!
//! The source of every rule is `spec/wallet.md`; decisions that differ are recorded under
//! `docs/decisions/`.

pub mod chain;
pub mod coinjoin_shape;
pub mod commitments;
pub mod directory;
pub mod display;
pub mod fee;
pub mod file;
mod graph;
pub mod keys;
pub mod message;
pub mod mnemonic;
pub mod path;
pub mod policy;
pub mod round;
pub mod select;
pub mod service;
pub mod snapshot;
pub mod spend;
pub mod store;
pub mod types;

pub use bdk_wallet::bitcoin;
