//! Which offers a taker can use, and which makers it draws from them (`spec/roles.md` 3.4, 3.5, 3.8; vectors
//! `order_choice.json`, `cjfee.json`).
//!
//! Everything here is pure: the caller brings the order book and the generator. The order is that of the reference,
//! so that its vectors hold: offers are filtered, each maker keeps its cheapest one, the list is sorted by fee, and
//! makers are drawn from it one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::transaction::fees::{FeeLimits, sweep_amount};
use rand::Rng;

use crate::order_book::Book;

/// `bondless_makers_allowance` by default.
pub const BONDLESS_ALLOWANCE: f64 = 0.125;

/// How makers are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chooser {
    /// By the weight of bonds; with the given probability, or where nobody has a bond, uniformly among all.
    BondWeighted {
        /// `bondless_makers_allowance`, 0 to 1.
        allowance: f64,
    },
    /// Uniformly.
    Random,
    /// The cheapest.
    Cheapest,
    /// The cheaper the likelier.
    FeeWeighted,
}

impl Default for Chooser {
    fn default() -> Self {
        Self::BondWeighted { allowance: BONDLESS_ALLOWANCE }
    }
}

/// How much an offer is to be liked before its fee is looked at. Makers of a later tier are drawn only when no maker
/// of an earlier one is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Signed by its maker, nothing against it.
    Good,
    /// Its maker is one that the caller would rather avoid.
    Avoided,
    /// Nobody signed it, or a public line contradicts it.
    Doubtful,
}

/// An offer as choosing sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Who offers.
    pub nick: Nick,
    /// What.
    pub offer: Offer,
    /// Weight of the maker's verified bond; 0 without one.
    pub bond_value: f64,
    /// Coin of that bond.
    pub bond: Option<OutPoint>,
    /// Whether its maker signed it and nothing contradicts it.
    pub trusted: bool,
}

/// The offers of a book.
#[must_use]
pub fn listed(book: &Book) -> Vec<Listed> {
    let bonds: HashMap<Nick, OutPoint> =
        book.bonds.iter().map(|bond| (bond.nick, bond.outpoint)).collect();
    let list = book.offers.iter().map(|entry| Listed {
        nick: entry.nick,
        offer: entry.offer,
        bond_value: entry.bond_value,
        bond: bonds.get(&entry.nick).copied(),
        trusted: entry.signed && !entry.disputed,
    });
    list.collect()
}

/// What a taker accepts.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// A maker is refused only when it is above both.
    pub limits: FeeLimits,
    /// Never these: our own nicks, makers that failed in this request.
    pub excluded: &'a BTreeSet<Nick>,
    /// Rather not these.
    pub avoided: &'a BTreeSet<Nick>,
}

/// A maker that can be chosen, with its best offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub nick: Nick,
    /// Its best offer.
    pub offer: Offer,
    /// What it is compared by, satoshi: fee minus its share of the miner fee; for a sweep the fee alone, at the value
    /// of all inputs.
    pub fee: i128,
    /// Weight of its bond.
    pub bond_value: f64,
    /// Coin of its bond.
    pub bond: Option<OutPoint>,
    /// How it is liked.
    pub tier: Tier,
}

/// How many makers were left after each filter: to explain why there are too few (`spec/roles.md` 11.1, T17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Makers with any offer, without those that are excluded.
    pub seen: usize,
    /// With an offer of our kind.
    pub kind: usize,
    /// And of the right size.
    pub size: usize,
    /// And within the fee limits.
    pub fee: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seen, kind, size, fee } = self;
        write!(
            f,
            "{seen} makers known, {kind} for this wallet type, {size} for this amount, {fee} within the fee limits"
        )
    }
}

/// Makers that can be chosen, ascending by fee, and how many there were on the way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidates {
    /// One entry a maker.
    pub makers: Vec<Candidate>,
    /// For the explanation.
    pub counts: Counts,
}

/// Filter of `spec/roles.md` 3.4: who can take part in a coinjoin of this amount. Size bounds are strict.
#[must_use]
pub fn for_amount(list: &[Listed], amount: u64, terms: &Terms<'_>) -> Candidates {
    let size = |offer: &Offer| offer.min_size < amount && amount < offer.max_size;
    filter(list, size, |offer| offer.earning(amount), amount, terms)
}

