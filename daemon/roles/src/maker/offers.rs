//! Which offers stand, and when they change (`spec/roles.md` 4.2, 4.3).

use joinery_proto::cjfee::CjFee;
use joinery_proto::maker_offers::{OfferTerms, Spread, exact, raised_minimum, randomised};
use joinery_proto::offer::{DUST_THRESHOLD, Offer, OfferId, OrderType};
use joinery_proto::transaction::fees::required_by_maker;

use super::coins::{CoinRules, announced_balances};
use super::config::MakerTerms;
use crate::ask::WalletView;

/// Minimum of a relative offer: what its fee must be at least, in shares of the miner fee.
const MINIMUM_FACTOR: f64 = 1.2;
/// Draws before it is given up to find an offer: the random minimum may be above the random maximum.
const MAX_DRAWS: usize = 32;
/// A best balance that moved by this fraction is told again.
const MATERIAL_CHANGE: f64 = 0.1;

/// Makes the offers of a wallet; empty when there is nothing to offer. `uniform(low, high)` draws from a
/// cryptographic generator.
pub(super) fn make(
    terms: &MakerTerms,
    balances: &[u64],
    mut uniform: impl FnMut(f64, f64) -> f64,
) -> Vec<Offer> {
    let mut single = |order_type| generate(terms, order_type, balances, &mut uniform);
    if !terms.dual {
        return single(terms.order_type).into_iter().collect();
    }
    match (single(OrderType::Sw0Relative), single(OrderType::Sw0Absolute)) {
        (Some(relative), Some(absolute)) => split(relative, absolute, balances),
        (one, other) => one.or(other).into_iter().collect(),
    }
}

/// Whether offers can be made of these coins at all.
pub(super) fn possible(terms: &MakerTerms, rules: &CoinRules, view: &WalletView) -> bool {
    // The bond is not chosen yet: deposits beside one count as if they could not be merged.
    let bonded = view.coins.iter().any(|coin| coin.locktime.is_some());
    let balances = announced_balances(view, rules, bonded);
    // The luckiest draws: lowest minimum, largest maximum.
    let mut count = 0_usize;
    let lucky = |low, high| {
        count = count.wrapping_add(1);
        if count % 4 == 3 { high } else { low }
    };
    !make(terms, &balances, lucky).is_empty()
}

fn generate(
    terms: &MakerTerms,
    order_type: OrderType,
    balances: &[u64],
    uniform: &mut impl FnMut(f64, f64) -> f64,
) -> Option<Offer> {
    let terms_of = terms.of(order_type);
    let Some(spread) = &terms.spread else {
        return exact(&terms_of, balances).and_then(|offer| fillable(offer, balances));
    };
    let min_size = raised_minimum(&terms_of, MINIMUM_FACTOR);
    let terms_of = OfferTerms { min_size, ..terms_of };
    (0..MAX_DRAWS)
        .find_map(|_| randomised(&terms_of, spread, balances, &mut *uniform))
        .map(|offer| unmoved(offer, &terms_of, spread))
        .and_then(|offer| fillable(offer, balances))
}

/// A fee that is not moved keeps its text: it is the one that everybody has (`default_fee_on_grid`).
fn unmoved(offer: Offer, terms: &OfferTerms, spread: &Spread) -> Offer {
    let keep = spread.cj_fee == 0.0 && matches!(terms.cj_fee, CjFee::Relative(_));
    if keep { Offer { cj_fee: terms.cj_fee, ..offer } } else { offer }
}

/// Lowers the maximum to the greatest amount that the coins can serve; `None` when that is below the minimum.
fn fillable(offer: Offer, balances: &[u64]) -> Option<Offer> {
    let largest = *balances.iter().max()?;
    let serves = |amount| required_by_maker(&offer, amount).is_some_and(|need| need <= largest);
    if !serves(offer.min_size) || offer.min_size > offer.max_size {
        return None;
    }
    // What is required grows with the amount, because a fee is a fraction of it or constant.
    let (mut low, mut high) = (offer.min_size, offer.max_size);
    while low < high {
        let middle = low.saturating_add(high.saturating_sub(low).div_ceil(2));
        if serves(middle) {
            low = middle;
        } else {
            high = middle.saturating_sub(1);
        }
    }
    Some(Offer { max_size: low, ..offer })
}

/// Shares the range between two offers: the absolute one below the amount at which both ask for the same.
/// An offer that is never the cheaper one for us to make is left out.
fn split(relative: Offer, absolute: Offer, balances: &[u64]) -> Vec<Offer> {
    let least = absolute.min_size;
    let edge = equal_at(&relative, &absolute).clamp(least, relative.max_size);
    let ids = (OfferId::new(0), OfferId::new(1));
    let (Some(first), Some(second)) = ids else { return vec![relative] };
    let relative = Offer { id: first, min_size: edge.max(DUST_THRESHOLD), ..relative };
    let absolute = Offer { id: second, max_size: edge.min(absolute.max_size), ..absolute };
    [(relative, edge < relative.max_size), (absolute, edge > least)]
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .filter_map(|(offer, _)| fillable(offer, balances))
        .collect()
}

/// Smallest amount at which the relative fee reaches the absolute one.
fn equal_at(relative: &Offer, absolute: &Offer) -> u64 {
    let wanted = absolute.cj_fee.of(0);
    let (mut low, mut high) = (0, relative.max_size);
    while low < high {
        let middle = low.saturating_add(high.saturating_sub(low) / 2);
        if relative.cj_fee.of(middle) >= wanted {
            high = middle
        } else {
            low = middle.saturating_add(1)
        }
    }
    low
}

