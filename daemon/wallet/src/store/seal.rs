//! Encryption of everything the store writes (`spec/wallet.md` 13.4).
//!
//! Two keys are derived from the wallet's 32-byte data key `dek` with HKDF-SHA256: `k_data` seals values
//! with XChaCha20-Poly1305 under random 24-byte nonces, `k_name` turns names that would reveal something
//! (outpoints, addresses, scripts) into 16-byte HMAC-SHA256 keys. A value is bound to its place: tree, key
//! and schema version are the associated data, so a value that is moved elsewhere does not open.

use std::fmt;

use chacha20poly1305::aead::Aead;
use chacha20poly1305::aead::Payload;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Version of the layout of all stored values; part of the associated data.
pub(super) const SCHEMA: u8 = 1;
/// Bytes of the random nonce in front of each sealed value.
const NONCE: usize = 24;
/// How much longer a sealed value is than its plaintext: nonce and Poly1305 tag.
pub(super) const OVERHEAD: usize = NONCE + 16;

/// The operating system gave no randomness, or a plaintext is beyond the cipher's limit of 256 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot encrypt: no randomness")]
pub(super) struct SealError;

impl From<SealError> for std::io::Error {
    fn from(error: SealError) -> Self {
        Self::other(error)
    }
}

/// The keys of one wallet's store. Zeroised on drop.
pub(super) struct Keys {
    data: XChaCha20Poly1305,
    name: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Derives both keys from the data key of the wallet file.
    pub(super) fn derive(dek: &[u8; 32]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, dek);
        let mut data = Zeroizing::new([0u8; 32]);
        let mut name = Zeroizing::new([0u8; 32]);
        hkdf.expand(b"joinery store k_data", data.as_mut()).expect("32 bytes is a valid length");
        hkdf.expand(b"joinery store k_name", name.as_mut()).expect("32 bytes is a valid length");
        Self { data: XChaCha20Poly1305::new((&*data).into()), name }
    }

    /// Encrypts `plain` for one place: `nonce(24) || ciphertext || tag(16)`.
    pub(super) fn seal(&self, tree: &str, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError)?;
        let aad = associated_data(tree, key);
        let sealed = self
            .data
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &aad })
            .map_err(|_| SealError)?;
        let mut out = Vec::with_capacity(NONCE + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts what [`Keys::seal`] made for the same place; `None` when it was not made there with
    /// these keys or was changed since.
    pub(super) fn open(&self, tree: &str, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE)?;
        let aad = associated_data(tree, key);
        self.data.decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad: &aad }).ok()
    }

    /// The key under which something named `name` is stored in `tree`.
    pub(super) fn hide(&self, tree: &str, name: &[u8]) -> [u8; 16] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&*self.name).expect("HMAC takes any key length");
        mac.update(&associated_data(tree, name));
        let mut out = [0u8; 16];
        out.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        out
    }

    /// Whether `check` is [`Keys::hide`] of this text; constant time.
    pub(super) fn hidden_matches(&self, tree: &str, name: &[u8], check: &[u8]) -> bool {
        self.hide(tree, name).ct_eq(check).into()
    }
}

/// Length-prefixed tree, key length, key, schema version: no two places give the same bytes.
fn associated_data(tree: &str, key: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(tree.len() + key.len() + 17);
    aad.extend_from_slice(&(tree.len() as u64).to_be_bytes());
    aad.extend_from_slice(tree.as_bytes());
    aad.extend_from_slice(&(key.len() as u64).to_be_bytes());
    aad.extend_from_slice(key);
    aad.push(SCHEMA);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_in_its_own_place_with_its_own_key() {
        let keys = Keys::derive(&[7; 32]);
        let sealed = keys.seal("label", b"k", b"text").expect("randomness");
        assert_eq!(sealed.len(), 4 + OVERHEAD);
        assert_eq!(keys.open("label", b"k", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(keys.open("labe", b"lk", &sealed), None);
        assert_eq!(keys.open("label", b"K", &sealed), None);
        assert_eq!(Keys::derive(&[8; 32]).open("label", b"k", &sealed), None);
    }

    #[test]
    fn any_changed_byte_and_any_truncation_is_refused() {
        let keys = Keys::derive(&[7; 32]);
        let sealed = keys.seal("t", b"k", b"some plaintext").expect("randomness");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(keys.open("t", b"k", &changed), None, "byte {at}");
            assert_eq!(keys.open("t", b"k", &sealed[..at]), None, "length {at}");
        }
    }

    #[test]
    fn derivation_is_frozen() {
        // A change here would make every existing store unreadable. Value computed with Python's hmac.
        assert_eq!(
            hex::encode(Keys::derive(&[1; 32]).hide("facts", b"abc")),
            "3c5c7740ccac9cf3fb4d1449cd9882ae"
        );
    }
}
