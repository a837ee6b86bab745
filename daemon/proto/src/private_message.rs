//! The envelope of private messages: every one ends with the sender's nick key and a signature
//! (`spec/protocol.md` 3.3, 6.3; vectors `nick.json`, `message_signing.json`, `commands.json`).
//!
//! The signature covers the payload and the channel's host id, not the command word and not the
//! recipient. So a relay can change the word or redirect the line; handlers must be safe for that.

use bdk_wallet::bitcoin::secp256k1::{PublicKey, SecretKey};

use crate::nick::Nick;
use crate::offer::OrderType;
use crate::secp;
use crate::signature::{self, SignatureError};

/// Host id of every onion connection.
pub const ONION_HOSTID: &str = "onion-network";
/// Hex digits of a compressed public key.
const PUBLIC_KEY_HEX: usize = 66;

/// Words that may lead a private message (`spec/protocol.md` 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrivateWord {
    /// One of the six offer words.
    Offer(OrderType),
    /// Taker asks for a coinjoin.
    Fill,
    /// Maker's session key.
    PubKey,
    /// Taker opens its commitment. Sealed.
    Auth,
    /// Maker names its coins and addresses. Sealed.
    IoAuth,
    /// Taker shows the transaction. Sealed.
    Tx,
    /// Maker signs one input. Sealed.
    Sig,
    /// Request to broadcast.
    Push,
    /// Complaint in clear text.
    Error,
    /// Request to publish a commitment.
    Hp2,
    /// Accepted as a word; has no meaning in private.
    Orderbook,
}

impl PrivateWord {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offer(order_type) => order_type.word(),
            Self::Fill => "fill",
            Self::PubKey => "pubkey",
            Self::Auth => "auth",
            Self::IoAuth => "ioauth",
            Self::Tx => "tx",
            Self::Sig => "sig",
            Self::Push => "push",
            Self::Error => "error",
            Self::Hp2 => "hp2",
            Self::Orderbook => "orderbook",
        }
    }

    /// The word of a text; lower case only.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "fill" => Self::Fill,
            "pubkey" => Self::PubKey,
            "auth" => Self::Auth,
            "ioauth" => Self::IoAuth,
            "tx" => Self::Tx,
            "sig" => Self::Sig,
            "push" => Self::Push,
            "error" => Self::Error,
            "hp2" => Self::Hp2,
            "orderbook" => Self::Orderbook,
            other => Self::Offer(OrderType::parse(other)?),
        })
    }

    /// Whether the payload is sealed with the session's NaCl box. Such a payload in clear text must
    /// never be accepted.
    #[must_use]
    pub const fn is_sealed(self) -> bool {
        matches!(self, Self::Auth | Self::IoAuth | Self::Tx | Self::Sig)
    }
}

/// Why a private message was dropped. Always silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// Fewer than four fields, or an empty payload.
    #[error("expected command, payload, key and signature")]
    Fields,
    /// The word is unknown or may not lead.
    #[error("unknown command")]
    UnknownCommand,
    /// The key is not 66 lower-case hex digits of a point.
    #[error("nick key is malformed")]
    Key,
    /// The signature is malformed or does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The key is not the one that the nick is derived from.
    #[error("nick key does not belong to the sender")]
    ForeignKey,
}

/// A private message whose sender was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrivateMessage<'a> {
    /// The leading command. Not covered by the signature.
    pub word: PrivateWord,
    /// Everything between the command and the key.
    pub payload: &'a str,
}

/// A message's fields after the cheap checks, before any cryptography.
#[derive(Debug, Clone, Copy)]
pub struct UnverifiedMessage<'a> {
    /// The leading command.
    pub word: PrivateWord,
    /// Claimed payload.
    pub payload: &'a str,
    key_text: &'a str,
    signature: &'a str,
}

impl<'a> UnverifiedMessage<'a> {
    /// Splits the text after `from!to!`. Costs no cryptography, so that callers can drop what they do not
    /// want before they pay for a signature check.
    ///
    /// # Errors
    /// [`DropReason::Fields`], [`DropReason::UnknownCommand`] or [`DropReason::Key`].
    pub fn parse(text: &'a str) -> Result<Self, DropReason> {
        let (rest, signature) = text.rsplit_once(' ').ok_or(DropReason::Fields)?;
        let (rest, key_text) = rest.rsplit_once(' ').ok_or(DropReason::Fields)?;
        let (word, payload) = rest.split_once(' ').ok_or(DropReason::Fields)?;
        if payload.is_empty() || signature.is_empty() {
            return Err(DropReason::Fields);
        }
        let word = PrivateWord::parse(word).ok_or(DropReason::UnknownCommand)?;
        // The nick is the hash of these characters, so upper case would be another nick.
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if key_text.len() != PUBLIC_KEY_HEX || !key_text.bytes().all(hex) {
            return Err(DropReason::Key);
        }
        Ok(Self { word, payload, key_text, signature })
    }

