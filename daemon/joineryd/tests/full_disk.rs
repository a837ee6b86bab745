//! A disk that takes no more bytes, and gets space again (`spec/defects.md` 3.23): what cannot be stored is not
//! done and not handed out, the daemon goes on, and nothing that was acknowledged is lost.
//!
//! The limit is the kernel's on the size of files, set for the running daemon from outside: it needs no privilege
//! and no file system of its own, and fails writes in the middle as a full disk does.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use support::client::PASSWORD;
use support::{Answer, Client, Daemon, Home};

const WALLET: &str = "w.jmdat";
const COIN: &str = "aa000000000000000000000000000000000000000000000000000000000000bb:7";

/// Lets the daemon write files up to this size.
fn limit(daemon: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

/// A daemon that gets an error for a write beyond the limit instead of a signal.
fn home() -> Home {
    Home::new().variable("--ignore-signal", "XFSZ")
}

#[track_caller]
fn full(answer: Answer) {
    let body = answer.expect(500);
    assert_eq!(body["error_code"], json!("storage_full"), "{body}");
    assert!(body["message"].as_str().unwrap().contains("disk is full"), "{body}");
}

async fn label(client: &Client, address: &str, text: &str) -> Answer {
    client.wallet_post("/address/label", json!({"address": address, "label": text})).await
}

/// Label of the first new address as the display shows it.
async fn shown(client: &Client) -> (String, Value) {
    let display = client.wallet_get("/display").await.expect(200);
    let entry = &display["walletinfo"]["accounts"][1]["branches"][0]["entries"][0];
    (entry["address"].as_str().unwrap().to_owned(), entry["label"].clone())
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_handed_out_and_space_mends_everything() {
    let home = home();
    let daemon = home.start();
    let mut client = daemon.client();
    client.create(WALLET).await;
    let mut known = vec![client.address(0).await, client.address(0).await];
    let (labelled, _) = shown(&client).await;
    label(&client, &labelled, "before").await.expect(200);
    client.freeze(COIN, true).await;

    let journal = home.data().join("wallets").join(format!(".{WALLET}.journal"));
    for round in 0..4_u64 {
        // Nothing at all; a record that is cut after a few bytes, at several places.
        let length = journal.metadata().unwrap().len();
        limit(&daemon, Some(if round == 0 { 0 } else { length + 7 * round }));
        full(client.wallet_get("/address/new/0").await);
        full(client.wallet_get("/address/new/0").await);
        full(label(&client, &labelled, "never").await);
        let thaw = json!({"utxo-string": COIN, "freeze": false});
        full(client.wallet_post("/freeze", thaw).await);
        // What needs no disk goes on.
        assert_eq!(shown(&client).await, (labelled.clone(), json!("before")));
        client.get("/session").await.expect(200);
        client.wallet_get("/utxos").await.expect(200);
        client.wallet_get("/getseed").await.expect(200);

        limit(&daemon, None);
        let next = client.address(0).await;
        assert!(!known.contains(&next), "{next} was handed out before");
        known.push(next);
    }
    // None of the refused calls used up an address.
    let display = client.wallet_get("/display").await.expect(200);
    let next = &display["walletinfo"]["accounts"][0]["branches"][0]["entries"][0]["hd_path"];
    assert_eq!(next, &json!(format!("m/84'/1'/0'/0/{}", known.len())));

    // The power goes while the disk is full.
    let length = journal.metadata().unwrap().len();
    limit(&daemon, Some(length + 5));
    full(client.wallet_get("/address/new/0").await);
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client();
    client.unlock(WALLET).await;
    assert_eq!(shown(&client).await, (labelled.clone(), json!("before")));
    let next = client.address(0).await;
    assert!(!known.contains(&next));
    known.push(next);
    daemon.stop();
    assert!(!home.log_text().contains("panicked"), "{}", home.log_text());
}

#[tokio::test]
async fn on_a_full_disk_no_password_changes_and_nothing_is_taken_for_damage() {
    let home = home();
    let daemon = home.start();
    let mut client = daemon.client();
    client.create(WALLET).await;
    let first = client.address(0).await;
    let file = home.data().join("wallets").join(WALLET);
    let before = std::fs::read(&file).unwrap();
    for bytes in [0, 100] {
        limit(&daemon, Some(bytes));
        let body = json!({"password": PASSWORD, "new_password": "new"});
        full(client.wallet_post("/change-password", body).await);
        assert_eq!(std::fs::read(&file).unwrap(), before);
        client.get("/session").await.expect(200);
    }
    // Locking works, unlocking waits for space.
    client.lock().await;
    let body = json!({"password": PASSWORD});
    let path = format!("/wallet/{WALLET}/unlock");
    full(client.post(&path, body.clone()).await);
    let other = json!({"walletname": "other.jmdat", "password": PASSWORD, "wallettype": "sw-fb"});
    full(client.post("/wallet/create", other.clone()).await);
    limit(&daemon, None);
    let names: Vec<String> = std::fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.contains("corrupt")), "{names:?}");
    let all = client.get("/wallet/all").await.expect(200);
    assert_eq!(all["wallets"], json!([WALLET]), "half a wallet was not made");

    client.unlock(WALLET).await;
    assert_ne!(client.address(0).await, first);
    client.lock().await;
    client.post("/wallet/create", other).await.expect(201);
    daemon.stop();
}

/// The database cannot grow while the journal still can: facts are safe in the journal alone.
#[tokio::test]
async fn facts_survive_a_database_that_cannot_be_written() {
    let home = home();
    let daemon = home.start();
    let mut client = daemon.client();
    client.create(WALLET).await;
    let mut known = Vec::new();
    let journal = home.data().join("wallets").join(format!(".{WALLET}.journal"));
    limit(&daemon, Some(journal.metadata().unwrap().len() + 20_000));
    for _ in 0..30 {
        known.push(client.address(0).await);
    }
    let (labelled, _) = shown(&client).await;
    label(&client, &labelled, "kept").await.expect(200);
    limit(&daemon, None);
    known.push(client.address(0).await);
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client();
    client.unlock(WALLET).await;
    assert_eq!(shown(&client).await, (labelled, json!("kept")));
    known.push(client.address(0).await);
    let count = known.len();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), count, "an address was handed out twice");
    daemon.stop();
}
