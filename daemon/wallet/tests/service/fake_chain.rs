//! A chain under the test's control: a made-up server with blocks, a mempool and histories, and the
//! engine that would watch it. It follows the contract of `ChainSource`: updates first, then
//! `CaughtUp` with the number of commands carried out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use joinery_wallet::bitcoin::hashes::{Hash, sha256, sha256d};
use joinery_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::chain::{
    BoxFuture, BroadcastError, ChainError, ChainSource, ChainStatus, ChainTip, ChainUpdate,
    FeeEstimate, ForeignOutput, ScriptHistory, StatusHash, TxHeight, WatchCommand, WatchEvent,
    WatchSession, WatchStart, WatchedScript,
};
use tokio::sync::{mpsc, oneshot, watch};

/// What happens to a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnBroadcast {
    /// Taken into the mempool, and told to the watch before the answer is given if `listed`.
    Accept { listed: bool },
    /// Refused.
    Reject(&'static str),
    /// No answer; the transaction did not arrive.
    Lost,
    /// No answer; the transaction arrived all the same.
    ArrivedUnanswered,
}

#[derive(Debug)]
struct Server {
    blocks: BTreeMap<u32, BlockHash>,
    /// Every transaction the server knows, with the block it is in.
    txs: Vec<(Arc<Transaction>, Option<u32>)>,
    on_broadcast: OnBroadcast,
    broadcast: Vec<Transaction>,
    /// Histories that the server pretends not to have.
    hidden: HashSet<Txid>,
    fee: Option<u64>,
    fork: u8,
    /// Refuses what spends a coin twice, or one that was never or is no longer there.
    strict: bool,
    /// Every transaction that was ever made, whether it is there or not.
    made: HashSet<Txid>,
}

impl Server {
    /// Why a transaction cannot be taken.
    fn objection(&self, tx: &Transaction) -> Option<&'static str> {
        let txid = tx.compute_txid();
        let there: HashSet<Txid> = self.txs.iter().map(|(tx, _)| tx.compute_txid()).collect();
        let others = self.txs.iter().filter(|(other, _)| other.compute_txid() != txid);
        let spent: HashSet<OutPoint> =
            others.flat_map(|(tx, _)| &tx.input).map(|input| input.previous_output).collect();
        for input in &tx.input {
            let coin = input.previous_output;
            if spent.contains(&coin) {
                return Some("txn-mempool-conflict");
            }
            if self.made.contains(&coin.txid) && !there.contains(&coin.txid) {
                return Some("bad-txns-inputs-missingorspent");
            }
        }
        None
    }

    fn tip(&self) -> ChainTip {
        let (height, hash) = self.blocks.last_key_value().expect("genesis");
        let time = 1_700_000_000 + height * 600;
        ChainTip { height: *height, hash: *hash, median_time: time - 3600, time }
    }

    fn hash(&self, height: u32) -> BlockHash {
        let mut seed = height.to_le_bytes().to_vec();
        seed.push(self.fork);
        BlockHash::from_raw_hash(sha256d::Hash::hash(&seed))
    }

    fn output(&self, outpoint: OutPoint) -> Option<&ScriptBuf> {
        let (tx, _) = self.txs.iter().find(|(tx, _)| tx.compute_txid() == outpoint.txid)?;
        Some(&tx.output.get(usize::try_from(outpoint.vout).ok()?)?.script_pubkey)
    }

    /// Scripts of each transaction, once per look: the fake is quadratic otherwise.
    fn histories(&self) -> HashMap<ScriptBuf, Vec<(Txid, TxHeight)>> {
        let by_id: HashMap<Txid, &Arc<Transaction>> =
            self.txs.iter().map(|(tx, _)| (tx.compute_txid(), tx)).collect();
        let mut out: HashMap<ScriptBuf, Vec<(Txid, TxHeight)>> = HashMap::new();
        let mut order: Vec<_> = self.txs.iter().collect();
        order.sort_by_key(|(_, height)| height.unwrap_or(u32::MAX));
        for (tx, height) in order {
            let txid = tx.compute_txid();
            if self.hidden.contains(&txid) {
                continue;
            }
            let spent = tx.input.iter().filter_map(|input| {
                let previous = input.previous_output;
                by_id.get(&previous.txid)?.output.get(previous.vout as usize)
            });
            let scripts: HashSet<_> =
                tx.output.iter().chain(spent).map(|out| out.script_pubkey.clone()).collect();
            for script in scripts {
                let height = height.map_or(TxHeight::Unconfirmed, TxHeight::Block);
                out.entry(script).or_default().push((txid, height));
            }
        }
        out
    }
}

