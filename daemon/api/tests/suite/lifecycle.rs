//! Create, recover, unlock, switch, lock: `spec/api.md` 6.4 to 6.8, Appendix D 1 to 3;
//! `spec/defects.md` rows 37, 46, 47 and 3.7.

use std::sync::Arc;

use http::Method;
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::Network;
use serde_json::{Value, json};

use crate::rig::{Login, NOW, PASSWORD, Rig, WALLET, WORDS};

fn new_wallet(name: &str) -> Value {
    json!({"walletname": name, "password": PASSWORD, "wallettype": "sw-fb"})
}

#[tokio::test]
async fn a_recovered_wallet_is_open_and_empty() {
    let rig = Rig::new();
    let body = json!({"walletname": WALLET, "password": PASSWORD, "wallettype": "sw-fb",
        "seedphrase": format!("  {}\n", WORDS.replace(' ', "  ").to_uppercase())});
    let reply = rig.post("/api/v1/wallet/recover", &body).send().await;
    reply.expect(201);
    // As submitted, but for the space around it.
    assert_eq!(reply.json()["seedphrase"], WORDS.replace(' ', "  ").to_uppercase());
    let login = Login::of(&reply.json());
    assert_eq!(rig.session(&login).await["wallet_name"], WALLET);
    let display = rig.wallet_get(&login, "/display").await.json();
    assert_eq!(display["walletname"], WALLET);
    assert_eq!(display["walletinfo"]["total_balance"], "0.00000000");
    let first = &display["walletinfo"]["accounts"][0]["branches"][0]["entries"][0];
    assert_eq!(first["hd_path"], "m/84'/1'/0'/0/0");
    assert_eq!(first["address"], "bcrt1q6rz28mcfaxtmd6v789l9rrlrusdprr9pz3cppk");
    let seed = rig.wallet_get(&login, "/getseed").await.json();
    assert_eq!(seed, json!({"seedphrase": WORDS}));
}

#[tokio::test]
async fn create_lock_create_again_and_unlock_in_turn() {
    let rig = Rig::new();
    let none = rig.get("/api/v1/session").send().await.json();
    assert_eq!(none["wallet_name"], "None");
    assert_eq!(none["session"], false);

    let reply = rig.post("/api/v1/wallet/create", &new_wallet("b.jmdat")).send().await;
    reply.expect(201);
    let body = reply.json();
    let words: Vec<&str> = body["seedphrase"].as_str().unwrap().split(' ').collect();
    assert_eq!(words.len(), 12);
    assert_eq!(body["walletname"], "b.jmdat");
    let login = Login::of(&body);
    rig.session(&login).await;
    rig.get("/api/v1/session").send().await.expect(200);

    let lock = rig.get("/api/v1/wallet/b.jmdat/lock").token(&login.access).send().await;
    lock.expect(200);
    assert_eq!(lock.json(), json!({"walletname": "b.jmdat", "already_locked": false}));
    let stale = rig.get("/api/v1/session").token(&login.access).send().await;
    stale.expect(401);
    assert!(stale.challenge().unwrap().contains("Bearer"));
    let again = rig.get("/api/v1/wallet/b.jmdat/lock").token(&login.access).send().await;
    again.expect(401);
    rig.get("/api/v1/session").send().await.expect(200);

    let mut login =
        Login::of(&rig.post("/api/v1/wallet/create", &new_wallet("a.jmdat")).send().await.json());
    let all = rig.get("/api/v1/wallet/all").send().await.json();
    assert_eq!(all, json!({"wallets": ["a.jmdat", "b.jmdat"]}));
    rig.get("/api/v1/wallet/a.jmdat/lock").token(&login.access).send().await.expect(200);

    // Each in turn without locking in between; the last one's tokens die with the switch.
    for name in ["a.jmdat", "b.jmdat", "a.jmdat"] {
        let reply = rig.unlock(name, PASSWORD).await;
        reply.expect(200);
        rig.get("/api/v1/session").token(&login.access).send().await.expect(401);
        login = Login::of(&reply.json());
        assert_eq!(rig.session(&login).await["wallet_name"], name);
    }
}

