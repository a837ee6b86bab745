//! What the wallet task owns, and the commands that change it.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bdk_wallet::bitcoin::address::NetworkUnchecked;
use bdk_wallet::bitcoin::{Address, OutPoint, Script, ScriptBuf, Transaction, Txid};
use bdk_wallet::chain::Merge;
use joinery_proto::message_signature;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};

use super::announce::{Announcer, Phase};
use super::command::Command;
use super::freeze::Rules;
use super::locks::Locks;
use super::own::Own;
use super::rounds::Rounds;
use super::sync::Sync;
use super::view::{Parts, Views};
use super::{Effect, MAX_LABEL_BYTES, ServiceError, SessionMode, WalletEvent};
use crate::chain::{ChainSource, ChainTip, StatusHash};
use crate::directory::OpenedKeys;
use crate::graph::{Canonical, INDEX_LIMIT, WalletGraph};
use crate::path::ScriptPlace;
use crate::policy::WalletPolicy;
use crate::round::Round;
use crate::snapshot::{Snapshot, SyncView};
use crate::store::{ChainData, Fact, FreezeOrigin, OwnTxState, Store, StoreError};
use crate::types::{Branch, Keychain, Mixdepth, Network, WalletType};

/// How long fetched chain data may wait for its commit: it can be fetched again.
const COMMIT_DELAY: Duration = Duration::from_secs(2);

/// During a scan the snapshot is rebuilt at most this often, and at most every tenth of the time is
/// spent on it: each rebuild walks all transactions.
const SCAN_REFRESH: Duration = Duration::from_millis(250);

/// Internal indexes that are skipped after a loss of state: they may have been shown to counterparties
/// (`spec/wallet.md` 13.6).
pub(super) const LOSS_SKIP: u32 = 50;

/// Chain data that is not yet in the store.
#[derive(Debug, Default)]
struct Pending {
    change: ChainData,
    statuses: Vec<(ScriptBuf, Option<StatusHash>)>,
    /// When the oldest uncommitted data arrived.
    since: Option<Instant>,
}

/// The state of an opened wallet.
#[derive(Debug)]
pub(super) struct State {
    pub(super) keys: Arc<OpenedKeys>,
    pub(super) store: Box<dyn Store>,
    pub(super) graph: WalletGraph,
    pub(super) canonical: Canonical,
    pub(super) policy: Arc<ArcSwap<WalletPolicy>>,
    pub(super) chain: Arc<dyn ChainSource>,
    /// For tasks of the wallet that report back; weak, so that the wallet ends with its last handle.
    pub(super) commands: mpsc::WeakUnboundedSender<Command>,
    pub(super) events: broadcast::Sender<WalletEvent>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) views: Views,
    pub(super) sync: Sync,
    pub(super) tip: Option<ChainTip>,
    /// Coins held by a running operation.
    pub(super) locks: Locks,
    pub(super) rounds: Rounds,
    /// It was opened for the maker only; readers see it, too.
    pub(super) maker_only: Arc<AtomicBool>,
    pub(super) own: Own,
    pub(super) announcer: Announcer,
    /// Internal branches that skipped ahead since the loss of state.
    pub(super) skipped: HashSet<Keychain>,
    /// The runtime that chain backends were made on, for questions to them.
    pub(super) outside: Option<Handle>,
    /// Password checks that still hold the keys.
    pub(super) checks: Vec<std::thread::JoinHandle<()>>,
    /// See [`super::PRUNE_ABOVE`].
    prune_above: usize,
    pending: Pending,
    stale: Stale,
}

/// How far the snapshot is behind the graph.
#[derive(Debug, Default)]
struct Stale {
    /// The graph changed since [`Canonical`] was computed.
    canonical: bool,
    /// What follows from [`Canonical`] was not looked at yet.
    rules: bool,
    /// Anything changed since the snapshot was published.
    snapshot: bool,
    refreshed: Option<Instant>,
    cost: Duration,
}

/// Seconds since epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What [`State::new`] is made of.
pub(super) struct Loaded {
    pub(super) keys: OpenedKeys,
    pub(super) store: Box<dyn Store>,
    pub(super) graph: WalletGraph,
    pub(super) policy: Arc<ArcSwap<WalletPolicy>>,
    pub(super) chain: Arc<dyn ChainSource>,
    pub(super) commands: mpsc::WeakUnboundedSender<Command>,
    pub(super) views: Views,
    pub(super) sync: Sync,
    pub(super) tip: Option<ChainTip>,
    pub(super) prune_above: usize,
    pub(super) mode: SessionMode,
}