/// Lowers the maximum to a number of two binary digits, times four: an exact one that is told again after a
/// coinjoin would show which transaction it was (`offer_update_quantised_and_delayed`). Never below the
/// minimum.
pub(super) fn quantised(offer: Offer) -> Offer {
    let bits = u64::BITS.saturating_sub(offer.max_size.leading_zeros());
    let quantum = 1_u64.checked_shl(bits.saturating_sub(3)).unwrap_or(1);
    let max_size = offer.max_size.saturating_sub(offer.max_size.checked_rem(quantum).unwrap_or(0));
    if max_size < offer.min_size { offer } else { Offer { max_size, ..offer } }
}

/// What a change of the wallet means for the offers that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anybody should hear of.
    None,
    /// Tell it, but not now.
    Later,
    /// An offer that stands cannot be served any more.
    Now,
}

/// Judges new balances against the offers that stand and the best balance when they were made.
#[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
pub(super) fn change(standing: &[Offer], then: u64, balances: &[u64]) -> Change {
    let best = balances.iter().max().copied().unwrap_or_default();
    let served =
        |offer: &Offer| required_by_maker(offer, offer.max_size).is_some_and(|n| n <= best);
    if !standing.iter().all(served) {
        Change::Now
    } else if then.abs_diff(best) as f64 > MATERIAL_CHANGE * then as f64 {
        Change::Later
    } else {
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use joinery_proto::cjfee::RelativeFee;
    use serde_json::Value;

    use super::*;

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    /// `maker_offers.json` through everything that is done to an offer before it is announced.
    #[test]
    fn recorded_offers_are_made_with_the_recorded_draws() {
        let path = format!("{}/tests/vectors/maker_offers.json", env!("CARGO_MANIFEST_DIR"));
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = file["offer_creation"].as_array().unwrap();
        assert_eq!(cases.len(), 15);
        let mut raised = 0_u32;
        for case in cases {
            let label = &case["label"];
            let config = &case["config"];
            let sats = |key: &str| config[key].as_u64().unwrap();
            let order_type = OrderType::parse(config["ordertype"].as_str().unwrap()).unwrap();
            let private = case["generator"] != "basic";
            let fee = config["cjfee_r"].as_str().map_or(RelativeFee::ZERO, |r| r.parse().unwrap());
            let terms = MakerTerms {
                order_type,
                absolute_fee: sats("cjfee_a"),
                relative_fee: fee,
                tx_fee: sats("txfee_contribution"),
                min_size: sats("minsize"),
                spread: private.then(|| Spread {
                    tx_fee: number(&config["txfee_contribution_factor"]),
                    cj_fee: number(&config["cjfee_factor"]),
                    size: number(&config["size_factor"]),
                }),
                dual: false,
            };
            let balances = case["balances"].as_object().unwrap();
            let balances: Vec<u64> = balances.values().map(|sats| sats.as_u64().unwrap()).collect();
            let draws = case["uniform_draws"].as_array().unwrap();
            // The reference gives up where we draw again: then the same numbers come once more.
            let mut draws = draws.iter().cycle();
            let made = make(&terms, &balances, |low, high| {
                let draw = draws.next().map_or(0.5, |draw| number(&draw["u"]));
                (high - low).mul_add(draw, low)
            });
            let expected = case["offers"].as_array().cloned().unwrap_or_default();
            match (made.as_slice(), expected.as_slice()) {
                ([], []) => {}
                // Recorded behind the reference's start-up, which raises this minimum as we do.
                ([made], _) if private && order_type.is_relative() && terms.tx_fee > 0 => {
                    raised = raised.saturating_add(1);
                    assert!(made.earning(made.min_size) > 0, "{label}");
                }
                ([made], [expected]) => {
                    assert_eq!(made.order_type.word(), expected["ordertype"], "{label}");
                    assert_eq!(made.id.get(), expected["oid"], "{label}");
                    assert_eq!(made.min_size, expected["minsize"], "{label}");
                    assert_eq!(made.tx_fee, expected["txfee"], "{label}");
                    assert_eq!(made.max_size, expected["maxsize"], "{label}");
                }
                other => panic!("{label}: {other:?}"),
            }
        }
        assert_eq!(raised, 1);
    }

    #[test]
    fn quantised_sizes_have_three_binary_digits_and_stay_above_the_minimum() {
        let offer = Offer::parse(OrderType::Sw0Relative, "0 100000 1000000 0 0.00002").unwrap();
        for (max_size, expected) in [
            (1_000_000, 917_504),
            (917_504, 917_504),
            (1_048_576, 1_048_576),
            (1_048_575, 917_504),
            // 98 304 is below the minimum.
            (110_000, 110_000),
            (100_000, 100_000),
        ] {
            assert_eq!(quantised(Offer { max_size, ..offer }).max_size, expected);
        }
    }

    #[test]
    fn changes_are_judged_by_what_stands() {
        let offer = Offer::parse(OrderType::Sw0Relative, "0 100000 972700 0 0.00002").unwrap();
        let standing = [offer];
        for (balances, expected) in [
            (vec![1_000_000, 5], Change::None),
            (vec![1_100_000], Change::None),
            (vec![1_100_001], Change::Later),
            (vec![999_982], Change::None),
            (vec![999_981], Change::Now),
            (vec![], Change::Now),
        ] {
            assert_eq!(change(&standing, 1_000_000, &balances), expected, "{balances:?}");
        }
        assert_eq!(change(&[], 0, &[]), Change::None);
        assert_eq!(change(&[], 0, &[1]), Change::Later);
    }
}
