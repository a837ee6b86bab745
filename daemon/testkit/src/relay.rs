//! Something between a client and a server: TLS, a SOCKS5 proxy, or a cable that somebody pulls.
//!
//! In front of a real electrs or of [`FakeElectrum`](crate::fake_electrum::FakeElectrum).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

/// A self-signed certificate for `localhost`, `127.0.0.1` and the names given, with its key.
#[derive(Debug)]
pub struct TestCertificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl TestCertificate {
    /// Makes a new one, P-256.
    ///
    /// # Errors
    /// When a name is not a DNS name or IP address.
    pub fn new(names: &[&str]) -> Result<Self> {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend(names.iter().map(|name| (*name).to_owned()));
        let made = rcgen::generate_simple_self_signed(all)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Self { der: made.cert.der().clone(), key })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// SHA-256 over the DER form: what a client pins.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.der).to_byte_array()
    }

    /// Configuration of a TLS server that presents this certificate.
    ///
    /// # Errors
    /// When rustls does not accept the key, which would be a defect.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }
}

/// A connection that a SOCKS5 client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocksRequest {
    /// Host name or address as sent, and port: `name.onion:50001`.
    pub target: String,
    /// User name and password, which Tor uses to keep circuits apart.
    pub credentials: Option<(String, String)>,
}

#[derive(Default)]
struct State {
    accepted: u64,
    refusing: bool,
    cut_after: Option<u64>,
    requests: Vec<SocksRequest>,
}

struct Shared {
    state: Mutex<State>,
    /// Raised to end all connections that are open.
    generation: watch::Sender<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Kind {
    Plain(SocketAddr),
    Tls(SocketAddr, TlsAcceptor),
    Socks(HashMap<String, SocketAddr>),
}

/// A running relay; it ends with its connections when dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Relay").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Relay {
    /// Forwards bytes to `target` and back.
    ///
    /// # Errors
    /// When no port is free or no thread can be made.
    pub fn plain(target: SocketAddr) -> Result<Self> {
        Self::start(Kind::Plain(target))
    }

    /// Speaks TLS to clients and plain TCP to `target`.
    ///
    /// # Errors
    /// As [`Self::plain`] and [`TestCertificate::server_config`].
    pub fn tls(target: SocketAddr, certificate: &TestCertificate) -> Result<Self> {
        Self::start(Kind::Tls(target, TlsAcceptor::from(certificate.server_config()?)))
    }

    /// A SOCKS5 proxy that knows these names (`host:port`, as the client sends them) and nothing else, and
    /// writes down what it was asked ([`Self::requests`]). With or without user name and password.
    ///
    /// # Errors
    /// As [`Self::plain`].
    pub fn socks5<N: Into<String>>(
        routes: impl IntoIterator<Item = (N, SocketAddr)>,
    ) -> Result<Self> {
        let routes = routes.into_iter().map(|(name, target)| (name.into(), target)).collect();
        Self::start(Kind::Socks(routes))
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every open connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Has each connection accepted from now on end after so many bytes from the server to the client (of plain
    /// text, without TLS); `None` for never.
    pub fn cut_after(&self, bytes: Option<u64>) {
        self.shared.state().cut_after = bytes;
    }

    /// Closes new connections at once (`true`) or serves them again.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.state().refusing = refuse;
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// What clients asked the SOCKS5 proxy for, known names or not.
    #[must_use]
    pub fn requests(&self) -> Vec<SocksRequest> {
        self.shared.state().requests.clone()
    }

    fn start(kind: Kind) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { state: Mutex::default(), generation: watch::Sender::new(0) });
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(&listener, Arc::new(kind), for_thread) => {}
                    // Dropping the sender counts as well.
                    _ = stopped => {}
                }
            });
            // Dropping the runtime drops every connection.
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; dropping must not panic again.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: &TcpListener, kind: Arc<Kind>, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let limit = {
            let mut state = shared.state();
            if state.refusing {
                continue;
            }
            state.accepted += 1;
            state.cut_after
        };
        let (kind, shared) = (Arc::clone(&kind), Arc::clone(&shared));
        let mut generation = shared.generation.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                // Whatever the reason, both ends see the connection close.
                _ = serve(client, &kind, &shared, limit) => {}
                _ = generation.changed() => {}
            }
        });
    }
}

async fn serve(
    mut client: TcpStream,
    kind: &Kind,
    shared: &Shared,
    limit: Option<u64>,
) -> Result<()> {
    client.set_nodelay(true)?;
    match kind {
        Kind::Plain(target) => forward(client, *target, limit).await,
        Kind::Tls(target, acceptor) => {
            let client = acceptor.accept(client).await?;
            forward(client, *target, limit).await
        }
        Kind::Socks(routes) => {
            let request = socks_request(&mut client).await?;
            let target = routes.get(&request.target).copied();
            shared.state().requests.push(request);
            // 0: granted, 4: host unreachable; the bound address is of no use to anybody.
            let code = if target.is_some() { 0 } else { 4 };
            client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            match target {
                Some(target) => forward(client, target, limit).await,
                None => Ok(()),
            }
        }
    }
}

async fn forward<C>(mut client: C, target: SocketAddr, limit: Option<u64>) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    let Some(limit) = limit else {
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = server.split();
    let mut limited = from_server.take(limit);
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended?,
        ended = tokio::io::copy(&mut limited, &mut to_client) => ended?,
    };
    Ok(())
}

/// The client's half of RFC 1928 and RFC 1929 up to its request, answering as far as that.
async fn socks_request(client: &mut TcpStream) -> Result<SocksRequest> {
    if client.read_u8().await? != 5 {
        bail!("not SOCKS5");
    }
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    let credentials = if methods.contains(&2) {
        client.write_all(&[5, 2]).await?;
        if client.read_u8().await? != 1 {
            bail!("not a password of RFC 1929");
        }
        let user = short_text(client).await?;
        let password = short_text(client).await?;
        client.write_all(&[1, 0]).await?;
        Some((user, password))
    } else {
        client.write_all(&[5, 0]).await?;
        None
    };
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let host = match head {
        [5, 1, _, 1] => Ipv4Addr::from(client.read_u32().await?).to_string(),
        [5, 1, _, 3] => short_text(client).await?,
        [5, 1, _, 4] => std::net::Ipv6Addr::from(client.read_u128().await?).to_string(),
        _ => bail!("not a request to connect: {head:?}"),
    };
    let port = client.read_u16().await?;
    Ok(SocksRequest { target: format!("{host}:{port}"), credentials })
}

async fn short_text(client: &mut TcpStream) -> Result<String> {
    let mut text = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut text).await?;
    String::from_utf8(text).context("text that is not UTF-8")
}
