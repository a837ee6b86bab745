//! Signatures of the protocol: nick signatures, `btc_sig`, bond certificates (`spec/protocol.md` 3.2,
//! vector `message_signing.json`).
//!
//! ECDSA over the "Bitcoin Signed Message" digest, RFC 6979, low S, no grinding, DER, then standard padded
//! base64. Users' message signatures are the recoverable kind, in [`crate::message_signature`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bdk_wallet::bitcoin::secp256k1::ecdsa::Signature;
use bdk_wallet::bitcoin::secp256k1::{Message, PublicKey, SecretKey};

use crate::{message_signature, secp};

/// Longest base64 text of a DER signature (72 bytes).
pub const MAX_SIGNATURE_TEXT: usize = 96;
/// Longest DER signature, bytes.
pub const MAX_DER: usize = 72;

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not canonical base64 of at most 72 bytes.
    #[error("signature is not base64")]
    Base64,
    /// Not strict DER.
    #[error("signature is not strict DER")]
    Der,
    /// It was made by another key or over another message.
    #[error("signature does not verify")]
    Mismatch,
}

/// Signs bytes; returns DER.
#[must_use]
pub fn sign_der(message: &[u8], key: &SecretKey) -> Vec<u8> {
    let digest = Message::from_digest(message_signature::digest(message));
    secp().sign_ecdsa(&digest, key).serialize_der().to_vec()
}

/// Signs bytes; returns the base64 text of the wire.
#[must_use]
pub fn sign(message: &[u8], key: &SecretKey) -> String {
    STANDARD.encode(sign_der(message, key))
}

/// Verifies a DER signature. High S is accepted, as reference peers do, after normalising.
///
/// # Errors
/// [`SignatureError::Der`] or [`SignatureError::Mismatch`].
pub fn verify_der(message: &[u8], der: &[u8], key: &PublicKey) -> Result<(), SignatureError> {
    if der.len() > MAX_DER {
        return Err(SignatureError::Der);
    }
    let mut signature = Signature::from_der(der).map_err(|_| SignatureError::Der)?;
    signature.normalize_s();
    let digest = Message::from_digest(message_signature::digest(message));
    secp().verify_ecdsa(&digest, &signature, key).map_err(|_| SignatureError::Mismatch)
}

/// Verifies the base64 text of the wire; only canonical base64 is accepted.
///
/// # Errors
/// All of [`SignatureError`].
pub fn verify(message: &[u8], text: &str, key: &PublicKey) -> Result<(), SignatureError> {
    if text.len() > MAX_SIGNATURE_TEXT {
        return Err(SignatureError::Base64);
    }
    let der = STANDARD.decode(text).map_err(|_| SignatureError::Base64)?;
    verify_der(message, &der, key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SecretKey, secp, sign, verify, verify_der};

    proptest! {
        #[test]
        fn verifying_never_panics(text in ".{0,120}", der in proptest::collection::vec(any::<u8>(), 0..80)) {
            let key = SecretKey::from_slice(&[5; 32]).unwrap().public_key(secp());
            prop_assert!(verify(b"m", &text, &key).is_err());
            prop_assert!(verify_der(b"m", &der, &key).is_err());
        }

        #[test]
        fn signatures_verify_for_their_message_only(message in any::<Vec<u8>>()) {
            let key = SecretKey::from_slice(&[5; 32]).unwrap();
            let text = sign(&message, &key);
            prop_assert_eq!(verify(&message, &text, &key.public_key(secp())), Ok(()));
            let mut other = message;
            other.push(0);
            prop_assert!(verify(&other, &text, &key.public_key(secp())).is_err());
        }
    }
}
