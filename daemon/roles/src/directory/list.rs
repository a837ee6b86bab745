//! Peer lists: asked for once, sent in pieces as the peer takes them.

use joinery_proto::onion::envelope::MessageType;

use super::frame::Frame;
use super::limits::{CHUNK_BYTES, CHUNK_ENTRIES, LIST_ALL, LIST_SAMPLE};
use super::registry::Registry;

/// How far a peer list has come. It takes no copy of the list: who comes and goes meanwhile is in or out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    next: usize,
    /// Each maker is named with this chance, in 1/2⁶⁴; `None` names all.
    chance: Option<u64>,
    random: u64,
    with_features: bool,
    /// The first line goes out even when it is empty, because somebody waits for an answer.
    answered: bool,
}

impl Listing {
    /// A list of `makers` makers, of which a random sample is taken when they are too many.
    pub(super) fn new(makers: usize, with_features: bool, seed: u64) -> Self {
        let chance = (makers > LIST_ALL).then(|| {
            let sample = u64::try_from(LIST_SAMPLE).unwrap_or(u64::MAX);
            // More than LIST_ALL, so not zero.
            (u64::MAX / u64::try_from(makers).unwrap_or(u64::MAX)).saturating_mul(sample)
        });
        Self { next: 0, chance, random: seed, with_features, answered: false }
    }

    /// The next line and whether it is the last. `first` is the directory's own entry.
    pub(super) fn chunk(&mut self, peers: &Registry, first: Option<&str>) -> (Option<Frame>, bool) {
        let mut entries = Entries::default();
        if let Some(own) = first.filter(|_| !self.answered) {
            entries.push(own);
        }
        while self.next < peers.slots() && !entries.full() {
            let member = peers.get(self.next).and_then(|peer| peer.registered());
            self.next = self.next.saturating_add(1);
            if let Some(member) = member.filter(|member| member.is_maker())
                && self.is_named()
            {
                entries.push(&member.entry(self.with_features));
            }
        }
        let last = self.next >= peers.slots();
        let silent = entries.text.is_empty() && self.answered;
        self.answered = true;
        let frame = Frame::directed(MessageType::PeerList, entries.text);
        (frame.filter(|_| !silent), last)
    }

    fn is_named(&mut self) -> bool {
        let Some(chance) = self.chance else { return true };
        // SplitMix64: who is left out is nobody's secret.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31 < chance
    }
}

/// Entries of one line.
#[derive(Debug, Default)]
pub(super) struct Entries {
    text: String,
    count: usize,
}

impl Entries {
    pub(super) fn push(&mut self, entry: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(entry);
        self.count = self.count.saturating_add(1);
    }

    /// Whether another entry may not fit: the longest has 2.2 KiB.
    fn full(&self) -> bool {
        self.count >= CHUNK_ENTRIES || self.is_long()
    }

    /// Whether the line has its length.
    pub(super) fn is_long(&self) -> bool {
        self.text.len() >= CHUNK_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn take(&mut self) -> String {
        self.count = 0;
        std::mem::take(&mut self.text)
    }
}