#[tokio::test]
async fn create_and_recover_refuse_what_they_must() {
    let rig = Rig::new();
    for (change, field) in [
        (json!({"walletname": null}), "walletname"),
        (json!({"walletname": 5}), "walletname"),
        (json!({"password": null}), "password"),
        (json!({"password": ""}), "password"),
        (json!({"password": ["a"]}), "password"),
        (json!({"wallettype": "sw-xx"}), "wallettype"),
        (json!({"wallettype": 1}), "wallettype"),
    ] {
        let mut body = new_wallet(WALLET);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body["seedphrase"] = WORDS.into();
        for call in ["create", "recover"] {
            let reply = rig.post(format!("/api/v1/wallet/{call}"), &body).send().await;
            reply.expect_error(400, "Invalid request format.");
            assert_eq!(reply.json()["details"]["field"], field);
        }
    }
    for (key, value) in [
        ("seedphrase", json!("")),
        ("seedphrase", json!("   ")),
        ("seedphrase", json!("abandon ".repeat(11))),
        ("seedphrase", json!("abandon ".repeat(12))),
        ("seedphrase", json!("abandon ".repeat(13))),
        ("seedphrase", json!(WORDS.replace("about", "abouf"))),
        ("seedphrase", json!("あいこくしん ".repeat(12))),
        ("seedphrase", json!("x".repeat(60_000))),
        ("seedphrase", json!(12)),
        ("scan_range", json!(0)),
        ("scan_range", json!(10_001)),
        ("scan_range", json!("x")),
    ] {
        let mut body = new_wallet(WALLET);
        body["seedphrase"] = WORDS.into();
        body[key] = value;
        let reply = rig.post("/api/v1/wallet/recover", &body).send().await;
        reply.expect_error(400, "Invalid request format.");
        let text = String::from_utf8(reply.body).unwrap();
        assert!(!text.contains("abandon"), "quotes the seed: {text}");
    }
    assert_eq!(rig.get("/api/v1/wallet/all").send().await.json(), json!({"wallets": []}));

    let login = rig.create().await;
    // Checked before the body.
    for call in ["create", "recover"] {
        let path = format!("/api/v1/wallet/{call}");
        let reply = rig.request(Method::POST, path).raw("nonsense").send().await;
        reply.expect_error(401, "Wallet already unlocked.");
        assert_eq!(reply.challenge(), None);
    }
    rig.wallet_get(&login, "/lock").await.expect(200);
    let exists = rig.post("/api/v1/wallet/create", &new_wallet(WALLET)).send().await;
    exists.expect_error(409, "Wallet file cannot be overwritten.");
    assert_eq!(rig.get("/api/v1/session").send().await.json()["session"], false);
}

#[tokio::test]
async fn wallet_name_is_one_safe_component() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside.jmdat");
    let long = format!("{}.jmdat", "a".repeat(300));
    for name in [
        "",
        ".",
        "..",
        ".jmdat",
        ".hidden.jmdat",
        "../outside.jmdat",
        "../../etc/passwd",
        "/etc/passwd.jmdat",
        "a/b.jmdat",
        "a\\b.jmdat",
        "a\u{0}b.jmdat",
        "a\nb.jmdat",
        "a",
        "a.jmdat.tmp",
        &long,
    ] {
        let reply = rig.post("/api/v1/wallet/create", &new_wallet(name)).send().await;
        reply.expect_error(400, "Invalid request format.");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        if !encoded.is_empty() {
            let reply = rig.unlock(&encoded, PASSWORD).await;
            reply.expect_error(400, "Invalid request format.");
        }
    }
    assert!(!outside.exists());
    let bad_utf8 = rig.unlock("%FF.jmdat", PASSWORD).await;
    bad_utf8.expect_error(400, "Invalid request format.");
    // Unusual names that are fine: other scripts, right-to-left, spaces, raw and encoded once.
    for name in ["Æther wallet 🦀.jmdat", "محفظة.jmdat", "FullyNoded-ab12CD34ef.jmdat"] {
        let made = rig.post("/api/v1/wallet/create", &new_wallet(name)).send().await;
        made.expect(201);
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let token = Login::of(&made.json()).access;
        let path = format!("/api/v1/wallet/{encoded}/lock");
        rig.get(path).token(&token).send().await.expect(200);
    }
    // An encoded name that is encoded again is another name.
    rig.unlock("%2541.jmdat", PASSWORD).await.expect_error(404, "No wallet loaded.");
}

