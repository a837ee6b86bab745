//! `wallet_coin_selection.json` and `coin_selection.json`: every case, all four merge algorithms.

use joinery_testkit::vectors;
use joinery_wallet::bitcoin::Amount;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::select::select;
use serde_json::Value;

const ALGORITHMS: [(&str, MergeAlgorithm); 4] = [
    ("default", MergeAlgorithm::Default),
    ("gradual", MergeAlgorithm::Gradual),
    ("greedy", MergeAlgorithm::Greedy),
    ("greediest", MergeAlgorithm::Greediest),
];

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().expect("list").iter().map(|v| v.as_u64().expect("number")).collect()
}

fn cases(name: &str) -> Vec<Value> {
    let file: Value = vectors::load(env!("CARGO_MANIFEST_DIR"), name);
    file["cases"].as_array().expect("cases").clone()
}

struct Case {
    values: Vec<Amount>,
    target: Amount,
}

impl Case {
    fn of(case: &Value) -> Self {
        Self {
            values: numbers(&case["values"]).into_iter().map(Amount::from_sat).collect(),
            target: Amount::from_sat(case["target"].as_u64().expect("target")),
        }
    }

    fn run(&self, algorithm: MergeAlgorithm) -> Result<Vec<usize>, String> {
        select(algorithm, &self.values, self.target).map_err(|error| error.to_string())
    }
}

#[test]
fn chooses_the_same_positions_in_the_same_order_as_the_reference() {
    vectors::each("wallet_coin_selection.json", &cases("wallet_coin_selection.json"), |case| {
        let inputs = Case::of(case);
        for (name, algorithm) in ALGORITHMS {
            let expected = &case["result"][name];
            let chosen = inputs.run(algorithm);
            if let Some(error) = expected["error"].as_str() {
                if chosen != Err(error.to_owned()) {
                    return Err(format!("{name}: {chosen:?} in place of {error}"));
                }
                continue;
            }
            let mut positions: Vec<usize> = Vec::new();
            for position in numbers(&expected["indexes"]) {
                let position = usize::try_from(position).expect("position");
                // The reference's greedy may name one coin twice; results are keyed by outpoint there.
                if !positions.contains(&position) {
                    positions.push(position);
                }
            }
            if chosen.as_ref() != Ok(&positions) {
                return Err(format!("{name}: {chosen:?} in place of {positions:?}"));
            }
            let sum = numbers(&expected["indexes"])
                .into_iter()
                .map(|p| inputs.values[usize::try_from(p).expect("position")].to_sat())
                .sum::<u64>();
            assert_eq!(Some(sum), expected["sum"].as_u64());
        }
        Ok(())
    });
}

#[test]
fn chooses_the_same_values_in_the_same_order_as_the_reference() {
    let mut not_enough = 0;
    vectors::each("coin_selection.json", &cases("coin_selection.json"), |case| {
        let inputs = Case::of(case);
        for (name, algorithm) in ALGORITHMS {
            let chosen = inputs.run(algorithm);
            if case[name] == "not_enough_funds" {
                not_enough += 1;
                if chosen.is_ok() {
                    return Err(format!("{name}: {chosen:?} though funds are missing"));
                }
                continue;
            }
            let mut expected = numbers(&case[name]);
            let smallest = inputs.values.iter().min().expect("values").to_sat();
            if name == "greedy" && expected == [smallest; 2] && smallest > inputs.target.to_sat() {
                // The single smallest coin, listed twice by the reference.
                expected.pop();
            }
            let values: Vec<u64> =
                chosen?.into_iter().map(|position| inputs.values[position].to_sat()).collect();
            if values != expected {
                return Err(format!("{name}: {values:?} in place of {expected:?}"));
            }
        }
        Ok(())
    });
    assert!(not_enough > 0, "the file has cases without enough funds");
}
