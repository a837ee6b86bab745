//! Wallets with an extension, recover options, and the end of the process.

use serde_json::json;

use crate::rig::{Login, PASSWORD, Rig, WALLET, WORDS};

#[tokio::test]
async fn an_extension_makes_another_wallet_and_is_shown_with_the_seed() {
    let rig = Rig::new();
    let body = json!({"walletname": WALLET, "password": PASSWORD, "seedphrase": WORDS,
        "mnemonic_extension": "extra words", "scan_range": "20"});
    let made = rig.post("/api/v1/wallet/recover", &body).send().await;
    made.expect(201);
    let login = Login::of(&made.json());
    let seed = rig.wallet_get(&login, "/getseed").await.json();
    assert_eq!(seed, json!({"seedphrase": WORDS, "mnemonic_extension": "extra words"}));
    let display = rig.wallet_get(&login, "/display").await.json();
    let first = &display["walletinfo"]["accounts"][0]["branches"][0]["entries"][0];
    assert_ne!(first["address"], "bcrt1q6rz28mcfaxtmd6v789l9rrlrusdprr9pz3cppk");
    rig.wallet_get(&login, "/lock").await.expect(200);
    let login = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    let again = rig.wallet_get(&login, "/getseed").await.json();
    assert_eq!(again, seed);

    for extension in [json!(5), json!("x".repeat(2000))] {
        let body = json!({"walletname": "b.jmdat", "password": PASSWORD,
            "mnemonic_extension": extension});
        rig.wallet_get(&login, "/lock").await;
        let refused = rig.post("/api/v1/wallet/create", &body).send().await;
        refused.expect_error(400, "Invalid request format.");
    }
}

#[tokio::test]
async fn the_end_of_the_process_locks_the_wallet() {
    let rig = Rig::new();
    let login = rig.create().await;
    let guard = rig.app.activity().begin(joinery_api::Role::Maker);
    rig.app.shutdown().await;
    assert!(guard.unwrap().stopped().is_cancelled());
    rig.get("/api/v1/session").token(&login.access).send().await.expect(401);
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    let late = rig.unlock(WALLET, PASSWORD).await;
    late.expect_error(503, "Backend daemon not available");
    let body = json!({"walletname": "late.jmdat", "password": PASSWORD});
    rig.post("/api/v1/wallet/create", &body).send().await.expect(503);
}
