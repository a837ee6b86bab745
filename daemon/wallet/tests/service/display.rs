//! `display_example.json` and `coinjoin_detection.json`, every case.

use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, consensus};
use joinery_wallet::coinjoin_shape::coinjoin_shape;
use joinery_wallet::display::{self, AccountInfo, Btc};
use joinery_wallet::types::{Branch, Mixdepth, Network, WalletType};
use serde_json::{Map, Value, json};

use crate::rig::{As, Rig, until};

const TIP: u32 = 850_000;
const CONFIRMED: u32 = 849_000;
/// Middle of 2026, seconds since epoch: 2022 has passed and May 2028 has not.
const NOW: u64 = 1_780_000_000;

fn vector(name: &str) -> Value {
    joinery_testkit::vectors::load(env!("CARGO_MANIFEST_DIR"), name)
}

fn account_json(account: &AccountInfo) -> Value {
    let branches: Vec<Value> = account
        .branches
        .iter()
        .map(|branch| {
            let entries: Vec<Value> = branch
                .entries
                .iter()
                .map(|entry| {
                    json!({
                        "hd_path": entry.path, "address": &*entry.address, "status": entry.status,
                        "label": &*entry.label, "extradata": "",
                        "amount": Btc(entry.amount).to_string(),
                        "available_balance": Btc(entry.available).to_string(),
                    })
                })
                .collect();
            json!({
                "branch": branch.heading, "entries": entries,
                "balance": Btc(branch.balance).to_string(),
                "available_balance": Btc(branch.available).to_string(),
            })
        })
        .collect();
    json!({
        "account": account.mixdepth.to_string(), "branches": branches,
        "account_balance": Btc(account.balance).to_string(),
        "available_balance": Btc(account.available).to_string(),
    })
}

#[tokio::test]
async fn display_and_coin_list_are_those_of_the_reference() {
    let vector = vector("display_example.json");
    let rig = Rig::on(Network::Mainnet, WalletType::FidelityBond, [CONFIRMED, TIP]);
    let expected_coins = vector["listutxos_map"].as_object().expect("object");
    for tx in vector["transactions"].as_array().expect("array") {
        let raw = hex::decode(tx["hex"].as_str().expect("hex")).expect("hex");
        let tx: Transaction = consensus::deserialize(&raw).expect("transaction");
        let txid = tx.compute_txid().to_string();
        let pending = expected_coins
            .iter()
            .any(|(key, coin)| key.starts_with(&txid) && coin["confirmations"] == json!(0));
        rig.chain.place(&tx, (!pending).then_some(CONFIRMED));
    }
    let wallet = rig.ready(As::Recovered).await;
    for (key, next) in vector["next_unused_index"].as_object().expect("object") {
        let (mixdepth, branch) = key.split_once('/').expect("mixdepth/branch");
        let mixdepth = Mixdepth(mixdepth.parse().expect("number"));
        let branch = if branch == "0" { Branch::External } else { Branch::Internal };
        let next = u32::try_from(next.as_u64().expect("number")).expect("small");
        let now = |wallet: &joinery_wallet::service::WalletHandle| {
            wallet.snapshot().branch(mixdepth, branch).expect("branch").next_unused
        };
        while now(&wallet) < next {
            wallet.issue_address(mixdepth, branch).await.expect("issued");
        }
        assert_eq!(now(&wallet), next, "next index of {key}");
    }
    let accounts = vector["display_walletinfo"]["accounts"].as_array().expect("array");
    for entry in accounts
        .iter()
        .flat_map(|account| account["branches"].as_array().expect("array"))
        .flat_map(|branch| branch["entries"].as_array().expect("array"))
    {
        let label = entry["label"].as_str().expect("text");
        if !label.is_empty() {
            let address = entry["address"].as_str().expect("text");
            wallet.set_label(address, label).await.expect("own address");
        }
    }
    // Frozen by the user; the bond of 2028 is frozen by the wallet.
    let frozen: Vec<(OutPoint, bool)> = expected_coins
        .iter()
        .filter(|(_, coin)| coin["frozen"] == json!(true) && coin.get("locktime").is_none())
        .map(|(key, _)| (key.parse().expect("outpoint"), true))
        .collect();
    assert_eq!(frozen.len(), 1);
    wallet.set_frozen(frozen).await.expect("stored");

    let snapshot =
        until(&wallet, "all coins", |snapshot| snapshot.coins.len() == expected_coins.len()).await;
    let info = display::wallet_info(&snapshot, NOW);
    let shown = json!({
        "wallet_name": display::WALLET_NAME,
        "accounts": info.accounts.iter().map(account_json).collect::<Vec<_>>(),
        "total_balance": Btc(info.total).to_string(),
        "available_balance": Btc(info.available).to_string(),
    });
    assert_eq!(shown, vector["display_walletinfo"]);

    let only = &vector["display_only_mixdepth_4"];
    assert_eq!(account_json(&info.accounts[4]), only["accounts"][0]);

    let mut coins = Map::new();
    let mut mixdepths = Vec::new();
    for coin in display::utxo_list(&snapshot, 3) {
        mixdepths.push(coin.mixdepth);
        let mut value = json!({
            "address": &*coin.address, "path": coin.path, "label": &*coin.label,
            "value": coin.value.to_sat(), "tries": coin.tries,
            "tries_remaining": coin.tries_remaining, "external": false,
            "mixdepth": coin.mixdepth.0, "confirmations": coin.confirmations,
            "frozen": coin.frozen,
        });
        if let Some(locktime) = coin.locktime {
            value["locktime"] = json!(locktime);
        }
        coins.insert(coin.outpoint.to_string(), value);
    }
    assert_eq!(Value::Object(coins), vector["listutxos_map"]);
    assert!(mixdepths.is_sorted());
    wallet.close().await;
}

#[test]
fn coinjoins_are_recognised_as_by_the_references() {
    let vector = vector("coinjoin_detection.json");
    let cases = vector["cases"].as_array().expect("array");
    assert!(!cases.is_empty());
    for case in cases {
        let outputs: Vec<TxOut> = case["outputs"]
            .as_array()
            .expect("array")
            .iter()
            .map(|output| TxOut {
                value: Amount::from_sat(output["value"].as_u64().expect("number")),
                script_pubkey: ScriptBuf::from_bytes(
                    output["script_id"].as_u64().expect("number").to_le_bytes().to_vec(),
                ),
            })
            .collect();
        let found = coinjoin_shape(&outputs);
        assert_eq!(found.is_some(), case["is_coinjoin"] == json!(true), "{}", case["case"]);
        if let Some(shape) = found {
            let (amount, count) = (shape.amount.to_sat(), shape.participants);
            assert_eq!(json!(amount), case["most_frequent_value"], "{}", case["case"]);
            assert_eq!(json!(count), case["most_frequent_count"], "{}", case["case"]);
        }
    }
}

#[test]
fn amounts_are_written_with_eight_decimals() {
    for (sat, text) in [
        (0, "0.00000000"),
        (1, "0.00000001"),
        (100_000_000, "1.00000000"),
        (2_100_000_000_000_000, "21000000.00000000"),
    ] {
        assert_eq!(Btc(Amount::from_sat(sat)).to_string(), text);
    }
}
