//! A chain in memory: coins, a mempool that refuses what a node would refuse, blocks.

use std::collections::{BTreeMap, BTreeSet};

use joinery_proto::bitcoin::hashes::{Hash, sha256};
use joinery_proto::bitcoin::secp256k1::{Message, PublicKey, ecdsa};
use joinery_proto::bitcoin::sighash::SighashCache;
use joinery_proto::bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_proto::transaction::signing::p2wpkh;
use joinery_proto::transaction::taker::ForeignCoin;

#[derive(Debug, Clone)]
pub(crate) struct ChainCoin {
    pub(crate) value: u64,
    pub(crate) script: ScriptBuf,
    pub(crate) height: Option<u32>,
    pub(crate) spent_by: Option<Txid>,
}

#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) height: u32,
    pub(crate) coins: BTreeMap<OutPoint, ChainCoin>,
    pub(crate) transactions: BTreeMap<Txid, Transaction>,
    funded: u64,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { height: 1_000, ..Self::default() }
    }

    /// A coin out of nothing; 0 confirmations: in the mempool.
    pub(crate) fn fund(&mut self, script: ScriptBuf, value: u64, confirmations: u32) -> OutPoint {
        self.funded += 1;
        let txid =
            Txid::from_byte_array(sha256::Hash::hash(&self.funded.to_be_bytes()).to_byte_array());
        let outpoint = OutPoint { txid, vout: 0 };
        let height = (confirmations > 0).then(|| self.height + 1 - confirmations);
        self.coins.insert(outpoint, ChainCoin { value, script, height, spent_by: None });
        outpoint
    }

    pub(crate) fn confirmations(&self, coin: &ChainCoin) -> u32 {
        coin.height.map_or(0, |height| self.height + 1 - height)
    }

    /// What a server says of a coin: nothing when it is spent, also in the mempool.
    pub(crate) fn look_up(&self, outpoint: &OutPoint) -> Option<ForeignCoin> {
        let coin = self.coins.get(outpoint).filter(|coin| coin.spent_by.is_none())?;
        Some(ForeignCoin {
            outpoint: *outpoint,
            value: coin.value,
            script: coin.script.clone(),
            confirmations: self.confirmations(coin),
        })
    }

    /// A node's answer to a transaction.
    pub(crate) fn send(&mut self, tx: &Transaction) -> Result<(), String> {
        let txid = tx.compute_txid();
        if self.transactions.contains_key(&txid) {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let mut inputs = 0;
        let mut cache = SighashCache::new(tx);
        for (index, input) in tx.input.iter().enumerate() {
            let outpoint = input.previous_output;
            let coin = self.coins.get(&outpoint).ok_or("missing inputs")?;
            if coin.spent_by.is_some() || !seen.insert(outpoint) {
                return Err("txn-mempool-conflict".to_owned());
            }
            let [signature, key] = [0, 1].map(|place| input.witness.nth(place).unwrap_or_default());
            let key = PublicKey::from_slice(key).map_err(|_| "bad witness")?;
            let (kind, der) = signature.split_last().ok_or("no signature")?;
            let digest = cache
                .p2wpkh_signature_hash(
                    index,
                    &coin.script,
                    Amount::from_sat(coin.value),
                    EcdsaSighashType::All,
                )
                .map_err(|error| error.to_string())?;
            let digest = Message::from_digest(digest.to_byte_array());
            let parsed = ecdsa::Signature::from_der(der).map_err(|_| "bad signature")?;
            let good = *kind == 1
                && p2wpkh(&key) == coin.script
                && joinery_proto::secp().verify_ecdsa(&digest, &parsed, &key).is_ok();
            if !good {
                return Err("mandatory-script-verify-flag-failed".to_owned());
            }
            inputs += coin.value;
        }
        let outputs: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let fee = inputs.checked_sub(outputs).ok_or("bad-txns-in-belowout")?;
        if fee < tx.vsize() as u64 {
            return Err("min relay fee not met".to_owned());
        }
        if tx.lock_time.to_consensus_u32() > self.height {
            return Err("non-final".to_owned());
        }
        self.spend(tx);
        Ok(())
    }

    /// Enters a transaction without looking at it.
    fn spend(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for input in &tx.input {
            self.coins.get_mut(&input.previous_output).unwrap().spent_by = Some(txid);
        }
        for (vout, output) in (0..).zip(&tx.output) {
            let coin = ChainCoin {
                value: output.value.to_sat(),
                script: output.script_pubkey.clone(),
                height: None,
                spent_by: None,
            };
            self.coins.insert(OutPoint { txid, vout }, coin);
        }
        self.transactions.insert(txid, tx.clone());
    }

    /// Somebody spends a coin elsewhere.
    pub(crate) fn steal(&mut self, outpoint: &OutPoint) {
        if let Some(coin) = self.coins.get_mut(outpoint) {
            coin.spent_by.get_or_insert_with(Txid::all_zeros);
        }
    }

    /// What all unspent coins of these scripts are worth.
    pub(crate) fn balance(&self, owns: impl Fn(&ScriptBuf) -> bool) -> u64 {
        let coins =
            self.coins.values().filter(|coin| coin.spent_by.is_none() && owns(&coin.script));
        coins.map(|coin| coin.value).sum()
    }
}
