//! The whole journey of a wallet through HTTPS and wss on a real chain: create, receive, confirm, freeze, send,
//! sweep, bond, rescan, lock, unlock, recover from the words on an empty directory.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use bdk_wallet::bitcoin::Amount;
use joinery_testkit::Bench;
use serde_json::{Value, json};
use support::client::parse_address;
use support::{Client, Home, Socket};

/// `txid:vout` of a coin.
fn outpoint(coin: &Value) -> &str {
    coin["utxo"].as_str().unwrap()
}

/// The coins at one address.
fn at<'a>(coins: &'a [Value], address: &str) -> Vec<&'a Value> {
    coins.iter().filter(|coin| coin["address"] == json!(address)).collect()
}

fn total(coins: &[Value]) -> u64 {
    coins.iter().map(|coin| coin["value"].as_u64().unwrap()).sum()
}

/// What must be the same after a restore: which coins there are, and where.
fn essence(coins: &[Value]) -> BTreeSet<(String, String, u64)> {
    coins
        .iter()
        .map(|coin| {
            let text = |key: &str| coin[key].as_str().unwrap().to_owned();
            (text("utxo"), text("path"), coin["value"].as_u64().unwrap())
        })
        .collect()
}

/// The amount that `/display` shows for a mixdepth, in satoshi, both balances.
async fn displayed(client: &Client, mixdepth: usize) -> (u64, u64) {
    let answer = client.wallet_get("/display").await.expect(200);
    let account = &answer["walletinfo"]["accounts"][mixdepth];
    let satoshi = |key: &str| {
        Amount::from_str_in(
            account[key].as_str().unwrap(),
            bdk_wallet::bitcoin::Denomination::Bitcoin,
        )
        .unwrap()
        .to_sat()
    };
    (satoshi("account_balance"), satoshi("available_balance"))
}

