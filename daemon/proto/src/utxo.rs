//! Coins as they are written on the wire (`spec/protocol.md` 2 and 14.2, vector `extensions.json`).

use std::fmt;
use std::str::FromStr;

use bdk_wallet::bitcoin::hex::FromHex;
use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};

/// Longest scriptPubKey in an extended coin text, bytes. Standard ones have at most 42.
const MAX_SCRIPT: usize = 128;

/// Script and height that a peer with `neutrino_compat` adds to an outpoint. A hint, never a proof.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UtxoHint {
    /// Claimed scriptPubKey.
    pub script: ScriptBuf,
    /// Claimed height of the confirming block.
    pub height: u32,
}

/// A coin on the wire: `txid:vout`, or `txid:vout:scriptpubkey:height` towards peers that announced
/// `neutrino_compat`. Reference peers must never be sent the long form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WireUtxo {
    /// The outpoint.
    pub outpoint: OutPoint,
    /// The extension, when the text has it.
    pub hint: Option<UtxoHint>,
}

/// Why a text is not a coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UtxoError {
    /// Neither two nor four parts.
    #[error("expected txid:vout or txid:vout:scriptpubkey:height")]
    Parts,
    /// The first part is not 64 hex digits.
    #[error("transaction id is not 64 hex digits")]
    Txid,
    /// The second part is not a canonical decimal below 2^32.
    #[error("output index is not a decimal number below 2^32")]
    Vout,
    /// The third part is not hex or too long.
    #[error("scriptPubKey is not hex or too long")]
    Script,
    /// The fourth part is not a canonical decimal.
    #[error("height is not a decimal number")]
    Height,
}

impl WireUtxo {
    /// The plain form of an outpoint.
    #[must_use]
    pub const fn plain(outpoint: OutPoint) -> Self {
        Self { outpoint, hint: None }
    }
}

/// A decimal without sign, leading zero or white space.
pub(crate) fn canonical_u32(text: &str) -> Option<u32> {
    canonical_digits(text)?.parse().ok()
}

/// A decimal without sign, leading zero or white space.
pub(crate) fn canonical_u64(text: &str) -> Option<u64> {
    canonical_digits(text)?.parse().ok()
}

fn canonical_digits(text: &str) -> Option<&str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then_some(text)
}

impl FromStr for WireUtxo {
    type Err = UtxoError;

    fn from_str(text: &str) -> Result<Self, UtxoError> {
        let mut parts = text.splitn(5, ':');
        let (Some(txid), Some(vout)) = (parts.next(), parts.next()) else {
            return Err(UtxoError::Parts);
        };
        let extension = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => None,
            (Some(script), Some(height), None) => Some((script, height)),
            _ => return Err(UtxoError::Parts),
        };
        if txid.len() != 64 {
            return Err(UtxoError::Txid);
        }
        let txid: Txid = txid.parse().map_err(|_| UtxoError::Txid)?;
        let vout = canonical_u32(vout).ok_or(UtxoError::Vout)?;
        let hint = match extension {
            None => None,
            Some((script, height)) => {
                if script.len() > 2 * MAX_SCRIPT {
                    return Err(UtxoError::Script);
                }
                let script = Vec::from_hex(script).map_err(|_| UtxoError::Script)?;
                let height = canonical_u32(height).ok_or(UtxoError::Height)?;
                Some(UtxoHint { script: ScriptBuf::from_bytes(script), height })
            }
        };
        Ok(Self { outpoint: OutPoint { txid, vout }, hint })
    }
}

/// The wire form: long if the hint is there.
impl fmt::Display for WireUtxo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.outpoint.txid, self.outpoint.vout)?;
        if let Some(hint) = &self.hint {
            write!(f, ":{:x}:{}", hint.script, hint.height)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::WireUtxo;

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in "[0-9a-f:]{0,200}") {
            if let Ok(utxo) = text.parse::<WireUtxo>() {
                prop_assert_eq!(utxo.to_string(), text);
            }
        }
    }
}
