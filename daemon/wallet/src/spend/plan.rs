//! Which coins are spent, what is paid, what comes back (`spec/wallet.md` 7.5 and 8.3).

use std::collections::HashSet;
use std::fmt;

use bdk_wallet::bitcoin::policy::MAX_STANDARD_TX_WEIGHT;
use bdk_wallet::bitcoin::{Amount, OutPoint, Script, ScriptBuf, TxOut, absolute};
use rand::{Rng, RngCore};

use crate::fee::{InputKind, TxSize, change_size, output_size};
use crate::policy::MergeAlgorithm;
use crate::select::{CandidateFilter, clamp, select_coins, sum};
use crate::service::SendError;
use crate::snapshot::Coin;
use crate::types::{Mixdepth, WalletType};

/// Change below this many satoshi goes to the miner (decision R-19). The relay limit of our own change
/// scripts is 294 or 540.
pub const CHANGE_FLOOR: Amount = Amount::from_sat(546);

/// Inputs that the reference reckons with before it knows how many there will be.
const EXPECTED_INPUTS: u64 = 8;

/// One transaction in this many has an older lock time, so that a lock time at the tip does not tell when
/// it was made.
const BACKDATED_ONE_IN: u32 = 10;

/// Most blocks that a lock time is moved back.
const BACKDATED_AT_MOST: u32 = 99;

/// What a payment depends on besides its own terms.
pub struct SpendContext<'a> {
    /// The wallet's unspent coins, of any mixdepth and state.
    pub coins: &'a [Coin],
    /// The account that pays.
    pub mixdepth: Mixdepth,
    /// Height of the best block.
    pub tip_height: u32,
    /// Median time of the last 11 blocks, seconds since epoch.
    pub median_time: u32,
    /// The drawn fee rate, satoshi per 1000 vbytes ([`fee_rate`](crate::fee::fee_rate)).
    pub rate_sat_per_kvb: u64,
    /// How coins are chosen.
    pub merge: MergeAlgorithm,
    /// Decides the script of the change.
    pub wallet_type: WalletType,
    /// Randomness for the lock time.
    pub rng: &'a mut dyn RngCore,
}

impl fmt::Debug for SpendContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpendContext")
            .field("coins", &self.coins.len())
            .field("mixdepth", &self.mixdepth)
            .field("tip_height", &self.tip_height)
            .field("median_time", &self.median_time)
            .field("rate_sat_per_kvb", &self.rate_sat_per_kvb)
            .field("merge", &self.merge)
            .field("wallet_type", &self.wallet_type)
            .finish_non_exhaustive()
    }
}

/// A payment that is settled to the satoshi but has no change address yet.
///
/// Inputs equal destination, change and fee; every input is of one mixdepth, unfrozen, not locked, and if
/// it is a bond, expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) inputs: Vec<Coin>,
    pub(super) destination: TxOut,
    pub(super) change: Option<Amount>,
    pub(super) fee: Amount,
    pub(super) vsize: u64,
    pub(super) lock_time: absolute::LockTime,
}

impl Plan {
    /// The coins to spend; the wallet locks them before anything else happens.
    #[must_use]
    pub fn inputs(&self) -> &[Coin] {
        &self.inputs
    }

    /// The payment.
    #[must_use]
    pub const fn destination(&self) -> &TxOut {
        &self.destination
    }

    /// What comes back; `Some` needs a change script in [`Plan::build`].
    #[must_use]
    pub const fn change(&self) -> Option<Amount> {
        self.change
    }

    /// What the miner gets.
    #[must_use]
    pub const fn fee(&self) -> Amount {
        self.fee
    }

    /// Virtual bytes of the signed transaction, at most.
    #[must_use]
    pub const fn vsize(&self) -> u64 {
        self.vsize
    }

    /// A block height against fee sniping, or the newest lock time of the bonds that are spent.
    #[must_use]
    pub const fn lock_time(&self) -> absolute::LockTime {
        self.lock_time
    }

    /// Whether a timelocked coin is spent.
    #[must_use]
    pub fn includes_expired_bond(&self) -> bool {
        self.inputs.iter().any(|coin| coin.place.is_bond())
    }
}

