//! `maker_offers.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cjfee::CjFee;
use crate::maker_offers::{InputMixdepthRule, OfferTerms, Spread, exact, randomised};
use crate::offer::{Offer, OrderType};

#[derive(Deserialize)]
struct File {
    offer_creation: Vec<Creation>,
    select_input_mixdepth: Vec<Choice>,
}

#[derive(Deserialize)]
struct Creation {
    label: String,
    generator: String,
    config: Config,
    balances: BTreeMap<String, u64>,
    #[serde(default)]
    offers: Vec<OfferJson>,
    uniform_draws: Vec<Draw>,
}

#[derive(Deserialize)]
struct Config {
    txfee_contribution: u64,
    cjfee_a: u64,
    cjfee_r: Option<String>,
    ordertype: String,
    minsize: u64,
    txfee_contribution_factor: f64,
    cjfee_factor: f64,
    size_factor: f64,
}

#[derive(Deserialize)]
struct OfferJson {
    oid: u64,
    ordertype: String,
    minsize: u64,
    maxsize: u64,
    txfee: u64,
    cjfee: String,
}

#[derive(Deserialize)]
struct Draw {
    low: f64,
    high: f64,
    u: f64,
}

#[derive(Deserialize)]
struct Choice {
    available: Vec<u8>,
    max_mixdepth: u8,
    privacyenhanced: u8,
    basic: u8,
}

fn assert_same(offer: &Offer, expected: &OfferJson, label: &str) {
    assert_eq!(offer.id.get(), expected.oid, "{label}");
    assert_eq!(offer.order_type.word(), expected.ordertype, "{label}");
    assert_eq!(offer.min_size, expected.minsize, "{label}");
    assert_eq!(offer.max_size, expected.maxsize, "{label}");
    assert_eq!(offer.tx_fee, expected.txfee, "{label}");
    let fee = match offer.cj_fee {
        CjFee::Absolute(fee) => fee.to_string(),
        // The reference prints six decimals; ours has three significant digits.
        CjFee::Relative(fee) if expected.cjfee.len() == 8 => format!("{:.6}", fee.approximate()),
        CjFee::Relative(fee) => fee.to_string(),
    };
    assert_eq!(fee, expected.cjfee, "{label}");
}

#[test]
fn offers_are_made_as_by_the_references_generators() {
    let file: File = super::load("maker_offers");
    assert_eq!(file.offer_creation.len(), 15);
    for case in &file.offer_creation {
        let config = &case.config;
        let order_type = OrderType::parse(&config.ordertype).unwrap();
        let terms = OfferTerms {
            order_type,
            cj_fee: if order_type.is_relative() {
                CjFee::Relative(config.cjfee_r.as_ref().unwrap().parse().unwrap())
            } else {
                CjFee::Absolute(config.cjfee_a)
            },
            tx_fee: config.txfee_contribution,
            min_size: config.minsize,
        };
        let balances: Vec<u64> = case.balances.values().copied().collect();
        let mut draws = case.uniform_draws.iter();
        let offer = if case.generator == "basic" {
            exact(&terms, &balances)
        } else {
            let spread = Spread {
                tx_fee: config.txfee_contribution_factor,
                cj_fee: config.cjfee_factor,
                size: config.size_factor,
            };
            randomised(&terms, &spread, &balances, |low, high| {
                let draw = draws.next().unwrap();
                let tolerance = 1e-9 * high.abs();
                assert!((low - draw.low).abs() <= tolerance, "{}: {low}", case.label);
                assert!((high - draw.high).abs() <= tolerance, "{}: {high}", case.label);
                low + (high - low) * draw.u
            })
        };
        assert!(draws.next().is_none(), "{}: draws are left", case.label);
        match (&offer, case.offers.as_slice()) {
            (Some(offer), [expected]) => assert_same(offer, expected, &case.label),
            (None, []) => {}
            other => panic!("{}: {other:?}", case.label, other = other.0),
        }
    }
}

#[test]
fn input_mixdepth_is_chosen_as_by_the_reference() {
    let file: File = super::load("maker_offers");
    assert_eq!(file.select_input_mixdepth.len(), 12);
    for case in &file.select_input_mixdepth {
        let count = case.max_mixdepth + 1;
        let choose = |rule: InputMixdepthRule| rule.choose(&case.available, count);
        assert_eq!(choose(InputMixdepthRule::LargestGap), Some(case.privacyenhanced));
        assert_eq!(choose(InputMixdepthRule::Lowest), Some(case.basic));
    }
}

#[test]
fn default_fee_on_grid() {
    // The default fee of everybody is not moved when the factor is zero.
    let terms = OfferTerms {
        order_type: OrderType::Sw0Relative,
        cj_fee: CjFee::Relative("0.00002".parse().unwrap()),
        tx_fee: 0,
        min_size: 100_000,
    };
    let spread = Spread { tx_fee: 0.0, cj_fee: 0.0, size: 0.1 };
    let offer = randomised(&terms, &spread, &[10_000_000], |low, _| low).unwrap();
    assert_eq!(offer.cj_fee.of(100_000_000), 2_000);
}
