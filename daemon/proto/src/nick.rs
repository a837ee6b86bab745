//! Nicks: session names derived from a key (`spec/protocol.md` 3.1, vector `nick.json`).

use std::fmt;
use std::str::FromStr;

use bdk_wallet::bitcoin::base58;
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::secp256k1::PublicKey;

/// Length of every nick in characters.
pub const NICK_LENGTH: usize = 16;
/// Bytes of the key hash that a nick carries.
pub const NICK_HASH_LENGTH: usize = 10;
/// Width to which the encoded hash is padded.
pub const NICK_MAX_ENCODED: usize = 14;
/// First two characters: type and protocol version. Version 5 is the only one in use.
const NICK_PREFIX: &[u8; 2] = b"J5";
/// Padding; not in the base58 alphabet.
const NICK_PADDING: u8 = b'O';

/// A well-formed nick of protocol version 5: `J5`, base58 characters, `O` padding, 16 characters.
///
/// Comparison is of all 16 characters and nothing else (`nick_equality_only`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nick([u8; NICK_LENGTH]);

/// Why a text is not a nick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a nick of protocol version 5")]
pub struct NickError;

impl Nick {
    /// The nick of a session key: base58 of the first 10 bytes of SHA256 over the 66 lower-case hex
    /// characters of the compressed key (not over its bytes).
    #[must_use]
    pub fn from_public_key(key: &PublicKey) -> Self {
        // `Display` of a compressed public key is its 66 lower-case hex characters.
        Self::from_key_text(&key.to_string())
    }

    /// The nick of the key with these 66 lower-case hex characters.
    pub(crate) fn from_key_text(key: &str) -> Self {
        let hash = sha256::Hash::hash(key.as_bytes()).to_byte_array();
        let mut nick = [NICK_PADDING; NICK_LENGTH];
        let encoded = base58::encode(hash.get(..NICK_HASH_LENGTH).unwrap_or(&hash));
        let text = NICK_PREFIX.iter().chain(encoded.as_bytes().iter().take(NICK_MAX_ENCODED));
        // 10 bytes encode to at most 14 characters, so nothing is cut.
        for (place, byte) in nick.iter_mut().zip(text) {
            *place = *byte;
        }
        Self(nick)
    }

    /// The nick as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Nick {
    type Err = NickError;

    fn from_str(text: &str) -> Result<Self, NickError> {
        let bytes: [u8; NICK_LENGTH] = text.as_bytes().try_into().map_err(|_| NickError)?;
        let rest = bytes.strip_prefix(NICK_PREFIX).ok_or(NickError)?;
        let core = rest.iter().take_while(|byte| **byte != NICK_PADDING).count();
        let base58 =
            |byte: &u8| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l');
        let well_formed = core > 0
            && rest.iter().take(core).all(base58)
            && rest.iter().skip(core).all(|byte| *byte == NICK_PADDING);
        if well_formed { Ok(Self(bytes)) } else { Err(NickError) }
    }
}

impl fmt::Display for Nick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Nick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Nick;

    #[test]
    fn rejects_what_is_not_a_nick() {
        for text in [
            "",
            "J5CdDnhVDhc5R7G",
            "J5CdDnhVDhc5R7Ggg",
            "J6CdDnhVDhc5R7Gg",
            "K5CdDnhVDhc5R7Gg",
            "j5CdDnhVDhc5R7Gg",
            "J5OOOOOOOOOOOOOO",
            "J5CdDnhVDhcO5R7g",
            "J5CdDnhVDhc5R70g",
            "J5CdDnhVDhc5R7I!",
            "J5CdDnhVDhc5R7\u{e9}",
        ] {
            assert!(text.parse::<Nick>().is_err(), "{text}");
        }
    }

    #[test]
    fn nick_equality_only() {
        let nick: Nick = "J5CdDnhVDhc5R7Gg".parse().unwrap();
        let longer_core: Nick = "J5CdDnhVDhc5R7GO".parse().unwrap();
        assert_ne!(nick, longer_core);
        assert_eq!(nick.to_string().parse::<Nick>().unwrap(), nick);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            if let Ok(nick) = text.parse::<Nick>() {
                prop_assert_eq!(nick.as_str(), text);
            }
        }
    }
}