/// Plans a payment of `amount` to `destination`, or of everything when there is no amount.
///
/// * `inputs`: exactly these coins, instead of a choice (decision R-23).
/// * A sweep takes every ordinary coin that is not frozen, unconfirmed ones too; expired bonds only when
///   there is no such coin (decision R-24).
/// * Otherwise the merge algorithm chooses among confirmed ordinary coins, and among all ordinary coins
///   only when those do not suffice (decision R-18). The fee is always that of the coins really chosen,
///   and if they turn out too few more are chosen (decision R-25). Change below [`CHANGE_FLOOR`] is left
///   to the miner (decision R-19).
///
/// # Errors
/// [`SendError::InsufficientFunds`], [`SendError::NothingToSweep`], [`SendError::DustOutput`],
/// [`SendError::UnusableInput`], [`SendError::BadInputList`], [`SendError::TooLarge`].
pub fn plan(
    ctx: &mut SpendContext<'_>,
    amount: Option<Amount>,
    destination: &Script,
    inputs: Option<&[OutPoint]>,
) -> Result<Plan, SendError> {
    plan_with_change(ctx, amount, destination, inputs, None)
}

/// As [`plan`], for a change output of a given size in place of the wallet's own.
pub(super) fn plan_with_change(
    ctx: &mut SpendContext<'_>,
    amount: Option<Amount>,
    destination: &Script,
    inputs: Option<&[OutPoint]>,
    change_bytes: Option<u64>,
) -> Result<Plan, SendError> {
    let terms = Terms {
        rate: ctx.rate_sat_per_kvb,
        destination_bytes: output_size(destination),
        change_bytes: change_bytes.unwrap_or_else(|| change_size(ctx.wallet_type)),
    };
    if let Some(amount) = amount {
        relayed(amount, destination)?;
    }
    let chosen = match (inputs, amount) {
        (Some(list), _) => explicit(ctx, list)?,
        (None, None) => sweep(ctx)?,
        (None, Some(amount)) => choose(ctx, &terms, amount)?,
    };
    let settled = terms.settle(&chosen, amount).map_err(|short| insufficient(ctx, short))?;
    relayed(settled.paid, destination)?;
    let weight = settled.size.weight();
    if weight.to_wu() > MAX_STANDARD_TX_WEIGHT.into() {
        return Err(SendError::TooLarge {
            inputs: chosen.len(),
            weight: weight.to_wu(),
            limit: MAX_STANDARD_TX_WEIGHT.into(),
        });
    }
    Ok(Plan {
        lock_time: lock_time(&chosen, ctx.tip_height, ctx.rng),
        inputs: chosen.into_iter().cloned().collect(),
        destination: TxOut { value: settled.paid, script_pubkey: ScriptBuf::from(destination) },
        change: settled.change,
        fee: settled.fee,
        vsize: settled.size.vsize(),
    })
}

/// Refuses outputs that nodes do not relay. The limit depends on the script: 294 for P2WPKH, 330 for P2WSH
/// and P2TR, 540 for P2SH, 546 for P2PKH.
fn relayed(value: Amount, script: &Script) -> Result<(), SendError> {
    let limit = script.minimal_non_dust();
    if value < limit {
        return Err(SendError::DustOutput { value: value.to_sat(), limit: limit.to_sat() });
    }
    Ok(())
}

fn expired(coin: &Coin, median_time: u32) -> bool {
    // The lock time must lie strictly before the median time for a block to accept it.
    coin.locktime.is_some_and(|locktime| locktime < median_time)
}

fn explicit<'a>(ctx: &SpendContext<'a>, list: &[OutPoint]) -> Result<Vec<&'a Coin>, SendError> {
    let mut seen = HashSet::new();
    if list.is_empty() || !list.iter().all(|outpoint| seen.insert(*outpoint)) {
        return Err(SendError::BadInputList);
    }
    list.iter()
        .map(|outpoint| {
            let unusable = |reason| SendError::UnusableInput { outpoint: *outpoint, reason };
            let coin = ctx
                .coins
                .iter()
                .find(|coin| coin.outpoint == *outpoint)
                .ok_or_else(|| unusable("not an unspent coin of this wallet"))?;
            if coin.mixdepth() != ctx.mixdepth {
                return Err(unusable("in another mixdepth"));
            }
            if coin.frozen {
                return Err(unusable("frozen"));
            }
            if coin.locked {
                return Err(unusable("in use by a running operation"));
            }
            if coin.place.is_bond() && !expired(coin, ctx.median_time) {
                return Err(unusable("timelocked"));
            }
            Ok(coin)
        })
        .collect()
}

