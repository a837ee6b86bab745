//! Proof of a fidelity bond towards one taker (`spec/protocol.md` 10.2, 10.3; vector
//! `fidelity_bond.json`).
//!
//! Two signatures: the key of the bonded coin signs a certificate key until a period of 2016 blocks
//! ends; the certificate key signs the pair of nicks, so that a proof cannot be replayed.
//! Transaction id, output and lock time are *not* signed: they bind only through the chain, where the coin
//! must pay the script that is rebuilt from the proof (`bond_utxo_spk_matches`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::{PublicKey, SecretKey};
use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};

use crate::nick::Nick;
use crate::signature::{self, MAX_DER, SignatureError};
use crate::{fidelity_bond, secp};

/// Length of a proof, bytes.
pub const PROOF_LENGTH: usize = 252;
/// Length of a proof as base64, characters.
pub const PROOF_TEXT: usize = 336;
/// Blocks per unit of the certificate's expiry.
pub const CERT_PERIOD: u32 = 2016;
/// First byte of a DER signature; everything before it is padding.
const DER_HEADER: u8 = 0x30;
/// Padding before a signature.
const PADDING: u8 = 0xff;
/// Leading text of a certificate message.
const CERT_PREFIX: &[u8] = b"fidelity-bond-cert|";

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BondProofError {
    /// Not canonical base64.
    #[error("proof is not base64")]
    Base64,
    /// Not 252 bytes.
    #[error("proof is not {PROOF_LENGTH} bytes")]
    Length,
    /// A public key is not on the curve.
    #[error("proof holds a malformed key")]
    Key,
    /// No signature in a signature field, or it does not verify.
    #[error("nick signature: {0}")]
    NickSignature(#[source] SignatureError),
    /// As above, for the certificate.
    #[error("certificate signature: {0}")]
    CertSignature(#[source] SignatureError),
    /// The certificate has expired at this height.
    #[error("certificate expired at height {expired_after}")]
    Expired {
        /// Last height at which it was valid.
        expired_after: u32,
    },
}

/// A certificate key signed by the key of the bonded coin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER signature by the coin's key.
    signature: Vec<u8>,
    /// The certificate key.
    key: PublicKey,
    /// Valid up to and including height `expiry * 2016`.
    expiry: u16,
}

impl Certificate {
    /// Signs a certificate with the coin's key. RFC 6979: the same inputs give the same certificate.
    #[must_use]
    pub fn sign(coin_key: &SecretKey, cert_key: &PublicKey, expiry: u16) -> Self {
        let signature = signature::sign_der(&binary_message(cert_key, expiry), coin_key);
        Self { signature, key: *cert_key, expiry }
    }

    /// Period that a maker chooses at a height: `(height + 2) / 2016 + 1`, `None` beyond 16 bits.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "checked before, then a division")]
    pub fn expiry_at(height: u32) -> Option<u16> {
        u16::try_from(height.checked_add(2)? / CERT_PERIOD + 1).ok()
    }

    /// Number of the 2016-block period at whose start it expires.
    #[must_use]
    pub const fn expiry(&self) -> u16 {
        self.expiry
    }
}

/// A proof whose signatures were verified for one pair of nicks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BondProof {
    /// The bonded coin, to be looked up.
    pub outpoint: OutPoint,
    /// Lock time, seconds since epoch.
    pub locktime: u32,
    /// Key of the coin.
    pub coin_key: PublicKey,
    /// Certificate key.
    pub cert_key: PublicKey,
    /// Certificate period.
    pub cert_expiry: u16,
}

impl BondProof {
    /// Makes the text of a proof for one taker.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "lengths of a fixed layout")]
    pub fn create(
        maker: &Nick,
        taker: &Nick,
        certificate: &Certificate,
        cert_key: &SecretKey,
        coin_key: &PublicKey,
        outpoint: &OutPoint,
        locktime: u32,
    ) -> String {
        let nick_signature = signature::sign_der(&nick_message(taker, maker), cert_key);
        let mut bytes = Vec::with_capacity(PROOF_LENGTH);
        for der in [&nick_signature, &certificate.signature] {
            // DER signatures with low S have at most 72 bytes.
            bytes.resize(bytes.len() + MAX_DER.saturating_sub(der.len()), PADDING);
            bytes.extend_from_slice(der);
        }
        bytes.extend_from_slice(&certificate.key.serialize());
        bytes.extend_from_slice(&certificate.expiry.to_le_bytes());
        bytes.extend_from_slice(&coin_key.serialize());
        let mut txid = outpoint.txid.to_byte_array();
        txid.reverse();
        bytes.extend_from_slice(&txid);
        bytes.extend_from_slice(&outpoint.vout.to_le_bytes());
        bytes.extend_from_slice(&locktime.to_le_bytes());
        STANDARD.encode(bytes)
    }

