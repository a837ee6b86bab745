//! What moves bytes between Joinery and the outside world: the Electrum engine, which implements
//! [`joinery_wallet::chain::ChainSource`], the directory node, which drives [`joinery_roles::directory`], the
//! message channels ([`onion`], [`irc`]), and our onion service by Tor's control port ([`tor`]).
//!
//! What it deliberately is not: it knows no keys, no coins and no policy. Which scripts are watched, what a
//! transaction means and when one is forgotten is decided by the wallet; this crate downloads, proves and
//! reports.

mod directory;
mod electrum;
pub mod irc;
mod link;
pub mod onion;
mod text;
pub mod tor;

pub use directory::{DirectoryError, DirectoryServer};
pub use electrum::{
    ConfigError, ElectrumConfig, ElectrumEngine, Fingerprint, FingerprintError, Host, ProxyUrl,
    Scheme, ServerUrl, Timing, TlsTrust, UrlError, tls_client_config,
};
