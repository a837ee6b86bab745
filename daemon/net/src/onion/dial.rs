//! Opens connections, by Tor or to loopback, and never asks anybody for a name.

use std::net::{IpAddr, SocketAddr};

use joinery_proto::onion::location::PeerAddress;
use joinery_roles::channel::Purpose;
use tokio::net::TcpStream;

use crate::Host;
use crate::electrum::socks::{self, Isolation, SocksError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Socks(#[from] SocksError),
    #[error("there is no proxy, and {address} is not on this machine")]
    NoProxy { address: PeerAddress },
}

/// Dials for one channel. Random per process and per channel, so that nothing links its circuits to those of
/// another nick.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    proxy: Option<SocketAddr>,
    password: String,
}

impl Dialer {
    pub(super) fn new(proxy: Option<SocketAddr>) -> Self {
        Self { proxy, password: format!("{:032x}", rand::random::<u128>()) }
    }

    /// One circuit for each directory and each peer.
    fn isolation(&self, purpose: Purpose) -> Isolation {
        let user = match purpose {
            Purpose::Directory(id) => format!("jm-directory-{}", id.0),
            Purpose::Peer(nick) => format!("jm-peer-{nick}"),
        };
        Isolation { user, password: self.password.clone() }
    }

    /// Connects. The machine bounds the time.
    pub(super) async fn dial(
        &self,
        address: &PeerAddress,
        purpose: Purpose,
    ) -> Result<TcpStream, DialError> {
        let (host, port) = (address.host(), address.port());
        let stream = match (host.parse::<IpAddr>(), self.proxy) {
            (Ok(ip), _) if ip.is_loopback() => {
                TcpStream::connect(SocketAddr::new(ip, port)).await?
            }
            (_, Some(proxy)) => {
                let host = Host::Name(host.to_owned());
                socks::connect(proxy, &host, port, &self.isolation(purpose)).await?
            }
            (_, None) => return Err(DialError::NoProxy { address: address.clone() }),
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