fn status(history: &[(Txid, TxHeight)]) -> Option<StatusHash> {
    let mut text = String::new();
    for (txid, height) in history {
        text.push_str(&format!("{txid}:{height:?}:"));
    }
    (!text.is_empty()).then(|| sha256::Hash::hash(text.as_bytes()).to_byte_array())
}

enum Poke {
    /// Look for news, then say that it is delivered.
    Look(oneshot::Sender<()>),
    /// The connection breaks.
    Break,
    /// The connection is back.
    Mend,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct FakeChain {
    server: Arc<Mutex<Server>>,
    status: watch::Sender<ChainStatus>,
    pokes: Mutex<Option<mpsc::UnboundedSender<Poke>>>,
    /// Scripts that were given to the watch with a status, and without.
    pub watched: Arc<Mutex<HashMap<ScriptBuf, Option<StatusHash>>>>,
    /// Scripts per update while catching up.
    pub batch: usize,
}

impl FakeChain {
    pub(crate) fn new(genesis: BlockHash, heights: impl IntoIterator<Item = u32>) -> Arc<Self> {
        let mut server = Server {
            blocks: BTreeMap::from([(0, genesis)]),
            txs: Vec::new(),
            on_broadcast: OnBroadcast::Accept { listed: true },
            broadcast: Vec::new(),
            hidden: HashSet::new(),
            fee: Some(10_000),
            fork: 0,
            strict: false,
            made: HashSet::new(),
        };
        for height in heights {
            let hash = server.hash(height);
            server.blocks.insert(height, hash);
        }
        let tip = server.tip();
        Arc::new(Self {
            server: Arc::new(Mutex::new(server)),
            status: watch::Sender::new(ChainStatus {
                configured: true,
                connected: true,
                tip: Some(tip),
                // Keeps the scan windows small.
                public_server: true,
                ..ChainStatus::default()
            }),
            pokes: Mutex::default(),
            watched: Arc::default(),
            batch: 50,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let mut server = self.server.lock().expect("not poisoned");
        let result = change(&mut server);
        let tip = server.tip();
        self.status.send_modify(|status| status.tip = Some(tip));
        result
    }

    /// Delivers news to the wallet. When this returns they are in its queue.
    pub(crate) async fn look(&self) {
        let (done, delivered) = oneshot::channel();
        let sender = self.pokes.lock().expect("not poisoned").clone();
        if let Some(sender) = sender
            && sender.send(Poke::Look(done)).is_ok()
        {
            // An error means that the wallet was closed meanwhile.
            let _ = delivered.await;
        }
    }

    /// Adds a block that holds these transactions, known or not.
    pub(crate) fn mine(&self, txs: &[&Transaction]) -> u32 {
        self.with(|server| {
            let height = server.tip().height + 1;
            let hash = server.hash(height);
            server.blocks.insert(height, hash);
            for tx in txs {
                put(server, tx, Some(height));
            }
            height
        })
    }

    /// Places transactions into an existing block.
    pub(crate) fn place(&self, tx: &Transaction, height: Option<u32>) {
        self.with(|server| put(server, tx, height));
    }

    /// Places many new transactions at once.
    pub(crate) fn place_all(&self, txs: impl IntoIterator<Item = (Transaction, u32)>) {
        let txs = txs.into_iter().map(|(tx, height)| (Arc::new(tx), Some(height)));
        self.with(|server| server.txs.extend(txs));
    }

    /// Takes a transaction away, whether it is in a block or not.
    pub(crate) fn forget(&self, txid: Txid) {
        self.with(|server| server.txs.retain(|(tx, _)| tx.compute_txid() != txid));
    }

    /// Leaves a transaction out of all histories, or lists it again.
    pub(crate) fn hide(&self, txid: Txid, hidden: bool) {
        self.with(
            |server| {
                if hidden { server.hidden.insert(txid) } else { server.hidden.remove(&txid) }
            },
        );
    }

    /// Replaces the last `depth` blocks by `depth + 1` others; their transactions go to the mempool.
    pub(crate) fn reorganise(&self, depth: u32) {
        self.with(|server| {
            let from = server.tip().height + 1 - depth;
            server.fork += 1;
            server.blocks.split_off(&from);
            for height in from..=from + depth {
                let hash = server.hash(height);
                server.blocks.insert(height, hash);
            }
            for (_, height) in &mut server.txs {
                *height = height.filter(|height| *height < from);
            }
        });
    }

    /// Cuts the last blocks off without a replacement: a server that is behind.
    pub(crate) fn fall_behind(&self, blocks: u32) -> Vec<(u32, BlockHash)> {
        self.with(|server| {
            let from = server.tip().height + 1 - blocks;
            server.blocks.split_off(&from).into_iter().collect()
        })
    }

    /// Puts blocks back.
    pub(crate) fn catch_up(&self, blocks: Vec<(u32, BlockHash)>) {
        self.with(|server| server.blocks.extend(blocks));
    }

    pub(crate) fn on_broadcast(&self, what: OnBroadcast) {
        self.with(|server| server.on_broadcast = what);
    }

    /// From now on nothing is taken that could not be mined.
    pub(crate) fn be_strict(&self) {
        self.with(|server| server.strict = true);
    }

    /// Why a transaction could not be taken now.
    pub(crate) fn objection(&self, tx: &Transaction) -> Option<&'static str> {
        self.with(|server| server.objection(tx))
    }

    pub(crate) fn no_fee_estimate(&self) {
        self.with(|server| server.fee = None);
    }

    /// What was broadcast so far.
    pub(crate) fn broadcasts(&self) -> Vec<Transaction> {
        self.with(|server| server.broadcast.clone())
    }

    /// Every transaction that the server knows, with the block it is in.
    pub(crate) fn transactions(&self) -> Vec<(Arc<Transaction>, Option<u32>)> {
        self.with(|server| server.txs.clone())
    }

    /// Breaks or mends the connection.
    pub(crate) fn connect(&self, connected: bool) {
        self.status.send_modify(|status| status.connected = connected);
        let poke = if connected { Poke::Mend } else { Poke::Break };
        if let Some(sender) = &*self.pokes.lock().expect("not poisoned") {
            let _ = sender.send(poke);
        }
    }

    pub(crate) fn is_watched(&self, script: &ScriptBuf) -> bool {
        self.watched.lock().expect("not poisoned").contains_key(script)
    }

    pub(crate) fn watched_count(&self) -> usize {
        self.watched.lock().expect("not poisoned").len()
    }

    pub(crate) fn has_output(&self, outpoint: OutPoint) -> bool {
        self.with(|server| server.output(outpoint).is_some())
    }
}

fn put(server: &mut Server, tx: &Transaction, height: Option<u32>) {
    let txid = tx.compute_txid();
    server.made.insert(txid);
    server.txs.retain(|(known, _)| known.compute_txid() != txid);
    server.txs.push((Arc::new(tx.clone()), height));
}

/// The engine of one watch.
struct Watch {
    server: Arc<Mutex<Server>>,
    events: mpsc::Sender<WatchEvent>,
    seen: Arc<Mutex<HashMap<ScriptBuf, Option<StatusHash>>>>,
    /// Status last reported of each script.
    statuses: HashMap<ScriptBuf, Option<StatusHash>>,
    known: HashSet<Txid>,
    generation: u64,
    connected: bool,
    batch: usize,
    reported_tip: Option<BlockHash>,
}

impl Watch {
    fn add(&mut self, scripts: Vec<WatchedScript>) {
        let mut seen = self.seen.lock().expect("not poisoned");
        for WatchedScript { script, status } in scripts {
            seen.insert(script.clone(), status);
            self.statuses.insert(script, status);
        }
    }

