//! What the reference does not have (`spec/api.md` Appendix C): answers by tag, named requests, all settings and
//! all fee rates in one call.

use http::Method;
use joinery_api::Role;
use serde_json::{Value, json};

use crate::money::{ELSEWHERE, coins, funded, payment, script_of};
use crate::rig::{Login, NOW, PASSWORD, Reply, Rig, WALLET};

/// `path` of the test wallet, for a client that has the answer named by `tag`.
async fn get_unless(rig: &Rig, login: &Login, path: &str, tag: &str) -> Reply {
    let path = format!("/api/v1/wallet/{WALLET}{path}");
    rig.get(path).token(&login.access).header("if-none-match", tag).send().await
}

fn tag(reply: &Reply) -> String {
    reply.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_that_the_client_has_is_not_sent_again() {
    let (rig, _chain, login) = funded().await;
    for path in ["/utxos", "/display"] {
        let first = rig.wallet_get(&login, path).await;
        let again = get_unless(&rig, &login, path, &tag(&first)).await;
        again.expect(304);
        assert!(again.body.is_empty());
        assert_eq!(tag(&again), tag(&first));
        get_unless(&rig, &login, path, "\"other\"").await.expect(200);
        // Any change of the wallet is a new answer.
        let coin = coins(&rig, &login).await[0].clone();
        let flip = json!({"utxo-string": coin["utxo"], "freeze": coin["frozen"] == false});
        rig.wallet_post(&login, "/freeze", &flip).await.expect(200);
        let changed = get_unless(&rig, &login, path, &tag(&first)).await;
        changed.expect(200);
        assert_ne!(changed.body, first.body);
        // And so is what a setting changes.
        let retries = if path == "/utxos" { "5" } else { "3" };
        let set = json!({"section": "POLICY", "field": "taker_utxo_retries", "value": retries});
        rig.wallet_post(&login, "/configset", &set).await.expect(200);
        let set = get_unless(&rig, &login, path, &tag(&changed)).await;
        assert_eq!(set.status == 304, set.body.is_empty());
        assert_eq!(set.status == 304, path == "/display");
        let head = rig.request(Method::HEAD, format!("/api/v1/wallet/{WALLET}{path}"));
        head.token(&login.access).header("if-none-match", &tag(&set)).send().await.expect(304);
    }
    // The token comes before everything.
    let path = format!("/api/v1/wallet/{WALLET}/utxos");
    rig.get(path).header("if-none-match", "*").send().await.expect(401);
    // After a new login to the same wallet old tags are nothing, although revisions begin anew.
    let old = tag(&rig.wallet_get(&login, "/utxos").await);
    rig.wallet_get(&login, "/lock").await.expect(200);
    let login = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    get_unless(&rig, &login, "/utxos", &old).await.expect(200);
}

#[tokio::test]
async fn a_bond_whose_time_comes_is_a_new_display() {
    let (rig, chain) = Rig::on_chain();
    let login = rig.recover().await;
    let address = rig.wallet_get(&login, "/address/timelock/new/2027-01").await.json();
    let paid = payment(1, script_of(address["address"].as_str().unwrap()), 500_000);
    chain.mine(&[&paid]);
    chain.look().await;
    let listed = || async { !coins(&rig, &login).await.is_empty() };
    crate::rig::until("the bond is listed", listed).await;
    let before = rig.wallet_get(&login, "/display").await;
    assert!(String::from_utf8_lossy(&before.body).contains("2027-01-01 [LOCKED]"));
    get_unless(&rig, &login, "/display", &tag(&before)).await.expect(304);
    rig.clock.advance(1_798_761_600 - NOW);
    let login = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    let after = get_unless(&rig, &login, "/display", &tag(&before)).await;
    after.expect(200);
    assert!(String::from_utf8_lossy(&after.body).contains("2027-01-01 [UNLOCKED]"));
}

#[tokio::test]
async fn a_named_payment_is_made_once() {
    let (rig, chain, login) = funded().await;
    let path = format!("/api/v1/wallet/{WALLET}/taker/direct-send");
    let body = json!({"mixdepth": 0, "amount_sats": 100_000, "destination": ELSEWHERE});
    let pay = |login: &Login, name: &str, body: &Value| {
        rig.post(&path, body).token(&login.access).header("idempotency-key", name).send()
    };
    let first = pay(&login, "a", &body).await;
    first.expect(200);
    // Long after, from another login, while a role runs.
    rig.clock.advance(80_000);
    rig.wallet_get(&login, "/lock").await.expect(401);
    let login = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    let guard = rig.app.activity().begin(Role::Maker).unwrap();
    let again = pay(&login, "a", &body).await;
    again.expect(200);
    assert_eq!(again.body, first.body);
    pay(&login, "b", &body).await.expect_error(400, "Action not allowed");
    drop(guard);
    assert_eq!(chain.broadcasts().len(), 1);
    let other = json!({"mixdepth": 0, "amount_sats": 100_001, "destination": ELSEWHERE});
    let reused = pay(&login, "a", &other).await;
    reused.expect_error(400, "Invalid request format.");
    assert_eq!(reused.json()["error_code"], "idempotency_key_reused");
    for bad in ["", &"x".repeat(256)] {
        pay(&login, bad, &body).await.expect_error(400, "Invalid request format.");
    }
    let twice = rig.post(&path, &body).token(&login.access);
    let twice = twice.header("idempotency-key", "c").header("idempotency-key", "c");
    twice.send().await.expect(400);
    assert_eq!(chain.broadcasts().len(), 1);
    // Without a name, and with another one, it is another payment.
    pay(&login, "c", &body).await.expect(200);
    rig.wallet_post(&login, "/taker/direct-send", &body).await.expect(200);
    assert_eq!(chain.broadcasts().len(), 3);
}

#[tokio::test]
async fn all_settings_in_one_call() {
    let rig = Rig::new();
    let login = rig.create().await;
    rig.get("/api/v1/config").send().await.expect(401);
    let set = json!({"section": "POLICY", "field": "max_cj_fee_abs", "value": 7000});
    rig.wallet_post(&login, "/configset", &set).await.expect(200);
    let config = rig.get("/api/v1/config").token(&login.access).send().await;
    config.expect(200);
    let config = config.json()["config"].clone();
    assert_eq!(config["POLICY"]["max_cj_fee_abs"], "7000");
    assert!(config["BLOCKCHAIN"].get("rpc_password").is_none());
    // The same as one by one.
    for (section, fields) in config.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            let body = json!({"section": section, "field": field});
            let one = rig.wallet_post(&login, "/configget", &body).await.json();
            assert_eq!(&one["configvalue"], value, "{section}.{field}");
        }
    }
}

