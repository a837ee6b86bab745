//! Feature flags (`spec/protocol.md` 14.1).

use std::collections::BTreeSet;

/// Most flags of one peer that are kept.
pub const MAX_FEATURES: usize = 32;
/// Longest name of a flag.
pub const MAX_FEATURE_NAME: usize = 64;

/// Sender answers pings.
pub const PING: &str = "ping";
/// Sender understands `F:` in peer lists; a directory answers peer list requests.
pub const PEERLIST_FEATURES: &str = "peerlist_features";
/// Sender understands and provides extended coin texts.
pub const NEUTRINO_COMPAT: &str = crate::message::NEUTRINO_COMPAT;
/// Sender can prove or verify the ownership of nicks.
pub const NICK_AUTH: &str = "nick_auth";

/// The flags of one peer, sorted. Unknown flags are kept, because a directory relays them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Features(BTreeSet<String>);

impl Features {
    /// No flags: the reference.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// From names. Malformed names and everything beyond [`MAX_FEATURES`] are left out.
    #[must_use]
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let well_formed = |name: &&str| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            !name.is_empty() && name.len() <= MAX_FEATURE_NAME && name.bytes().all(allowed)
        };
        Self(names.into_iter().filter(well_formed).take(MAX_FEATURES).map(str::to_owned).collect())
    }

    /// The object of a handshake; only the value `true` counts.
    #[must_use]
    pub fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> Self {
        let set = |(name, value): (&'_ String, &serde_json::Value)| {
            (*value == serde_json::Value::Bool(true)).then_some(name.clone())
        };
        let names: Vec<String> = object.iter().take(MAX_FEATURES).filter_map(set).collect();
        Self::from_names(names.iter().map(String::as_str))
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether no flag is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The field of a peer list entry, `F:a+b`; `None` when no flag is set.
    #[must_use]
    pub fn peerlist_field(&self) -> Option<String> {
        (!self.is_empty()).then(|| format!("F:{}", self.names().collect::<Vec<_>>().join("+")))
    }
}
