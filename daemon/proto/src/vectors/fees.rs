//! Amounts of both sides in `cjfee.json`. Cases that need a coin selector or the size model are run by the
//! wallet crate (`daemon/wallet/tests/coinjoin_amounts.rs`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::offer::{Offer, OrderType};
use crate::transaction::fees::{
    FeeLimits, fee_total, maker_change, required_by_maker, sweep_amount, taker_miner_fee,
};

#[derive(Deserialize)]
struct File {
    constants: BTreeMap<String, u64>,
    maker_fill: Vec<MakerFill>,
    maker_signing_profit_check: Vec<Profit>,
    sweep_amount: Vec<Sweep>,
    fee_limit_check: Vec<Limit>,
}

#[derive(Deserialize)]
struct OfferJson {
    ordertype: String,
    cjfee: String,
    txfee: u64,
}

impl OfferJson {
    fn offer(&self) -> Offer {
        let order_type = OrderType::parse(&self.ordertype).unwrap();
        let fields = format!("0 27300 10000000000 {} {}", self.txfee, self.cjfee);
        Offer::parse(order_type, &fields).unwrap()
    }
}

#[derive(Deserialize)]
struct MakerFill {
    label: String,
    offer: OfferJson,
    amount: u64,
    real_cjfee: u64,
    required_amount: u64,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Profit {
    offer: OfferJson,
    amount: u64,
    real_cjfee: u64,
    earned: i128,
    maker_signs: bool,
}

#[derive(Deserialize)]
struct Sweep {
    label: String,
    total_input_value: u64,
    total_txfee: u64,
    offers: Vec<OfferJson>,
    my_txfee: u64,
    cj_amount: u64,
    total_cjfee_reported: u64,
    per_maker_real_cjfee: Vec<u64>,
    residual: i64,
}

#[derive(Deserialize)]
struct Limit {
    max_cj_fee_rel: serde_json::Number,
    max_cj_fee_abs: u64,
    cj_amount: u64,
    fee: i64,
    accepted: bool,
}

fn file() -> File {
    super::load("cjfee")
}

#[test]
fn dust_thresholds_are_the_networks() {
    let constants = file().constants;
    assert_eq!(constants["jm_dust_threshold"], crate::offer::DUST_THRESHOLD);
    assert_eq!(constants["bitcoin_dust_threshold"], crate::offer::BITCOIN_DUST_THRESHOLD);
}

#[test]
fn makers_require_and_get_back_what_the_reference_says() {
    for case in file().maker_fill {
        let offer = case.offer.offer();
        assert_eq!(offer.cj_fee.of(case.amount), case.real_cjfee, "{}", case.label);
        let required = required_by_maker(&offer, case.amount);
        assert_eq!(required, Some(case.required_amount), "{}", case.label);
        let Some(result) = case.result.as_object() else { continue };
        let inputs = result["total_in"].as_u64().unwrap();
        let change = maker_change(&offer, case.amount, inputs);
        assert_eq!(change, result["change"].as_u64(), "{}", case.label);
        let earned = result["earned"].as_i64().map(i128::from);
        assert_eq!(Some(offer.earning(case.amount)), earned, "{}", case.label);
    }
}

#[test]
fn makers_sign_only_when_they_do_not_lose() {
    for case in file().maker_signing_profit_check {
        let offer = case.offer.offer();
        assert_eq!(offer.cj_fee.of(case.amount), case.real_cjfee);
        assert_eq!(offer.earning(case.amount), case.earned);
        assert_eq!(offer.earning(case.amount) >= 0, case.maker_signs);
    }
}

#[test]
fn sweep_amounts_are_exact() {
    for case in file().sweep_amount {
        let offers: Vec<Offer> = case.offers.iter().map(OfferJson::offer).collect();
        let own_fee = taker_miner_fee(case.total_txfee, &offers);
        assert_eq!(own_fee, case.my_txfee, "{}", case.label);
        let amount = sweep_amount(case.total_input_value, case.total_txfee, &offers);
        assert_eq!(amount, Some(case.cj_amount), "{}", case.label);
        assert_eq!(
            fee_total(&offers, case.cj_amount),
            Some(case.total_cjfee_reported),
            "{}",
            case.label
        );
        let fees: Vec<u64> = offers.iter().map(|o| o.cj_fee.of(case.cj_amount)).collect();
        assert_eq!(fees, case.per_maker_real_cjfee, "{}", case.label);
        let spent = case.cj_amount + fees.iter().sum::<u64>() + own_fee;
        let residual = case.total_input_value.cast_signed() - spent.cast_signed();
        assert_eq!(residual, case.residual, "{}", case.label);
    }
}

#[test]
fn fee_limits_refuse_only_what_is_above_both() {
    let cases = file().fee_limit_check;
    assert_eq!(cases.len(), 48);
    for (index, case) in cases.iter().enumerate() {
        let limits = FeeLimits {
            absolute: case.max_cj_fee_abs,
            relative: case.max_cj_fee_rel.to_string().parse().unwrap(),
        };
        let accepted = limits.accept(case.fee.into(), case.cj_amount);
        assert_eq!(accepted, case.accepted, "case {index}");
    }
}

proptest::proptest! {
    /// A sweep is rounded once and frozen; what is left over is at most one satoshi a maker and one
    /// for the amount itself, either way.
    #[test]
    fn sweep_amount_frozen(
        inputs in 1_000_000_u64..2_100_000_000_000_000,
        miner_fee in 0_u64..100_000,
        fees in proptest::collection::vec("0\\.000[0-9]{2,5}", 1..12),
    ) {
        let offers: Vec<Offer> = fees
            .iter()
            .map(|fee| OfferJson { ordertype: "sw0reloffer".into(), cjfee: fee.clone(), txfee: 0 }.offer())
            .collect();
        let amount = sweep_amount(inputs, miner_fee, &offers).unwrap();
        let spent = amount + miner_fee + offers.iter().map(|o| o.cj_fee.of(amount)).sum::<u64>();
        proptest::prop_assert!(spent.abs_diff(inputs) <= offers.len() as u64 + 1);
    }
}
