//! A chain for unit tests whose answers about foreign coins a test decides. Everything else is that of a daemon without
//! a server.

use joinery_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::chain::{
    BoxFuture, BroadcastError, ChainError, ChainSource, ChainStatus, FeeEstimate, ForeignOutput,
    NoServer, WatchSession, WatchStart,
};
use tokio::sync::watch;

/// The answer about a coin.
pub(crate) type Reply = fn() -> Result<Option<ForeignOutput>, ChainError>;

/// See the module.
#[derive(Debug)]
pub(crate) struct ScriptedChain {
    reply: Reply,
    rest: NoServer,
}

impl ScriptedChain {
    pub(crate) fn new(reply: Reply) -> Self {
        Self { reply, rest: NoServer::default() }
    }

    fn answer(&self) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(async { (self.reply)() })
    }
}

impl ChainSource for ScriptedChain {
    fn watch(&self, start: WatchStart) -> WatchSession {
        self.rest.watch(start)
    }

    fn status(&self) -> watch::Receiver<ChainStatus> {
        self.rest.status()
    }

    fn estimate_fee(&self, target: u16) -> BoxFuture<'_, Result<FeeEstimate, ChainError>> {
        self.rest.estimate_fee(target)
    }

    fn mempool_min_fee(&self) -> BoxFuture<'_, Result<u64, ChainError>> {
        self.rest.mempool_min_fee()
    }

    fn broadcast(&self, tx: Transaction) -> BoxFuture<'_, Result<(), BroadcastError>> {
        self.rest.broadcast(tx)
    }

    /// A failure is that of the coin; otherwise there is no such transaction.
    fn transaction(&self, _txid: Txid) -> BoxFuture<'_, Result<Option<Transaction>, ChainError>> {
        Box::pin(async { (self.reply)().map(|_| None) })
    }

    fn foreign_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        self.answer()
    }

    fn unspent_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        self.answer()
    }

    fn block_time(&self, _height: u32) -> BoxFuture<'_, Result<u32, ChainError>> {
        Box::pin(async { Ok(1_700_000_000) })
    }
}

/// Everything that a server may do instead of answering.
pub(crate) const NO_ANSWERS: [Reply; 5] = [
    || Err(ChainError::NotConfigured),
    || Err(ChainError::Unavailable { reason: "busy".to_owned() }),
    || Err(ChainError::TimedOut),
    || Err(ChainError::Server { text: "internal error".to_owned() }),
    || Err(ChainError::Lie { what: "another transaction than was asked for".to_owned() }),
];