fn filter(ctx: &SpendContext<'_>, min_confirmations: u32) -> CandidateFilter<'static> {
    CandidateFilter {
        mixdepth: ctx.mixdepth,
        min_confirmations,
        tip_height: ctx.tip_height,
        exclude: None,
    }
}

fn sweep<'a>(ctx: &SpendContext<'a>) -> Result<Vec<&'a Coin>, SendError> {
    let ordinary = filter(ctx, 0).candidates(ctx.coins);
    if !ordinary.is_empty() {
        return Ok(ordinary);
    }
    let bonds: Vec<&Coin> = ctx
        .coins
        .iter()
        .filter(|coin| {
            coin.place.is_bond()
                && coin.mixdepth() == ctx.mixdepth
                && !coin.frozen
                && !coin.locked
                && expired(coin, ctx.median_time)
        })
        .collect();
    if bonds.is_empty() {
        return Err(SendError::NothingToSweep(ctx.mixdepth));
    }
    Ok(bonds)
}

fn choose<'a>(
    ctx: &SpendContext<'a>,
    terms: &Terms,
    amount: Amount,
) -> Result<Vec<&'a Coin>, SendError> {
    let own = InputKind::of_wallet(ctx.wallet_type);
    let expected = plus(amount, terms.size_with_change(own, EXPECTED_INPUTS).fee(terms.rate));
    let least = plus(amount, terms.size_without_change(own, 1).fee(terms.rate));
    let confirmed = filter(ctx, 1).candidates(ctx.coins);
    let all = filter(ctx, 0).candidates(ctx.coins);
    // The reference gives up when the fee of eight inputs cannot be had, even where one coin would do.
    // Largest first comes last: it finds coins whenever there are any that pay, because the other ways may
    // pick coins that cost more than they are worth.
    let ways = [(ctx.merge, expected), (ctx.merge, least), (MergeAlgorithm::Default, least)];
    for candidates in [&confirmed, &all] {
        for (merge, target) in ways {
            if let Some(coins) = reach(merge, terms, candidates, amount, target) {
                return Ok(coins);
            }
        }
    }
    // What all coins would cost, where that is more than the estimate: dust can eat itself up.
    let needed = terms.settle(&all, Some(amount)).err().map_or(0, |short| short.needed);
    let available = sum(all.iter().map(|coin| coin.value));
    let expected = expected.to_sat();
    let needed = if available < u128::from(expected) { expected } else { needed };
    Err(insufficient(ctx, Short { needed }))
}

/// Chooses with higher and higher targets until the coins pay for themselves. Each round reaches more than
/// the one before, so this ends at the latest when all coins are taken.
fn reach<'a>(
    merge: MergeAlgorithm,
    terms: &Terms,
    candidates: &[&'a Coin],
    amount: Amount,
    mut target: Amount,
) -> Option<Vec<&'a Coin>> {
    loop {
        let coins = select_coins(merge, candidates, target).ok()?;
        match terms.settle(&coins, Some(amount)) {
            Ok(_) => return Some(coins),
            Err(Short { needed }) => {
                // No higher target exists: no number of coins pays for that.
                let higher = target.to_sat().checked_add(1)?;
                target = Amount::from_sat(needed.max(higher));
            }
        }
    }
}

fn plus(a: Amount, b: Amount) -> Amount {
    Amount::from_sat(a.to_sat().saturating_add(b.to_sat()))
}

