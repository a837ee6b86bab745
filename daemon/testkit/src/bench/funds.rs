//! The coins that the bench gives away.
//!
//! bitcoind is built without a wallet, so blocks pay a key that everybody knows and payments are signed here.
//! What is spendable is asked of bitcoind each time: reorganisations, other processes and restarts need no
//! bookkeeping then. Only our own unconfirmed change is remembered, and checked before use.

use std::collections::VecDeque;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bdk_wallet::bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Address, Amount, CompressedPublicKey, KnownHrp, OutPoint, Script, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Witness, ecdsa,
};
use serde_json::{Value, json};

use super::Chain;

/// Blocks on top of a coinbase before it can be spent.
const MATURITY: u64 = 100;
/// Outputs of one transaction; with P2WPKH outputs about 78 kvB, below the relay limit of 100 kvB.
const OUTPUTS_AT_ONCE: usize = 2_500;
/// Fee rate of payments, satoshi per virtual byte.
const FEE_RATE: u64 = 5;
/// Below this change is left to the miner; the dust limit of P2WPKH is 294.
const SMALLEST_CHANGE: Amount = Amount::from_sat(1_000);

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coin {
    /// Which output it is.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub amount: Amount,
    /// Height of the block that it is in; `None` for one in the mempool.
    pub height: Option<u64>,
    /// Whether it is a block reward, which cannot be spent for a hundred blocks.
    pub coinbase: bool,
}

/// The P2WPKH regtest address that blocks of the bench pay when no other is named. Its key is the SHA-256 of a
/// text in this file: worthless by design.
#[must_use]
pub fn funds_address() -> Address {
    Address::p2wpkh(&keys().1, KnownHrp::Regtest)
}

fn keys() -> &'static (SecretKey, CompressedPublicKey) {
    static KEYS: OnceLock<(SecretKey, CompressedPublicKey)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let secret = sha256::Hash::hash(b"joinery regtest funds").to_byte_array();
        let secret =
            SecretKey::from_slice(&secret).expect("this hash is a valid key, tested below");
        (secret, CompressedPublicKey(secret.public_key(secp())))
    })
}

fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// Change of payments that may not be confirmed yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Funds {
    change: VecDeque<Coin>,
}

impl Funds {
    /// Pays `outputs` in order, with as few transactions as relay limits allow.
    pub(super) fn pay(
        &mut self,
        chain: &Chain,
        outputs: &[(ScriptBuf, Amount)],
    ) -> Result<Vec<OutPoint>> {
        let mut coins = self.spendable(chain)?;
        let mut paid = Vec::with_capacity(outputs.len());
        for outputs in outputs.chunks(OUTPUTS_AT_ONCE) {
            let (transaction, change) = payment(&mut coins, outputs)?;
            let txid = chain.submit(&transaction)?;
            self.change.extend(change);
            for index in 0..outputs.len() {
                paid.push(OutPoint::new(txid, u32::try_from(index)?));
            }
        }
        Ok(paid)
    }

    /// Confirmed coins, the largest first, then unconfirmed change, the oldest first: each payment of a series
    /// without a block in between spends another coin as long as there is one, because chains of unconfirmed
    /// transactions have a relay limit of 25.
    fn spendable(&mut self, chain: &Chain) -> Result<VecDeque<Coin>> {
        let height = chain.height()?;
        let mut confirmed = scan(chain, &funds_address().script_pubkey())?;
        confirmed.retain(|coin| {
            let depth = coin.height.map_or(0, |at| height + 1 - at.min(height));
            !coin.coinbase || depth > MATURITY
        });
        let asked: Vec<Value> = confirmed
            .iter()
            .map(|coin| json!({"txid": coin.outpoint.txid, "vout": coin.outpoint.vout}))
            .collect();
        if !asked.is_empty() {
            let answer = chain.rpc("gettxspendingprevout", &json!([asked]))?;
            let mut spent = answer
                .as_array()
                .context("one answer for each coin")?
                .iter()
                .map(|entry| entry.get("spendingtxid").is_some());
            confirmed.retain(|_| !spent.next().unwrap_or(true));
        }
        confirmed.sort_by_key(|coin| (std::cmp::Reverse(coin.amount), coin.height, coin.outpoint));
        let mut unspent = VecDeque::new();
        for coin in self.change.drain(..) {
            if confirmed.iter().any(|known| known.outpoint == coin.outpoint) {
                continue;
            }
            let OutPoint { txid, vout } = coin.outpoint;
            if !chain.rpc("gettxout", &json!([txid, vout, true]))?.is_null() {
                unspent.push_back(coin);
            }
        }
        self.change.clone_from(&unspent);
        Ok(confirmed.into_iter().chain(unspent).collect())
    }
}

/// Unspent confirmed outputs of a script. bitcoind allows one such scan at a time; callers hold a lock.
pub(super) fn scan(chain: &Chain, script: &Script) -> Result<Vec<Coin>> {
    let descriptor = format!("raw({})", script.to_hex_string());
    let answer = chain.rpc("scantxoutset", &json!(["start", [descriptor]]))?;
    let list = answer.get("unspents").and_then(Value::as_array).context("a scan finds a list")?;
    list.iter().map(|entry| parse_coin(entry).context("a coin without all its fields")).collect()
}

