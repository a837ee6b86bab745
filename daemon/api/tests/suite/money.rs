//! Coins, payments and the golden files over HTTP: `spec/api.md` 6.9 to 6.16, 6.26, Appendix D 6 to 10, 16.

use std::sync::Arc;

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::constants::genesis_block;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Address, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    consensus,
};
use joinery_api::Role;
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::{Branch, Mixdepth, Network};
use serde_json::{Map, Value, json};

use crate::fake_chain::{FakeChain, OnBroadcast};
use crate::rig::{Login, NOW, Rig, WALLET, contract, until};

/// Where payments go: nobody's address.
pub(crate) const ELSEWHERE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// Somebody else's payment to a script. `salt` makes it another one.
pub(crate) fn payment(salt: u8, script: ScriptBuf, sats: u64) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([salt; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(sats), script_pubkey: script }],
    }
}

pub(crate) fn script_of(address: &str) -> ScriptBuf {
    address.parse::<Address<_>>().unwrap().assume_checked().script_pubkey()
}

/// Pays confirmed coins to new addresses of a mixdepth and waits until the wallet lists them.
pub(crate) async fn fund(
    rig: &Rig,
    chain: &Arc<FakeChain>,
    login: &Login,
    mixdepth: u8,
    amounts: &[u64],
) {
    for (index, sats) in amounts.iter().enumerate() {
        let path = format!("/address/new/{mixdepth}");
        let address = rig.wallet_get(login, &path).await.json()["address"].clone();
        let salt = u8::try_from(index).unwrap() + 10 * (mixdepth + 1);
        chain.mine(&[&payment(salt, script_of(address.as_str().unwrap()), *sats)]);
    }
    chain.look().await;
    let listed = || async {
        let utxos = rig.wallet_get(login, "/utxos").await.json();
        let coins = utxos["utxos"].as_array().unwrap().clone();
        coins.iter().filter(|coin| coin["mixdepth"] == mixdepth).count() >= amounts.len()
    };
    until("coins are listed", listed).await;
}

pub(crate) async fn funded() -> (Rig, Arc<FakeChain>, Login) {
    let (rig, chain) = Rig::on_chain();
    let login = rig.recover().await;
    fund(&rig, &chain, &login, 0, &[1_000_000, 2_000_000]).await;
    (rig, chain, login)
}

