//! Fee arithmetic of `cjfee.json` and `offers.json`.

use serde::Deserialize;

use crate::cjfee::CjFee;

#[derive(Deserialize)]
struct CjFeeFile {
    real_cjfee: Vec<RealFee>,
}

#[derive(Deserialize)]
struct RealFee {
    ordertype: String,
    cjfee: String,
    cj_amount: u64,
    real_cjfee: u64,
}

#[derive(Deserialize)]
struct OffersFile {
    fee: Vec<OfferFee>,
}

#[derive(Deserialize)]
struct OfferFee {
    ordertype: String,
    cjfee: String,
    amount: u64,
    expected_fee: u64,
}

fn fee(ordertype: &str, text: &str) -> CjFee {
    if ordertype.ends_with("reloffer") {
        CjFee::Relative(text.parse().unwrap())
    } else {
        CjFee::Absolute(text.parse().unwrap())
    }
}

#[test]
fn fees_are_exact_to_the_satoshi() {
    let cjfee: CjFeeFile = super::load("cjfee");
    for (index, case) in cjfee.real_cjfee.iter().enumerate() {
        assert_eq!(
            fee(&case.ordertype, &case.cjfee).of(case.cj_amount),
            case.real_cjfee,
            "cjfee.json case {index}"
        );
    }
    let offers: OffersFile = super::load("offers");
    for (index, case) in offers.fee.iter().enumerate() {
        assert_eq!(
            fee(&case.ordertype, &case.cjfee).of(case.amount),
            case.expected_fee,
            "offers.json fee {index}"
        );
    }
}