    /// Reports what changed, in batches as the real engine does.
    async fn look(&mut self, all: bool) {
        let (blocks, tip, histories, txs) = {
            let server = self.server.lock().expect("not poisoned");
            let txs: HashMap<Txid, (Arc<Transaction>, Option<u32>)> = server
                .txs
                .iter()
                .map(|(tx, height)| (tx.compute_txid(), (tx.clone(), *height)))
                .collect();
            (server.blocks.clone(), server.tip(), server.histories(), txs)
        };
        let ids = blocks.iter().map(|(height, hash)| BlockId { height: *height, hash: *hash });
        let chain = CheckPoint::from_block_ids(ids).expect("ascending");
        let mut changed = Vec::new();
        for (script, stored) in &mut self.statuses {
            let history = histories.get(script).cloned().unwrap_or_default();
            let now = status(&history);
            if all || *stored != now {
                *stored = now;
                changed.push(ScriptHistory {
                    script: script.clone(),
                    status: now,
                    entries: history,
                });
            }
        }
        let news = self.reported_tip != Some(tip.hash);
        self.reported_tip = Some(tip.hash);
        let planned = self.statuses.len();
        let mut parts: Vec<Vec<ScriptHistory>> =
            changed.chunks(self.batch).map(<[ScriptHistory]>::to_vec).collect();
        if parts.is_empty() && news {
            parts.push(Vec::new());
        }
        let mut answered = 0;
        for histories in parts {
            answered += histories.len();
            let mut update = TxUpdate::<ConfirmationBlockTime>::default();
            for (txid, _) in histories.iter().flat_map(|history| &history.entries) {
                let (tx, height) = txs.get(txid).expect("history of the server's transactions");
                if self.known.insert(*txid) {
                    update.txs.push(tx.clone());
                }
                match height {
                    Some(height) => {
                        let block_id = BlockId {
                            height: *height,
                            hash: *blocks.get(height).expect("block of a transaction"),
                        };
                        let confirmation_time = u64::from(*height);
                        update
                            .anchors
                            .insert((ConfirmationBlockTime { block_id, confirmation_time }, *txid));
                    }
                    None => {
                        update.seen_ats.insert((*txid, 1_700_000_000));
                    }
                }
            }
            let chain = chain.clone();
            let update = ChainUpdate { tip, chain, txs: update, histories };
            let _ = self.events.send(WatchEvent::Update(Box::new(update))).await;
            let _ = self.events.send(WatchEvent::Progress { answered, planned }).await;
        }
    }

    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<WatchCommand>,
        mut pokes: mpsc::UnboundedReceiver<Poke>,
    ) {
        if self.connected {
            self.look(false).await;
            self.caught_up().await;
        } else {
            self.say_broken().await;
        }
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    self.generation += 1;
                    let all = matches!(command, WatchCommand::Rescan);
                    if let WatchCommand::Watch(scripts) = command {
                        self.add(scripts);
                    }
                    if self.connected {
                        self.look(all).await;
                        self.caught_up().await;
                    }
                }
                poke = pokes.recv() => match poke {
                    None => return,
                    Some(Poke::Look(done)) => {
                        if self.connected {
                            self.look(false).await;
                        }
                        let _ = done.send(());
                    }
                    Some(Poke::Break) => {
                        self.connected = false;
                        self.say_broken().await;
                    }
                    Some(Poke::Mend) => {
                        self.connected = true;
                        self.look(false).await;
                        self.caught_up().await;
                    }
                },
            }
        }
    }

    async fn caught_up(&self) {
        let _ = self.events.send(WatchEvent::CaughtUp { generation: self.generation }).await;
    }

    async fn say_broken(&self) {
        let reason = "connection reset".to_owned();
        let _ = self.events.send(WatchEvent::Disconnected { reason }).await;
    }
}