pub(crate) async fn coins(rig: &Rig, login: &Login) -> Vec<Value> {
    let utxos = rig.wallet_get(login, "/utxos").await;
    utxos.expect(200);
    utxos.json()["utxos"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_payment_with_string_numbers_is_made_and_shown() {
    let (rig, _chain, login) = funded().await;
    let display = rig.wallet_get(&login, "/display").await.json();
    let info = &display["walletinfo"];
    assert_eq!(info["total_balance"], "0.03000000");
    assert_eq!(info["available_balance"], "0.03000000");
    let first = &info["accounts"][0]["branches"][0]["entries"][0];
    assert_eq!(first["hd_path"], "m/84'/1'/0'/0/0");
    assert_eq!(first["status"], "deposit");
    assert_eq!(first["extradata"], "");
    let address = first["address"].as_str().unwrap();

    let label = json!({"address": address, "label": "rent"});
    rig.wallet_post(&login, "/address/label", &label).await.expect(200);
    let shouted = ELSEWHERE.to_uppercase();
    let body = json!({"mixdepth": "0", "amount_sats": "1500000", "destination": shouted,
        "txfee": "2000"});
    let reply = rig.wallet_post(&login, "/taker/direct-send", &body).await;
    reply.expect(200);
    let sent = reply.json();
    let outputs = sent["txinfo"]["outputs"].as_array().unwrap();
    // Textually what was asked for: clients look for it letter by letter.
    let paid = outputs.iter().find(|output| output["address"] == *shouted).unwrap();
    assert_eq!(paid["value_sats"], 1_500_000);
    assert!(sent["txinfo"].get("confirmations").is_none());
    assert!(sent["details"]["fee_sats"].as_u64().unwrap() > 0);

    // At once: the inputs are gone and the change is there.
    let left = coins(&rig, &login).await;
    for input in sent["txinfo"]["inputs"].as_array().unwrap() {
        assert!(left.iter().all(|coin| coin["utxo"] != input["outpoint"]));
        assert_eq!(input["nSequence"], 4_294_967_293_u32);
    }
    assert!(left.iter().any(|coin| coin["confirmations"] == 0));
    let labels: Vec<_> = left.iter().filter(|coin| coin["label"] == "rent").collect();
    assert!(labels.len() <= 1);
}

#[tokio::test]
async fn payments_that_cannot_be_are_refused_with_their_reason() {
    let (rig, chain, login) = funded().await;
    let good = json!({"mixdepth": 0, "amount_sats": 100_000, "destination": ELSEWHERE});
    let send = |change: Value| {
        let (rig, login, mut body) = (&rig, &login, good.clone());
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        async move { rig.wallet_post(login, "/taker/direct-send", &body).await }
    };
    for (change, field) in [
        (json!({"mixdepth": 5}), "mixdepth"),
        (json!({"mixdepth": -1}), "mixdepth"),
        (json!({"mixdepth": 256}), "mixdepth"),
        (json!({"mixdepth": "x"}), "mixdepth"),
        (json!({"mixdepth": null}), "mixdepth"),
        (json!({"mixdepth": true}), "mixdepth"),
        (json!({"amount_sats": -1}), "amount_sats"),
        (json!({"amount_sats": 1.5}), "amount_sats"),
        (json!({"amount_sats": true}), "amount_sats"),
        (json!({"amount_sats": "1e3"}), "amount_sats"),
        (json!({"amount_sats": 2_100_000_000_000_001_u64}), "amount_sats"),
        (json!({"amount_sats": 9_223_372_036_854_775_808_u64}), "amount_sats"),
        (json!({"amount_sats": "9223372036854775808"}), "amount_sats"),
        (json!({"destination": 5}), "destination"),
        (json!({"destination": ""}), "destination"),
        (json!({"destination": "BURN"}), "destination"),
        (json!({"destination": "INTERNAL"}), "destination"),
        (json!({"destination": ELSEWHERE.replace("080", "08q")}), "destination"),
        (json!({"destination": ELSEWHERE.replace("kygt", "Kygt")}), "destination"),
        (json!({"destination": format!(" {ELSEWHERE}")}), "destination"),
        (json!({"destination": format!("bitcoin:{ELSEWHERE}")}), "destination"),
        (json!({"destination": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}), "destination"),
        (json!({"txfee": 0}), "txfee"),
        (json!({"txfee": -1}), "txfee"),
        (json!({"txfee": 0.5}), "txfee"),
        (json!({"txfee": 1000.1}), "txfee"),
        (json!({"input_utxos": []}), "input_utxos"),
        (json!({"input_utxos": "x"}), "input_utxos"),
        (json!({"input_utxos": [5]}), "input_utxos"),
        (json!({"input_utxos": ["x:0"]}), "input_utxos"),
        (json!({"input_utxos": [format!("{}:0", "a".repeat(64))]}), "input_utxos"),
    ] {
        let reply = send(change.clone()).await;
        reply.expect_error(400, "Invalid request format.");
        assert_eq!(reply.json()["details"]["field"], field, "{change}");
    }
    for (change, code) in [
        (json!({"amount_sats": 5_000_000}), "insufficient_funds"),
        (json!({"amount_sats": 1}), "dust_output"),
        (json!({"mixdepth": 3, "amount_sats": 0}), "nothing_to_sweep"),
        (json!({"mixdepth": 3}), "insufficient_funds"),
        (json!({"txfee": 9_000_000}), "absurd_fee"),
    ] {
        let reply = send(change.clone()).await;
        reply.expect_error(409, "Transaction failed.");
        assert_eq!(reply.json()["error_code"], code, "{change}");
    }
    chain.on_broadcast(OnBroadcast::Reject("mempool says no"));
    let reply = send(json!({})).await;
    reply.expect_error(409, "Transaction failed.");
    assert_eq!(reply.json()["error_code"], "broadcast_rejected");
    assert!(reply.json()["details"]["reason"].as_str().unwrap().contains("mempool says no"));
    // Nothing was spent by all that, and nothing is held.
    chain.on_broadcast(OnBroadcast::Accept { listed: true });
    assert_eq!(coins(&rig, &login).await.len(), 2);
    let sweep = send(json!({"amount_sats": 0, "txfee": null})).await;
    sweep.expect(200);
    assert_eq!(sweep.json()["txinfo"]["outputs"].as_array().unwrap().len(), 1);
    assert!(coins(&rig, &login).await.is_empty());
}

#[tokio::test]
async fn boundary_of_blocks_and_rates() {
    let (rig, _chain, login) = funded().await;
    let mut fees = Vec::new();
    for txfee in [1000, 1001] {
        let body = json!({"mixdepth": 0, "amount_sats": 100_000, "txfee": txfee});
        let reply = rig.wallet_post(&login, "/estimate-fee", &body).await;
        reply.expect(200);
        fees.push(reply.json()["fee_rate_sat_kvb"].as_u64().unwrap());
    }
    // The made-up server estimates 10 sat/vB for any number of blocks.
    assert_eq!(fees, [10_000, 1001]);
    // Estimating spends nothing.
    assert_eq!(coins(&rig, &login).await.len(), 2);
    let too_much = json!({"mixdepth": 0, "amount_sats": 9_000_000});
    let reply = rig.wallet_post(&login, "/estimate-fee", &too_much).await;
    reply.expect_error(409, "Transaction failed.");
}

#[tokio::test]
async fn explicit_inputs_are_exactly_used() {
    let (rig, _chain, login) = funded().await;
    let all = coins(&rig, &login).await;
    let one = all.iter().find(|coin| coin["value"] == 1_000_000).unwrap()["utxo"].clone();
    let body = json!({"mixdepth": 0, "amount_sats": 200_000, "destination": ELSEWHERE,
        "input_utxos": [one]});
    let reply = rig.wallet_post(&login, "/taker/direct-send", &body).await;
    reply.expect(200);
    let inputs = reply.json()["txinfo"]["inputs"].as_array().unwrap().clone();
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0]["outpoint"], one);
    let gone = rig.wallet_post(&login, "/taker/direct-send", &body).await;
    gone.expect_error(400, "Invalid request format.");
}

