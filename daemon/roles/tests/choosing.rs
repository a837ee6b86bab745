//! `order_choice.json` and `podle_sourcing.json`: every case that concerns the choice of makers and commitments. Their
//! parts about accepting offers are run with the order book.

#![allow(clippy::unwrap_used)] // tests, where a panic is the report

use std::collections::{BTreeMap, BTreeSet};

use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::{OutPoint, Txid};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::transaction::fees::{FeeLimits, fee_total};
use joinery_roles::choose::{
    Candidate, Chooser, Listed, Terms, Tier, bond_weighted, draw_many, draw_sweep, fee_weights,
    for_amount, for_sweep, weighted_index,
};
use joinery_roles::podle_source::{CommitmentCoin, CommitmentRules, Remedy, source};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn nick(name: &str) -> Nick {
    format!("J5{name}{}", "z".repeat(14 - name.len())).parse().unwrap()
}

/// An outpoint that a short name stands for.
fn outpoint(name: &str) -> OutPoint {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    OutPoint { txid: Txid::from_byte_array(bytes), vout: 0 }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn listed(value: &Value) -> Listed {
    let field = |key: &str| number(value, key);
    let fields = format!(
        "{} {} {} {} {}",
        field("oid"),
        field("minsize"),
        field("maxsize"),
        field("txfee"),
        text(value, "cjfee")
    );
    let order_type = OrderType::parse(text(value, "ordertype")).unwrap();
    Listed {
        nick: nick(text(value, "counterparty")),
        offer: Offer::parse(order_type, &fields).unwrap(),
        bond_value: value["fidelity_bond_value"].as_f64().unwrap(),
        bond: None,
        trusted: true,
    }
}

fn list(case: &Value) -> Vec<Listed> {
    case["offers"].as_array().unwrap().iter().map(listed).collect()
}

fn ignored(case: &Value) -> BTreeSet<Nick> {
    let names = case["ignored_makers"].as_array().unwrap().iter();
    names.map(|name| nick(name.as_str().unwrap())).collect()
}

fn limits(case: &Value) -> FeeLimits {
    FeeLimits {
        absolute: number(case, "max_cj_fee_abs"),
        relative: case["max_cj_fee_rel"].to_string().parse().unwrap(),
    }
}

/// Nick, offer and fee of each candidate, in order.
fn told(makers: &[Candidate]) -> Vec<(Nick, u64, i128)> {
    makers.iter().map(|maker| (maker.nick, maker.offer.id.get(), maker.fee)).collect()
}

fn expected(value: &Value, fee: &str) -> Vec<(Nick, u64, i128)> {
    let entries = value.as_array().unwrap().iter();
    let entry = |entry: &Value| {
        let fee = i128::from(entry[fee].as_i64().unwrap());
        (nick(text(entry, "counterparty")), number(entry, "oid"), fee)
    };
    entries.map(entry).collect()
}

#[test]
fn offers_are_filtered_for_an_amount() {
    let file = load("order_choice");
    let cases = file["filter_non_sweep"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let (excluded, avoided) = (ignored(case), BTreeSet::new());
        let terms = Terms { limits: limits(case), excluded: &excluded, avoided: &avoided };
        let found = for_amount(&list(case), number(case, "cj_amount"), &terms);
        let wanted = expected(&case["survivors_sorted_by_fee"], "effective_fee");
        assert_eq!(told(&found.makers), wanted, "{}", case["label"]);
    }
}

#[test]
fn offers_are_filtered_and_solved_for_a_sweep() {
    let file = load("order_choice");
    let cases = file["filter_sweep"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let label = &case["label"];
        let (excluded, avoided) = (ignored(case), BTreeSet::new());
        let terms = Terms { limits: limits(case), excluded: &excluded, avoided: &avoided };
        let sums = (number(case, "total_input_value"), number(case, "total_txfee"));
        let mut found = for_sweep(&list(case), sums.0, sums.1, &terms);
        let wanted = usize::try_from(number(case, "n")).unwrap();
        let result = &case["result_with_cheapest_chooser"];
        // The reference lists nobody when there are too few.
        if found.makers.len() >= wanted {
            let initial = expected(&case["initial_candidates"], "fee_at_total_value");
            assert_eq!(told(&found.makers), initial, "{label}");
        }
        let mut rng = StdRng::seed_from_u64(1);
        let makers = &mut found.makers;
        let sweep = draw_sweep(Chooser::Cheapest, Vec::new(), makers, wanted, sums, &mut rng);
        let Some(sweep) = sweep else {
            assert!(result.is_null(), "{label}");
            continue;
        };
        let names: Vec<Nick> = sweep.makers.iter().map(|maker| maker.nick).collect();
        let told = result["makers"].as_array().unwrap().iter();
        let told: Vec<Nick> = told.map(|name| nick(name.as_str().unwrap())).collect();
        assert_eq!(names, told, "{label}");
        assert_eq!(sweep.amount, number(result, "cj_amount"), "{label}");
        let offers: Vec<Offer> = sweep.makers.iter().map(|maker| maker.offer).collect();
        let total = fee_total(&offers, sweep.amount);
        assert_eq!(total, Some(number(result, "total_cj_fee")), "{label}");
    }
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn weighted_draws_are_those_of_the_reference() {
    let file = load("order_choice");
    let cases = file["weighted_index"].as_array().unwrap();
    assert_eq!(cases.len(), 45);
    for (index, case) in cases.iter().enumerate() {
        let found = weighted_index(&floats(&case["p"]), case["r"].as_f64().unwrap());
        assert_eq!(found as u64, number(case, "index"), "case {index}");
    }
}

#[test]
fn fee_weights_are_those_of_the_reference() {
    let file = load("order_choice");
    let cases = file["exponential_fee_weights"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for (index, case) in cases.iter().enumerate() {
        let fees = case["sorted_fees"].as_array().unwrap().iter();
        let fees: Vec<i128> = fees.map(|fee| i128::from(fee.as_i64().unwrap())).collect();
        let found = fee_weights(&fees, usize::try_from(number(case, "n")).unwrap());
        let wanted = floats(&case["weights"]);
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found - wanted).abs() <= wanted * 1e-12, "case {index}: {found}, {wanted}");
        }
    }
}

