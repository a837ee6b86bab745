//! The wallet's transactions and where they stand in the chain (`spec/wallet.md` 13.2).
//!
//! [`WalletGraph`] keeps what was learnt; [`Canonical`] is what follows from it: which transactions
//! count, and which outputs are unspent. The second is computed once per change, never per reader.

mod canonical;
mod index;
mod pruned;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bdk_wallet::bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use bdk_wallet::chain::local_chain::{CannotConnectError, LocalChain};
use bdk_wallet::chain::{
    BlockId, CheckPoint, ConfirmationBlockTime, IndexedTxGraph, Indexer, Merge, TxGraph, TxUpdate,
};

use crate::chain::TxHeight;
use crate::path::ScriptPlace;
use crate::store::ChainData;
use crate::types::Keychain;

pub(crate) use canonical::{Canonical, Position, RawCoin};
pub(crate) use index::{INDEX_LIMIT, JmIndex};
use pruned::Pruned;
pub use pruned::PrunedTx;

/// Stored chain data belongs to another chain.
#[derive(Debug, thiserror::Error)]
#[error("stored chain data is of another chain than that of this network")]
pub(crate) struct ForeignChain;

/// Chain, transactions and scripts of one wallet.
#[derive(Debug)]
pub(crate) struct WalletGraph {
    chain: LocalChain,
    /// The same blocks as `chain`: BDK walks a list for each question, which is quadratic in sum.
    blocks: canonical::Blocks,
    graph: IndexedTxGraph<ConfirmationBlockTime, JmIndex>,
    pruned: Pruned,
}

impl WalletGraph {
    /// Restores what was stored. The index must hold its branches and fixed scripts already.
    pub(crate) fn load(
        genesis: BlockHash,
        index: JmIndex,
        mut data: ChainData,
    ) -> Result<Self, ForeignChain> {
        // The genesis block is not stored: it is never news.
        data.chain.blocks.entry(0).or_insert(Some(genesis));
        let chain = LocalChain::from_changeset(data.chain).map_err(|_| ForeignChain)?;
        if chain.genesis_hash() != genesis {
            return Err(ForeignChain);
        }
        let mut blocks = BTreeMap::new();
        for checkpoint in chain.iter_checkpoints() {
            blocks.insert(checkpoint.height(), checkpoint.hash());
        }
        let blocks = canonical::Blocks(blocks);
        // What was set aside was final; if it is not, nothing that follows from it can be relied upon.
        if data.pruned.values().any(|tx| !blocks.holds(tx.block)) {
            return Err(ForeignChain);
        }
        let mut graph = IndexedTxGraph::new(index);
        let first_seen = data.graph.tx_graph.first_seen.clone();
        graph.apply_changeset(data.graph);
        // BDK restores when a transaction was seen last, and takes that for the first time.
        for (txid, seen_at) in first_seen {
            let _stored_already = graph.insert_seen_at(txid, seen_at);
        }
        let pruned = Pruned::new(data.pruned, &graph.index);
        for place in pruned.places() {
            graph.index.note_paid_before(place);
        }
        Ok(Self { chain, blocks, graph, pruned })
    }

    /// Everything, for compaction and for the change that creates an empty store.
    pub(crate) fn everything(&self) -> ChainData {
        ChainData {
            chain: self.chain.initial_changeset(),
            graph: self.graph.initial_changeset(),
            pruned: self.pruned.txs.clone(),
        }
    }

    pub(crate) fn index(&self) -> &JmIndex {
        &self.graph.index
    }

    pub(crate) fn txs(&self) -> &TxGraph<ConfirmationBlockTime> {
        self.graph.graph()
    }

    pub(crate) fn tip(&self) -> CheckPoint {
        self.chain.tip()
    }

    pub(crate) fn tx(&self, txid: Txid) -> Option<Arc<Transaction>> {
        self.txs().get_tx(txid)
    }

    /// Derives scripts so that 0 to `count - 1` of a branch are known.
    pub(crate) fn derive_to(&mut self, keychain: Keychain, count: u32) -> ChainData {
        let indexer = self.graph.index.derive_to(keychain, count);
        change_of_index(indexer)
    }

    /// Raises the number of addresses handed out.
    pub(crate) fn advance(&mut self, keychain: Keychain, next: u32) -> ChainData {
        let indexer = self.graph.index.advance(keychain, next);
        change_of_index(indexer)
    }

    /// Indexes every transaction again: needed when scripts were derived after the transactions that
    /// pay them were loaded.
    pub(crate) fn reindex(&mut self) -> ChainData {
        let graph = self.graph.reindex();
        ChainData { graph, ..ChainData::default() }
    }