#[tokio::test]
async fn a_payment_that_may_have_left_is_not_made_twice() {
    let (rig, chain, login) = funded().await;
    chain.on_broadcast(OnBroadcast::Lost);
    let body = json!({"mixdepth": 0, "amount_sats": 200_000, "destination": ELSEWHERE});
    for _ in 0..3 {
        let reply = rig.wallet_post(&login, "/taker/direct-send", &body).await;
        reply.expect(503);
        assert_eq!(reply.json()["error_code"], "send_uncertain");
    }
    let txids: std::collections::HashSet<_> =
        chain.broadcasts().iter().map(Transaction::compute_txid).collect();
    assert_eq!(txids.len(), 1);
}

#[tokio::test]
async fn a_repeated_request_pays_once() {
    let (rig, chain, login) = funded().await;
    let body = json!({"mixdepth": 0, "amount_sats": 200_000, "destination": ELSEWHERE});
    let path = format!("/api/v1/wallet/{WALLET}/taker/direct-send");
    let call = || rig.post(&*path, &body).token(&login.access);
    // Four at once, and one more after an answer that nobody read.
    let (a, b, c, d) = tokio::join!(
        call().send_and_hang_up(),
        call().send_and_hang_up(),
        call().send_and_hang_up(),
        call().send_and_hang_up(),
    );
    assert!([a, b, c, d].iter().all(|status| *status == 200));
    let read = call().send().await;
    read.expect(200);
    let broadcast = chain.broadcasts();
    assert_eq!(broadcast.len(), 1);
    assert_eq!(read.json()["txinfo"]["txid"], broadcast[0].compute_txid().to_string());
    // That answer was read: asking again is a new payment.
    call().send().await.expect(200);
    assert_eq!(chain.broadcasts().len(), 2);
}

#[tokio::test]
async fn without_a_server_nothing_is_paid() {
    let rig = Rig::new();
    let login = rig.create().await;
    let body = json!({"mixdepth": 0, "amount_sats": 0, "destination": ELSEWHERE});
    let reply = rig.wallet_post(&login, "/taker/direct-send", &body).await;
    assert!(matches!(reply.status.as_u16(), 409 | 503), "{reply:?}");
    let reply = rig.wallet_post(&login, "/estimate-fee", &body).await;
    reply.expect_error(503, "Backend daemon not available");
}

#[tokio::test]
async fn freezing_is_idempotent_and_survives_locking() {
    let (rig, _chain, login) = funded().await;
    let coin = coins(&rig, &login).await[0]["utxo"].clone();
    let unknown = format!("{}:0", "ab".repeat(32));
    for (utxo, freeze) in [
        (coin.clone(), json!(true)),
        (coin.clone(), json!(false)),
        (coin.clone(), json!(1)),
        (coin.clone(), json!(true)),
        (json!(unknown), json!(true)),
    ] {
        let body = json!({"utxo-string": utxo, "freeze": freeze});
        let reply = rig.wallet_post(&login, "/freeze", &body).await;
        reply.expect(200);
        assert_eq!(reply.body, b"{}");
    }
    for body in [
        json!({"utxo-string": coin, "freeze": "true"}),
        json!({"utxo-string": coin, "freeze": 2}),
        json!({"utxo-string": coin, "freeze": null}),
        json!({"utxo-string": 5, "freeze": true}),
        json!({"utxo-string": "x:0", "freeze": true}),
        json!({"utxo-string": format!("{}:-1", "ab".repeat(32)), "freeze": true}),
        json!({"utxo-string": format!("{}:4294967296", "ab".repeat(32)), "freeze": true}),
        json!({"utxo_string": coin, "freeze": true}),
    ] {
        let reply = rig.wallet_post(&login, "/freeze", &body).await;
        reply.expect_error(400, "Invalid request format.");
    }
    rig.wallet_get(&login, "/lock").await.expect(200);
    let login = Login::of(&rig.unlock(WALLET, crate::rig::PASSWORD).await.json());
    let frozen: Vec<_> = coins(&rig, &login)
        .await
        .into_iter()
        .filter(|coin| coin["frozen"] == true)
        .map(|coin| coin["utxo"].clone())
        .collect();
    assert_eq!(frozen, std::slice::from_ref(&coin));
    let display = rig.wallet_get(&login, "/display").await.json();
    assert_ne!(display["walletinfo"]["available_balance"], display["walletinfo"]["total_balance"]);

    // Several at once, in any of three envelopes, all or none.
    let entry = |utxo: &Value, freeze: bool| json!({"utxo-string": utxo, "freeze": freeze});
    for body in [
        json!([entry(&coin, false)]),
        json!({"utxos": [entry(&coin, true)]}),
        json!({"entries": [entry(&coin, false)]}),
        json!([]),
    ] {
        rig.wallet_post(&login, "/freeze-batch", &body).await.expect(200);
    }
    for body in [
        json!({}),
        json!("x"),
        json!({"utxos": {}}),
        json!([5]),
        json!([entry(&coin, true), {"utxo-string": "x", "freeze": true}]),
        json!([entry(&coin, true), entry(&coin, false)]),
    ] {
        let reply = rig.wallet_post(&login, "/freeze-batch", &body).await;
        reply.expect_error(400, "Invalid request format.");
    }
    assert!(coins(&rig, &login).await.iter().all(|coin| coin["frozen"] == false));
}

