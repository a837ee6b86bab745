//! The Electrum engine (`spec/wallet.md` 10, 13.5, 13.7, 13.8).
//!
//! Two connections with a thread each: one watches the wallet's scripts, answers questions about fees and
//! sends transactions; the other looks at coins of other people and only exists while somebody asks. Through a
//! proxy each has its circuit, and each transaction is sent on a circuit of its own. Every
//! answer is bounded in size and time and checked before it is believed; the JSON-RPC client is our own
//! (`docs/decisions`), because the bounds and the notifications need it.

mod answers;
pub(crate) mod backoff;
mod client;
mod config;
mod download;
mod engine;
mod error;
mod handshake;
mod headers;
mod lookup;
mod merkle;
mod message;
mod pace;
mod prompt;
mod proofs;
mod queries;
mod rules;
mod script;
pub(crate) mod socks;
mod sync;
pub(crate) mod tls;
mod transport;
mod url;
mod watch;

use std::future::Future;
use std::sync::Arc;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::chain::{
    BoxFuture, BroadcastError, ChainError, ChainSource, ChainStatus, FeeEstimate, ForeignOutput,
    WatchSession, WatchStart,
};
use tokio::sync::{mpsc, oneshot, watch as tokio_watch};

pub use config::{ConfigError, ElectrumConfig, Fingerprint, FingerprintError, Timing, TlsTrust};
pub use tls::client_config as tls_client_config;
pub use url::{Host, ProxyUrl, Scheme, ServerUrl, UrlError};

use engine::{Engine, Link, Outside};
use lookup::Question;
use transport::{Connector, Purpose};
use watch::Session;

/// News that the engine keeps ready for a wallet that is busy.
const EVENTS: usize = 4;
/// Lookups that may wait for their turn.
const QUESTIONS: usize = 256;

/// Follows the chain through an Electrum server and implements [`ChainSource`]. Its threads end when it is
/// dropped.
#[derive(Debug)]
pub struct ElectrumEngine {
    outside: Outside,
    /// Serial number of the present watch; a new number ends the one before.
    serial: tokio_watch::Sender<u64>,
    sessions: mpsc::UnboundedSender<Session>,
    /// Transactions are sent on connections of their own.
    sends_apart: bool,
    questions: mpsc::Sender<Question>,
    /// Its end ends the threads.
    _running: tokio_watch::Sender<()>,
}

impl ElectrumEngine {
    /// Checks the configuration and starts the threads, which connect on their own; an unreachable server is
    /// no error. Needs no tokio runtime.
    ///
    /// # Errors
    /// When the configuration is refused, the system's certificates cannot be loaded or threads cannot be
    /// started.
    pub fn start(config: ElectrumConfig) -> Result<Arc<Self>, ConfigError> {
        config.check()?;
        let wallet = Connector::new(&config, Purpose::Wallet)?;
        let lookup = Connector::new(&config, Purpose::Lookup)?;
        let outside = Outside {
            status: tokio_watch::Sender::new(ChainStatus {
                configured: true,
                public_server: config.is_public_server(),
                foreign_server: config.is_foreign_server(),
                ..ChainStatus::default()
            }),
            link: tokio_watch::Sender::new(None),
        };
        let sends_apart = config.sends_apart();
        let (sessions, new_sessions) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let running = tokio_watch::Sender::new(());
        let engine = Engine::new(&config, wallet, new_sessions, outside.clone());
        spawn(Purpose::Wallet, running.subscribe(), engine.run())?;
        let lookups = lookup::run(config, lookup, outside.status.subscribe(), asked);
        spawn(Purpose::Lookup, running.subscribe(), lookups)?;
        Ok(Arc::new(Self {
            outside,
            serial: tokio_watch::Sender::new(0),
            sessions,
            sends_apart,
            questions,
            _running: running,
        }))
    }

    fn link(&self) -> Result<Link, ChainError> {
        self.outside.link.borrow().clone().ok_or_else(|| ChainError::Unavailable {
            reason: match self.outside.status.borrow().last_error.clone() {
                Some(reason) => reason,
                None => "not connected yet".to_owned(),
            },
        })
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, ChainError>>) -> Question,
    ) -> Result<T, ChainError> {
        let unavailable = |reason: &str| ChainError::Unavailable { reason: reason.to_owned() };
        let (reply, answer) = oneshot::channel();
        self.questions
            .try_send(question(reply))
            .map_err(|_| unavailable("too many lookups are waiting"))?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the lookup was given up")))
    }
}

/// Runs a future on a thread of its own until it ends or the engine is dropped.
fn spawn(
    purpose: Purpose,
    mut running: tokio_watch::Receiver<()>,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ConfigError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(purpose.name().into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                // Nothing is ever sent: an error says that the engine is gone.
                _ = running.changed() => {}
            }
        });
        // A name lookup that hangs must not keep the thread.
        runtime.shutdown_background();
    })?;
    Ok(())
}

impl ChainSource for ElectrumEngine {
    fn watch(&self, start: WatchStart) -> WatchSession {
        let (commands, orders) = mpsc::unbounded_channel();
        let (news, events) = mpsc::channel(EVENTS);
        self.serial.send_modify(|serial| *serial += 1);
        let session = Session::new(self.serial.subscribe(), start, orders, news);
        // The thread lives as long as this engine.
        let _ = self.sessions.send(session);
        WatchSession { commands, events }
    }

    fn status(&self) -> tokio_watch::Receiver<ChainStatus> {
        self.outside.status.subscribe()
    }

    fn estimate_fee(&self, target: u16) -> BoxFuture<'_, Result<FeeEstimate, ChainError>> {
        Box::pin(async move { queries::estimate_fee(&self.link()?, target).await })
    }

    fn mempool_min_fee(&self) -> BoxFuture<'_, Result<u64, ChainError>> {
        Box::pin(async move { queries::mempool_min_fee(&self.link()?).await })
    }

    fn broadcast(&self, tx: Transaction) -> BoxFuture<'_, Result<(), BroadcastError>> {
        Box::pin(async move {
            if !self.sends_apart {
                let link = self.link().map_err(BroadcastError::Unknown)?;
                return queries::broadcast(&link.client, &tx).await;
            }
            let answer = self.ask(|reply| Question::Broadcast(Box::new(tx), reply)).await;
            answer.map_err(BroadcastError::Unknown)?
        })
    }

    fn transaction(&self, txid: Txid) -> BoxFuture<'_, Result<Option<Transaction>, ChainError>> {
        Box::pin(self.ask(move |reply| Question::Transaction(txid, reply)))
    }

    fn foreign_output(
        &self,
        outpoint: OutPoint,
        script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(self.ask(move |reply| Question::Output(outpoint, script, reply)))
    }

    fn unspent_output(
        &self,
        outpoint: OutPoint,
        script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(self.ask(move |reply| Question::OutputNow(outpoint, script, reply)))
    }

    fn block_time(&self, height: u32) -> BoxFuture<'_, Result<u32, ChainError>> {
        Box::pin(self.ask(move |reply| Question::BlockTime(height, reply)))
    }
}
