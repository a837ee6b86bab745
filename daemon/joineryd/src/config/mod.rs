//! What the daemon runs with: flags over variables over the file over defaults, checked once.

mod address;
mod board;
mod file;
mod irc;
mod market;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use joinery_net::{ElectrumConfig, Fingerprint, ProxyUrl, ServerUrl, TlsTrust};
use joinery_wallet::file::KdfParams;
use joinery_wallet::types::Network;
use tracing_subscriber::filter::Targets;

use crate::cli::Options;
pub(crate) use address::{HostPort, is_host_name};
pub(crate) use board::Board;
use file::File;
pub(crate) use irc::Irc;
pub(crate) use market::{Joinmarket, OrderBook, market};

/// Port of the API (`spec/api.md` 1.1).
const RPC_PORT: u16 = 28183;
/// Port of the websocket (`spec/api.md` 1.1).
const WEBSOCKET_PORT: u16 = 28283;
/// Where the root side of updates keeps its report, unless it is told another place.
pub(crate) const UPDATE_DIR: &str = "/var/lib/joinery-update";
/// Directories and names that a list may hold.
const MAX_LIST: usize = 100;

/// Everything the daemon must know before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where everything is kept, as given.
    pub(crate) data_dir: PathBuf,
    /// Where the root side of updates reports.
    pub(crate) update_dir: PathBuf,
    /// The chain.
    pub(crate) network: Network,
    /// The Electrum server; without one the daemon runs and says so wherever a chain is needed.
    pub(crate) electrum: Option<ElectrumConfig>,
    /// Wallet files.
    pub(crate) wallet: Wallet,
    /// The listeners.
    pub(crate) http: Http,
    /// The market.
    pub(crate) joinmarket: Joinmarket,
    /// The order book watcher.
    pub(crate) order_book: OrderBook,
    /// The board and what needs a press of its button.
    pub(crate) board: Board,
    /// Logging.
    pub(crate) log: Log,
}

/// Wallet files.
#[derive(Debug, Clone)]
pub(crate) struct Wallet {
    /// Cost of guessing the password of a new wallet file.
    pub(crate) kdf: KdfParams,
    /// Files of other programs are not converted.
    pub(crate) keep_legacy: bool,
}

/// The listeners and what they ask of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http {
    /// The API.
    pub(crate) listen: SocketAddr,
    /// The websocket.
    pub(crate) wss_listen: SocketAddr,
    /// HTTPS and WSS rather than plain HTTP.
    pub(crate) tls: bool,
    /// A browser wallet's files.
    pub(crate) static_dir: Option<PathBuf>,
    /// Further names of this machine: in the certificate, and allowed in `Host`.
    pub(crate) names: Vec<String>,
    /// Whether `Host` is checked at all.
    pub(crate) check_host: bool,
    /// Origins that may use the API besides our own and loopback.
    pub(crate) origins: Vec<String>,
    /// Whether the yield generator's report is given without a token.
    pub(crate) public_yieldgen_report: bool,
    /// Limits of connections.
    pub(crate) limits: Limits,
}

/// What one client, or all together, may take of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections at a time on both listeners together.
    pub(crate) connections: usize,
    /// Connections at a time from one address, other than loopback.
    pub(crate) connections_per_address: usize,
    /// Time for the TLS handshake.
    pub(crate) handshake: Duration,
    /// Time for the head of a request, counted from the end of the one before it.
    pub(crate) header: Duration,
    /// Time for the body of a request.
    pub(crate) body: Duration,
    /// Longest time that a client may take nothing of what is sent to it.
    pub(crate) stall: Duration,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// Form of the lines on stderr.
    pub(crate) format: LogFormat,
    /// What is logged.
    pub(crate) filter: Targets,
}