#[test]
fn bonded_draws_are_those_of_the_reference() {
    let file = load("order_choice");
    let cases = file["fidelity_bond_weighted_choose"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for (index, case) in cases.iter().enumerate() {
        let value = |key: &str| case[key].as_f64().unwrap();
        let found = bond_weighted(
            &floats(&case["bond_values"]),
            value("bondless_makers_allowance"),
            value("r_allowance"),
            value("r_weight"),
        );
        let wanted = case["chosen_index"].as_u64().map(|index| usize::try_from(index).unwrap());
        assert_eq!(found.is_none(), wanted.is_none(), "case {index}: {}", case["branch"]);
        // A draw of exactly 0 falls on the first maker in the reference, bond or not; a maker without a bond must not
        // be chosen for its bond.
        if let (Some(found), Some(wanted)) = (found, wanted) {
            let bonded = floats(&case["bond_values"])[wanted] > 0.0;
            assert!(found == wanted || !bonded, "case {index}: {found}, {wanted}");
        }
    }
}

fn candidate(name: &str, bond_value: f64) -> Candidate {
    let offer = Offer::parse(OrderType::Sw0Relative, "0 27300 100000000 0 0.00002").unwrap();
    Candidate { nick: nick(name), offer, fee: 1, bond_value, bond: None, tier: Tier::Good }
}

#[test]
fn makers_are_included_as_often_as_by_the_reference() {
    let file = load("order_choice");
    let case = &file["inclusion_frequency"];
    let book: Vec<Candidate> = case["book"]
        .as_array()
        .unwrap()
        .iter()
        .map(|maker| {
            let value = maker["fidelity_bond_value"].as_f64().unwrap();
            // Digit 0 is not in the alphabet of nicks.
            candidate(&text(maker, "counterparty").replace('0', "o"), value)
        })
        .collect();
    let wanted = usize::try_from(number(case, "n")).unwrap();
    let chooser = Chooser::BondWeighted { allowance: case["allowance"].as_f64().unwrap() };
    let trials = number(case, "trials");
    let mut counts: BTreeMap<Nick, u64> = BTreeMap::new();
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..trials {
        let chosen = draw_many(chooser, &mut book.clone(), wanted, &mut rng);
        assert_eq!(chosen.len(), wanted);
        for maker in chosen {
            *counts.entry(maker.nick).or_default() += 1;
        }
    }
    let tolerance = case["tolerance"].as_f64().unwrap();
    for (name, observed) in case["observed_inclusion"].as_object().unwrap() {
        let count = counts.get(&nick(&name.replace('0', "o"))).copied().unwrap_or_default();
        let found = count as f64 / trials as f64;
        let observed = observed.as_f64().unwrap();
        assert!((found - observed).abs() <= tolerance, "{name}: {found}, {observed}");
    }
}

#[test]
fn makers_to_avoid_and_doubtful_offers_come_last() {
    let mut book = vec![candidate("A", 0.0), candidate("B", 9.0), candidate("C", 0.0)];
    book[1].tier = Tier::Avoided;
    book[2].tier = Tier::Doubtful;
    let chooser = Chooser::default();
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = draw_many(chooser, &mut book.clone(), 3, &mut rng);
        let names: Vec<Nick> = chosen.iter().map(|maker| maker.nick).collect();
        assert_eq!(names, [nick("A"), nick("B"), nick("C")]);
    }
}

