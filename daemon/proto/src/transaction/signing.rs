//! Signing own inputs and putting foreign signatures in (`spec/protocol.md` 11.5).
//!
//! Only P2WPKH: the coins of every native segwit JoinMarket wallet. A coin with its key is an [`OwnCoin`]; a maker's
//! conversation knows a [`LentCoin`], which has none.

use std::collections::HashMap;

use bdk_wallet::bitcoin::key::CompressedPublicKey;
use bdk_wallet::bitcoin::secp256k1::{Message, PublicKey, SecretKey, ecdsa};
use bdk_wallet::bitcoin::sighash::SighashCache;
use bdk_wallet::bitcoin::{
    Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction, Witness, hashes::Hash,
};

use crate::message::InputSignature;
use crate::nacl_box::NaclPublicKey;
use crate::{secp, signature};

/// A coin of ours with its key. The key is erased when this is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Satoshi; from our own wallet, never from a counterparty.
    pub value: u64,
    key: SecretKey,
    script: ScriptBuf,
}

impl std::fmt::Debug for OwnCoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnCoin")
            .field("outpoint", &self.outpoint)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

impl Drop for OwnCoin {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl OwnCoin {
    /// A P2WPKH coin of this key.
    #[must_use]
    pub fn new(outpoint: OutPoint, value: u64, key: SecretKey) -> Self {
        let script = p2wpkh(&key.public_key(secp()));
        Self { outpoint, value, key, script }
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key(secp())
    }

    /// Its scriptPubKey.
    #[must_use]
    pub const fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// Its key, to make a commitment.
    #[must_use]
    pub const fn secret_key(&self) -> &SecretKey {
        &self.key
    }

    /// The coin without its key.
    #[must_use]
    pub fn lent(&self) -> LentCoin {
        LentCoin { outpoint: self.outpoint, value: self.value, script: self.script.clone() }
    }

    /// Proves that the owner of this coin speaks with this session key: the `btc_sig` of an `!ioauth`.
    ///
    /// # Security
    /// What is signed is the "Bitcoin Signed Message" digest of 64 hex digits, which is no digest of a transaction:
    /// nothing can be spent with it, whatever the key is.
    #[must_use]
    pub fn authorise(&self, session: &NaclPublicKey) -> Authorisation {
        let signature = signature::sign(session.to_string().as_bytes(), &self.key);
        Authorisation { key: self.public_key(), signature }
    }
}

/// A coin that a maker lends, as its conversation knows it: everything but the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Satoshi; from our own wallet, never from a counterparty.
    pub value: u64,
    /// Its scriptPubKey, P2WPKH.
    pub script: ScriptBuf,
}

/// What an `!ioauth` proves with: made by [`OwnCoin::authorise`], where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorisation {
    /// Key of one of the coins.
    pub key: PublicKey,
    /// Base64 of a DER signature over the session key as 64 hex digits.
    pub signature: String,
}

/// P2WPKH of a key.
#[must_use]
pub fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())
}

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// A coin of ours is not an input.
    #[error("coin {0} is not an input of the transaction")]
    NotAnInput(OutPoint),
    /// The key of a coin is not there, or what is there belongs to a coin of another value or script.
    #[error("there is no key for coin {0}")]
    NoKey(OutPoint),
    /// The digest cannot be computed.
    #[error("signature digest of input {0} cannot be computed")]
    Digest(usize),
}

/// Signs the inputs that spend these coins with SIGHASH_ALL; in the order of the inputs.
pub(super) fn sign_own_inputs<'a>(
    tx: &Transaction,
    coins: impl IntoIterator<Item = &'a OwnCoin>,
) -> Result<Vec<InputSignature>, SigningError> {
    let mut by_outpoint: HashMap<OutPoint, &OwnCoin> =
        coins.into_iter().map(|coin| (coin.outpoint, coin)).collect();
    let mut cache = SighashCache::new(tx);
    let mut signatures = Vec::with_capacity(by_outpoint.len());
    for (index, input) in tx.input.iter().enumerate() {
        let Some(coin) = by_outpoint.remove(&input.previous_output) else { continue };
        let digest = digest(&mut cache, index, &coin.script, coin.value)?;
        let mut signature = secp().sign_ecdsa(&digest, &coin.key).serialize_der().to_vec();
        signature.push(0x01);
        signatures.push(InputSignature { signature, key: coin.public_key() });
    }
    by_outpoint
        .keys()
        .next()
        .map_or(Ok(signatures), |missing| Err(SigningError::NotAnInput(*missing)))
}

/// The BIP143 digest of a P2WPKH input.
pub(super) fn digest(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    script: &ScriptBuf,
    value: u64,
) -> Result<Message, SigningError> {
    cache
        .p2wpkh_signature_hash(index, script, Amount::from_sat(value), EcdsaSighashType::All)
        .map(|hash| Message::from_digest(hash.to_byte_array()))
        .map_err(|_| SigningError::Digest(index))
}

/// Whether a signature with its sighash byte is good for a digest.
pub(super) fn is_valid(digest: &Message, signature: &InputSignature) -> bool {
    let Some((0x01, der)) = signature.signature.split_last().map(|(last, der)| (*last, der)) else {
        return false;
    };
    // A high-S signature would make the transaction non-standard.
    ecdsa::Signature::from_der(der)
        .is_ok_and(|parsed| secp().verify_ecdsa(digest, &parsed, &signature.key).is_ok())
}

/// The witness of a P2WPKH input.
pub(super) fn witness(signature: &InputSignature) -> Witness {
    let mut witness = Witness::new();
    witness.push(&signature.signature);
    witness.push(signature.key.serialize());
    witness
}
