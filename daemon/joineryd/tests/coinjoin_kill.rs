//! Power cuts during coinjoins: taker and makers are killed at random moments, started again, and nothing is lost or used
//! twice (`spec/roles.md` 3.13, 4.5, 4.10; `design.md` "The running system").
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bdk_wallet::bitcoin::consensus::encode::deserialize_hex;
use bdk_wallet::bitcoin::{ScriptBuf, Transaction};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use support::{Market, Participant, until};

const MAKERS: usize = 3;
const KILLS: usize = 100;
/// Equal amount, satoshi.
const AMOUNT: u64 = 500_000;
/// A coinjoin with three makers on one machine takes about this long, milliseconds.
const LONGEST: u64 = 700;

/// A round as far as it matters here: its transaction, when there is one that counts.
async fn transactions(participant: &Participant) -> Vec<(String, i64)> {
    let rounds = participant.rounds().await;
    let counted = rounds
        .iter()
        .filter(|round| [json!("confirmed"), json!("unconfirmed")].contains(&round["state"]));
    counted
        .map(|round| (round["txid"].as_str().unwrap().to_owned(), round["cost"].as_i64().unwrap()))
        .collect()
}

async fn total(participant: &Participant) -> u64 {
    participant.client.utxos().await.iter().map(|coin| coin["value"].as_u64().unwrap()).sum()
}

/// Cuts the power and brings it back.
async fn power_cut(market: &Market, victim: &mut Participant, name: &str) {
    victim.daemon.take().unwrap().kill();
    let daemon = victim.home.start();
    victim.client = daemon.client();
    victim.daemon = Some(daemon);
    victim.client.unlock(&format!("{name}.jmdat")).await;
    victim.client.synced(market.bench.height().unwrap()).await;
    until("the wallet has caught up", || async {
        let session = victim.client.get("/session").await.expect(200);
        (session["backend_synced"] == json!(true)).then_some(())
    })
    .await;
    // Whatever ran is over, or was signed and is followed.
    assert_eq!(victim.state().await, 2);
    let rounds = victim.rounds().await;
    assert!(rounds.iter().all(|round| round["state"] != json!("running")), "{rounds:?}");
}

/// What each wallet has is what it had, less what its rounds cost it: to the satoshi.
async fn nothing_is_lost(participant: &Participant, deposited: u64) {
    until("coins and rounds agree", || async {
        let cost: i64 = transactions(participant).await.iter().map(|(_, cost)| cost).sum();
        (i128::from(total(participant).await) + i128::from(cost) == i128::from(deposited))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_used_twice_when_the_power_is_cut() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let market = Market::start();
    let mut parties = Vec::new();
    let (each, count) = (5_000_000, 10);
    for number in 0..MAKERS {
        let coins = vec![(0, each); count];
        parties.push(market.participant(&format!("party{number}"), &coins).await);
    }
    // Many coins: each failed coinjoin uses up a commitment.
    parties.push(market.participant(&format!("party{MAKERS}"), &vec![(0, each); 80]).await);
    market.settle(&parties.iter().collect::<Vec<_>>()).await;
    let deposited: Vec<u64> =
        (0..=MAKERS).map(|number| if number == MAKERS { 80 * each } else { 10 * each }).collect();
    let body = json!({"section": "POLICY", "field": "minimum_makers", "value": "2"});
    parties[MAKERS].client.wallet_post("/configset", body).await.expect(200);
    for maker in &parties[..MAKERS] {
        maker.make().await;
    }
    parties[MAKERS].sees_makers(MAKERS).await;

    for number in 0..KILLS {
        let taker = &parties[MAKERS];
        taker.coinjoin(0, AMOUNT, 3, "INTERNAL").await;
        // The moment of the cut, not a wait for something.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..LONGEST))).await;
        // Every other time the taker.
        let victim = if number % 2 == 0 { MAKERS } else { rng.random_range(0..MAKERS) };
        power_cut(&market, &mut parties[victim], &format!("party{victim}")).await;
        if victim < MAKERS {
            parties[MAKERS].client.wallet_get("/taker/stop").await;
            parties[MAKERS].coinjoin_ended().await;
            parties[victim].make().await;
        }
        if number % 10 == 9 {
            market.bench.mine(6, None).unwrap();
            for party in &parties {
                party.client.synced(market.bench.height().unwrap()).await;
            }
        }
        parties[MAKERS].sees_makers(MAKERS).await;
    }
    market.bench.mine(6, None).unwrap();
    for (party, deposited) in parties.iter().zip(&deposited) {
        party.client.synced(market.bench.height().unwrap()).await;
        nothing_is_lost(party, *deposited).await;
    }

    // No script was paid in two transactions, whoever it belongs to.
    let mut txids = BTreeSet::new();
    for party in &parties {
        txids.extend(transactions(party).await.into_iter().map(|(txid, _)| txid));
    }
    eprintln!("{} coinjoins in spite of {KILLS} power cuts", txids.len());
    let mut electrum = market.bench.electrum().unwrap();
    let mut scripts: BTreeSet<ScriptBuf> = BTreeSet::new();
    for txid in &txids {
        let raw = electrum.call("blockchain.transaction.get", &json!([txid])).unwrap();
        let raw: Transaction = deserialize_hex(raw.as_str().unwrap()).unwrap();
        for output in raw.output {
            assert!(scripts.insert(output.script_pubkey), "a script is paid twice, in {txid}");
        }
    }
    // No maker answered a commitment twice.
    for maker in &parties[..MAKERS] {
        let list = maker.home.data().join("cmtdata/regtest_commitmentlist");
        let text = std::fs::read_to_string(list).unwrap_or_default();
        let distinct: BTreeSet<&str> = text.lines().collect();
        assert_eq!(distinct.len(), text.lines().count());
    }
    // The wallet still makes a coinjoin.
    let taker = &parties[MAKERS];
    taker.sees_makers(MAKERS).await;
    taker.coinjoin(0, AMOUNT, 3, "INTERNAL").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
}
