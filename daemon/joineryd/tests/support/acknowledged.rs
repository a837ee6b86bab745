//! What a daemon has acknowledged, random calls that make it acknowledge more, and whether it still knows all of it
//! after the power was cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bdk_wallet::bitcoin::Amount;
use joinery_testkit::{Bench, wait_for};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::client::{PASSWORD, parse_address};
use super::{Client, PATIENCE};

/// What the daemon has acknowledged. `maybe` holds what was asked and not answered before the kill: it may or may
/// not have happened.
#[derive(Debug, Default)]
pub struct Acknowledged {
    pub addresses: BTreeSet<String>,
    pub frozen: BTreeMap<String, bool>,
    pub labels: BTreeMap<String, String>,
    pub sent: Vec<String>,
    /// Payments that the server was not asked for yet.
    pub unseen: Vec<String>,
    maybe_frozen: BTreeSet<String>,
    maybe_labelled: BTreeSet<String>,
}

impl Acknowledged {
    /// Remembers an address; panics when it was handed out before.
    pub fn address(&mut self, address: &str) {
        assert!(self.addresses.insert(address.to_owned()), "{address} was handed out twice");
    }
}

/// One call that changes something; returns without a word when the daemon died meanwhile.
async fn one_call(client: &Client, rng: &mut StdRng, known: &mut Acknowledged) -> Option<()> {
    let base = format!("/api/v1/wallet/{}", client.wallet);
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
pub async fn try_unlock(client: &mut Client, wallet: &str) -> Option<()> {
    let body = json!({"password": PASSWORD});
    let answer = client.try_post(&format!("/api/v1/wallet/{wallet}/unlock"), &body).await?;
    client.take_tokens(&answer.expect(200));
    Some(())
}

/// Compares what the daemon knows with what it acknowledged earlier.
pub async fn verify(client: &Client, bench: &Bench, known: &mut Acknowledged) {
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
pub fn output(bench: &Bench, outpoint: &str) -> Value {
    let (txid, index) = outpoint.split_once(':').unwrap();
    let index: u32 = index.parse().unwrap();
    bench.rpc("gettxout", &json!([txid, index])).unwrap()
}

/// Coins for all mixdepths.
pub async fn fund(client: &Client, bench: &Bench, known: &mut Acknowledged, each: u64) {
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

/// Calls until the power is cut, a moment from now; gives the number of calls that were answered.
pub async fn cut_while_busy(
    cut: impl FnOnce() + Send + 'static,
    client: &Client,
    rng: &mut StdRng,
    known: &mut Acknowledged,
    moment: Duration,
) -> u32 {
    let killer = tokio::spawn(async move {
        tokio::time::sleep(moment).await;
        tokio::task::spawn_blocking(cut).await.unwrap();
    });
    let mut calls = 0;
    while one_call(client, rng, known).await.is_some() {
        calls += 1;
    }
    killer.await.unwrap();
    calls
}

/// The coins that the wallet shows are those that bitcoind has for its addresses, to the satoshi.
pub async fn agrees_with_the_chain(client: &Client, bench: &Bench) {
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