#[tokio::test]
pub(crate) async fn coins_stay_where_they_are_while_a_role_runs() {
    let (rig, _chain, login) = funded().await;
    let coin = coins(&rig, &login).await[0]["utxo"].clone();
    for role in [Role::Maker, Role::Taker] {
        let guard = rig.app.activity().begin(role).unwrap();
        let session = rig.session(&login).await;
        assert_eq!(session["maker_running"], role == Role::Maker);
        assert_eq!(session["coinjoin_in_process"], role == Role::Taker);
        let send = json!({"mixdepth": 0, "amount_sats": 0, "destination": ELSEWHERE});
        let freeze = json!({"utxo-string": coin, "freeze": true});
        for (path, body) in [
            ("/taker/direct-send", &send),
            ("/freeze", &freeze),
            ("/freeze-batch", &json!([freeze])),
        ] {
            rig.wallet_post(&login, path, body).await.expect_error(400, "Action not allowed");
        }
        // The form comes first.
        let bad = json!({"utxo-string": "x", "freeze": true});
        let reply = rig.wallet_post(&login, "/freeze", &bad).await;
        reply.expect_error(400, "Invalid request format.");
        // Addresses, bonds and scans are always possible.
        for path in ["/address/new/1", "/address/timelock/new/2031-6", "/rescanblockchain/0"] {
            rig.wallet_get(&login, path).await.expect(200);
        }
        // Nothing else starts, and only the right stop works.
        let (stop, other) = match role {
            Role::Maker => ("/maker/stop", "/taker/stop"),
            Role::Taker => ("/taker/stop", "/maker/stop"),
        };
        let terms = json!({"txfee": 0, "cjfee_a": 0, "cjfee_r": 0.0003,
            "ordertype": "sw0reloffer", "minsize": 100_000});
        let maker = rig.wallet_post(&login, "/maker/start", &terms).await;
        maker.expect_error(401, "Service already started.");
        let tumble = json!({"destination_addresses": [ELSEWHERE]});
        let schedule = rig.wallet_post(&login, "/taker/schedule", &tumble).await;
        schedule.expect_error(409, "Service already started.");
        rig.wallet_get(&login, other)
            .await
            .expect_error(401, "Service cannot be stopped as it is not running.");
        rig.wallet_get(&login, stop).await.expect(202);
        assert!(guard.stopped().is_cancelled());
        rig.wallet_get(&login, stop).await.expect(401);
        assert_eq!(rig.session(&login).await["coinjoin_in_process"], false);
    }
}

