//! The configuration file as it is written: TOML, one table per concern, unknown keys refused.
//!
//! Nothing is checked here beyond the types of TOML; [`super::Config`] is what the daemon runs with. Every
//! key is explained in `docs/joineryd.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;

/// Largest configuration file that is read, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) update_dir: Option<PathBuf>,
    pub(crate) network: Option<String>,
    #[serde(default)]
    pub(crate) electrum: ElectrumTable,
    #[serde(default)]
    pub(crate) wallet: WalletTable,
    #[serde(default)]
    pub(crate) http: HttpTable,
    #[serde(default)]
    pub(crate) joinmarket: JoinmarketTable,
    #[serde(default)]
    pub(crate) order_book: OrderBookTable,
    #[serde(default)]
    pub(crate) board: BoardTable,
    #[serde(default)]
    pub(crate) log: LogTable,
}

/// `[electrum]`: where the chain comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ElectrumTable {
    pub(crate) url: Option<String>,
    pub(crate) proxy: Option<String>,
    pub(crate) certificate_sha256: Option<String>,
    pub(crate) allow_public: Option<bool>,
}

/// `[wallet]`: wallet files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalletTable {
    pub(crate) kdf_memory_mib: Option<u32>,
    pub(crate) keep_legacy_keystore: Option<bool>,
}

/// `[http]`: who may talk to the API and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpTable {
    pub(crate) listen: Option<String>,
    pub(crate) wss_listen: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) plain_http_beyond_loopback: Option<bool>,
    pub(crate) static_dir: Option<PathBuf>,
    pub(crate) names: Option<Vec<String>>,
    pub(crate) check_host: Option<bool>,
    pub(crate) origins: Option<Vec<String>>,
    pub(crate) public_yieldgen_report: Option<bool>,
    pub(crate) connections: Option<u32>,
    pub(crate) connections_per_address: Option<u32>,
    pub(crate) handshake_timeout_s: Option<u32>,
    pub(crate) header_timeout_s: Option<u32>,
    pub(crate) body_timeout_s: Option<u32>,
    pub(crate) stall_timeout_s: Option<u32>,
}

/// `[joinmarket]`: the market and how it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinmarketTable {
    pub(crate) network: Option<String>,
    pub(crate) directories: Option<Vec<String>>,
    pub(crate) socks: Option<String>,
    pub(crate) tor_control: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) serve: Option<String>,
    #[serde(default)]
    pub(crate) irc: Vec<IrcTable>,
}

/// `[[joinmarket.irc]]`: an IRC server, once for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IrcTable {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) channel: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) certificate_sha256: Option<String>,
}

/// `[order_book]`: the watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBookTable {
    pub(crate) watch: Option<String>,
    pub(crate) listen: Option<String>,
}

/// `[board]`: the display and button.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoardTable {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) approve: Option<Vec<String>>,
    pub(crate) approve_send_above_sats: Option<u64>,
    pub(crate) approve_within_s: Option<u32>,
    pub(crate) shutdown_command: Option<Vec<String>>,
    pub(crate) show_balance: Option<bool>,
    pub(crate) resume: Option<bool>,
}

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogTable {
    pub(crate) format: Option<String>,
    pub(crate) filter: Option<String>,
}

impl File {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or is not what it should be; the line is named.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.len() > MAX_FILE {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// Parses a file's text; `path` is for the error.
    ///
    /// # Errors
    /// With line and reason.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                // The parser's text may have several lines; one sentence is promised.
                reason: error.message().lines().collect::<Vec<_>>().join(", "),
            }
        })
    }
}
