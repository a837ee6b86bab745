//! The market and the order book watcher in the configuration.

use std::net::SocketAddr;

use joinery_net::ProxyUrl;
use joinery_net::onion::Serving;
use joinery_net::tor::{ControlAddress, TorTiming};
use joinery_proto::onion::location::PeerAddress;
use joinery_roles::channel::{DirectoryAddress, MAX_DIRECTORIES};
use joinery_wallet::types::Network;

use super::file::{JoinmarketTable, OrderBookTable};
use super::irc::{self, Irc};
use super::{ConfigError, HostPort, hidden, parse, value};
use crate::cli::Options;
use crate::market::{MarketConfig, Watch};

/// Longest JoinMarket network name; the protocol sends it in each handshake.
const MAX_NETWORK_NAME: usize = 32;
/// Where Tor takes SOCKS connections by default.
const SOCKS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9050);
/// Where Tor is controlled by default.
const CONTROL: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9051);
/// Where peers' connections arrive by default, as with the reference.
const SERVE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Where the reference's order book watcher serves, and where web proxies look for it.
const ORDER_BOOK: &str = "127.0.0.1:62601";

/// Directories of the live network: the union of what the reference and joinmarket-ng have built in
/// (`spec/protocol.md` 4.11).
const MAINNET: [&str; 7] = [
    "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion:5222",
    "jmarketxf5wc4aldf3slm5u6726zsky52bqnfv6qyxe5hnafgly6yuyd.onion:5222",
    "coinjointovy3eq5fjygdwpkbcdx63d7vd4g32mw7y553uj3kjjzkiqd.onion:5222",
    "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion:5222",
    "odpwaf67rs5226uabcamvypg3y4bngzmfk7255flcdodesqhsvkptaid.onion:5222",
    "jmrust7bgdbdl6skkvuzhqost4jkikrluj6alemspeifm5hvgqz2qaad.onion:5222",
    "nok55gjlqw6h76zi6gigukoztpx7xgo5r3w5csu362nys5yukzrxpgad.onion:5222",
];

/// Directories of signet.
const SIGNET: [&str; 6] = [
    "rr6f6qtleiiwic45bby4zwmiwjrj3jsbmcvutwpqxjziaydjydkk5iad.onion:5222",
    "k74oyetjqgcamsyhlym2vgbjtvhcrbxr4iowd4nv4zk5sehw4v665jad.onion:5222",
    "y2ruswmdbsfl4hhwwiqz4m3sx6si5fr6l3pf62d4pms2b53wmagq3eqd.onion:5222",
    "signetvaxgd3ivj4tml4g6ed3samaa2rscre2gyeyohncmwk4fbesiqd.onion:5222",
    "u5oj5etqex3vh7jagljf3e2lo4awmmtcw3klbrlt2fonzyozpn5txrqd.onion:5222",
    "frqp4m6yveiagow73dplmnyv2abrqhte2grbhgw7hkbkhrv6zagrqbqd.onion:5222",
];

/// The JoinMarket network and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joinmarket {
    /// Its name in handshakes.
    pub(crate) network: String,
    /// Directory nodes; those that are built in unless others were given.
    pub(crate) directories: Vec<HostPort>,
    /// Tor's SOCKS port.
    pub(crate) socks: ProxyUrl,
    /// Tor's control port.
    pub(crate) tor_control: ControlAddress,
    /// How peers reach a maker of ours.
    pub(crate) service: ServiceKind,
    /// Where their connections arrive, on this machine.
    pub(crate) serve: SocketAddr,
    /// IRC servers; none unless given.
    pub(crate) irc: Vec<Irc>,
}

impl Joinmarket {
    pub(super) fn build(
        options: &Options,
        file: JoinmarketTable,
        network: Network,
    ) -> Result<Self, ConfigError> {
        let name = options.jm_network.clone().or(file.network);
        let name = name.unwrap_or_else(|| default_name(network).to_owned());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NETWORK_NAME || !name.bytes().all(allowed) {
            let reason = "must be 1 to 32 letters, digits, hyphens or underscores";
            return Err(value("joinmarket.network (--jm-network)", name, reason));
        }
        let given = options.directory.clone().or(file.directories).unwrap_or_default();
        if given.len() > MAX_DIRECTORIES {
            return Err(ConfigError::Contradiction(
                "joinmarket.directories (--directory) may have 64 entries at most",
            ));
        }
        let built_in = match network {
            Network::Mainnet => MAINNET.as_slice(),
            Network::Signet => SIGNET.as_slice(),
            _ => &[],
        };
        let built_in = built_in.iter().map(|text| (*text).to_owned());
        let given = if given.is_empty() { built_in.collect() } else { given };
        let irc = irc::build(file.irc, &name)?;
        let control = parse("joinmarket.tor_control", file.tor_control)?;
        let service = match file.service.as_deref() {
            None if network == Network::Regtest => ServiceKind::Plain,
            None | Some("onion") => ServiceKind::Onion,
            Some("plain") if network == Network::Regtest => ServiceKind::Plain,
            Some("plain") => {
                return Err(ConfigError::Contradiction(
                    "joinmarket.service can be plain on regtest only: everywhere else peers are served by Tor",
                ));
            }
            Some("off") => ServiceKind::Off,
            Some(other) => {
                return Err(value("joinmarket.service", other, "must be onion, plain or off"));
            }
        };
        Ok(Self {
            network: name,
            directories: list("joinmarket.directories (--directory)", &given)?,
            socks: parse("joinmarket.socks", file.socks)?.unwrap_or(ProxyUrl(SOCKS)),
            tor_control: control.unwrap_or(ControlAddress::Tcp(CONTROL)),
            service,
            serve: loopback("joinmarket.serve", file.serve.as_deref())?.unwrap_or(SERVE),
            irc,
        })
    }
}

