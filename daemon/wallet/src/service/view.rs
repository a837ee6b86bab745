//! Building the snapshot (`spec/wallet.md` 13.2): what does not change between two snapshots (address
//! texts, extended keys, shapes of transactions) is computed once and kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bdk_wallet::bitcoin::{Address, Txid};
use joinery_proto::fidelity_bond::locktime_of_month;

use super::locks::Locks;
use super::rounds::RoundList;
use crate::chain::ChainTip;
use crate::coinjoin_shape::{CoinjoinShape, coinjoin_shape};
use crate::graph::{Canonical, RawCoin, WalletGraph};
use crate::keys::MasterKey;
use crate::path::ScriptPlace;
use crate::snapshot::{AccountView, AddressView, BranchView, Coin, CoinKind, Snapshot, SyncView};
use crate::store::Facts;
use crate::types::{Branch, Keychain, Mixdepth, WalletType};

/// Shapes of transactions that are kept beyond twice the number of coins.
const SHAPES_SPARE: usize = 64;
/// BIP32 level of timelocked scripts.
const BOND_BRANCH: u32 = 2;
/// BIP32 level of burns.
const BURN_BRANCH: u32 = 3;

/// The changing parts of a snapshot.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) graph: &'a WalletGraph,
    pub(super) canonical: &'a Canonical,
    pub(super) facts: &'a Facts,
    pub(super) locks: &'a Locks,
    pub(super) rounds: &'a RoundList,
    pub(super) tip: Option<ChainTip>,
    pub(super) sync: SyncView,
}

/// Builds snapshots of one wallet.
#[derive(Debug)]
pub(super) struct Views {
    template: Snapshot,
    max_mixdepth: Mixdepth,
    xpubs: BTreeMap<Keychain, Arc<str>>,
    bond_xpub: Option<Arc<str>>,
    burn_xpub: Option<Arc<str>>,
    imported: Vec<ScriptPlace>,
    addresses: HashMap<ScriptPlace, Arc<str>>,
    shapes: HashMap<Txid, Option<CoinjoinShape>>,
    none: Arc<str>,
}

/// The two branches of every mixdepth, ascending.
pub(super) fn keychains(max: Mixdepth) -> impl Iterator<Item = Keychain> {
    (0..=max.0).flat_map(|m| {
        [Branch::External, Branch::Internal]
            .map(|branch| Keychain { mixdepth: Mixdepth(m), branch })
    })
}

impl Views {
    pub(super) fn new(
        keys: &MasterKey,
        max_mixdepth: Mixdepth,
        gap_limit: u32,
        xpubs: BTreeMap<Keychain, Arc<str>>,
    ) -> Self {
        let bonds = keys.wallet_type() == WalletType::FidelityBond;
        let special =
            |branch| bonds.then(|| Arc::from(keys.branch_xpub(Mixdepth(0), branch).to_string()));
        let template = Snapshot {
            revision: 0,
            network: keys.network(),
            wallet_type: keys.wallet_type(),
            fingerprint: keys.fingerprint(),
            tip: None,
            sync: SyncView::default(),
            gap_limit,
            coins: Vec::new(),
            accounts: Vec::new(),
            rounds: Arc::default(),
        };
        Self {
            template,
            max_mixdepth,
            xpubs,
            bond_xpub: special(BOND_BRANCH),
            burn_xpub: special(BURN_BRANCH),
            imported: keys.imported().places().collect(),
            addresses: HashMap::new(),
            shapes: HashMap::new(),
            none: Arc::from(""),
        }
    }

    /// Text of the address of a place whose script is known.
    pub(super) fn address(&mut self, graph: &WalletGraph, place: ScriptPlace) -> Option<Arc<str>> {
        if let Some(text) = self.addresses.get(&place) {
            return Some(text.clone());
        }
        let script = graph.index().script(&place)?;
        let address = Address::from_script(script, self.template.network.bitcoin()).ok()?;
        let text: Arc<str> = Arc::from(address.to_string());
        self.addresses.insert(place, text.clone());
        Some(text)
    }

    /// Builds the next snapshot.
    pub(super) fn build(&mut self, parts: &Parts<'_>) -> Snapshot {
        self.template.revision += 1;
        let coins = self.coins(parts);
        let mut on_place: BTreeMap<ScriptPlace, Vec<usize>> = BTreeMap::new();
        for (n, coin) in coins.iter().enumerate() {
            on_place.entry(coin.place).or_default().push(n);
        }
        let mut accounts: Vec<AccountView> = (0..=self.max_mixdepth.0)
            .map(|m| AccountView {
                mixdepth: Mixdepth(m),
                branches: Vec::with_capacity(2),
                bonds: None,
                burn_xpub: None,
                imported: Vec::new(),
            })
            .collect();
        for keychain in keychains(self.max_mixdepth) {
            let branch = self.branch(parts, keychain, &on_place);
            if let Some(account) = accounts.get_mut(usize::from(keychain.mixdepth.0)) {
                account.branches.push(branch);
            }
        }
        if let Some(first) = accounts.first_mut() {
            first.burn_xpub.clone_from(&self.burn_xpub);
            if let Some(xpub) = self.bond_xpub.clone() {
                let funded = on_place.keys().copied().filter(ScriptPlace::is_bond);
                let funded: Vec<_> =
                    funded.filter_map(|place| self.entry(parts, place, &on_place)).collect();
                first.bonds = Some((xpub, funded));
            }
        }
        for place in self.imported.clone() {
            if let Some(entry) = self.entry(parts, place, &on_place)
                && let Some(account) = accounts.get_mut(usize::from(place.mixdepth().0))
            {
                account.imported.push(entry);
            }
        }
        self.forget(&coins);
        let rounds = Arc::clone(parts.rounds);
        let template = self.template.clone();
        Snapshot { tip: parts.tip, sync: parts.sync, coins, accounts, rounds, ..template }
    }

