//! Fidelity bonds: timenumbers, lock times, scripts and values (`spec/wallet.md` 9, vectors
//! `timelocked_addresses.json` and `wallet_bond_value.json`).

use bdk_wallet::bitcoin::opcodes::all::{OP_CHECKSIG, OP_CLTV, OP_DROP};
use bdk_wallet::bitcoin::script::Builder;
use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Amount, ScriptBuf};

/// Number of months that have a timelocked address: January 2020 to December 2099.
pub const TIMENUMBER_COUNT: u16 = 960;

/// Seconds of a year in the value formula: 60 * 60 * 24 * 365.2425.
const YEAR_SECONDS: f64 = 31_556_952.0;

/// Lock time of a timenumber: unix time of the first of that month, 00:00:00 UTC.
///
/// Timenumber 0 is January 2020 (1577836800), 959 is December 2099 (4099766400). Values from 960 on are
/// computed on along the calendar; callers bound them by [`TIMENUMBER_COUNT`] when they parse.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "a u16 of months leads to year 7481 at most")]
pub const fn locktime_of_month(timenumber: u16) -> u64 {
    let year = 2020 + (timenumber / 12) as u64;
    let month = 1 + (timenumber % 12) as u64;
    // Days from civil date (proleptic Gregorian), with March as the first month of the year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = y / 400;
    let year_of_era = y % 400;
    let day_of_year = (153 * m + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    days * 86_400
}

/// Why a month is not a timenumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeNumberError {
    /// Not in 0..960.
    #[error("timenumber {0} is not in 0..960")]
    OutOfRange(u64),
    /// Not the first second of a month of 2020 to 2099, UTC.
    #[error("locktime {0} is not the start of a month from 2020-01 to 2099-12")]
    NotStartOfMonth(u64),
    /// Not `YYYY-MM` in 2020-01 to 2099-12.
    #[error("not a month from 2020-01 to 2099-12 in the form YYYY-MM")]
    NotAMonth,
}

/// Months since January 2020, 0 to 959; also the BIP32 child index of the bond key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeNumber(u16);

impl TimeNumber {
    /// Every timenumber, ascending.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TIMENUMBER_COUNT).map(Self)
    }

    /// Checks the range.
    ///
    /// # Errors
    /// 960 or above.
    pub const fn new(number: u16) -> Result<Self, TimeNumberError> {
        if number < TIMENUMBER_COUNT {
            Ok(Self(number))
        } else {
            Err(TimeNumberError::OutOfRange(number as u64))
        }
    }

    /// The timenumber whose lock time is exactly this unix time.
    ///
    /// # Errors
    /// Not midnight UTC of the first of a month from January 2020 to December 2099. The reference
    /// accepts January 2100 (960) here by mistake; we do not.
    pub fn from_locktime(locktime: u64) -> Result<Self, TimeNumberError> {
        Self::all()
            .find(|number| u64::from(number.locktime()) == locktime)
            .ok_or(TimeNumberError::NotStartOfMonth(locktime))
    }

    /// The first month that begins after a unix time: the soonest lock time that a new bond can have
    /// (`spec/roles.md` 6.3). `None` from December 2099 on.
    #[must_use]
    pub fn after(time: u64) -> Option<Self> {
        Self::all().find(|number| u64::from(number.locktime()) > time)
    }

    /// Parses `YYYY-MM`: four digits, a hyphen, two digits.
    ///
    /// # Errors
    /// Any other form, or outside 2020-01 to 2099-12.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the year was checked to be within 80 years of 2020"
    )]
    pub fn from_month(text: &str) -> Result<Self, TimeNumberError> {
        let &[y1, y2, y3, y4, b'-', m1, m2] = text.as_bytes() else {
            return Err(TimeNumberError::NotAMonth);
        };
        let mut numbers = [0_u16; 2];
        for (number, digits) in
            numbers.iter_mut().zip([[y1, y2, y3, y4].as_slice(), [m1, m2].as_slice()])
        {
            for digit in digits {
                if !digit.is_ascii_digit() {
                    return Err(TimeNumberError::NotAMonth);
                }
                *number = *number * 10 + u16::from(digit - b'0');
            }
        }
        let [year, month] = numbers;
        if !(2020..=2099).contains(&year) || !(1..=12).contains(&month) {
            return Err(TimeNumberError::NotAMonth);
        }
        Ok(Self((year - 2020) * 12 + month - 1))
    }

    /// 0 to 959.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// First second of the month, seconds since epoch; fits `u32` up to 2106.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the largest value is 4099766400, below 2^32"
    )]
    pub const fn locktime(self) -> u32 {
        locktime_of_month(self.0) as u32
    }
}

