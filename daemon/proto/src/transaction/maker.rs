//! What a maker checks before it signs (`spec/protocol.md` 11.3, `spec/roles.md` 4.7).
//!
//! [`VerifiedTransaction`] can only be made by [`MakerShare::verify`], and only it can be signed: an unchecked
//! transaction cannot be. It is checked twice by this one rule: by the conversation, which has no keys, before it
//! bothers the chain with a transaction and to tell the taker; and where the keys are, against what was written down
//! there when the round was opened.

use std::collections::HashSet;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction};

use super::fees::Agreement;
use super::signing::{self, LentCoin, OwnCoin, SigningError};
use crate::message::InputSignature;

/// Lock times from here on are unix times.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// Blocks that a lock time may be ahead of our tip: the taker may have seen a block before us.
const LOCKTIME_SLACK: u32 = 2;
/// Largest transaction that is signed, weight units: 100 000 virtual bytes.
const MAX_WEIGHT: u64 = 400_000;

/// What this maker put into a session; fixed when `!ioauth` was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakerShare {
    /// What was agreed at the time of `!fill`, whatever is offered now.
    pub agreement: Agreement,
    /// The coins named in `!ioauth`; nothing else is ever signed.
    pub coins: Vec<LentCoin>,
    /// Script for the equal amount output.
    pub cj_script: ScriptBuf,
    /// Script for the change.
    pub change_script: ScriptBuf,
}

/// Why a transaction is not signed. The taker hears that, and not why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakerRefusal {
    /// Version other than 1, 2 or 3.
    #[error("transaction version {0}")]
    Version(i32),
    /// Larger than any coinjoin.
    #[error("transaction has {weight} weight units, more than {MAX_WEIGHT}")]
    TooLarge {
        /// Its weight.
        weight: u64,
    },
    /// Its outputs are worth more than all money.
    #[error("outputs are worth more than there is money")]
    Supply,
    /// It cannot be mined soon: a free option on our coins.
    #[error("lock time {locktime} is in the future")]
    LockTime {
        /// The raw lock time.
        locktime: u32,
    },
    /// An input is spent twice.
    #[error("input {0} occurs twice")]
    DuplicateInput(OutPoint),
    /// One of our coins is not an input.
    #[error("our coin {0} is not an input")]
    MissingInput(OutPoint),
    /// We would pay to take part.
    #[error("fee of {fee} does not cover our share of {tx_fee} of the miner fee")]
    NegativeEarning {
        /// Satoshi.
        fee: u64,
        /// Satoshi.
        tx_fee: u64,
    },
    /// Our inputs do not reach for amount and change.
    #[error("our inputs do not cover the amount")]
    InputsTooSmall,
    /// An output of ours is missing or occurs more than once.
    #[error("our {which} output occurs {count} times")]
    OutputCount {
        /// Which one.
        which: OwnOutput,
        /// How often.
        count: usize,
    },
    /// An output of ours is too small.
    #[error("our {which} output has {found}, less than {expected}")]
    OutputValue {
        /// Which one.
        which: OwnOutput,
        /// Satoshi.
        found: u64,
        /// Satoshi.
        expected: u64,
    },
    /// Both outputs go to one script: a mistake of ours.
    #[error("our two outputs have one script")]
    SameScript,
    /// A coin of ours that is not in the session is an input. Said by who knows the wallet.
    #[error("our coin {0} is an input and not part of the session")]
    OtherCoin(OutPoint),
    /// It spends more than its inputs are worth. Said by who asked the chain.
    #[error("outputs are worth more than the inputs")]
    Overspent,
    /// No mempool takes it: our coins would be bound to it in vain. Said by who asked the chain.
    #[error("{fee} satoshi for {size} virtual bytes are below the relay rate of {floor} per 1000")]
    FeeRate {
        /// What it pays, satoshi.
        fee: u64,
        /// Its size when signed, virtual bytes.
        size: u64,
        /// Satoshi per 1000 virtual bytes.
        floor: u64,
    },
}

/// The two outputs of a maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnOutput {
    /// The equal amount output.
    Coinjoin,
    /// The change.
    Change,
}

impl std::fmt::Display for OwnOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Coinjoin => "coinjoin",
            Self::Change => "change",
        })
    }
}

impl MakerShare {
    /// Sum of our inputs, satoshi.
    #[must_use]
    pub fn input_value(&self) -> u64 {
        self.coins.iter().fold(0, |sum: u64, coin| sum.saturating_add(coin.value))
    }

    /// Change that we must get at least, satoshi.
    #[must_use]
    pub fn change(&self) -> Option<u64> {
        self.agreement.change(self.input_value())
    }