    /// Verifies signature and nick.
    ///
    /// # Errors
    /// [`DropReason::Key`], [`DropReason::Signature`] or [`DropReason::ForeignKey`].
    pub fn verify(&self, from: &Nick, hostid: &str) -> Result<PrivateMessage<'a>, DropReason> {
        // The nick is cheaper than the key, and the key than the signature.
        if Nick::from_key_text(self.key_text) != *from {
            return Err(DropReason::ForeignKey);
        }
        let key: PublicKey = self.key_text.parse().map_err(|_| DropReason::Key)?;
        let signed = |hostid: &str| [self.payload, hostid].concat();
        match signature::verify(signed(hostid).as_bytes(), self.signature, &key) {
            // IRC network names differ in case between what servers say and what reference peers sign.
            Err(SignatureError::Mismatch) if hostid.bytes().any(|b| b.is_ascii_uppercase()) => {
                let hostid = hostid.to_ascii_lowercase();
                signature::verify(signed(&hostid).as_bytes(), self.signature, &key)?;
            }
            result => result?,
        }
        Ok(PrivateMessage { word: self.word, payload: self.payload })
    }
}

/// The key behind our nick for one session.
pub struct NickKey {
    secret: SecretKey,
    public: PublicKey,
    nick: Nick,
}

impl std::fmt::Debug for NickKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NickKey").field("nick", &self.nick).finish_non_exhaustive()
    }
}

impl Drop for NickKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl NickKey {
    /// From a secret key drawn for this session only; never persisted.
    #[must_use]
    pub fn new(secret: SecretKey) -> Self {
        let public = secret.public_key(secp());
        Self { secret, public, nick: Nick::from_public_key(&public) }
    }

    /// Our nick.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.nick
    }

    /// The public key behind it.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Makes the text after `from!to!`: `command payload key signature`.
    #[must_use]
    pub fn sign_message(&self, word: PrivateWord, payload: &str, hostid: &str) -> String {
        let signature = self.sign_text([payload, hostid].concat().as_bytes());
        format!("{} {payload} {} {signature}", word.as_str(), self.public)
    }

    /// Signs other texts of the session with the nick key (nick authentication).
    #[must_use]
    pub fn sign_text(&self, text: &[u8]) -> String {
        signature::sign(text, &self.secret)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DropReason, NickKey, ONION_HOSTID, PrivateWord, UnverifiedMessage};
    use bdk_wallet::bitcoin::secp256k1::SecretKey;

    fn key(byte: u8) -> NickKey {
        NickKey::new(SecretKey::from_slice(&[byte; 32]).unwrap())
    }

    #[test]
    fn sender_auth() {
        let (ours, other) = (key(1), key(2));
        let text = ours.sign_message(PrivateWord::Fill, "0 1", ONION_HOSTID);
        let message = UnverifiedMessage::parse(&text).unwrap();
        assert!(message.verify(&ours.nick(), ONION_HOSTID).is_ok());
        assert_eq!(message.verify(&other.nick(), ONION_HOSTID), Err(DropReason::ForeignKey));
        assert!(message.verify(&ours.nick(), "irc").is_err());
    }

    #[test]
    fn upper_case_host_id_falls_back_to_lower_case() {
        let ours = key(1);
        let text = ours.sign_message(PrivateWord::Push, "YWJj", "hackint");
        let message = UnverifiedMessage::parse(&text).unwrap();
        assert!(message.verify(&ours.nick(), "Hackint").is_ok());
        assert!(message.verify(&ours.nick(), "Darkscience").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = UnverifiedMessage::parse(&text);
        }

        #[test]
        fn signed_messages_verify(payload in "[ -~]{1,200}") {
            let ours = key(3);
            let text = ours.sign_message(PrivateWord::Error, &payload, ONION_HOSTID);
            let message = UnverifiedMessage::parse(&text).unwrap().verify(&ours.nick(), ONION_HOSTID);
            prop_assert_eq!(message.unwrap().payload, payload);
        }
    }
}
