//! What a bond brings its maker, and what an attacker would have to lock up (`spec/roles.md` 6.3, 7.4, 7.5; vector
//! `bond_value.json`). Pure functions for whoever shows them; nothing of this decides anything.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::choose::bond_weighted;

/// Makers of a coinjoin for which the chance of being picked is told: what the reference's takers draw at most by
/// default.
pub const USUAL_MAKERS: usize = 9;
/// Rounds that are played for [`pick_chance`]: its error is at most about one in a hundred.
const ROUNDS: u32 = 5_000;
/// Makers that may be looked at together in [`top_makers_success`].
pub const MAX_COLLUDERS: usize = 10;

/// For 1 to 25 makers in a coinjoin: the weight, in units of the weight of all honest makers, that each of an
/// attacker's makers needs so that all of them are chosen in 95 of 100 cases.
pub const SYBIL_WEIGHTS: [f64; 25] = [
    19.2125,
    28.829_523_311_823_312,
    35.372_997_024_664_22,
    40.276_183_998_271_66,
    44.196_313_588_376_95,
    47.461_605_787_014_77,
    50.259_446_237_421_67,
    52.706_868_994_753_286,
    54.881_852_860_047_836,
    56.838_957_663_951_5,
    58.617_847_785_002_15,
    60.248_261_563_672_784,
    61.753_068_01,
    62.971_894_76,
    64.281_555_94,
    65.218_321_123_853_13,
    66.297_650_633_541_74,
    67.315_269_563_541,
    68.277_854_494_801_59,
    69.191_053_862_036_57,
    70.059_688_789_443_97,
    70.887_907_162_796_42,
    71.679_303_424_956_13,
    72.437_012_856_979_72,
    73.163_786_600_22,
];

/// Satoshi that must be burned for a bond of weight `weight`.
#[must_use]
pub fn burned_coins(weight: f64, exponent: f64) -> f64 {
    weight.powf(exponent.recip())
}

/// Satoshi that must be locked for `years` for a bond of weight `weight`, at this interest rate a year. (The reference
/// takes the years of its column heads for months.)
#[must_use]
pub fn locked_coins(weight: f64, exponent: f64, interest_rate: f64, years: f64) -> f64 {
    burned_coins(weight, exponent) / interest_rate / years
}

/// The 99 values that cut sorted `data` into hundredths, between its least and its largest value. `None` with fewer
/// than two values.
#[must_use]
pub fn percentiles(data: &[f64]) -> Option<[f64; 99]> {
    if data.len() < 2 || data.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = data.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let steps = sorted.len().saturating_sub(1);
    let mut cuts = [0.0; 99];
    for (cut, number) in cuts.iter_mut().zip(1_usize..) {
        let position = number.saturating_mul(steps);
        let (place, rest) = (position / 100, position % 100);
        let low = sorted.get(place)?;
        let high = sorted.get(place.saturating_add(1)).unwrap_or(low);
        let rest = f64::from(u8::try_from(rest).ok()?);
        *cut = (low * (100.0 - rest) + high * rest) / 100.0;
    }
    Some(cuts)
}

/// How a bond of some value would stand among those of a market.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Its share of all bonds' weight, itself included, 0 to 1.
    pub weight: f64,
    /// 100 less the number of percentiles of the market that lie below it: 1 is the best. `None` when the market has
    /// fewer than two bonds.
    pub percentile: Option<u8>,
}

/// Where a bond of this value would stand among `others`.
#[must_use]
pub fn standing(value: f64, others: &[f64]) -> Standing {
    let total: f64 = others.iter().copied().filter(|other| other.is_finite()).sum::<f64>() + value;
    let weight = if total > 0.0 { value / total } else { 0.0 };
    let below = |cuts: [f64; 99]| cuts.iter().filter(|cut| **cut < value).count();
    let percentile = percentiles(others).and_then(|cuts| {
        // At most 99.
        u8::try_from(below(cuts)).ok().map(|below| 100_u8.saturating_sub(below))
    });
    Standing { weight, percentile }
}