fn parse_coin(entry: &Value) -> Option<Coin> {
    Some(Coin {
        outpoint: OutPoint::new(
            entry.get("txid")?.as_str()?.parse().ok()?,
            entry.get("vout")?.as_u64()?.try_into().ok()?,
        ),
        // Bitcoin Core prints eight decimals, which this conversion reads back exactly.
        amount: Amount::from_btc(entry.get("amount")?.as_f64()?).ok()?,
        height: Some(entry.get("height")?.as_u64()?),
        coinbase: entry.get("coinbase")?.as_bool()?,
    })
}

/// Takes coins off the front until they suffice; returns the signed transaction and its change.
fn payment(
    coins: &mut VecDeque<Coin>,
    outputs: &[(ScriptBuf, Amount)],
) -> Result<(Transaction, Option<Coin>)> {
    let wanted = outputs
        .iter()
        .try_fold(Amount::ZERO, |sum, (_, amount)| sum.checked_add(*amount))
        .context("the amounts add up to more than can exist")?;
    let mut output: Vec<TxOut> = outputs
        .iter()
        .map(|(script, value)| TxOut { script_pubkey: script.clone(), value: *value })
        .collect();
    let own = funds_address().script_pubkey();
    output.push(TxOut { script_pubkey: own.clone(), value: Amount::ZERO });
    let mut transaction =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output };
    let mut taken: Vec<Coin> = Vec::new();
    let mut sum = Amount::ZERO;
    let rest = loop {
        // 107 weight units: one signature of at most 72 bytes, one public key, their lengths; 2: segwit marker.
        let weight = transaction.weight().to_wu() + 109 * u64::try_from(taken.len())? + 2;
        let needed = wanted + Amount::from_sat(weight.div_ceil(4) * FEE_RATE);
        if !taken.is_empty()
            && let Some(rest) = sum.checked_sub(needed)
        {
            break rest;
        }
        let Some(coin) = coins.pop_front() else {
            bail!(
                "the bench has {sum} in {} spendable coins, {needed} are needed: mine more blocks",
                taken.len()
            );
        };
        sum += coin.amount;
        taken.push(coin);
        transaction.input.push(TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        });
    };
    let last = transaction.output.len() - 1;
    let keeps_change = rest >= SMALLEST_CHANGE;
    if keeps_change && let Some(change) = transaction.output.last_mut() {
        change.value = rest;
    } else {
        transaction.output.pop();
    }
    sign(&mut transaction, &taken, &own)?;
    let change = keeps_change.then_some(Coin {
        outpoint: OutPoint::new(transaction.compute_txid(), u32::try_from(last)?),
        amount: rest,
        height: None,
        coinbase: false,
    });
    if let Some(change) = change {
        coins.push_back(change);
    }
    Ok((transaction, change))
}

fn sign(transaction: &mut Transaction, taken: &[Coin], own: &Script) -> Result<()> {
    let (secret, public) = keys();
    let mut cache = SighashCache::new(&mut *transaction);
    for (index, coin) in taken.iter().enumerate() {
        let sighash_type = EcdsaSighashType::All;
        let digest = cache.p2wpkh_signature_hash(index, own, coin.amount, sighash_type)?;
        let signature = secp().sign_ecdsa(&Message::from_digest(digest.to_byte_array()), secret);
        let witness = cache.witness_mut(index).context("each coin has its input")?;
        *witness = Witness::p2wpkh(&ecdsa::Signature { signature, sighash_type }, &public.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coin(sats: u64) -> Coin {
        let outpoint = OutPoint { txid: Hash::all_zeros(), vout: u32::try_from(sats).unwrap() };
        Coin { outpoint, amount: Amount::from_sat(sats), height: Some(1), coinbase: false }
    }

    #[test]
    fn funds_key_is_valid_and_regtest() {
        assert!(funds_address().to_string().starts_with("bcrt1q"));
    }

    #[test]
    fn payment_conserves_value_at_the_intended_fee_rate() {
        let mut coins: VecDeque<Coin> = [coin(60_000), coin(60_000), coin(60_000)].into();
        let script = funds_address().script_pubkey();
        let (transaction, change) =
            payment(&mut coins, &[(script, Amount::from_sat(100_000))]).unwrap();
        assert_eq!(transaction.input.len(), 2);
        let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
        let fee = 120_000 - paid.to_sat();
        let size = u64::try_from(transaction.vsize()).unwrap();
        assert!((size * FEE_RATE..=(size + 4) * FEE_RATE).contains(&fee), "{fee} for {size} vB");
        let change = change.unwrap();
        assert_eq!(change.outpoint, OutPoint::new(transaction.compute_txid(), 1));
        assert_eq!(coins, [coin(60_000), change]);
    }

    #[test]
    fn payment_refuses_when_coins_do_not_suffice() {
        let mut coins: VecDeque<Coin> = [coin(60_000)].into();
        let script = funds_address().script_pubkey();
        let error = payment(&mut coins, &[(script, Amount::from_sat(60_000))]).unwrap_err();
        assert!(error.to_string().contains("mine more blocks"), "{error}");
    }
}