    /// Merges news. Returns the change to store, and whether it can alter [`Canonical`] given the
    /// anchors on stale blocks that it found last.
    ///
    /// Transactions that have nothing to do with the wallet are left out: a server must not be able to
    /// fill the store.
    pub(crate) fn apply(
        &mut self,
        chain: CheckPoint,
        mut txs: TxUpdate<ConfirmationBlockTime>,
        stale_anchors: &HashSet<BlockId>,
    ) -> Result<(ChainData, bool), CannotConnectError> {
        let chain = self.chain.apply_update(chain)?;
        let mut alters = false;
        for (height, hash) in &chain.blocks {
            let previous = match hash {
                Some(hash) => self.blocks.0.insert(*height, *hash),
                None => self.blocks.0.remove(height),
            };
            alters |= previous.is_some() || hash.is_none();
            alters |=
                hash.is_some_and(|hash| stale_anchors.contains(&BlockId { height: *height, hash }));
        }
        self.pruned.leave_out(&mut txs);
        // Index all first: one may spend what another one of the same update pays us.
        let mut indexer = <JmIndex as Indexer>::ChangeSet::default();
        for tx in &txs.txs {
            indexer.merge(self.graph.index.index_tx(tx));
        }
        txs.txs.retain(|tx| self.concerns_us(tx));
        txs.txouts.clear();
        let mut known: HashSet<Txid> = txs.txs.iter().map(|tx| tx.compute_txid()).collect();
        let graph = self.graph.graph();
        let mut holds = |txid: &Txid| {
            let held = known.contains(txid) || graph.get_tx(*txid).is_some();
            if held {
                known.insert(*txid);
            }
            held
        };
        txs.anchors.retain(|(_, txid)| holds(txid));
        txs.seen_ats.retain(|(txid, _)| holds(txid));
        txs.evicted_ats.clear();
        let mut graph = self.graph.apply_update(txs);
        alters |= !graph.tx_graph.is_empty() || !indexer.is_empty();
        graph.indexer.merge(indexer);
        Ok((ChainData { chain, graph, ..ChainData::default() }, alters))
    }

    fn concerns_us(&self, tx: &Transaction) -> bool {
        self.graph.index.is_tx_relevant(tx)
            || self
                .txs()
                .direct_conflicts(tx)
                .filter_map(|(_, txid)| self.tx(txid))
                .any(|tx| self.graph.index.is_tx_relevant(&tx))
    }

    /// Adds a transaction of our own as if the mempool had it.
    pub(crate) fn insert_own(&mut self, tx: Arc<Transaction>, now: u64) -> ChainData {
        let txid = tx.compute_txid();
        let mut graph = self.graph.insert_tx(tx);
        graph.merge(self.graph.insert_seen_at(txid, self.after_eviction(txid, now)));
        ChainData { graph, ..ChainData::default() }
    }

    fn after_eviction(&self, txid: Txid, now: u64) -> u64 {
        self.txs().get_last_evicted(txid).map_or(now, |evicted| now.max(evicted + 1))
    }

    /// Whether the last thing known of an unconfirmed transaction is that it vanished.
    pub(crate) fn is_evicted(&self, txid: Txid) -> bool {
        let last_seen = self.txs().get_tx_node(txid).and_then(|node| node.last_seen);
        self.txs().get_last_evicted(txid).is_some_and(|evicted| last_seen <= Some(evicted))
    }

    /// Takes note that the server lists a transaction that we hold: indexes it for scripts that were
    /// derived since, and revives it if it had vanished or lost its block.
    pub(crate) fn listed(&mut self, txid: Txid, height: TxHeight, now: u64) -> ChainData {
        let mut change = ChainData::default();
        let Some(tx) = self.tx(txid) else { return change };
        change.graph.indexer.merge(self.graph.index.index_tx(&tx));
        if tx.is_coinbase() {
            return change;
        }
        let anchored =
            self.txs().all_anchors().get(&txid).is_some_and(|anchors| {
                anchors.iter().any(|anchor| self.blocks.holds(anchor.block_id))
            });
        let node = self.txs().get_tx_node(txid);
        let unseen = node.is_none_or(|node| node.last_seen.is_none());
        let mempool = height == TxHeight::Unconfirmed;
        if !anchored && (self.is_evicted(txid) || (unseen && mempool)) {
            let seen = self.after_eviction(txid, now);
            change.graph.merge(self.graph.insert_seen_at(txid, seen));
        }
        change
    }

    /// Marks an unconfirmed transaction as vanished.
    pub(crate) fn evict(&mut self, txid: Txid, now: u64) -> ChainData {
        let last_seen = self.txs().get_tx_node(txid).and_then(|node| node.last_seen).unwrap_or(0);
        let graph = self.graph.insert_evicted_at(txid, now.max(last_seen));
        ChainData { graph, ..ChainData::default() }
    }

    /// Places of the wallet that a transaction pays or spends from.
    pub(crate) fn places_of(&self, tx: &Transaction) -> HashSet<ScriptPlace> {
        let index = self.index();
        let spent = tx.input.iter().filter_map(|input| index.txout(input.previous_output));
        let paid = tx.output.iter().filter_map(|output| index.place_of(&output.script_pubkey));
        spent.map(|(place, _)| place).chain(paid).collect()
    }

    /// Transactions that spend an output, whether they count or not.
    pub(crate) fn spenders(&self, outpoint: OutPoint) -> impl Iterator<Item = Txid> + '_ {
        self.txs().outspends(outpoint).iter().copied()
    }

    /// What counts now.
    pub(crate) fn canonical(&self) -> Canonical {
        let tip = self.chain.tip().block_id();
        Canonical::compute(self.txs(), self.index(), &self.pruned, &self.blocks, tip)
    }

    /// The block in which a transaction is proven to be.
    pub(crate) fn anchor_of(&self, txid: Txid) -> Option<BlockId> {
        let anchors = self.txs().all_anchors().get(&txid)?;
        anchors.iter().map(|anchor| anchor.block_id).find(|block| self.blocks.holds(*block))
    }
}

fn change_of_index(indexer: <JmIndex as Indexer>::ChangeSet) -> ChainData {
    let mut change = ChainData::default();
    change.graph.indexer = indexer;
    change
}
