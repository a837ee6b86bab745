//! The index of the wallet's scripts over its transaction graph (`spec/wallet.md` 13.2).
//!
//! It plays the part of BDK's keychain index with two differences: it holds raw (bond, imported)
//! scripts beside the ranged ones, and it derives ranged scripts straight from the branch key, several
//! times faster than through descriptors. Its change set is BDK's, with BDK's descriptor ids, so stored
//! data keeps its meaning: "revealed" is "handed out or seen used".

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::ops::Range;

use bdk_wallet::bitcoin::bip32::{ChildNumber, Xpub};
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::{CompressedPublicKey, OutPoint, Script, ScriptBuf, Transaction, TxOut};
use bdk_wallet::chain::keychain_txout::ChangeSet;
use bdk_wallet::chain::{DescriptorId, Indexer, Merge, spk_txout::SpkTxOutIndex};
use joinery_proto::secp;

use crate::path::ScriptPlace;
use crate::types::Keychain;

/// Number of child indexes of a branch: 2^31 (BIP32).
pub(crate) const INDEX_LIMIT: u32 = 1 << 31;

/// Scripts per thread below which a further thread does not pay.
const DERIVE_CHUNK: u32 = 256;

/// One ranged branch.
#[derive(Debug, Clone)]
struct Ranged {
    id: DescriptorId,
    xpub: Xpub,
    nested: bool,
    /// Scripts 0 to `derived - 1` are in the index.
    derived: u32,
    /// Count of addresses handed out or seen used.
    next_unused: u32,
    /// One past the highest index that any transaction pays.
    paid: u32,
}

/// All scripts of a wallet and what pays them.
#[derive(Debug, Clone, Default)]
pub(crate) struct JmIndex {
    inner: SpkTxOutIndex<ScriptPlace>,
    ranged: BTreeMap<Keychain, Ranged>,
    keychains: HashMap<DescriptorId, Keychain>,
}

fn derive_one(xpub: &Xpub, nested: bool, index: u32) -> ScriptBuf {
    let child = xpub
        .derive_pub(secp(), &[ChildNumber::Normal { index }])
        .expect("a normal child key is out of range with probability below 2^-127");
    let program = ScriptBuf::new_p2wpkh(&CompressedPublicKey(child.public_key).wpubkey_hash());
    if nested { program.to_p2sh() } else { program }
}

/// Scripts of a range of child indexes, on several threads when there are many.
fn derive(xpub: &Xpub, nested: bool, range: Range<u32>) -> Vec<ScriptBuf> {
    let count = range.end.saturating_sub(range.start);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = u32::try_from(threads).unwrap_or(1).min(count / DERIVE_CHUNK).max(1);
    let part = count.div_ceil(threads).max(1);
    if threads == 1 {
        return range.map(|index| derive_one(xpub, nested, index)).collect();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                let start = (range.start + n * part).min(range.end);
                let end = (start + part).min(range.end);
                scope.spawn(move || {
                    (start..end).map(|index| derive_one(xpub, nested, index)).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("deriving a public key does not panic"))
            .collect()
    })
}

impl JmIndex {
    /// Adds a branch, with no script derived yet.
    pub(crate) fn insert_branch(&mut self, keychain: Keychain, xpub: Xpub, nested: bool) {
        // BDK's id of a descriptor is the hash of its first script.
        let first = derive_one(&xpub, nested, 0);
        let id = DescriptorId(sha256::Hash::hash(first.as_bytes()));
        self.keychains.insert(id, keychain);
        let branch = Ranged { id, xpub, nested, derived: 0, next_unused: 0, paid: 0 };
        self.ranged.insert(keychain, branch);
    }

    /// Adds a bond or imported script.
    pub(crate) fn insert_fixed(&mut self, place: ScriptPlace, script: ScriptBuf) {
        self.inner.insert_spk(place, script);
    }

    /// The same branches and fixed scripts without ranged scripts, indexes and transactions: what
    /// everything stored can be loaded into.
    pub(crate) fn emptied(&self) -> Self {
        let mut empty = Self { keychains: self.keychains.clone(), ..Self::default() };
        for (keychain, branch) in &self.ranged {
            let branch = Ranged { derived: 0, next_unused: 0, paid: 0, ..branch.clone() };
            empty.ranged.insert(*keychain, branch);
        }
        for (place, script) in self.inner.all_spks() {
            if !matches!(place, ScriptPlace::Ranged { .. }) {
                empty.inner.insert_spk(*place, script.clone());
            }
        }
        empty
    }

