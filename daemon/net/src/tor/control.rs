//! The few words that we speak with Tor's control port.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::reply::{Replies, Reply, field};
use super::{ControlAddress, TorConfig};
use crate::text::printable;

/// Bytes of an authentication cookie.
const COOKIE_LEN: usize = 32;
/// Keys of the two hashes of SAFECOOKIE (control-spec 3.24).
const SERVER_KEY: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
const CLIENT_KEY: &[u8] = b"Tor safe cookie authentication controller-to-server hash";
/// Characters of a version 3 service name without `.onion`.
const SERVICE_NAME: usize = 56;

/// Why the control port gave us no service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It cannot be reached, or the connection broke.
    #[error("Tor's control port cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("Tor's control port did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It closed the connection.
    #[error("Tor's control port closed the connection")]
    Closed,
    /// It does not speak as Tor does.
    #[error("the control port does not speak as Tor does: {0}")]
    Protocol(&'static str),
    /// None of its ways of authentication is ours.
    #[error("Tor's control port wants an authentication other than a cookie: {0}")]
    Method(String),
    /// The cookie cannot be read.
    #[error("Tor's authentication cookie {} cannot be read: {source}", path.display())]
    Cookie {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The other end does not know the cookie: it is not the Tor that wrote it.
    #[error("the control port does not know Tor's cookie")]
    ForeignCookie,
    /// Tor said no.
    #[error("Tor refused {what}: {code} {text}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its number.
        code: u16,
        /// Its text; printable, cut.
        text: String,
    },
}

impl ControlError {
    /// Whether Tor is there and does not let us, in contrast to not being there.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Method(_) | Self::Cookie { .. } | Self::ForeignCookie | Self::Refused { .. }
        )
    }
}

/// How far Tor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) percent: u8,
    pub(super) summary: String,
}

/// Both kinds of connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Stream for T {}

