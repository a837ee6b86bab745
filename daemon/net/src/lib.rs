//! What moves bytes between Joinery and the outside world: at present the Electrum engine, which
//! implements [`joinery_wallet::chain::ChainSource`].
//!
//! What it deliberately is not: it knows no keys, no coins and no policy. Which scripts are watched, what a
//! transaction means and when one is forgotten is decided by the wallet; this crate downloads, proves and
//! reports.

mod electrum;
mod text;

pub use electrum::{
    ConfigError, ElectrumConfig, ElectrumEngine, Fingerprint, FingerprintError, Host, ProxyUrl,
    Scheme, ServerUrl, Timing, TlsTrust, UrlError,
};
