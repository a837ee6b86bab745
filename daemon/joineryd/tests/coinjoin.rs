//! Coinjoins of real daemons on a real chain, driven through HTTPS and wss alone (`spec/roles.md` 3 and 4, `spec/api.md`
//! 6.16 to 6.18, 6.27, 11, App. C).
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use bdk_wallet::bitcoin::{Amount, Txid};
use serde_json::{Value, json};
use support::{Market, Participant, until};

/// Four makers that offer, and a taker that sees them.
async fn four_makers(market: &Market, taker: &[(u8, u64)]) -> (Vec<Participant>, Participant) {
    let mut makers = Vec::new();
    for number in 0..4 {
        let coins = [(0, 20_000_000 + number), (1, 10_000_000 + number)];
        makers.push(market.participant(&format!("maker{number}"), &coins).await);
    }
    let taker = market.participant("taker", taker).await;
    let everybody: Vec<&Participant> = makers.iter().chain([&taker]).collect();
    market.settle(&everybody).await;
    for maker in &makers {
        maker.make().await;
    }
    taker.sees_makers(4).await;
    (makers, taker)
}

/// Values of the outputs of a transaction that occur more than once: the value and how often.
fn equal_outputs(market: &Market, txid: &str) -> (u64, usize) {
    let txid: Txid = txid.parse().unwrap();
    let tx = market.bench.transaction(txid, None).unwrap();
    let count = |value: Amount| tx.output.iter().filter(|output| output.value == value).count();
    let most = tx.output.iter().map(|output| output.value).max_by_key(|value| count(*value));
    (most.unwrap().to_sat(), count(most.unwrap()))
}