/// Why a configuration is refused. Each displays as one sentence that names the setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The file is larger than any honest one.
    #[error("configuration file {} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// It.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// Not TOML, an unknown key or a value of the wrong type.
    #[error("configuration file {}, line {line}: {reason}", path.display())]
    Syntax {
        /// It.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// A setting cannot be what it is.
    #[error("{setting} is {value:?}: {reason}")]
    Value {
        /// Key of the file, flag and variable.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What it must be or what is wrong with it.
        reason: String,
    },
    /// There is no default for the data directory.
    #[error("there is no home directory: say where data is kept with --data-dir")]
    NoHome,
    /// Settings that contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The settings of `[electrum]` do not go together.
    #[error("electrum: {0}")]
    Electrum(#[from] joinery_net::ConfigError),
}

impl Config {
    /// Reads the file that is named or found, puts flags and variables over it and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub(crate) fn load(options: &Options) -> Result<Self, ConfigError> {
        let file = match &options.config {
            Some(path) => File::read(path)?,
            None => {
                let found = match &options.data_dir {
                    Some(directory) => directory.clone(),
                    None => default_data_dir()?,
                }
                .join("joineryd.toml");
                if found.exists() { File::read(&found)? } else { File::default() }
            }
        };
        Self::build(options, file)
    }

    fn build(options: &Options, file: File) -> Result<Self, ConfigError> {
        let data_dir = match options.data_dir.clone().or(file.data_dir) {
            Some(directory) => directory,
            None => default_data_dir()?,
        };
        let update_dir = options.update_dir.clone().or(file.update_dir);
        let network = options.network.clone().or(file.network).unwrap_or_else(|| "mainnet".into());
        let network = parse_network(&network)?;
        Ok(Self {
            data_dir,
            update_dir: update_dir.unwrap_or_else(|| UPDATE_DIR.into()),
            network,
            electrum: build_electrum(options, file.electrum, network)?,
            wallet: Wallet::build(&file.wallet)?,
            http: Http::build(options, file.http)?,
            joinmarket: Joinmarket::build(options, file.joinmarket, network)?,
            order_book: OrderBook::build(&file.order_book, network)?,
            board: Board::build(options, file.board)?,
            log: Log::build(options, &file.log)?,
        })
    }
}

/// The server with everything that concerns it. The other keys are checked even when there is no server.
fn build_electrum(
    options: &Options,
    file: file::ElectrumTable,
    network: Network,
) -> Result<Option<ElectrumConfig>, ConfigError> {
    let server: Option<ServerUrl> =
        parse("electrum.url (--electrum)", options.electrum.clone().or(file.url))?;
    let proxy: Option<ProxyUrl> =
        parse("electrum.proxy (--proxy)", options.proxy.clone().or(file.proxy))?;
    let pin: Option<Fingerprint> = parse("electrum.certificate_sha256", file.certificate_sha256)?;
    let Some(server) = server else { return Ok(None) };
    let config = ElectrumConfig {
        proxy,
        tls: pin.map_or(TlsTrust::System, TlsTrust::Pin),
        allow_public_electrum: options.allow_public_electrum.or(file.allow_public).unwrap_or(false),
        ..ElectrumConfig::new(server, network)
    };
    config.check()?;
    Ok(Some(config))
}

impl Wallet {
    fn build(file: &file::WalletTable) -> Result<Self, ConfigError> {
        let standard = KdfParams::default();
        let kdf = match file.kdf_memory_mib {
            None => standard,
            Some(mib) => {
                KdfParams::new(mib.saturating_mul(1024), standard.time(), standard.lanes())
                    .map_err(|_| value("wallet.kdf_memory_mib", mib, "must be from 19 to 256"))?
            }
        };
        Ok(Self { kdf, keep_legacy: file.keep_legacy_keystore.unwrap_or(false) })
    }
}

impl Http {
    fn build(options: &Options, file: file::HttpTable) -> Result<Self, ConfigError> {
        let tls = options.no_tls.map(|no_tls| !no_tls).or(file.tls).unwrap_or(true);
        let listen = parse_listen(
            "http.listen (--listen)",
            options.listen.as_ref().or(file.listen.as_ref()),
            RPC_PORT,
        )?;
        let wss_listen = parse_listen(
            "http.wss_listen (--wss-listen)",
            options.wss_listen.as_ref().or(file.wss_listen.as_ref()),
            WEBSOCKET_PORT,
        )?;
        if listen == wss_listen && listen.port() != 0 {
            return Err(ConfigError::Contradiction(
                "http.listen (--listen) and http.wss_listen (--wss-listen) are the same address",
            ));
        }
        let exposed = !listen.ip().is_loopback() || !wss_listen.ip().is_loopback();
        if !tls && exposed && !file.plain_http_beyond_loopback.unwrap_or(false) {
            return Err(ConfigError::Contradiction(
                "plain HTTP (--no-tls, http.tls = false) is only allowed on loopback addresses, \
                 unless http.plain_http_beyond_loopback = true",
            ));
        }
        let static_dir = options.static_dir.clone().or(file.static_dir);
        if let Some(directory) = &static_dir
            && !directory.is_dir()
        {
            let reason = "must be an existing directory";
            return Err(value("http.static_dir (--static-dir)", directory.display(), reason));
        }
        let names = file.names.unwrap_or_default();
        for name in &names {
            if !is_host_name(name) {
                return Err(value(
                    "http.names",
                    name,
                    "must be host names without scheme and port",
                ));
            }
        }
        let origins = file.origins.unwrap_or_default();
        for origin in &origins {
            if !is_origin(origin) {
                let reason =
                    "must be origins such as https://wallet.example or http://192.168.1.5:3000";
                return Err(value("http.origins", origin, reason));
            }
        }
        if names.len() > MAX_LIST || origins.len() > MAX_LIST {
            return Err(ConfigError::Contradiction(
                "http.names and http.origins may have 100 entries at most",
            ));
        }
        Ok(Self {
            listen,
            wss_listen,
            tls,
            static_dir,
            names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            check_host: file.check_host.unwrap_or(true),
            origins,
            public_yieldgen_report: file.public_yieldgen_report.unwrap_or(true),
            limits: Limits {
                connections: count("http.connections", file.connections, 256)?,
                connections_per_address: count(
                    "http.connections_per_address",
                    file.connections_per_address,
                    64,
                )?,
                handshake: seconds("http.handshake_timeout_s", file.handshake_timeout_s, 10)?,
                header: seconds("http.header_timeout_s", file.header_timeout_s, 30)?,
                body: seconds("http.body_timeout_s", file.body_timeout_s, 30)?,
                stall: seconds("http.stall_timeout_s", file.stall_timeout_s, 60)?,
            },
        })
    }
}

