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
    for candidates in [&confirmed, &all] {
        // The reference gives up when the fee of eight inputs cannot be had, even where one coin would do.
        for target in [expected, least] {
            if let Some(coins) = reach(ctx.merge, terms, candidates, amount, target) {
                return Ok(coins);
            }
        }
    }
    Err(insufficient(ctx, Short { needed: expected.to_sat() }))
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
            Err(Short { needed }) => target = Amount::from_sat(needed.max(target.to_sat() + 1)),
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