#[tokio::test]
async fn unlock_says_what_is_wrong_and_leaves_the_open_wallet_alone() {
    let rig = Rig::new();
    let wallets = rig.dir.path().join("wallets");
    let login = rig.create().await;
    rig.wallet_get(&login, "/lock").await.expect(200);
    let open = rig.post("/api/v1/wallet/create", &new_wallet("open.jmdat")).send().await;
    let login = Login::of(&open.json());

    std::fs::create_dir(wallets.join("directory.jmdat")).unwrap();
    std::fs::write(wallets.join("text.jmdat"), "no wallet").unwrap();
    std::os::unix::fs::symlink(wallets.join(WALLET), wallets.join("link.jmdat")).unwrap();
    for (name, reason) in [
        ("missing.jmdat", "not_found"),
        ("directory.jmdat", "not_a_wallet"),
        ("text.jmdat", "not_a_wallet"),
        ("link.jmdat", "not_a_wallet"),
    ] {
        let reply = rig.unlock(name, PASSWORD).await;
        reply.expect_error(404, "No wallet loaded.");
        assert_eq!(reply.json()["details"]["reason"], reason, "{name}");
    }
    for name in [WALLET, "open.jmdat"] {
        let reply = rig.unlock(name, "wrong").await;
        reply.expect_error(401, "Invalid credentials.");
        assert_eq!(reply.challenge(), None);
    }
    rig.unlock(WALLET, "").await.expect_error(401, "Invalid credentials.");
    assert_eq!(rig.session(&login).await["wallet_name"], "open.jmdat");
    rig.unlock("open.jmdat", PASSWORD).await.expect(200);
    rig.session(&login).await;
}