/// How peers reach a maker of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    /// By an onion service that Tor makes.
    Onion,
    /// At a port of this machine, on regtest.
    Plain,
    /// Through directories only.
    Off,
}

impl Joinmarket {
    /// What a maker's channel is to serve.
    pub(crate) fn serving(&self) -> Option<Serving> {
        match self.service {
            ServiceKind::Onion => Some(Serving::Onion {
                listen: self.serve,
                control: self.tor_control.clone(),
                cookie: None,
                timing: TorTiming::USUAL,
            }),
            ServiceKind::Plain => Some(Serving::Plain { listen: self.serve, location: None }),
            ServiceKind::Off => None,
        }
    }
}

/// An address of this machine.
fn loopback(setting: &'static str, text: Option<&str>) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let address: Option<SocketAddr> = text.parse().ok();
    let address = address.filter(|address| address.ip().is_loopback());
    let reason = "must be a loopback address with a port, as in 127.0.0.1:8080";
    address.map(Some).ok_or_else(|| value(setting, text, reason))
}

fn host_port(setting: &'static str, text: &str) -> Result<HostPort, ConfigError> {
    HostPort::parse(text).map_err(|reason| value(setting, hidden(text), reason))
}

fn list(setting: &'static str, given: &[String]) -> Result<Vec<HostPort>, ConfigError> {
    given.iter().map(|text| host_port(setting, text)).collect()
}

/// The name that peers of a chain use.
const fn default_name(network: Network) -> &'static str {
    match network {
        Network::Mainnet => "mainnet",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
        _ => "testnet",
    }
}

/// The order book watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderBook {
    /// When it runs.
    pub(crate) watch: Watch,
    /// A loopback port of its own for web proxies.
    pub(crate) listen: Option<SocketAddr>,
    /// The port is one that was asked for: it must be had.
    pub(crate) required: bool,
}

impl OrderBook {
    pub(super) fn build(file: &OrderBookTable, network: Network) -> Result<Self, ConfigError> {
        let watch = match file.watch.as_deref() {
            None | Some("always") => Watch::Always,
            Some("unlocked") => Watch::Unlocked,
            Some("off") => Watch::Off,
            Some(other) => {
                return Err(value("order_book.watch", other, "must be always, unlocked or off"));
            }
        };
        // Private chains are many to a machine and have no proxies.
        let usual = (network != Network::Regtest).then_some(ORDER_BOOK);
        let listen = match file.listen.as_deref().or(usual) {
            None | Some("off") => None,
            Some(text) => {
                let reason = "must be off or a loopback address with a port, as in 127.0.0.1:62601";
                let address: Option<SocketAddr> = text.parse().ok();
                let address = address.filter(|address| address.ip().is_loopback());
                Some(address.ok_or_else(|| value("order_book.listen", text, reason))?)
            }
        };
        Ok(Self { watch, listen, required: file.listen.is_some() })
    }
}

/// What the market task is to do.
pub(crate) fn market(config: &super::Config) -> MarketConfig {
    let joinmarket = &config.joinmarket;
    let mut directories = Vec::new();
    for directory in &joinmarket.directories {
        let address: Option<PeerAddress> = directory.to_string().parse().ok();
        let loopback = directory.host == "127.0.0.1" || directory.host == "localhost";
        let plain = config.network == Network::Regtest && loopback;
        match address.filter(|address| address.is_onion() || plain) {
            Some(address) => directories.push(DirectoryAddress::new(address)),
            None => tracing::warn!(
                %directory,
                "is not used: directories are version 3 onion addresses; on regtest also 127.0.0.1"
            ),
        }
    }
    MarketConfig {
        watch: config.order_book.watch,
        network: config.network,
        jm_network: joinmarket.network.clone(),
        directories,
        socks: joinmarket.socks,
        irc: joinmarket.irc.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_directories_are_onions() {
        for text in MAINNET.iter().chain(&SIGNET) {
            assert!(text.parse::<PeerAddress>().unwrap().is_onion(), "{text}");
            assert!(HostPort::parse(text).is_ok());
        }
    }
}
