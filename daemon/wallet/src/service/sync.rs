//! Following the chain: which scripts are watched, what news does to the graph, what has vanished
//! (`spec/wallet.md` 5, 10, 13.5).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bdk_wallet::bitcoin::{ScriptBuf, Transaction, Txid};
use bdk_wallet::chain::Merge;
use joinery_proto::fidelity_bond::TIMENUMBER_COUNT;
use tokio::sync::mpsc;

use super::state::{LOSS_SKIP, State, branch_number, now};
use crate::chain::{
    ChainUpdate, ScriptHistory, WatchCommand, WatchEvent, WatchStart, WatchedScript,
};
use crate::graph::WalletGraph;
use crate::path::ScriptPlace;
use crate::snapshot::SyncView;
use crate::store::{ChainData, Fact, Statuses};
use crate::types::{Branch, Keychain, WalletType};

/// Smallest scan window beyond the last used address on external branches.
const EXTERNAL_WINDOW: u32 = 100;
/// The same on internal branches, where failed coinjoins leave gaps.
const INTERNAL_WINDOW: u32 = 200;
/// Window of a recovery or rescan against a private server.
const PRIVATE_WINDOW: u32 = 1000;
/// Scripts that are watched beyond the window, so that not each new address costs a request.
const SLACK: u32 = 20;
/// In a scan the window grows with what was found, up to this: a long history takes few round trips.
const LARGEST_GROWTH: u32 = 2000;

/// State of the watch.
#[derive(Debug)]
pub(super) struct Sync {
    commands: mpsc::UnboundedSender<WatchCommand>,
    /// Commands sent in this session.
    generation: u64,
    /// Addresses to look beyond the last used one, at least.
    gap: u32,
    /// Scripts watched of each branch.
    watched: BTreeMap<Keychain, u32>,
    bonds: BTreeSet<u16>,
    statuses: Statuses,
    /// Transactions of each script as the server listed them, since the wallet was opened.
    pub(super) histories: HashMap<ScriptPlace, Vec<Txid>>,
    /// Progress of the first sync or of a rescan, while one runs.
    scan: Option<f64>,
    /// A window as wide as in a recovery.
    deep: bool,
    /// A complete sync was made since the wallet was opened.
    pub(super) complete: bool,
    failed: bool,
}

impl Sync {
    /// `scanning`: nothing is known yet. `deep`: with the wide window of a recovery.
    pub(super) fn new(gap: u32, statuses: Statuses, scanning: bool, deep: bool) -> Self {
        Self {
            // Replaced by the engine's channel as soon as the watch starts.
            commands: mpsc::unbounded_channel().0,
            generation: 0,
            gap,
            watched: BTreeMap::new(),
            bonds: BTreeSet::new(),
            statuses,
            histories: HashMap::new(),
            scan: scanning.then_some(0.0),
            deep,
            complete: false,
            failed: false,
        }
    }

    pub(super) fn connect(&mut self, commands: mpsc::UnboundedSender<WatchCommand>) {
        self.commands = commands;
    }

    pub(super) const fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// A scan or the first catching up is under way.
    pub(super) const fn is_busy(&self) -> bool {
        self.scan.is_some() || !self.complete
    }

    pub(super) const fn view(&self, ever_complete: bool) -> SyncView {
        SyncView {
            ever_complete,
            complete: self.complete,
            scanning: self.scan,
            failed: self.failed,
        }
    }

    fn window(&self, branch: Branch) -> u32 {
        let smallest = match branch {
            Branch::External => EXTERNAL_WINDOW,
            Branch::Internal => INTERNAL_WINDOW,
        };
        let deep = if self.deep { PRIVATE_WINDOW } else { 0 };
        smallest.max(self.gap).max(deep)
    }

    /// Number of scripts of a branch to watch from now on, if more than now.
    fn wanted(&self, keychain: Keychain, next_unused: u32) -> Option<u32> {
        let window = self.window(keychain.branch);
        let watched = self.watched.get(&keychain).copied().unwrap_or(0);
        if watched >= next_unused.saturating_add(window) {
            return None;
        }
        let growth = if self.scan.is_some() { next_unused.min(LARGEST_GROWTH) } else { 0 };
        Some(next_unused.saturating_add(window.max(growth)).saturating_add(SLACK))
    }

