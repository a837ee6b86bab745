//! The chain as the wallet sees it: a trait that the network crate implements, and the messages that
//! pass between the wallet task and the sync engine (`spec/wallet.md` 13.5).
//!
//! Division of work. The *wallet* decides which scripts are watched (scan windows, bonds, imported
//! keys), owns the graph, decides what is evicted, and stores status hashes after the data they stand
//! for. The *engine* owns the connection: it subscribes, notices changes, downloads and proves what
//! changed, checks headers, and reports. It never forgets a watched script over a reconnect.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use bdk_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use tokio::sync::{mpsc, watch};

/// A boxed future, so that [`ChainSource`] can be used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Electrum status hash of a script: SHA256 over its history as the protocol defines it.
pub type StatusHash = [u8; 32];

/// The best block the engine has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// Height of the block.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Median time of the last 11 blocks, seconds since epoch: what timelocks are measured against.
    pub median_time: u32,
    /// Header time, seconds since epoch.
    pub time: u32,
}

/// State of the link to the server, readable at any time without waiting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainStatus {
    /// Whether a server is configured at all.
    pub configured: bool,
    /// Whether the connection stands and the handshake succeeded.
    pub connected: bool,
    /// Software and version that the server reported, bounded and printable.
    pub server: Option<String>,
    /// Best verified block.
    pub tip: Option<ChainTip>,
    /// Why there is no connection, for people; bounded and printable.
    pub last_error: Option<String>,
    /// True when the server is neither on a private address nor reached through a proxy: it sees our coins.
    pub public_server: bool,
    /// True when the server is reached through a proxy and its name or address is not one of a private network:
    /// if it is a stranger's, it cannot tell who we are, but it sees all mixdepths on one connection.
    pub foreign_server: bool,
}

/// A script to watch, with the status that was stored after its history was last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedScript {
    /// The scriptPubKey.
    pub script: ScriptBuf,
    /// Stored status; `None` when never synced or known to have no history.
    pub status: Option<StatusHash>,
}

/// What the engine must know at the start of a session so that it downloads nothing twice.
#[derive(Debug, Clone)]
pub struct WatchStart {
    /// Tip of the wallet's local chain, with its ancestors.
    pub checkpoint: CheckPoint,
    /// Transactions the wallet holds in full; the block of each one that has a proven anchor.
    pub known: HashMap<Txid, Option<BlockId>>,
    /// First scripts to watch.
    pub scripts: Vec<WatchedScript>,
}

/// Wallet to engine.
#[derive(Debug, Clone)]
pub enum WatchCommand {
    /// Watch these too. Raises the session's generation by one.
    Watch(Vec<WatchedScript>),
    /// Ask again for the history of every watched script, whatever its status. Raises the generation.
    Rescan,
}

/// Height of a history entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TxHeight {
    /// In the mempool.
    Unconfirmed,
    /// In the block of this height.
    Block(u32),
}

/// The whole history of one script, as the server gives it now.
#[derive(Debug, Clone)]
pub struct ScriptHistory {
    /// The watched script.
    pub script: ScriptBuf,
    /// Status hash that belongs to this history: to be stored after the update is durable.
    pub status: Option<StatusHash>,
    /// Transactions in server order.
    pub entries: Vec<(Txid, TxHeight)>,
}

/// A consistent piece of news. Everything in it was checked: txids recomputed, merkle proofs verified
/// against headers whose proof of work and linkage were verified.
#[derive(Debug, Clone)]
pub struct ChainUpdate {
    /// The best block.
    pub tip: ChainTip,
    /// Checkpoints to merge into the wallet's local chain (holds every anchor's block).
    pub chain: CheckPoint,
    /// New transactions, anchors and first-seen times. Evictions are the wallet's business.
    pub txs: TxUpdate<ConfirmationBlockTime>,
    /// Histories of the scripts that changed.
    pub histories: Vec<ScriptHistory>,
}

/// Engine to wallet.
#[derive(Debug)]
pub enum WatchEvent {
    /// Something changed.
    Update(Box<ChainUpdate>),
    /// Scripts answered and planned since the last start or rescan; for progress display.
    Progress {
        /// Scripts whose history is known.
        answered: usize,
        /// Scripts that are watched.
        planned: usize,
    },
    /// Every command up to this generation was carried out and its changes reported (the initial
    /// scripts are generation 0). Sent again after each reconnect's catch-up.
    CaughtUp {
        /// Number of commands carried out.
        generation: u64,
    },
    /// The connection was lost or could not be made; the engine keeps trying by itself.
    Disconnected {
        /// Reason, bounded and printable.
        reason: String,
    },
}

/// One wallet's watch over its scripts. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchSession {
    /// Commands to the engine.
    pub commands: mpsc::UnboundedSender<WatchCommand>,
    /// News from the engine. Bounded by the wallet reading it; the engine waits when it is full.
    pub events: mpsc::Receiver<WatchEvent>,
}

