//! Proof towards a directory that a nick is ours (`spec/protocol.md` 14.4, vector `extensions.json`).

use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use super::envelope::parse_object;
use crate::nick::Nick;
use crate::private_message::NickKey;
use crate::signature::{self, MAX_SIGNATURE_TEXT};

/// Domain tag at the end of the signed text.
const TAG: &str = "nick-auth-v1";
/// Hex digits of a challenge.
const CHALLENGE_HEX: usize = 64;
/// Longest identity of a directory.
const MAX_DIRECTORY_ID: usize = 128;

/// Why an exchange failed. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NickAuthError {
    /// Not strict JSON of the expected keys, or a value is malformed.
    #[error("message is malformed")]
    Malformed,
    /// The directory calls itself something else.
    #[error("directory identity is not the expected one")]
    Directory,
    /// The key is not the nick's.
    #[error("key does not belong to the nick")]
    Nick,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
}

/// Hash of the exact text of a type 793, as the proof covers it.
#[must_use]
pub fn hash_of(handshake: &str) -> sha256::Hash {
    sha256::Hash::hash(handshake.as_bytes())
}

/// Type 803: the directory's challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    challenge: String,
    #[serde(rename = "directory-id")]
    directory_id: String,
}

impl Challenge {
    /// A directory's challenge from 32 random bytes that the caller drew.
    #[must_use]
    pub fn new(random: [u8; 32], directory_id: &str) -> Self {
        use bdk_wallet::bitcoin::hex::DisplayHex as _;
        Self { challenge: random.to_lower_hex_string(), directory_id: directory_id.to_owned() }
    }

    /// Reads a challenge. Strict: no further, missing or repeated keys.
    ///
    /// # Errors
    /// [`NickAuthError::Malformed`], or [`NickAuthError::Directory`] when it is not for the
    /// directory that we dialled.
    pub fn parse(line: &str, expected_directory: &str) -> Result<Self, NickAuthError> {
        let this: Self = parse_object(line.as_bytes()).ok_or(NickAuthError::Malformed)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let well_formed = this.challenge.len() == CHALLENGE_HEX
            && this.challenge.bytes().all(hex)
            && this.directory_id.len() <= MAX_DIRECTORY_ID;
        if !well_formed {
            return Err(NickAuthError::Malformed);
        }
        if this.directory_id != expected_directory {
            return Err(NickAuthError::Directory);
        }
        Ok(this)
    }

    /// The text of type 803.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Two strings always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The text that is signed. `hash` is that of the exact text of the client's type 793.
    fn signed_text(&self, hash: &sha256::Hash, nick: &Nick, key: &PublicKey) -> String {
        let Self { challenge, directory_id } = self;
        format!("nick-auth|{challenge}|{directory_id}|{hash}|{nick}|{key}{TAG}")
    }

    /// The answer, type 805.
    #[must_use]
    pub fn answer(&self, handshake: &str, key: &NickKey) -> Proof {
        let hash = hash_of(handshake);
        let text = self.signed_text(&hash, &key.nick(), key.public_key());
        Proof { pubkey: key.public_key().to_string(), signature: key.sign_text(text.as_bytes()) }
    }
}

/// Type 805: the client's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pubkey: String,
    signature: String,
}

impl Proof {
    /// Reads a proof. Strict as [`Challenge::parse`].
    ///
    /// # Errors
    /// [`NickAuthError::Malformed`].
    pub fn parse(line: &str) -> Result<Self, NickAuthError> {
        let this: Self = parse_object(line.as_bytes()).ok_or(NickAuthError::Malformed)?;
        if this.signature.len() > MAX_SIGNATURE_TEXT {
            return Err(NickAuthError::Malformed);
        }
        Ok(this)
    }

    /// The text of type 805.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Two strings always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Verifies the proof as a directory.
    ///
    /// # Errors
    /// [`NickAuthError`].
    pub fn verify(
        &self,
        challenge: &Challenge,
        handshake: &str,
        nick: &Nick,
    ) -> Result<(), NickAuthError> {
        self.verify_hashed(challenge, &hash_of(handshake), nick)
    }

    /// [`Self::verify`] for a directory that kept only [`hash_of`] the handshake.
    ///
    /// # Errors
    /// [`NickAuthError`].
    pub fn verify_hashed(
        &self,
        challenge: &Challenge,
        handshake: &sha256::Hash,
        nick: &Nick,
    ) -> Result<(), NickAuthError> {
        let key: PublicKey = self.pubkey.parse().map_err(|_| NickAuthError::Malformed)?;
        // The nick is a hash of the lower-case characters.
        if key.to_string() != self.pubkey {
            return Err(NickAuthError::Malformed);
        }
        if Nick::from_public_key(&key) != *nick {
            return Err(NickAuthError::Nick);
        }
        let text = challenge.signed_text(handshake, nick, &key);
        signature::verify(text.as_bytes(), &self.signature, &key)
            .map_err(|_| NickAuthError::Signature)
    }
}

/// Type 807: the directory's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// `ok`, `malformed`, `expired`, `invalid` or `policy`.
    pub code: VerdictCode,
    /// True only with `ok`.
    pub verified: bool,
}

/// Codes of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictCode {
    /// The nick is ours.
    Ok,
    /// The proof could not be read.
    Malformed,
    /// The proof came too late.
    Expired,
    /// The proof does not verify.
    Invalid,
    /// The directory does not want us.
    Policy,
}

impl Verdict {
    /// Reads a verdict.
    ///
    /// # Errors
    /// [`NickAuthError::Malformed`], also when code and flag contradict each other.
    pub fn parse(line: &str) -> Result<Self, NickAuthError> {
        let this: Self = parse_object(line.as_bytes()).ok_or(NickAuthError::Malformed)?;
        if this.verified != (this.code == VerdictCode::Ok) {
            return Err(NickAuthError::Malformed);
        }
        Ok(this)
    }

    /// The text of type 807.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
