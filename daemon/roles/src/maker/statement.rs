//! The income statement `logs/yigen-statement.csv` (`spec/roles.md` 4.9): texts only, files are for the caller.
//!
//! Web wallets show the lines as they are, so header, order and number formats are the reference's. Times are UTC; the
//! reference writes local time.

use joinery_wallet::round::RoundSums;

/// First line, with its end.
pub const HEADER: &str = "timestamp,cj amount/satoshi,my input count,my input value/satoshi,cjfee/satoshi,\
                          earned/satoshi,confirm time/min,notes\n";
/// Note of the line that is written when a maker starts.
const CONNECTED: &str = "Connected";
/// Seconds of a day.
const DAY: u64 = 86_400;

/// The line of a start, with its end. `time` in seconds since epoch.
#[must_use]
pub fn connected(time: u64) -> String {
    format!("{},,,,,,,{CONNECTED}\n", timestamp(time))
}

/// The line of a confirmed coinjoin, with its end.
///
/// `seen` is when it was first seen unconfirmed, if it was; `confirmed` when it was found in a block. Seconds since
/// epoch.
#[must_use]
pub fn earned(sums: &RoundSums, seen: Option<u64>, confirmed: u64) -> String {
    let RoundSums { amount, input_count, input_value, coinjoin_fee, miner_fee, .. } = sums;
    let earned = i128::from(*coinjoin_fee).saturating_sub(i128::from(*miner_fee));
    let minutes =
        seen.map_or_else(|| "0.0".to_owned(), |seen| minutes(confirmed.saturating_sub(seen)));
    let time = timestamp(confirmed);
    format!("{time},{amount},{input_count},{input_value},{coinjoin_fee},{earned},{minutes},\n")
}

/// Minutes with at most two decimals and at least one, as Python prints a rounded float.
fn minutes(seconds: u64) -> String {
    // Hundredths of a minute, rounded half up; seconds have no tie: 0.6 of a second is one.
    let hundredths = seconds.saturating_mul(100).saturating_add(30) / 60;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    if rest % 10 == 0 { format!("{whole}.{}", rest / 10) } else { format!("{whole}.{rest:02}") }
}

/// `YYYY/MM/DD HH:MM:SS`, UTC.
fn timestamp(time: u64) -> String {
    let (days, second) = (time / DAY, time % DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Date of a number of days since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years that begin
/// on the first of March.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "2^64 seconds are 2^48 days; differences are not negative"
)]
const fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_reference() {
        assert_eq!(
            HEADER,
            "timestamp,cj amount/satoshi,my input count,my input value/satoshi,cjfee/satoshi,earned/satoshi,\
             confirm time/min,notes\n"
        );
        assert_eq!(connected(1_700_000_000), "2023/11/14 22:13:20,,,,,,,Connected\n");
        let sums = RoundSums {
            amount: 50_000_000,
            input_count: 2,
            input_value: 120_000_000,
            coinjoin_fee: 1_000,
            miner_fee: 100,
            ..RoundSums::default()
        };
        let line = earned(&sums, Some(1_700_000_000), 1_700_000_755);
        assert_eq!(line, "2023/11/14 22:25:55,50000000,2,120000000,1000,900,12.58,\n");
        let unseen = earned(&sums, None, 1_700_000_000);
        assert!(unseen.ends_with(",900,0.0,\n"), "{unseen}");
        assert_eq!(HEADER.matches(',').count(), line.matches(',').count());
        assert_eq!(HEADER.matches(',').count(), connected(0).matches(',').count());
    }

    #[test]
    fn minutes_look_like_rounded_floats() {
        for (seconds, text) in [
            (0, "0.0"),
            (1, "0.02"),
            (6, "0.1"),
            (60, "1.0"),
            (150, "2.5"),
            (3_605, "60.08"),
            (3_603, "60.05"),
        ] {
            assert_eq!(minutes(seconds), text);
        }
    }

    #[test]
    fn dates_around_leap_days() {
        for (time, text) in [
            (0, "1970/01/01 00:00:00"),
            (951_782_400, "2000/02/29 00:00:00"),
            (951_868_799, "2000/02/29 23:59:59"),
            (951_868_800, "2000/03/01 00:00:00"),
            (1_709_164_800, "2024/02/29 00:00:00"),
            (1_735_689_599, "2024/12/31 23:59:59"),
            (1_735_689_600, "2025/01/01 00:00:00"),
            (4_107_542_399, "2100/02/28 23:59:59"),
            (4_107_542_400, "2100/03/01 00:00:00"),
        ] {
            assert_eq!(timestamp(time), text);
        }
    }
}