/// The confirmations of the next event about this transaction.
async fn event(socket: &mut Socket, txid: &str) -> u64 {
    socket
        .find(&format!("an event of {txid}"), |message| {
            if message["txid"] != json!(txid) {
                return None;
            }
            assert_eq!(message["txdetails"]["txid"], json!(txid));
            message["txdetails"]["confirmations"].as_u64()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_journey_of_a_wallet() {
    let bench = Bench::start().unwrap();
    let home = Home::with_electrum(&bench.endpoints().electrum);
    let daemon = home.start();
    let mut client = daemon.client();

    // Create.
    let words = client.create("journey.jmdat").await;
    assert_eq!(words.split(' ').count(), 12);
    client.synced(bench.height().unwrap()).await;
    let mut socket = Socket::open(&daemon.listening, "/").await.unwrap();
    socket.say(&client.token).await;

    // Receive: the event comes soon after the mempool has it. Recorded, not asserted: machines differ.
    let address = client.address(0).await;
    assert_ne!(address, client.address(0).await, "each address is handed out once");
    let before = Instant::now();
    let txid =
        bench.fund(&parse_address(&address), Amount::from_sat(5_000_000)).unwrap().to_string();
    assert_eq!(event(&mut socket, &txid).await, 0);
    eprintln!("event {} ms after the mempool had it (aim: 2000 ms)", before.elapsed().as_millis());
    let coins = client.utxos_when("the deposit shows", |coins| coins.len() == 1).await;
    assert_eq!(
        (coins[0]["confirmations"].as_u64(), coins[0]["value"].as_u64()),
        (Some(0), Some(5_000_000))
    );
    assert_eq!(coins[0]["path"], json!("m/84'/1'/0'/0/0"));

    // Confirm.
    bench.mine(1, None).unwrap();
    assert_eq!(event(&mut socket, &txid).await, 1);
    bench.mine(2, None).unwrap();
    client.utxos_when("three confirmations", |coins| coins[0]["confirmations"] == json!(3)).await;

    // Freeze: what is frozen is not spent, not even by a sweep, and is known after a restart.
    let second = client.address(0).await;
    bench.fund_confirmed(&parse_address(&second), Amount::from_sat(1_000_000)).unwrap();
    let coins = client.utxos_when("two coins", |coins| coins.len() == 2).await;
    let frozen = outpoint(at(&coins, &second)[0]).to_owned();
    client.freeze(&frozen, true).await;
    assert_eq!(displayed(&client, 0).await, (6_000_000, 5_000_000));

    // Send to another mixdepth, with change.
    let inside = client.address(1).await;
    let sent = client.send(0, 2_000_000, &inside).await.expect(200);
    let txid = sent["txinfo"]["txid"].as_str().unwrap().to_owned();
    let outputs = sent["txinfo"]["outputs"].as_array().unwrap();
    assert!(outputs.iter().any(
        |output| output["address"] == json!(inside) && output["value_sats"] == json!(2_000_000)
    ));
    assert_eq!(event(&mut socket, &txid).await, 0);
    // Spent at once, before any block and any poll of the server.
    let coins = client.utxos().await;
    assert!(coins.iter().all(|coin| coin["address"] != json!(address)), "{coins:?}");
    assert_eq!(at(&coins, &inside).len(), 1);
    assert!(bench.mempool().unwrap().iter().any(|have| have.to_string() == txid));
    let too_much = client.send(0, 90_000_000, &inside).await;
    assert_eq!(too_much.status, 409);
    assert_eq!(too_much.body["message"], json!("Transaction failed."));
    bench.mine(1, None).unwrap();
    assert_eq!(event(&mut socket, &txid).await, 1);

    // Sweep mixdepth 0: everything but the frozen coin goes, without change.
    let outside = joinery_testkit::funds_address().to_string();
    let swept = client.send(0, 0, &outside).await.expect(200);
    assert_eq!(swept["txinfo"]["outputs"].as_array().unwrap().len(), 1);
    let coins = client.utxos().await;
    let left: Vec<&Value> = coins.iter().filter(|coin| coin["mixdepth"] == json!(0)).collect();
    assert_eq!(left.len(), 1);
    assert_eq!((outpoint(left[0]), &left[0]["frozen"]), (&*frozen, &json!(true)));
    bench.mine(1, None).unwrap();
    client.synced(bench.height().unwrap()).await;
    client.freeze(&frozen, false).await;

    // A bond whose month is past: the same address each time, swept alone (spec/wallet.md 15, check 9).
    let bond_path = "/address/timelock/new/2022-01";
    let bond =
        client.wallet_get(bond_path).await.expect(200)["address"].as_str().unwrap().to_owned();
    assert_eq!(client.wallet_get(bond_path).await.expect(200)["address"], json!(bond));
    bench.fund_confirmed(&parse_address(&bond), Amount::from_sat(700_000)).unwrap();
    let coins = client.utxos_when("the bond shows", |coins| !at(coins, &bond).is_empty()).await;
    let coin = at(&coins, &bond)[0].clone();
    assert_eq!(coin["locktime"], json!("2022-01-01 00:00:00"));
    assert_eq!(coin["path"], json!("m/84'/1'/0'/2/24:1640995200"));
    let others: Vec<String> = coins
        .iter()
        .filter(|other| other["mixdepth"] == json!(0) && outpoint(other) != outpoint(&coin))
        .map(|other| outpoint(other).to_owned())
        .collect();
    assert!(!others.is_empty());
    for other in &others {
        client.freeze(other, true).await;
    }
    client.freeze(outpoint(&coin), false).await;
    let home_again = client.address(2).await;
    let redeemed = client.send(0, 0, &home_again).await.expect(200);
    let inputs = redeemed["txinfo"]["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0]["outpoint"], coin["utxo"]);
    for other in &others {
        client.freeze(other, false).await;
    }
    bench.mine(1, None).unwrap();
    client
        .utxos_when("the redeemed bond is confirmed", |coins| {
            at(coins, &home_again).first().is_some_and(|coin| coin["confirmations"] == json!(1))
        })
        .await;

    // A bond of the future is frozen by itself and cannot be swept.
    let future = client.wallet_get("/address/timelock/new/2031-05").await.expect(200);
    let future = future["address"].as_str().unwrap().to_owned();
    bench.fund_confirmed(&parse_address(&future), Amount::from_sat(300_000)).unwrap();
    let coins =
        client.utxos_when("the future bond shows", |coins| !at(coins, &future).is_empty()).await;
    assert_eq!(at(&coins, &future)[0]["frozen"], json!(true));

    // Rescan finds the same.
    let before = essence(&client.utxos().await);
    client.wallet_get("/rescanblockchain/0").await.expect(200);
    client.synced(bench.height().unwrap()).await;
    assert_eq!(essence(&client.utxos().await), before);
    assert_eq!(client.wallet_get("/getrescaninfo").await.expect(200)["rescanning"], json!(false));

    // A label and a flag over lock, unlock and a restart.
    client
        .wallet_post("/address/label", json!({"address": second, "label": "from the bench"}))
        .await
        .expect(200);
    client.freeze(&frozen, true).await;
    let stale = client.clone();
    client.lock().await;
    assert_eq!(stale.wallet_get("/utxos").await.status, 401, "tokens end with the lock");
    client.unlock("journey.jmdat").await;
    check_kept(&client, &frozen, &second, &before).await;
    daemon.stop();
    let daemon = home.start();
    let mut client = daemon.client();
    client.unlock("journey.jmdat").await;
    check_kept(&client, &frozen, &second, &before).await;
    assert_eq!(client.wallet_get("/getseed").await.expect(200)["seedphrase"], json!(words));
    let used_before = client.address(0).await;
    daemon.stop();

    // Recover from the words on an empty directory: every coin is found, and no address is handed out that the
    // chain has seen.
    let empty = Home::with_electrum(&bench.endpoints().electrum);
    let daemon = empty.start();
    let mut client = daemon.client();
    client.recover("again.jmdat", &words).await;
    client.synced(bench.height().unwrap()).await;
    let coins = client.utxos_when("every coin is found", |coins| coins.len() == before.len()).await;
    assert_eq!(essence(&coins), before);
    assert!(total(&coins) > 0);
    let fresh = client.address(0).await;
    assert!(
        fresh != address && fresh != second,
        "an address that was used is not handed out again"
    );
    assert_ne!(used_before, address);
    daemon.stop();
}

/// The coins are those of before, the flag and the label are still there.
async fn check_kept(
    client: &Client,
    frozen: &str,
    labelled: &str,
    before: &BTreeSet<(String, String, u64)>,
) {
    let coins = client.utxos_when("the coins are back", |coins| coins.len() == before.len()).await;
    assert_eq!(&essence(&coins), before);
    let coin = at(&coins, labelled)[0];
    assert_eq!((outpoint(coin), &coin["frozen"]), (frozen, &json!(true)));
    assert_eq!(coin["label"], json!("from the bench"));
}