    fn watched_script(&self, script: ScriptBuf) -> WatchedScript {
        let status = self.statuses.get(&script).copied();
        WatchedScript { script, status }
    }

    fn send(&mut self, command: WatchCommand) {
        // An error means that there is no engine; the wallet then works without news.
        if self.commands.send(command).is_ok() {
            self.generation += 1;
        }
    }
}

/// Derives every branch up to its window. Returns the change to store and the scripts to watch.
fn extend(graph: &mut WalletGraph, sync: &mut Sync) -> (ChainData, Vec<WatchedScript>) {
    let mut change = ChainData::default();
    let mut scripts = Vec::new();
    let keychains: Vec<Keychain> = graph.index().keychains().collect();
    for keychain in keychains {
        let next_unused = graph.index().next_unused(keychain);
        let Some(count) = sync.wanted(keychain, next_unused) else { continue };
        change.graph.merge(graph.derive_to(keychain, count).graph);
        let watched = sync.watched.insert(keychain, count).unwrap_or(0);
        let places = (watched..count).map(|index| ScriptPlace::Ranged { keychain, index });
        let new = places.filter_map(|place| graph.index().script(&place).cloned());
        scripts.extend(new.map(|script| sync.watched_script(script)));
    }
    (change, scripts)
}

/// What the engine is started with, and the change to store.
pub(super) fn start(
    graph: &mut WalletGraph,
    sync: &mut Sync,
    imported: impl Iterator<Item = ScriptPlace>,
    bonds: impl IntoIterator<Item = u16>,
) -> (WatchStart, ChainData) {
    let (mut change, mut scripts) = extend(graph, sync);
    // Transactions may pay scripts that were derived just now.
    let again = graph.reindex();
    if !again.graph.is_empty() {
        change.graph.merge(again.graph);
        let (more, new) = extend(graph, sync);
        change.graph.merge(more.graph);
        scripts.extend(new);
    }
    let bonds = bonds.into_iter().filter(|bond| sync.bonds.insert(*bond)).collect::<Vec<_>>();
    let fixed = bonds.into_iter().map(|timenumber| ScriptPlace::Bond { timenumber });
    let fixed = fixed.chain(imported).filter_map(|place| graph.index().script(&place).cloned());
    scripts.extend(fixed.map(|script| sync.watched_script(script)));
    let known = graph.txs().full_txs().map(|tx| (tx.txid, graph.anchor_of(tx.txid)));
    let pruned = graph.pruned_blocks().map(|(txid, block)| (txid, Some(block)));
    let known = known.chain(pruned).collect();
    (WatchStart { checkpoint: graph.tip(), known, scripts }, change)
}

/// Bonds that are watched always: issued, or paid at any time. All of them while discovering.
pub(super) fn bonds_to_watch(
    graph: &WalletGraph,
    wallet_type: WalletType,
    issued: &BTreeSet<u16>,
    discovering: bool,
) -> BTreeSet<u16> {
    if wallet_type != WalletType::FidelityBond {
        return BTreeSet::new();
    }
    if discovering {
        return (0..TIMENUMBER_COUNT).collect();
    }
    let places = graph.index().outpoints().map(|(place, _)| place).chain(graph.pruned_places());
    let paid = places.filter_map(|place| match place {
        ScriptPlace::Bond { timenumber } => Some(timenumber),
        _ => None,
    });
    issued.iter().copied().chain(paid).collect()
}

impl State {
    /// Watches more scripts where the window has become too small.
    pub(super) fn extend_windows(&mut self) {
        let (change, scripts) = extend(&mut self.graph, &mut self.sync);
        self.keep(change);
        if !scripts.is_empty() {
            self.sync.send(WatchCommand::Watch(scripts));
        }
    }