fn coins_at(coins: &[Value], mixdepth: u8) -> Vec<&Value> {
    coins.iter().filter(|coin| coin["mixdepth"] == json!(mixdepth)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coinjoins_with_four_makers_with_change_and_as_a_sweep() {
    let market = Market::start();
    let (makers, taker) = four_makers(&market, &[(0, 9_000_000), (0, 3_000_000)]).await;
    let mut events = taker.socket().await;
    let mut maker_events = makers[0].socket().await;

    // With change.
    taker.coinjoin(0, 5_000_000, 4, "INTERNAL").await;
    events.find("the taker begins", |m| (m["coinjoin_state"] == json!(0)).then_some(())).await;
    let phases = ["connecting", "orderbook", "choosing", "fill", "auth", "sign", "broadcast"];
    let finished = events
        .find("the taker ends", |m| {
            if m["taker"]["event"] == json!("phase") {
                let phase = m["taker"]["phase"].as_str().unwrap();
                assert!(phases.contains(&phase) || ["recheck", "over", "ending"].contains(&phase));
            }
            (m["taker"]["event"] == json!("finished")).then(|| m["taker"].clone())
        })
        .await;
    assert_eq!(finished["success"], json!(true), "{finished}");
    events.find("the taker is idle", |m| (m["coinjoin_state"] == json!(2)).then_some(())).await;
    let txid = finished["txid"].as_str().unwrap().to_owned();
    let status = taker.coinjoin_ended().await;
    assert_eq!((&status["status"], &status["txid"]), (&json!("completed"), &json!(txid)));
    assert_eq!(equal_outputs(&market, &txid), (5_000_000, 5));
    let coins = taker
        .client
        .utxos_when("the equal output shows", |coins| coins_at(coins, 1).len() == 1)
        .await;
    assert_eq!(coins_at(&coins, 1)[0]["value"], json!(5_000_000));
    let rounds = taker.rounds().await;
    assert_eq!(rounds.len(), 1);
    assert_eq!((&rounds[0]["role"], &rounds[0]["reason"]), (&json!("taker"), &json!("complete")));
    assert_eq!(rounds[0]["counterparties"].as_array().unwrap().len(), 4);
    // What it cost is what is gone: fees of the makers and the miner's.
    let total: u64 = coins.iter().map(|coin| coin["value"].as_u64().unwrap()).sum();
    assert_eq!(rounds[0]["cost"], json!(12_000_000 - total));

    // The makers see it, and account for it when a block holds it.
    maker_events.find("a maker hears of it", |m| (m["txid"] == json!(txid)).then_some(())).await;
    market.bench.mine(1, None).unwrap();
    for maker in &makers {
        let row = until("the row of the income statement", || async {
            let report = maker.client.get("/wallet/yieldgen/report").await.expect(200);
            let rows = report["yigen_data"].as_array().unwrap().clone();
            assert!(rows[0].as_str().unwrap().starts_with("timestamp,cj amount/satoshi,"));
            assert!(rows[1].as_str().unwrap().ends_with(",,,,,,,Connected\n"));
            rows.get(2).cloned()
        })
        .await;
        let row = row.as_str().unwrap();
        let fields: Vec<&str> = row.trim_end().split(',').collect();
        assert_eq!(fields[1], "5000000", "{row}");
        assert_eq!((fields[4], fields[5], fields[7]), ("1500", "1500", ""), "{row}");
        let rounds = maker.rounds().await;
        assert_eq!(rounds.len(), 1, "{rounds:?}");
        assert_eq!((&rounds[0]["state"], &rounds[0]["cost"]), (&json!("confirmed"), &json!(-1500)));
        assert_eq!(maker.state().await, 1);
    }

    // A sweep, out of the wallet.
    market.bench.mine(5, None).unwrap();
    taker.client.synced(market.bench.height().unwrap()).await;
    let outside = joinery_testkit::funds_address().to_string();
    taker.coinjoin(1, 0, 4, &outside).await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
    let (value, count) = equal_outputs(&market, status["txid"].as_str().unwrap());
    assert_eq!(count, 5);
    assert!(value < 5_000_000 && value > 4_900_000, "{value}");
    taker.client.utxos_when("the mixdepth is empty", |coins| coins_at(coins, 1).is_empty()).await;

    // The maker ends: events 1 and then 2.
    makers[0].client.wallet_get("/maker/stop").await.expect(202);
    assert_eq!(makers[0].state().await, 2);
    maker_events
        .find("the maker is idle", |m| (m["coinjoin_state"] == json!(2)).then_some(()))
        .await;
}

/// Everything that a coinjoin held is free again, and nothing of it runs.
async fn is_idle(taker: &Participant) {
    assert_eq!(taker.state().await, 2);
    let rounds = taker.rounds().await;
    assert!(rounds.iter().all(|round| round["state"] != json!("running")), "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_is_stopped_in_every_phase_and_can_start_again() {
    let market = Market::start();
    let coins = [(0, 9_000_000), (0, 8_000_000), (0, 7_000_000), (0, 6_000_000)];
    let (_makers, taker) = four_makers(&market, &coins).await;
    let mut events = taker.socket().await;
    for phase in ["connecting", "orderbook", "choosing", "fill", "auth", "sign"] {
        taker.coinjoin(0, 1_000_000, 4, "INTERNAL").await;
        events.find("the taker begins", |m| (m["coinjoin_state"] == json!(0)).then_some(())).await;
        // It may be past the phase when the stop arrives: that is how it is for people, too.
        let seen = events
            .find(&format!("the phase {phase}"), |m| {
                let taker = &m["taker"];
                let here = taker["phase"] == json!(phase) || taker["event"] == json!("finished");
                here.then(|| taker["event"] == json!("phase"))
            })
            .await;
        let stop = taker.client.wallet_get("/taker/stop").await;
        assert!([202, 401].contains(&stop.status.as_u16()), "{}", stop.body);
        let status = taker.coinjoin_ended().await;
        let reason = status["reason"].as_str().unwrap();
        assert!(["stopped", "complete"].contains(&reason), "{status}");
        eprintln!("stopped at {phase} (seen: {seen}): {reason}");
        is_idle(&taker).await;
        if reason == "complete" {
            // The next one needs coins that are old enough.
            market.bench.mine(6, None).unwrap();
            taker.client.synced(market.bench.height().unwrap()).await;
        }
    }
    // After all that the wallet still makes a coinjoin.
    taker.coinjoin(0, 1_000_000, 4, "INTERNAL").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locking_ends_a_coinjoin_and_a_maker() {
    let market = Market::start();
    let (makers, mut taker) = four_makers(&market, &[(0, 9_000_000), (0, 8_000_000)]).await;
    let mut events = taker.socket().await;
    taker.coinjoin(0, 1_000_000, 4, "INTERNAL").await;
    events
        .find("makers were asked", |m| {
            let phase = m["taker"]["phase"].as_str().unwrap_or_default();
            (phase == "fill"
                || phase == "auth"
                || phase == "sign"
                || phase == "broadcast"
                || m["taker"]["event"] == json!("finished"))
            .then_some(())
        })
        .await;
    taker.client.lock().await;
    assert_eq!(taker.client.get("/session").await.expect(200)["coinjoin_in_process"], json!(false));
    taker.client.unlock("taker.jmdat").await;
    taker.client.synced(market.bench.height().unwrap()).await;
    is_idle(&taker).await;
    // What it held is free, or was signed and is followed.
    let rounds = taker.rounds().await;
    assert_eq!(rounds.len(), 1, "{rounds:?}");
    let state = rounds[0]["state"].as_str().unwrap();
    assert!(["failed", "signed", "unconfirmed"].contains(&state), "{rounds:?}");

    let mut maker = makers.into_iter().next().unwrap();
    maker.client.lock().await;
    assert_eq!(maker.client.get("/session").await.expect(200)["maker_running"], json!(false));
    maker.client.unlock("maker0.jmdat").await;
    maker.make().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_takers_share_the_same_makers_at_once() {
    let market = Market::start();
    let (makers, first) = four_makers(&market, &[(0, 9_000_000), (0, 8_000_000)]).await;
    let second = market.participant("second", &[(0, 7_000_000), (0, 6_000_000)]).await;
    market.settle(&[&second]).await;
    second.sees_makers(4).await;
    first.coinjoin(0, 1_000_000, 4, "INTERNAL").await;
    second.coinjoin(0, 2_000_000, 4, "INTERNAL").await;
    let mut txids = Vec::new();
    for (taker, amount) in [(&first, 1_000_000), (&second, 2_000_000)] {
        let status = taker.coinjoin_ended().await;
        assert_eq!(status["status"], json!("completed"), "{status}");
        let txid = status["txid"].as_str().unwrap().to_owned();
        assert_eq!(equal_outputs(&market, &txid), (amount, 5));
        txids.push(txid);
    }
    // No coin went into both: both are in one block.
    market.bench.mine(1, None).unwrap();
    for maker in &makers {
        until("both rounds are confirmed", || async {
            let rounds = maker.rounds().await;
            let confirmed =
                rounds.iter().filter(|round| round["state"] == json!("confirmed")).count();
            (confirmed == 2).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn makers_with_bonds_are_chosen_by_weight() {
    let market = Market::start();
    let (makers, taker) = four_makers(&market, &[(0, 9_000_000), (0, 8_000_000)]).await;
    // Two of four have a bond; without an allowance for the others only they are chosen.
    let mut bonded = Vec::new();
    for maker in makers.iter().take(2) {
        maker.client.wallet_get("/maker/stop").await.expect(202);
        let path = "/address/timelock/new/2040-01";
        let answer = maker.client.wallet_get(path).await.expect(200);
        let address = support::client::parse_address(answer["address"].as_str().unwrap());
        market.bench.fund_confirmed(&address, Amount::from_sat(5_000_000)).unwrap();
        until("the bond is in the wallet", || async {
            let coins = maker.client.utxos().await;
            let bond = coins.iter().find(|coin| coin.get("locktime").is_some())?;
            (bond["confirmations"].as_u64() >= Some(1)).then_some(())
        })
        .await;
        let session = maker.make().await;
        bonded.push(session["nickname"].as_str().unwrap().to_owned());
    }
    // Bonds are told to who asks.
    let refresh = "/obwatch/refreshorderbook";
    taker.client.request(reqwest::Method::POST, refresh, None).await.expect(200);
    until("both bonds are in the order book", || async {
        let path = "/obwatch/orderbook.json";
        let book = taker.client.request(reqwest::Method::GET, path, None).await.expect(200);
        let bonds = book["fidelitybonds"].as_array().unwrap();
        let known = |nick: &String| bonds.iter().any(|bond| bond["counterparty"] == json!(nick));
        bonded.iter().all(known).then_some(())
    })
    .await;
    for (field, value) in [("bondless_makers_allowance", "0"), ("minimum_makers", "2")] {
        let body = json!({"section": "POLICY", "field": field, "value": value});
        taker.client.wallet_post("/configset", body).await.expect(200);
    }
    taker.coinjoin(0, 1_000_000, 2, "INTERNAL").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
    let rounds = taker.rounds().await;
    let mut chosen: Vec<String> = rounds[0]["counterparties"]
        .as_array()
        .unwrap()
        .iter()
        .map(|nick| nick.as_str().unwrap().to_owned())
        .collect();
    chosen.sort();
    bonded.sort();
    assert_eq!(chosen, bonded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maker_is_stopped_in_every_phase_and_the_taker_goes_on() {
    let market = Market::start();
    let coins = [(0, 9_000_000), (0, 8_000_000), (0, 7_000_000), (0, 6_000_000)];
    let (makers, taker) = four_makers(&market, &coins).await;
    let body = json!({"section": "POLICY", "field": "minimum_makers", "value": "2"});
    taker.client.wallet_post("/configset", body).await.expect(200);
    // Nobody waits a minute for a maker that is gone.
    let body = json!({"section": "TIMEOUT", "field": "maker_timeout_sec", "value": "4"});
    taker.client.wallet_post("/configset", body).await.expect(200);
    let mut events = taker.socket().await;
    let mut completed = 0;
    for (phase, maker) in ["choosing", "fill", "auth", "sign"].iter().zip(&makers) {
        taker.coinjoin(0, 1_000_000, 4, "INTERNAL").await;
        events.find("the taker begins", |m| (m["coinjoin_state"] == json!(0)).then_some(())).await;
        events
            .find(&format!("the phase {phase}"), |m| {
                let taker = &m["taker"];
                (taker["phase"] == json!(phase) || taker["event"] == json!("finished"))
                    .then_some(())
            })
            .await;
        maker.client.wallet_get("/maker/stop").await.expect(202);
        assert_eq!(maker.state().await, 2);
        let status = taker.coinjoin_ended().await;
        eprintln!("maker stopped at {phase}: {}", status["reason"]);
        completed += usize::from(status["status"] == json!("completed"));
        is_idle(&taker).await;
        maker.make().await;
        market.bench.mine(6, None).unwrap();
        taker.client.synced(market.bench.height().unwrap()).await;
        taker.sees_makers(4).await;
    }
    // One that is lost after the commitment was opened may end a coinjoin, but not each of them.
    assert!(completed >= 2, "{completed} of 4");
    for maker in &makers {
        let rounds = maker.rounds().await;
        assert!(rounds.iter().all(|round| round["state"] != json!("running")), "{rounds:?}");
    }
}