impl Log {
    /// From flags and variables alone, for commands that read no file.
    ///
    /// # Errors
    /// When the format is none.
    pub(crate) fn from_options(options: &Options) -> Result<Self, ConfigError> {
        Self::build(options, &file::LogTable::default())
    }

    fn build(options: &Options, file: &file::LogTable) -> Result<Self, ConfigError> {
        let format = match options.log_format.as_ref().or(file.format.as_ref()).map(String::as_str)
        {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                return Err(value("log.format (--log-format)", other, "must be text or json"));
            }
        };
        let filter = file.filter.as_deref().unwrap_or("info");
        let filter = filter.parse().map_err(|_| {
            let reason = "must be a level or a list such as info,joinery_net=debug";
            value("log.filter", filter, reason)
        })?;
        Ok(Self { format, filter })
    }
}

/// `~/.joinery`.
fn default_data_dir() -> Result<PathBuf, ConfigError> {
    std::env::home_dir()
        .filter(|home| home.is_absolute())
        .map(|home| home.join(".joinery"))
        .ok_or(ConfigError::NoHome)
}

fn parse_network(text: &str) -> Result<Network, ConfigError> {
    Network::from_name(text)
        // Testnet 3 is only known for the wallet files of other programs.
        .filter(|network| *network != Network::Testnet)
        .ok_or_else(|| {
            value("network (--network)", text, "must be mainnet, signet, testnet4 or regtest")
        })
}

/// An address with a port, or an address alone with the usual port.
fn parse_listen(
    setting: &'static str,
    text: Option<&String>,
    port: u16,
) -> Result<SocketAddr, ConfigError> {
    let Some(text) = text else { return Ok(SocketAddr::from(([127, 0, 0, 1], port))) };
    text.parse().or_else(|_| text.parse().map(|address| SocketAddr::new(address, port))).map_err(
        |_| value(setting, text, "must be an IP address with a port, as in 127.0.0.1:28183"),
    )
}

/// Parses an optional setting; the error names it and says what its type says.
fn parse<T>(setting: &'static str, text: Option<String>) -> Result<Option<T>, ConfigError>
where
    T: FromStr,
    T::Err: ToString,
{
    text.map(|text| text.parse().map_err(|reason: T::Err| value(setting, hidden(&text), reason)))
        .transpose()
}

/// `scheme://host[:port]` as browsers send it.
fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    is_host_name(rest) || HostPort::parse(rest).is_ok()
}

fn count(setting: &'static str, given: Option<u32>, default: usize) -> Result<usize, ConfigError> {
    match given {
        None => Ok(default),
        // 10 000 open files are more than a small machine serves well.
        Some(number @ 1..=10_000) => Ok(usize::try_from(number).unwrap_or(default)),
        Some(number) => Err(value(setting, number, "must be from 1 to 10000")),
    }
}

fn seconds(
    setting: &'static str,
    given: Option<u32>,
    default: u64,
) -> Result<Duration, ConfigError> {
    match given {
        None => Ok(Duration::from_secs(default)),
        Some(number @ 1..=3600) => Ok(Duration::from_secs(u64::from(number))),
        Some(number) => Err(value(setting, number, "must be from 1 to 3600 seconds")),
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "numbers and paths' displays are given as they are"
)]
fn value(setting: &'static str, value: impl ToString, reason: impl ToString) -> ConfigError {
    ConfigError::Value { setting, value: value.to_string(), reason: reason.to_string() }
}

/// The text without what might be a password in a URL: errors go to logs.
fn hidden(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => text.to_owned(),
    }
}

/// The text of the documented sample, for the test below and for whoever wants to compare.
#[cfg(test)]
const SAMPLE: &str = include_str!("../../../../docs/joineryd.toml");

#[cfg(test)]
mod tests;