fn insufficient(ctx: &SpendContext<'_>, short: Short) -> SendError {
    let available = sum(filter(ctx, 0).candidates(ctx.coins).iter().map(|coin| coin.value));
    let in_mixdepth = |coin: &&Coin| coin.mixdepth() == ctx.mixdepth && coin.frozen;
    let frozen = sum(ctx.coins.iter().filter(in_mixdepth).map(|coin| coin.value));
    SendError::InsufficientFunds {
        wanted: short.needed,
        available: clamp(available),
        frozen: clamp(frozen),
    }
}

/// The coins do not pay for amount and fee, which together are this many satoshi.
#[derive(Debug, Clone, Copy)]
struct Short {
    needed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Settled {
    paid: Amount,
    change: Option<Amount>,
    fee: Amount,
    size: TxSize,
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    rate: u64,
    destination_bytes: u64,
    change_bytes: u64,
}

impl Terms {
    fn size_without_change(&self, kind: InputKind, count: u64) -> TxSize {
        TxSize::new().inputs_of(kind, count).output(self.destination_bytes)
    }

    fn size_with_change(&self, kind: InputKind, count: u64) -> TxSize {
        self.size_without_change(kind, count).output(self.change_bytes)
    }

    /// Divides what the coins are worth into payment, change and fee.
    fn settle(&self, coins: &[&Coin], amount: Option<Amount>) -> Result<Settled, Short> {
        let size = coins
            .iter()
            .fold(TxSize::new(), |size, coin| size.input(InputKind::of_coin(coin)))
            .output(self.destination_bytes);
        let fee = size.fee(self.rate);
        // Coins worth more than 2^64 satoshi do not exist; whoever made them up gets no transaction.
        let total = u64::try_from(sum(coins.iter().map(|coin| coin.value)))
            .map_err(|_| Short { needed: u64::MAX })?;
        let total = Amount::from_sat(total);
        let Some(amount) = amount else {
            let paid = total.checked_sub(fee).ok_or_else(|| Short { needed: fee.to_sat() })?;
            return Ok(Settled { paid, change: None, fee, size });
        };
        let with_change = size.output(self.change_bytes);
        let spent = plus(amount, with_change.fee(self.rate));
        if let Some(change) = total.checked_sub(spent).filter(|change| *change >= CHANGE_FLOOR) {
            let fee = with_change.fee(self.rate);
            return Ok(Settled { paid: amount, change: Some(change), fee, size: with_change });
        }
        let needed = plus(amount, fee);
        if total < needed {
            return Err(Short { needed: needed.to_sat() });
        }
        // No change output: what is left over goes to the miner.
        let fee = total.checked_sub(amount).ok_or_else(|| Short { needed: needed.to_sat() })?;
        Ok(Settled { paid: amount, change: None, fee, size })
    }
}

/// The lock time: the newest of the bonds (decision R-26), else the tip, one time in ten up to 99 blocks
/// earlier (`spec/wallet.md` 8.3).
fn lock_time(coins: &[&Coin], tip_height: u32, rng: &mut dyn RngCore) -> absolute::LockTime {
    let newest = coins.iter().filter_map(|coin| coin.locktime).max();
    if let Some(time) = newest.and_then(|time| absolute::LockTime::from_time(time).ok()) {
        return time;
    }
    let mut height = tip_height;
    if rng.random_ratio(1, BACKDATED_ONE_IN) {
        height = height.saturating_sub(rng.random_range(0..=BACKDATED_AT_MOST)).max(1);
    }
    absolute::LockTime::from_height(height).unwrap_or(absolute::LockTime::ZERO)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::{Txid, WPubkeyHash};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::path::ScriptPlace;
    use crate::snapshot::CoinKind;
    use crate::types::{Branch, Keychain};

    fn script(byte: u8) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
    }

    fn coins(values: &[u64]) -> Vec<Coin> {
        let keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
        (0..)
            .zip(values)
            .map(|(index, value)| Coin {
                outpoint: OutPoint { txid: Txid::from_byte_array([1; 32]), vout: index },
                value: Amount::from_sat(*value),
                script: script(1),
                place: ScriptPlace::Ranged { keychain, index },
                height: Some(100),
                kind: CoinKind::Deposit,
                frozen: false,
                locked: false,
                locktime: None,
                commitments_used: Vec::new(),
            })
            .collect()
    }