/// A server's answer about fee rates, in satoshi per 1000 vbytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeEstimate {
    /// Estimated rate; `None` when the server has no estimate.
    pub sat_per_kvb: Option<u64>,
}

/// An output that belongs to somebody else (`spec/wallet.md` 13.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignOutput {
    /// Value in satoshi.
    pub value: u64,
    /// 0 in the mempool.
    pub confirmations: u32,
    /// Height of the confirming block.
    pub height: Option<u32>,
}

/// Why the chain could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No server in the configuration.
    #[error("no Electrum server is configured")]
    NotConfigured,
    /// No connection at the moment.
    #[error("the Electrum server cannot be reached: {reason}")]
    Unavailable {
        /// Reason, bounded and printable.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("the Electrum server did not answer in time")]
    TimedOut,
    /// The server answered with an error.
    #[error("the Electrum server answered with an error: {text}")]
    Server {
        /// The server's text, bounded and printable.
        text: String,
    },
    /// The server's answer contradicts itself or the chain.
    #[error("the Electrum server gave an answer that cannot be true: {what}")]
    Lie {
        /// What was wrong.
        what: String,
    },
}

/// Why a transaction was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The server refused it; it is not in its mempool.
    #[error("the transaction was rejected: {text}")]
    Rejected {
        /// The server's text, bounded and printable.
        text: String,
    },
    /// It is unknown whether it arrived.
    #[error("it is unknown whether the transaction was sent: {0}")]
    Unknown(#[source] ChainError),
}

/// What the wallet and the roles need from a chain backend.
pub trait ChainSource: Send + Sync + std::fmt::Debug {
    /// Starts watching for a wallet. A second call ends the first session. Must be called within a
    /// tokio runtime or not at all dependent on one; returns at once.
    fn watch(&self, start: WatchStart) -> WatchSession;

    /// State of the link; the receiver wakes on each change.
    fn status(&self) -> watch::Receiver<ChainStatus>;

    /// Fee estimate for a confirmation target in blocks.
    fn estimate_fee(&self, target: u16) -> BoxFuture<'_, Result<FeeEstimate, ChainError>>;

    /// The rate below which the server's mempool takes nothing, satoshi per 1000 vbytes.
    fn mempool_min_fee(&self) -> BoxFuture<'_, Result<u64, ChainError>>;

    /// Sends a transaction. "Already known" counts as success.
    fn broadcast(&self, tx: Transaction) -> BoxFuture<'_, Result<(), BroadcastError>>;

    /// Fetches any transaction by its id (second connection; the hash is checked).
    fn transaction(&self, txid: Txid) -> BoxFuture<'_, Result<Option<Transaction>, ChainError>>;

    /// Looks for an unspent output that pays `script` (second connection). `None`: spent or never existed. What was
    /// found stands until the next block, and what was not for ten minutes: for the order book, not for signing.
    fn foreign_output(
        &self,
        outpoint: OutPoint,
        script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>>;

    /// The same as it is at this moment, the mempool included; never out of a memory.
    fn unspent_output(
        &self,
        outpoint: OutPoint,
        script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>>;

    /// Header time of a block, seconds since epoch (second connection, cached).
    fn block_time(&self, height: u32) -> BoxFuture<'_, Result<u32, ChainError>>;
}

/// The chain of a daemon that has no server configured: watches wait for ever, questions fail with
/// [`ChainError::NotConfigured`].
#[derive(Debug)]
pub struct NoServer {
    status: watch::Sender<ChainStatus>,
    sessions: std::sync::Mutex<Vec<mpsc::Sender<WatchEvent>>>,
}

impl Default for NoServer {
    fn default() -> Self {
        Self {
            status: watch::Sender::new(ChainStatus {
                last_error: Some(ChainError::NotConfigured.to_string()),
                ..ChainStatus::default()
            }),
            sessions: std::sync::Mutex::default(),
        }
    }
}

impl ChainSource for NoServer {
    fn watch(&self, _start: WatchStart) -> WatchSession {
        let (commands, _) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::channel(1);
        if let Ok(mut sessions) = self.sessions.lock() {
            sessions.clear();
            // Kept so that the wallet sees silence, not the end of the engine.
            sessions.push(sender);
        }
        WatchSession { commands, events }
    }

    fn status(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    fn estimate_fee(&self, _target: u16) -> BoxFuture<'_, Result<FeeEstimate, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }

    fn mempool_min_fee(&self) -> BoxFuture<'_, Result<u64, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }

    fn broadcast(&self, _tx: Transaction) -> BoxFuture<'_, Result<(), BroadcastError>> {
        Box::pin(async { Err(BroadcastError::Unknown(ChainError::NotConfigured)) })
    }

    fn transaction(&self, _txid: Txid) -> BoxFuture<'_, Result<Option<Transaction>, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }

    fn foreign_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }

    fn unspent_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }

    fn block_time(&self, _height: u32) -> BoxFuture<'_, Result<u32, ChainError>> {
        Box::pin(async { Err(ChainError::NotConfigured) })
    }
}
