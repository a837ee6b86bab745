//! The last look at a transaction before our signatures exist.
//!
//! It knows what was agreed and what the transaction is, and nothing of how it was built: a mistake in the builder, or
//! in anything before it, must not cost money. The same look is taken before makers see the transaction.

use std::collections::{BTreeMap, BTreeSet};

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction};
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_wallet::round::RoundSums;

use crate::ask::WalletView;

/// A maker that takes part.
#[derive(Debug)]
pub(super) struct MakerPart<'a> {
    pub(super) nick: Nick,
    pub(super) offer: Offer,
    /// Its coins as the chain knows them.
    pub(super) coins: &'a [ForeignCoin],
    /// Its two scripts: equal amount, change.
    pub(super) scripts: Vec<ScriptBuf>,
}

/// What was agreed.
#[derive(Debug)]
pub(super) struct Agreement<'a> {
    pub(super) amount: u64,
    /// Our inputs: outpoint and value.
    pub(super) inputs: &'a [(OutPoint, u64)],
    pub(super) destination: Option<&'a ScriptBuf>,
    /// `None` in a sweep.
    pub(super) change: Option<&'a ScriptBuf>,
    /// What we pay in all at most, satoshi.
    pub(super) limit: u64,
    pub(super) makers: Vec<MakerPart<'a>>,
}

/// Why nothing is signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Breach {
    #[error("an input occurs twice")]
    DoubleInput,
    #[error("an input is missing")]
    MissingInput,
    #[error("an input belongs to nobody in the round")]
    UnknownInput,
    #[error("a coin of ours is an input that is not meant to be one")]
    ForeignOwnInput,
    #[error("our coin {0} is not unspent any more")]
    OwnCoinGone(OutPoint),
    #[error("an input is already signed or has another sequence than the others")]
    MarkedInput,
    #[error("the output to our destination is missing, double or has another value")]
    Destination,
    #[error("an output of maker {0} is missing, double or has another value")]
    MakerOutput(Nick),
    #[error("an output belongs to nobody in the round")]
    UnknownOutput,
    #[error("the amounts do not add up")]
    Sums,
    #[error("it would cost {cost} satoshi, more than the {limit} that were announced")]
    Cost { cost: u64, limit: u64 },
}