#[test]
fn one_bond_counts_for_the_cheapest_maker_only() {
    let entry = |name: &str, fee: &str| Listed {
        nick: nick(name),
        offer: Offer::parse(OrderType::Sw0Absolute, &format!("0 27300 100000000 0 {fee}")).unwrap(),
        bond_value: 5.0,
        bond: Some(outpoint("bond")),
        trusted: true,
    };
    let (excluded, avoided) = (BTreeSet::new(), BTreeSet::new());
    let limits = FeeLimits { absolute: 4000, relative: "0.004".parse().unwrap() };
    let terms = Terms { limits, excluded: &excluded, avoided: &avoided };
    let found = for_amount(&[entry("A", "20"), entry("B", "10")], 1_000_000, &terms);
    assert_eq!(told(&found.makers), [(nick("B"), 0, 10)]);
}

fn coin(name: &str, value: &Value) -> CommitmentCoin {
    CommitmentCoin {
        outpoint: outpoint(name),
        value: number(value, "value"),
        confirmations: value["confirmations"].as_u64().map(|c| u32::try_from(c).unwrap()),
        standard: value["standard_script"].as_bool().unwrap(),
        used: (0..u8::try_from(number(value, "tries_used")).unwrap()).collect(),
    }
}

#[test]
fn commitments_are_sourced_as_by_the_reference() {
    let file = load("podle_sourcing");
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let label = &case["label"];
        let coins = |key: &str| -> Vec<CommitmentCoin> {
            case[key].as_object().unwrap().iter().map(|(name, coin_)| coin(name, coin_)).collect()
        };
        let rules = CommitmentRules {
            retries: u8::try_from(number(case, "taker_utxo_retries")).unwrap(),
            age: u32::try_from(number(case, "taker_utxo_age")).unwrap(),
            percent: u8::try_from(number(case, "taker_utxo_amtpercent")).unwrap(),
        };
        let (selected, all) = (coins("selected_inputs"), coins("all_in_mixdepth"));
        let external = coins("external");
        let amount = number(case, "cj_amount");
        let found = source(amount, &selected, &all, &external, &rules);
        let result = &case["result"];
        match (text(result, "outcome"), found) {
            ("ok", Ok(found)) => {
                assert_eq!(found.outpoint, outpoint(text(result, "utxo")), "{label}");
                assert_eq!(u64::from(found.index), number(result, "index"), "{label}");
                assert_eq!(found.external, text(result, "source") == "external", "{label}");
            }
            (outcome @ ("wait_for_age" | "abort"), Err(why)) => {
                let waits = matches!(why.remedy(), Remedy::Wait { .. });
                assert_eq!(waits, outcome == "wait_for_age", "{label}");
                let names = |key: &str| -> Vec<OutPoint> {
                    let names = result[key].as_array().unwrap().iter();
                    names.map(|name| outpoint(name.as_str().unwrap())).collect()
                };
                let too_new: Vec<OutPoint> = why.too_new.iter().map(|(o, _)| *o).collect();
                assert_eq!(why.exhausted, names("exhausted"), "{label}");
                assert_eq!(too_new, names("too_new"), "{label}");
                assert_eq!(why.too_small, names("too_small"), "{label}");
                assert!(!why.summary(&rules).is_empty());
            }
            (outcome, found) => panic!("{label}: {outcome} wanted, {found:?}"),
        }
    }
}

