//! The parts of `cjfee.json` that need the size model or the coin selector; all others are run by the
//! protocol crate.

use bdk_wallet::bitcoin::Amount;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::transaction::fees::{maker_change, required_by_maker};
use joinery_testkit::vectors;
use joinery_wallet::fee::{InputKind, TxSize};
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::select::select;
use serde_json::Value;

fn file() -> Value {
    vectors::load(env!("CARGO_MANIFEST_DIR"), "cjfee.json")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn cases<'a>(file: &'a Value, key: &str) -> &'a [Value] {
    file[key].as_array().expect("a list of cases")
}

fn size(case: &Value) -> TxSize {
    let names = |key: &str| {
        let names: Vec<String> =
            serde_json::from_value(case[key].clone()).expect("a list of script types");
        names
    };
    let size = names("ins").iter().fold(TxSize::new(), |size, name| {
        size.input(match name.as_str() {
            "p2wpkh" => InputKind::P2wpkh,
            "p2sh-p2wpkh" => InputKind::P2shP2wpkh,
            "p2wsh" => InputKind::Bond { timenumber: 24 },
            "p2pkh" => InputKind::P2pkh,
            other => panic!("input {other}"),
        })
    });
    names("outs").iter().fold(size, |size, name| {
        size.output(match name.as_str() {
            "p2wpkh" => 31,
            "p2sh-p2wpkh" => 32,
            "p2wsh" | "p2tr" => 43,
            "p2pkh" => 34,
            other => panic!("output {other}"),
        })
    })
}

#[test]
fn sizes_and_fees_match_the_reference() {
    let file = file();
    vectors::each("cjfee.json tx_size_and_fee", cases(&file, "tx_size_and_fee"), |case| {
        let size = size(case);
        // The reference counts 116 witness bytes for a bond, we the exact 117.
        let bonds = case["ins"].as_array().into_iter().flatten().filter(|i| *i == "p2wsh").count();
        let found = (size.base_size(), size.witness_size() - bonds as u64, size.vsize());
        let expected = (number(case, "nonwitness"), number(case, "witness"), number(case, "vsize"));
        if found != expected {
            return Err(format!("{found:?} in place of {expected:?}"));
        }
        let fees = case["fee_by_rate_sat_per_kvb"].as_object().expect("fees by rate");
        for (rate, fee) in fees {
            let ours = size.fee(rate.parse().expect("a rate")).to_sat();
            let theirs = fee.as_u64().expect("a fee");
            // Rounded up, not down.
            if ours.checked_sub(theirs).is_none_or(|more| more > 1) {
                return Err(format!("{ours} in place of {theirs} at {rate}"));
            }
        }
        Ok(())
    });
}

#[test]
fn initial_targets_match_the_reference() {
    let file = file();
    let key = "taker_initial_select_target";
    vectors::each("cjfee.json taker_initial_select_target", cases(&file, key), |case| {
        // Three inputs and two outputs for each counterparty.
        let participant = TxSize::new().inputs_of(InputKind::P2wpkh, 3).output(31).output(31);
        let rate = number(case, "rate_sat_per_kvb");
        let fee = participant.fee(rate).to_sat() * number(case, "makers");
        let target = number(case, "cj_amount") + number(case, "total_cj_fee") + fee;
        if (fee, target) == (number(case, "total_txfee"), number(case, "select_target")) {
            Ok(())
        } else {
            Err(format!("{fee} and {target}"))
        }
    });
}

#[test]
fn makers_fill_from_the_coins_the_reference_takes() {
    let file = file();
    vectors::each("cjfee.json maker_fill", cases(&file, "maker_fill"), |case| {
        let terms = &case["offer"];
        let order_type = OrderType::parse(terms["ordertype"].as_str().expect("a type"));
        let fields = format!(
            "0 {} {} {} {}",
            number(terms, "minsize"),
            number(terms, "maxsize"),
            number(terms, "txfee"),
            terms["cjfee"].as_str().expect("a fee")
        );
        let offer = Offer::parse(order_type.expect("a known type"), &fields).expect("an offer");
        let amount = number(case, "amount");
        let required = required_by_maker(&offer, amount).expect("an amount");
        let mut mixdepths: Vec<(u64, Vec<(String, Amount)>)> = case["utxos_by_mixdepth"]
            .as_object()
            .expect("mixdepths")
            .iter()
            .map(|(mixdepth, coins)| {
                let coins = coins.as_object().expect("coins").iter();
                let coins = coins.map(|(name, value)| {
                    (name.clone(), Amount::from_sat(value.as_u64().expect("a value")))
                });
                (mixdepth.parse().expect("a number"), coins.collect())
            })
            .collect();
        mixdepths.sort_by_key(|(mixdepth, _)| *mixdepth);
        let chosen = mixdepths.iter().find_map(|(mixdepth, coins)| {
            let values: Vec<Amount> = coins.iter().map(|(_, value)| *value).collect();
            let target = Amount::from_sat(required);
            let indexes = select(MergeAlgorithm::Default, &values, target).ok()?;
            let mut names: Vec<&str> = indexes.iter().map(|i| coins[*i].0.as_str()).collect();
            names.sort_unstable();
            let total: u64 = indexes.iter().map(|index| values[*index].to_sat()).sum();
            Some((*mixdepth, names, total))
        });
        let result = &case["result"];
        match (chosen, result.as_object()) {
            (None, None) if result == "no_utxos" => Ok(()),
            (Some((mixdepth, names, total)), Some(_)) => {
                let change = maker_change(&offer, amount, total).expect("change");
                let found = serde_json::json!({
                    "input_mixdepth": mixdepth,
                    "selected": names,
                    "total_in": total,
                    "cj_output_mixdepth": (mixdepth + 1) % (number(case, "max_mixdepth") + 1),
                    "change_mixdepth": mixdepth,
                    "change": change,
                    "earned": u64::try_from(offer.earning(amount)).expect("positive"),
                });
                if found == *result { Ok(()) } else { Err(format!("{found} for {result}")) }
            }
            (chosen, _) => Err(format!("{chosen:?} for {result}")),
        }
    });
}