    /// Lets go of shapes of transactions that left no coin, when most are such.
    fn forget(&mut self, coins: &[Coin]) {
        if self.shapes.len() <= SHAPES_SPARE.saturating_add(2 * coins.len()) {
            return;
        }
        let present: HashSet<Txid> = coins.iter().map(|coin| coin.outpoint.txid).collect();
        self.shapes.retain(|txid, _| present.contains(txid));
    }

    fn branch(
        &mut self,
        parts: &Parts<'_>,
        keychain: Keychain,
        on_place: &BTreeMap<ScriptPlace, Vec<usize>>,
    ) -> BranchView {
        let next_unused = parts.graph.index().next_unused(keychain);
        let place = |index| ScriptPlace::Ranged { keychain, index };
        let mut places: BTreeSet<ScriptPlace> =
            on_place.range(place(0)..=place(u32::MAX)).map(|(place, _)| *place).collect();
        if keychain.branch == Branch::External {
            places.extend((next_unused..next_unused + self.template.gap_limit).map(place));
        }
        BranchView {
            keychain,
            xpub: self.xpubs.get(&keychain).unwrap_or(&self.none).clone(),
            next_unused,
            addresses: places
                .into_iter()
                .filter_map(|place| self.entry(parts, place, on_place))
                .collect(),
        }
    }

    fn entry(
        &mut self,
        parts: &Parts<'_>,
        place: ScriptPlace,
        on_place: &BTreeMap<ScriptPlace, Vec<usize>>,
    ) -> Option<AddressView> {
        let address = self.address(parts.graph, place)?;
        let label = parts.facts.labels.get(&*address);
        Some(AddressView {
            place,
            label: label.map_or_else(|| self.none.clone(), |label| Arc::from(label.as_str())),
            address,
            coins: on_place.get(&place).cloned().unwrap_or_default(),
        })
    }

    fn coins(&mut self, parts: &Parts<'_>) -> Vec<Coin> {
        let tip = parts.graph.tip().height();
        let mature = parts.canonical.coins.iter().filter(|coin| coin.is_mature(tip));
        mature.filter_map(|raw| self.coin(parts, raw)).collect()
    }

    fn coin(&mut self, parts: &Parts<'_>, raw: &RawCoin) -> Option<Coin> {
        let outpoint = raw.outpoint;
        let locktime = match raw.place {
            ScriptPlace::Bond { timenumber } => u32::try_from(locktime_of_month(timenumber)).ok(),
            _ => None,
        };
        Some(Coin {
            outpoint,
            value: raw.value,
            script: parts.graph.index().script(&raw.place)?.clone(),
            place: raw.place,
            height: raw.height,
            kind: self.kind(parts, raw),
            frozen: parts.facts.frozen.get(&outpoint).is_some_and(|(frozen, _)| *frozen),
            locked: parts.locks.holder(&outpoint).is_some(),
            locktime,
            commitments_used: parts
                .facts
                .commitments
                .get(&outpoint)
                .map(|used| used.keys().copied().collect())
                .unwrap_or_default(),
        })
    }

    fn kind(&mut self, parts: &Parts<'_>, raw: &RawCoin) -> CoinKind {
        let txid = raw.outpoint.txid;
        let shape = *self
            .shapes
            .entry(txid)
            .or_insert_with(|| parts.graph.tx(txid).and_then(|tx| coinjoin_shape(&tx.output)));
        // A payment of our own is never a coinjoin, whatever its outputs look like.
        let shape = shape.filter(|_| !is_own_payment(parts, txid));
        match shape {
            Some(shape) if shape.amount == raw.value => CoinKind::CoinjoinOutput,
            Some(_) => CoinKind::CoinjoinChange,
            None if raw.place.branch() == Some(Branch::Internal) => CoinKind::Change,
            None => CoinKind::Deposit,
        }
    }
}

/// Whether we made a transaction alone: in a coinjoin others have inputs too.
fn is_own_payment(parts: &Parts<'_>, txid: Txid) -> bool {
    parts.facts.own_txs.contains_key(&txid)
        && parts.graph.tx(txid).is_some_and(|tx| {
            tx.input.iter().all(|input| parts.graph.is_ours(input.previous_output))
        })
}