#[test]
fn of_several_coins_the_least_used_then_the_oldest_backs_the_commitment() {
    let make = |name: &str, confirmations, used: &[u8]| CommitmentCoin {
        outpoint: outpoint(name),
        value: 1_000_000,
        confirmations: Some(confirmations),
        standard: true,
        used: used.to_vec(),
    };
    let rules = CommitmentRules::default();
    let coins = [make("a", 100, &[0]), make("b", 6, &[]), make("c", 7, &[])];
    let found = source(1_000_000, &coins, &[], &[], &rules).unwrap();
    assert_eq!((found.outpoint, found.index), (outpoint("c"), 0));
    // Above the highest used one, also where a lower one was never used.
    let coins = [make("a", 100, &[1])];
    assert_eq!(source(1_000_000, &coins, &[], &[], &rules).unwrap().index, 2);
    // Indexes that these rules do not allow do not count.
    let coins = [make("a", 100, &[7])];
    assert_eq!(source(1_000_000, &coins, &[], &[], &rules).unwrap().index, 0);
    assert_eq!(rules.tries_left(&[0]), 2);
    assert_eq!(rules.tries_left(&[2]), 0);
}

#[test]
fn texts_say_when_to_try_again() {
    let make = |name: &str, confirmations, value| CommitmentCoin {
        outpoint: outpoint(name),
        value,
        confirmations: Some(confirmations),
        standard: true,
        used: Vec::new(),
    };
    let rules = CommitmentRules::default();
    let why = source(1_000_000, &[make("a", 2, 1_000_000), make("b", 4, 10)], &[], &[], &rules)
        .unwrap_err();
    assert_eq!(why.remedy(), Remedy::Wait { blocks: 3 });
    assert_eq!(
        why.summary(&rules),
        "no commitment can be made: 2 coins below 5 confirmations, 1 coin worth less than 20 % of the amount; try again in 3 blocks"
    );
    let report = why.report(&rules);
    let places =
        ["fewer than 5", "less than 20 %", "try again"].map(|part| report.find(part).unwrap());
    assert!(places.is_sorted());
}

