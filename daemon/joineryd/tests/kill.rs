//! Power cuts: the daemon is killed at random moments while it issues addresses, sends, freezes, labels and unlocks.
//! What it had acknowledged must be there afterwards, and no address may be handed out twice.
//!
//! The moments come from a seed that is printed; `JOINERYD_KILL_SEED` repeats it as far as two processes can be
//! repeated, `JOINERYD_KILLS` sets the number of kills.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use joinery_testkit::Bench;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::Home;
use support::acknowledged::{
    Acknowledged, agrees_with_the_chain, cut_while_busy, fund, try_unlock, verify,
};

/// Kills of the one long test.
const KILLS: u32 = 100;
/// Longest time from the start of a batch of calls to the kill. A send takes some 10 ms here, an unlock 100 ms.
const LONGEST_MS: u64 = 700;
const WALLET: &str = "kill.jmdat";

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
            let unlocking = tokio::time::timeout(moment / 2, try_unlock(&mut client, WALLET));
            cut_in_unlock += u32::from(unlocking.await.is_err());
            daemon.kill();
            continue;
        }
        client.unlock(WALLET).await;
        verify(&client, &bench, &mut known).await;
        if round % 25 == 24 {
            fund(&client, &bench, &mut known, 2).await;
        }
        calls += cut_while_busy(move || daemon.kill(), &client, &mut rng, &mut known, moment).await;
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
