//! Power cuts: the daemon is killed at random moments while it issues addresses, sends, freezes, labels and unlocks.
//! What it had acknowledged must be there afterwards, and no address may be handed out twice.
//!
//! The moments come from a seed that is printed; `JOINERYD_KILL_SEED` repeats it as far as two processes can be
//! repeated, `JOINERYD_KILLS` sets the number of kills.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bdk_wallet::bitcoin::Amount;
use joinery_testkit::{Bench, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::client::{PASSWORD, parse_address};
use support::{Client, Daemon, Home, PATIENCE};

/// Kills of the one long test.
const KILLS: u32 = 100;
/// Longest time from the start of a batch of calls to the kill. A send takes some 10 ms here, an unlock 100 ms.
const LONGEST_MS: u64 = 700;
const WALLET: &str = "kill.jmdat";

/// What the daemon has acknowledged. `maybe` holds what was asked and not answered before the kill: it may or may
/// not have happened.
#[derive(Debug, Default)]
struct Acknowledged {
    addresses: BTreeSet<String>,
    frozen: BTreeMap<String, bool>,
    labels: BTreeMap<String, String>,
    sent: Vec<String>,
    /// Payments that the server was not asked for yet.
    unseen: Vec<String>,
    maybe_frozen: BTreeSet<String>,
    maybe_labelled: BTreeSet<String>,
}

impl Acknowledged {
    /// Remembers an address; panics when it was handed out before.
    fn address(&mut self, address: &str) {
        assert!(self.addresses.insert(address.to_owned()), "{address} was handed out twice");
    }
}

/// One call that changes something; returns without a word when the daemon died meanwhile.
async fn one_call(client: &Client, rng: &mut StdRng, known: &mut Acknowledged) -> Option<()> {
    let base = format!("/api/v1/wallet/{WALLET}");
    match rng.random_range(0..10) {
        0..=3 => {
            let mixdepth = rng.random_range(0..5);
            let answer =
                client.try_get(&format!("{base}/address/new/{mixdepth}")).await?.expect(200);
            known.address(answer["address"].as_str().unwrap());
        }
        4 | 5 => {
            let coins = client.try_get(&format!("{base}/utxos")).await?.expect(200);
            let coins = coins["utxos"].as_array().unwrap();
            if coins.is_empty() {
                return Some(());
            }
            let outpoint =
                coins[rng.random_range(0..coins.len())]["utxo"].as_str().unwrap().to_owned();
            // Mostly thawed, so that there is something to send.
            let freeze = rng.random_bool(0.3);
            let body = json!({"utxo-string": outpoint, "freeze": freeze});
            known.maybe_frozen.insert(outpoint.clone());
            let path = format!("{base}/freeze");
            client.try_post(&path, &body).await?.expect(200);
            known.maybe_frozen.remove(&outpoint);
            known.frozen.insert(outpoint, freeze);
        }
        6 => {
            // One that holds a coin, so that it shows.
            let coins = client.try_get(&format!("{base}/utxos")).await?.expect(200);
            let coins = coins["utxos"].as_array().unwrap();
            if coins.is_empty() {
                return Some(());
            }
            let coin = &coins[rng.random_range(0..coins.len())];
            let address = coin["address"].as_str().unwrap().to_owned();
            let label = format!("label {}", rng.random::<u32>());
            let body = json!({"address": address, "label": label});
            known.maybe_labelled.insert(address.clone());
            client.try_post(&format!("{base}/address/label"), &body).await?.expect(200);
            known.maybe_labelled.remove(&address);
            known.labels.insert(address, label);
        }
        _ => {
            let body = json!({
                "mixdepth": rng.random_range(0..5), "amount_sats": rng.random_range(20_000..60_000),
                "destination": joinery_testkit::funds_address().to_string(), "txfee": 2000,
            });
            let answer = client.try_post(&format!("{base}/taker/direct-send"), &body).await?;
            if answer.status == 200 {
                known.unseen.push(answer.body["txinfo"]["txid"].as_str().unwrap().to_owned());
            } else {
                // Not enough in that mixdepth, or the server is not there yet after the unlock.
                assert!(matches!(answer.status.as_u16(), 409 | 503), "{answer:?}");
            }
        }
    }
    Some(())
}

/// Unlocks; `None` when the daemon died before it answered.
async fn try_unlock(client: &mut Client) -> Option<()> {
    let body = json!({"password": PASSWORD});
    let answer = client.try_post(&format!("/api/v1/wallet/{WALLET}/unlock"), &body).await?;
    client.take_tokens(&answer.expect(200));
    Some(())
}

/// Compares what the daemon knows with what it acknowledged earlier.
async fn verify(client: &Client, bench: &Bench, known: &mut Acknowledged) {
    // Every payment that was acknowledged is in the mempool or in a block; those seen once are looked at again at
    // the end.
    let mut electrs = bench.electrum().unwrap();
    for txid in known.unseen.drain(..) {
        let found =
            wait_for(PATIENCE, || electrs.call("blockchain.transaction.get", &json!([txid])).ok());
        assert!(found.is_some(), "electrs does not have payment {txid}");
        known.sent.push(txid);
    }
    // A payment that was built and not sent when the power went is sent again after the unlock; then bitcoind has
    // every coin that the wallet shows, and what was spent does not come back.
    let coins = client.utxos_when("every coin shown is unspent", |coins| {
        coins.iter().all(|coin| is_unspent(bench, coin["utxo"].as_str().unwrap()))
    });
    let coins = coins.await;
    for coin in &coins {
        let outpoint = coin["utxo"].as_str().unwrap();
        if let Some(frozen) = known.frozen.get(outpoint)
            && !known.maybe_frozen.contains(outpoint)
        {
            assert_eq!(coin["frozen"], json!(frozen), "{outpoint}");
        }
        let address = coin["address"].as_str().unwrap();
        if let Some(label) = known.labels.get(address)
            && !known.maybe_labelled.contains(address)
        {
            assert_eq!(coin["label"], json!(label), "{address}");
        }
    }
    // What was asked and not answered is settled now, one way or the other.
    for coin in &coins {
        let outpoint = coin["utxo"].as_str().unwrap().to_owned();
        if known.maybe_frozen.remove(&outpoint) {
            known.frozen.insert(outpoint, coin["frozen"].as_bool().unwrap());
        }
    }
    for address in std::mem::take(&mut known.maybe_labelled) {
        known.labels.remove(&address);
    }
}

/// Whether bitcoind has this coin, mempool included.
fn is_unspent(bench: &Bench, outpoint: &str) -> bool {
    !output(bench, outpoint).is_null()
}

/// What bitcoind has of an outpoint; null when it is spent or unknown.
fn output(bench: &Bench, outpoint: &str) -> Value {
    let (txid, index) = outpoint.split_once(':').unwrap();
    let index: u32 = index.parse().unwrap();
    bench.rpc("gettxout", &json!([txid, index])).unwrap()
}

/// Coins for all mixdepths.
async fn fund(client: &Client, bench: &Bench, known: &mut Acknowledged, each: u64) {
    let mut outputs = Vec::new();
    for mixdepth in 0..5 {
        for _ in 0..each {
            let address = client.address(mixdepth).await;
            known.address(&address);
            outputs.push((parse_address(&address).script_pubkey(), Amount::from_sat(400_000)));
        }
    }
    bench.fund_many(&outputs).unwrap();
    bench.mine(1, None).unwrap();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_a_hundred_power_cuts() {
    let seed = number("JOINERYD_KILL_SEED").unwrap_or_else(rand::random);
    let kills = number("JOINERYD_KILLS").map_or(KILLS, |kills| u32::try_from(kills).unwrap());
    eprintln!("seed: JOINERYD_KILL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let bench = Bench::start().unwrap();
    let home = Home::with_electrum(&bench.endpoints().electrum);
    let mut known = Acknowledged::default();

    let daemon = home.start();
    let mut client = daemon.client();
    client.create(WALLET).await;
    fund(&client, &bench, &mut known, 6).await;
    client.utxos_when("the first coins", |coins| coins.len() == 30).await;
    let mut running = Some(daemon);
    let (mut cut_in_unlock, mut calls) = (0, 0);

    for round in 0..kills {
        let daemon = running.take().unwrap_or_else(|| home.start());
        let mut client = daemon.client();
        let moment = Duration::from_micros(rng.random_range(0..LONGEST_MS * 1000));
        if rng.random_bool(0.15) {
            // Cut while it unlocks.
            let unlocking = tokio::time::timeout(moment / 2, try_unlock(&mut client));
            cut_in_unlock += u32::from(unlocking.await.is_err());
            daemon.kill();
            continue;
        }
        client.unlock(WALLET).await;
        verify(&client, &bench, &mut known).await;
        if round % 25 == 24 {
            fund(&client, &bench, &mut known, 2).await;
        }
        calls += cut_while_busy(daemon, &client, &mut rng, &mut known, moment).await;
        if rng.random_bool(0.2) {
            bench.mine(1, None).unwrap();
        }
    }
    eprintln!(
        "{kills} kills ({cut_in_unlock} within an unlock), {calls} calls answered, {} addresses, {} payments, {} flags, \
         {} labels",
        known.addresses.len(),
        known.sent.len() + known.unseen.len(),
        known.frozen.len(),
        known.labels.len(),
    );
    let daemon = home.start();
    let mut client = daemon.client();
    client.unlock(WALLET).await;
    client.synced(bench.height().unwrap()).await;
    known.unseen.append(&mut known.sent);
    verify(&client, &bench, &mut known).await;
    assert!(known.addresses.len() > 40 && !known.sent.is_empty() && !known.frozen.is_empty());
    agrees_with_the_chain(&client, &bench).await;
    assert!(!home.log_text().contains("panic"), "{}", home.log_text());
}

/// Calls until the kill comes at its moment; gives the number of calls that were answered.
async fn cut_while_busy(
    daemon: Daemon,
    client: &Client,
    rng: &mut StdRng,
    known: &mut Acknowledged,
    moment: Duration,
) -> u32 {
    let killer = tokio::spawn(async move {
        tokio::time::sleep(moment).await;
        tokio::task::spawn_blocking(move || daemon.kill()).await.unwrap();
    });
    let mut calls = 0;
    while one_call(client, rng, known).await.is_some() {
        calls += 1;
    }
    killer.await.unwrap();
    calls
}

/// The coins that the wallet shows are those that bitcoind has for its addresses, to the satoshi.
async fn agrees_with_the_chain(client: &Client, bench: &Bench) {
    bench.mine(1, None).unwrap();
    client.synced(bench.height().unwrap()).await;
    let coins = client.utxos_when("all is confirmed", |coins| {
        coins.iter().all(|coin| coin["confirmations"] != json!(0))
    });
    for coin in coins.await {
        let unspent = output(bench, coin["utxo"].as_str().unwrap());
        let value = Amount::from_btc(unspent["value"].as_f64().expect("it is unspent")).unwrap();
        assert_eq!(json!(value.to_sat()), coin["value"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_database_is_rebuilt_from_journal_and_chain() {
    let bench = Bench::start().unwrap();
    let home = Home::with_electrum(&bench.endpoints().electrum);
    let mut known = Acknowledged::default();
    let daemon = home.start();
    let mut client = daemon.client();
    client.create(WALLET).await;
    fund(&client, &bench, &mut known, 2).await;
    let coins = client.utxos_when("the coins", |coins| coins.len() == 10).await;
    let outpoint = coins[0]["utxo"].as_str().unwrap().to_owned();
    client.freeze(&outpoint, true).await;
    let address = coins[1]["address"].as_str().unwrap().to_owned();
    client
        .wallet_post("/address/label", json!({"address": address, "label": "kept"}))
        .await
        .expect(200);
    let sent =
        client.send(1, 50_000, &joinery_testkit::funds_address().to_string()).await.expect(200);
    known.unseen.push(sent["txinfo"]["txid"].as_str().unwrap().to_owned());
    let last = client.address(0).await;
    known.address(&last);
    let expected = comparable(&client.utxos().await);
    daemon.stop();

    let databases = databases(&home);
    assert!(!databases.is_empty(), "the database is a directory below wallets/");
    for (what, spoil) in [("overwritten", true), ("removed", false)] {
        for database in &databases {
            for entry in database.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    std::fs::remove_dir_all(&path).unwrap();
                } else if spoil {
                    let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
                    std::fs::write(&path, vec![0xa5; length]).unwrap();
                } else {
                    std::fs::remove_file(&path).unwrap();
                }
            }
        }
        let daemon = home.start();
        let mut client = daemon.client();
        client.unlock(WALLET).await;
        client.synced(bench.height().unwrap()).await;
        let coins = client.utxos_when(what, |coins| comparable(coins) == expected).await;
        assert!(
            coins
                .iter()
                .any(|coin| coin["utxo"] == json!(outpoint) && coin["frozen"] == json!(true))
        );
        assert!(coins.iter().any(|coin| coin["label"] == json!("kept")));
        known.address(&client.address(0).await);
        daemon.stop();
    }
}

/// Directories of databases below `wallets/`.
fn databases(home: &Home) -> Vec<std::path::PathBuf> {
    let entries = home.data().join("wallets").read_dir().unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn comparable(coins: &[Value]) -> BTreeSet<(String, u64, bool)> {
    coins
        .iter()
        .map(|coin| {
            let value = coin["value"].as_u64().unwrap();
            (coin["utxo"].as_str().unwrap().to_owned(), value, coin["frozen"].as_bool().unwrap())
        })
        .collect()
}

/// An operation that was cut right after it was acknowledged, many times: the shortest way to lose something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_acknowledged_just_before_the_cut_is_never_given_again() {
    let home = Home::new();
    let mut known = Acknowledged::default();
    let daemon = home.start();
    daemon.client().create(WALLET).await;
    drop(daemon);
    for _ in 0..15 {
        let daemon = home.start();
        let mut client = daemon.client();
        client.unlock(WALLET).await;
        for mixdepth in [0, 0, 4] {
            known.address(&client.address(mixdepth).await);
        }
        daemon.kill();
    }
}
