//! Bytes on a TLS connection, for clients that do not behave.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;
use super::daemon::Daemon;

/// A TLS connection on which a test writes what it likes.
pub struct Raw(TlsStream<TcpStream>);

impl Raw {
    /// Connects to the API port.
    pub async fn connect(daemon: &Daemon) -> Self {
        Self::try_connect(daemon).await.unwrap()
    }

    /// Connects to the API port; fails when the daemon does not want to.
    pub async fn try_connect(daemon: &Daemon) -> std::io::Result<Self> {
        let address: SocketAddr = daemon.rpc_address();
        let connector = TlsConnector::from(super::socket::tls(&daemon.listening));
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        Ok(Self(connector.connect(name, stream).await?))
    }

    /// Writes all of it; an error means that the daemon has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Everything until the daemon closes.
    pub async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let reading = async {
            let mut chunk = vec![0; 16 * 1024];
            // A reset is an end, too.
            while let Ok(length @ 1..) = self.0.read(&mut chunk).await {
                bytes.extend_from_slice(&chunk[..length]);
            }
        };
        timeout(PATIENCE, reading).await.expect("the daemon closes the connection in time");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until the text has been seen.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        let mut bytes = Vec::new();
        let reading = async {
            let mut chunk = vec![0; 16 * 1024];
            loop {
                let length = self.0.read(&mut chunk).await.unwrap();
                assert_ne!(
                    length,
                    0,
                    "closed before {wanted:?}: {}",
                    String::from_utf8_lossy(&bytes)
                );
                bytes.extend_from_slice(&chunk[..length]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if text.contains(wanted) {
                    return text;
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("it arrives in time")
    }
}
