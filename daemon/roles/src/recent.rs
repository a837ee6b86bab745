//! Remembers what arrived a moment ago: some makers answer through every directory at once, and a repeated
//! `!fill` or `!auth` must not be taken for a new one (`spec/protocol.md` 4.9).

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256};
use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;

/// How long a message is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);
/// Most messages that are remembered; the oldest are forgotten first.
const MAX_RECENT: usize = 8_192;

/// A message: who said what. Neither key nor signature, which a relay can write differently.
pub(crate) type Digest = [u8; 32];

/// Verified messages of the last while.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    known: HashSet<Digest>,
    order: VecDeque<(Duration, Digest)>,
}

impl Recent {
    /// Names a message.
    pub(crate) fn digest(from: &Nick, word: PrivateWord, payload: &str) -> Digest {
        let mut engine = sha256::Hash::engine();
        for part in [from.as_str(), " ", word.as_str(), " ", payload] {
            engine.input(part.as_bytes());
        }
        sha256::Hash::from_engine(engine).to_byte_array()
    }

    /// Whether it arrived within the window.
    pub(crate) fn contains(&mut self, digest: &Digest, now: Duration) -> bool {
        while let Some((at, old)) = self.order.front()
            && now.saturating_sub(*at) > WINDOW
        {
            self.known.remove(old);
            self.order.pop_front();
        }
        self.known.contains(digest)
    }

    /// Remembers it.
    pub(crate) fn insert(&mut self, digest: Digest, now: Duration) {
        if !self.known.insert(digest) {
            return;
        }
        self.order.push_back((now, digest));
        if self.order.len() > MAX_RECENT
            && let Some((_, old)) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_the_window_and_never_more_than_its_maximum() {
        let mut recent = Recent::default();
        let digest = |number: u32| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            digest
        };
        recent.insert(digest(0), Duration::ZERO);
        assert!(recent.contains(&digest(0), WINDOW));
        assert!(!recent.contains(&digest(0), WINDOW + Duration::from_millis(1)));
        for number in 0..20_000 {
            recent.insert(digest(number), WINDOW);
            recent.insert(digest(number), WINDOW);
        }
        assert_eq!((recent.known.len(), recent.order.len()), (MAX_RECENT, MAX_RECENT));
        assert!(recent.contains(&digest(19_999), WINDOW) && !recent.contains(&digest(0), WINDOW));
    }
}
