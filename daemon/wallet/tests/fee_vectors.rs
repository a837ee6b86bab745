//! `wallet_fee_estimation.json`: sizes, fees and the absurd fee error, every case.

use joinery_testkit::vectors;
use joinery_wallet::fee::{InputKind, TxSize, fee_rate};
use joinery_wallet::policy::TxFees;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

fn file() -> Value {
    vectors::load(env!("CARGO_MANIFEST_DIR"), "wallet_fee_estimation.json")
}

fn input(name: &str) -> InputKind {
    match name {
        "p2wpkh" => InputKind::P2wpkh,
        "p2sh-p2wpkh" => InputKind::P2shP2wpkh,
        "p2wsh" => InputKind::Bond { timenumber: 24 },
        "p2pkh" => InputKind::P2pkh,
        other => panic!("input {other}"),
    }
}

fn output(name: &str) -> u64 {
    match name {
        "p2wpkh" => 31,
        "p2sh-p2wpkh" => 32,
        "p2wsh" | "p2tr" => 43,
        "p2pkh" => 34,
        other => panic!("output {other}"),
    }
}

fn names(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().expect("list").iter().map(|name| name.as_str().expect("name"))
}

#[test]
fn sizes_match_the_reference() {
    let file = file();
    let cases = file["sizes"].as_array().expect("sizes");
    vectors::each("wallet_fee_estimation.json sizes", cases, |case| {
        let size = names(&case["ins"]).fold(TxSize::new(), |size, name| size.input(input(name)));
        let size = names(&case["outs"]).fold(size, |size, name| size.output(output(name)));
        let number = |key: &str| case[key].as_u64();
        if let Some(bytes) = number("bytes") {
            // Legacy only: no witness at all.
            let found = (size.base_size(), size.witness_size(), size.vsize());
            return if found == (bytes, 0, bytes) { Ok(()) } else { Err(format!("{found:?}")) };
        }
        // The reference counts 116 witness bytes for a bond, we the exact 117.
        let bonds = names(&case["ins"]).filter(|name| *name == "p2wsh").count() as u64;
        let found = (size.base_size(), size.witness_size() - bonds, size.vsize());
        let expected = (
            number("non_witness_bytes").expect("number"),
            number("witness_bytes").expect("number"),
            number("vsize").expect("number"),
        );
        if found != expected {
            return Err(format!("{found:?} in place of {expected:?}"));
        }
        if number("ng_vsize").is_some_and(|vsize| vsize != size.vsize()) {
            return Err(format!("vsize {} differs from joinmarket-ng", size.vsize()));
        }
        Ok(())
    });
}

#[test]
fn fees_are_those_of_the_reference_rounded_up() {
    let file = file();
    let cases = file["fees"].as_array().expect("fees");
    let mut absurd = 0;
    vectors::each("wallet_fee_estimation.json fees", cases, |case| {
        let number = |key: &str| case[key].as_u64().expect("number");
        let wanted = number("fee_per_kvb");
        // A factor of zero: no randomisation, as the file was made.
        let rate = fee_rate(
            TxFees::SatPerKvb(wanted),
            None,
            Some(0),
            0.0,
            350_000,
            &mut StdRng::seed_from_u64(1),
        );
        if let Some(error) = case["fee"].as_str() {
            absurd += 1;
            let found = rate.expect_err("above the limit").to_string();
            return if error == format!("error: ValueError: {found}") {
                Ok(())
            } else {
                Err(found)
            };
        }
        let rate = rate.map_err(|error| error.to_string())?;
        assert_eq!(rate, wanted);
        let outputs = number("n_out");
        let size =
            TxSize::new().inputs_of(input(case["type"].as_str().expect("type")), number("n_in"));
        let size = (0..outputs).fold(size, |size, _| size.output(output("p2wpkh")));
        let fee = size.fee(rate).to_sat();
        let exact = size.vsize() * rate;
        if exact / 1000 != number("fee") {
            return Err(format!("{exact} / 1000 is not the reference's {}", number("fee")));
        }
        // up, not down.
        if fee != exact.div_ceil(1000) {
            return Err(format!("fee {fee}"));
        }
        Ok(())
    });
    assert_eq!(absurd, 5);
}
