//! Commitments that were used (`spec/protocol.md` 9.6, vector `commitment_blacklist.json`).
//!
//! The maker's side. Values are 32 bytes each; anybody can publish any number of them, so those that came
//! from strangers are bounded and the oldest of them go first. Those of our own rounds are never
//! dropped. Keeping the list on disk is for the caller.

use std::collections::{HashSet, VecDeque};

use crate::podle::Commitment;

/// Most commitments of strangers that are kept: 32 MiB with their queue.
pub const MAX_FOREIGN: usize = 500_000;

/// Used commitments.
#[derive(Debug, Default)]
pub struct CommitmentBlacklist {
    own: HashSet<Commitment>,
    foreign: HashSet<Commitment>,
    order: VecDeque<Commitment>,
    /// Of sessions that run now: two sessions must not share one.
    reserved: HashSet<Commitment>,
}

impl CommitmentBlacklist {
    /// Whether a `!fill` with this commitment must be refused.
    #[must_use]
    pub fn refuses(&self, commitment: &Commitment) -> bool {
        self.own.contains(commitment)
            || self.foreign.contains(commitment)
            || self.reserved.contains(commitment)
    }

    /// Whether this commitment was used, here or by what somebody said: more than reserved by a session.
    #[must_use]
    pub fn is_used(&self, commitment: &Commitment) -> bool {
        self.own.contains(commitment) || self.foreign.contains(commitment)
    }

    /// Reserves a commitment for a session; false when it must be refused.
    pub fn reserve(&mut self, commitment: Commitment) -> bool {
        !self.refuses(&commitment) && self.reserved.insert(commitment)
    }

    /// The session ended without revealing coins.
    pub fn release(&mut self, commitment: &Commitment) {
        self.reserved.remove(commitment);
    }

    /// We answered it with our coins: used for good. Returns true when this is news.
    pub fn use_up(&mut self, commitment: Commitment) -> bool {
        self.reserved.remove(&commitment);
        self.own.insert(commitment)
    }

    /// Somebody published it. A session that runs with it goes on: the other makers of its round publish
    /// it. Returns true when this is news.
    pub fn seen(&mut self, commitment: Commitment) -> bool {
        if self.own.contains(&commitment) || !self.foreign.insert(commitment) {
            return false;
        }
        self.order.push_back(commitment);
        if self.order.len() > MAX_FOREIGN
            && let Some(oldest) = self.order.pop_front()
        {
            self.foreign.remove(&oldest);
        }
        true
    }

    /// Number of commitments, own and foreign.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "two counts of things in memory")]
    pub fn len(&self) -> usize {
        self.own.len() + self.foreign.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.foreign.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::CommitmentBlacklist;
    use crate::podle::Commitment;

    fn commitment(byte: u8) -> Commitment {
        Commitment::from_bytes([byte; 32])
    }

    #[test]
    fn two_sessions_cannot_share_a_commitment() {
        let mut list = CommitmentBlacklist::default();
        assert!(list.reserve(commitment(1)));
        assert!(!list.reserve(commitment(1)));
        list.release(&commitment(1));
        assert!(list.reserve(commitment(1)));
        assert!(list.use_up(commitment(1)));
        list.release(&commitment(1));
        assert!(!list.reserve(commitment(1)));
    }

    #[test]
    fn late_publication_does_not_disturb_a_running_session() {
        let mut list = CommitmentBlacklist::default();
        assert!(list.reserve(commitment(1)));
        assert!(list.seen(commitment(1)));
        assert!(!list.seen(commitment(1)));
        assert!(list.use_up(commitment(1)));
        assert!(list.refuses(&commitment(1)));
    }
}