#[tokio::test]
async fn roles_are_refused_only_where_they_would_start() {
    let (rig, _chain, login) = funded().await;
    let unavailable = "Backend daemon not available";
    let maker = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
        "ordertype": "sw0reloffer", "minsize": "100000"});
    let with = |body: &Value, key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body
    };
    let start = |body: Value| {
        let (rig, login) = (&rig, &login);
        async move { rig.wallet_post(login, "/maker/start", &body).await }
    };
    start(maker.clone()).await.expect_error(503, unavailable);
    start(with(&maker, "ordertype", json!("swreloffer"))).await.expect(400);
    let big = start(with(&maker, "minsize", json!(2_999_999))).await;
    let text = "Maker could not start, minsize exceeds the available balance.";
    big.expect_error(409, text);

    let join = json!({"mixdepth": "0", "amount_sats": "500000", "counterparties": "3",
        "destination": "INTERNAL"});
    let coinjoin = |body: Value| {
        let (rig, login) = (&rig, &login);
        async move { rig.wallet_post(login, "/taker/coinjoin", &body).await }
    };
    let unset = "Action cannot be performed, config vars are not set.";
    coinjoin(join.clone()).await.expect_error(409, unset);
    let tumble = json!({"destination_addresses": [ELSEWHERE, ELSEWHERE, ELSEWHERE]});
    rig.wallet_post(&login, "/taker/schedule", &tumble).await.expect_error(409, unset);
    let set = |field: &'static str, value: Value| {
        let (rig, login) = (&rig, &login);
        let body = json!({"section": "POLICY", "field": field, "value": value});
        async move { rig.wallet_post(login, "/configset", &body).await.expect(200) }
    };
    set("max_cj_fee_abs", json!(5000)).await;
    set("max_cj_fee_rel", json!("3e-4")).await;
    coinjoin(join.clone()).await.expect_error(503, unavailable);
    // An installation draws its own limits at first start; emptied ones count as unset again.
    set("max_cj_fee_rel", json!("")).await;
    coinjoin(join.clone()).await.expect_error(409, unset);
    set("max_cj_fee_rel", json!("3e-4")).await;
    for (key, value) in [
        ("counterparties", json!(0)),
        ("counterparties", json!(100)),
        ("counterparties", json!(1_000_000_000)),
        ("counterparties", json!(2.5)),
        ("destination", json!("nowhere")),
        ("destination", json!("internal")),
        ("mixdepth", json!(5)),
        ("amount_sats", json!(-1)),
        ("txfee", json!(0)),
        ("input_utxos", json!([])),
    ] {
        coinjoin(with(&join, key, value)).await.expect_error(400, "Invalid request format.");
    }
    rig.wallet_post(&login, "/taker/schedule", &tumble).await.expect_error(503, unavailable);
    for (key, value) in [
        ("destination_addresses", json!([])),
        ("destination_addresses", json!([5])),
        ("destination_addresses", json!("x")),
        ("destination_addresses", json!(["INTERNAL"])),
        ("destination_addresses", json!(vec![ELSEWHERE; 1000])),
        ("destination_addresses", json!(["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"])),
        ("tumbler_options", json!([])),
        ("tumbler_options", json!({"addrcount": 2})),
        ("tumbler_options", json!({"timelambda": -1})),
        ("tumbler_options", json!({"rounding_chance": 1.1})),
        ("tumbler_options", json!({"makercountrange": [9]})),
    ] {
        let reply = rig.wallet_post(&login, "/taker/schedule", &with(&tumble, key, value)).await;
        reply.expect_error(400, "Invalid request format.");
    }
    let fine = with(
        &tumble,
        "tumbler_options",
        json!({"addrcount": 3, "schedulefile": "/etc/x",
        "makercountrange": [1, 0], "timelambda": 0.025, "unknown": {}}),
    );
    rig.wallet_post(&login, "/taker/schedule", &fine).await.expect(503);
    rig.wallet_get(&login, "/taker/schedule").await.expect_error(404, "No schedule is running.");

    let plan = json!({"destinations": [ELSEWHERE], "parameters": null, "force": true});
    rig.wallet_post(&login, "/tumbler/plan", &plan).await.expect_error(503, unavailable);
    rig.wallet_get(&login, "/tumbler/status").await.expect(404);
    rig.wallet_post(&login, "/tumbler/start", &json!({})).await.expect(404);
    rig.wallet_post(&login, "/tumbler/stop", &json!({})).await.expect(401);
    rig.wallet_get(&login, "/history?limit=5").await.expect(503);
    rig.wallet_get(&login, "/history?limit=x").await.expect(400);
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!((&status["status"], &status["txid"]), (&json!("idle"), &Value::Null));
    assert_eq!((&status["error"], &status["makers"]), (&Value::Null, &json!([])));
    // None of it started anything.
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
}