impl State {
    pub(super) fn new(loaded: Loaded) -> Self {
        let Loaded { keys, store, graph, policy, chain, commands, .. } = loaded;
        let Loaded { mut views, sync, tip, prune_above, mode, .. } = loaded;
        let canonical = graph.canonical();
        let locks = Locks::of_rounds(&store.facts().rounds);
        let rounds = Rounds::new(store.facts());
        let first = views.build(&Parts {
            graph: &graph,
            canonical: &canonical,
            facts: store.facts(),
            locks: &locks,
            rounds: &rounds.list,
            tip,
            sync: SyncView::default(),
        });
        let announcer = Announcer::new(&canonical);
        Self {
            keys: Arc::new(keys),
            store,
            graph,
            canonical,
            policy,
            chain,
            commands,
            events: broadcast::Sender::new(super::handle::EVENT_QUEUE),
            snapshot: Arc::new(ArcSwap::from_pointee(first)),
            views,
            sync,
            tip,
            locks,
            rounds,
            maker_only: Arc::new(AtomicBool::new(mode == SessionMode::MakerOnly)),
            own: Own::default(),
            announcer,
            skipped: HashSet::new(),
            outside: None,
            checks: Vec::new(),
            prune_above,
            pending: Pending::default(),
            stale: Stale { rules: true, snapshot: true, ..Stale::default() },
        }
    }

    // --- storing ---------------------------------------------------------------------------------

    /// Takes a change of chain data that the store does not have yet.
    pub(super) fn keep(&mut self, change: ChainData) {
        self.keep_with(change, Vec::new());
    }

    /// The same with the statuses that the change makes true.
    pub(super) fn keep_with(
        &mut self,
        change: ChainData,
        statuses: Vec<(ScriptBuf, Option<StatusHash>)>,
    ) {
        if change.chain.is_empty() && change.graph.is_empty() && statuses.is_empty() {
            return;
        }
        self.pending.change.chain.merge(change.chain);
        self.pending.change.graph.merge(change.graph);
        self.pending.statuses.extend(statuses);
        self.pending.since.get_or_insert_with(Instant::now);
    }

