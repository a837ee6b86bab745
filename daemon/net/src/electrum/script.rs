//! Script hashes and status hashes, the names that the protocol uses for scripts and their histories.

use std::fmt;

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256};
use bdk_wallet::bitcoin::{Script, Txid};
use joinery_wallet::chain::StatusHash;

/// SHA-256 of a scriptPubKey; written in reversed byte order, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ScriptHash([u8; 32]);

impl ScriptHash {
    pub(crate) fn of(script: &Script) -> Self {
        let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
        bytes.reverse();
        Self(bytes)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        parse_hash(text).map(Self)
    }
}

impl fmt::Display for ScriptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// 64 hexadecimal digits, bytes in the order of the text.
pub(crate) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        let [high, low] = pair else { return None };
        *byte = u8::try_from((digit(high)? << 4) | digit(low)?).ok()?;
    }
    Some(bytes)
}

/// One line of a history as the server sends it: height 0 in the mempool, -1 in the mempool with an
/// unconfirmed parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) txid: Txid,
    pub(crate) height: i64,
}

/// The status hash that belongs to a history; `None` for an empty one.
pub(crate) fn status_of(history: &[HistoryEntry]) -> Option<StatusHash> {
    use std::fmt::Write;
    if history.is_empty() {
        return None;
    }
    let mut engine = sha256::Hash::engine();
    let mut text = String::new();
    for HistoryEntry { txid, height } in history {
        text.clear();
        // Writing to a string cannot fail.
        let _ = write!(text, "{txid}:{height}:");
        engine.input(text.as_bytes());
    }
    Some(sha256::Hash::from_engine(engine).to_byte_array())
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::ScriptBuf;

    use super::*;

    /// Example of the protocol documentation, "Script hashes".
    #[test]
    fn script_hash_is_that_of_the_protocol_documentation() {
        let script =
            ScriptBuf::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
        let text = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
        assert_eq!(ScriptHash::of(&script).to_string(), text);
        assert_eq!(ScriptHash::from_hex(text), Some(ScriptHash::of(&script)));
    }

    #[test]
    fn hashes_of_other_lengths_and_letters_are_refused() {
        assert_eq!(parse_hash(&"0".repeat(63)), None);
        assert_eq!(parse_hash(&"0".repeat(65)), None);
        assert_eq!(parse_hash(&"g".repeat(64)), None);
        assert_eq!(parse_hash(&"é".repeat(32)), None);
    }

    #[test]
    fn status_is_the_hash_over_all_entries() {
        let txid: Txid = "aa".repeat(32).parse().unwrap();
        assert_eq!(status_of(&[]), None);
        let text = format!("{txid}:5:{txid}:-1:");
        let entries = [HistoryEntry { txid, height: 5 }, HistoryEntry { txid, height: -1 }];
        assert_eq!(status_of(&entries), Some(sha256::Hash::hash(text.as_bytes()).to_byte_array()));
    }
}