    /// Checks the taker's transaction. `height` is our best block, when it is known.
    ///
    /// More than was agreed is accepted, and so are outputs and inputs of others, whatever they are.
    ///
    /// # Errors
    /// [`MakerRefusal`]: do not sign, say nothing.
    pub fn verify(
        &self,
        tx: Transaction,
        height: Option<u32>,
    ) -> Result<VerifiedTransaction, MakerRefusal> {
        if !(1..=3).contains(&tx.version.0) {
            return Err(MakerRefusal::Version(tx.version.0));
        }
        let weight = tx.weight().to_wu();
        if weight > MAX_WEIGHT {
            return Err(MakerRefusal::TooLarge { weight });
        }
        if super::output_total(&tx).is_none() {
            return Err(MakerRefusal::Supply);
        }
        self.check_locktime(&tx, height)?;
        let mut inputs = HashSet::new();
        for input in &tx.input {
            if !inputs.insert(input.previous_output) {
                return Err(MakerRefusal::DuplicateInput(input.previous_output));
            }
        }
        let missing = self.coins.iter().find(|coin| !inputs.contains(&coin.outpoint));
        if let Some(coin) = missing {
            return Err(MakerRefusal::MissingInput(coin.outpoint));
        }
        let Agreement { amount, fee, tx_fee } = self.agreement;
        if fee < tx_fee {
            return Err(MakerRefusal::NegativeEarning { fee, tx_fee });
        }
        if self.cj_script == self.change_script {
            return Err(MakerRefusal::SameScript);
        }
        let change = self.change().ok_or(MakerRefusal::InputsTooSmall)?;
        for (which, script, expected) in [
            (OwnOutput::Coinjoin, &self.cj_script, amount),
            (OwnOutput::Change, &self.change_script, change),
        ] {
            let mut ours = tx.output.iter().filter(|output| output.script_pubkey == *script);
            let (Some(output), None) = (ours.next(), ours.next()) else {
                let count = tx.output.iter().filter(|o| o.script_pubkey == *script).count();
                return Err(MakerRefusal::OutputCount { which, count });
            };
            let found = output.value.to_sat();
            if found < expected {
                return Err(MakerRefusal::OutputValue { which, found, expected });
            }
        }
        Ok(VerifiedTransaction { tx, coins: self.coins.clone() })
    }

    fn check_locktime(&self, tx: &Transaction, height: Option<u32>) -> Result<(), MakerRefusal> {
        let locktime = tx.lock_time.to_consensus_u32();
        let latest = height.map_or(LOCKTIME_THRESHOLD - 1, |height| {
            height.saturating_add(LOCKTIME_SLACK).min(LOCKTIME_THRESHOLD - 1)
        });
        if locktime > latest { Err(MakerRefusal::LockTime { locktime }) } else { Ok(()) }
    }
}

/// A transaction that passed every check of [`MakerShare::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTransaction {
    tx: Transaction,
    coins: Vec<LentCoin>,
}