fn any_listed() -> impl Strategy<Value = Listed> {
    let name = "[A-E]";
    let kind = prop_oneof![
        Just(OrderType::Sw0Absolute),
        Just(OrderType::Sw0Relative),
        Just(OrderType::Relative)
    ];
    (
        name,
        kind,
        0..3_u64,
        27_300..3_000_000_u64,
        0..3_000_000_u64,
        0..2_000_u64,
        0..9_000_u64,
        0..4_u8,
        any::<bool>(),
    )
        .prop_map(|(name, kind, id, min, more, tx_fee, fee, bond, trusted)| {
            let fee = if kind.is_relative() { format!("0.0{fee:04}") } else { fee.to_string() };
            let fields = format!("{id} {min} {} {tx_fee} {fee}", min + more);
            Listed {
                nick: nick(&name),
                offer: Offer::parse(kind, &fields).unwrap(),
                bond_value: f64::from(bond),
                bond: (bond > 1).then(|| outpoint(&bond.to_string())),
                trusted,
            }
        })
}

proptest! {
    /// Whatever the book: whoever is chosen is allowed, offers this amount within the limits, and is chosen once.
    #[test]
    fn chosen_makers_are_never_ignored_double_or_out_of_range(
        book in prop::collection::vec(any_listed(), 0..25),
        excluded in prop::collection::btree_set("[A-E]", 0..3),
        amount in 27_300..4_000_000_u64,
        wanted in 1..6_usize,
        seed in any::<u64>(),
        way in 0..4_u8,
    ) {
        let excluded: BTreeSet<Nick> = excluded.iter().map(|name| nick(name)).collect();
        let avoided = BTreeSet::from([nick("A")]);
        let limits = FeeLimits { absolute: 4_000, relative: "0.004".parse().unwrap() };
        let terms = Terms { limits, excluded: &excluded, avoided: &avoided };
        let chooser = [
            Chooser::default(), Chooser::Random, Chooser::Cheapest, Chooser::FeeWeighted,
        ][usize::from(way)];
        let mut rng = StdRng::seed_from_u64(seed);
        let check = |makers: &[Candidate], amount: u64| {
            let nicks: BTreeSet<Nick> = makers.iter().map(|maker| maker.nick).collect();
            let bonds: Vec<OutPoint> = makers.iter().filter_map(|maker| maker.bond).collect();
            prop_assert_eq!(nicks.len(), makers.len());
            prop_assert_eq!(bonds.iter().collect::<BTreeSet<_>>().len(), bonds.len());
            for maker in makers {
                prop_assert!(!excluded.contains(&maker.nick));
                prop_assert!(maker.offer.accepts(amount));
                prop_assert!(book.iter().any(|e| e.nick == maker.nick && e.offer == maker.offer));
                prop_assert!(maker.offer.order_type != OrderType::Relative);
            }
            Ok(())
        };
        let mut found = for_amount(&book, amount, &terms);
        let counts = found.counts;
        prop_assert!(counts.seen >= counts.kind && counts.kind >= counts.size);
        prop_assert!(counts.size >= counts.fee && counts.fee >= found.makers.len());
        let makers = draw_many(chooser, &mut found.makers, wanted, &mut rng);
        check(&makers, amount)?;
        for maker in &makers {
            prop_assert!(limits.accept(maker.offer.earning(amount), amount));
        }
        let miner_fee = amount / 100;
        let mut found = for_sweep(&book, amount, miner_fee, &terms);
        let sums = (amount, miner_fee);
        let sweep = draw_sweep(chooser, Vec::new(), &mut found.makers, wanted, sums, &mut rng);
        if let Some(sweep) = sweep {
            prop_assert_eq!(sweep.makers.len(), wanted);
            check(&sweep.makers, sweep.amount)?;
            // Conservation: what is left beside amount, fees and miner fee is a few satoshi of rounding.
            let fees: u64 = sweep.makers.iter().map(|m| m.offer.cj_fee.of(sweep.amount)).sum();
            let shares: u64 = sweep.makers.iter().map(|m| m.offer.tx_fee).sum();
            let spent = sweep.amount + fees + miner_fee.saturating_sub(shares);
            prop_assert!(spent.abs_diff(amount) <= wanted as u64 + 1);
        }
    }
}