/// The probability that the makers with the `makers` largest weights, and no others, are drawn when that many are drawn
/// by weight. 0 for none, and for more than [`MAX_COLLUDERS`] or than there are.
#[must_use]
pub fn top_makers_success(weights: &[f64], makers: usize) -> f64 {
    let mut sorted: Vec<f64> =
        weights.iter().copied().filter(|weight| weight.is_finite() && *weight > 0.0).collect();
    if makers == 0 || makers > MAX_COLLUDERS || makers > sorted.len() {
        return 0.0;
    }
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let total: f64 = sorted.iter().sum();
    sorted.truncate(makers);
    // Over the sets of makers that are drawn already, instead of over all orders in which they can be.
    let sets = 1_usize << makers;
    let mut reached = vec![0.0; sets];
    if let Some(none) = reached.first_mut() {
        *none = 1.0;
    }
    for set in 0..sets {
        let taken = |place: usize| set >> place & 1 == 1;
        let chance = reached.get(set).copied().unwrap_or(0.0);
        let gone: f64 = (0..).zip(&sorted).filter(|(p, _)| taken(*p)).map(|(_, w)| w).sum();
        for (place, weight) in (0..).zip(&sorted).filter(|(place, _)| !taken(*place)) {
            if let Some(next) = reached.get_mut(set | 1 << place) {
                *next += chance * weight / (total - gone);
            }
        }
    }
    reached.last().copied().unwrap_or(0.0).min(1.0)
}

