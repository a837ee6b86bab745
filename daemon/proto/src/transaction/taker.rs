//! The taker's side: checks of each maker, building, collecting signatures (`spec/protocol.md` 11.2, 11.4,
//! 11.5).

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::sighash::SighashCache;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
};

use super::signing::{self, OwnCoin, SigningError};
use super::{fees, signing::p2wpkh};
use crate::message::{InputSignature, IoAuth};
use crate::nacl_box::NaclPublicKey;
use crate::nick::Nick;
use crate::offer::{BITCOIN_DUST_THRESHOLD, DUST_THRESHOLD, Offer};
use crate::signature;

/// Most inputs of one maker: the taker pays for their size (`maker_input_cap`).
pub const MAX_MAKER_INPUTS: usize = 15;

/// A maker's coin as the chain knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Satoshi.
    pub value: u64,
    /// scriptPubKey.
    pub script: ScriptBuf,
    /// 0 in the mempool.
    pub confirmations: u32,
}

/// Why a maker is dropped from the round.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakerFault {
    /// No coins, or more than [`MAX_MAKER_INPUTS`].
    #[error("maker names {0} coins")]
    InputCount(usize),
    /// A coin occurs twice, in this answer or in that of another participant.
    #[error("coin {0} is already in the round")]
    DuplicateInput(OutPoint),
    /// A coin does not exist or is spent.
    #[error("coin {0} is not unspent")]
    Spent(OutPoint),
    /// A coin is in the mempool only.
    #[error("coin {0} is unconfirmed")]
    Unconfirmed(OutPoint),
    /// A coin is not P2WPKH.
    #[error("coin {0} is not P2WPKH")]
    ScriptType(OutPoint),
    /// The authorising key owns none of the coins.
    #[error("authorising key owns none of the coins")]
    ForeignKey,
    /// The maker's session key is not signed by the owner of a coin: perhaps a relay put its own in.
    #[error("session key is not signed by the owner of a coin")]
    KeySignature,
    /// An address is malformed or of another network.
    #[error("address is malformed or of another network")]
    Address,
    /// An address is one of ours, of another maker, or used twice.
    #[error("address is already in the round")]
    ReusedAddress,
    /// The maker's change would be dust or negative.
    #[error("change of {change:?} satoshi is below {DUST_THRESHOLD}")]
    DustChange {
        /// Satoshi; `None` when negative.
        change: Option<u64>,
    },
}

/// Coins and scripts that are already in the round.
#[derive(Debug, Clone, Default)]
pub struct UsedPlaces {
    outpoints: HashSet<OutPoint>,
    scripts: HashSet<ScriptBuf>,
}

impl UsedPlaces {
    /// Adds a participant's coins and scripts, ours first of all.
    pub fn add(
        &mut self,
        outpoints: impl IntoIterator<Item = OutPoint>,
        scripts: impl IntoIterator<Item = ScriptBuf>,
    ) {
        self.outpoints.extend(outpoints);
        self.scripts.extend(scripts);
    }
}

/// A maker whose answer passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedMaker {
    nick: Nick,
    offer: Offer,
    coins: Vec<ForeignCoin>,
    cj_script: ScriptBuf,
    change_script: ScriptBuf,
    change: u64,
}

