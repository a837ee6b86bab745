//! Fields that take effect: what each may hold, and the typed policies made of them (`spec/api.md` 10.1,
//! the fields marked "E").

use joinery_wallet::policy::{MergeAlgorithm, TxFees, WalletPolicy};

/// Limits on what a taker pays each maker. A coinjoin needs both to be set.
#[derive(Debug, Clone, PartialEq)]
pub struct MakerFeeLimits {
    /// `max_cj_fee_abs`, satoshi.
    pub absolute: u64,
    /// `max_cj_fee_rel`, fraction of the amount.
    pub relative: f64,
    /// The same as it was written: decimal digits, perhaps with an exponent.
    pub relative_text: String,
}

/// What a field may hold, for the error's `details`; `None` when the value is fine or the field takes
/// anything. Empty values mean "as if never set".
pub(super) fn objection(section: &str, field: &str, value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return None;
    }
    let (fine, expected) = rule(section, field, value)?;
    (!fine).then_some(expected)
}

/// Whether a field is one that something here obeys.
pub(super) fn takes_effect(section: &str, field: &str) -> bool {
    rule(section, field, "").is_some()
}

/// Whether a value is fine, and what is expected; `None` for fields that take anything.
fn rule(section: &str, field: &str, value: &str) -> Option<(bool, &'static str)> {
    Some(match (section, field) {
        ("POLICY", "tx_fees") => {
            (tx_fees(value).is_some(), "1 to 1000 blocks, or above 1000 satoshi per kvB")
        }
        ("POLICY", "tx_fees_factor" | "max_sweep_fee_change") => {
            (fraction(value, 0.0, 1.0), "a number from 0 to 1")
        }
        ("POLICY", "max_cj_fee_abs") => (integer(value, 1, MAX_SATS), "satoshi, at least 1"),
        ("POLICY", "max_cj_fee_rel") => {
            (fraction(value, f64::MIN_POSITIVE, 1.0), "a fraction above 0, at most 1")
        }
        ("POLICY", "minimum_makers") => (integer(value, 0, 99), "0 to 99"),
        ("POLICY", "gaplimit") => (integer(value, 1, 10_000), "1 to 10000"),
        ("POLICY", "absurd_fee_per_kb") => (integer(value, 1000, MAX_RATE), "satoshi per kvB"),
        ("POLICY", "taker_utxo_retries") => (integer(value, 1, 10), "1 to 10"),
        ("POLICY", "taker_utxo_age") => (integer(value, 0, 10_000), "confirmations"),
        ("POLICY", "taker_utxo_amtpercent") => (integer(value, 0, 100), "0 to 100"),
        ("POLICY", "max_sats_freeze_reuse") => (integer(value, -1, MAX_SATS), "satoshi, or -1"),
        ("POLICY", "merge_algorithm") => {
            (merge(value).is_some(), "default, gradual, greedy or greediest")
        }
        ("POLICY", "tx_broadcast") => {
            let known = super::TxBroadcast::parse(value).is_some();
            (known, "self, random-peer, multiple-peers or not-self")
        }
        ("POLICY", "interest_rate") => (fraction(value, 0.0, 10.0), "a number from 0 to 10"),
        ("POLICY", "bondless_makers_allowance") => {
            (fraction(value, 0.0, 1.0), "a number from 0 to 1")
        }
        ("POLICY", "bond_value_exponent") => {
            (fraction(value, 0.1, 10.0), "a number from 0.1 to 10")
        }
        ("POLICY", "accept_commitment_broadcasts") => (integer(value, 0, 1), "0 or 1"),
        ("TIMEOUT", "maker_timeout_sec" | "unconfirm_timeout_sec") => {
            (integer(value, 1, 86_400), "seconds")
        }
        ("TIMEOUT", "confirm_timeout_hours") => (fraction(value, 0.0, 8760.0), "hours"),
        ("YIELDGENERATOR", "ordertype") => {
            (matches!(value, "reloffer" | "absoffer"), "reloffer or absoffer")
        }
        ("YIELDGENERATOR", "cjfee_a" | "txfee_contribution" | "minsize") => {
            (integer(value, 0, MAX_SATS), "satoshi")
        }
        ("YIELDGENERATOR", "cjfee_r") => (fraction(value, 0.0, 1.0), "a fraction from 0 to 1"),
        ("YIELDGENERATOR", "cjfee_factor" | "txfee_contribution_factor" | "size_factor") => {
            (fraction(value, 0.0, 1.0), "a number from 0 to 1")
        }
        _ => return None,
    })
}