/// How likely a taker with the default chooser picks a maker whose bond has the value `own` among others with these
/// values (0 for those without a bond), when it takes `makers` of them; 0 to 1. Played through, always with the same
/// dice.
#[must_use]
pub fn pick_chance(own: f64, others: &[f64], makers: usize, allowance: f64) -> f64 {
    if makers > others.len() {
        return 1.0;
    }
    let mut rng = StdRng::from_seed([0; 32]);
    let mut all = vec![own];
    all.extend_from_slice(others);
    let mut picked = 0_u32;
    let mut left = all.clone();
    for _ in 0..ROUNDS {
        left.clear();
        left.extend_from_slice(&all);
        for _ in 0..makers {
            let place = bond_weighted(&left, allowance, rng.random(), rng.random())
                .unwrap_or_else(|| rng.random_range(0..left.len()));
            if place == 0 {
                picked = picked.saturating_add(1);
                break;
            }
            left.remove(place);
        }
    }
    f64::from(picked) / f64::from(ROUNDS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::choose::BONDLESS_ALLOWANCE;

    #[derive(Deserialize)]
    struct File {
        percentiles: Vec<Percentiles>,
        sybil: Sybil,
    }

    #[derive(Deserialize)]
    struct Percentiles {
        data: Vec<f64>,
        percentiles_1_to_99: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct Sybil {
        successful_attack_95pc_sybil_weight_per_unit_honest_weight: BTreeMap<usize, f64>,
        weight_to_burned_coins: Vec<Burned>,
        weight_to_locked_coins: Vec<Locked>,
        top_makers_success: Vec<Top>,
    }

    #[derive(Deserialize)]
    struct Burned {
        w: f64,
        coins: f64,
    }

    #[derive(Deserialize)]
    struct Locked {
        w: f64,
        r: f64,
        locktime_months_argument: f64,
        coins: f64,
    }

    #[derive(Deserialize)]
    struct Top {
        weights: Vec<f64>,
        makercount: usize,
        probability: f64,
    }

    fn file() -> File {
        serde_json::from_str(include_str!("../tests/vectors/bond_value.json")).unwrap()
    }

    fn close(actual: f64, expected: f64) -> bool {
        (actual - expected).abs() <= expected.abs().max(1e-3) * 1e-9
    }

    #[test]
    fn percentiles_are_those_of_the_vector() {
        for case in file().percentiles {
            let cuts = percentiles(&case.data).unwrap();
            assert_eq!(cuts.len(), case.percentiles_1_to_99.len());
            for (cut, expected) in cuts.iter().zip(&case.percentiles_1_to_99) {
                assert!(close(*cut, *expected), "{cut} instead of {expected}");
            }
        }
        assert_eq!((percentiles(&[]), percentiles(&[1.0])), (None, None));
        assert_eq!(percentiles(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn sybil_tables_are_those_of_the_vector() {
        let sybil = file().sybil;
        let weights = sybil.successful_attack_95pc_sybil_weight_per_unit_honest_weight;
        assert_eq!(weights.len(), SYBIL_WEIGHTS.len());
        for (makers, weight) in weights {
            assert!(close(SYBIL_WEIGHTS[makers - 1], weight), "{makers} makers");
        }
        // The vector comes from the reference, which takes the exponent for 2 and years for months.
        for case in sybil.weight_to_burned_coins {
            assert!(close(burned_coins(case.w, 2.0), case.coins), "{}", case.w);
        }
        for case in sybil.weight_to_locked_coins {
            let years = case.locktime_months_argument / 12.0;
            assert!(close(locked_coins(case.w, 2.0, case.r, years), case.coins), "{years}");
        }
        for case in sybil.top_makers_success {
            let chance = top_makers_success(&case.weights, case.makercount);
            assert!(close(chance, case.probability), "{chance} {:?}", case.weights);
        }
    }

    #[test]
    fn colluders_that_cannot_be_have_no_success() {
        assert_eq!(top_makers_success(&[], 1), 0.0);
        assert_eq!(top_makers_success(&[1.0, 2.0], 0), 0.0);
        assert_eq!(top_makers_success(&[1.0, f64::INFINITY, -1.0], 2), 0.0);
        assert_eq!(top_makers_success(&[1.0; 20], MAX_COLLUDERS + 1), 0.0);
        assert!(close(top_makers_success(&[3.0; 10], 10), 1.0));
    }

    #[test]
    fn weight_and_percentile_of_a_bond() {
        let market: Vec<f64> = (1..=99).map(f64::from).collect();
        let best = standing(1_000.0, &market);
        assert_eq!(best.percentile, Some(1));
        assert!(close(best.weight, 1_000.0 / 5_950.0));
        assert_eq!(standing(0.5, &market).percentile, Some(100));
        assert_eq!(standing(50.0, &market).percentile, Some(51));
        assert_eq!(standing(1.0, &[]), Standing { weight: 1.0, percentile: None });
        assert_eq!(standing(0.0, &[0.0]), Standing { weight: 0.0, percentile: None });
    }

    #[test]
    fn chance_of_being_picked() {
        // Everybody alike: nine of a hundred.
        let alike = pick_chance(0.0, &[0.0; 99], 9, BONDLESS_ALLOWANCE);
        assert!((alike - 0.09).abs() < 0.01, "{alike}");
        // Without a bond among bonds: only the draws by chance, nine times one in eight.
        let bondless = pick_chance(0.0, &[1.0; 99], 9, BONDLESS_ALLOWANCE);
        assert!((bondless - 0.09 * 0.125).abs() < 0.004, "{bondless}");
        // One draw, by weight alone, half of all weight.
        let half = pick_chance(99.0, &[1.0; 99], 1, 0.0);
        assert!((half - 0.5).abs() < 0.02, "{half}");
        assert_eq!(pick_chance(0.0, &[1.0; 8], USUAL_MAKERS, BONDLESS_ALLOWANCE), 1.0);
        assert_eq!(
            pick_chance(5.0, &[1.0, 7.0, 0.0], 2, 0.5),
            pick_chance(5.0, &[1.0, 7.0, 0.0], 2, 0.5),
            "the same dice"
        );
    }
}
