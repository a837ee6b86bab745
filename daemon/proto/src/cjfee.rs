//! Coinjoin fees: the relative fee as an exact decimal, and what a maker earns
//! (`spec/protocol.md` 6.4, 6.6; vectors `cjfee.json`, `offers.json`).
//!
//! The wire carries relative fees as decimal text. Binary floating point is not acceptable here: a
//! difference of one satoshi makes the other side refuse to sign. All arithmetic is on decimal digits.

use std::fmt;
use std::str::FromStr;

/// Most significant digits that a relative fee may have.
pub const MAX_FEE_DIGITS: usize = 32;
/// Largest absolute value of a decimal exponent in scientific notation.
///
/// An unbounded exponent (`1E-9999999999`) would expand to gigabytes of zeros.
pub const MAX_FEE_EXPONENT: u32 = 32;
/// Longest text that is looked at at all.
const MAX_FEE_TEXT: usize = 80;

/// A relative coinjoin fee: a fraction `0 <= f < 1` with at most 32 significant digits.
///
/// The scale (number of decimals) is kept as written, so that text survives a round trip; scientific
/// notation is accepted and written out in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelativeFee {
    /// The digits as an integer.
    mantissa: u128,
    /// The fee is `mantissa / 10^scale`; at most `MAX_FEE_DIGITS + MAX_FEE_EXPONENT`.
    scale: u32,
}

/// Why a fee text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CjFeeError {
    /// Not a decimal number (this includes `NaN`, infinities and signs).
    #[error("not an unsigned decimal number")]
    NotDecimal,
    /// More digits or a larger exponent than any honest fee has.
    #[error("more than {MAX_FEE_DIGITS} digits or an exponent beyond {MAX_FEE_EXPONENT}")]
    TooLong,
    /// One or more.
    #[error("relative fee is not below 1")]
    NotBelowOne,
}

impl RelativeFee {
    /// No fee.
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// The fee for an amount in satoshi: the exact product, rounded half to even.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "every step is bounded in the comments")]
    pub fn of(&self, amount: u64) -> u64 {
        // 32 digits times 20 digits: 52 decimal digits, more than 128 bits. Two halves of 16 digits
        // each fit.
        const HALF: u128 = 10_u128.pow(16);
        let amount = u128::from(amount);
        let low = (self.mantissa % HALF) * amount; // < 10^36
        let high = (self.mantissa / HALF) * amount + low / HALF; // < 10^36 + 10^20
        let low = low % HALF;
        // product = high * 10^16 + low, to be divided by 10^scale.
        let (quotient, remainder_high, remainder_low, divisor) = if self.scale >= 16 {
            let Some(divisor) = 10_u128.checked_pow(self.scale - 16) else {
                // 10^39 and more: the product is below 10^53, the divisor at least 10^55.
                return 0;
            };
            (high / divisor, high % divisor, low, divisor)
        } else {
            let divisor = 10_u128.pow(self.scale);
            // mantissa < 10^scale <= 10^15, so the whole product fits: high is small.
            let product = high * HALF + low;
            (product / divisor, product % divisor, 0, divisor)
        };
        // The result is below the amount, because the fee is below one.
        let quotient = u64::try_from(quotient).unwrap_or(u64::MAX);
        let doubled = remainder_high * 2;
        let round_up = if self.scale >= 16 {
            // Compare (remainder_high * 10^16 + remainder_low) with divisor * 10^16 / 2.
            match doubled.cmp(&divisor) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => remainder_low > 0 || quotient % 2 == 1,
                std::cmp::Ordering::Less => {
                    // An odd divisor only occurs for 10^0 = 1, where remainder_high is 0.
                    divisor == 1
                        && (remainder_low * 2 > HALF
                            || (remainder_low * 2 == HALF && quotient % 2 == 1))
                }
            }
        } else {
            doubled > divisor || (doubled == divisor && quotient % 2 == 1)
        };
        quotient.saturating_add(u64::from(round_up))
    }

    /// The fraction as a pair: digits and number of decimals.
    #[must_use]
    pub const fn parts(&self) -> (u128, u32) {
        (self.mantissa, self.scale)
    }

    /// Whether the fee is zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// The nearest floating-point number, for display and weights only, never for money.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // display only
    pub fn approximate(&self) -> f64 {
        let scale = i32::try_from(self.scale).unwrap_or(i32::MAX);
        self.mantissa as f64 / 10f64.powi(scale)
    }
}