/// Filter of `spec/roles.md` 3.5: who might take part in a sweep of inputs worth `inputs` satoshi, at a miner fee of
/// about `miner_fee`. Fees are those at the whole value, without the makers' shares of the miner fee.
#[must_use]
pub fn for_sweep(list: &[Listed], inputs: u64, miner_fee: u64, terms: &Terms<'_>) -> Candidates {
    let least = inputs.saturating_sub(miner_fee);
    let size = |offer: &Offer| offer.min_size < inputs && offer.max_size > least;
    filter(list, size, |offer| i128::from(offer.cj_fee.of(inputs)), inputs, terms)
}

fn filter(
    list: &[Listed],
    size: impl Fn(&Offer) -> bool,
    fee: impl Fn(&Offer) -> i128,
    base: u64,
    terms: &Terms<'_>,
) -> Candidates {
    let mut passed: [BTreeSet<Nick>; 4] = Default::default();
    let mut best: Vec<Candidate> = Vec::new();
    let mut places: BTreeMap<Nick, usize> = BTreeMap::new();
    for entry in list {
        let Listed { nick, offer, .. } = entry;
        if terms.excluded.contains(nick) {
            continue;
        }
        let ours = matches!(offer.order_type, OrderType::Sw0Relative | OrderType::Sw0Absolute);
        let cost = fee(offer);
        let tests = [true, ours, size(offer), terms.limits.accept(cost, base)];
        let reached = tests.iter().take_while(|passes| **passes).count();
        for set in passed.iter_mut().take(reached) {
            set.insert(*nick);
        }
        if reached < tests.len() {
            continue;
        }
        let tier = if !entry.trusted {
            Tier::Doubtful
        } else if terms.avoided.contains(nick) {
            Tier::Avoided
        } else {
            Tier::Good
        };
        let candidate = Candidate {
            nick: *nick,
            offer: *offer,
            fee: cost,
            bond_value: entry.bond_value,
            bond: entry.bond,
            tier,
        };
        match places.get(nick).and_then(|place| best.get_mut(*place)) {
            // The later of two that cost the same, as in the reference; but never a doubtful one for a good one.
            Some(known) if (candidate.tier, candidate.fee) <= (known.tier, known.fee) => {
                *known = candidate;
            }
            Some(_) => {}
            None => {
                places.insert(*nick, best.len());
                best.push(candidate);
            }
        }
    }
    best.sort_by_key(|candidate| candidate.fee);
    // One maker a bond: somebody who shows one coin under several nicks would be drawn several times.
    let mut bonds = BTreeSet::new();
    best.retain(|candidate| candidate.bond.is_none_or(|bond| bonds.insert(bond)));
    let [seen, kind, size, fee] = passed.map(|set| set.len());
    Candidates { makers: best, counts: Counts { seen, kind, size, fee } }
}

/// Draws one maker and takes it off the list, which is sorted by fee. `wanted` is how many makers were asked for at
/// first ([`Chooser::FeeWeighted`] looks at it).
pub fn draw(
    chooser: Chooser,
    makers: &mut Vec<Candidate>,
    wanted: usize,
    rng: &mut impl Rng,
) -> Option<Candidate> {
    let tier = makers.iter().map(|maker| maker.tier).min()?;
    let places: Vec<usize> =
        (0_usize..).zip(&*makers).filter(|(_, m)| m.tier == tier).map(|(place, _)| place).collect();
    let of_tier = || places.iter().filter_map(|place| makers.get(*place));
    let index = match chooser {
        Chooser::Cheapest => 0,
        Chooser::Random => uniform(places.len(), rng),
        Chooser::FeeWeighted => {
            let fees: Vec<i128> = of_tier().map(|maker| maker.fee).collect();
            weighted_index(&fee_weights(&fees, wanted), rng.random())
        }
        Chooser::BondWeighted { allowance } => {
            let values: Vec<f64> = of_tier().map(|maker| maker.bond_value).collect();
            bond_weighted(&values, allowance, rng.random(), rng.random())
                .unwrap_or_else(|| uniform(places.len(), rng))
        }
    };
    let place = places.get(index).or_else(|| places.last()).copied()?;
    (place < makers.len()).then(|| makers.remove(place))
}