    fn run(
        coins: &[Coin],
        amount: Option<u64>,
        seed: u64,
        change: Option<u64>,
    ) -> Result<Plan, SendError> {
        let mut ctx = SpendContext {
            coins,
            mixdepth: Mixdepth(0),
            tip_height: 850_000,
            median_time: 1_720_000_000,
            rate_sat_per_kvb: 10_000,
            merge: MergeAlgorithm::Default,
            wallet_type: WalletType::NativeSegwit,
            rng: &mut StdRng::seed_from_u64(seed),
        };
        plan_with_change(&mut ctx, amount.map(Amount::from_sat), &script(2), None, change)
    }

    fn pay(values: &[u64], amount: u64) -> Result<Plan, SendError> {
        run(&coins(values), Some(amount), 1, None)
    }

    #[test]
    fn custom_change_of_the_reference_has_its_fee() {
        // Case "custom change" of direct_send.json: change to P2TR, an output of 43 bytes.
        let plan = run(&coins(&[1_000_000]), Some(100_000), 1, Some(43)).unwrap();
        assert_eq!(plan.fee().to_sat(), 1530);
        assert_eq!(plan.change(), Some(Amount::from_sat(898_470)));
    }

    #[test]
    fn change_below_the_floor_goes_to_the_miner() {
        // One input, two outputs: 141 vbytes; without change 110.
        let plan = pay(&[100_000], 100_000 - 1410 - 546).unwrap();
        assert_eq!((plan.change(), plan.fee().to_sat()), (Some(CHANGE_FLOOR), 1410));
        let plan = pay(&[100_000], 100_000 - 1410 - 545).unwrap();
        assert_eq!((plan.change(), plan.fee().to_sat()), (None, 1410 + 545));
        let plan = pay(&[100_000], 100_000 - 1100).unwrap();
        assert_eq!((plan.change(), plan.fee().to_sat()), (None, 1100));
        let error = pay(&[100_000], 100_000 - 1099).unwrap_err();
        assert!(matches!(error, SendError::InsufficientFunds { available: 100_000, .. }));
    }

    #[test]
    fn more_than_eight_inputs_pay_for_all_of_them() {
        let plan = pay(&[10_000; 30], 150_000).unwrap();
        let count = plan.inputs().len() as u64;
        assert!(count > 8);
        let size = TxSize::new().inputs_of(InputKind::P2wpkh, count).output(31).output(31);
        assert_eq!(plan.vsize(), size.vsize());
        assert_eq!(plan.fee(), size.fee(10_000));
    }

    #[test]
    fn coins_that_cost_more_than_they_bring_do_not_prevent_a_payment() {
        let mut values = vec![300; 50];
        values.extend([100_000, 100_000]);
        for merge in [
            MergeAlgorithm::Default,
            MergeAlgorithm::Gradual,
            MergeAlgorithm::Greedy,
            MergeAlgorithm::Greediest,
        ] {
            let coins = coins(&values);
            let mut ctx = SpendContext {
                coins: &coins,
                mixdepth: Mixdepth(0),
                tip_height: 850_000,
                median_time: 1_720_000_000,
                rate_sat_per_kvb: 10_000,
                merge,
                wallet_type: WalletType::NativeSegwit,
                rng: &mut StdRng::seed_from_u64(1),
            };
            let amount = Amount::from_sat(197_000);
            let plan = plan(&mut ctx, Some(amount), &script(2), None);
            assert!(plan.is_ok(), "{merge:?}: {plan:?}");
        }
    }

