//! A single outgoing connection to a node of the JoinMarket network.
//!
//! Onion names travel to the proxy as they are, with a user name and password that put each purpose on a circuit of
//! its own. Anything else is a numeric loopback address. No name is ever looked up here.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use crate::electrum::socks::{self, Isolation, SocksError};
use crate::electrum::{Host, ProxyUrl};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// There is no proxy (Tor) where one should be.
    #[error("the proxy {proxy} cannot be used: {reason}")]
    Proxy {
        /// Where it should be.
        proxy: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The proxy is there but could not connect.
    #[error("{0}")]
    Refused(String),
    /// A plain connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Neither an onion name nor an address of this machine.
    #[error("{host} is neither an onion name nor a loopback address")]
    NotAllowed {
        /// It.
        host: String,
    },
}

/// Connects to `host`: an onion name through `proxy`, or a loopback address directly. `user` and `password` isolate
/// the circuit. The caller bounds the time.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    host: &str,
    port: u16,
    proxy: ProxyUrl,
    user: &str,
    password: &str,
) -> Result<TcpStream, DialError> {
    let stream = if host.ends_with(".onion") {
        let isolation = Isolation { user: user.to_owned(), password: password.to_owned() };
        let name = Host::Name(host.to_owned());
        socks::connect(proxy.0, &name, port, &isolation).await.map_err(|error| match error {
            SocksError::Refused(_) => DialError::Refused(error.to_string()),
            SocksError::Io(_) | SocksError::NotSocks5 | SocksError::TooLong => {
                DialError::Proxy { proxy: proxy.0, reason: error.to_string() }
            }
        })?
    } else {
        let numeric =
            if host == "localhost" { Some([127, 0, 0, 1].into()) } else { host.parse().ok() };
        let address = numeric.filter(IpAddr::is_loopback);
        let address = address.ok_or_else(|| DialError::NotAllowed { host: host.to_owned() })?;
        TcpStream::connect((address, port)).await?
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_foreign_addresses_are_never_dialled() {
        let proxy = ProxyUrl("127.0.0.1:1".parse().unwrap());
        for host in ["directory.example", "10.0.0.1", "8.8.8.8", "::ffff:8.8.8.8", ""] {
            let outcome = dial(host, 5222, proxy, "a", "b").await;
            assert!(matches!(outcome, Err(DialError::NotAllowed { .. })), "{host}");
        }
        // Nothing listens on port 1: the proxy is the trouble, and nothing else was tried.
        let outcome = dial(&format!("{}.onion", "a".repeat(56)), 5222, proxy, "a", "b").await;
        assert!(matches!(outcome, Err(DialError::Proxy { .. })));
    }
}