/// The witness script of a bond: `LOCKTIME OP_CHECKLOCKTIMEVERIFY OP_DROP PUBKEY OP_CHECKSIG`.
///
/// The lock time is a minimal script number, so the script has 42 bytes, or 43 from 2^31 on (February
/// 2038, timenumber 217). No descriptor can express it: miniscript has `OP_VERIFY` in place of `OP_DROP`.
#[must_use]
pub fn witness_script(locktime: u32, key: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_int(i64::from(locktime))
        .push_opcode(OP_CLTV)
        .push_opcode(OP_DROP)
        .push_slice(key.serialize())
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// The P2WSH scriptPubKey of a bond, 34 bytes.
#[must_use]
pub fn script_pubkey(locktime: u32, key: &PublicKey) -> ScriptBuf {
    witness_script(locktime, key).to_p2wsh()
}

/// What the value of a bond depends on (`spec/wallet.md` 9.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BondTerms {
    /// Value of the coin.
    pub amount: Amount,
    /// Header time of the block that confirmed the coin, seconds since epoch.
    pub confirmation_time: u64,
    /// Lock time of the script, seconds since epoch.
    pub locktime: u64,
}

/// Weight of a bond as other wallets compute it (`spec/wallet.md` 9.5, vector `wallet_bond_value.json`).
///
/// `now` is the median time of the tip, `interest_rate` and `exponent` come from `[POLICY]`. The protocol
/// itself uses a float here; the last bits differ between platforms. Returns 0 when the inputs make no
/// sense (a lock time in the past of the confirmation, or parameters that overflow).
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "amounts are below 2^53 and times are below 2^33; the formula is a float by protocol"
)]
pub fn bond_value(terms: &BondTerms, now: u64, interest_rate: f64, exponent: f64) -> f64 {
    let locktime = terms.locktime as f64;
    let locked = interest_rate * (locktime - terms.confirmation_time as f64) / YEAR_SECONDS;
    let expired = interest_rate * (now as f64 / YEAR_SECONDS - locktime / YEAR_SECONDS).max(0.0);
    let share = (locked.exp_m1().min(1.0) - expired.exp_m1().min(1.0)).clamp(0.0, 1.0);
    let value = (terms.amount.to_sat() as f64 * share).powf(exponent);
    if value.is_finite() { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn first_and_last_month_match_the_specification() {
        assert_eq!(locktime_of_month(0), 1_577_836_800);
        assert_eq!(locktime_of_month(959), 4_099_766_400);
        assert_eq!(locktime_of_month(100), 1_840_752_000);
    }

    fn vectors(text: &str) -> Value {
        serde_json::from_str(text).expect("vector file is JSON")
    }

    #[test]
    fn timenumber_of_a_timestamp_is_strict() {
        let file = vectors(include_str!("../tests/vectors/timelocked_addresses.json"));
        let cases = file["timestamp_to_timenumber"].as_array().expect("list");
        assert_eq!(cases.len(), 6);
        for case in cases {
            let timestamp = case["timestamp"].as_u64().expect("number");
            let found = TimeNumber::from_locktime(timestamp).ok().map(|n| u64::from(n.number()));
            // The reference accepts 960 by an off-by-one (`spec/wallet.md` 9.1): we must not.
            let expected = case["clientserver_time_number"].as_u64().filter(|n| *n < 960);
            assert_eq!(found, expected, "timestamp {timestamp}");
        }
        assert!(TimeNumber::new(960).is_err());
        for number in TimeNumber::all() {
            assert_eq!(TimeNumber::from_locktime(number.locktime().into()), Ok(number));
        }
    }

    #[test]
    fn months_are_parsed_strictly() {
        assert_eq!(TimeNumber::from_month("2020-01").map(TimeNumber::number), Ok(0));
        assert_eq!(TimeNumber::from_month("2028-05").map(TimeNumber::number), Ok(100));
        assert_eq!(TimeNumber::from_month("2099-12").map(TimeNumber::number), Ok(959));
        for bad in [
            "",
            "2100-01",
            "2019-12",
            "2026-13",
            "2026-00",
            "2026-1",
            "2026-001",
            "-026-01",
            "2026/01",
            " 2026-01",
            "2026-01 ",
            "+026-01",
            "２０２６-01",
        ] {
            assert_eq!(TimeNumber::from_month(bad), Err(TimeNumberError::NotAMonth), "{bad}");
        }
    }

    #[test]
    fn scripts_match_every_vector_entry() {
        let file = vectors(include_str!("../tests/vectors/timelocked_addresses.json"));
        let mut count = 0;
        for case in file["cases"].as_array().expect("list") {
            for entry in case["entries"].as_array().expect("list") {
                let key: PublicKey = entry["pubkey"].as_str().expect("text").parse().expect("key");
                let month = TimeNumber::from_month(entry["lockdate"].as_str().expect("text"));
                let month = month.expect("a month");
                assert_eq!(Some(u64::from(month.number())), entry["timenumber"].as_u64());
                assert_eq!(Some(u64::from(month.locktime())), entry["locktime"].as_u64());
                let script = witness_script(month.locktime(), &key);
                assert_eq!(Some(script.to_hex_string().as_str()), entry["witness_script"].as_str());
                assert_eq!(script.len(), if month.number() < 217 { 42 } else { 43 });
                let spk = script_pubkey(month.locktime(), &key);
                assert_eq!(Some(spk.to_hex_string().as_str()), entry["script_pubkey"].as_str());
                count += 1;
            }
        }
        // 22 timenumbers on each of four networks, four on each of two other seeds.
        assert_eq!(count, 4 * 22 + 2 * 4);
    }

    #[test]
    fn values_match_the_reference() {
        let file = vectors(include_str!("../tests/vectors/wallet_bond_value.json"));
        let cases = file["cases"].as_array().expect("list");
        assert_eq!(cases.len(), 12);
        for case in cases {
            let number = |key: &str| case[key].as_u64().expect("integer");
            let terms = BondTerms {
                amount: Amount::from_sat(number("utxo_value")),
                confirmation_time: number("confirmation_time"),
                locktime: number("locktime"),
            };
            let rate = case["interest_rate"].as_f64().expect("float");
            let exponent = case["exponent"].as_f64().expect("float");
            let value = bond_value(&terms, number("current_time"), rate, exponent);
            let expected = case["clientserver_float"].as_f64().expect("float");
            let error = (value - expected).abs() / expected.max(1.0);
            assert!(error < 1e-9, "{case}: {value}");
        }
    }

    #[test]
    fn nonsense_has_no_value() {
        let terms =
            BondTerms { amount: Amount::MAX_MONEY, confirmation_time: u64::MAX, locktime: 0 };
        assert_eq!(bond_value(&terms, u64::MAX, 0.015, 1.3).to_bits(), 0.0_f64.to_bits());
        assert_eq!(bond_value(&terms, 0, f64::NAN, f64::NAN).to_bits(), 0.0_f64.to_bits());
    }
}
