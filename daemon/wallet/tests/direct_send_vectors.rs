//! `direct_send.json`: transactions that the reference built over the coins of `display_example.json`.

use std::collections::HashSet;

use joinery_testkit::vectors;
use joinery_wallet::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use joinery_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use joinery_wallet::keys::{ImportedKeys, MasterKey};
use joinery_wallet::mnemonic;
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::service::SendError;
use joinery_wallet::snapshot::{Coin, CoinKind};
use joinery_wallet::spend::{Plan, SpendContext, parse_destination, plan, sign};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

/// Median time between the lock times of the two bonds: January 2022 is over, May 2028 is not.
const MEDIAN_TIME: u32 = 1_720_000_000;
const TIP: u32 = 850_000;

fn load(name: &str) -> Value {
    vectors::load(env!("CARGO_MANIFEST_DIR"), name)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is a text in {value}"))
}

fn place(path: &str) -> ScriptPlace {
    let levels: Vec<&str> = path.trim_start_matches("m/84'/0'/").split('/').collect();
    let [mixdepth, branch, index] = levels[..] else { panic!("path {path}") };
    let mixdepth = Mixdepth(mixdepth.trim_end_matches('\'').parse().expect("mixdepth"));
    let branch = match branch {
        "0" => Branch::External,
        "1" => Branch::Internal,
        "2" => {
            let (timenumber, _) = index.split_once(':').expect("bond path");
            return ScriptPlace::Bond { timenumber: timenumber.parse().expect("timenumber") };
        }
        other => panic!("branch {other}"),
    };
    let index = index.parse().expect("index");
    ScriptPlace::Ranged { keychain: Keychain { mixdepth, branch }, index }
}

/// The coins of the example wallet, as the wallet task would hold them.
fn coins() -> Vec<Coin> {
    let file = load("display_example.json");
    let transactions: Vec<Transaction> = file["transactions"]
        .as_array()
        .expect("transactions")
        .iter()
        .map(|tx| deserialize_hex(text(tx, "hex")).expect("transaction"))
        .collect();
    let listed = file["listutxos_map"].as_object().expect("utxos");
    let coins: Vec<Coin> = listed
        .iter()
        .map(|(outpoint, listed)| {
            let outpoint: OutPoint = outpoint.parse().expect("outpoint");
            let tx = transactions.iter().find(|tx| tx.compute_txid() == outpoint.txid);
            let output = &tx.expect("known transaction").output
                [usize::try_from(outpoint.vout).expect("small")];
            assert_eq!(Some(output.value.to_sat()), listed["value"].as_u64());
            let place = place(text(listed, "path"));
            let confirmed = listed["confirmations"].as_u64().expect("confirmations") > 0;
            Coin {
                outpoint,
                value: output.value,
                script: output.script_pubkey.clone(),
                place,
                height: confirmed.then_some(849_000),
                kind: CoinKind::Deposit,
                frozen: listed["frozen"].as_bool().expect("frozen"),
                locked: false,
                locktime: match place {
                    ScriptPlace::Bond { timenumber: 24 } => Some(1_640_995_200),
                    ScriptPlace::Bond { timenumber: 100 } => Some(1_840_752_000),
                    ScriptPlace::Bond { timenumber } => panic!("bond {timenumber}"),
                    _ => None,
                },
                commitments_used: Vec::new(),
            }
        })
        .collect();
    assert_eq!(coins.len(), 12);
    coins
}

fn keys() -> MasterKey {
    let file = load("direct_send.json");
    let entropy = mnemonic::entropy_of_phrase(text(&file, "mnemonic")).expect("phrase");
    let (kind, network) = (WalletType::FidelityBond, Network::Mainnet);
    MasterKey::from_entropy(&entropy, None, kind, network, ImportedKeys::default()).expect("keys")
}

fn mixdepth(case: &Value) -> Mixdepth {
    Mixdepth(case["mixdepth"].as_u64().and_then(|m| u8::try_from(m).ok()).expect("mixdepth"))
}

/// One case that has a transaction.
struct Case {
    name: String,
    mixdepth: Mixdepth,
    destination: ScriptBuf,
    amount: Option<Amount>,
    rate: u64,
    transaction: Transaction,
    fee: Amount,
    spent: Vec<Coin>,
    value: Value,
}

fn cases() -> Vec<Value> {
    load("direct_send.json")["cases"].as_array().expect("cases").clone()
}

