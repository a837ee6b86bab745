//! Peer lists (`spec/protocol.md` 4.7).

use std::fmt;

use super::features::Features;
use super::location::Location;
use crate::nick::Nick;

/// Most entries of one line that are looked at. A full line of the shortest entries holds fewer.
pub const MAX_ENTRIES: usize = 4_096;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// Who.
    pub nick: Nick,
    /// Where. A claim.
    pub location: Location,
    /// The peer has left this directory.
    pub left: bool,
    /// Its flags.
    pub features: Features,
}

impl PeerEntry {
    /// Parses one entry: nick and location, then `D` and `F:…` in any order; unknown fields are ignored.
    #[must_use]
    pub fn parse(entry: &str) -> Option<Self> {
        let mut fields = entry.split(';');
        let nick = fields.next()?.parse().ok()?;
        let location = fields.next()?.parse().ok()?;
        let (mut left, mut features) = (false, Features::none());
        for field in fields.take(8) {
            if field == "D" {
                left = true;
            } else if let Some(names) = field.strip_prefix("F:") {
                features = Features::from_names(names.split('+'));
            }
        }
        Some(Self { nick, location, left, features })
    }
}

/// The wire form.
impl fmt::Display for PeerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.nick, self.location)?;
        if self.left {
            f.write_str(";D")?;
        }
        self.features.peerlist_field().map_or(Ok(()), |field| write!(f, ";{field}"))
    }
}

/// Parses a peer list. The list is additive: absence of a nick means nothing. Malformed entries are
/// skipped, as are entries beyond [`MAX_ENTRIES`].
#[must_use]
pub fn parse(line: &str) -> Vec<PeerEntry> {
    line.split(',').take(MAX_ENTRIES).filter_map(PeerEntry::parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_ENTRIES, PeerEntry, parse};

    #[test]
    fn a_million_entries_are_bounded() {
        let line = vec!["J5DdKBhSf2Ykxqqy;NOT-SERVING-ONION"; 1_000_000].join(",");
        assert_eq!(parse(&line).len(), MAX_ENTRIES);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(entry in ".{0,60}|J5DdKBhSf2Ykxqqy;host:[0-9]{1,5}(;D)?(;F:[a-z_]{1,8}(\\+[a-z_]{1,8})?)?") {
            if let Some(parsed) = PeerEntry::parse(&entry) {
                prop_assert_eq!(PeerEntry::parse(&parsed.to_string()), Some(parsed));
            }
        }
    }
}
