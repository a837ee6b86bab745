//! Opening a wallet: from key file and store to a running task.

use std::collections::BTreeMap;
use std::sync::Arc;

use bdk_wallet::bitcoin::constants::genesis_block;
use joinery_proto::fidelity_bond::TIMENUMBER_COUNT;
use tokio::sync::mpsc;

use super::command::Command;
use super::handle::{OpenOptions, Shared, WalletHandle};
use super::state::{Loaded, State, Xpubs, branch_number, now};
use super::sync::{self, Sync};
use super::view::{Views, keychains};
use super::{ServiceError, SessionMode, rounds, task};
use crate::chain::{ChainTip, WatchStart};
use crate::directory::OpenedKeys;
use crate::graph::{JmIndex, WalletGraph};
use crate::path::ScriptPlace;
use crate::round::RoundRole;
use crate::store::{ChainData, Fact, FreezeOrigin, Statuses, Store};
use crate::types::{Mixdepth, WalletType};

impl WalletHandle {
    /// Opens a wallet: restores its last state, which is served from now on, and starts its task on the
    /// thread `wallet`. Blocking: reads the whole store. The store must be that of the keys.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::KeyCheck`], [`ServiceError::Thread`].
    pub fn open(
        keys: OpenedKeys,
        store: Box<dyn Store>,
        options: OpenOptions,
    ) -> Result<Self, ServiceError> {
        let name = keys.name().to_string();
        let (commands, received) = mpsc::unbounded_channel();
        let (mut state, start) = load(keys, store, &options, commands.downgrade())?;
        let session = options.chain.watch(start);
        state.sync.connect(session.commands);
        let shared = Arc::new(Shared {
            name,
            commands,
            snapshot: state.snapshot.clone(),
            events: state.events.clone(),
            chain: options.chain,
            policy: options.policy,
            maker_only: Arc::clone(&state.maker_only),
        });
        task::spawn(state, received, session.events).map_err(ServiceError::Thread)?;
        Ok(Self { shared })
    }
}

/// Index of all scripts that exist whatever happened: branches without scripts, bonds, imported keys.
pub(super) fn empty_index(keys: &OpenedKeys) -> Result<(JmIndex, Xpubs), ServiceError> {
    let master = keys.master();
    let nested = keys.wallet_type() == WalletType::NestedSegwit;
    let mut index = JmIndex::default();
    let mut xpubs = BTreeMap::new();
    for keychain in keychains(Mixdepth(keys.max_mixdepth())) {
        let xpub = master.branch_xpub(keychain.mixdepth, keychain.branch.number());
        index.insert_branch(keychain, xpub, nested);
        xpubs.insert(keychain, Arc::from(xpub.to_string()));
    }
    let bonds = if keys.wallet_type() == WalletType::FidelityBond { TIMENUMBER_COUNT } else { 0 };
    let fixed = (0..bonds).map(|timenumber| ScriptPlace::Bond { timenumber });
    for place in fixed.chain(master.imported().places()) {
        let script = master
            .script_pubkey(&place)
            .map_err(|_| ServiceError::KeyCheck("a fixed script cannot be derived"))?;
        index.insert_fixed(place, script);
    }
    Ok((index, xpubs))
}

/// The graph made of stored chain data.
pub(super) struct LoadedGraph {
    pub(super) graph: WalletGraph,
    pub(super) statuses: Statuses,
    /// Nothing was stored, or it could not be used.
    pub(super) empty: bool,
}

/// Loads stored chain data. Data of another chain is dropped: it can be fetched again.
pub(super) fn load_graph(
    keys: &OpenedKeys,
    store: &mut dyn Store,
    index: JmIndex,
) -> Result<LoadedGraph, ServiceError> {
    let genesis = genesis_block(keys.network().bitcoin()).block_hash();
    let (data, statuses) = store.load_chain()?;
    let empty = data == ChainData::default();
    let spare = index.clone();
    if let Ok(graph) = WalletGraph::load(genesis, index, data) {
        return Ok(LoadedGraph { graph, statuses, empty });
    }
    tracing::error!("stored chain data belongs to another chain and is fetched again");
    let graph = WalletGraph::load(genesis, spare, ChainData::default())
        .expect("an empty chain starts at the genesis block it is given");
    store.compact(&graph.everything())?;
    Ok(LoadedGraph { graph, statuses: Statuses::default(), empty: true })
}

