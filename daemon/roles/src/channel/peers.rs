//! Who is where (`spec/protocol.md` 4.7, 4.9): presence is kept per directory, and only a directory's own
//! `;D` or the loss of its connection takes its word back.

use std::collections::BTreeMap;
use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::onion::features::Features;
use joinery_proto::onion::location::PeerAddress;

use crate::event::{DirectoryId, LinkId, Source};

/// Most peers that are known at a time.
pub const MAX_PEERS: usize = 20_000;

/// What is known of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Directories on which it is present, one bit each.
    pub(super) present: u64,
    /// Directories on which it was present when their connection was lost.
    pub(super) before: u64,
    /// Where it says, or a directory says, that it serves. A hint: nothing proves it.
    pub location: Option<PeerAddress>,
    /// A peer list has named a place where it serves, whether we may dial that or not.
    pub(super) serves: bool,
    /// Its flags as far as they are known.
    pub features: Features,
    /// The way on which its last verified message came.
    pub(super) route: Option<Source>,
    /// Direct connections that are its own: proved, or dialled for it and answered in its name.
    pub(super) direct: Option<LinkId>,
    /// Whether a signature proved that it exists.
    pub(super) proved: bool,
    /// Not to be dialled before this time.
    pub(super) dial_after: Duration,
}

impl PeerInfo {
    /// Whether a directory has shown it and not taken it back.
    #[must_use]
    pub const fn is_at(&self, directory: DirectoryId) -> bool {
        self.present & bit(directory) != 0
    }

    /// Directories on which it is present.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryId> + '_ {
        (0..64).map(DirectoryId).filter(|directory| self.is_at(*directory))
    }

    /// Remembers where the peer is said to serve.
    pub(super) fn note_location(&mut self, address: PeerAddress) {
        if self.location.as_ref() != Some(&address) {
            self.location = Some(address);
            // The pause was for the other address.
            self.dial_after = Duration::ZERO;
        }
    }

    const fn is_of_no_use(&self) -> bool {
        self.present == 0 && self.before == 0 && self.direct.is_none()
    }
}

/// A directory's bit. There are at most 64 of them.
pub(super) const fn bit(directory: DirectoryId) -> u64 {
    1_u64.wrapping_shl(directory.0 as u32)
}

/// The table. Sorted, so that a replay walks it in the same order.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<Nick, PeerInfo>,
}

impl Peers {
    pub(super) fn get(&self, nick: &Nick) -> Option<&PeerInfo> {
        self.known.get(nick)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Nick, &PeerInfo)> {
        self.known.iter()
    }

    /// The entry of a nick that only a claim speaks of; `None` when the table is full.
    pub(super) fn claimed(&mut self, nick: Nick) -> Option<&mut PeerInfo> {
        if self.known.len() >= MAX_PEERS && !self.known.contains_key(&nick) {
            return None;
        }
        Some(self.known.entry(nick).or_default())
    }

    /// The entry of a nick that a signature proved. When the table is full, a peer that is nowhere or was
    /// never proved makes room; names are free, keys with signatures cost their owner something.
    pub(super) fn proved(&mut self, nick: Nick) -> Option<&mut PeerInfo> {
        if self.known.len() >= MAX_PEERS && !self.known.contains_key(&nick) {
            let idle = |peer: &PeerInfo| peer.direct.is_none() && peer.present == 0;
            let unproved = |peer: &PeerInfo| peer.direct.is_none() && !peer.proved;
            let victim = self.known.iter().find(|(_, peer)| idle(peer) || unproved(peer));
            let victim = *victim?.0;
            self.known.remove(&victim);
        }
        let peer = self.known.entry(nick).or_default();
        peer.proved = true;
        Some(peer)
    }

    /// Changes a known peer; forgets it when nothing is left of it.
    pub(super) fn update(&mut self, nick: &Nick, change: impl FnOnce(&mut PeerInfo)) {
        let Some(peer) = self.known.get_mut(nick) else { return };
        change(peer);
        if peer.is_of_no_use() {
            self.known.remove(nick);
        }
    }

    /// A directory's connection is lost: what it said counts no more. Where peers were is remembered for
    /// the time when it is back, because reference directories never list them.
    pub(super) fn directory_lost(&mut self, directory: DirectoryId) {
        let bit = bit(directory);
        self.known.retain(|_, peer| {
            if peer.present & bit != 0 {
                peer.before |= bit;
            }
            peer.present &= !bit;
            // Only those who proved themselves are worth remembering.
            if !peer.proved {
                peer.before = 0;
            }
            !peer.is_of_no_use()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A well-formed nick for each number.
    fn nick(number: usize) -> Nick {
        const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        let mut text = String::from("J5");
        let mut rest = number;
        for _ in 0..14 {
            text.push(char::from(ALPHABET[rest % ALPHABET.len()]));
            rest /= ALPHABET.len();
        }
        text.parse().unwrap()
    }

    #[test]
    fn a_million_claimed_names_fill_no_more_than_the_table_and_cannot_keep_out_a_proved_one() {
        let mut peers = Peers::default();
        for number in 0..1_000_000 {
            if let Some(peer) = peers.claimed(nick(number)) {
                peer.present = 1;
            }
        }
        assert_eq!(peers.len(), MAX_PEERS);
        let honest = nick(2_000_000);
        assert!(peers.claimed(honest).is_none());
        assert!(peers.proved(honest).is_some());
        assert_eq!(peers.len(), MAX_PEERS);
    }

    #[test]
    fn lost_directory_takes_back_its_word_and_no_other() {
        let mut peers = Peers::default();
        let (first, second) = (DirectoryId(0), DirectoryId(63));
        peers.claimed(nick(1)).unwrap().present = bit(first) | bit(second);
        peers.claimed(nick(2)).unwrap().present = bit(first);
        peers.proved(nick(3)).unwrap().present = bit(first);
        peers.directory_lost(first);
        assert_eq!(peers.get(&nick(1)).unwrap().directories().collect::<Vec<_>>(), [second]);
        assert!(peers.get(&nick(2)).is_none());
        assert_eq!(peers.get(&nick(3)).map(|peer| (peer.present, peer.before)), Some((0, 1)));
    }
}
