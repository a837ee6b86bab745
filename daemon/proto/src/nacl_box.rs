//! Encryption of `auth`, `ioauth`, `tx` and `sig` (`spec/protocol.md` 8, vector `naclbox.json`).
//!
//! NaCl `crypto_box`: X25519, HSalsa20, XSalsa20-Poly1305. The wire form is standard padded base64 of
//! nonce (24 bytes), tag (16 bytes), ciphertext.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a NaCl key, bytes.
pub const KEY_LENGTH: usize = 32;
/// Length of a nonce, bytes.
pub const NONCE_LENGTH: usize = 24;
/// Length of the authentication tag, bytes.
const TAG_LENGTH: usize = 16;
/// Longest ciphertext that is decoded, base64 characters: no line of the protocol is longer.
pub const MAX_SEALED: usize = 65_536;

/// A session's public NaCl key. The wire form is 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NaclPublicKey([u8; KEY_LENGTH]);

/// Why a key, box or message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NaclError {
    /// Not 64 hex digits.
    #[error("not a public key of 64 hex digits")]
    PublicKey,
    /// The shared secret is all zero: a low-order point, known to everybody.
    #[error("public key gives a known shared secret")]
    WeakKey,
    /// Not canonical base64, too short or too long.
    #[error("sealed message is malformed")]
    Malformed,
    /// Authentication failed.
    #[error("sealed message does not open")]
    Forged,
    /// The plaintext is not ASCII.
    #[error("opened message is not ASCII text")]
    NotText,
}

impl NaclPublicKey {
    /// From raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl std::str::FromStr for NaclPublicKey {
    type Err = NaclError;

    /// Upper-case hex is accepted, as reference peers do.
    fn from_str(text: &str) -> Result<Self, NaclError> {
        use bdk_wallet::bitcoin::hex::FromHex as _;
        <[u8; KEY_LENGTH]>::from_hex(text).map(Self).map_err(|_| NaclError::PublicKey)
    }
}

impl std::fmt::Display for NaclPublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A session's secret NaCl key; zeroised when dropped.
#[derive(Clone)]
pub struct NaclSecretKey(SecretKey);

impl std::fmt::Debug for NaclSecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NaclSecretKey")
    }
}

impl NaclSecretKey {
    /// From 32 random bytes, which the caller drew.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; KEY_LENGTH]) -> Self {
        let key = Self(SecretKey::from_bytes(bytes));
        bytes.zeroize();
        key
    }

    /// The matching public key.
    #[must_use]
    pub fn public_key(&self) -> NaclPublicKey {
        NaclPublicKey(*self.0.public_key().as_bytes())
    }

    /// The shared box with a peer.
    ///
    /// # Errors
    /// [`NaclError::WeakKey`] when the peer's key is a low-order point, for which the shared secret is
    /// zero whatever our key is.
    pub fn shared_with(&self, peer: &NaclPublicKey) -> Result<NaclBox, NaclError> {
        if is_low_order(&peer.0) {
            return Err(NaclError::WeakKey);
        }
        Ok(NaclBox(SalsaBox::new(&PublicKey::from_bytes(peer.0), &self.0)))
    }
}

/// Points of order 1, 2, 4 and 8 on curve25519 and its twist, with the non-canonical encodings: X25519
/// maps each of them to zero. (RFC 7748 section 6.1 asks for the check; the list is that of the small
/// subgroup, little-endian, the top bit ignored as X25519 does.)
const LOW_ORDER: [[u8; KEY_LENGTH]; 7] = {
    let zero = [0_u8; KEY_LENGTH];
    let mut one = zero;
    one[0] = 1;
    // p - 1, p, p + 1 with p = 2^255 - 19.
    let mut p_minus_1 = [0xff_u8; KEY_LENGTH];
    p_minus_1[0] = 0xec;
    p_minus_1[31] = 0x7f;
    let mut p = p_minus_1;
    p[0] = 0xed;
    let mut p_plus_1 = p_minus_1;
    p_plus_1[0] = 0xee;
    [
        zero,
        one,
        p_minus_1,
        p,
        p_plus_1,
        // The two x coordinates of order 8.
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
    ]
};

fn is_low_order(key: &[u8; KEY_LENGTH]) -> bool {
    let mut masked = *key;
    if let Some(last) = masked.last_mut() {
        *last &= 0x7f;
    }
    LOW_ORDER.contains(&masked)
}

/// The shared secret of one taker-maker pair; zeroised when dropped.
pub struct NaclBox(SalsaBox);

impl ZeroizeOnDrop for NaclBox {}

impl std::fmt::Debug for NaclBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NaclBox")
    }
}

impl NaclBox {
    /// Seals ASCII text for the wire. The nonce must be random and used once.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "lengths of two buffers in memory")]
    pub fn seal(&self, nonce: [u8; NONCE_LENGTH], plaintext: &str) -> String {
        // Encryption fails only beyond 2^38 bytes, which no caller has.
        let sealed = self.0.encrypt(&nonce.into(), plaintext.as_bytes()).unwrap_or_default();
        let mut wire = Vec::with_capacity(NONCE_LENGTH + sealed.len());
        wire.extend_from_slice(&nonce);
        wire.extend_from_slice(&sealed);
        STANDARD.encode(wire)
    }

    /// Opens a sealed message of the peer.
    ///
    /// # Errors
    /// Every failure is to be dropped silently by the protocol; the variants are for the log.
    pub fn open(&self, wire: &str) -> Result<String, NaclError> {
        if wire.len() > MAX_SEALED {
            return Err(NaclError::Malformed);
        }
        let bytes = STANDARD.decode(wire).map_err(|_| NaclError::Malformed)?;
        let (nonce, sealed) =
            bytes.split_first_chunk::<NONCE_LENGTH>().ok_or(NaclError::Malformed)?;
        if sealed.len() < TAG_LENGTH {
            return Err(NaclError::Malformed);
        }
        let plain = self.0.decrypt(&(*nonce).into(), sealed).map_err(|_| NaclError::Forged)?;
        if !plain.is_ascii() {
            return Err(NaclError::NotText);
        }
        String::from_utf8(plain).map_err(|_| NaclError::NotText)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LOW_ORDER, NaclError, NaclPublicKey, NaclSecretKey};

    #[test]
    fn low_order_keys_are_refused() {
        let secret = NaclSecretKey::from_bytes([7; 32]);
        for mut key in LOW_ORDER {
            let refused = secret.shared_with(&NaclPublicKey::from_bytes(key)).unwrap_err();
            assert_eq!(refused, NaclError::WeakKey);
            key[31] |= 0x80;
            assert!(secret.shared_with(&NaclPublicKey::from_bytes(key)).is_err());
        }
    }

    proptest! {
        #[test]
        fn sealed_text_opens(a in any::<[u8; 32]>(), b in any::<[u8; 32]>(),
                             nonce in any::<[u8; 24]>(), text in "[ -~]{0,300}") {
            let (a, b) = (NaclSecretKey::from_bytes(a), NaclSecretKey::from_bytes(b));
            let sealed = a.shared_with(&b.public_key()).unwrap().seal(nonce, &text);
            let opened = b.shared_with(&a.public_key()).unwrap().open(&sealed).unwrap();
            prop_assert_eq!(opened, text);
        }

        #[test]
        fn opening_never_panics(wire in ".{0,200}") {
            let secret = NaclSecretKey::from_bytes([1; 32]);
            let peer = NaclSecretKey::from_bytes([2; 32]).public_key();
            prop_assert!(secret.shared_with(&peer).unwrap().open(&wire).is_err());
        }
    }
}