/// Facts of another program's file that were not taken over yet, and the end of discovery for a wallet
/// that was made a moment ago.
pub(super) fn first_facts(keys: &OpenedKeys, store: &dyn Store, fresh: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(legacy) = keys.legacy()
        && !store.facts().imported
    {
        for (&(mixdepth, branch), &next_unused) in &legacy.next_unused {
            facts.push(Fact::Issued { mixdepth, branch, next_unused });
        }
        for (&outpoint, &frozen) in &legacy.frozen {
            let by = FreezeOrigin::Import;
            facts.push(Fact::Frozen { outpoint, frozen, by, time: now() });
        }
        for (address, label) in &legacy.labels {
            facts.push(Fact::Label { address: address.clone(), label: label.clone() });
        }
        facts.extend(legacy.bonds.iter().map(|&timenumber| Fact::BondIssued { timenumber }));
        facts.push(Fact::Imported);
    }
    if fresh && !store.facts().synced_once {
        facts.push(Fact::SyncedOnce);
    }
    facts
}

fn load(
    keys: OpenedKeys,
    mut store: Box<dyn Store>,
    options: &OpenOptions,
    commands: mpsc::WeakUnboundedSender<Command>,
) -> Result<(State, WatchStart), ServiceError> {
    let (index, xpubs) = empty_index(&keys)?;
    let LoadedGraph { mut graph, statuses, empty } = load_graph(&keys, store.as_mut(), index)?;
    // Bonds that were found and not handed out are known from the chain alone.
    let lost = empty && !options.fresh;
    let mut facts = first_facts(&keys, store.as_ref(), options.fresh);
    facts.extend(rounds::interrupted(store.facts(), RoundRole::Maker, now()));
    // What became of a taker's is decided when the wallet is open for it.
    if options.mode == SessionMode::Full {
        facts.extend(rounds::takers_interrupted(store.facts(), &options.policy.load(), now()));
    }
    if !facts.is_empty() {
        store.record(&facts)?;
    }
    let mut change = ChainData::default();
    for keychain in keychains(Mixdepth(keys.max_mixdepth())) {
        let key = (keychain.mixdepth.0, branch_number(keychain.branch));
        let issued = store.facts().issued.get(&key).copied().unwrap_or(0);
        merge(&mut change, graph.advance(keychain, issued));
    }
    let gap_limit = options.policy.load().gap_limit;
    let discovering = !store.facts().synced_once;
    let private = !options.chain.status().borrow().public_server;
    let mut sync = Sync::new(
        gap_limit.max(options.min_gap.unwrap_or(0)),
        statuses,
        discovering,
        discovering && private,
    );
    let bonds = sync::bonds_to_watch(
        &graph,
        keys.wallet_type(),
        &store.facts().bonds,
        discovering || options.recovered || lost,
    );
    let imported: Vec<ScriptPlace> = keys.master().imported().places().collect();
    let (mut start, derived) = sync::start(&mut graph, &mut sync, imported.into_iter(), bonds);
    merge(&mut change, derived);
    let views = Views::new(keys.master(), Mixdepth(keys.max_mixdepth()), gap_limit, xpubs);
    let policy = options.policy.clone();
    let chain = options.chain.clone();
    let tip = stored_tip(&graph);
    let prune_above = options.prune_above;
    let mode = options.mode;
    let loaded =
        Loaded { keys, store, graph, policy, chain, commands, views, sync, tip, prune_above, mode };
    let mut state = State::new(loaded);
    state.keep(change);
    state.resume_own();
    state.refresh();
    // Transactions taken up again are known too: the engine need not fetch them.
    for own in &state.own.unlisted {
        start.known.entry(*own).or_insert(None);
    }
    Ok((state, start))
}

fn merge(into: &mut ChainData, change: ChainData) {
    use bdk_wallet::chain::Merge;
    into.chain.merge(change.chain);
    into.graph.merge(change.graph);
}

/// The best block of an earlier session. Its times are unknown until the engine reports: a median time
/// of 0 keeps every timelock shut.
fn stored_tip(graph: &WalletGraph) -> Option<ChainTip> {
    let tip = graph.tip();
    let known = tip.height() > 0;
    known.then(|| ChainTip { height: tip.height(), hash: tip.hash(), median_time: 0, time: 0 })
}
