//! Coins with a key, so that tests can make transactions of their own on the real chain.

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bdk_wallet::bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    ecdsa,
};

/// A key that everybody knows.
pub struct Keyed {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
}

impl Keyed {
    pub fn new() -> Self {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[0x42; 32]).unwrap();
        let public = CompressedPublicKey(secret.public_key(&secp));
        Self { secp, secret, public }
    }

    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Spends a coin of this key to one output, signalling that it may be replaced.
    pub fn spend(
        &self,
        coin: OutPoint,
        worth: Amount,
        to: ScriptBuf,
        value: Amount,
    ) -> Transaction {
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value, script_pubkey: to }],
        };
        let sighash_type = EcdsaSighashType::All;
        let digest = SighashCache::new(&tx)
            .p2wpkh_signature_hash(0, &self.script(), worth, sighash_type)
            .unwrap();
        let message = Message::from_digest(digest.to_byte_array());
        let signature = self.secp.sign_ecdsa(&message, &self.secret);
        tx.input[0].witness =
            Witness::p2wpkh(&ecdsa::Signature { signature, sighash_type }, &self.public.0);
        tx
    }
}
