//! How a maker makes its offer from its balances, and which mixdepth it spends from (`spec/roles.md` 4.2,
//! 4.6; vector `maker_offers.json`).
//!
//! One offer, from the largest mixdepth only: the total balance is not shown.

use crate::cjfee::{CjFee, RelativeFee};
use crate::offer::{DUST_THRESHOLD, Offer, OfferId, OrderType};

/// Times that the transaction fee share is halved before it is given up.
const MAX_HALVINGS: u32 = 20;
/// Significant digits of a randomised relative fee.
const FEE_DIGITS: i32 = 3;

/// What the owner configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OfferTerms {
    /// Kind of the offer; the kind of `cj_fee` agrees.
    pub order_type: OrderType,
    /// `cjfee_a` in satoshi or `cjfee_r`.
    pub cj_fee: CjFee,
    /// `txfee_contribution`, satoshi.
    pub tx_fee: u64,
    /// `minsize`, satoshi.
    pub min_size: u64,
}

/// How far values are moved at random, each a fraction 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// `txfee_contribution_factor`.
    pub tx_fee: f64,
    /// `cjfee_factor`.
    pub cj_fee: f64,
    /// `size_factor`.
    pub size: f64,
}

/// The exact terms, as the reference's API offers them: `None` when no balance reaches the minimum.
/// `balances` are confirmed, unfrozen and without bonds, one for each mixdepth, satoshi.
#[must_use]
pub fn exact(terms: &OfferTerms, balances: &[u64]) -> Option<Offer> {
    let largest = *balances.iter().max()?;
    let max_size = largest.checked_sub(terms.tx_fee.max(DUST_THRESHOLD))?;
    let min_size = raised_minimum(terms, 1.5).max(DUST_THRESHOLD);
    let cj_fee = match terms.cj_fee {
        CjFee::Absolute(fee) => CjFee::Absolute(fee.checked_add(terms.tx_fee)?),
        relative @ CjFee::Relative(_) => relative,
    };
    let offer = Offer {
        order_type: terms.order_type,
        id: OfferId::new(0)?,
        min_size,
        max_size,
        tx_fee: terms.tx_fee,
        cj_fee,
    };
    (min_size <= max_size).then_some(offer)
}

/// The minimum of a relative offer, raised so that the fee covers `factor` times the share of the miner fee;
/// unchanged for absolute offers.
///
/// A float, because the reference's is one and its last digit is visible on the wire (case "basic rel
/// txfee raises minsize").
#[must_use]
pub fn raised_minimum(terms: &OfferTerms, factor: f64) -> u64 {
    match &terms.cj_fee {
        CjFee::Relative(fee) if terms.tx_fee > 0 && !fee.is_zero() => {
            terms.min_size.max(truncate(factor * to_float(terms.tx_fee) / fee.approximate()))
        }
        _ => terms.min_size,
    }
}

/// Randomised terms, so that an offer does not tell its maker's wishes or exact balance. `uniform(low, high)`
/// draws from a cryptographic generator; it is called for the transaction fee share, the minimum, the maximum
/// and the fee, in this order.
#[must_use]
pub fn randomised(
    terms: &OfferTerms,
    spread: &Spread,
    balances: &[u64],
    mut uniform: impl FnMut(f64, f64) -> f64,
) -> Option<Offer> {
    let largest = *balances.iter().filter(|balance| **balance > terms.min_size).max()?;
    let around = |value: f64, factor: f64| (value * (1.0 - factor), value * (1.0 + factor));
    let mut draw = |(low, high)| uniform(low, high);
    let mut tx_fee = truncate(draw(around(to_float(terms.tx_fee), spread.tx_fee)));
    let min_size =
        truncate(draw(around(to_float(terms.min_size), spread.size))).max(DUST_THRESHOLD);
    let top = to_float(largest.checked_sub(tx_fee.max(DUST_THRESHOLD))?);
    let max_size = truncate(draw((top * (1.0 - spread.size), top)));
    let cj_fee = match &terms.cj_fee {
        CjFee::Absolute(fee) => {
            let fee = truncate(draw(around(to_float(*fee), spread.cj_fee)));
            CjFee::Absolute(fee.checked_add(tx_fee)?)
        }
        CjFee::Relative(fee) => {
            let drawn = draw(around(fee.approximate(), spread.cj_fee));
            let fee = round_fee(drawn)?;
            // The share of the miner fee must not eat the fee of the smallest coinjoin.
            let smallest = fee.approximate() * to_float(min_size);
            let halved = (0..=MAX_HALVINGS).map(|times| tx_fee >> times);
            tx_fee = halved.into_iter().find(|share| to_float(*share) < smallest).unwrap_or(0);
            CjFee::Relative(fee)
        }
    };
    let id = OfferId::new(0)?;
    let offer = Offer { order_type: terms.order_type, id, min_size, max_size, tx_fee, cj_fee };
    (min_size <= max_size).then_some(offer)
}

/// A fee with three significant digits; the reference's six decimals would make small fees coarse.
#[expect(clippy::arithmetic_side_effects, reason = "floats, and a place number of at most 32")]
fn round_fee(fee: f64) -> Option<RelativeFee> {
    if !(fee.is_finite() && (0.0..1.0).contains(&fee)) {
        return None;
    }
    if fee == 0.0 {
        return Some(RelativeFee::ZERO);
    }
    // Of 0.0000219: the first digit stands at place 5, so three digits end at place 7.
    let first = -fee.log10().floor();
    let decimals = (0..=32).find(|places| f64::from(*places) >= first)? + FEE_DIGITS - 1;
    format!("{fee:.*}", usize::try_from(decimals).ok()?).parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
const fn to_float(amount: u64) -> f64 {
    amount as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "truncation is meant, and the conversion saturates"
)]
const fn truncate(value: f64) -> u64 {
    value as u64
}

/// Which mixdepth a maker spends from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputMixdepthRule {
    /// The lowest (the reference's API).
    Lowest,
    /// The one after the largest cyclic gap: coins stay together in few mixdepths, so that the largest offer
    /// stays large.
    LargestGap,
}

impl InputMixdepthRule {
    /// Chooses among mixdepths that have enough; `count` is the wallet's number of mixdepths.
    #[must_use]
    pub fn choose(self, available: &[u8], count: u8) -> Option<u8> {
        let mut sorted = available.to_vec();
        sorted.sort_unstable();
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        if self == Self::Lowest {
            return Some(first);
        }
        let before_first = (count.saturating_add(first).saturating_sub(last), first);
        let pairs = sorted.iter().zip(sorted.iter().skip(1));
        let gaps = std::iter::once(before_first)
            .chain(pairs.map(|(previous, next)| (next.saturating_sub(*previous), *next)));
        // The first of several equal gaps.
        gaps.fold(None, |best: Option<(u8, u8)>, gap| match best {
            Some(best) if best.0 >= gap.0 => Some(best),
            _ => Some(gap),
        })
        .map(|(_, mixdepth)| mixdepth)
    }
}
