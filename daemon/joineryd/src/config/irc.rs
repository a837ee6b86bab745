//! IRC servers in the configuration.

use std::net::IpAddr;

use joinery_net::TlsTrust;
use joinery_roles::irc_channel::{IrcServer, IrcServerError, MAX_SERVERS};

use super::address::is_host_name;
use super::file::IrcTable;
use super::{ConfigError, hidden, parse, value};

/// The market's channel, to which each network adds its suffix.
const CHANNEL: &str = "joinmarket-pit";
/// Usual port with TLS.
const TLS_PORT: u16 = 6697;
/// Usual port without.
const PLAIN_PORT: u16 = 6667;

/// A server, and whose word is taken for its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Irc {
    /// Where, and which channel.
    pub(crate) server: IrcServer,
    /// Certificates that are believed.
    pub(crate) trust: TlsTrust,
}

/// The servers of a file. `network`: name of the JoinMarket network.
pub(super) fn build(tables: Vec<IrcTable>, network: &str) -> Result<Vec<Irc>, ConfigError> {
    if tables.len() > MAX_SERVERS {
        return Err(ConfigError::Contradiction("joinmarket.irc may be there 16 times at most"));
    }
    let mut servers = Vec::with_capacity(tables.len());
    for table in tables {
        let irc = one(table, network)?;
        let same = |other: &Irc| {
            other.server.host() == irc.server.host() && other.server.port() == irc.server.port()
        };
        if servers.iter().any(same) {
            // Our own nick would be in use there.
            return Err(ConfigError::Contradiction("joinmarket.irc names a server twice"));
        }
        servers.push(irc);
    }
    Ok(servers)
}

fn one(table: IrcTable, network: &str) -> Result<Irc, ConfigError> {
    let Some(host) = table.host else {
        return Err(ConfigError::Contradiction("joinmarket.irc needs a host"));
    };
    let host = host.to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    if ip.is_none() && !is_host_name(&host) {
        let reason = "must be a host name or an address, without a port";
        return Err(value("joinmarket.irc.host", hidden(&host), reason));
    }
    let local = ip.is_some_and(|ip| ip.is_loopback()) || host == "localhost";
    // An onion address is its own encryption, and nobody listens within this machine.
    let tls = table.tls.unwrap_or_else(|| !local && !host.ends_with(".onion"));
    let pin = parse("joinmarket.irc.certificate_sha256", table.certificate_sha256)?;
    if pin.is_some() && !tls {
        return Err(ConfigError::Contradiction(
            "joinmarket.irc.certificate_sha256 is of no use without tls",
        ));
    }
    let port = table.port.unwrap_or(if tls { TLS_PORT } else { PLAIN_PORT });
    let channel = table.channel.unwrap_or_else(|| CHANNEL.to_owned());
    let server =
        IrcServer::new(&host, port, &channel, network, tls).map_err(|error| match error {
            IrcServerError::Port => value("joinmarket.irc.port", port, "must be from 1 to 65535"),
            IrcServerError::Channel => value(
                "joinmarket.irc.channel",
                &channel,
                "must be 1 to 40 letters, digits, hyphens, dots or underscores, without #",
            ),
            other => value("joinmarket.irc.host", &host, other),
        })?;
    Ok(Irc { server, trust: pin.map_or(TlsTrust::System, TlsTrust::Pin) })
}
