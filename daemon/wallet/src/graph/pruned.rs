//! Transactions that are over and done with, set aside (`spec/wallet.md` 13.9).
//!
//! A maker's wallet makes thousands of transactions a year, and everything that is computed from the graph
//! walks all of them. One whose every output to us was spent a thousand blocks ago can change nothing any
//! more. What stays of it: that it is known and in which block, which scripts it used, and which outputs of
//! ours it spent.

use std::collections::{BTreeMap, HashMap, HashSet};

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};
use bdk_wallet::chain::{BlockId, TxUpdate};
use serde::{Deserialize, Serialize};

use super::{Canonical, JmIndex, Position, WalletGraph};
use crate::path::ScriptPlace;
use crate::store::ChainData;

/// Confirmations beyond which a block counts as final.
const FINAL_DEPTH: u32 = 1000;

/// Setting aside rebuilds the graph; it is not done for less than this part of it.
const WORTH: usize = 10;

/// What is kept of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedTx {
    /// The block that holds it.
    pub block: BlockId,
    /// Its outputs to the wallet: index and script.
    pub paid: Vec<(u32, ScriptBuf)>,
    /// Outputs of the wallet that it spent.
    pub spent: Vec<OutPoint>,
}

/// All that were set aside.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) txs: BTreeMap<Txid, PrunedTx>,
    /// Outputs of ours that were spent by any of them.
    spent: HashSet<OutPoint>,
    /// Outputs of ours that any of them made; all are spent.
    made: HashSet<OutPoint>,
    /// Heights at which a script was paid.
    paid: HashMap<ScriptPlace, Vec<u32>>,
}

impl Pruned {
    /// The index must know the scripts.
    pub(super) fn new(txs: BTreeMap<Txid, PrunedTx>, index: &JmIndex) -> Self {
        let mut pruned = Self::default();
        for (txid, tx) in &txs {
            pruned.spent.extend(&tx.spent);
            for (vout, script) in &tx.paid {
                pruned.made.insert(OutPoint::new(*txid, *vout));
                if let Some(place) = index.place_of(script) {
                    pruned.paid.entry(place).or_default().push(tx.block.height);
                }
            }
        }
        pruned.txs = txs;
        pruned
    }

    pub(super) fn is_spent(&self, outpoint: &OutPoint) -> bool {
        self.spent.contains(outpoint) || self.made.contains(outpoint)
    }

    /// Places that any of them paid.
    pub(super) fn places(&self) -> impl Iterator<Item = ScriptPlace> + '_ {
        self.paid.keys().copied()
    }

    /// Takes what was set aside out of news: it would only come back to be set aside again.
    pub(super) fn leave_out<A: Ord>(&self, update: &mut TxUpdate<A>) {
        if self.txs.is_empty() {
            return;
        }
        update.txs.retain(|tx| !self.txs.contains_key(&tx.compute_txid()));
        update.anchors.retain(|(_, txid)| !self.txs.contains_key(txid));
        update.seen_ats.retain(|(txid, _)| !self.txs.contains_key(txid));
    }
}