impl Agreement<'_> {
    /// Checks the transaction; witnesses of makers may be in it already, ours must not.
    pub(super) fn check(&self, tx: &Transaction, wallet: &WalletView) -> Result<RoundSums, Breach> {
        let (own_value, maker_value) = self.inputs_are_right(tx, wallet)?;
        let change = self.outputs_are_right(tx)?;
        let outputs = tx.output.iter().map(|output| output.value.to_sat());
        let total_out = total(outputs)?;
        let total_in = total([own_value, maker_value])?;
        let miner_fee = total_in.checked_sub(total_out).ok_or(Breach::Sums)?;
        let kept = total([self.amount, change])?;
        let cost = own_value.checked_sub(kept).ok_or(Breach::Sums)?;
        // What makers net and what the miners get is all that we pay.
        let netted = self
            .makers
            .iter()
            .fold(0, |sum: i128, maker| sum.saturating_add(maker.offer.earning(self.amount)));
        if i128::from(cost) != netted.saturating_add(miner_fee.into()) {
            return Err(Breach::Sums);
        }
        if cost > self.limit {
            return Err(Breach::Cost { cost, limit: self.limit });
        }
        let fees = self.makers.iter().map(|maker| maker.offer.cj_fee.of(self.amount));
        Ok(RoundSums {
            amount: self.amount,
            counterparties: self.makers.iter().map(|maker| maker.nick.to_string()).collect(),
            input_count: u32::try_from(self.inputs.len()).map_err(|_| Breach::Sums)?,
            input_value: own_value,
            coinjoin_fee: total(fees)?,
            miner_fee,
            cost: i64::try_from(cost).map_err(|_| Breach::Sums)?,
        })
    }

    /// Exactly our inputs and those of the makers, each once. Returns both values.
    fn inputs_are_right(
        &self,
        tx: &Transaction,
        wallet: &WalletView,
    ) -> Result<(u64, u64), Breach> {
        let mut spent = BTreeSet::new();
        for input in &tx.input {
            if !spent.insert(input.previous_output) {
                return Err(Breach::DoubleInput);
            }
            if input.sequence != Sequence::ENABLE_LOCKTIME_NO_RBF || !input.script_sig.is_empty() {
                return Err(Breach::MarkedInput);
            }
        }
        let own: BTreeMap<OutPoint, u64> = self.inputs.iter().copied().collect();
        let coins = self.makers.iter().flat_map(|maker| maker.coins);
        let foreign: BTreeMap<OutPoint, u64> =
            coins.map(|coin| (coin.outpoint, coin.value)).collect();
        let known =
            |outpoint: &OutPoint| own.contains_key(outpoint) || foreign.contains_key(outpoint);
        if own.keys().chain(foreign.keys()).any(|outpoint| !spent.contains(outpoint)) {
            return Err(Breach::MissingInput);
        }
        if own.keys().any(|outpoint| foreign.contains_key(outpoint)) {
            return Err(Breach::DoubleInput);
        }
        let held: BTreeMap<OutPoint, u64> =
            wallet.coins.iter().map(|coin| (coin.outpoint, coin.value)).collect();
        if spent.iter().any(|outpoint| held.contains_key(outpoint) && !own.contains_key(outpoint)) {
            return Err(Breach::ForeignOwnInput);
        }
        if !spent.iter().all(known) {
            return Err(Breach::UnknownInput);
        }
        if let Some((gone, _)) =
            own.iter().find(|(outpoint, value)| held.get(outpoint) != Some(value))
        {
            return Err(Breach::OwnCoinGone(*gone));
        }
        let unsigned = |outpoint: &OutPoint| {
            tx.input.iter().any(|i| i.previous_output == *outpoint && i.witness.is_empty())
        };
        if !own.keys().all(unsigned) {
            return Err(Breach::MarkedInput);
        }
        Ok((total(own.into_values())?, total(foreign.into_values())?))
    }

    /// Exactly the outputs that were agreed. Returns our change.
    fn outputs_are_right(&self, tx: &Transaction) -> Result<u64, Breach> {
        let mut outputs: BTreeMap<&ScriptBuf, u64> = BTreeMap::new();
        for output in &tx.output {
            // One script twice is always wrong: no two outputs of a round share one.
            if outputs.insert(&output.script_pubkey, output.value.to_sat()).is_some() {
                return Err(Breach::UnknownOutput);
            }
        }
        let destination = self.destination.ok_or(Breach::Destination)?;
        if outputs.remove(destination) != Some(self.amount) {
            return Err(Breach::Destination);
        }
        let change = self.change.and_then(|script| outputs.remove(script)).unwrap_or_default();
        for maker in &self.makers {
            let wrong = || Breach::MakerOutput(maker.nick);
            let [cj_script, change_script] = maker.scripts.as_slice() else { return Err(wrong()) };
            if outputs.remove(cj_script) != Some(self.amount) {
                return Err(wrong());
            }
            let inputs = total(maker.coins.iter().map(|coin| coin.value))?;
            let due = i128::from(inputs)
                .saturating_sub(self.amount.into())
                .saturating_add(maker.offer.earning(self.amount));
            let paid = outputs.remove(change_script).ok_or_else(wrong)?;
            if i128::from(paid) != due {
                return Err(wrong());
            }
        }
        if outputs.is_empty() { Ok(change) } else { Err(Breach::UnknownOutput) }
    }
}

fn total(values: impl IntoIterator<Item = u64>) -> Result<u64, Breach> {
    values.into_iter().try_fold(0_u64, u64::checked_add).ok_or(Breach::Sums)
}