/// The cases with a transaction; the other two are tested below.
fn sent() -> Vec<Case> {
    let coins = coins();
    let all = cases();
    let sent: Vec<Case> = all
        .into_iter()
        .filter(|case| case.get("txinfo").is_some())
        .map(|value| {
            let [destination] = &value["destinations"].as_array().expect("list")[..] else {
                panic!("one destination")
            };
            let address = destination[0].as_str().expect("address");
            let amount = destination[1].as_u64().expect("amount");
            let transaction: Transaction =
                deserialize_hex(text(&value["txinfo"], "hex")).expect("transaction");
            let prevouts = value["prevouts"].as_array().expect("prevouts");
            let spent: Vec<Coin> = transaction
                .input
                .iter()
                .zip(prevouts)
                .map(|(input, prevout)| {
                    let coin = coins.iter().find(|coin| coin.outpoint == input.previous_output);
                    let coin = coin.expect("a coin of the example").clone();
                    assert_eq!(text(prevout, "outpoint"), coin.outpoint.to_string());
                    assert_eq!(text(prevout, "script_pubkey"), coin.script.to_hex_string());
                    assert_eq!(prevout["value"].as_u64(), Some(coin.value.to_sat()));
                    coin
                })
                .collect();
            Case {
                name: text(&value, "case").to_owned(),
                mixdepth: mixdepth(&value),
                destination: parse_destination(address, Network::Mainnet)
                    .expect("address")
                    .script_pubkey(),
                amount: (amount > 0).then(|| Amount::from_sat(amount)),
                rate: value["fee_per_kvb"].as_u64().expect("rate"),
                fee: Amount::from_sat(value["fee_paid"].as_u64().expect("fee")),
                transaction,
                spent,
                value,
            }
        })
        .collect();
    assert_eq!(sent.len(), 7);
    sent
}

fn plan_case(
    coins: &[Coin],
    case: &Case,
    inputs: Option<&[OutPoint]>,
    seed: u64,
) -> Result<Plan, SendError> {
    let mut ctx = SpendContext {
        coins,
        mixdepth: case.mixdepth,
        tip_height: TIP,
        median_time: MEDIAN_TIME,
        rate_sat_per_kvb: case.rate,
        merge: MergeAlgorithm::Default,
        wallet_type: WalletType::FidelityBond,
        rng: &mut StdRng::seed_from_u64(seed),
    };
    plan(&mut ctx, case.amount, &case.destination, inputs)
}

fn outpoints<'a>(coins: impl IntoIterator<Item = &'a Coin>) -> HashSet<OutPoint> {
    coins.into_iter().map(|coin| coin.outpoint).collect()
}

/// The output that is not the payment.
fn change_of(case: &Case) -> Option<&TxOut> {
    case.transaction.output.iter().find(|out| out.script_pubkey != case.destination)
}

fn unsigned(transaction: &Transaction) -> Transaction {
    let mut transaction = transaction.clone();
    for input in &mut transaction.input {
        input.script_sig = ScriptBuf::new();
        input.witness = Witness::new();
    }
    transaction
}

#[test]
fn signatures_are_those_of_the_reference_byte_for_byte() {
    let keys = keys();
    let mut inputs = 0;
    vectors::each("direct_send.json", &sent(), |case| {
        let mut transaction = unsigned(&case.transaction);
        sign(&mut transaction, &case.spent, &keys).map_err(|error| error.to_string())?;
        inputs += transaction.input.len();
        let hex = serialize_hex(&transaction);
        if hex != text(&case.value["txinfo"], "hex") {
            return Err(format!("{}: {hex}", case.name));
        }
        if transaction.compute_txid().to_string() != text(&case.value["txinfo"], "txid") {
            return Err(format!("{}: txid", case.name));
        }
        Ok(())
    });
    assert_eq!(inputs, 16);
}

#[test]
fn transactions_have_the_form_of_the_reference() {
    let keys = keys();
    let coins = coins();
    vectors::each("direct_send.json", &sent(), |case| {
        let mut inputs = None;
        let reference: Vec<OutPoint> = case.spent.iter().map(|coin| coin.outpoint).collect();
        let mut fee = case.fee;
        match case.name.as_str() {
            // the reference spends the pending coin though confirmed ones suffice.
            "anti-fee-sniping random back-dating" => inputs = Some(reference.as_slice()),
            // the reference joins an expired bond with ordinary coins. When the user asks for
            // exactly that, it is done.
            name if name.starts_with("sweep mixdepth 0") => inputs = Some(reference.as_slice()),
            // The API cannot choose the change script; its output is 12 vbytes larger.
            "custom change" => fee = Amount::from_sat(case.fee.to_sat() - 12 * case.rate / 1000),
            _ => {}
        }
        let plan = plan_case(&coins, case, inputs, 7).map_err(|error| error.to_string())?;
        if outpoints(plan.inputs()) != outpoints(&case.spent) {
            return Err(format!("{}: inputs {:?}", case.name, plan.inputs()));
        }
        if plan.fee() != fee {
            return Err(format!("{}: fee {} in place of {fee}", case.name, plan.fee()));
        }
        let change = change_of(case);
        let difference = case.fee.to_sat() - fee.to_sat();
        let expected = change.map(|out| Amount::from_sat(out.value.to_sat() + difference));
        if plan.change() != expected {
            return Err(format!("{}: change {:?}", case.name, plan.change()));
        }
        let script = change.map(|out| out.script_pubkey.clone());
        let mut built =
            plan.build(script, &mut StdRng::seed_from_u64(3)).map_err(|error| error.to_string())?;
        sign(&mut built, plan.inputs(), &keys).map_err(|error| error.to_string())?;
        assert_eq!(built.version, case.transaction.version);
        assert!(built.input.iter().all(|input| input.sequence.0 == 0xffff_fffd));
        assert!(case.transaction.input.iter().all(|input| input.sequence.0 == 0xffff_fffd));
        let scripts = |tx: &Transaction| -> HashSet<ScriptBuf> {
            tx.output.iter().map(|out| out.script_pubkey.clone()).collect()
        };
        assert_eq!(scripts(&built), scripts(&case.transaction));
        let lock_time = built.lock_time.to_consensus_u32();
        if plan.includes_expired_bond() {
            // the lock time itself, not one second more.
            assert_eq!(lock_time, 1_640_995_200);
            assert_eq!(case.transaction.lock_time.to_consensus_u32(), lock_time + 1);
        } else {
            assert!((TIP - 99..=TIP).contains(&lock_time), "{}: {lock_time}", case.name);
        }
        Ok(())
    });
}