impl WalletGraph {
    /// Blocks of all transactions that were set aside.
    pub(crate) fn pruned_blocks(&self) -> impl Iterator<Item = (Txid, BlockId)> + '_ {
        self.pruned.txs.iter().map(|(txid, tx)| (*txid, tx.block))
    }

    /// Places that transactions paid which were set aside.
    pub(crate) fn pruned_places(&self) -> impl Iterator<Item = ScriptPlace> + '_ {
        self.pruned.places()
    }

    /// Heights at which transactions paid a place that were set aside.
    pub(crate) fn pruned_heights(&self, place: ScriptPlace) -> &[u32] {
        self.pruned.paid.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Whether an output is or was the wallet's.
    pub(crate) fn is_ours(&self, outpoint: OutPoint) -> bool {
        self.index().txout(outpoint).is_some() || self.pruned.is_spent(&outpoint)
    }

    /// The same wallet with everything set aside that is over, or `None` when there is too little of it.
    /// `may_go` says whether anything else still needs a transaction. `canonical` must be up to date.
    ///
    /// The result is compared with what it was made of: if a coin or an index differs, nothing is done.
    pub(crate) fn without_finished(
        &self,
        canonical: &Canonical,
        may_go: impl Fn(&Txid) -> bool,
    ) -> Option<(Self, Canonical)> {
        let finished = self.finished(canonical, may_go);
        if finished.len() < self.txs().full_txs().count() / WORTH || finished.is_empty() {
            return None;
        }
        let count = finished.len();
        let graph = self.rebuilt_without(finished)?;
        let after = graph.canonical();
        let same_indexes = self.index().keychains().all(|keychain| {
            graph.index().next_unused(keychain) == self.index().next_unused(keychain)
                && graph.index().paid_count(keychain) == self.index().paid_count(keychain)
        });
        let same_positions = after
            .positions
            .iter()
            .all(|(txid, position)| canonical.positions.get(txid) == Some(position));
        if after.coins != canonical.coins
            || !same_indexes
            || !same_positions
            || after.positions.len() + count != canonical.positions.len()
        {
            tracing::error!(
                count,
                "finished transactions are kept: without them the wallet differs"
            );
            return None;
        }
        tracing::info!(count, "finished transactions were set aside");
        Some((graph, after))
    }

    /// Transactions that can change nothing any more.
    fn finished(
        &self,
        canonical: &Canonical,
        may_go: impl Fn(&Txid) -> bool,
    ) -> BTreeMap<Txid, PrunedTx> {
        let tip = self.tip().height();
        let is_final = |txid: &Txid| {
            canonical.positions.get(txid).is_some_and(|position| match position {
                Position::Block(height) => (tip + 1).saturating_sub(*height) > FINAL_DEPTH,
                Position::Mempool(_) => false,
            })
        };
        let mut finished = BTreeMap::new();
        for node in self.txs().full_txs() {
            let (txid, tx) = (node.txid, &node.tx);
            if !is_final(&txid) || !may_go(&txid) {
                continue;
            }
            let Some(block) = self.anchor_of(txid) else { continue };
            // What competed with it would win without it.
            if self.txs().direct_conflicts(tx).next().is_some() {
                continue;
            }
            let ours: Vec<(u32, ScriptBuf)> = (0..)
                .zip(&tx.output)
                .filter(|(vout, _)| self.index().txout(OutPoint::new(txid, *vout)).is_some())
                .map(|(vout, output)| (vout, output.script_pubkey.clone()))
                .collect();
            let all_spent = ours.iter().all(|(vout, _)| {
                let outpoint = OutPoint::new(txid, *vout);
                self.pruned.is_spent(&outpoint) || self.spenders(outpoint).any(|tx| is_final(&tx))
            });
            if !all_spent {
                continue;
            }
            let inputs = tx.input.iter().map(|input| input.previous_output);
            let spent = inputs.filter(|outpoint| self.is_ours(*outpoint)).collect();
            finished.insert(txid, PrunedTx { block, paid: ours, spent });
        }
        finished
    }

    fn rebuilt_without(&self, finished: BTreeMap<Txid, PrunedTx>) -> Option<Self> {
        let ChainData { chain, mut graph, mut pruned } = self.everything();
        let keep = |txid: &Txid| !finished.contains_key(txid);
        let txs = &mut graph.tx_graph;
        txs.txs = self.txs().full_txs().filter(|tx| keep(&tx.txid)).map(|tx| tx.tx).collect();
        txs.anchors.retain(|(_, txid)| keep(txid));
        txs.first_seen.retain(|txid, _| keep(txid));
        txs.last_seen.retain(|txid, _| keep(txid));
        txs.last_evicted.retain(|txid, _| keep(txid));
        pruned.extend(finished);
        let data = ChainData { chain, graph, pruned };
        Self::load(self.chain.genesis_hash(), self.index().emptied(), data).ok()
    }
}