#[tokio::test]
async fn bond_coins_are_listed_with_their_lock_and_value() {
    let (rig, chain) = Rig::on_chain();
    let login = rig.recover().await;
    let mut scripts = Vec::new();
    for month in ["2022-01", "2099-12"] {
        let path = format!("/address/timelock/new/{month}");
        let first = rig.wallet_get(&login, &path).await.json()["address"].clone();
        let again = rig.wallet_get(&login, &path).await.json()["address"].clone();
        assert_eq!(first, again);
        scripts.push(script_of(first.as_str().unwrap()));
    }
    chain.mine(&[&payment(1, scripts[0].clone(), 50_000), &payment(2, scripts[1].clone(), 60_000)]);
    chain.look().await;
    until("bonds are listed", || async { coins(&rig, &login).await.len() == 2 }).await;
    let listed = coins(&rig, &login).await;
    let locked = listed.iter().find(|coin| coin["value"] == 60_000).unwrap();
    assert_eq!(locked["locktime"], "2099-12-01 00:00:00");
    assert_eq!(locked["path"], "m/84'/1'/0'/2/959:4099766400");
    assert_eq!(locked["frozen"], true);
    let bonds = rig.wallet_get(&login, "/fidelity-bonds").await;
    bonds.expect(200);
    let bonds = bonds.json()["fidelity_bonds"].as_array().unwrap().clone();
    assert_eq!(bonds.len(), 2);
    let of = |sats: u64| bonds.iter().find(|bond| bond["amount"] == sats).unwrap();
    assert_eq!(of(50_000)["expired"], true);
    assert_eq!(of(60_000)["expired"], false);
    assert_eq!(of(60_000)["locktime_iso"], "2099-12-01T00:00:00Z");
    assert!(
        of(60_000)["bond_value"].as_f64().unwrap() > of(50_000)["bond_value"].as_f64().unwrap()
    );
    // Only timelocked coins, even an expired one, are nothing for a maker.
    let terms = json!({"txfee": 0, "cjfee_a": 0, "cjfee_r": 0.0003, "ordertype": "sw0reloffer",
        "minsize": 1000});
    let maker = rig.wallet_post(&login, "/maker/start", &terms).await;
    maker.expect_error(409, "Maker could not start, no confirmed coins.");
}

#[tokio::test]
async fn months_of_bonds_are_checked() {
    let rig = Rig::new();
    let login = rig.create().await;
    for month in
        ["2019-12", "2100-01", "2026-13", "2026-00", "2026", "x", "-2026-01", "2026-01-01", "%20"]
    {
        let reply = rig.wallet_get(&login, &format!("/address/timelock/new/{month}")).await;
        reply.expect_error(400, "Invalid request format.");
    }
    let mainnet = Rig::with(Network::Mainnet, Arc::new(NoServer::default()), |_| {});
    let login = mainnet.create().await;
    assert_eq!(NOW / 86_400 / 365, 56);
    mainnet.wallet_get(&login, "/address/timelock/new/2026-11").await.expect(400);
    mainnet.wallet_get(&login, "/address/timelock/new/2026-12").await.expect(200);

    let body = json!({"walletname": "sw.jmdat", "password": "x", "wallettype": "sw"});
    mainnet.wallet_get(&login, "/lock").await.expect(200);
    let made = mainnet.post("/api/v1/wallet/create", &body).send().await;
    let token = Login::of(&made.json()).access;
    let path = "/api/v1/wallet/sw.jmdat/address/timelock/new/2030-01";
    mainnet.get(path).token(&token).send().await.expect_error(400, "Invalid request format.");
}

#[tokio::test]
async fn addresses_are_never_given_twice() {
    let rig = Arc::new(Rig::new());
    let login = rig.create().await;
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let (rig, login) = (rig.clone(), login.clone());
            tokio::spawn(async move {
                let reply = rig.wallet_get(&login, &format!("/address/new/{}", number % 2)).await;
                reply.expect(200);
                reply.json()["address"].as_str().unwrap().to_owned()
            })
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for call in calls {
        assert!(seen.insert(call.await.unwrap()));
    }
    for bad in ["5", "9", "x", "-1", "99999999999", "0x1", "1e1", "%201", "1.0", "%D9%A3", "256"] {
        let reply = rig.wallet_get(&login, &format!("/address/new/{bad}")).await;
        reply.expect_error(400, "Invalid request format.");
    }
}

#[tokio::test]
async fn rescans_run_in_the_background() {
    let (rig, chain, login) = funded().await;
    for height in ["0", "481824", "9223372036854775808"] {
        let reply = rig.wallet_get(&login, &format!("/rescanblockchain/{height}")).await;
        reply.expect(200);
        assert_eq!(reply.json(), json!({"walletname": WALLET}));
        let over = || async {
            let info = rig.wallet_get(&login, "/getrescaninfo").await;
            info.expect(200);
            info.json()["rescanning"] == false
        };
        until("the scan is over", over).await;
    }
    for bad in ["-1", "1.5", "x", "1e5", "99999999999999999999999"] {
        let reply = rig.wallet_get(&login, &format!("/rescanblockchain/{bad}")).await;
        reply.expect_error(400, "Invalid request format.");
    }
    // With the server gone a scan stays on, visibly, until it is back.
    chain.connect(false);
    rig.wallet_get(&login, "/rescanblockchain/0").await.expect(200);
    assert_eq!(rig.session(&login).await["rescanning"], true);
    let info = rig.wallet_get(&login, "/getrescaninfo").await.json();
    assert_eq!(info["rescanning"], true);
    assert!(info["progress"].is_number());
    chain.connect(true);
    until("the scan is over", || async { rig.session(&login).await["rescanning"] == false }).await;
}