/// 21 million coins.
const MAX_SATS: i64 = 2_100_000_000_000_000;
/// 10 000 sat/vB: above any rate that was ever needed, and far from overflow in later arithmetic.
const MAX_RATE: i64 = 10_000_000;

fn integer(value: &str, least: i64, most: i64) -> bool {
    crate::number::int_text(value).is_some_and(|number| (least..=most).contains(&number))
}

pub(super) fn number(value: &str) -> Option<f64> {
    // Through the decimal parser: "inf" and "nan" are floats to the standard library.
    crate::number::plain_decimal(value.trim())?.parse().ok()
}

fn fraction(value: &str, least: f64, most: f64) -> bool {
    number(value).is_some_and(|number| (least..=most).contains(&number))
}

fn tx_fees(value: &str) -> Option<TxFees> {
    tx_fees_of(crate::number::int_text(value)?)
}

/// The fee rule of a number: up to 1000 a confirmation target, above it a rate.
pub(crate) fn tx_fees_of(number: i64) -> Option<TxFees> {
    match number {
        1..=1000 => u16::try_from(number).ok().map(TxFees::Blocks),
        1001..=MAX_RATE => u64::try_from(number).ok().map(TxFees::SatPerKvb),
        _ => None,
    }
}

fn merge(value: &str) -> Option<MergeAlgorithm> {
    match value {
        "default" => Some(MergeAlgorithm::Default),
        "gradual" => Some(MergeAlgorithm::Gradual),
        "greedy" => Some(MergeAlgorithm::Greedy),
        "greediest" => Some(MergeAlgorithm::Greediest),
        _ => None,
    }
}

/// The wallet's policy out of `[POLICY]`. What is empty or cannot be used keeps its default: values from
/// the API were checked before they came here, those of the daemon's own file when it started.
pub(super) fn wallet_policy<'a>(get: impl Fn(&str) -> Option<&'a str>) -> WalletPolicy {
    let default = WalletPolicy::default();
    let usable = |field: &str| {
        get(field).filter(|value| !value.is_empty() && objection("POLICY", field, value).is_none())
    };
    let integer = |field: &str| usable(field).and_then(crate::number::int_text);
    let float = |field: &str| usable(field).and_then(number);
    WalletPolicy {
        gap_limit: integer("gaplimit")
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(default.gap_limit),
        tx_fees: usable("tx_fees").and_then(tx_fees).unwrap_or(default.tx_fees),
        tx_fees_factor: float("tx_fees_factor").unwrap_or(default.tx_fees_factor),
        absurd_fee_per_kvb: integer("absurd_fee_per_kb")
            .and_then(|rate| u64::try_from(rate).ok())
            .unwrap_or(default.absurd_fee_per_kvb),
        max_sats_freeze_reuse: integer("max_sats_freeze_reuse")
            .unwrap_or(default.max_sats_freeze_reuse),
        merge_algorithm: usable("merge_algorithm")
            .and_then(merge)
            .unwrap_or(default.merge_algorithm),
        taker_utxo_retries: integer("taker_utxo_retries")
            .and_then(|count| u8::try_from(count).ok())
            .unwrap_or(default.taker_utxo_retries),
        interest_rate: float("interest_rate").unwrap_or(default.interest_rate),
        bond_value_exponent: float("bond_value_exponent").unwrap_or(default.bond_value_exponent),
        send_interrupted: usable("tx_broadcast") != Some("not-self"),
        ..default
    }
}

/// The maker fee limits, when both are set.
pub(super) fn maker_fee_limits<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
) -> Option<MakerFeeLimits> {
    let usable = |field: &str| {
        get(field).filter(|value| !value.is_empty() && objection("POLICY", field, value).is_none())
    };
    let absolute = usable("max_cj_fee_abs").and_then(crate::number::int_text)?;
    Some(MakerFeeLimits {
        absolute: u64::try_from(absolute).ok()?,
        relative: usable("max_cj_fee_rel").and_then(number)?,
        relative_text: usable("max_cj_fee_rel")?.to_owned(),
    })
}
