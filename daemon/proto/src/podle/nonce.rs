//! Deterministic nonces (`spec/protocol.md` 9.3): RFC 6979 section 3.2 with HMAC-SHA256.
//!
//! libsecp256k1 has the same generator inside its signing functions but does not give the nonce out.

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bdk_wallet::bitcoin::secp256k1::{PublicKey, SecretKey};
use zeroize::Zeroize;

/// Domain separation of joinmarket-ng.
const TAG: &[u8] = b"JoinMarket/PoDLE/nonce/v1";

/// The hash that the nonce is bound to: coin, index and both points.
pub(super) fn message_hash(utxo: &str, index: u8, p: &PublicKey, p2: &PublicKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(TAG);
    // The text is `txid:vout`, at most 75 bytes.
    engine.input(&u32::try_from(utxo.len()).unwrap_or(u32::MAX).to_be_bytes());
    engine.input(utxo.as_bytes());
    engine.input(&[index]);
    engine.input(&p.serialize());
    engine.input(&p2.serialize());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// The sequence of nonce candidates of RFC 6979.
pub(super) struct Candidates {
    k: [u8; 32],
    v: [u8; 32],
}

impl Drop for Candidates {
    fn drop(&mut self) {
        self.k.zeroize();
        self.v.zeroize();
    }
}

impl Candidates {
    /// Steps b to g.
    pub(super) fn new(key: &SecretKey, message: &[u8; 32]) -> Self {
        let mut this = Self { k: [0x00; 32], v: [0x01; 32] };
        let mut secret = key.secret_bytes();
        // bits2octets reduces the hash modulo the order; a hash above it has a probability of 2^-128,
        // and reducing it is what the standard asks for.
        let mut message = super::reduce(*message).map_or([0; 32], |hash| hash.secret_bytes());
        for separator in [0x00, 0x01] {
            this.k = hmac(&this.k, &[&this.v, &[separator], &secret, &message]);
            this.v = hmac(&this.k, &[&this.v]);
        }
        secret.zeroize();
        message.zeroize();
        this
    }

    /// Step h: the next value in `1..n`.
    pub(super) fn next_scalar(&mut self) -> SecretKey {
        loop {
            self.v = hmac(&self.k, &[&self.v]);
            let candidate = SecretKey::from_slice(&self.v);
            // Prepare the value after this one now: it is only drawn if this one does not serve.
            let v = self.v;
            self.k = hmac(&self.k, &[&v, &[0x00]]);
            self.v = hmac(&self.k, &[&v]);
            if let Ok(scalar) = candidate {
                return scalar;
            }
        }
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    for part in parts {
        engine.input(part);
    }
    Hmac::<sha256::Hash>::from_engine(engine).to_byte_array()
}