#[tokio::test]
async fn a_wallet_that_another_daemon_holds_is_locked() {
    let first = Rig::new();
    let login = first.create().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::os::unix::fs::symlink(first.dir.path(), dir.path()).unwrap();
    let second = Rig::in_directory(dir, Network::Regtest, Arc::new(NoServer::default()), |_| {});
    let reply = second.unlock(WALLET, PASSWORD).await;
    reply.expect_error(409, "Wallet cannot be created/opened, it is locked.");
    first.wallet_get(&login, "/lock").await.expect(200);
    second.unlock(WALLET, PASSWORD).await.expect(200);
    first.unlock(WALLET, PASSWORD).await.expect(409);
    second.app.shutdown().await;
    first.unlock(WALLET, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_wallet_of_another_network_is_not_found() {
    let regtest = Rig::new();
    let login = regtest.create().await;
    regtest.wallet_get(&login, "/lock").await.expect(200);
    let mainnet = Rig::with(Network::Mainnet, Arc::new(NoServer::default()), |_| {});
    let file = |rig: &Rig| rig.dir.path().join("wallets").join(WALLET);
    std::fs::copy(file(&regtest), file(&mainnet)).unwrap();
    let reply = mainnet.unlock(WALLET, PASSWORD).await;
    reply.expect_error(404, "No wallet loaded.");
    assert_eq!(reply.json()["details"]["reason"], "wrong_network");
}

#[tokio::test]
async fn passwords_are_any_text() {
    let rig = Rig::new();
    let body = json!({"walletname": WALLET, "password": "pässwörd 🦀 \u{0}"});
    let login = Login::of(&rig.post("/api/v1/wallet/create", &body).send().await.json());
    rig.wallet_get(&login, "/lock").await.expect(200);
    rig.unlock(WALLET, "passwort").await.expect(401);
    rig.unlock(WALLET, "pässwörd 🦀 \u{0}").await.expect(200);
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down_for_everybody() {
    let rig = Rig::new();
    let login = rig.create().await;
    for _ in 0..5 {
        rig.unlock(WALLET, "wrong").await.expect(401);
    }
    for wait in [1, 2, 4] {
        let reply = rig.unlock(WALLET, PASSWORD).await;
        reply.expect_error(429, "Too many password attempts, try again later.");
        assert_eq!(reply.headers["retry-after"], wait.to_string());
        rig.clock.advance(wait);
        rig.unlock(WALLET, "wrong").await.expect(401);
    }
    // Whoever has a token goes on working.
    rig.session(&login).await;
    rig.unlock("other.jmdat", PASSWORD).await.expect(429);
    rig.clock.advance(8);
    rig.unlock(WALLET, PASSWORD).await.expect(200);
    rig.unlock(WALLET, "wrong").await.expect(401);
    rig.unlock(WALLET, PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parallel_unlocks_are_survived() {
    let rig = Arc::new(Rig::new());
    rig.create().await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.unlock(WALLET, "wrong").await.status.as_u16() })
        })
        .collect();
    let mut tried = 0;
    for call in calls {
        match call.await.unwrap() {
            401 => tried += 1,
            other => assert_eq!(other, 429),
        }
    }
    assert!(tried <= 5, "{tried} passwords were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_locks_creates_and_unlocks_leave_one_clear_state() {
    let rig = Arc::new(Rig::new());
    let calls: Vec<_> = (0..6)
        .map(|number| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let body = new_wallet(&format!("w{number}.jmdat"));
                rig.post("/api/v1/wallet/create", &body).send().await.status.as_u16()
            })
        })
        .collect();
    let mut made = 0;
    for call in calls {
        match call.await.unwrap() {
            201 => made += 1,
            other => assert_eq!(other, 401),
        }
    }
    assert_eq!(made, 1);
    let name = rig.get("/api/v1/session").send().await.json()["wallet_name"].clone();
    let name = name.as_str().unwrap().to_owned();
    let login = Login::of(&rig.unlock(&name, PASSWORD).await.json());
    let locks: Vec<_> = (0..6)
        .map(|_| {
            let (rig, login, name) = (rig.clone(), login.clone(), name.clone());
            tokio::spawn(async move {
                let path = format!("/api/v1/wallet/{name}/lock");
                let reply = rig.get(path).token(&login.access).send().await;
                (reply.status.as_u16(), reply.json()["already_locked"].clone())
            })
        })
        .collect();
    let mut locked = 0;
    for lock in locks {
        match lock.await.unwrap() {
            (200, already) => locked += u32::from(already == json!(false)),
            (status, _) => assert_eq!(status, 401),
        }
    }
    assert_eq!(locked, 1);
}

#[tokio::test]
async fn no_exit_on_user_error() {
    let rig = Rig::new();
    let login = rig.create().await;
    let terms = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
        "ordertype": "sw0reloffer", "minsize": "100000"});
    let maker = rig.wallet_post(&login, "/maker/start", &terms).await;
    maker.expect_error(409, "Maker could not start, no confirmed coins.");
    rig.wallet_get(&login, "/maker/stop").await.expect(401);
    let session = rig.session(&login).await;
    assert_eq!(session["maker_running"], false);
    assert_eq!(session["coinjoin_in_process"], false);
    // The wallet is there as before.
    rig.wallet_get(&login, "/address/new/0").await.expect(200);
}

#[tokio::test]
async fn the_certificate_and_the_server_are_warned_about() {
    let config = |end: u64| {
        Rig::with(Network::Regtest, Arc::new(NoServer::default()), |config| {
            config.certificate_end = Some(Arc::new(move || Some(end)));
        })
    };
    let warnings = |rig: Rig| async move {
        rig.get("/api/v1/session").send().await.json()["warnings"].clone()
    };
    let month = 30 * 86_400;
    assert_eq!(warnings(config(NOW + month)).await, json!(["backend_not_configured"]));
    let soon = warnings(config(NOW + month - 1)).await;
    assert_eq!(soon, json!(["backend_not_configured", "certificate_expires"]));
}