#[test]
fn prefers_confirmed_coins_and_falls_back_to_pending_ones() {
    let case = sent().into_iter().find(|case| case.name.starts_with("anti-fee")).expect("case");
    let mut coins = coins();
    let chosen = plan_case(&coins, &case, None, 1).expect("confirmed coins suffice");
    // The smallest confirmed coin that suffices, not the 55 555 of the pending one.
    assert_eq!(chosen.inputs().iter().map(|coin| coin.value.to_sat()).sum::<u64>(), 1_000_000);
    for coin in coins.iter_mut().filter(|coin| coin.height.is_some()) {
        coin.frozen = true;
    }
    let chosen = plan_case(&coins, &case, None, 1).expect("the pending coin suffices");
    assert_eq!(outpoints(chosen.inputs()), outpoints(&case.spent));
    assert_eq!(chosen.change(), change_of(&case).map(|out| out.value));
}

#[test]
fn sweeps_ordinary_coins_before_expired_bonds() {
    let sent = sent();
    let case = sent.iter().find(|case| case.name.starts_with("sweep mixdepth 0")).expect("case");
    let mut coins = coins();
    let plan = plan_case(&coins, case, None, 1).expect("ordinary coins");
    let ordinary: Vec<Coin> =
        case.spent.iter().filter(|coin| coin.locktime.is_none()).cloned().collect();
    assert_eq!(ordinary.len(), 6);
    assert_eq!(outpoints(plan.inputs()), outpoints(&ordinary));
    assert!(!plan.includes_expired_bond());

    // The redemption flow of the browser wallet: everything else frozen, the bond not.
    for coin in coins.iter_mut().filter(|coin| !coin.place.is_bond()) {
        coin.frozen = true;
    }
    let plan = plan_case(&coins, case, None, 1).expect("the expired bond");
    assert_eq!(plan.inputs().len(), 1);
    assert!(plan.includes_expired_bond());
    assert_eq!(plan.lock_time().to_consensus_u32(), 1_640_995_200);
    // 10 + 41 + 31 outside the witness, 119 in it: 112 vbytes.
    assert_eq!(plan.fee().to_sat(), 1120);

    // The other bond is not expired and stays, also when it is the only one and not frozen.
    for coin in &mut coins {
        coin.frozen = coin.locktime != Some(1_840_752_000);
    }
    let error = plan_case(&coins, case, None, 1);
    assert!(matches!(error, Err(SendError::NothingToSweep(Mixdepth(0)))), "{error:?}");
}

#[test]
fn refuses_what_the_reference_refuses() {
    let coins = coins();
    let cases = cases();
    let refused: Vec<&Value> = cases.iter().filter(|case| case.get("txinfo").is_none()).collect();
    assert_eq!(refused.len(), 2);
    for case in refused {
        let destination = &case["destinations"][0];
        let address = destination[0].as_str().expect("address");
        let address = parse_destination(address, Network::Mainnet).expect("address");
        let amount = destination[1].as_u64().expect("amount");
        let mut ctx = SpendContext {
            coins: &coins,
            mixdepth: mixdepth(case),
            tip_height: TIP,
            median_time: MEDIAN_TIME,
            rate_sat_per_kvb: 10_000,
            merge: MergeAlgorithm::Default,
            wallet_type: WalletType::FidelityBond,
            rng: &mut StdRng::seed_from_u64(1),
        };
        let amount = (amount > 0).then(|| Amount::from_sat(amount));
        let error = plan(&mut ctx, amount, &address.script_pubkey(), None).expect_err("refused");
        match text(case, "case") {
            "too much" => {
                assert_eq!(format!("NotEnoughFundsException: {error}"), text(case, "exception"))
            }
            "empty mixdepth sweep" => {
                assert!(matches!(error, SendError::NothingToSweep(Mixdepth(3))));
            }
            other => panic!("case {other}"),
        }
    }
}
