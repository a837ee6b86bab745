//! An Electrum server that goes away or lies: the daemon never panics, `/session` never waits for it, and when the
//! server is honest again every coin is there.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::time::Duration;

use joinery_testkit::fake_electrum::{FakeElectrum, Fault};
use serde_json::{Value, json};
use support::client::parse_address;
use support::{Client, Daemon, Home, PATIENCE, until};

/// Longest time that `/session` may take while the server misbehaves. Far above what it takes and far below any
/// time that a server is waited for.
const PROMPT: Duration = Duration::from_secs(20);
/// What each address of the fake chain got.
const COIN: u64 = 250_000;

/// A wallet with three confirmed coins on a fake chain.
async fn wallet(server: &FakeElectrum) -> (Home, Daemon, Client) {
    server.change(|chain| chain.mine(20));
    let home = Home::with_electrum(&server.url());
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("hostile.jmdat").await;
    for mixdepth in 0..3 {
        pay(server, &client, mixdepth).await;
    }
    server.change(|chain| chain.mine(3));
    client.utxos_when("three coins", |coins| coins.len() == 3).await;
    (home, daemon, client)
}

/// Pays a new address of the wallet.
async fn pay(server: &FakeElectrum, client: &Client, mixdepth: u8) {
    let script = parse_address(&client.address(mixdepth).await).script_pubkey();
    server.change(|chain| chain.pay(&script, COIN));
}

/// `/session`, which must come promptly whatever the server does.
async fn session(client: &Client) -> Value {
    let answer = tokio::time::timeout(PROMPT, client.get("/session")).await;
    answer.expect("/session does not wait for the server").expect(200)
}

fn value(coins: &[Value]) -> u64 {
    coins.iter().map(|coin| coin["value"].as_u64().unwrap()).sum()
}

/// Lets the server misbehave while money arrives and everything is asked for; then honest again, everything must be
/// found.
async fn survives(fault: Fault) {
    let server = FakeElectrum::start().unwrap();
    let (home, mut daemon, client) = wallet(&server).await;
    let lookups = server.requests().len();
    server.lie(fault.clone());
    pay(&server, &client, 0).await;
    server.change(|chain| chain.mine(1));
    // Provoke it: a new connection repeats the handshake and every subscription.
    server.disconnect_all();
    let asked = until("the lie is heard, or the server is not asked any more", || async {
        session(&client).await;
        (server.requests().len() > lookups + 3).then_some(())
    });
    asked.await;
    client.wallet_get("/rescanblockchain/0").await.expect(200);
    session(&client).await;
    client.wallet_get("/display").await.expect(200);
    client.wallet_get("/utxos").await.expect(200);
    let destination = client.address(4).await;
    let sending = {
        let client = client.clone();
        tokio::spawn(async move { client.send(1, 50_000, &destination).await })
    };
    // Meanwhile, and for as long as the payment waits for the server.
    for _ in 0..5 {
        session(&client).await;
    }
    server.honest();
    server.disconnect_all();
    let sent = tokio::time::timeout(PATIENCE * 2, sending).await;
    let sent = sent.expect("the payment is decided").unwrap();
    assert!(matches!(sent.status.as_u16(), 200 | 409 | 503), "{fault:?}: {sent:?}");
    // Four deposits; a payment to ourselves costs its fee, if it was made or will still be made.
    client
        .utxos_when(&format!("every coin after {fault:?}"), |coins| {
            (4 * COIN - 5_000..=4 * COIN).contains(&value(coins))
        })
        .await;
    // It works on: what arrives now is seen.
    pay(&server, &client, 3).await;
    server.change(|chain| chain.mine(1));
    client
        .utxos_when("a coin that arrives later", |coins| {
            coins.iter().any(|coin| coin["mixdepth"] == json!(3) && coin["value"] == json!(COIN))
        })
        .await;
    daemon.require_running();
    let log = home.log_text();
    assert!(!log.contains("panic"), "{fault:?}: {log}");
    daemon.stop();
}

macro_rules! lies {
    ($($name:ident: $fault:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives($fault).await;
        }
    )*};
}