impl VerifiedMaker {
    /// Checks an `!ioauth`. `coins` is what the chain said of each coin that the maker named, in that
    /// order, `None` for one that is spent or never existed.
    ///
    /// # Errors
    /// [`MakerFault`]: drop the maker.
    #[expect(clippy::too_many_arguments, reason = "one argument for each party to the check")]
    pub fn check(
        nick: Nick,
        offer: &Offer,
        amount: u64,
        answer: &IoAuth,
        session_key: &NaclPublicKey,
        coins: &[Option<ForeignCoin>],
        network: Network,
        used: &UsedPlaces,
    ) -> Result<Self, MakerFault> {
        let count = answer.utxos.len();
        if count == 0 || count > MAX_MAKER_INPUTS || coins.len() != count {
            return Err(MakerFault::InputCount(count));
        }
        // ioauth_binds_key_to_utxo: what is signed is the hex text of the session key.
        let session_key = session_key.to_string();
        signature::verify(session_key.as_bytes(), &answer.btc_signature, &answer.auth_key)
            .map_err(|_| MakerFault::KeySignature)?;
        let mut seen = HashSet::new();
        let mut verified = Vec::with_capacity(count);
        for (utxo, coin) in answer.utxos.iter().zip(coins) {
            let outpoint = utxo.outpoint;
            if used.outpoints.contains(&outpoint) || !seen.insert(outpoint) {
                return Err(MakerFault::DuplicateInput(outpoint));
            }
            let coin = coin.as_ref().filter(|coin| coin.outpoint == outpoint);
            let coin = coin.ok_or(MakerFault::Spent(outpoint))?;
            if coin.confirmations == 0 {
                return Err(MakerFault::Unconfirmed(outpoint));
            }
            if !coin.script.is_p2wpkh() {
                return Err(MakerFault::ScriptType(outpoint));
            }
            verified.push(coin.clone());
        }
        let auth_script = p2wpkh(&answer.auth_key);
        if !verified.iter().any(|coin| coin.script == auth_script) {
            return Err(MakerFault::ForeignKey);
        }
        let script = |text: &str| {
            Address::from_str(text)
                .ok()
                .and_then(|address| address.require_network(network).ok())
                .map(|address| address.script_pubkey())
                .ok_or(MakerFault::Address)
        };
        let (cj_script, change_script) =
            (script(&answer.cj_address)?, script(&answer.change_address)?);
        let reused = |script| used.scripts.contains(script);
        if cj_script == change_script || reused(&cj_script) || reused(&change_script) {
            return Err(MakerFault::ReusedAddress);
        }
        let inputs = verified.iter().fold(0, |sum: u64, coin| sum.saturating_add(coin.value));
        let change = fees::maker_change(offer, amount, inputs);
        let change = change
            .filter(|change| *change >= DUST_THRESHOLD)
            .ok_or(MakerFault::DustChange { change })?;
        Ok(Self { nick, offer: *offer, coins: verified, cj_script, change_script, change })
    }

    /// Who it is.
    #[must_use]
    pub const fn nick(&self) -> &Nick {
        &self.nick
    }

    /// What it is paid at an amount, before its share of the miner fee, satoshi.
    #[must_use]
    pub fn fee(&self, amount: u64) -> u64 {
        self.offer.cj_fee.of(amount)
    }

    /// Its coins.
    pub fn outpoints(&self) -> impl Iterator<Item = OutPoint> {
        self.coins.iter().map(|coin| coin.outpoint)
    }

    /// Its two scripts.
    pub fn scripts(&self) -> impl Iterator<Item = ScriptBuf> {
        [self.cj_script.clone(), self.change_script.clone()].into_iter()
    }
}

/// What the taker puts in.
#[derive(Debug, Clone)]
pub struct TakerShare {
    /// Our coins.
    pub coins: Vec<OwnCoin>,
    /// The equal amount, satoshi.
    pub amount: u64,
    /// Where our equal amount goes.
    pub destination: ScriptBuf,
    /// Where our change goes; `None` for a sweep.
    pub change: Option<ScriptBuf>,
}

/// Why the transaction cannot be built. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Our inputs do not cover amount, fees of makers and miner fee.
    #[error("inputs of {inputs} satoshi do not cover {needed}")]
    InputsTooSmall {
        /// Satoshi.
        inputs: u64,
        /// Satoshi.
        needed: u64,
    },
    /// More money than there is.
    #[error("amounts overflow")]
    Overflow,
}