impl VerifiedTransaction {
    /// The transaction.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.tx
    }

    /// Our inputs in it.
    pub fn outpoints(&self) -> impl Iterator<Item = OutPoint> {
        self.coins.iter().map(|coin| coin.outpoint)
    }

    /// Signs our inputs, and only those that were verified to be ours, whatever else there are keys for: one `!sig`
    /// each, in the order of the transaction's inputs.
    ///
    /// # Errors
    /// [`SigningError::NoKey`] when the key of one of the coins is missing, or is one for another value or script.
    pub fn sign(&self, keys: &[OwnCoin]) -> Result<Vec<InputSignature>, SigningError> {
        let key_of = |coin: &LentCoin| {
            let key = keys.iter().find(|key| key.lent() == *coin);
            key.ok_or(SigningError::NoKey(coin.outpoint))
        };
        let own: Vec<&OwnCoin> = self.coins.iter().map(key_of).collect::<Result<_, _>>()?;
        signing::sign_own_inputs(&self.tx, own)
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::absolute::LockTime;
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::secp256k1::SecretKey;
    use bdk_wallet::bitcoin::transaction::Version;
    use bdk_wallet::bitcoin::{
        Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    };
    use proptest::prelude::*;

    use super::{MakerRefusal, MakerShare};
    use crate::offer::{MAX_MONEY, Offer, OrderType};
    use crate::transaction::fees::Agreement;
    use crate::transaction::signing::{OwnCoin, SigningError};

    fn script(byte: u8) -> ScriptBuf {
        let mut bytes = vec![0x00, 0x14];
        bytes.extend([byte; 20]);
        ScriptBuf::from_bytes(bytes)
    }

    fn keys(values: &[u64]) -> Vec<OwnCoin> {
        let coins = values.iter().zip(0_u8..).map(|(value, index)| {
            let key = SecretKey::from_slice(&[index + 1; 32]).unwrap();
            let outpoint = OutPoint { txid: Txid::all_zeros(), vout: index.into() };
            OwnCoin::new(outpoint, *value, key)
        });
        coins.collect()
    }

    fn share(offer: &str, amount: u64, values: &[u64]) -> MakerShare {
        let offer = Offer::parse(OrderType::Sw0Relative, offer).unwrap();
        MakerShare {
            agreement: Agreement::of(&offer, amount),
            coins: keys(values).iter().map(OwnCoin::lent).collect(),
            cj_script: script(1),
            change_script: script(2),
        }
    }

    fn transaction(share: &MakerShare, cj: u64, change: u64) -> Transaction {
        let input = |outpoint| TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            witness: Witness::new(),
        };
        let output =
            |value, script| TxOut { value: Amount::from_sat(value), script_pubkey: script };
        let foreign = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(100),
            input: share.coins.iter().map(|c| c.outpoint).chain([foreign]).map(input).collect(),
            output: vec![output(cj, script(1)), output(change, script(2)), output(5, script(3))],
        }
    }

    #[test]
    fn far_future_locktime_is_refused() {
        let share = share("0 27300 100000000 0 0.00002", 1_000_000, &[2_000_000]);
        let good = transaction(&share, 1_000_000, 1_000_020);
        assert!(share.verify(good.clone(), Some(98)).is_ok());
        assert!(share.verify(good.clone(), None).is_ok());
        let refused = share.verify(good.clone(), Some(97)).unwrap_err();
        assert_eq!(refused, MakerRefusal::LockTime { locktime: 100 });
        let time = Transaction { lock_time: LockTime::from_consensus(1_700_000_000), ..good };
        assert!(matches!(share.verify(time, None), Err(MakerRefusal::LockTime { .. })));
    }

    #[test]
    fn duplicate_input_is_refused() {
        let share = share("0 27300 100000000 0 0.00002", 1_000_000, &[2_000_000]);
        let mut tx = transaction(&share, 1_000_000, 1_000_020);
        tx.input.push(tx.input[0].clone());
        assert!(matches!(share.verify(tx, None), Err(MakerRefusal::DuplicateInput(_))));
    }

    #[test]
    fn oversized_transaction_is_refused() {
        let share = share("0 27300 100000000 0 0.00002", 1_000_000, &[2_000_000]);
        let mut tx = transaction(&share, 1_000_000, 1_000_020);
        tx.output.extend(vec![tx.output[2].clone(); 4_000]);
        assert!(matches!(share.verify(tx, None), Err(MakerRefusal::TooLarge { .. })));
    }

    #[test]
    fn outputs_above_the_money_supply_are_refused() {
        let share = share("0 27300 100000000 0 0.00002", 1_000_000, &[2_000_000]);
        for (cj, change) in [
            (u64::MAX, 1_000_020),
            (1_000_000, u64::MAX),
            (u64::MAX, u64::MAX),
            (MAX_MONEY - 1_000_024, 1_000_020),
        ] {
            let tx = transaction(&share, cj, change);
            assert_eq!(share.verify(tx, None), Err(MakerRefusal::Supply));
        }
        // The third output holds 5.
        let tx = transaction(&share, MAX_MONEY - 1_000_025, 1_000_020);
        assert!(share.verify(tx, None).is_ok());
    }

    #[test]
    fn nothing_is_signed_with_the_key_of_another_coin() {
        let share = share("0 27300 100000000 0 0.00002", 1_000_000, &[1_500_000, 500_000]);
        let verified = share.verify(transaction(&share, 1_000_000, 1_000_020), None).unwrap();
        let keys = keys(&[1_500_000, 500_000, 700_000]);
        // What is not in the session is not signed, though there is a key for it.
        assert_eq!(verified.sign(&keys).unwrap().len(), 2);
        let missing = Err(SigningError::NoKey(share.coins[1].outpoint));
        assert_eq!(verified.sign(&keys[..1]), missing);
        let other_value =
            [keys[0].clone(), OwnCoin::new(keys[1].outpoint, 499_999, *keys[1].secret_key())];
        assert_eq!(verified.sign(&other_value), missing);
        let of_another = OwnCoin::new(keys[1].outpoint, keys[1].value, *keys[2].secret_key());
        assert_eq!(verified.sign(&[keys[0].clone(), of_another]), missing);
    }

    proptest! {
        /// No transaction is accepted that leaves the maker with less than it agreed.
        #[test]
        fn never_signs_for_less_than_agreed(
            amount in 27_300_u64..10_000_000,
            values in proptest::collection::vec(1_u64..20_000_000, 1..4),
            tx_fee in 0_u64..500,
            fee in "0\\.000[0-9]{3}",
            cj_error in -2_i64..3,
            change_error in -2_i64..3,
        ) {
            let share = share(&format!("0 27300 100000000 {tx_fee} {fee}"), amount, &values);
            let inputs: u64 = values.iter().sum();
            let agreed = i128::from(inputs) + share.agreement.earning();
            let cj = amount.saturating_add_signed(cj_error);
            let change = share.change().unwrap_or(0).saturating_add_signed(change_error);
            let tx = transaction(&share, cj, change);
            if let Ok(verified) = share.verify(tx, None) {
                prop_assert!(i128::from(cj) + i128::from(change) >= agreed);
                prop_assert!(agreed >= i128::from(inputs));
                prop_assert_eq!(verified.sign(&keys(&values)).unwrap().len(), share.coins.len());
            } else {
                prop_assert!(
                    cj_error < 0 || change_error < 0 || share.agreement.earning() < 0
                        || share.change().is_none()
                );
            }
        }
    }
}