#[tokio::test]
async fn messages_are_signed_as_by_the_reference() {
    let vectors: Value =
        joinery_testkit::vectors::load(env!("CARGO_MANIFEST_DIR"), "signed_message.json");
    let mut checked = 0;
    for network in [Network::Mainnet, Network::Regtest] {
        let rig = Rig::with(network, Arc::new(NoServer::default()), |_| {});
        let login = rig.recover().await;
        for case in vectors["cases"].as_array().unwrap() {
            let known = case["network"] == network.name()
                && case["wallettype"] == "sw-fb"
                && case["mnemonic"] == crate::rig::WORDS;
            if !known || case["message"] == "" {
                continue;
            }
            let body = json!({"hd_path": case["hd_path"], "message": case["message"]});
            let reply = rig.wallet_post(&login, "/signmessage", &body).await;
            reply.expect(200);
            assert_eq!(reply.json()["signature"], case["signature"]);
            assert_eq!(reply.json()["address"], case["address"]);
            assert_eq!(reply.json()["message"], case["message"]);
            checked += 1;
        }
        for (body, message) in [
            (json!({"hd_path": "", "message": "x"}), "Error: no key path for signing specified"),
            (json!({"hd_path": "m/0", "message": ""}), "Error: no message specified"),
            (json!({"hd_path": "m/0", "message": "x"}), "Invalid request format."),
            (json!({"hd_path": "m/44'/0'/0'/0/0", "message": "x"}), "Invalid request format."),
            (json!({"hd_path": "m/84'/0/0/0/0", "message": "x"}), "Invalid request format."),
            (json!({"hd_path": "nonsense", "message": "x"}), "Invalid request format."),
            (json!({"message": "x"}), "Invalid request format."),
            (json!({"hd_path": "m/84'/0'/0'/0/0"}), "Invalid request format."),
            (json!({}), "Invalid request format."),
        ] {
            rig.wallet_post(&login, "/signmessage", &body).await.expect_error(400, message);
        }
        rig.wallet_get(&login, "/signmessage").await.expect(405);
    }
    assert!(checked > 0);
}

#[tokio::test]
async fn golden_display_and_utxos() {
    let vector: Value =
        joinery_testkit::vectors::load(env!("CARGO_MANIFEST_DIR"), "display_example.json");
    let coins = vector["listutxos_map"].as_object().unwrap();
    let genesis = genesis_block(Network::Mainnet.bitcoin()).block_hash();
    let chain = FakeChain::new(genesis, [849_000, 850_000]);
    for tx in vector["transactions"].as_array().unwrap() {
        let raw = hex::decode(tx["hex"].as_str().unwrap()).unwrap();
        let tx: Transaction = consensus::deserialize(&raw).unwrap();
        let txid = tx.compute_txid().to_string();
        let of_this = |key: &str| key.starts_with(&txid);
        let pending =
            coins.iter().any(|(key, coin)| of_this(key) && coin["confirmations"] == json!(0));
        chain.place(&tx, (!pending).then_some(849_000));
    }
    let rig = Rig::with(Network::Mainnet, chain, |config| {
        // Middle of 2026: 2022 has passed and May 2028 has not.
        config.clock = joinery_api::ManualClock::new(1_780_000_000).clock();
    });
    let login = rig.recover().await;
    until("the wallet is in sync", || async { rig.app.wallet().unwrap().snapshot().sync.complete })
        .await;
    for (key, next) in vector["next_unused_index"].as_object().unwrap() {
        let (mixdepth, branch) = key.split_once('/').unwrap();
        let mixdepth = Mixdepth(mixdepth.parse().unwrap());
        let branch = if branch == "0" { Branch::External } else { Branch::Internal };
        let wallet = rig.app.wallet().unwrap();
        while u64::from(wallet.snapshot().branch(mixdepth, branch).unwrap().next_unused)
            < next.as_u64().unwrap()
        {
            wallet.issue_address(mixdepth, branch).await.unwrap();
        }
    }
    let entries = vector["display_walletinfo"]["accounts"].as_array().unwrap().iter();
    let entries = entries
        .flat_map(|account| account["branches"].as_array().unwrap())
        .flat_map(|branch| branch["entries"].as_array().unwrap());
    for entry in entries.filter(|entry| entry["label"] != "") {
        let body = json!({"address": entry["address"], "label": entry["label"]});
        rig.wallet_post(&login, "/address/label", &body).await.expect(200);
    }
    let frozen = coins
        .iter()
        .filter(|(_, coin)| coin["frozen"] == json!(true) && coin.get("locktime").is_none());
    for (utxo, _) in frozen {
        let body = json!({"utxo-string": utxo, "freeze": true});
        rig.wallet_post(&login, "/freeze", &body).await.expect(200);
    }
    let display = rig.wallet_get(&login, "/display").await.json();
    assert_eq!(display["walletinfo"], vector["display_walletinfo"]);
    let mut found = Map::new();
    for mut coin in self::coins(&rig, &login).await {
        let utxo = coin.as_object_mut().unwrap().remove("utxo").unwrap();
        found.insert(utxo.as_str().unwrap().to_owned(), coin);
    }
    assert_eq!(Value::Object(found), vector["listutxos_map"]);
}