/// The unsigned transaction with what is needed to sign and check it.
#[derive(Debug, Clone)]
pub struct Coinjoin {
    tx: Transaction,
    makers: Vec<VerifiedMaker>,
    own_coins: Vec<OwnCoin>,
    /// Satoshi to the miners.
    fee: u64,
    signed: HashSet<usize>,
}

impl Coinjoin {
    /// Builds the transaction: version 2, one sequence for all inputs, everything shuffled. Our change at or
    /// below 2 730 satoshi is left to the miners.
    ///
    /// `draw(n)` returns a uniform random number below `n`, from a cryptographic generator.
    ///
    /// # Errors
    /// [`BuildError`].
    #[expect(clippy::arithmetic_side_effects, reason = "the branch makes the difference positive")]
    pub fn build(
        taker: TakerShare,
        makers: Vec<VerifiedMaker>,
        miner_fee: u64,
        lock_height: u32,
        mut draw: impl FnMut(usize) -> usize,
    ) -> Result<Self, BuildError> {
        let TakerShare { coins, amount, destination, change } = taker;
        let offers: Vec<Offer> = makers.iter().map(|maker| maker.offer).collect();
        let inputs = sum(coins.iter().map(|coin| coin.value))?;
        let cj_fees = sum(offers.iter().map(|offer| offer.cj_fee.of(amount)))?;
        let own_fee = fees::taker_miner_fee(miner_fee, &offers);
        let needed = sum([amount, cj_fees, own_fee])?;
        let left = inputs.checked_sub(needed);
        let own_change = match (left, &change) {
            (Some(left), Some(script)) => {
                Some((left, script)).filter(|c| c.0 > BITCOIN_DUST_THRESHOLD)
            }
            (Some(_), None) => None,
            // Rounding of the makers' fees in a sweep can eat a few satoshi of the miner fee.
            (None, None) if needed - inputs <= own_fee => None,
            (None, _) => return Err(BuildError::InputsTooSmall { inputs, needed }),
        };
        let output = |value, script: &ScriptBuf| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: script.clone(),
        };
        let mut outputs = vec![output(amount, &destination)];
        outputs.extend(own_change.map(|(value, script)| output(value, script)));
        for maker in &makers {
            outputs.push(output(amount, &maker.cj_script));
            outputs.push(output(maker.change, &maker.change_script));
        }
        let foreign = makers.iter().flat_map(VerifiedMaker::outpoints);
        let input = |outpoint| TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            witness: Witness::new(),
        };
        let mut inputs_list: Vec<TxIn> =
            coins.iter().map(|coin| coin.outpoint).chain(foreign).map(input).collect();
        shuffle(&mut inputs_list, &mut draw);
        shuffle(&mut outputs, &mut draw);
        let maker_inputs =
            sum(makers.iter().flat_map(|maker| &maker.coins).map(|coin| coin.value))?;
        let total_in = sum([inputs, maker_inputs])?;
        let total_out = sum(outputs.iter().map(|output| output.value.to_sat()))?;
        let fee = total_in
            .checked_sub(total_out)
            .ok_or(BuildError::InputsTooSmall { inputs: total_in, needed: total_out })?;
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_height(lock_height).unwrap_or(LockTime::ZERO),
            input: inputs_list,
            output: outputs,
        };
        Ok(Self { tx, makers, own_coins: coins, fee, signed: HashSet::new() })
    }

    /// Replaces the order of inputs and outputs by that of a published transaction.
    #[cfg(test)]
    pub(crate) fn with_transaction(mut self, tx: Transaction) -> Self {
        self.tx = tx;
        self
    }

    /// The transaction as far as it is signed.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.tx
    }

    /// What the miners get, satoshi.
    #[must_use]
    pub const fn miner_fee(&self) -> u64 {
        self.fee
    }

    /// The unsigned transaction, for `!tx`.
    #[must_use]
    pub fn unsigned(&self) -> Transaction {
        let mut tx = self.tx.clone();
        for input in &mut tx.input {
            input.witness = Witness::new();
        }
        tx
    }

    /// Takes a maker's `!sig`: finds the input *of that maker* that this key owns and for which the
    /// signature is good (`sig_pubkey_owns_input`). Returns false when there is none; such a message is
    /// ignored. Order and repetitions do not matter.
    pub fn add_signature(&mut self, maker: &Nick, signature: &InputSignature) -> bool {
        let Some(maker) = self.makers.iter().find(|known| known.nick == *maker) else {
            return false;
        };
        let script = p2wpkh(&signature.key);
        let coins: HashMap<OutPoint, &ForeignCoin> = maker
            .coins
            .iter()
            .filter(|coin| coin.script == script)
            .map(|coin| (coin.outpoint, coin))
            .collect();
        let unsigned = self.tx.input.iter().enumerate().filter_map(|(index, input)| {
            let coin = coins.get(&input.previous_output)?;
            (!self.signed.contains(&index)).then_some((index, *coin))
        });
        let mut cache = SighashCache::new(&self.tx);
        let matching = unsigned
            .filter(|(index, coin)| {
                signing::digest(&mut cache, *index, &coin.script, coin.value)
                    .is_ok_and(|digest| signing::is_valid(&digest, signature))
            })
            .map(|(index, _)| index)
            .next();
        matching.is_some_and(|index| self.set_witness(index, signature))
    }

    /// Whether all inputs of a maker are signed.
    #[must_use]
    pub fn is_complete(&self, maker: &Nick) -> bool {
        self.makers.iter().find(|known| known.nick == *maker).is_some_and(|maker| {
            let outpoints: HashSet<OutPoint> = maker.outpoints().collect();
            self.tx.input.iter().enumerate().all(|(index, input)| {
                !outpoints.contains(&input.previous_output) || self.signed.contains(&index)
            })
        })
    }

    /// Whether every maker has signed all its inputs.
    #[must_use]
    pub fn makers_complete(&self) -> bool {
        self.makers.iter().all(|maker| self.is_complete(&maker.nick))
    }

    /// Signs our own inputs and returns the final transaction.
    ///
    /// # Errors
    /// [`FinishError::Unsigned`] while an input lacks a signature (`all_inputs_signed`).
    pub fn finish(mut self) -> Result<Transaction, FinishError> {
        // Ours last: nobody can complete the transaction without us.
        if !self.makers_complete() {
            return Err(FinishError::Unsigned);
        }
        let signatures = signing::sign_own_inputs(&self.tx, &self.own_coins)?;
        let own: HashSet<OutPoint> = self.own_coins.iter().map(|coin| coin.outpoint).collect();
        let indexes: Vec<usize> = (0_usize..)
            .zip(&self.tx.input)
            .filter(|(_, input)| own.contains(&input.previous_output))
            .map(|(index, _)| index)
            .collect();
        for (index, signature) in indexes.into_iter().zip(&signatures) {
            self.set_witness(index, signature);
        }
        if self.signed.len() != self.tx.input.len() {
            return Err(FinishError::Unsigned);
        }
        Ok(self.tx)
    }

    fn set_witness(&mut self, index: usize, signature: &InputSignature) -> bool {
        let Some(input) = self.tx.input.get_mut(index) else { return false };
        input.witness = signing::witness(signature);
        self.signed.insert(index)
    }
}

/// Why there is no final transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// An input has no signature.
    #[error("an input is not signed")]
    Unsigned,
    /// Our own part failed.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

fn sum(values: impl IntoIterator<Item = u64>) -> Result<u64, BuildError> {
    values.into_iter().try_fold(0_u64, u64::checked_add).ok_or(BuildError::Overflow)
}

/// Fisher and Yates, with the caller's generator.
#[expect(clippy::arithmetic_side_effects, reason = "an index below the length of a list in memory")]
fn shuffle<T>(items: &mut [T], draw: &mut impl FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        items.swap(last, draw(last + 1).min(last));
    }
}
