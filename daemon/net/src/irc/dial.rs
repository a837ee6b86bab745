//! Opens connections to servers, by Tor or on this machine, and never asks anybody for a name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use joinery_roles::irc_channel::IrcServer;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::IrcSockets;
use crate::electrum::socks::{self, Isolation, SocksError};
use crate::electrum::{ConfigError, Host, tls};

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

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
    Io(#[from] std::io::Error),
    /// Not on this machine, and no proxy was configured.
    #[error("there is no proxy to reach {host} by")]
    NoProxy { host: String },
    /// TLS failed: most likely the certificate is not the one that is believed.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The host's name cannot be in a certificate.
    #[error("TLS: {0}")]
    TlsName(rustls::Error),
}

impl DialError {
    /// What it says of the proxy: nothing; that it could be used; or why it could not.
    pub(super) fn of_proxy(&self) -> Option<Option<String>> {
        match self {
            Self::Proxy { .. } | Self::NoProxy { .. } => Some(Some(self.to_string())),
            Self::Refused(_) => Some(None),
            Self::Io(_) | Self::Tls(_) | Self::TlsName(_) => None,
        }
    }
}

/// Dials for one channel. The password is random for each channel, so that nothing links its circuits to those of
/// another nick.
#[derive(Clone)]
pub(super) struct Dialer {
    purpose: &'static str,
    proxy: Option<SocketAddr>,
    password: String,
    tls: Arc<[Option<Arc<ClientConfig>>]>,
}

impl Dialer {
    /// Reads the certificates that are needed.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn new(sockets: &IrcSockets, servers: &[IrcServer]) -> Result<Self, ConfigError> {
        let trust = |place: usize| sockets.trust.get(place).copied().unwrap_or_default();
        let tls = servers.iter().enumerate().map(|(place, server)| {
            server.tls().then(|| tls::client_config(trust(place))).transpose()
        });
        Ok(Self {
            purpose: sockets.purpose,
            proxy: sockets.proxy,
            password: format!("{:032x}", rand::random::<u128>()),
            tls: tls.collect::<Result<_, _>>()?,
        })
    }

    /// Connects to the server at this place; returns whether by the proxy. The machine bounds the time.
    pub(super) async fn dial(
        &self,
        place: u16,
        server: &IrcServer,
    ) -> Result<(Box<dyn Stream>, bool), DialError> {
        let (stream, by_proxy) = self.connect(place, server).await?;
        let Some(config) = self.tls.get(usize::from(place)).and_then(Option::as_ref) else {
            return Ok((Box::new(stream), by_proxy));
        };
        let name = tls::server_name(&host(server.host())).map_err(DialError::TlsName)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.map_err(DialError::Tls)?;
        Ok((Box::new(stream), by_proxy))
    }

    async fn connect(
        &self,
        place: u16,
        server: &IrcServer,
    ) -> Result<(TcpStream, bool), DialError> {
        let (host, port) = (host(server.host()), server.port());
        if let Host::Ip(ip) = host
            && ip.is_loopback()
        {
            let stream = TcpStream::connect(SocketAddr::new(ip, port)).await?;
            stream.set_nodelay(true)?;
            return Ok((stream, false));
        }
        let no_proxy = || DialError::NoProxy { host: server.host().to_owned() };
        let proxy = self.proxy.ok_or_else(no_proxy)?;
        let user = format!("{}-irc-{place}", self.purpose);
        let isolation = Isolation { user, password: self.password.clone() };
        let stream = socks::connect(proxy, &host, port, &isolation).await;
        let stream = stream.map_err(|error| match error {
            SocksError::Refused(_) => DialError::Refused(error),
            source => DialError::Proxy { proxy, source },
        })?;
        Ok((stream, true))
    }
}

fn host(text: &str) -> Host {
    if text == "localhost" {
        return Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_or_else(|_| Host::Name(text.to_owned()), Host::Ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_beyond_this_machine_is_dialled_without_the_proxy() {
        let mut sockets = IrcSockets::new("test");
        for host in ["irc.example", "10.0.0.1", "2001:db8::1", "abc.onion", "localhost.example"] {
            let server = IrcServer::new(host, 6667, "pit", "mainnet", false).unwrap();
            sockets.proxy = None;
            let dialer = Dialer::new(&sockets, std::slice::from_ref(&server)).unwrap();
            let outcome = dialer.dial(0, &server).await;
            assert!(matches!(outcome, Err(DialError::NoProxy { .. })), "{host}");
            // Nothing listens on port 1: the proxy is the trouble, and nothing else was tried.
            sockets.proxy = Some("127.0.0.1:1".parse().unwrap());
            let dialer = Dialer::new(&sockets, std::slice::from_ref(&server)).unwrap();
            let outcome = dialer.dial(0, &server).await;
            assert!(matches!(outcome, Err(DialError::Proxy { .. })), "{host}");
        }
    }
}