async fn connect(address: &ControlAddress) -> std::io::Result<Box<dyn Stream>> {
    let stream: Box<dyn Stream> = match address {
        ControlAddress::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        ControlAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    Ok(stream)
}

/// An authenticated control connection.
#[derive(Debug)]
pub(super) struct Control {
    stream: Box<dyn Stream>,
    replies: Replies,
    patience: Duration,
}

impl Control {
    /// Connects and authenticates.
    pub(super) async fn open(config: &TorConfig) -> Result<Self, ControlError> {
        let patience = config.timing.answer;
        let stream = timeout(patience, connect(&config.control))
            .await
            .map_err(|_| ControlError::TimedOut(patience))??;
        let mut control = Self { stream, replies: Replies::default(), patience };
        control.authenticate(config.cookie.as_deref()).await?;
        Ok(control)
    }

    async fn ask(&mut self, what: &'static str, command: &str) -> Result<Reply, ControlError> {
        let exchange = async {
            self.stream.write_all(command.as_bytes()).await?;
            self.stream.write_all(b"\r\n").await?;
            self.replies.next(&mut self.stream).await
        };
        let reply = timeout(self.patience, exchange)
            .await
            .map_err(|_| ControlError::TimedOut(self.patience))??;
        if reply.code == 250 {
            return Ok(reply);
        }
        let text = printable(reply.lines.last().map(String::as_str).unwrap_or_default());
        Err(ControlError::Refused { what, code: reply.code, text })
    }

    async fn authenticate(&mut self, cookie: Option<&Path>) -> Result<(), ControlError> {
        let info = self.ask("PROTOCOLINFO", "PROTOCOLINFO 1").await?;
        let auth = info
            .lines
            .iter()
            .find_map(|line| line.strip_prefix("AUTH "))
            .ok_or(ControlError::Protocol("no ways of authentication"))?;
        let methods = field(auth, "METHODS").unwrap_or_default();
        let has = |method: &str| methods.split(',').any(|offered| offered == method);
        if has("NULL") {
            return self.ask("AUTHENTICATE", "AUTHENTICATE").await.map(drop);
        }
        let path = cookie.map(Path::to_owned).or_else(|| field(auth, "COOKIEFILE").map(Into::into));
        let (true, Some(path)) = (has("SAFECOOKIE") || has("COOKIE"), path) else {
            return Err(ControlError::Method(printable(&methods)));
        };
        let cookie =
            read_cookie(&path).await.map_err(|source| ControlError::Cookie { path, source })?;
        let token =
            if has("SAFECOOKIE") { self.safe_cookie(&cookie).await? } else { cookie.to_vec() };
        self.ask("AUTHENTICATE", &format!("AUTHENTICATE {}", hex::encode(token))).await.map(drop)
    }

    /// Proves that we know the cookie without telling it to whoever may sit on that port.
    async fn safe_cookie(&mut self, cookie: &[u8; COOKIE_LEN]) -> Result<Vec<u8>, ControlError> {
        let nonce: [u8; 32] = rand::random();
        let command = format!("AUTHCHALLENGE SAFECOOKIE {}", hex::encode(nonce));
        let reply = self.ask("AUTHCHALLENGE", &command).await?;
        let line = reply.lines.last().map(String::as_str).unwrap_or_default();
        let value = |key| field(line, key).and_then(|value| hex::decode(value).ok());
        let (Some(hash), Some(theirs)) = (value("SERVERHASH"), value("SERVERNONCE")) else {
            return Err(ControlError::Protocol("a challenge without hash or nonce"));
        };
        mac(SERVER_KEY, [cookie, &nonce, &theirs])?
            .verify_slice(&hash)
            .map_err(|_| ControlError::ForeignCookie)?;
        let ours = mac(CLIENT_KEY, [cookie, &nonce, &theirs])?;
        Ok(ours.finalize().into_bytes().to_vec())
    }

    /// Makes an ephemeral version 3 service; Tor tells nobody its key. Returns its name without `.onion`.
    pub(super) async fn add_onion(
        &mut self,
        port: u16,
        target: SocketAddr,
    ) -> Result<String, ControlError> {
        let command = format!("ADD_ONION NEW:ED25519-V3 Flags=DiscardPK Port={port},{target}");
        let reply = self.ask("a service", &command).await?;
        let service = reply.lines.iter().find_map(|line| line.strip_prefix("ServiceID="));
        let valid = |name: &&str| {
            name.len() == SERVICE_NAME
                && name.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
        };
        service
            .filter(valid)
            .map(str::to_owned)
            .ok_or(ControlError::Protocol("a service without a name"))
    }

    /// Removes a service.
    pub(super) async fn del_onion(&mut self, service: &str) -> Result<(), ControlError> {
        self.ask("the removal", &format!("DEL_ONION {service}")).await.map(drop)
    }

    /// Waits for the end of the connection; nothing is said while nothing is asked. May be given up at any time.
    pub(super) async fn lost(&mut self) -> ControlError {
        self.replies.lost(&mut self.stream).await
    }

    /// How far Tor is with connecting to its network.
    pub(super) async fn bootstrap(&mut self) -> Result<Progress, ControlError> {
        let reply = self.ask("its progress", "GETINFO status/bootstrap-phase").await?;
        let line = reply
            .lines
            .iter()
            .find(|line| line.starts_with("status/bootstrap-phase="))
            .ok_or(ControlError::Protocol("no progress"))?;
        let percent = field(line, "PROGRESS").and_then(|value| value.parse().ok());
        let percent: u8 = percent.ok_or(ControlError::Protocol("a progress without number"))?;
        let summary = printable(&field(line, "SUMMARY").unwrap_or_default());
        Ok(Progress { percent: percent.min(100), summary })
    }
}

fn mac(key: &[u8], parts: [&[u8]; 3]) -> Result<Hmac<Sha256>, ControlError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|_| ControlError::Protocol("a key of impossible length"))?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac)
}

/// Reads a cookie: a file of exactly 32 bytes. Whoever sits on the port names the file, so nothing else may be
/// sent there.
async fn read_cookie(path: &Path) -> std::io::Result<[u8; COOKIE_LEN]> {
    let path = path.to_owned();
    let read = move || {
        use std::io::Read as _;
        let not_a_cookie = || std::io::Error::other("it is not a file of 32 bytes");
        // Keeps us from waiting for a pipe.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(not_a_cookie());
        }
        let mut bytes = Vec::with_capacity(COOKIE_LEN + 1);
        std::fs::File::open(path)?.take(COOKIE_LEN as u64 + 1).read_to_end(&mut bytes)?;
        bytes.try_into().map_err(|_| not_a_cookie())
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}
