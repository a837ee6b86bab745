//! Fidelity bonds: timenumbers and lock times (`spec/wallet.md` 9.1).

/// Number of months that have a timelocked address: January 2020 to December 2099.
pub const TIMENUMBER_COUNT: u16 = 960;

/// Lock time of a timenumber: unix time of the first of that month, 00:00:00 UTC.
///
/// Timenumber 0 is January 2020 (1577836800), 959 is December 2099 (4099766400). Values from 960 on are
/// computed on along the calendar; callers bound them by [`TIMENUMBER_COUNT`] when they parse.
#[must_use]
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

#[cfg(test)]
mod tests {
    use super::locktime_of_month;

    #[test]
    fn first_and_last_month_match_the_specification() {
        assert_eq!(locktime_of_month(0), 1_577_836_800);
        assert_eq!(locktime_of_month(959), 4_099_766_400);
        assert_eq!(locktime_of_month(100), 1_840_752_000);
    }
}