    /// Commits what is pending. On failure it stays pending: nothing was promised about it.
    pub(super) fn commit(&mut self) {
        if self.pending.since.is_none() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let appended = self.store.append_chain(&pending.change, &pending.statuses);
        match appended.and_then(|()| self.store.commit()) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "chain data could not be stored; will be tried again");
                // Appending it twice is harmless: merging is idempotent.
                self.pending = Pending { since: Some(Instant::now()), ..pending };
                return;
            }
        }
        if self.store.wants_compaction() {
            self.compact();
        }
    }

    /// Merges the stored changes, and sets aside what is finished if there are many transactions.
    fn compact(&mut self) {
        let smaller = self.without_finished();
        let graph = smaller.as_ref().map_or(&self.graph, |(graph, _)| graph);
        match self.store.compact(&graph.everything()) {
            Ok(()) => {
                // Only now: until it is stored, the next commit builds on what was there before.
                if let Some((graph, canonical)) = smaller {
                    (self.graph, self.canonical) = (graph, canonical);
                    self.forget_finished();
                }
            }
            Err(error) => tracing::error!(%error, "chain data could not be compacted"),
        }
    }

    fn without_finished(&self) -> Option<(WalletGraph, Canonical)> {
        // What is stale now is not at the next compaction.
        if self.stale.canonical || self.graph.txs().full_txs().count() <= self.prune_above {
            return None;
        }
        let own_txs = &self.store.facts().own_txs;
        self.graph.without_finished(&self.canonical, |txid| {
            own_txs
                .get(txid)
                .is_none_or(|own| matches!(own.state, OwnTxState::Confirmed | OwnTxState::Rejected))
        })
    }

    /// What is kept about transactions that are set aside now goes, too: nothing will ever be sent again.
    fn forget_finished(&mut self) {
        let graph = &self.graph;
        self.announcer.forget(|txid| graph.is_set_aside(*txid));
        let own = self.store.facts().own_txs.keys().filter(|txid| graph.is_set_aside(**txid));
        let over: Vec<Fact> = own.map(|txid| Fact::OwnTransactionOver { txid: *txid }).collect();
        if let Err(error) = self.record(&over) {
            // They stay where they are, and go with the next ones.
            tracing::error!(%error, "finished transactions of ours could not be let go");
        }
    }

    /// When [`State::tick`] should be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let commit = self.pending.since.map(|since| since + COMMIT_DELAY);
        let refresh = self.stale.snapshot.then(|| self.refresh_due());
        [commit, refresh, self.rounds_due()].into_iter().flatten().min()
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.rounds_due().is_some_and(|due| due <= now) && self.settle_rounds() {
            self.mark_stale(false);
        }
        if self.stale.snapshot && self.refresh_due() <= now {
            self.refresh();
        }
        if self.pending.since.is_some_and(|since| since + COMMIT_DELAY <= now) {
            self.commit();
        }
    }

    // --- publishing ------------------------------------------------------------------------------

    /// Notes that the snapshot is behind; `graph` if transactions changed too.
    pub(super) fn mark_stale(&mut self, graph: bool) {
        self.stale.canonical |= graph;
        self.stale.snapshot = true;
    }

    fn refresh_due(&self) -> Instant {
        let pause = SCAN_REFRESH.max(self.stale.cost * 10);
        self.stale.refreshed.map_or_else(Instant::now, |refreshed| refreshed + pause)
    }

    /// Brings the snapshot up to date if it is due; outside of scans it always is.
    pub(super) fn refresh_if_due(&mut self) {
        let due = !self.sync.is_busy() || self.refresh_due() <= Instant::now();
        if self.stale.snapshot && due {
            self.refresh();
        }
    }

    /// Computes what follows from the graph: coins, decisions, news; then publishes it.
    pub(super) fn refresh(&mut self) {
        let start = Instant::now();
        self.judge();
        if self.stale.canonical {
            // A round was given up: what it would have spent counts again.
            self.judge();
        }
        self.publish();
        self.stale.cost = start.elapsed();
        self.stale.refreshed = Some(Instant::now());
    }

    /// Decides what follows from the graph.
    fn judge(&mut self) {
        if std::mem::take(&mut self.stale.canonical) {
            self.canonical = self.graph.canonical();
            self.stale.rules = true;
        }
        if std::mem::take(&mut self.stale.rules) {
            self.settle_own();
            self.settle_rounds();
            self.freeze_new_coins();
            self.tell();
        }
    }

    /// Notes that something other than the graph may have decided what becomes of a transaction.
    pub(super) fn mark_undecided(&mut self) {
        self.stale.rules = true;
        self.stale.snapshot = true;
    }

    /// Brings the state up to date before a decision is made on it.
    pub(super) fn refresh_if_stale(&mut self) {
        if self.stale.snapshot {
            self.refresh();
        }
    }

    /// Whether the graph is ahead of what follows from it.
    pub(super) const fn is_stale(&self) -> bool {
        self.stale.canonical
    }

    fn freeze_new_coins(&mut self) {
        let rules = self.freeze_rules();
        let facts = rules.due();
        if let Err(error) = self.record(&facts) {
            // The coins stay unseen and are looked at again with the next change.
            tracing::error!(%error, "automatic freezing could not be stored");
        }
    }

    pub(super) fn freeze_rules(&self) -> Rules<'_> {
        Rules {
            graph: &self.graph,
            canonical: &self.canonical,
            facts: self.store.facts(),
            histories: &self.sync.histories,
            limit: self.policy.load().max_sats_freeze_reuse,
            now: now(),
        }
    }

    pub(super) fn record(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        self.store.record(facts)?;
        self.note_rounds(facts);
        Ok(())
    }

    /// Like [`Self::record`], durable only with what is recorded next: for what nobody is told before that.
    pub(super) fn note(&mut self, facts: &[Fact]) {
        self.store.note(facts);
        self.note_rounds(facts);
    }

    /// Refuses what a wallet that was opened for the maker only must not do.
    pub(super) fn check_full(&self) -> Result<(), ServiceError> {
        if self.maker_only.load(Ordering::Acquire) { Err(ServiceError::MakerOnly) } else { Ok(()) }
    }

    /// The password was right: takes up what a wallet that is open for everything does at its opening.
    pub(super) fn allow_everything(&mut self) -> Result<(), ServiceError> {
        let left =
            super::rounds::takers_interrupted(self.store.facts(), &self.policy.load(), now());
        self.record(&left)?;
        self.maker_only.store(false, Ordering::Release);
        self.resume_own();
        self.publish();
        Ok(())
    }

    /// Tells listeners of new transactions.
    fn tell(&mut self) {
        let unsent = self.own.unsent(self.store.facts());
        let phase = match (self.sync.complete, self.sync.is_scanning()) {
            (false, _) => Phase::CatchingUp,
            (true, true) => Phase::Scanning,
            (true, false) => Phase::Following,
        };
        for (txid, height) in self.announcer.due(&self.canonical, &unsent, phase) {
            self.tell_of(txid, height);
        }
    }

    pub(super) fn tell_of(&self, txid: Txid, height: Option<u32>) {
        let Some(transaction) = self.graph.tx(txid) else { return };
        let tip = self.graph.tip().height();
        let confirmations = height.map_or(0, |height| tip.saturating_sub(height) + 1);
        let effect = self.effect_of(&transaction);
        // An error means that nobody listens.
        let _ = self.events.send(WalletEvent::Transaction { transaction, confirmations, effect });
    }

    fn effect_of(&self, tx: &Transaction) -> Effect {
        let txid = tx.compute_txid();
        let made_it = |round: &&Arc<Round>| {
            let signed = round.signed.iter().any(|(signed, _, _)| *signed == txid);
            signed || round.seen.is_some_and(|(seen, _)| seen == txid)
        };
        if let Some(round) = self.store.facts().rounds.values().find(made_it) {
            return Effect::Coinjoin { amount: round.sums.amount };
        }
        let index = self.graph.index();
        let value_of = |outpoint| index.txout(outpoint).map_or(0, |(_, out)| out.value.to_sat());
        let sum = |sum: u64, value: u64| sum.saturating_add(value);
        let spent = tx.input.iter().map(|input| value_of(input.previous_output)).fold(0, sum);
        let ours = (0..).zip(&tx.output).map(|(vout, _)| value_of(OutPoint { txid, vout }));
        let received = ours.fold(0, sum);
        if spent == 0 {
            Effect::In { amount: received }
        } else {
            Effect::Out { amount: spent.saturating_sub(received) }
        }
    }

    /// Publishes the state as it is.
    pub(super) fn publish(&mut self) {
        let snapshot = self.views.build(&Parts {
            graph: &self.graph,
            canonical: &self.canonical,
            facts: self.store.facts(),
            locks: &self.locks,
            rounds: &self.rounds.list,
            tip: self.tip,
            sync: self.sync.view(self.store.facts().synced_once),
        });
        let revision = snapshot.revision;
        self.snapshot.store(Arc::new(snapshot));
        self.stale.snapshot = false;
        let _ = self.events.send(WalletEvent::Changed { revision });
        self.tell_rounds();
    }

    // --- commands --------------------------------------------------------------------------------

    fn checked_script(&self, place: &ScriptPlace) -> Result<ScriptBuf, ServiceError> {
        let script = self.graph.index().script(place);
        let script = script.ok_or(ServiceError::KeyCheck("script is not derived"))?;
        // Stored scripts are a cache. Nothing is handed out that the keys do not really own.
        match self.keys.master().script_pubkey(place) {
            Ok(derived) if derived == *script => Ok(derived),
            _ => Err(ServiceError::KeyCheck("stored script is not that of the key")),
        }
    }

    pub(super) fn address_of(&self, script: &ScriptBuf) -> Result<Address, ServiceError> {
        Address::from_script(script, self.network().bitcoin())
            .map_err(|_| ServiceError::KeyCheck("script has no address"))
    }

    pub(super) fn network(&self) -> Network {
        self.keys.network()
    }

    pub(super) fn max_mixdepth(&self) -> Mixdepth {
        Mixdepth(self.keys.max_mixdepth())
    }

    /// The next address of a branch and the fact that makes it handed out. The caller records the fact
    /// and then calls [`State::issued`].
    ///
    /// `not` is passed over: change must not go to the script that is paid.
    pub(super) fn next_address(
        &mut self,
        keychain: Keychain,
        not: Option<&Script>,
    ) -> Result<(ScriptBuf, Fact), ServiceError> {
        if keychain.mixdepth > self.max_mixdepth() {
            return Err(ServiceError::NoSuchMixdepth(keychain.mixdepth));
        }
        let mut index = self.graph.index().next_unused(keychain);
        let may_be_known = self.store.facts().state_lost
            && keychain.branch == Branch::Internal
            && !self.skipped.contains(&keychain);
        if may_be_known {
            index = index.saturating_add(LOSS_SKIP);
        }
        let derived = self.graph.derive_to(keychain, index.saturating_add(2));
        self.keep(derived);
        if not.is_some_and(|script| {
            self.graph.index().place_of(script) == Some(ScriptPlace::Ranged { keychain, index })
        }) {
            index += 1;
        }
        if index >= INDEX_LIMIT - 1 {
            return Err(ServiceError::Exhausted(keychain));
        }
        let script = self.checked_script(&ScriptPlace::Ranged { keychain, index })?;
        let fact = Fact::Issued {
            mixdepth: keychain.mixdepth.0,
            branch: branch_number(keychain.branch),
            next_unused: index + 1,
        };
        Ok((script, fact))
    }

    /// Takes over an address that is durably handed out: moves the window and watches it.
    pub(super) fn issued(&mut self, keychain: Keychain) {
        let key = (keychain.mixdepth.0, branch_number(keychain.branch));
        let next = self.store.facts().issued.get(&key).copied().unwrap_or(0);
        self.skipped.insert(keychain);
        let change = self.graph.advance(keychain, next);
        self.keep(change);
        self.extend_windows();
    }

    pub(super) fn issue_address(
        &mut self,
        mixdepth: Mixdepth,
        branch: Branch,
    ) -> Result<Address, ServiceError> {
        let keychain = Keychain { mixdepth, branch };
        let (script, fact) = self.next_address(keychain, None)?;
        let address = self.address_of(&script)?;
        self.record(&[fact])?;
        self.issued(keychain);
        self.publish_or_wait();
        Ok(address)
    }

    /// Publishes a change that needs no look at the graph, unless the graph is due for one anyway.
    pub(super) fn publish_or_wait(&mut self) {
        if self.stale.canonical { self.refresh_if_due() } else { self.publish() }
    }

    pub(super) fn bond_address(&mut self, timenumber: u16) -> Result<Address, ServiceError> {
        self.check_full()?;
        if self.keys.wallet_type() != WalletType::FidelityBond {
            return Err(ServiceError::NoBonds);
        }
        let place = ScriptPlace::Bond { timenumber };
        if self.graph.index().script(&place).is_none() {
            return Err(ServiceError::NoSuchMonth(timenumber));
        }
        let script = self.checked_script(&place)?;
        let address = self.address_of(&script)?;
        if !self.store.facts().bonds.contains(&timenumber) {
            self.record(&[Fact::BondIssued { timenumber }])?;
        }
        self.watch_bonds([timenumber]);
        Ok(address)
    }

    pub(super) fn set_frozen(&mut self, changes: &[(OutPoint, bool)]) -> Result<(), ServiceError> {
        self.check_full()?;
        let time = now();
        let frozen = &self.store.facts().frozen;
        for (outpoint, freeze) in changes {
            let current = frozen.get(outpoint).is_some_and(|(frozen, _)| *frozen);
            if let Some(round) = self.locks.round(outpoint).filter(|_| *freeze != current) {
                return Err(ServiceError::HeldByRound { outpoint: *outpoint, round });
            }
        }
        let facts: Vec<Fact> = changes
            .iter()
            .map(|&(outpoint, frozen)| Fact::Frozen {
                outpoint,
                frozen,
                by: FreezeOrigin::User,
                time,
            })
            .collect();
        self.record(&facts)?;
        self.publish_or_wait();
        Ok(())
    }

    pub(super) fn set_label(&mut self, address: &str, label: &str) -> Result<(), ServiceError> {
        self.check_full()?;
        if label.len() > MAX_LABEL_BYTES {
            return Err(ServiceError::LabelTooLong(label.len()));
        }
        let place = Address::<NetworkUnchecked>::from_str(address)
            .ok()
            .and_then(|address| address.require_network(self.network().bitcoin()).ok())
            .and_then(|address| self.graph.index().place_of(&address.script_pubkey()))
            .ok_or(ServiceError::UnknownAddress)?;
        let text = self.views.address(&self.graph, place).ok_or(ServiceError::UnknownAddress)?;
        self.record(&[Fact::Label { address: text.to_string(), label: label.to_owned() }])?;
        self.publish_or_wait();
        Ok(())
    }

    pub(super) fn sign_message(
        &self,
        path: &str,
        message: &str,
    ) -> Result<(String, Address), ServiceError> {
        self.check_full()?;
        let master = self.keys.master();
        let purpose = master.wallet_type().purpose();
        let place = ScriptPlace::parse(path, purpose, master.network().coin_type())
            .filter(|place| place.mixdepth() <= self.max_mixdepth())
            .ok_or(ServiceError::UnknownPath)?;
        let signer = master.signer(&place).map_err(|_| ServiceError::UnknownPath)?;
        let address = self.address_of(signer.script_pubkey())?;
        Ok((message_signature::sign_base64(message.as_bytes(), signer.secret_key()), address))
    }

    /// Ends the wallet: stores what is pending and lets go of keys, store and file locks.
    pub(super) fn shut_down(mut self) {
        self.commit();
        for check in std::mem::take(&mut self.checks) {
            // It only fails if the check panicked, which has been logged.
            let _ = check.join();
        }
    }
}

/// The number of a branch in facts.
pub(super) const fn branch_number(branch: Branch) -> u8 {
    match branch {
        Branch::External => 0,
        Branch::Internal => 1,
    }
}

/// Extended keys of all branches as text.
pub(super) type Xpubs = BTreeMap<Keychain, Arc<str>>;
