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

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::absolute::LockTime;
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::transaction::Version;
    use bdk_wallet::bitcoin::{Amount, TxIn, TxOut, Txid, WPubkeyHash, Witness};
    use joinery_proto::offer::OrderType;
    use joinery_wallet::snapshot::CoinKind;
    use joinery_wallet::types::Mixdepth;
    use proptest::prelude::*;

    use super::*;
    use crate::ask::WalletCoin;

    const AMOUNT: u64 = 1_000_000;
    const MINER_FEE: u64 = 2_000;

    fn script(byte: u8) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
    }

    fn outpoint(byte: u8) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 0 }
    }

    fn nick(name: char) -> Nick {
        format!("J5{name}{}", "z".repeat(13)).parse().unwrap()
    }

    /// Two inputs of ours and a third coin, two makers of which one has two coins.
    struct Round {
        inputs: Vec<(OutPoint, u64)>,
        coins: [Vec<ForeignCoin>; 2],
        wallet: WalletView,
        tx: Transaction,
    }

    fn foreign(byte: u8, value: u64) -> ForeignCoin {
        ForeignCoin { outpoint: outpoint(byte), value, script: script(byte), confirmations: 3 }
    }

    fn offer(fee: u64) -> Offer {
        Offer::parse(OrderType::Sw0Absolute, &format!("0 27300 100000000 50 {fee}")).unwrap()
    }

    impl Round {
        fn new() -> Self {
            let inputs = vec![(outpoint(1), 700_000), (outpoint(2), 600_000)];
            let coins =
                [vec![foreign(11, 1_500_000)], vec![foreign(12, 900_000), foreign(13, 800_000)]];
            let own = |byte, value| WalletCoin {
                outpoint: outpoint(byte),
                value,
                mixdepth: Mixdepth(0),
                confirmations: 9,
                height: Some(1),
                free: false,
                frozen: false,
                locktime: None,
                kind: CoinKind::Deposit,
                commitments_used: Vec::new(),
            };
            let wallet = WalletView {
                coins: vec![own(1, 700_000), own(2, 600_000), own(3, 500_000)],
                ..WalletView::default()
            };
            let spent = [1, 11, 2, 12, 13].map(outpoint).into_iter();
            // Makers get 300 and 400 and add 50 each; all the rest of the fee is ours.
            let change = 1_300_000 - AMOUNT - 700 - (MINER_FEE - 100);
            let outputs = [
                (script(101), AMOUNT),
                (script(102), change),
                (script(111), AMOUNT),
                (script(112), 500_250),
                (script(121), AMOUNT),
                (script(122), 700_350),
            ];
            let tx = Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: spent
                    .map(|previous_output| TxIn {
                        previous_output,
                        script_sig: ScriptBuf::new(),
                        sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
                        witness: Witness::new(),
                    })
                    .collect(),
                output: outputs
                    .map(|(script_pubkey, value)| TxOut {
                        value: Amount::from_sat(value),
                        script_pubkey,
                    })
                    .into(),
            };
            Self { inputs, coins, wallet, tx }
        }

        fn check(&self, limit: u64) -> Result<RoundSums, Breach> {
            let (destination, change) = (script(101), script(102));
            let part = |name, fee, coins, first: u8| MakerPart {
                nick: nick(name),
                offer: offer(fee),
                coins,
                scripts: vec![script(first), script(first + 1)],
            };
            let agreement = Agreement {
                amount: AMOUNT,
                inputs: &self.inputs,
                destination: Some(&destination),
                change: Some(&change),
                limit,
                makers: vec![
                    part('A', 300, &self.coins[0], 111),
                    part('B', 400, &self.coins[1], 121),
                ],
            };
            agreement.check(&self.tx, &self.wallet)
        }
    }

    #[test]
    fn what_was_agreed_passes_with_its_sums() {
        let sums = Round::new().check(10_000).unwrap();
        assert_eq!((sums.coinjoin_fee, sums.miner_fee, sums.cost), (700, MINER_FEE, 2_600));
        assert_eq!((sums.input_count, sums.input_value), (2, 1_300_000));
    }

    #[test]
    fn nothing_dearer_than_announced_passes() {
        assert!(Round::new().check(2_600).is_ok());
        assert_eq!(Round::new().check(2_599), Err(Breach::Cost { cost: 2_600, limit: 2_599 }));
    }

    #[test]
    fn change_too_small_for_an_output_is_a_cost() {
        let mut round = Round::new();
        round.tx.output.remove(1);
        assert!(matches!(round.check(10_000), Err(Breach::Cost { .. })));
        assert!(round.check(300_000).is_ok());
    }

    /// Each single change to a good round.
    fn break_it(round: &mut Round, way: usize, place: usize, by: u64) -> Option<Breach> {
        let (inputs, outputs) = (round.tx.input.len(), round.tx.output.len());
        match way {
            0 => {
                let value = &mut round.tx.output[place % outputs].value;
                *value = Amount::from_sat(value.to_sat() + by);
            }
            1 => {
                let value = &mut round.tx.output[place % outputs].value;
                *value = Amount::from_sat(value.to_sat() - by);
            }
            2 => round.tx.output[place % outputs].script_pubkey = script(200),
            3 => {
                let copy = round.tx.output[place % outputs].clone();
                round.tx.output.push(copy);
            }
            4 => {
                let output = TxOut { value: Amount::from_sat(by), script_pubkey: script(201) };
                round.tx.output.push(output);
            }
            5 => {
                round.tx.input.remove(place % inputs);
            }
            6 => {
                let copy = round.tx.input[place % inputs].clone();
                round.tx.input.push(copy);
                return Some(Breach::DoubleInput);
            }
            7 => {
                let mut more = round.tx.input[0].clone();
                more.previous_output = outpoint(99);
                round.tx.input.push(more);
                return Some(Breach::UnknownInput);
            }
            8 => {
                let mut more = round.tx.input[0].clone();
                more.previous_output = outpoint(3);
                round.tx.input.push(more);
                return Some(Breach::ForeignOwnInput);
            }
            9 => {
                round.tx.input[place % inputs].sequence = Sequence::MAX;
                return Some(Breach::MarkedInput);
            }
            10 => {
                round.tx.input[place % inputs].script_sig = script(1);
                return Some(Breach::MarkedInput);
            }
            11 => {
                round.wallet.coins.remove(place % 2);
                let gone = round.inputs[place % 2].0;
                return Some(Breach::OwnCoinGone(gone));
            }
            12 => {
                round.coins[0][0].value += by;
            }
            13 => {
                round.tx.input[0].witness = Witness::from_slice(&[[1_u8; 4]]);
                return Some(Breach::MarkedInput);
            }
            _ => {
                // Both outputs of a maker to one script.
                round.tx.output[3].script_pubkey = script(111);
            }
        }
        None
    }

    proptest! {
        /// No reachable transaction that differs in anything from what was agreed is signed.
        #[test]
        fn nothing_else_passes(way in 0..15_usize, place in 0..12_usize, by in 1..250_000_u64) {
            let mut round = Round::new();
            let wanted = break_it(&mut round, way, place, by);
            let limit = 2_600;
            let found = round.check(limit);
            // More change for us, taken from the miners, is the one difference that costs nobody anything but them;
            // it does not pass either once the miners would have to pay.
            let harmless = way == 0 && place % 6 == 1 && by <= MINER_FEE;
            match (wanted, found) {
                (Some(wanted), found) => prop_assert_eq!(found, Err(wanted)),
                (None, found) => prop_assert_eq!(found.is_ok(), harmless, "{:?}", found),
            }
        }
    }
}