    /// Takes note that a place was paid by a transaction that is not in the graph any more.
    pub(crate) fn note_paid_before(&mut self, place: ScriptPlace) {
        // The indexes that follow from it were stored with it.
        self.note_paid(place, &mut ChangeSet::default());
    }

    /// The branches.
    pub(crate) fn keychains(&self) -> impl Iterator<Item = Keychain> + '_ {
        self.ranged.keys().copied()
    }

    /// Count of addresses handed out or seen used; 0 for an unknown branch.
    pub(crate) fn next_unused(&self, keychain: Keychain) -> u32 {
        self.ranged.get(&keychain).map_or(0, |branch| branch.next_unused)
    }

    /// One past the highest index that any known transaction pays.
    pub(crate) fn paid_count(&self, keychain: Keychain) -> u32 {
        self.ranged.get(&keychain).map_or(0, |branch| branch.paid)
    }

    /// Derives scripts so that 0 to `count - 1` are known. The change set holds the new ones.
    pub(crate) fn derive_to(&mut self, keychain: Keychain, count: u32) -> ChangeSet {
        let mut change = ChangeSet::default();
        let Some(branch) = self.ranged.get_mut(&keychain) else { return change };
        let count = count.min(INDEX_LIMIT);
        if count <= branch.derived {
            return change;
        }
        let scripts = derive(&branch.xpub, branch.nested, branch.derived..count);
        let cache = change.spk_cache.entry(branch.id).or_default();
        for (index, script) in (branch.derived..).zip(scripts) {
            self.inner.insert_spk(ScriptPlace::Ranged { keychain, index }, script.clone());
            cache.insert(index, script);
        }
        branch.derived = count;
        change
    }

    /// Raises [`JmIndex::next_unused`]; it never shrinks.
    pub(crate) fn advance(&mut self, keychain: Keychain, next_unused: u32) -> ChangeSet {
        let mut change = ChangeSet::default();
        if let Some(branch) = self.ranged.get_mut(&keychain)
            && next_unused > branch.next_unused
        {
            branch.next_unused = next_unused;
            change.last_revealed.insert(branch.id, next_unused - 1);
        }
        change
    }

    /// The script of a place, if it is derived.
    pub(crate) fn script(&self, place: &ScriptPlace) -> Option<&ScriptBuf> {
        self.inner.all_spks().get(place)
    }

    /// The place of a script.
    pub(crate) fn place_of(&self, script: &Script) -> Option<ScriptPlace> {
        self.inner.index_of_spk(script.to_owned()).copied()
    }

    /// Every output that pays the wallet, in any transaction of the graph, ascending by place.
    pub(crate) fn outpoints(&self) -> impl Iterator<Item = (ScriptPlace, OutPoint)> + '_ {
        self.inner.outpoints().iter().copied()
    }

    /// Outputs that pay one script.
    pub(crate) fn outpoints_of(&self, place: ScriptPlace) -> impl Iterator<Item = OutPoint> + '_ {
        self.inner.outputs_in_range(place..=place).map(|(_, outpoint)| outpoint)
    }

    /// The wallet's output at an outpoint.
    pub(crate) fn txout(&self, outpoint: OutPoint) -> Option<(ScriptPlace, &TxOut)> {
        self.inner.txout(outpoint).map(|(place, txout)| (*place, txout))
    }

    fn note_paid(&mut self, place: ScriptPlace, change: &mut ChangeSet) {
        if let ScriptPlace::Ranged { keychain, index } = place {
            if let Some(branch) = self.ranged.get_mut(&keychain) {
                branch.paid = branch.paid.max(index + 1);
            }
            change.merge(self.advance(keychain, index + 1));
        }
    }
}

impl Indexer for JmIndex {
    type ChangeSet = ChangeSet;

    fn index_txout(&mut self, outpoint: OutPoint, txout: &TxOut) -> ChangeSet {
        let mut change = ChangeSet::default();
        if let Some(place) = self.inner.scan_txout(outpoint, txout).copied() {
            self.note_paid(place, &mut change);
        }
        change
    }

