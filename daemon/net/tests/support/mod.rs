//! A small wallet for tests: applies what the engine reports to BDK's own chain and graph, so that a report
//! which a real wallet could not use fails here.

// Each test binary compiles this module and uses another part of it.
#![allow(dead_code, reason = "shared by several test binaries")]
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a module of test code")]

pub mod keyed;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{Network as BitcoinNetwork, ScriptBuf, Txid, WPubkeyHash, constants};
use bdk_wallet::chain::local_chain::LocalChain;
use bdk_wallet::chain::{
    Anchor, BlockId, CanonicalizationParams, ChainPosition, ConfirmationBlockTime, TxGraph,
};
use joinery_net::{ElectrumConfig, ElectrumEngine, Timing};
use joinery_testkit::{PATIENCE, wait_until};
use joinery_wallet::chain::{
    ChainSource, ChainStatus, ChainTip, StatusHash, TxHeight, WatchCommand, WatchEvent,
    WatchSession, WatchStart, WatchedScript,
};
use joinery_wallet::types::Network;

/// Waiting times short enough for tests.
pub fn quick() -> Timing {
    Timing {
        connect: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        lookup: Duration::from_secs(10),
        ping_near: Duration::from_millis(300),
        backoff_first: Duration::from_millis(50),
        backoff_max: Duration::from_millis(400),
        ..Timing::default()
    }
}

pub fn config(url: &str) -> ElectrumConfig {
    let mut config = ElectrumConfig::new(url.parse().unwrap(), Network::Regtest);
    config.timing = quick();
    config
}

pub fn engine(url: &str) -> Arc<ElectrumEngine> {
    ElectrumEngine::start(config(url)).unwrap()
}

/// The script with this number; nobody has its key.
pub fn script(number: u32) -> ScriptBuf {
    let mut hash = [9; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))
}

pub fn scripts(numbers: std::ops::Range<u32>) -> Vec<ScriptBuf> {
    numbers.map(script).collect()
}

/// Waits until the engine's status fulfils a condition.
pub fn await_status(engine: &ElectrumEngine, what: &str, condition: impl Fn(&ChainStatus) -> bool) {
    let status = engine.status();
    let held = wait_until(PATIENCE, || condition(&status.borrow()));
    assert!(held, "{what}: {:?}", status.borrow());
}

/// Runs a question to its end.
pub fn ask<T>(question: impl Future<Output = T>) -> T {
    // Not one of the engine's own: answers must arrive in any runtime, even one without timers.
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(question)
}

/// What a wallet keeps over a restart.
#[derive(Debug, Clone)]
pub struct Kept {
    pub chain: LocalChain,
    pub graph: TxGraph<ConfirmationBlockTime>,
    pub statuses: HashMap<ScriptBuf, Option<StatusHash>>,
}

#[derive(Debug)]
pub struct TestWallet {
    session: WatchSession,
    pub chain: LocalChain,
    pub graph: TxGraph<ConfirmationBlockTime>,
    pub histories: HashMap<ScriptBuf, Vec<(Txid, TxHeight)>>,
    pub statuses: HashMap<ScriptBuf, Option<StatusHash>>,
    pub tip: Option<ChainTip>,
    pub caught_up: Option<u64>,
    pub progress: Vec<(usize, usize)>,
    pub disconnected: Vec<String>,
    /// Histories received so far.
    pub reports: usize,
    pub updates: usize,
    /// Largest count of transactions in one update.
    pub largest: usize,
}

impl TestWallet {
    pub fn new(engine: &ElectrumEngine, scripts: impl IntoIterator<Item = ScriptBuf>) -> Self {
        let genesis = constants::genesis_block(BitcoinNetwork::Regtest).block_hash();
        let (chain, _) = LocalChain::from_genesis_hash(genesis);
        let statuses = scripts.into_iter().map(|script| (script, None)).collect();
        Self::resume(engine, Kept { chain, graph: TxGraph::default(), statuses })
    }

    /// Starts from what an earlier wallet has kept.
    pub fn resume(engine: &ElectrumEngine, kept: Kept) -> Self {
        let Kept { chain, graph, statuses } = kept;
        let known = graph
            .full_txs()
            .map(|node| {
                let proven =
                    node.anchors.iter().map(Anchor::anchor_block).find(|block| {
                        chain.get(block.height).is_some_and(|c| c.hash() == block.hash)
                    });
                (node.txid, proven)
            })
            .collect();
        let watched = statuses
            .iter()
            .map(|(script, status)| WatchedScript { script: script.clone(), status: *status })
            .collect();
        let session = engine.watch(WatchStart { checkpoint: chain.tip(), known, scripts: watched });
        Self {
            session,
            chain,
            graph,
            histories: HashMap::new(),
            statuses,
            tip: None,
            caught_up: None,
            progress: Vec::new(),
            disconnected: Vec::new(),
            reports: 0,
            updates: 0,
            largest: 0,
        }
    }