    /// Watches bonds that are not watched yet.
    pub(super) fn watch_bonds(&mut self, bonds: impl IntoIterator<Item = u16>) {
        let new =
            bonds.into_iter().filter(|bond| self.sync.bonds.insert(*bond)).collect::<Vec<_>>();
        let scripts: Vec<WatchedScript> = new
            .into_iter()
            .filter_map(|timenumber| self.graph.index().script(&ScriptPlace::Bond { timenumber }))
            .cloned()
            .map(|script| self.sync.watched_script(script))
            .collect();
        if !scripts.is_empty() {
            self.sync.send(WatchCommand::Watch(scripts));
        }
    }

    /// Starts a full scan, or widens the one that runs.
    pub(super) fn rescan(&mut self, gap: u32) {
        let current = self.policy.load().gap_limit;
        self.sync.gap = self.sync.gap.max(gap).max(current);
        self.sync.deep = !self.chain.status().borrow().public_server;
        let running = self.sync.scan.is_some();
        self.sync.scan.get_or_insert(0.0);
        self.sync.failed = false;
        self.extend_windows();
        let bonds =
            bonds_to_watch(&self.graph, self.keys.wallet_type(), &self.store.facts().bonds, true);
        self.watch_bonds(bonds);
        if !running {
            self.sync.send(WatchCommand::Rescan);
        }
        self.publish();
    }