    fn index_tx(&mut self, tx: &Transaction) -> ChangeSet {
        let mut change = ChangeSet::default();
        for place in self.inner.scan(tx) {
            self.note_paid(place, &mut change);
        }
        change
    }

    fn apply_changeset(&mut self, change: ChangeSet) {
        for (id, last) in change.last_revealed {
            if let Some(keychain) = self.keychains.get(&id).copied() {
                let _stored_already = self.advance(keychain, last.saturating_add(1));
            }
        }
        for (id, scripts) in change.spk_cache {
            let Some(keychain) = self.keychains.get(&id).copied() else { continue };
            let Some(branch) = self.ranged.get_mut(&keychain) else { continue };
            for (index, script) in scripts {
                // Scripts must be known without gaps; what does not continue the row is derived anew.
                if index == branch.derived {
                    self.inner.insert_spk(ScriptPlace::Ranged { keychain, index }, script);
                    branch.derived += 1;
                }
            }
        }
    }

    fn initial_changeset(&self) -> ChangeSet {
        let mut change = ChangeSet::default();
        for branch in self.ranged.values() {
            if let Some(last) = branch.next_unused.checked_sub(1) {
                change.last_revealed.insert(branch.id, last);
            }
        }
        for (place, script) in self.inner.all_spks() {
            if let ScriptPlace::Ranged { keychain, index } = place
                && let Some(branch) = self.ranged.get(keychain)
            {
                change.spk_cache.entry(branch.id).or_default().insert(*index, script.clone());
            }
        }
        change
    }

    fn is_tx_relevant(&self, tx: &Transaction) -> bool {
        self.inner.is_relevant(tx)
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::bip32::Xpriv;
    use bdk_wallet::bitcoin::{NetworkKind, Script};

    use super::*;
    use crate::types::{Branch, Mixdepth};

    const KEYCHAIN: Keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };

    fn index() -> (JmIndex, Xpub) {
        let master = Xpriv::new_master(NetworkKind::Test, &[7; 32]).expect("seed");
        let xpub = Xpub::from_priv(secp(), &master);
        let mut index = JmIndex::default();
        index.insert_branch(KEYCHAIN, xpub, false);
        (index, xpub)
    }

    #[test]
    fn many_scripts_are_those_of_deriving_one_by_one() {
        let (mut index, xpub) = index();
        let change = index.derive_to(KEYCHAIN, 1500);
        for n in [0, 1, 255, 256, 511, 512, 749, 750, 1499] {
            let place = ScriptPlace::Ranged { keychain: KEYCHAIN, index: n };
            assert_eq!(index.script(&place), Some(&derive_one(&xpub, false, n)), "index {n}");
        }
        assert_eq!(change.spk_cache.values().map(BTreeMap::len).sum::<usize>(), 1500);
        assert!(index.derive_to(KEYCHAIN, 1500).is_empty(), "nothing is derived twice");
    }

    #[test]
    fn restored_change_set_needs_no_derivation() {
        let (mut index, _) = index();
        let _change = index.derive_to(KEYCHAIN, 40);
        let _change = index.advance(KEYCHAIN, 7);
        let stored = index.initial_changeset();
        let (mut other, _) = self::index();
        other.apply_changeset(stored);
        assert_eq!(other.next_unused(KEYCHAIN), 7);
        assert!(other.derive_to(KEYCHAIN, 40).is_empty());
        let place = ScriptPlace::Ranged { keychain: KEYCHAIN, index: 39 };
        assert_eq!(other.script(&place), index.script(&place));
    }

    #[test]
    fn next_unused_never_shrinks_and_follows_payments() {
        let (mut index, _) = index();
        let _change = index.derive_to(KEYCHAIN, 20);
        let _change = index.advance(KEYCHAIN, 5);
        assert!(index.advance(KEYCHAIN, 3).is_empty());
        let script = index
            .script(&ScriptPlace::Ranged { keychain: KEYCHAIN, index: 9 })
            .map(|script| Script::to_owned(script))
            .expect("derived");
        let txout =
            TxOut { value: bdk_wallet::bitcoin::Amount::from_sat(1000), script_pubkey: script };
        let _change = index.index_txout(OutPoint::null(), &txout);
        assert_eq!((index.next_unused(KEYCHAIN), index.paid_count(KEYCHAIN)), (10, 10));
    }
}