    pub fn keep(self) -> Kept {
        Kept { chain: self.chain, graph: self.graph, statuses: self.statuses }
    }

    pub fn watch(&self, scripts: impl IntoIterator<Item = ScriptBuf>) {
        let scripts =
            scripts.into_iter().map(|script| WatchedScript { script, status: None }).collect();
        self.session.commands.send(WatchCommand::Watch(scripts)).unwrap();
    }

    pub fn rescan(&self) {
        self.session.commands.send(WatchCommand::Rescan).unwrap();
    }

    /// Whether the engine has ended this watch.
    pub fn is_over(&mut self) -> bool {
        self.pump();
        self.session.events.is_closed()
    }

    /// Applies all news that have arrived.
    pub fn pump(&mut self) {
        while let Ok(event) = self.session.events.try_recv() {
            match event {
                WatchEvent::Update(update) => {
                    self.updates += 1;
                    self.largest = self.largest.max(update.txs.txs.len());
                    self.chain.apply_update(update.chain).expect("chains can be merged");
                    let best = self.chain.get(update.tip.height).expect("the tip is in the chain");
                    assert_eq!(best.hash(), update.tip.hash);
                    for (anchor, _) in &update.txs.anchors {
                        let BlockId { height, hash } = anchor.anchor_block();
                        assert_eq!(self.chain.get(height).map(|c| c.hash()), Some(hash));
                    }
                    let _ = self.graph.apply_update(update.txs);
                    self.tip = Some(update.tip);
                    for history in update.histories {
                        self.evict(&history.script, &history.entries);
                        for (txid, _) in &history.entries {
                            assert!(self.graph.get_tx(*txid).is_some(), "told of before its data");
                            self.revive(*txid);
                        }
                        self.reports += 1;
                        self.statuses.insert(history.script.clone(), history.status);
                        self.histories.insert(history.script, history.entries);
                    }
                }
                WatchEvent::Progress { answered, planned } => {
                    assert!(answered <= planned);
                    self.progress.push((answered, planned));
                }
                WatchEvent::CaughtUp { generation } => self.caught_up = Some(generation),
                WatchEvent::Disconnected { reason } => self.disconnected.push(reason),
            }
        }
    }

    /// What a wallet does with transactions that have left a script's history.
    fn evict(&mut self, script: &ScriptBuf, entries: &[(Txid, TxHeight)]) {
        let now: HashSet<Txid> = entries.iter().map(|(txid, _)| *txid).collect();
        let before = self.histories.get(script).cloned().unwrap_or_default();
        for (txid, _) in before.into_iter().filter(|(txid, _)| !now.contains(txid)) {
            // Not before any report of it.
            let seen = self.graph.get_tx_node(txid).and_then(|node| node.last_seen).unwrap_or(0);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let _ = self.graph.insert_evicted_at(txid, now.max(seen));
        }
    }

    /// What a wallet does with a transaction that is listed again after it had left: while electrs takes a
    /// reorganisation in, it may list nothing for a moment. Times are whole seconds.
    fn revive(&mut self, txid: Txid) {
        if let Some(evicted) = self.graph.get_last_evicted(txid) {
            let _ = self.graph.insert_seen_at(txid, evicted + 1);
        }
    }

    /// Applies news until a condition holds.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let held = wait_until(PATIENCE, || {
            self.pump();
            condition(self)
        });
        assert!(held, "never: {what}; {:?}", (self.tip, self.caught_up, &self.disconnected));
    }

    /// Applies news until the engine's status names this error.
    pub fn until_error(&mut self, engine: &ElectrumEngine, what: &str, error: &str) {
        let status = engine.status();
        let held = wait_until(PATIENCE, || {
            self.pump();
            status.borrow().last_error.as_deref().is_some_and(|text| text.contains(error))
        });
        assert!(held, "{what}: {:?}", status.borrow());
    }

    pub fn until_caught_up(&mut self, generation: u64) {
        self.until("caught up", |wallet| wallet.caught_up >= Some(generation));
    }

    /// Height of a transaction in the wallet's view: `None` unless it is canonical, 0 in the mempool.
    pub fn height_of(&self, txid: Txid) -> Option<u32> {
        self.graph
            .list_canonical_txs(
                &self.chain,
                self.chain.tip().block_id(),
                CanonicalizationParams::default(),
            )
            .find(|tx| tx.tx_node.txid == txid)
            .map(|tx| match tx.chain_position {
                ChainPosition::Confirmed { anchor, .. } => anchor.block_id.height,
                ChainPosition::Unconfirmed { .. } => 0,
            })
    }

    /// Count of canonical transactions.
    pub fn transactions(&self) -> usize {
        self.graph
            .list_canonical_txs(
                &self.chain,
                self.chain.tip().block_id(),
                CanonicalizationParams::default(),
            )
            .count()
    }
}
