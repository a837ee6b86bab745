//! Lenient numbers of request bodies (`spec/api.md` 1.6): clients send integers as integers, as numbers
//! with a zero fraction, or as strings; decimals as numbers or as strings with an exponent.

use serde_json::Value;

/// Longest text that is looked at as a number: longer ones cannot be in range of anything we accept.
const MAX_TEXT: usize = 64;

/// Largest magnitude a JSON float may have to be taken as an integer: above it not every integer has a
/// float, so that the number sent may not be the number meant. 2^53.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// Reads an *int* field: a JSON integer, a number with zero fraction, or a base-10 string with optional
/// surrounding white space. Booleans, `null` and everything else are no numbers.
#[must_use]
pub(crate) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            // An integer above i64 must not slip through as a rounded float.
            if number.is_u64() {
                return None;
            }
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() <= MAX_EXACT_FLOAT).then(|| {
                #[allow(clippy::cast_possible_truncation)]
                // integral and at most 2^53, checked above
                let integer = float as i64;
                integer
            })
        }),
        Value::String(text) => int_text(text),
        _ => None,
    }
}

/// As [`int`], for fields that cannot be negative.
#[must_use]
pub(crate) fn unsigned(value: &Value) -> Option<u64> {
    u64::try_from(int(value)?).ok()
}

/// Reads a base-10 integer with optional sign and surrounding white space.
#[must_use]
pub(crate) fn int_text(text: &str) -> Option<i64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    text.trim().parse().ok()
}

/// Reads a *dec* field as text that means the same to every later reader: a plain decimal fraction
/// without exponent. Numbers must be finite.
#[must_use]
pub(crate) fn decimal(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => plain_decimal(&number.to_string()),
        Value::String(text) if text.len() <= MAX_TEXT => plain_decimal(text.trim()),
        _ => None,
    }
}

/// Rewrites `3e-7` as `0.0000003`, digit by digit so that nothing is rounded. `None` when the text is no
/// decimal number or would need more than [`MAX_TEXT`] digits.
#[must_use]
pub(crate) fn plain_decimal(text: &str) -> Option<String> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    if exponent.unsigned_abs() as usize > MAX_TEXT || whole.len() + fraction.len() > MAX_TEXT {
        return None;
    }
    let digits: String = [whole, fraction].concat();
    // Where the point goes, counted from the start of `digits`; both terms are at most 64.
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => {
            (format!("{digits}{}", "0".repeat(point - digits.len())), String::new())
        }
        Ok(point) => {
            let (left, right) = digits.split_at(point);
            (left.to_owned(), right.to_owned())
        }
        Err(_) => (String::new(), format!("{}{digits}", "0".repeat(point.unsigned_abs() as usize))),
    };
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    Some(if exponent == 0 && !mantissa.contains('.') || fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn accepts_every_form_of_an_integer() {
        for (value, expected) in [
            (json!(5), 5),
            (json!(-1), -1),
            (json!(5.0), 5),
            (json!(1e3), 1000),
            (json!("5"), 5),
            (json!(" 5\n"), 5),
            (json!("+7"), 7),
            (json!("-3"), -3),
            (json!(9_007_199_254_740_993_i64), 9_007_199_254_740_993),
            (json!("9223372036854775807"), i64::MAX),
        ] {
            assert_eq!(int(&value), Some(expected), "{value}");
        }
    }

    #[test]
    fn rejects_what_is_no_integer() {
        for value in [
            json!(true),
            json!(null),
            json!(1.5),
            json!("1.5"),
            json!("1e3"),
            json!("0x1"),
            json!(""),
            json!(" "),
            json!("1_000"),
            json!("٣"),
            json!([1]),
            json!({}),
            json!(9_223_372_036_854_775_808_u64),
            json!("9223372036854775808"),
            json!(1e300),
            json!("1".repeat(100)),
        ] {
            assert_eq!(int(&value), None, "{value}");
        }
        assert_eq!(unsigned(&json!(-1)), None);
    }

    #[test]
    fn decimals_lose_their_exponent_and_no_digit() {
        for (value, expected) in [
            (json!("3e-7"), "0.0000003"),
            (json!(3e-7), "0.0000003"),
            (json!(0.0003), "0.0003"),
            (json!("0.0003"), "0.0003"),
            (json!("1E3"), "1000"),
            (json!("1.25e1"), "12.5"),
            (json!("1.25e2"), "125"),
            (json!(".5"), "0.5"),
            (json!("-0.5"), "-0.5"),
            (json!(1), "1"),
            (json!("00.10"), "0.10"),
        ] {
            assert_eq!(decimal(&value).as_deref(), Some(expected), "{value}");
        }
        for value in [
            json!("NaN"),
            json!("inf"),
            json!("1e400"),
            json!("e5"),
            json!("."),
            json!("1e"),
            json!("1,5"),
            json!(true),
            json!("--1"),
        ] {
            assert_eq!(decimal(&value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_means_the_same_number(text in "[-+]?[0-9]{0,10}\\.?[0-9]{0,10}([eE][-+]?[0-9]{1,3})?") {
            if let Some(plain) = plain_decimal(&text) {
                let (a, b): (f64, f64) = (text.parse().unwrap(), plain.parse().unwrap());
                prop_assert!(a == b || (a - b).abs() <= a.abs() * 1e-15, "{text} {plain}");
            }
        }

        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            let _ = int_text(&text);
            let _ = plain_decimal(&text);
        }
    }
}