#[tokio::test]
async fn labels_are_set_removed_and_bounded() {
    let (rig, _chain, login) = funded().await;
    let entry = |display: Value| {
        let branch = &display["walletinfo"]["accounts"][0]["branches"][0];
        branch["entries"][0].clone()
    };
    let address = entry(rig.wallet_get(&login, "/display").await.json())["address"].clone();
    for label in ["rent", "Miete 🏠", ""] {
        let body = json!({"address": address, "label": label});
        rig.wallet_post(&login, "/address/label", &body).await.expect(200);
        assert_eq!(entry(rig.wallet_get(&login, "/display").await.json())["label"], label);
    }
    for body in [
        json!({"address": ELSEWHERE, "label": "x"}),
        json!({"address": "x", "label": "x"}),
        json!({"address": address, "label": "a\nb"}),
        json!({"address": address, "label": "x".repeat(2000)}),
        json!({"address": address, "label": 5}),
        json!({"address": address}),
    ] {
        let reply = rig.wallet_post(&login, "/address/label", &body).await;
        reply.expect_error(400, "Invalid request format.");
    }
}

#[tokio::test]
async fn settings_over_http() {
    let rig = Rig::new();
    let login = rig.create().await;
    let get = |section: &'static str, field: &'static str| {
        let (rig, login) = (&rig, &login);
        let body = json!({"section": section, "field": field});
        async move { rig.wallet_post(login, "/configget", &body).await }
    };
    let unset = "Action cannot be performed, config vars are not set.";
    get("POLICY", "max_cj_fee_abs").await.expect_error(409, unset);
    get("NOPE", "x").await.expect_error(409, unset);
    get("policy", "gaplimit").await.expect_error(409, unset);
    assert_eq!(get("POLICY", "GAPLIMIT").await.json(), json!({"configvalue": "6"}));
    for value in [json!("12000"), json!(12_000), json!(" 12000 ")] {
        let body = json!({"section": "POLICY", "field": "max_cj_fee_abs", "value": value});
        let reply = rig.wallet_post(&login, "/configset", &body).await;
        reply.expect(200);
        assert_eq!(reply.body, b"{}");
    }
    let body = json!({"section": "YIELDGENERATOR", "field": "x", "value": true});
    rig.wallet_post(&login, "/configset", &body).await.expect(200);
    assert_eq!(get("YIELDGENERATOR", "x").await.json(), json!({"configvalue": "true"}));
    for (body, status) in [
        (json!({"section": "NOPE", "field": "x", "value": "y"}), 409),
        (json!({"section": "BLOCKCHAIN", "field": "rpc_host", "value": "evil"}), 409),
        (json!({"section": "MESSAGING:onion", "field": "socks5_host", "value": "evil"}), 409),
        (json!({"section": "POLICY", "field": "x", "value": []}), 400),
        (json!({"section": "POLICY", "field": "x", "value": null}), 400),
        (json!({"section": "POLICY", "field": "x"}), 400),
        (json!({"section": "POLICY", "field": "x", "value": "a\n[POLICY]\nb"}), 400),
        (json!({"section": "POLICY", "field": "gaplimit", "value": "0"}), 400),
        (json!({"section": 5, "field": "x", "value": "y"}), 400),
    ] {
        rig.wallet_post(&login, "/configset", &body).await.expect(status);
    }
    // The gap limit counts at the next opening, and overrides outlive a lock.
    let body = json!({"section": "POLICY", "field": "gaplimit", "value": 11});
    rig.wallet_post(&login, "/configset", &body).await.expect(200);
    let new = |display: Value| {
        let branch = &display["walletinfo"]["accounts"][1]["branches"][0];
        branch["entries"].as_array().unwrap().len()
    };
    assert_eq!(new(rig.wallet_get(&login, "/display").await.json()), 6);
    rig.wallet_get(&login, "/lock").await.expect(200);
    let login = Login::of(&rig.unlock(WALLET, crate::rig::PASSWORD).await.json());
    assert_eq!(new(rig.wallet_get(&login, "/display").await.json()), 11);
}

#[test]
fn the_schema_of_events_is_that_of_payments() {
    let tx = payment(1, script_of(ELSEWHERE), 1);
    let value = json!({"hex": consensus::encode::serialize_hex(&tx)});
    assert!(contract().check_schema("TxDetails", &value).is_err());
}
