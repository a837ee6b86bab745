//! Whether the daemon of a data directory is well, asked from outside as a client would: by HTTPS, believing its own
//! certificate and nothing else.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use joinery_net::{Fingerprint, TlsTrust, tls_client_config};
use rustix::fs::OFlags;
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Time for each step of a connection.
const STEP: Duration = Duration::from_secs(10);
/// Most that is read of a file or an answer, bytes.
const MOST: u64 = 64 * 1024;

/// What a healthy daemon says.
#[derive(Debug)]
pub(crate) struct Healthy {
    /// Its version.
    pub(crate) version: String,
    /// Where it was asked.
    pub(crate) url: String,
}

/// Why a daemon does not count as healthy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HealthError {
    /// A file of the data directory is missing or unreadable.
    #[error("{file} cannot be read: {error}")]
    File {
        /// Which.
        file: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file of the data directory is not what it should be.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// It does not answer.
    #[error("no answer from {url}: {error}")]
    NoAnswer {
        /// Where it was asked.
        url: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It answers something else.
    #[error("{url} answers {answer:?}")]
    Answer {
        /// Where it was asked.
        url: String,
        /// First line of the answer.
        answer: String,
    },
}

/// The part of `listening.json` that is needed.
#[derive(Debug, Deserialize)]
struct Listening {
    rpc: String,
}

/// The part of `/health` that is needed.
#[derive(Debug, Deserialize)]
struct Health {
    version: String,
}

/// Asks the daemon of a data directory.
///
/// The files are the daemon's, and whoever asks may be root: links are not followed, and nobody but this machine is
/// connected to.
///
/// # Errors
/// [`HealthError`].
pub(crate) fn check(data: &Path) -> Result<Healthy, HealthError> {
    let listening = read(data, "listening.json")?;
    let listening: Listening =
        serde_json::from_slice(&listening).map_err(|_| HealthError::Damaged("listening.json"))?;
    let parsed = listening.rpc.split_once("://").and_then(|(scheme, address)| {
        Some((scheme == "https", address.parse::<SocketAddr>().ok()?))
    });
    let (tls, address) = parsed.ok_or(HealthError::Damaged("listening.json"))?;
    // A daemon that listens everywhere, or on another address of this machine, is asked from within.
    let ip = match address.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(ip) if ip.is_unspecified() => [127, 0, 0, 1].into(),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let url = format!("{}://{address}/health", if tls { "https" } else { "http" });
    let failed = |error| HealthError::NoAnswer { url: url.clone(), error };
    let stream = TcpStream::connect_timeout(&address, STEP).map_err(failed)?;
    stream
        .set_read_timeout(Some(STEP))
        .and_then(|()| stream.set_write_timeout(Some(STEP)))
        .map_err(failed)?;
    let text = if tls {
        let pem = read(data, "ssl/cert.pem")?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| HealthError::Damaged("ssl/cert.pem"))?;
        let pin = hex_of(&Sha256::digest(&certificate));
        let pin: Fingerprint = pin.parse().map_err(|_| HealthError::Damaged("ssl/cert.pem"))?;
        let setup = |error: &dyn ToString| HealthError::Tls(error.to_string());
        let config = tls_client_config(TlsTrust::Pin(pin)).map_err(|error| setup(&error))?;
        let name = ServerName::IpAddress(ip.into());
        let connection = ClientConnection::new(config, name).map_err(|error| setup(&error))?;
        ask(StreamOwned::new(connection, stream))
    } else {
        ask(stream)
    }
    .map_err(failed)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let health = serde_json::from_str::<Health>(body).ok();
    match health.filter(|_| head.starts_with("HTTP/1.1 200 ")) {
        Some(health) => Ok(Healthy { version: health.version, url }),
        None => {
            let answer = head.lines().next().unwrap_or_default().chars().take(100).collect();
            Err(HealthError::Answer { url, answer })
        }
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.take(MOST).read_to_end(&mut answer) {
        // Some ends of TLS connections are less than polite; what came counts.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read(data: &Path, file: &'static str) -> Result<Vec<u8>, HealthError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(data.join(file))
        .and_then(|opened| opened.take(MOST).read_to_end(&mut bytes))
        .map_err(|error| HealthError::File { file, error })?;
    Ok(bytes)
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