impl ChainSource for FakeChain {
    fn watch(&self, start: WatchStart) -> WatchSession {
        let (commands, received) = mpsc::unbounded_channel();
        let (events, news) = mpsc::channel(8);
        let (pokes, poked) = mpsc::unbounded_channel();
        *self.pokes.lock().expect("not poisoned") = Some(pokes);
        self.watched.lock().expect("not poisoned").clear();
        let mut watch = Watch {
            server: self.server.clone(),
            events,
            seen: self.watched.clone(),
            statuses: HashMap::new(),
            known: start.known.keys().copied().collect(),
            generation: 0,
            connected: self.status.borrow().connected,
            batch: self.batch,
            reported_tip: None,
        };
        watch.add(start.scripts);
        tokio::spawn(watch.run(received, poked));
        WatchSession { commands, events: news }
    }

    fn status(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    fn estimate_fee(&self, _target: u16) -> BoxFuture<'_, Result<FeeEstimate, ChainError>> {
        let fee = self.with(|server| server.fee);
        Box::pin(async move {
            match fee {
                Some(rate) => Ok(FeeEstimate { sat_per_kvb: Some(rate) }),
                None => Err(ChainError::Server { text: "no estimate".to_owned() }),
            }
        })
    }

    fn mempool_min_fee(&self) -> BoxFuture<'_, Result<u64, ChainError>> {
        Box::pin(async { Ok(1000) })
    }

    fn broadcast(&self, tx: Transaction) -> BoxFuture<'_, Result<(), BroadcastError>> {
        Box::pin(async move {
            let what = self.with(|server| {
                server.broadcast.push(tx.clone());
                server.made.insert(tx.compute_txid());
                let mut what = server.on_broadcast.clone();
                if server.strict
                    && what != OnBroadcast::Lost
                    && let Some(text) = server.objection(&tx)
                {
                    what = OnBroadcast::Reject(text);
                }
                let known = server.txs.iter().any(|(known, _)| **known == tx);
                let arrives =
                    matches!(what, OnBroadcast::Accept { .. } | OnBroadcast::ArrivedUnanswered);
                if arrives && !known {
                    put(server, &tx, None);
                }
                what
            });
            match what {
                OnBroadcast::Accept { listed } => {
                    if listed {
                        self.look().await;
                    }
                    Ok(())
                }
                OnBroadcast::Reject(text) => {
                    Err(BroadcastError::Rejected { text: text.to_owned() })
                }
                OnBroadcast::Lost | OnBroadcast::ArrivedUnanswered => {
                    Err(BroadcastError::Unknown(ChainError::TimedOut))
                }
            }
        })
    }

    fn transaction(&self, txid: Txid) -> BoxFuture<'_, Result<Option<Transaction>, ChainError>> {
        let found = self.with(|server| {
            let found = server.txs.iter().find(|(tx, _)| tx.compute_txid() == txid);
            found.map(|(tx, _)| (**tx).clone())
        });
        Box::pin(async move { Ok(found) })
    }

    fn foreign_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(async { Ok(None) })
    }

    fn unspent_output(
        &self,
        _outpoint: OutPoint,
        _script: ScriptBuf,
    ) -> BoxFuture<'_, Result<Option<ForeignOutput>, ChainError>> {
        Box::pin(async { Ok(None) })
    }

    fn block_time(&self, height: u32) -> BoxFuture<'_, Result<u32, ChainError>> {
        Box::pin(async move { Ok(1_700_000_000 + height * 600) })
    }
}