impl FromStr for RelativeFee {
    type Err = CjFeeError;

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "32 digits fit 128 bits; exponents are within 32"
    )]
    fn from_str(text: &str) -> Result<Self, CjFeeError> {
        if text.len() > MAX_FEE_TEXT {
            return Err(CjFeeError::TooLong);
        }
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(CjFeeError::NotDecimal);
        }
        if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(CjFeeError::NotDecimal);
        }
        let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
        if digits().count() > MAX_FEE_DIGITS || fraction.len() > 2 * MAX_FEE_DIGITS {
            return Err(CjFeeError::TooLong);
        }
        let mantissa = digits().fold(0_u128, |value, digit| value * 10 + u128::from(digit - b'0'));
        // Both terms are small: the fraction is at most 64 characters, the exponent within ±32.
        let decimals = i64::try_from(fraction.len()).map_err(|_| CjFeeError::TooLong)? - exponent;
        let fee = match u32::try_from(decimals) {
            Ok(scale) if scale <= 2 * MAX_FEE_EXPONENT => Self { mantissa, scale },
            Ok(_) => return Err(CjFeeError::TooLong),
            // A positive exponent left over: an integer; only zero is below one.
            Err(_) if mantissa == 0 => Self::ZERO,
            Err(_) => return Err(CjFeeError::NotBelowOne),
        };
        match 10_u128.checked_pow(fee.scale) {
            Some(one) if fee.mantissa >= one => Err(CjFeeError::NotBelowOne),
            _ => Ok(fee),
        }
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "negation of at most 32")]
fn parse_exponent(text: &str) -> Result<i64, CjFeeError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CjFeeError::NotDecimal);
    }
    let value: u32 = digits.parse().map_err(|_| CjFeeError::TooLong)?;
    if value > MAX_FEE_EXPONENT {
        return Err(CjFeeError::TooLong);
    }
    Ok(if text.starts_with('-') { -i64::from(value) } else { i64::from(value) })
}

/// The wire form: fixed-point, never scientific.
impl fmt::Display for RelativeFee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale == 0 {
            return write!(f, "{}", self.mantissa);
        }
        // The fee is below one, so all digits stand behind the point.
        write!(f, "0.{:0width$}", self.mantissa, width = self.scale as usize)
    }
}

/// What a maker asks for a coinjoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CjFee {
    /// Satoshi, whatever the amount.
    Absolute(u64),
    /// Fraction of the amount.
    Relative(RelativeFee),
}

impl CjFee {
    /// Satoshi that the taker pays this maker at an amount, before the maker's contribution to the
    /// miner fee.
    #[must_use]
    pub fn of(&self, amount: u64) -> u64 {
        match self {
            Self::Absolute(fee) => *fee,
            Self::Relative(fee) => fee.of(amount),
        }
    }
}

/// The wire form of the fee field of an offer.
impl fmt::Display for CjFee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(fee) => fee.fmt(f),
            Self::Relative(fee) => fee.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CjFeeError, RelativeFee};

    #[test]
    fn cjfee_parser_bounded() {
        for text in ["1E-9999999999", "1E9999999999", "1E-33", "1E+33"] {
            assert_eq!(text.parse::<RelativeFee>(), Err(CjFeeError::TooLong), "{text}");
        }
        let long = format!("0.{}", "1".repeat(33));
        assert_eq!(long.parse::<RelativeFee>(), Err(CjFeeError::TooLong));
        assert_eq!("0".repeat(1_000_000).parse::<RelativeFee>(), Err(CjFeeError::TooLong));
        assert!("1E-32".parse::<RelativeFee>().is_ok());
    }

    #[test]
    fn cjfee_range() {
        for text in ["1", "1.0", "1.5", "10", "1E1", "0.1E1", "99E-1"] {
            assert_eq!(text.parse::<RelativeFee>(), Err(CjFeeError::NotBelowOne), "{text}");
        }
        for text in ["-0.1", "+0.1", "NaN", "inf", "", ".", "abc", "0x1", "1_0", " 0.1", "٠", "1e"]
        {
            assert_eq!(text.parse::<RelativeFee>(), Err(CjFeeError::NotDecimal), "{text}");
        }
        assert!("0.99999999999999999999999999999999".parse::<RelativeFee>().is_ok());
    }

    #[test]
    fn scientific_notation_is_written_out() {
        let fee: RelativeFee = "2E-5".parse().unwrap();
        assert_eq!(fee.to_string(), "0.00002");
        assert_eq!("0.000020".parse::<RelativeFee>().unwrap().to_string(), "0.000020");
        assert_eq!("0".parse::<RelativeFee>().unwrap().to_string(), "0");
        assert_eq!(".5".parse::<RelativeFee>().unwrap().to_string(), "0.5");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,100}") {
            let _ = text.parse::<RelativeFee>();
        }

        #[test]
        fn text_round_trips(mantissa in 0_u64..1_000_000_000, extra in 0_usize..20) {
            let text = format!("0.{}{mantissa:09}", "0".repeat(extra));
            let fee: RelativeFee = text.parse().unwrap();
            prop_assert_eq!(fee.to_string(), text);
        }

        #[test]
        fn fee_is_the_exact_product_rounded_half_to_even(
            mantissa in 0_u64..10_000_000_000_000_000,
            scale in 16_u32..=19,
            amount in 0_u64..2_100_000_000_000_000,
        ) {
            let fee: RelativeFee = format!("{mantissa}E-{scale}").parse().unwrap();
            let product = u128::from(mantissa) * u128::from(amount);
            let divisor = 10_u128.pow(scale);
            let (q, r) = (product / divisor, product % divisor);
            let expected = q + u128::from(r * 2 > divisor || (r * 2 == divisor && q % 2 == 1));
            prop_assert_eq!(u128::from(fee.of(amount)), expected);
        }

        #[test]
        fn fee_never_exceeds_the_amount(text in "0\\.[0-9]{1,32}", amount in any::<u64>()) {
            let fee: RelativeFee = text.parse().unwrap();
            prop_assert!(fee.of(amount) <= amount);
        }
    }
}
