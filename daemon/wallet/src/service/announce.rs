//! Which transactions clients have heard of (`spec/wallet.md` 10.2, R-28): at most two messages about
//! each in the life of the process, none about what was there when the wallet was opened.

use std::collections::{HashMap, HashSet};

use bdk_wallet::bitcoin::Txid;

use crate::graph::{Canonical, Position};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Seen,
    Confirmed,
}

/// Memory of what was said.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    stages: HashMap<Txid, Stage>,
}

impl Announcer {
    /// Takes what counts now as known, except for some transactions.
    pub(super) fn accept_silently_except(&mut self, canonical: &Canonical, except: &HashSet<Txid>) {
        for (txid, position) in &canonical.positions {
            if !except.contains(txid) {
                self.note(*txid, *position);
            }
        }
    }

    fn note(&mut self, txid: Txid, position: Position) -> bool {
        let stage = match position {
            Position::Block(_) => Stage::Confirmed,
            Position::Mempool(_) => Stage::Seen,
        };
        match self.stages.get(&txid) {
            None => {}
            Some(Stage::Seen) if stage == Stage::Confirmed => {}
            // Heard of already; also when a reorganisation takes it out of its block.
            Some(_) => return false,
        }
        self.stages.insert(txid, stage);
        true
    }

    /// Takes note of a transaction of our own; true if clients have not heard of it.
    pub(super) fn own(&mut self, txid: Txid) -> bool {
        self.note(txid, Position::Mempool(None))
    }

    /// Transactions to tell of, oldest first, with their heights. `unsent` are our own ones of which
    /// nobody knows whether they left the machine. In a rescan old history is not news.
    pub(super) fn due(
        &mut self,
        canonical: &Canonical,
        unsent: &HashSet<Txid>,
        rescanning: bool,
    ) -> Vec<(Txid, Option<u32>)> {
        let mut due = Vec::new();
        for (txid, position) in &canonical.positions {
            if unsent.contains(txid) {
                continue;
            }
            let silent = rescanning
                && matches!(position, Position::Block(_))
                && !self.stages.contains_key(txid);
            if self.note(*txid, *position) && !silent {
                due.push((*txid, *position));
            }
        }
        due.sort_by_key(|(txid, position)| match position {
            Position::Block(height) => (*height, 0, *txid),
            Position::Mempool(seen) => (u32::MAX, seen.unwrap_or(u64::MAX), *txid),
        });
        due.into_iter().map(|(txid, position)| (txid, position.height())).collect()
    }
}
