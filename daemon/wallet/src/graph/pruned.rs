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
        update.txs.retain(|tx| {
            // Nor can anything ever confirm that spends again what is finally spent.
            let again = tx.input.iter().any(|input| self.is_spent(&input.previous_output));
            !self.txs.contains_key(&tx.compute_txid()) && !again
        });
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

    /// Whether a transaction was set aside.
    pub(crate) fn is_set_aside(&self, txid: Txid) -> bool {
        self.pruned.txs.contains_key(&txid)
    }

    /// Whether an output of ours was spent by a transaction that was set aside.
    pub(crate) fn is_spent_for_good(&self, outpoint: OutPoint) -> bool {
        self.pruned.is_spent(&outpoint)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bdk_wallet::bitcoin::absolute::LockTime;
    use bdk_wallet::bitcoin::bip32::{Xpriv, Xpub};
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::transaction::Version;
    use bdk_wallet::bitcoin::{
        Amount, BlockHash, NetworkKind, Sequence, Transaction, TxIn, TxOut, Witness,
    };
    use bdk_wallet::chain::{CheckPoint, ConfirmationBlockTime};
    use joinery_proto::secp;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Branch, Keychain, Mixdepth};

    const SCRIPTS: u32 = 12;
    const KEYCHAIN: Keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
    const TIP: u32 = 3000;

    fn hash(height: u32) -> BlockHash {
        BlockHash::hash(&height.to_be_bytes())
    }

    fn blocks(heights: impl IntoIterator<Item = u32>) -> CheckPoint {
        let mut heights: Vec<u32> = heights.into_iter().chain([0]).collect();
        heights.sort_unstable();
        heights.dedup();
        let ids = heights.into_iter().map(|height| BlockId { height, hash: hash(height) });
        CheckPoint::from_block_ids(ids).expect("ascending")
    }

    fn graph() -> WalletGraph {
        let master = Xpriv::new_master(NetworkKind::Test, &[7; 32]).expect("seed");
        let mut index = JmIndex::default();
        index.insert_branch(KEYCHAIN, Xpub::from_priv(secp(), &master), false);
        let mut graph =
            WalletGraph::load(hash(0), index, ChainData::default()).expect("an empty chain");
        let _not_stored = graph.derive_to(KEYCHAIN, SCRIPTS);
        graph
    }

    fn script(graph: &WalletGraph, index: u32) -> ScriptBuf {
        let place = ScriptPlace::Ranged { keychain: KEYCHAIN, index: index % SCRIPTS };
        graph.index().script(&place).expect("derived").clone()
    }

    fn tx(inputs: &[OutPoint], outputs: &[ScriptBuf], salt: u32) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(salt),
            input: inputs
                .iter()
                .map(|previous_output| TxIn {
                    previous_output: *previous_output,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    witness: Witness::new(),
                })
                .collect(),
            output: outputs
                .iter()
                .zip(1000..)
                .map(|(script, value)| TxOut {
                    value: Amount::from_sat(value),
                    script_pubkey: script.clone(),
                })
                .collect(),
        }
    }

    fn update(tx: &Transaction, height: Option<u32>) -> TxUpdate<ConfirmationBlockTime> {
        let mut update = TxUpdate::default();
        let txid = tx.compute_txid();
        update.txs.push(Arc::new(tx.clone()));
        match height {
            Some(height) => {
                let block_id = BlockId { height, hash: hash(height) };
                update.anchors.insert((
                    ConfirmationBlockTime { block_id, confirmation_time: u64::from(height) },
                    txid,
                ));
            }
            None => {
                update.seen_ats.insert((txid, 1_700_000_000));
            }
        }
        update
    }

    fn apply(graph: &mut WalletGraph, tx: &Transaction, height: Option<u32>) {
        let chain = blocks(height.into_iter().chain([TIP]));
        graph.apply(chain, update(tx, height), &HashSet::new()).expect("connects");
    }

    /// One step of a made-up history: which outputs are spent, which scripts paid, and whether a block
    /// holds it.
    type Step = (Vec<prop::sample::Index>, Vec<Option<u32>>, bool);

    fn step() -> impl Strategy<Value = Step> {
        let inputs = proptest::collection::vec(any::<prop::sample::Index>(), 1..3);
        let outputs = proptest::collection::vec(proptest::option::weighted(0.7, 0..SCRIPTS), 1..4);
        (inputs, outputs, prop::bool::weighted(0.85))
    }

    /// Makes histories that a real chain could have: what a block holds conflicts with nothing in an
    /// earlier one.
    struct Maker {
        outputs: Vec<OutPoint>,
        spent: HashSet<OutPoint>,
        confirmed: HashSet<Txid>,
        count: u32,
    }

    impl Maker {
        fn make(&mut self, graph: &WalletGraph, step: &Step) -> (Transaction, bool) {
            let (inputs, outputs, confirm) = step;
            self.count += 1;
            let foreign = OutPoint::new(Txid::hash(&self.count.to_be_bytes()), 0);
            self.outputs.push(foreign);
            let mut chosen: Vec<OutPoint> =
                inputs.iter().map(|index| *index.get(&self.outputs)).collect();
            chosen.dedup();
            let own = |output: &Option<u32>| match output {
                Some(index) => script(graph, *index),
                None => ScriptBuf::from_bytes([vec![0, 20], vec![1; 20]].concat()),
            };
            let outputs: Vec<ScriptBuf> = outputs.iter().map(own).collect();
            let tx = tx(&chosen, &outputs, self.count);
            let possible = chosen.iter().all(|outpoint| {
                let made = self.confirmed.contains(&outpoint.txid) || {
                    !self
                        .outputs
                        .iter()
                        .any(|known| known == outpoint && graph.tx(known.txid).is_some())
                };
                made && !self.spent.contains(outpoint)
            });
            let confirmed = *confirm && possible;
            if confirmed {
                self.spent.extend(&chosen);
                self.confirmed.insert(tx.compute_txid());
            }
            let vouts = 0..u32::try_from(outputs.len()).expect("few");
            self.outputs.extend(vouts.map(|vout| OutPoint::new(tx.compute_txid(), vout)));
            (tx, confirmed)
        }
    }

    fn same(a: &Canonical, b: &Canonical) -> Result<(), TestCaseError> {
        prop_assert_eq!(&a.coins, &b.coins);
        for (txid, position) in &b.positions {
            prop_assert_eq!(a.positions.get(txid), Some(position));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever happened before, and whatever happens after: with and without the finished
        /// transactions the wallet has the same coins.
        #[test]
        fn coins_are_the_same_with_and_without_finished_transactions(
            before in proptest::collection::vec(step(), 1..60),
            after in proptest::collection::vec(step(), 0..20),
        ) {
            let mut whole = graph();
            let mut maker = Maker {
                outputs: Vec::new(),
                spent: HashSet::new(),
                confirmed: HashSet::new(),
                count: 0,
            };
            for (n, step) in (1..).zip(&before) {
                let (tx, confirmed) = maker.make(&whole, step);
                // Some of the blocks are final, some are not.
                apply(&mut whole, &tx, confirmed.then_some(n * 40));
            }
            let canonical = whole.canonical();
            let finished = whole.finished(&canonical, |_| true);
            let mut smaller = whole.rebuilt_without(finished).expect("same chain");
            same(&canonical, &smaller.canonical())?;
            for (n, step) in (1..).zip(&after) {
                let spent = maker.spent.clone();
                let (tx, confirmed) = maker.make(&whole, step);
                // No mempool holds what spends a confirmed coin again.
                if tx.input.iter().any(|input| spent.contains(&input.previous_output)) {
                    continue;
                }
                let height = confirmed.then_some(TIP - 100 + n);
                apply(&mut whole, &tx, height);
                apply(&mut smaller, &tx, height);
                same(&whole.canonical(), &smaller.canonical())?;
                // Once more, after a restart from what was stored.
                let data = smaller.everything();
                smaller = WalletGraph::load(hash(0), smaller.index().emptied(), data)
                    .expect("same chain");
                same(&whole.canonical(), &smaller.canonical())?;
            }
        }
    }

    #[test]
    fn what_competes_or_is_half_spent_stays() {
        let mut graph = graph();
        let foreign = |n: u8| OutPoint::new(Txid::from_byte_array([n; 32]), 0);
        let (a, b) = (script(&graph, 0), script(&graph, 1));
        let deposit = tx(&[foreign(1)], &[a.clone(), b], 1);
        let at = |tx: &Transaction, vout| OutPoint::new(tx.compute_txid(), vout);
        let spend = tx(&[at(&deposit, 0)], std::slice::from_ref(&a), 2);
        let gone = tx(&[at(&spend, 0)], &[], 3);
        let rival = tx(&[at(&deposit, 0), foreign(2)], &[a], 4);
        apply(&mut graph, &deposit, Some(10));
        apply(&mut graph, &spend, Some(11));
        apply(&mut graph, &gone, Some(12));
        let finished = |graph: &WalletGraph| -> HashSet<Txid> {
            graph.finished(&graph.canonical(), |_| true).into_keys().collect()
        };
        let [spend, gone] = [spend, gone].map(|tx| tx.compute_txid());
        assert_eq!(finished(&graph), HashSet::from([spend, gone]), "the deposit has a coin left");
        assert!(graph.finished(&graph.canonical(), |txid| *txid != gone).contains_key(&spend));
        apply(&mut graph, &rival, None);
        assert_eq!(finished(&graph), HashSet::from([gone]), "the rival would win without it");
    }

    /// The numbers of `docs/benchmarks.md`. Not an assertion: machines differ.
    #[test]
    #[ignore = "prints times; for people, in release mode"]
    fn time_of_a_view_with_and_without_finished_transactions() {
        for rounds in [2_000, 10_000, 50_000_u32] {
            let mut graph = graph();
            let mut all = TxUpdate::<ConfirmationBlockTime>::default();
            for n in 0..rounds {
                let foreign = OutPoint::new(Txid::hash(&n.to_be_bytes()), 0);
                let deposit = tx(&[foreign], &[script(&graph, n)], n);
                let spend = tx(&[OutPoint::new(deposit.compute_txid(), 0)], &[], n);
                for (tx, height) in [(deposit, 1 + n % 900), (spend, 2 + n % 900)] {
                    let one = update(&tx, Some(height));
                    all.txs.extend(one.txs);
                    all.anchors.extend(one.anchors);
                }
            }
            graph.apply(blocks((0..=902).chain([TIP])), all, &HashSet::new()).expect("connects");
            let coin = tx(&[OutPoint::new(Txid::all_zeros(), 1)], &[script(&graph, 0)], 0);
            apply(&mut graph, &coin, None);
            let time = |what: &str, start: Instant| {
                println!("{:>7} transactions: {what} {:>8.1?}", rounds * 2 + 1, start.elapsed());
            };
            let start = Instant::now();
            let canonical = graph.canonical();
            time("a view of all of them    ", start);
            let start = Instant::now();
            let (smaller, _) = graph.without_finished(&canonical, |_| true).expect("much is over");
            time("setting the past aside   ", start);
            let start = Instant::now();
            let after = smaller.canonical();
            time("a view of what is left   ", start);
            assert_eq!(after.coins, canonical.coins);
            assert_eq!(after.positions.len(), 1);
        }
    }
}