#[tokio::test]
async fn fee_rates_by_target() {
    let (rig, _chain) = Rig::on_chain();
    let login = rig.create().await;
    rig.get("/api/v1/fees").send().await.expect(401);
    let ask = || rig.get("/api/v1/fees").token(&login.access).send();
    let fees = ask().await;
    fees.expect(200);
    let fees = fees.json();
    assert_eq!(fees["minimum_sat_kvb"], 1000);
    let table = fees["fees"].as_array().unwrap();
    let targets: Vec<u64> = table.iter().map(|fee| fee["blocks"].as_u64().unwrap()).collect();
    assert_eq!(targets, [1, 2, 3, 6, 12, 36, 144, 1008]);
    assert!(table.iter().all(|fee| fee["sat_kvb"] == 10_000), "{fees}");
    let offline = Rig::new();
    let login = offline.create().await;
    let fees = offline.get("/api/v1/fees").token(&login.access).send().await;
    fees.expect_error(503, "Backend daemon not available");
}

#[tokio::test]
async fn the_session_says_whether_the_wallet_has_caught_up() {
    let (rig, _chain) = Rig::on_chain();
    assert_eq!(rig.get("/api/v1/session").send().await.json()["backend_synced"], true);
    let login = rig.recover().await;
    let synced = || async { rig.session(&login).await["backend_synced"] == true };
    crate::rig::until("the wallet has caught up", synced).await;
    let offline = Rig::new();
    let login = offline.create().await;
    assert_eq!(offline.session(&login).await["backend_synced"], false);
}
