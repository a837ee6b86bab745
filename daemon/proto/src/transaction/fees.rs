//! Amounts of both sides (`spec/protocol.md` 6.6, 10.5; `spec/roles.md` 4.4).

use crate::cjfee::{CjFee, RelativeFee};
use crate::offer::{DUST_THRESHOLD, Offer};

/// Decimals to which the relative fees of a sweep are summed. Finer ones change nothing: the amount is
/// below 10^16.
const SWEEP_DECIMALS: u32 = 20;

/// Value that a maker needs in one mixdepth for an amount: the amount, its share of the miner fee, and change
/// above the dust threshold, minus what it earns. `None` when that is not an amount of money.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "sums of a few u64 fit an i128")]
pub fn required_by_maker(offer: &Offer, amount: u64) -> Option<u64> {
    let required = i128::from(amount) + i128::from(DUST_THRESHOLD) + 1 - offer.earning(amount);
    u64::try_from(required).ok()
}

/// A maker's change: its inputs minus the amount, plus what it earns. `None` when negative.
#[must_use]
pub fn maker_change(offer: &Offer, amount: u64, inputs: u64) -> Option<u64> {
    Agreement::of(offer, amount).change(inputs)
}

/// What a maker and its taker agreed on: an amount within an offer, satoshi. Fixed by the `!fill`, whatever is offered
/// afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The equal amount.
    pub amount: u64,
    /// What the taker pays the maker.
    pub fee: u64,
    /// What the maker adds to the miner fee.
    pub tx_fee: u64,
}

impl Agreement {
    /// An amount at the terms of an offer.
    #[must_use]
    pub fn of(offer: &Offer, amount: u64) -> Self {
        Self { amount, fee: offer.cj_fee.of(amount), tx_fee: offer.tx_fee }
    }

    /// What the maker nets: fee minus its share of the miner fee. May be negative.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "the difference of two u64 fits an i128")]
    pub fn earning(&self) -> i128 {
        i128::from(self.fee) - i128::from(self.tx_fee)
    }

    /// The maker's change for inputs of this value: what is left after the amount, plus what it nets. `None` when
    /// negative.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "sums of a few u64 fit an i128")]
    pub fn change(&self, inputs: u64) -> Option<u64> {
        u64::try_from(i128::from(inputs) - i128::from(self.amount) + self.earning()).ok()
    }
}

/// Limits that a taker sets on the fee of one maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeLimits {
    /// Satoshi.
    pub absolute: u64,
    /// Fraction of the amount.
    pub relative: RelativeFee,
}

impl FeeLimits {
    /// Whether a net fee (fee minus the maker's share of the miner fee) is acceptable: a maker is refused
    /// only if it is above both limits.
    #[must_use]
    pub fn accept(&self, net_fee: i128, amount: u64) -> bool {
        if net_fee <= i128::from(self.absolute) {
            return true;
        }
        // fee <= fraction * amount, in integers. What does not fit is beyond any fee.
        let (mantissa, scale) = self.relative.parts();
        let limit = mantissa.checked_mul(u128::from(amount));
        let fee = u128::try_from(net_fee).ok();
        let scaled =
            fee.zip(10_u128.checked_pow(scale)).and_then(|(fee, one)| fee.checked_mul(one));
        match (scaled, limit) {
            (Some(fee), Some(limit)) => fee <= limit,
            (None, _) => false,
            (Some(_), None) => true,
        }
    }
}

/// The taker's part of the miner fee: the whole minus what makers add, never below zero.
#[must_use]
pub fn taker_miner_fee(miner_fee: u64, offers: &[Offer]) -> u64 {
    let shares = offers.iter().fold(0_u64, |sum, offer| sum.saturating_add(offer.tx_fee));
    miner_fee.saturating_sub(shares)
}

/// The amount of a sweep: everything that is left after fees, so that no change remains. The exact quotient,
/// rounded half to even. `None` when the fees eat the inputs.
#[must_use]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "checked where it can overflow; the divisor is at least 10^20"
)]
pub fn sweep_amount(inputs: u64, miner_fee: u64, offers: &[Offer]) -> Option<u64> {
    const ONE: u128 = 10_u128.pow(SWEEP_DECIMALS);
    let (mut absolute, mut relative) = (0_u64, 0_u128);
    for offer in offers {
        match &offer.cj_fee {
            CjFee::Absolute(fee) => absolute = absolute.checked_add(*fee)?,
            CjFee::Relative(fee) => relative = relative.checked_add(at_sweep_scale(fee))?,
        }
    }
    let left = inputs.checked_sub(taker_miner_fee(miner_fee, offers))?.checked_sub(absolute)?;
    // At most 2^64 * 10^20 < 2^128 holds for all the money there is; anything beyond is refused.
    let numerator = u128::from(left).checked_mul(ONE)?;
    let denominator = ONE.checked_add(relative)?;
    let (quotient, remainder) = (numerator / denominator, numerator % denominator);
    let doubled = remainder.checked_mul(2)?;
    let up = doubled > denominator || (doubled == denominator && quotient % 2 == 1);
    u64::try_from(quotient + u128::from(up)).ok().filter(|amount| *amount > 0)
}

/// What makers ask for together at an amount, rounded down once: the total that the reference reports for a sweep. The
/// sum of what each of them really gets may differ by a few satoshi. `None` when it is no amount of money.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "the divisor is a power of ten")]
pub fn fee_total(offers: &[Offer], amount: u64) -> Option<u64> {
    let (mut absolute, mut relative) = (0_u64, 0_u128);
    for offer in offers {
        match &offer.cj_fee {
            CjFee::Absolute(fee) => absolute = absolute.checked_add(*fee)?,
            CjFee::Relative(fee) => relative = relative.checked_add(at_sweep_scale(fee))?,
        }
    }
    let share = relative.checked_mul(amount.into())? / 10_u128.pow(SWEEP_DECIMALS);
    absolute.checked_add(u64::try_from(share).ok()?)
}

#[expect(
    clippy::arithmetic_side_effects,
    reason = "the branch makes the difference positive; the divisor is a power of ten"
)]
fn at_sweep_scale(fee: &RelativeFee) -> u128 {
    let (mantissa, scale) = fee.parts();
    if scale <= SWEEP_DECIMALS {
        // Below 10^20, because the fee is below one.
        mantissa.saturating_mul(10_u128.saturating_pow(SWEEP_DECIMALS - scale))
    } else {
        10_u128.checked_pow(scale - SWEEP_DECIMALS).map_or(0, |excess| mantissa / excess)
    }
}

/// Whether a sweep may go on after the miner fee was estimated again with the real inputs: its amount is
/// fixed, so a much higher or lower fee cannot be corrected any more (`max_sweep_fee_change`, a fraction of
/// the first estimate).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "fees are far below 2^53")]
pub fn sweep_fee_is_acceptable(first: u64, now: u64, max_change: f64) -> bool {
    first.abs_diff(now) as f64 <= max_change * first as f64
}