    #[test]
    fn the_destination_gets_no_dust() {
        for (destination, limit) in [
            (script(2), 294),
            (ScriptBuf::from_hex(&format!("0020{}", "00".repeat(32))).unwrap(), 330),
            (ScriptBuf::from_hex(&format!("5120{}", "00".repeat(32))).unwrap(), 330),
            (ScriptBuf::from_hex(&format!("a914{}87", "00".repeat(20))).unwrap(), 540),
            (ScriptBuf::from_hex(&format!("76a914{}88ac", "00".repeat(20))).unwrap(), 546),
        ] {
            let coins = coins(&[100_000]);
            let pay = |amount| {
                let mut ctx = SpendContext {
                    coins: &coins,
                    mixdepth: Mixdepth(0),
                    tip_height: 850_000,
                    median_time: 1_720_000_000,
                    rate_sat_per_kvb: 1000,
                    merge: MergeAlgorithm::Default,
                    wallet_type: WalletType::NativeSegwit,
                    rng: &mut StdRng::seed_from_u64(1),
                };
                plan(&mut ctx, Some(Amount::from_sat(amount)), &destination, None)
            };
            assert!(pay(limit).is_ok());
            for amount in [0, limit - 1] {
                let error = pay(amount).unwrap_err();
                assert!(
                    matches!(error, SendError::DustOutput { value, limit: l } if value == amount && l == limit),
                    "{error:?}"
                );
            }
        }
        let swept = run(&coins(&[1100 + 293]), None, 1, None).unwrap_err();
        assert!(matches!(swept, SendError::DustOutput { value: 293, limit: 294 }), "{swept:?}");
        let swept = run(&coins(&[1099]), None, 1, None).unwrap_err();
        assert!(matches!(
            swept,
            SendError::InsufficientFunds { wanted: 1100, available: 1099, .. }
        ));
    }

    #[test]
    fn a_transaction_that_nobody_relays_is_refused() {
        // 272 weight units an input.
        assert!(run(&coins(&[10_000; 1400]), None, 1, None).is_ok());
        let error = run(&coins(&[10_000; 1500]), None, 1, None).unwrap_err();
        assert!(matches!(error, SendError::TooLarge { inputs: 1500, limit: 400_000, .. }));
    }

    #[test]
    fn one_lock_time_in_ten_is_up_to_99_blocks_old() {
        let coins = coins(&[100_000]);
        let heights: Vec<u32> = (0..2000)
            .map(|seed| {
                let plan = run(&coins, None, seed, None).unwrap();
                plan.lock_time().to_consensus_u32()
            })
            .collect();
        let backdated = heights.iter().filter(|height| **height != 850_000).count();
        assert!((140..260).contains(&backdated), "{backdated} of 2000");
        assert!(heights.iter().all(|height| (849_901..=850_000).contains(height)));
        // Never below 1, never panics.
        for seed in 0..200 {
            for tip in [0, 1, 50, u32::MAX] {
                let time = lock_time(&[], tip, &mut StdRng::seed_from_u64(seed));
                assert!(time.is_block_height());
                assert!(time.to_consensus_u32() >= 1 || tip == 0 || tip == u32::MAX);
            }
        }
    }

    #[test]
    fn a_change_script_is_needed_exactly_when_there_is_change() {
        let mut rng = StdRng::seed_from_u64(1);
        let with = pay(&[100_000], 50_000).unwrap();
        let without = run(&coins(&[100_000]), None, 1, None).unwrap();
        assert!(with.build(None, &mut rng).is_err());
        assert!(without.build(Some(script(3)), &mut rng).is_err());
        assert!(with.build(Some(script(2)), &mut rng).is_err(), "the destination's own script");
        assert_eq!(with.build(Some(script(3)), &mut rng).unwrap().output.len(), 2);
        assert_eq!(without.build(None, &mut rng).unwrap().output.len(), 1);
    }

    #[test]
    fn inputs_and_outputs_are_shuffled() {
        let coins = coins(&[10_000; 6]);
        let plan = run(&coins, Some(52_000), 1, None).unwrap();
        assert_eq!(plan.inputs().len(), 6);
        let mut orders = HashSet::new();
        let mut change_first = 0;
        for seed in 0..100 {
            let tx = plan.build(Some(script(3)), &mut StdRng::seed_from_u64(seed)).unwrap();
            let order: Vec<u32> = tx.input.iter().map(|input| input.previous_output.vout).collect();
            orders.insert(order);
            change_first += u32::from(tx.output.first().unwrap().script_pubkey == script(3));
        }
        assert!(orders.len() > 80, "{} orders of 720", orders.len());
        assert!((25..75).contains(&change_first), "{change_first} of 100");
    }
}