    /// Takes news from the engine.
    pub(super) fn event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Update(update) => self.update(*update),
            WatchEvent::Progress { answered, planned } => self.progress(answered, planned),
            WatchEvent::CaughtUp { generation } => self.caught_up(generation),
            WatchEvent::Disconnected { reason } => {
                tracing::warn!(%reason, "no connection to the Electrum server");
                self.own.resend = true;
                self.sync.failed = self.sync.scan.is_some();
                self.mark_stale(false);
            }
        }
    }

    fn progress(&mut self, answered: usize, planned: usize) {
        if let Some(progress) = &mut self.sync.scan {
            // Precise enough: both are far below 2^52.
            let fraction = answered as f64 / planned.max(1) as f64;
            // Planned grows with what is found; what people see never goes back.
            *progress = progress.max(fraction.min(0.99));
            self.sync.failed = false;
            self.mark_stale(false);
        }
    }

    fn update(&mut self, update: ChainUpdate) {
        let ChainUpdate { tip, chain, txs, histories } = update;
        let before = self.graph.tip().height();
        let stale_anchors = &self.canonical.stale_anchors;
        let (mut change, mut alters) = match self.graph.apply(chain, txs, stale_anchors) {
            Ok(applied) => applied,
            Err(error) => {
                // Nothing of it is taken and no status stored, so that it will be asked for again.
                tracing::error!(%error, "news does not connect to the wallet's chain");
                self.sync.failed = self.sync.scan.is_some();
                return;
            }
        };
        // A server that is behind us does not take us back; one on another branch does.
        let local = self.graph.tip();
        if local.hash() == tip.hash && local.height() == tip.height {
            self.tip = Some(tip);
        }
        self.own.new_block |= local.height() != before;
        let from_histories = self.take_histories(&histories);
        alters |= !from_histories.graph.is_empty();
        change.graph.merge(from_histories.graph);
        let mut statuses = Vec::with_capacity(histories.len());
        for ScriptHistory { script, status, .. } in histories {
            match status {
                Some(status) => self.sync.statuses.insert(script.clone(), status),
                None => self.sync.statuses.remove(&script),
            };
            statuses.push((script, status));
        }
        self.keep_with(change, statuses);
        self.extend_windows();
        self.mark_stale(alters);
    }

    fn take_histories(&mut self, histories: &[ScriptHistory]) -> ChainData {
        let mut change = ChainData::default();
        let time = now();
        let mut places = Vec::with_capacity(histories.len());
        for history in histories {
            let Some(place) = self.graph.index().place_of(&history.script) else { continue };
            for (txid, height) in &history.entries {
                change.graph.merge(self.graph.listed(*txid, *height, time).graph);
                if self.own.unlisted.remove(txid) {
                    self.mark_undecided();
                }
            }
            let txids = history.entries.iter().map(|(txid, _)| *txid).collect();
            self.sync.histories.insert(place, txids);
            places.push(place);
        }
        let gone: HashSet<Txid> =
            places.into_iter().flat_map(|place| self.vanished_from(place)).collect();
        for txid in gone {
            tracing::warn!(%txid, "unconfirmed transaction vanished from the mempool");
            change.graph.merge(self.graph.evict(txid, time).graph);
        }
        change
    }

    /// Unconfirmed transactions of a script that no history lists any more. Our own count as vanished
    /// only after the server has listed them once.
    fn vanished_from(&self, place: ScriptPlace) -> Vec<Txid> {
        let graph = &self.graph;
        let mut touching: HashSet<Txid> = HashSet::new();
        for outpoint in graph.index().outpoints_of(place) {
            touching.insert(outpoint.txid);
            touching.extend(graph.spenders(outpoint));
        }
        let listed: HashSet<Txid> =
            self.sync.histories.get(&place).into_iter().flatten().copied().collect();
        touching.retain(|txid| !listed.contains(txid));
        let listed_elsewhere =
            |txid: &Txid| graph.tx(*txid).is_some_and(|tx| self.is_listed(*txid, &tx));
        touching
            .into_iter()
            .filter(|txid| {
                graph.anchor_of(*txid).is_none()
                    && !self.own.unlisted.contains(txid)
                    && !graph.is_evicted(*txid)
                    && !listed_elsewhere(txid)
            })
            .collect()
    }

    /// Whether the server lists a transaction in the history of any of its scripts.
    pub(super) fn is_listed(&self, txid: Txid, tx: &Transaction) -> bool {
        let places = self.graph.places_of(tx).into_iter();
        let mut rows = places.filter_map(|place| self.sync.histories.get(&place));
        rows.any(|row| row.contains(&txid))
    }

    fn caught_up(&mut self, generation: u64) {
        // The engine need not report a block that we know; its median time comes with the status.
        let tip = self.chain.status().borrow().tip;
        if let Some(tip) = tip.filter(|tip| tip.hash == self.graph.tip().hash()) {
            self.tip = Some(tip);
        }
        if generation == self.sync.generation {
            // The order matters: what was found so far is judged as history, not as news.
            self.refresh_if_stale();
            self.finish_first_sync();
            self.sync.scan = None;
            self.sync.failed = false;
            self.sync.complete = true;
            // Only now it is certain what is not there.
            self.mark_undecided();
            self.refresh();
            self.commit();
        }
        if std::mem::take(&mut self.own.resend) {
            self.send_again();
        }
    }

    /// Ends the first complete sync of the wallet's life, and the recovery from a loss of state.
    fn finish_first_sync(&mut self) {
        let mut facts = Vec::new();
        if !self.store.facts().synced_once {
            facts.extend(self.freeze_rules().baseline());
        }
        let mut skipped = Vec::new();
        if self.store.facts().state_lost {
            for keychain in self.graph.index().keychains() {
                if keychain.branch == Branch::Internal {
                    let index = self.graph.index();
                    let handed_out = index.next_unused(keychain);
                    let next_unused = if self.skipped.contains(&keychain) {
                        handed_out.max(index.paid_count(keychain).saturating_add(LOSS_SKIP))
                    } else {
                        handed_out.saturating_add(LOSS_SKIP)
                    };
                    facts.push(Fact::Issued {
                        mixdepth: keychain.mixdepth.0,
                        branch: branch_number(keychain.branch),
                        next_unused,
                    });
                    skipped.push((keychain, next_unused));
                }
            }
            facts.push(Fact::IndexesSkipped);
        }
        if let Err(error) = self.record(&facts) {
            // Repeated when the wallet is opened the next time.
            tracing::error!(%error, "the end of the first sync could not be stored");
            return;
        }
        for (keychain, next_unused) in skipped {
            let change = self.graph.advance(keychain, next_unused);
            self.keep(change);
        }
        self.extend_windows();
    }
}
