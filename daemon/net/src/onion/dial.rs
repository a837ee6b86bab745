//! Opens connections, by Tor or to loopback, and never asks anybody for a name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use joinery_proto::onion::location::PeerAddress;
use joinery_roles::channel::Purpose;
use tokio::net::TcpStream;

use crate::Host;
use crate::electrum::socks::{self, Isolation, SocksError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// There is no proxy (Tor) where one should be.
    #[error("the proxy {proxy} cannot be used: {source}")]
    Proxy { proxy: SocketAddr, source: SocksError },
    /// The proxy is there and could not connect.
    #[error(transparent)]
    Refused(SocksError),
    /// A connection on this machine failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An onion name, and no proxy was configured.
    #[error("there is no proxy to reach {address} by")]
    NoProxy { address: PeerAddress },
    /// Neither an onion name nor an address of this machine.
    #[error("{address} is neither an onion service nor on this machine")]
    NotAllowed { address: PeerAddress },
}

impl DialError {
    /// What it says of the proxy: nothing; that it could be used; or why it could not.
    pub(super) fn of_proxy(&self) -> Option<Option<String>> {
        match self {
            Self::Proxy { .. } | Self::NoProxy { .. } => Some(Some(self.to_string())),
            Self::Refused(_) => Some(None),
            Self::Io(_) | Self::NotAllowed { .. } => None,
        }
    }
}

/// Dials for one channel. The password is random for each channel, so that nothing links its circuits to those of
/// another nick.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    purpose: &'static str,
    proxy: Option<SocketAddr>,
    password: String,
}

impl Dialer {
    pub(super) fn new(purpose: &'static str, proxy: Option<SocketAddr>) -> Self {
        Self { purpose, proxy, password: format!("{:032x}", rand::random::<u128>()) }
    }

    /// One circuit for each directory and each peer.
    fn isolation(&self, purpose: Purpose) -> Isolation {
        let user = match purpose {
            Purpose::Directory(id) => format!("{}-directory-{}", self.purpose, id.0),
            Purpose::Peer(nick) => format!("{}-peer-{nick}", self.purpose),
        };
        Isolation { user, password: self.password.clone() }
    }

    /// Connects; returns whether by the proxy. The machine bounds the time.
    pub(super) async fn dial(
        &self,
        address: &PeerAddress,
        purpose: Purpose,
    ) -> Result<(TcpStream, bool), DialError> {
        let (host, port) = (address.host(), address.port());
        if address.is_onion() {
            let proxy =
                self.proxy.ok_or_else(|| DialError::NoProxy { address: address.clone() })?;
            let host = Host::Name(host.to_owned());
            let stream = socks::connect(proxy, &host, port, &self.isolation(purpose)).await;
            let stream = stream.map_err(|error| match error {
                SocksError::Refused(_) => DialError::Refused(error),
                source => DialError::Proxy { proxy, source },
            })?;
            return Ok((stream, true));
        }
        let numeric =
            if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse().ok() };
        let numeric = numeric.filter(IpAddr::is_loopback);
        let ip = numeric.ok_or_else(|| DialError::NotAllowed { address: address.clone() })?;
        let stream = TcpStream::connect(SocketAddr::new(ip, port)).await?;
        stream.set_nodelay(true)?;
        Ok((stream, false))
    }
}

#[cfg(test)]
mod tests {
    use joinery_roles::event::DirectoryId;

    use super::*;

    #[tokio::test]
    async fn names_and_foreign_addresses_are_never_dialled() {
        let dialer = Dialer::new("test", Some("127.0.0.1:1".parse().unwrap()));
        let purpose = Purpose::Directory(DirectoryId(0));
        for host in ["directory.example", "10.0.0.1", "8.8.8.8", "localhost.example"] {
            let address: PeerAddress = format!("{host}:5222").parse().unwrap();
            let outcome = dialer.dial(&address, purpose).await;
            assert!(matches!(outcome, Err(DialError::NotAllowed { .. })), "{host}");
        }
        let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";
        let onion: PeerAddress = onion.parse().unwrap();
        // Nothing listens on port 1: the proxy is the trouble, and nothing else was tried.
        let outcome = dialer.dial(&onion, purpose).await;
        assert!(matches!(outcome, Err(DialError::Proxy { .. })));
        let outcome = Dialer::new("test", None).dial(&onion, purpose).await;
        assert!(matches!(outcome, Err(DialError::NoProxy { .. })));
    }
}
