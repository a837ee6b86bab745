//! Makes the byte stream to the server: TCP or SOCKS5, then TLS when the URL says so.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::{ConfigError, ElectrumConfig};
use super::prompt::Prompt;
use super::socks::{self, Isolation, SocksError};
use super::tls;
use super::url::{Host, Scheme, ServerUrl, is_private};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a connection is for; each purpose gets its own Tor circuit (`spec/wallet.md` 13.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Our own scripts.
    Wallet,
    /// Coins of others.
    Lookup,
    /// One transaction to be sent.
    Broadcast,
}

impl Purpose {
    /// Name of the thread and of the proxy user.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Wallet => "electrum",
            Self::Lookup => "electrum-lookup",
            Self::Broadcast => "electrum-broadcast",
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConnectError {
    #[error("no connection within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the name {name} cannot be resolved: {source}")]
    Name { name: String, source: std::io::Error },
    #[error("{address} is not on a private network, and public servers are not allowed")]
    Public { address: SocketAddr },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Socks(#[from] SocksError),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("TLS failed: {0}")]
    TlsName(#[from] rustls::Error),
}

type Resolution = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;
/// Looks a name up. A field so that a test can prove that nobody asks when there is a proxy.
type Resolver = Arc<dyn Fn(String, u16) -> Resolution + Send + Sync>;

/// A stream, and whether its other end is a stranger that sees our address.
pub(crate) struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) public: bool,
}

/// Knows everything that is needed to connect again and again.
#[derive(Clone)]
pub(crate) struct Connector {
    server: ServerUrl,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<(SocketAddr, Isolation)>,
    allow_public: bool,
    timeout: Duration,
    resolver: Resolver,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connector {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(config: &ElectrumConfig, purpose: Purpose) -> Result<Self, ConfigError> {
        let tls = match config.server.scheme {
            Scheme::Tcp => None,
            Scheme::Ssl => Some(tls::client_config(config.tls)?),
        };
        let isolation = isolation(purpose);
        Ok(Self {
            server: config.server.clone(),
            tls,
            proxy: config.proxy.map(|proxy| (proxy.0, isolation)),
            allow_public: config.allow_public_electrum,
            timeout: config.timing.connect,
            resolver: Arc::new(|name, port| {
                Box::pin(async move {
                    Ok(tokio::net::lookup_host((name, port)).await?.take(ADDRESSES_MAX).collect())
                })
            }),
        })
    }

    /// The same way to the server, on a circuit that nothing else has used or will use.
    pub(crate) fn for_one_broadcast(&self) -> Self {
        let mut fresh = self.clone();
        if let Some((_, isolation)) = &mut fresh.proxy {
            *isolation = self::isolation(Purpose::Broadcast);
        }
        fresh
    }

    /// Connects, TLS included, within the configured time.
    pub(crate) async fn connect(&self) -> Result<Connected, ConnectError> {
        tokio::time::timeout(self.timeout, self.establish())
            .await
            .unwrap_or(Err(ConnectError::TimedOut(self.timeout)))
    }

    async fn establish(&self) -> Result<Connected, ConnectError> {
        let (stream, public) = match &self.proxy {
            Some((proxy, isolation)) => {
                let stream =
                    socks::connect(*proxy, &self.server.host, self.server.port, isolation).await?;
                (stream, false)
            }
            None => self.direct().await?,
        };
        let stream = Prompt::new(stream)?;
        let Some(tls) = &self.tls else {
            return Ok(Connected { stream: Box::new(stream), public });
        };
        let name = tls::server_name(&self.server.host)?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(ConnectError::Tls)?;
        Ok(Connected { stream: Box::new(stream), public })
    }

    async fn direct(&self) -> Result<(TcpStream, bool), ConnectError> {
        let port = self.server.port;
        let addresses = match &self.server.host {
            Host::Ip(address) => vec![SocketAddr::new(*address, port)],
            Host::Name(name) => (self.resolver)(name.clone(), port)
                .await
                .map_err(|source| ConnectError::Name { name: name.clone(), source })?,
        };
        let mut failure = ConnectError::Io(std::io::ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            let public = !is_private(address.ip());
            // A name that promised to be local and leads elsewhere is not talked to.
            if public && !self.allow_public {
                failure = ConnectError::Public { address };
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, public)),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }
}

/// What no other connection has had. The random half keeps restarts of the daemon apart, too.
fn isolation(purpose: Purpose) -> Isolation {
    let password = format!("{:032x}", rand::random::<u128>());
    Isolation { user: format!("joinery-{}", purpose.name()), password }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use joinery_wallet::types::Network;

    use super::*;

    type Asked = Arc<Mutex<Vec<String>>>;

    /// A connector whose DNS answers `address` to everything and writes down what it was asked.
    fn connector(config: &ElectrumConfig, address: SocketAddr) -> (Connector, Asked) {
        let mut connector = Connector::new(config, Purpose::Wallet).unwrap();
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        connector.resolver = Arc::new(move |name, _| {
            log.lock().unwrap().push(name);
            Box::pin(async move { Ok(vec![address]) })
        });
        (connector, asked)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn local_name_that_leads_to_a_public_address_is_not_talked_to() {
        let config =
            ElectrumConfig::new("tcp://node.local:50001".parse().unwrap(), Network::Regtest);
        let (connector, asked) = connector(&config, "192.0.2.1:50001".parse().unwrap());
        let error = runtime().block_on(connector.connect()).err().unwrap();
        assert!(matches!(error, ConnectError::Public { .. }), "{error}");
        assert_eq!(*asked.lock().unwrap(), ["node.local"]);
    }

    /// Defect 28: a name looked up on this side of the proxy tells the world where we connect to.
    #[test]
    fn no_udp53_ever_when_there_is_a_proxy() {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = ElectrumConfig::new(
            "tcp://electrum.example.org:50001".parse().unwrap(),
            Network::Regtest,
        );
        config.proxy = Some(format!("socks5://{}", proxy.local_addr().unwrap()).parse().unwrap());
        let (connector, asked) = connector(&config, "127.0.0.1:1".parse().unwrap());
        let served = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = proxy.accept().unwrap();
            let mut hello = [0; 3];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(&[5, 2]).unwrap();
            let mut login = [0; 2];
            stream.read_exact(&mut login).unwrap();
            let mut user = vec![0; usize::from(login[1])];
            stream.read_exact(&mut user).unwrap();
            let mut length = [0; 1];
            stream.read_exact(&mut length).unwrap();
            let mut password = vec![0; usize::from(length[0])];
            stream.read_exact(&mut password).unwrap();
            stream.write_all(&[1, 0]).unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            let mut name = vec![0; usize::from(request[4])];
            stream.read_exact(&mut name).unwrap();
            // "Host unreachable", so that the attempt ends here.
            stream.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            (hello, String::from_utf8(user).unwrap(), request[3], String::from_utf8(name).unwrap())
        });
        let error = runtime().block_on(connector.connect()).err().unwrap();
        assert!(error.to_string().contains("host unreachable"), "{error}");
        let (hello, user, kind, name) = served.join().unwrap();
        assert_eq!(hello, [5, 1, 2], "only user and password are offered");
        assert_eq!(user, "joinery-electrum");
        assert_eq!((kind, name.as_str()), (3, "electrum.example.org"));
        assert!(asked.lock().unwrap().is_empty(), "no name was looked up");
    }
}