    /// Decodes a proof and verifies both signatures for this pair of nicks.
    ///
    /// # Errors
    /// [`BondProofError`].
    pub fn verify(text: &str, maker: &Nick, taker: &Nick) -> Result<Self, BondProofError> {
        if text.len() > PROOF_TEXT + 4 {
            return Err(BondProofError::Length);
        }
        let bytes = STANDARD.decode(text).map_err(|_| BondProofError::Base64)?;
        let bytes: [u8; PROOF_LENGTH] = bytes.try_into().map_err(|_| BondProofError::Length)?;
        let mut rest: &[u8] = &bytes;
        let nick_signature: [u8; MAX_DER] = take(&mut rest);
        let cert_signature: [u8; MAX_DER] = take(&mut rest);
        let cert_key: [u8; 33] = take(&mut rest);
        let cert_expiry = u16::from_le_bytes(take(&mut rest));
        let coin_key: [u8; 33] = take(&mut rest);
        let mut txid: [u8; 32] = take(&mut rest);
        txid.reverse();
        let vout = u32::from_le_bytes(take(&mut rest));
        let locktime = u32::from_le_bytes(take(&mut rest));

        let key = |bytes: &[u8]| PublicKey::from_slice(bytes).map_err(|_| BondProofError::Key);
        let (cert_key, coin_key) = (key(&cert_key)?, key(&coin_key)?);
        unpad(&nick_signature)
            .and_then(|der| signature::verify_der(&nick_message(taker, maker), der, &cert_key))
            .map_err(BondProofError::NickSignature)?;
        // Signers that can only sign text use the hex of the key.
        unpad(&cert_signature)
            .and_then(|der| {
                signature::verify_der(&binary_message(&cert_key, cert_expiry), der, &coin_key)
                    .or_else(|_| {
                        let message = text_message(&cert_key, cert_expiry);
                        signature::verify_der(&message, der, &coin_key)
                    })
            })
            .map_err(BondProofError::CertSignature)?;
        let outpoint = OutPoint { txid: Txid::from_byte_array(txid), vout };
        Ok(Self { outpoint, locktime, coin_key, cert_key, cert_expiry })
    }

    /// Checks the certificate against the tip: valid up to and including `expiry * 2016`.
    ///
    /// # Errors
    /// [`BondProofError::Expired`].
    pub fn check_expiry(&self, height: u32) -> Result<(), BondProofError> {
        // 65535 * 2016 fits 32 bits.
        let expired_after = u32::from(self.cert_expiry) * CERT_PERIOD;
        if height > expired_after {
            return Err(BondProofError::Expired { expired_after });
        }
        Ok(())
    }

    /// The script that the coin must pay.
    #[must_use]
    pub fn script_pubkey(&self) -> ScriptBuf {
        fidelity_bond::script_pubkey(self.locktime, &self.coin_key)
    }
}

/// Splits a fixed field off; the caller's total is the sum of the fields.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    rest.split_first_chunk::<N>().map_or([0; N], |(field, after)| {
        *rest = after;
        *field
    })
}

fn unpad(field: &[u8]) -> Result<&[u8], SignatureError> {
    let start = field.iter().position(|byte| *byte == DER_HEADER).ok_or(SignatureError::Der)?;
    field.get(start..).ok_or(SignatureError::Der)
}

fn nick_message(taker: &Nick, maker: &Nick) -> Vec<u8> {
    format!("{taker}|{maker}").into_bytes()
}

fn binary_message(cert_key: &PublicKey, expiry: u16) -> Vec<u8> {
    [CERT_PREFIX, &cert_key.serialize(), b"|", expiry.to_string().as_bytes()].concat()
}

fn text_message(cert_key: &PublicKey, expiry: u16) -> Vec<u8> {
    [CERT_PREFIX, cert_key.to_string().as_bytes(), b"|", expiry.to_string().as_bytes()].concat()
}

/// A fresh certificate key pair from 32 random bytes that the caller drew.
#[must_use]
pub fn cert_key(secret: SecretKey) -> (SecretKey, PublicKey) {
    (secret, secret.public_key(secp()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BondProof, Certificate};

    #[test]
    fn cert_expiry_boundary() {
        assert_eq!(Certificate::expiry_at(836_637), Some(415));
        assert_eq!(Certificate::expiry_at(836_638), Some(416));
        assert_eq!(Certificate::expiry_at(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn verifying_never_panics(bytes in proptest::collection::vec(any::<u8>(), 250..255), text in ".{0,400}") {
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            let nick = "J5CdDnhVDhc5R7Gg".parse().unwrap();
            prop_assert!(BondProof::verify(&encoded, &nick, &nick).is_err());
            prop_assert!(BondProof::verify(&text, &nick, &nick).is_err());
        }
    }
}
