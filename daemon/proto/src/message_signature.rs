//! "Bitcoin Signed Message" signatures (`spec/wallet.md` 11, vectors `signed_message.json` and
//! `message_signing.json`).
//!
//! The wallet signs user messages with them, and the protocol signs `!ioauth` and fidelity bond proofs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bdk_wallet::bitcoin::consensus::Encodable;
use bdk_wallet::bitcoin::consensus::encode::VarInt;
use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256d};
use bdk_wallet::bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bdk_wallet::bitcoin::secp256k1::{Message, PublicKey, SecretKey};

use crate::secp;

/// Prefix of the signed data: length byte 0x18 and the fixed text.
const PREFIX: &[u8] = b"\x18Bitcoin Signed Message:\n";

/// Length of a signature with its header byte.
pub const SIGNATURE_LEN: usize = 65;

/// Header of recovery id 0 with a compressed key: 27 + 4 (Electrum style, for every script type).
const COMPRESSED_HEADER: u8 = 31;

/// Why a signature is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageSignatureError {
    /// Not standard base64 of 65 bytes.
    #[error("signature is not base64 of 65 bytes")]
    Encoding,
    /// The header byte names neither a compressed key nor a BIP137 script type.
    #[error("signature header {header} is not in 31..=42")]
    Header {
        /// The byte.
        header: u8,
    },
    /// `r` or `s` are out of range, or no key can be recovered.
    #[error("signature does not belong to any key")]
    Invalid,
}

/// Returns SHA256d of the prefix, the compact size of the message and the message bytes.
#[must_use]
pub fn digest(message: &[u8]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(PREFIX);
    // A hash engine is a sink that cannot fail; a usize fits into u64 on every supported target.
    let written = VarInt(message.len() as u64).consensus_encode(&mut engine);
    debug_assert!(written.is_ok(), "hash engines accept every byte");
    engine.input(message);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// Signs a message: header 31 to 34, `r`, `s` (RFC6979 nonce, no low-R grinding).
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "31 plus a number from 0 to 3")]
pub fn sign(message: &[u8], key: &SecretKey) -> [u8; SIGNATURE_LEN] {
    let signature = secp().sign_ecdsa_recoverable(&Message::from_digest(digest(message)), key);
    let (recovery, compact) = signature.serialize_compact();
    let mut out = [0; SIGNATURE_LEN];
    // Recovery ids are 0 to 3, so the header is 31 to 34.
    let [header, rest @ ..] = &mut out;
    *header = COMPRESSED_HEADER + u8::try_from(recovery.to_i32()).unwrap_or_default();
    rest.copy_from_slice(&compact);
    out
}

/// Signs a message; returns standard base64 with padding, 88 characters.
#[must_use]
pub fn sign_base64(message: &[u8], key: &SecretKey) -> String {
    STANDARD.encode(sign(message, key))
}

/// Recovers the key that made a signature over a message.
///
/// # Errors
/// The header or the numbers are out of range.
#[expect(clippy::arithmetic_side_effects, reason = "the header was checked to be at least 31")]
pub fn recover(
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<PublicKey, MessageSignatureError> {
    let [header, compact @ ..] = signature;
    // BIP137 uses 35..=38 and 39..=42 for the same key with another script type.
    if !(COMPRESSED_HEADER..=42).contains(header) {
        return Err(MessageSignatureError::Header { header: *header });
    }
    let id = i32::from((header - COMPRESSED_HEADER) % 4);
    let id = RecoveryId::from_i32(id).map_err(|_| MessageSignatureError::Invalid)?;
    RecoverableSignature::from_compact(compact, id)
        .and_then(|signature| {
            secp().recover_ecdsa(&Message::from_digest(digest(message)), &signature)
        })
        .map_err(|_| MessageSignatureError::Invalid)
}

/// Whether a base64 signature over a message was made by this key.
///
/// # Errors
/// The text is not a signature at all; a signature of another key is `Ok(false)`.
pub fn verify_base64(
    message: &[u8],
    signature: &str,
    key: &PublicKey,
) -> Result<bool, MessageSignatureError> {
    // 65 bytes are 88 characters; anything else is refused before it is decoded.
    if signature.len() != 88 {
        return Err(MessageSignatureError::Encoding);
    }
    let bytes = STANDARD.decode(signature).map_err(|_| MessageSignatureError::Encoding)?;
    let bytes: [u8; SIGNATURE_LEN] =
        bytes.try_into().map_err(|_| MessageSignatureError::Encoding)?;
    Ok(recover(message, &bytes)? == *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_hello_matches_the_vector() {
        assert_eq!(
            hex::encode(digest(b"hello")),
            "cf0447ec85f0ce7150a257db32ebfcb7523dae17c36dbd1be598779fec0484f4"
        );
    }

    #[test]
    fn signature_recovers_its_key_and_no_other() {
        let key = SecretKey::from_slice(&[7; 32]).expect("valid key");
        let public = key.public_key(secp());
        for length in [0, 1, 252, 253, 65_536] {
            let message = vec![b'x'; length];
            let text = sign_base64(&message, &key);
            assert_eq!(verify_base64(&message, &text, &public), Ok(true));
            assert_ne!(verify_base64(b"other", &text, &public), Ok(true));
        }
    }

    #[test]
    fn rejects_what_is_not_a_signature() {
        let key = SecretKey::from_slice(&[7; 32]).expect("valid key").public_key(secp());
        assert_eq!(verify_base64(b"m", "", &key), Err(MessageSignatureError::Encoding));
        assert_eq!(
            verify_base64(b"m", &"*".repeat(88), &key),
            Err(MessageSignatureError::Encoding)
        );
        let zeros = STANDARD.encode([0; 65]);
        assert_eq!(
            verify_base64(b"m", &zeros, &key),
            Err(MessageSignatureError::Header { header: 0 })
        );
        let mut zero_numbers = [0; 65];
        zero_numbers[0] = 31;
        assert_eq!(recover(b"m", &zero_numbers), Err(MessageSignatureError::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn parser_never_panics(bytes in proptest::collection::vec(0_u8..=255, 65), text in ".{0,100}") {
            let bytes: [u8; 65] = bytes.try_into().expect("65 bytes");
            let _ = recover(b"m", &bytes);
            let key = SecretKey::from_slice(&[7; 32]).expect("valid key").public_key(secp());
            let _ = verify_base64(b"m", &text, &key);
        }
    }
}