/// Draws `wanted` makers, or as many as there are.
pub fn draw_many(
    chooser: Chooser,
    makers: &mut Vec<Candidate>,
    wanted: usize,
    rng: &mut impl Rng,
) -> Vec<Candidate> {
    std::iter::from_fn(|| draw(chooser, makers, wanted, rng)).take(wanted).collect()
}

/// A sweep whose amount is settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// The makers.
    pub makers: Vec<Candidate>,
    /// What makers are told in `!fill`; never computed again.
    pub amount: u64,
}

/// Draws makers for a sweep and solves for its amount; whoever does not take that amount is replaced, until all do.
/// `first` are makers that take part before any is drawn. `None` when there are too few.
pub fn draw_sweep(
    chooser: Chooser,
    first: Vec<Candidate>,
    makers: &mut Vec<Candidate>,
    wanted: usize,
    (inputs, miner_fee): (u64, u64),
    rng: &mut impl Rng,
) -> Option<Sweep> {
    let mut chosen = first;
    // Each turn takes at least one maker off the list.
    loop {
        while chosen.len() < wanted {
            chosen.push(draw(chooser, makers, wanted, rng)?);
        }
        let offers: Vec<Offer> = chosen.iter().map(|maker| maker.offer).collect();
        let amount = sweep_amount(inputs, miner_fee, &offers)?;
        let before = chosen.len();
        chosen.retain(|maker| maker.offer.accepts(amount));
        if chosen.len() == before {
            return Some(Sweep { makers: chosen, amount });
        }
    }
}

fn uniform(count: usize, rng: &mut impl Rng) -> usize {
    if count == 0 { 0 } else { rng.random_range(0..count) }
}

/// Place in a list of probabilities: the number of cumulative sums strictly below `r`, which is in 0..1.
#[must_use]
pub fn weighted_index(probabilities: &[f64], r: f64) -> usize {
    let sums = probabilities.iter().scan(0.0, |sum, probability| {
        *sum += probability;
        Some(*sum)
    });
    let below = sums.filter(|sum| *sum < r).count();
    // Sums of floating-point numbers may end a little below one.
    below.min(probabilities.len().saturating_sub(1))
}

/// One draw by bonds: a place in the list, or `None` for "uniformly among all". Both draws are uniform in 0..1.
#[must_use]
pub fn bond_weighted(values: &[f64], allowance: f64, by_chance: f64, place: f64) -> Option<usize> {
    if by_chance < allowance {
        return None;
    }
    let value = |value: f64| if value.is_finite() && value > 0.0 { value } else { 0.0 };
    let total: f64 = values.iter().map(|v| value(*v)).sum();
    if !(total.is_finite() && total > 0.0) {
        return None;
    }
    let shares: Vec<f64> = values.iter().map(|v| value(*v) / total).collect();
    let index = weighted_index(&shares, place);
    // `r` of 0 would fall on a maker without a bond that stands before the first with one; rounding at the end of
    // the list on one that stands behind the last.
    let bonded = |index: &usize| shares.get(*index).is_some_and(|share| *share > 0.0);
    (index..shares.len()).find(bonded).or_else(|| (0..index).rev().find(bonded))
}

/// Probabilities of the exponential chooser for fees in ascending order.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "weights, never money")]
pub fn fee_weights(fees: &[i128], wanted: usize) -> Vec<f64> {
    let Some((least, last)) = fees.first().zip(fees.last()) else { return Vec::new() };
    let reference = fees.get(wanted.saturating_mul(3)).unwrap_or(last);
    let phi = reference.saturating_sub(*least) as f64;
    let weight = |fee: &i128| {
        if phi > 0.0 { (-(fee.saturating_sub(*least) as f64) / phi).exp() } else { 1.0 }
    };
    let weights: Vec<f64> = fees.iter().map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}
