//! Changing a wallet's password: `spec/api.md` Appendix C 20.

use std::sync::Arc;

use joinery_wallet::chain::NoServer;
use joinery_wallet::directory::WalletDirectory;
use joinery_wallet::file::KdfParams;
use joinery_wallet::types::Network;
use serde_json::{Value, json};

use crate::rig::{Login, PASSWORD, Reply, Rig, WALLET, WORDS};

const NEW: &str = "ñew pässword 🦀";

async fn change(rig: &Rig, login: &Login, current: &str, new: &str) -> Reply {
    let body = json!({"password": current, "new_password": new});
    rig.wallet_post(login, "/change-password", &body).await
}

#[tokio::test]
async fn a_changed_password_counts_at_once_and_ends_every_login() {
    let rig = Rig::new();
    let first = rig.recover().await;
    let second = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    let address = rig.wallet_get(&first, "/address/new/0").await.json()["address"].clone();
    let reply = change(&rig, &first, PASSWORD, NEW).await;
    reply.expect(200);
    assert_eq!(reply.json()["walletname"], WALLET);
    assert!(reply.json().get("seedphrase").is_none());
    let fresh = Login::of(&reply.json());

    for old in [&first, &second] {
        rig.get("/api/v1/session").token(&old.access).send().await.expect(401);
        let body = json!({"grant_type": "refresh_token", "refresh_token": old.refresh});
        rig.post("/api/v1/token", &body).token(&fresh.access).send().await.expect(400);
    }
    // The wallet went on: same state, no unlock in between.
    assert_eq!(rig.session(&fresh).await["wallet_name"], WALLET);
    let next = rig.wallet_get(&fresh, "/address/new/0").await.json()["address"].clone();
    assert_ne!(next, address);
    rig.unlock(WALLET, PASSWORD).await.expect_error(401, "Invalid credentials.");
    rig.unlock(WALLET, NEW).await.expect(200);
    rig.wallet_get(&fresh, "/lock").await.expect(200);
    rig.unlock(WALLET, PASSWORD).await.expect_error(401, "Invalid credentials.");
    let again = Login::of(&rig.unlock(WALLET, NEW).await.json());
    assert_eq!(rig.wallet_get(&again, "/getseed").await.json(), json!({"seedphrase": WORDS}));
    let third = rig.wallet_get(&again, "/address/new/0").await.json()["address"].clone();
    assert!(third != next && third != address, "stored data is readable with the new password");
}

#[tokio::test]
async fn refused_changes_change_nothing() {
    let rig = Rig::new();
    let login = rig.create().await;
    let file = rig.dir.path().join("wallets").join(WALLET);
    let before = std::fs::read(&file).unwrap();
    for (change, field) in [
        (json!({"password": null}), "password"),
        (json!({"password": 5}), "password"),
        (json!({"new_password": null}), "new_password"),
        (json!({"new_password": ""}), "new_password"),
        (json!({"new_password": ["a"]}), "new_password"),
    ] {
        let mut body = json!({"password": PASSWORD, "new_password": NEW});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = rig.wallet_post(&login, "/change-password", &body).await;
        reply.expect_error(400, "Invalid request format.");
        assert_eq!(reply.json()["details"]["field"], field);
    }
    let body = json!({"password": PASSWORD, "new_password": NEW});
    let other = rig.post("/api/v1/wallet/other.jmdat/change-password", &body);
    other.token(&login.access).send().await.expect_error(400, "Invalid request format.");
    let reply = change(&rig, &login, "wrong", NEW).await;
    reply.expect_error(401, "Invalid credentials.");
    assert_eq!(reply.challenge(), None, "clients must not take it for a logout");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    // And nobody was logged out.
    rig.session(&login).await;
    rig.unlock(WALLET, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn guessing_with_a_stolen_token_is_slowed_down_with_the_unlocks() {
    let rig = Rig::new();
    let login = rig.create().await;
    for attempt in 0..5 {
        if attempt % 2 == 0 {
            change(&rig, &login, "wrong", NEW).await.expect(401);
        } else {
            rig.unlock(WALLET, "wrong").await.expect(401);
        }
    }
    let reply = change(&rig, &login, PASSWORD, NEW).await;
    reply.expect_error(429, "Too many password attempts, try again later.");
    assert_eq!(reply.headers["retry-after"], "1");
    rig.unlock(WALLET, PASSWORD).await.expect(429);
    rig.clock.advance(1);
    change(&rig, &login, PASSWORD, NEW).await.expect(200);
    rig.unlock(WALLET, "wrong").await.expect(401);
    rig.unlock(WALLET, NEW).await.expect(200);
}

#[tokio::test]
async fn a_kept_file_of_another_program_says_why_it_is_refused() {
    const FILE: &str = "sample_sw_regtest_used.jmdat";
    let dir = tempfile::tempdir().unwrap();
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../wallet/tests/vectors/");
    let path = dir.path().join("wallets");
    let wallets = WalletDirectory::new(path.clone(), Network::Regtest, KdfParams::lightest());
    std::fs::copy(format!("{vectors}{FILE}"), path.join(FILE)).unwrap();
    let rig = Rig::in_wallets(
        dir,
        wallets.unwrap().keep_legacy(true),
        Arc::new(NoServer::default()),
        |_| {},
    );
    let reply = rig.unlock(FILE, "pässword ☃").await;
    reply.expect(200);
    let login = Login::of(&reply.json());
    let body = json!({"password": "pässword ☃", "new_password": NEW});
    let path = format!("/api/v1/wallet/{FILE}/change-password");
    let reply = rig.post(path, &body).token(&login.access).send().await;
    reply.expect_error(400, "Invalid request format.");
    assert_eq!(reply.json()["error_code"], Value::from("kept_wallet_file"));
    rig.session(&login).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_at_once_one_wins_and_its_password_counts() {
    let rig = Arc::new(Rig::new());
    let login = rig.create().await;
    let calls: Vec<_> = ["one", "two"]
        .map(|new| {
            let (rig, login) = (rig.clone(), login.clone());
            tokio::spawn(
                async move { (new, change(&rig, &login, PASSWORD, new).await.status.as_u16()) },
            )
        })
        .into();
    let mut winner = None;
    for call in calls {
        match call.await.unwrap() {
            (new, 200) => assert!(winner.replace(new).is_none()),
            (_, status) => assert_eq!(status, 401),
        }
    }
    let winner = winner.unwrap();
    for password in ["one", "two", PASSWORD] {
        let status = rig.unlock(WALLET, password).await.status.as_u16();
        assert_eq!(status == 200, password == winner, "{password}");
    }
}
