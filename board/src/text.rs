//! Numbers and names as they stand on a panel.

use crate::link::{Sats, SignedSats};

/// Below this many satoshi amounts are told in satoshi, from it on in bitcoin.
const BITCOIN_FROM: u64 = 1_000_000;

/// Groups the digits of a whole number by thousands: `1 240`.
#[must_use]
pub fn thousands(number: u64) -> String {
    group_from_right(&number.to_string())
}

/// An amount, never rounded: `1 240 sat`, `0.250 000 00`, `20 999 999.999 999 99`. In bitcoin there is no unit beside it:
/// the longest one fills a line of the small panel.
#[must_use]
pub fn amount(sats: Sats) -> String {
    let sat = sats.to_sat();
    if sat < BITCOIN_FROM {
        return format!("{} sat", thousands(sat));
    }
    let (whole, rest) = (sat / 100_000_000, sat % 100_000_000);
    let (millis, micros, last) = (rest / 100_000, rest / 100 % 1000, rest % 100);
    format!("{}.{millis:03} {micros:03} {last:02}", thousands(whole))
}

/// What was earned, with its sign: `+1 240 sat`.
#[must_use]
pub fn earned(sats: SignedSats) -> String {
    format!("{}{}", if sats.is_negative() { '-' } else { '+' }, amount(sats.abs()))
}

/// Cuts text to so many characters, the last one an ellipsis if any were lost.
#[must_use]
pub fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Cuts text into lines of at most so many characters, between words where it can be; what does not fit into `lines`
/// lines ends in an ellipsis.
#[must_use]
pub fn wrap(text: &str, columns: usize, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && out.len() < lines {
        if out.len() + 1 == lines || rest.chars().count() <= columns {
            out.push(fit(rest, columns));
            break;
        }
        // The first byte that does not fit; the text is longer, so there is one.
        let end = rest.char_indices().nth(columns).map_or(rest.len(), |(at, _)| at);
        let (line, after) = rest.split_at(end);
        let cut =
            if after.starts_with(' ') { line.len() } else { line.rfind(' ').unwrap_or(line.len()) };
        let (line, after) = rest.split_at(cut);
        out.push(line.trim_end().to_owned());
        rest = after.trim_start();
    }
    out
}

/// Text of ASCII (an address, a fingerprint) in groups of four.
#[must_use]
pub fn groups(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(4).map(|group| group.iter().collect()).collect()
}

fn group_from_right(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sat: u64) -> String {
        amount(Sats::try_from(sat).unwrap())
    }

    #[test]
    fn amounts_are_exact_and_grouped() {
        assert_eq!(told(0), "0 sat");
        assert_eq!(told(1240), "1 240 sat");
        assert_eq!(told(999_999), "999 999 sat");
        assert_eq!(told(1_000_000), "0.010 000 00");
        assert_eq!(told(25_000_000), "0.250 000 00");
        assert_eq!(told(123_456_789_012), "1 234.567 890 12");
        assert_eq!(told(Sats::MAX.to_sat()), "21 000 000.000 000 00");
    }

    #[test]
    fn the_longest_amount_fits_a_line_of_the_small_panel() {
        assert_eq!(told(Sats::MAX.to_sat() - 1).len(), 21);
    }

    #[test]
    fn earnings_have_a_sign() {
        let told = |sat: i64| earned(SignedSats::try_from(sat).unwrap());
        assert_eq!(told(1240), "+1 240 sat");
        assert_eq!(told(0), "+0 sat");
        assert_eq!(told(-5), "-5 sat");
        assert_eq!(told(-1_000_000), "-0.010 000 00");
    }

    #[test]
    fn names_are_cut_with_an_ellipsis() {
        assert_eq!(fit("Satoshi", 7), "Satoshi");
        assert_eq!(fit("Satoshi Nakamoto", 9), "Satoshi…");
        assert_eq!(fit("Ωμέγα", 3), "Ωμ…");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(
            wrap("public server sees your coins", 21, 2),
            ["public server sees", "your coins"]
        );
        assert_eq!(wrap("abcdefghij", 4, 2), ["abcd", "efg…"]);
        assert_eq!(wrap("one two", 3, 2), ["one", "two"]);
        assert_eq!(wrap("", 3, 2), Vec::<String>::new());
    }
}
