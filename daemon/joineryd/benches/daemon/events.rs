//! The daemon's websocket: what it tells clients, with the time at which that arrives.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use crate::process::{Daemon, PATIENCE};

/// Events as they arrive; the socket is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Events(mpsc::UnboundedReceiver<(Instant, Value)>);

impl Events {
    /// Logs in with the token of the daemon's client.
    pub(crate) async fn open(daemon: &Daemon) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(daemon.certificate())?)?;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = Connector::Rustls(Arc::new(tls));
        let url = format!("wss://{}/", daemon.websocket());
        let (mut socket, _) =
            connect_async_tls_with_config(url, None, true, Some(connector)).await?;
        socket.send(Message::text(daemon.client.token())).await?;
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let at = Instant::now();
                let Message::Text(text) = message else { continue };
                let event = serde_json::from_str(&text).unwrap_or(Value::Null);
                if sender.send((at, event)).is_err() {
                    break;
                }
            }
        });
        Ok(Self(events))
    }

    /// Lets go of what has arrived.
    pub(crate) fn forget(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// The next event of this kind.
    pub(crate) async fn next(&mut self, kind: &str) -> Result<(Instant, Value)> {
        let next = async {
            loop {
                let (at, mut event) = self.0.recv().await.context("the websocket was closed")?;
                if event.get(kind).is_some() {
                    return Ok((at, event[kind].take()));
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.context("no event in time")?
    }
}
