//! The websocket as a client sees it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use super::PATIENCE;
use super::daemon::Listening;

/// An open websocket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// TLS that trusts the daemon's certificate and nothing else.
pub fn tls(listening: &Listening) -> Arc<ClientConfig> {
    super::client::use_ring();
    let pem = std::fs::read(listening.certificate.as_ref().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl Socket {
    /// Opens `wss://…PATH` on the websocket port.
    pub async fn open(listening: &Listening, path: &str) -> Result<Self, Error> {
        Self::open_at(listening, &format!("{}{path}", listening.websocket)).await
    }

    /// Opens a websocket on the API port.
    pub async fn open_on_rpc(listening: &Listening, path: &str) -> Result<Self, Error> {
        let base = listening.rpc.replacen("http", "ws", 1);
        Self::open_at(listening, &format!("{base}{path}")).await
    }

    async fn open_at(listening: &Listening, url: &str) -> Result<Self, Error> {
        let connector = Connector::Rustls(tls(listening));
        let (stream, _) = connect_async_tls_with_config(url, None, false, Some(connector)).await?;
        Ok(Self(stream))
    }

    /// Sends a text frame.
    pub async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next JSON message; `None` when the daemon closed. Answers pings meanwhile.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.next_now()).await.expect("something arrives in time")
    }

    /// The next message for which `wanted` gives a value; others are skipped.
    pub async fn find<T>(&mut self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("closed before: {what}"));
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// Whether nothing arrives for so long.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next_now()).await.is_err()
    }

    async fn next_now(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    /// The close code with which the daemon ends the connection.
    pub async fn close_code(&mut self) -> Option<u16> {
        let ending = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    _ => return None,
                }
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("it is closed in time")
    }
}
