//! Which coins are held, and by what: nothing else selects, spends or freezes them (`spec/wallet.md` 14).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bdk_wallet::bitcoin::{OutPoint, Txid};

use crate::round::{Round, RoundId};

/// What holds a coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A payment that is being sent.
    Transaction(Txid),
    /// A coinjoin round.
    Round(RoundId),
}

/// The held coins.
#[derive(Debug, Default)]
pub(super) struct Locks(HashMap<OutPoint, Holder>);

impl Locks {
    /// What rounds hold according to the journal.
    pub(super) fn of_rounds(rounds: &BTreeMap<RoundId, Arc<Round>>) -> Self {
        let mut locks = Self::default();
        locks.follow(rounds);
        locks
    }

    /// What holds a coin.
    pub(super) fn holder(&self, outpoint: &OutPoint) -> Option<Holder> {
        self.0.get(outpoint).copied()
    }

    /// The round that holds a coin.
    pub(super) fn round(&self, outpoint: &OutPoint) -> Option<RoundId> {
        match self.holder(outpoint) {
            Some(Holder::Round(round)) => Some(round),
            _ => None,
        }
    }

    /// A payment takes coins.
    pub(super) fn hold(&mut self, outpoints: impl Iterator<Item = OutPoint>, txid: Txid) {
        self.0.extend(outpoints.map(|outpoint| (outpoint, Holder::Transaction(txid))));
    }

    /// A payment lets go of its coins.
    pub(super) fn release(&mut self, txid: Txid) {
        self.0.retain(|_, holder| *holder != Holder::Transaction(txid));
    }

    /// Rounds changed. Of two that name the same coin the older one has it: that happens when one was given up, its
    /// coin went to another, and its transaction was seen after all.
    pub(super) fn follow(&mut self, rounds: &BTreeMap<RoundId, Arc<Round>>) {
        self.0.retain(|_, holder| matches!(holder, Holder::Transaction(_)));
        for round in rounds.values().filter(|round| round.holds_coins()) {
            for coin in &round.coins {
                self.0.entry(*coin).or_insert(Holder::Round(round.id));
            }
        }
    }
}