lies! {
    wrong_transaction_for_a_txid: Fault::WrongTransaction;
    transaction_that_does_not_parse: Fault::UnparsableTransaction;
    forked_headers: Fault::ForkedHeaders { from: 15 };
    tip_that_links_to_nothing: Fault::UnlinkedTip;
    headers_without_work: Fault::BadProofOfWork { from: 21 };
    tip_lower_than_before: Fault::LowerTip { by: 4 };
    shrinking_history: Fault::ShrunkHistories { keep: 0 };
    history_that_belies_its_status: Fault::HistoriesBelieStatus { keep: 0 };
    invented_history: Fault::InventedHistory { extra: 3 };
    no_fee_estimate: Fault::EstimateFee(-1.0);
    absurd_fee_estimate: Fault::EstimateFee(1e9);
    absurd_relay_fee: Fault::RelayFee(1e9);
    endless_line: Fault::EndlessLine { method: None };
    line_of_a_gigabyte: Fault::HugeLine { method: None, bytes: 1 << 30 };
    silence: Fault::Silence { after: 2 };
    silence_on_broadcast: Fault::SilenceOn("blockchain.transaction.broadcast");
    disconnect_on_broadcast: Fault::DisconnectOn("blockchain.transaction.broadcast");
    disconnect_after_every_answer: Fault::DisconnectAfter { answers: 1 };
    history_too_large: Fault::history_too_large();
    wrong_merkle_proof: Fault::WrongMerkleProof;
    broadcast_with_another_txid: Fault::BroadcastWrongTxid;
    broadcast_refused: Fault::broadcast_refused("min relay fee not met");
    answers_to_nobody: Fault::WrongId;
    garbage: Fault::Garbage;
    deep_json: Fault::DeepJson(100_000);
}

/// The server is gone from one moment to the next, for a while, in the middle of whatever is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_goes_away_mid_call_is_found_again() {
    let server = FakeElectrum::start().unwrap();
    let (home, daemon, client) = wallet(&server).await;
    let before = client.utxos().await;
    for _ in 0..5 {
        let destination = client.address(4).await;
        let calls = async {
            tokio::join!(
                client.send(0, 20_000, &destination),
                client.wallet_get("/rescanblockchain/0"),
                client.address(2),
            )
        };
        let going = async {
            server.refuse_connections(true);
            server.disconnect_all();
            session(&client).await
        };
        let ((sent, rescan, _), seen) = tokio::join!(calls, going);
        assert!(matches!(sent.status.as_u16(), 200 | 409 | 503), "{sent:?}");
        rescan.expect(200);
        assert_eq!(seen["wallet_name"], json!("hostile.jmdat"));
        until("the session says that the server is gone", || async {
            let warnings = session(&client).await["warnings"].clone();
            warnings.as_array().unwrap().contains(&json!("backend_down")).then_some(())
        })
        .await;
        // Shown from what is known.
        assert!(value(&client.utxos().await) > value(&before) - 20_000);
        server.refuse_connections(false);
        until("the server is found again", || async {
            let warnings = session(&client).await["warnings"].clone();
            (!warnings.as_array().unwrap().contains(&json!("backend_down"))).then_some(())
        })
        .await;
    }
    pay(&server, &client, 3).await;
    server.change(|chain| chain.mine(1));
    client
        .utxos_when("a coin that arrives later", |coins| {
            coins
                .iter()
                .any(|coin| coin["mixdepth"] == json!(3) && coin["confirmations"] == json!(1))
        })
        .await;
    assert!(!home.log_text().contains("panic"));
    daemon.stop();
}

/// A server that never answers must not keep anybody from unlocking, looking, taking an address or ending the daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_keeps_nobody_out() {
    let server = FakeElectrum::start().unwrap();
    server.lie(Fault::Silence { after: 0 });
    let home = Home::with_electrum(&server.url());
    let daemon = home.start();
    let mut client = daemon.client();
    let promptly = async {
        client.create("silent.jmdat").await;
        client.address(0).await;
        client.wallet_get("/display").await.expect(200);
        session(&client).await;
        client.lock().await;
        client.unlock("silent.jmdat").await;
        client.utxos().await;
    };
    tokio::time::timeout(PATIENCE, promptly).await.expect("nothing here waits for the server");
    daemon.stop();
}
