//! Which transactions clients have heard of (`spec/wallet.md` 10.2, R-28): at most two messages about
//! each in the life of the process, none about what was there when the wallet was opened.

use std::collections::{HashMap, HashSet};

use bdk_wallet::bitcoin::Txid;

use crate::graph::{Canonical, Position};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Seen,
    Confirmed,
}

/// How far the wallet is, which decides what is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server has not yet said everything that happened before the wallet was opened: what is in a
    /// block is history, unless clients heard of it before it was there. What is not in any block and was
    /// not known is news: nobody can tell whether it came just before or just after.
    CatchingUp,
    /// Every history is asked for again: what turns up in a block is history.
    Scanning,
    /// Everything is news.
    Following,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    stage: Stage,
    /// Clients have heard of it in this life of the process.
    told: bool,
}

/// Memory of what was said.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    known: HashMap<Txid, Known>,
}

impl Announcer {
    /// What a wallet holds when it is opened is known.
    pub(super) fn new(canonical: &Canonical) -> Self {
        let known = canonical
            .positions
            .iter()
            .map(|(txid, position)| (*txid, Known { stage: stage(*position), told: false }));
        Self { known: known.collect() }
    }

    /// Takes note; true if it is further than before. A reorganisation that takes a transaction out of its
    /// block is none.
    fn note(&mut self, txid: Txid, stage: Stage, tell: bool) -> bool {
        let before = self.known.get(&txid).copied();
        if before.is_some_and(|before| before.stage >= stage) {
            return false;
        }
        let told = tell || before.is_some_and(|before| before.told);
        self.known.insert(txid, Known { stage, told });
        true
    }

    /// Takes note of a transaction of our own; true if clients have not heard of it.
    pub(super) fn own(&mut self, txid: Txid) -> bool {
        self.note(txid, Stage::Seen, true)
    }

    /// Lets go of transactions that nobody will hear of again.
    pub(super) fn forget(&mut self, is_over: impl Fn(&Txid) -> bool) {
        self.known.retain(|txid, _| !is_over(txid));
        self.known.shrink_to(self.known.len().saturating_mul(2));
    }

    /// Transactions to tell of, oldest first, with their heights. `unsent` are our own ones of which
    /// nobody knows whether they left the machine.
    pub(super) fn due(
        &mut self,
        canonical: &Canonical,
        unsent: &HashSet<Txid>,
        phase: Phase,
    ) -> Vec<(Txid, Option<u32>)> {
        let mut due = Vec::new();
        for (txid, position) in &canonical.positions {
            if unsent.contains(txid) {
                continue;
            }
            let known = self.known.get(txid);
            let is_news = match (phase, stage(*position)) {
                (Phase::Following, _) | (_, Stage::Seen) => true,
                (Phase::Scanning, Stage::Confirmed) => known.is_some(),
                (Phase::CatchingUp, Stage::Confirmed) => known.is_some_and(|known| known.told),
            };
            if self.note(*txid, stage(*position), is_news) && is_news {
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

const fn stage(position: Position) -> Stage {
    match position {
        Position::Block(_) => Stage::Confirmed,
        Position::Mempool(_) => Stage::Seen,
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;

    use super::*;

    fn txid(byte: u8) -> Txid {
        Txid::from_byte_array([byte; 32])
    }

    fn canonical(positions: &[(u8, Option<u32>)]) -> Canonical {
        let mut canonical = Canonical::default();
        for (byte, height) in positions {
            let position = height.map_or(Position::Mempool(None), Position::Block);
            canonical.positions.insert(txid(*byte), position);
        }
        canonical
    }

    #[test]
    fn what_arrives_while_catching_up_is_news_and_what_is_in_a_block_is_history() {
        let mut announcer = Announcer::new(&canonical(&[(1, None), (2, Some(5))]));
        let none = HashSet::new();
        // 1 was confirmed while the wallet was closed, 3 came and was confirmed, 4 came.
        let now = canonical(&[(1, Some(6)), (2, Some(5)), (3, Some(6)), (4, None)]);
        assert_eq!(announcer.due(&now, &none, Phase::CatchingUp), [(txid(4), None)]);
        // 4 is confirmed before everything is told: clients wait for that.
        let now = canonical(&[(1, Some(6)), (2, Some(5)), (3, Some(6)), (4, Some(7))]);
        assert_eq!(announcer.due(&now, &none, Phase::CatchingUp), [(txid(4), Some(7))]);
        assert_eq!(announcer.due(&now, &none, Phase::Following), []);
    }

    #[test]
    fn scans_tell_of_confirmations_that_clients_wait_for_and_not_of_history() {
        let mut announcer = Announcer::new(&canonical(&[(1, None)]));
        let none = HashSet::new();
        let now = canonical(&[(1, Some(6)), (2, Some(3))]);
        assert_eq!(announcer.due(&now, &none, Phase::Scanning), [(txid(1), Some(6))]);
        let now = canonical(&[(1, None), (2, Some(3)), (3, Some(7))]);
        assert_eq!(announcer.due(&now, &none, Phase::Following), [(txid(3), Some(7))]);
    }

    #[test]
    fn no_more_is_remembered_than_what_is_not_over() {
        let mut announcer = Announcer::new(&canonical(&[]));
        let none = HashSet::new();
        for byte in 1..=200 {
            let now = canonical(&[(byte, Some(6))]);
            assert_eq!(announcer.due(&now, &none, Phase::Following).len(), 1);
            announcer.forget(|over| *over != txid(byte));
            assert_eq!(announcer.known.len(), 1);
            assert_eq!(announcer.due(&now, &none, Phase::Following), [], "twice of nothing");
        }
    }

    #[test]
    fn nothing_is_said_of_our_own_before_it_has_left_and_twice_of_nothing() {
        let mut announcer = Announcer::new(&canonical(&[]));
        let now = canonical(&[(1, None)]);
        assert_eq!(announcer.due(&now, &HashSet::from([txid(1)]), Phase::Following), []);
        assert!(announcer.own(txid(1)));
        assert!(!announcer.own(txid(1)));
        assert_eq!(announcer.due(&now, &HashSet::new(), Phase::Following), []);
    }
}
