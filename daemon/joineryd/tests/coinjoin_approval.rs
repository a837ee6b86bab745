//! A coinjoin that waits for the button of the box as its first phase: real daemons, a real chain, the real board
//! (`spec/api.md` 6.18, `docs/board-link.md`).
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::time::Duration;

use bdk_wallet::bitcoin::{Address, Transaction, Txid};
use joinery_board::Panel;
use joinery_board::backend::png::encode;
use joinery_board::link::{Ask, parse};
use joinery_board::render::picture;
use joinery_board::screen::{Frame, Light, Screen};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::board::{home_with_board, socket};
use support::client::parse_address;
use support::real_board::RealBoard;
use support::relay::Relay;
use support::{Market, Participant, until};

const MAKERS: u8 = 3;
const AMOUNT: u64 = 2_000_000;
/// Somebody else's address.
const ELSEWHERE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// The pictures that the large panel may show of a request, one for each second that may be left.
fn expected_pictures(request: &Value) -> Vec<Vec<u8>> {
    let status =
        json!({"v": 1, "type": "status", "locked": false, "coinjoin_state": 0, "pending": request});
    let pending = parse(status.to_string().as_bytes()).unwrap().unwrap().pending.unwrap();
    let Ask::Send(payment) = pending.ask else { panic!("{request}") };
    let frame = |left_s| Frame {
        screen: Screen::Send {
            id: pending.id.clone(),
            payment: payment.clone(),
            page: 0,
            pages: 1,
            ready: true,
            left_s: Some(left_s),
            held: None,
        },
        warning: None,
        light: Light::Full,
    };
    (0..=60).map(|left_s| encode(&picture(&frame(left_s), Panel::Large)).unwrap()).collect()
}

/// What the panel showed is what the daemon asked for, to the pixel.
fn was_shown(board: &RealBoard, request: &Value) {
    let expected = expected_pictures(request);
    let shown = board.pictures("send");
    assert!(shown.iter().any(|file| expected.contains(file)), "{request}");
}

/// Asks for a coinjoin, which is answered at once, and sees it wait for the button.
async fn asked(taker: &Participant, board: &RealBoard, destination: &str) -> Value {
    taker.coinjoin(0, AMOUNT, MAKERS, destination).await;
    let status = taker.client.wallet_get("/taker/status").await.expect(200);
    assert_eq!((&status["status"], &status["phase"]), (&json!("running"), &json!("approval")));
    assert!(status["deadline_seconds"].as_u64().unwrap() <= 60);
    assert_eq!(taker.state().await, 0);
    board.screen("send").await;
    board.light("double-blink").await;
    status
}

/// No round holds anything, and nothing runs.
async fn coins_are_free(taker: &Participant) {
    assert_eq!(taker.state().await, 2);
    let rounds = taker.rounds().await;
    assert!(rounds.iter().all(|round| round["state"] != json!("running")), "{rounds:?}");
    for coin in taker.client.utxos().await {
        for freeze in [true, false] {
            // A coin that is held cannot be frozen.
            let body = json!({"utxo-string": coin["utxo"], "freeze": freeze});
            taker.client.wallet_post("/freeze", body).await.expect(200);
        }
    }
}

async fn ended(taker: &Participant, reason: &str, says: &str) {
    let status = taker.coinjoin_ended().await;
    assert_eq!((&status["status"], &status["reason"]), (&json!("failed"), &json!(reason)));
    assert!(status["error"].as_str().unwrap().contains(says), "{status}");
    assert!(taker.rounds().await.is_empty(), "nobody was asked for anything");
    coins_are_free(taker).await;
}

fn transaction(market: &Market, status: &Value) -> Transaction {
    let txid: Txid = status["txid"].as_str().unwrap().parse().unwrap();
    market.bench.transaction(txid, None).unwrap()
}

fn paid_to(tx: &Transaction, address: &Address) -> Vec<u64> {
    let script = address.script_pubkey();
    let outputs = tx.output.iter().filter(|output| output.script_pubkey == script);
    outputs.map(|output| output.value.to_sat()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coinjoin_waits_for_the_button_and_is_locked_away_by_it() {
    let market = Market::start();
    let mut makers = Vec::new();
    for number in 0..MAKERS {
        let coins = [(0, 20_000_000 + u64::from(number)), (1, 10_000_000 + u64::from(number))];
        makers.push(market.participant(&format!("maker{number}"), &coins).await);
    }
    let home = home_with_board(market.home(), "approve = [\"send\"]");
    let coins = [(0, 9_000_000), (0, 8_000_000), (0, 7_000_000)];
    let mut taker = market.participant_at(home, "taker", &coins).await;
    let everybody: Vec<&Participant> = makers.iter().chain([&taker]).collect();
    market.settle(&everybody).await;
    for maker in &makers {
        maker.make().await;
    }
    taker.sees_makers(MAKERS.into()).await;

    // Without a board it is refused before it begins.
    let body = json!({"mixdepth": 0, "amount_sats": AMOUNT, "counterparties": MAKERS,
        "destination": ELSEWHERE});
    let refused = taker.client.wallet_post("/taker/coinjoin", body).await.expect(409);
    assert_eq!(refused["error_code"], "approval_no_board");
    coins_are_free(&taker).await;

    let relay = Relay::start(&socket(&taker.home));
    let mut board = RealBoard::with_large_panel(&taker.home, relay.path());
    board.screen("idle").await;

    // Refused by two quick presses.
    asked(&taker, &board, ELSEWHERE).await;
    was_shown(&board, &relay.last_request());
    board.press_twice_until_gone("send").await;
    ended(&taker, "not_approved", "Refused at the box").await;

    // The request goes away with its board.
    asked(&taker, &board, ELSEWHERE).await;
    drop(board);
    ended(&taker, "not_approved", "not connected").await;
    let mut board = RealBoard::with_large_panel(&taker.home, relay.path());
    board.screen("idle").await;

    // Approved: what was shown is what happens.
    asked(&taker, &board, ELSEWHERE).await;
    let request = relay.last_request();
    assert_eq!(request["kind"], "send");
    assert_eq!((&request["amount_sat"], &request["makers"]), (&json!(AMOUNT), &json!(MAKERS)));
    assert_eq!((&request["destination"], &request["own"]), (&json!(ELSEWHERE), &json!(false)));
    was_shown(&board, &request);
    board.hold_until_gone("send", "1.8").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
    let tx = transaction(&market, &status);
    assert_eq!(paid_to(&tx, &parse_address(ELSEWHERE)), [AMOUNT]);
    let equal = tx.output.iter().filter(|output| output.value.to_sat() == AMOUNT).count();
    assert_eq!(equal, usize::from(MAKERS) + 1);
    let rounds = taker.rounds().await;
    let cost = rounds[0]["cost"].as_u64().unwrap();
    assert!(cost <= request["fee_max_sat"].as_u64().unwrap(), "{cost}: {request}");
    // The wallet has seen it, and the panel told so.
    board.was_shown("transaction").await;
    let seen = relay.last_transaction();
    assert_eq!((&seen["txid"], &seen["direction"]), (&status["txid"], &json!("coinjoin")));
    assert!(seen["amount_sat"].is_null(), "nobody wanted amounts on the panel");
    market.bench.mine(6, None).unwrap();
    taker.client.synced(market.bench.height().unwrap()).await;

    // Into the next jar of the wallet: the address that was shown is the one that is paid.
    asked(&taker, &board, "INTERNAL").await;
    let request = relay.last_request();
    assert_eq!(request["own"], true);
    was_shown(&board, &request);
    board.hold_until_gone("send", "1.8").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
    let shown = parse_address(request["destination"].as_str().unwrap());
    assert_eq!(paid_to(&transaction(&market, &status), &shown), [AMOUNT]);
    market.bench.mine(6, None).unwrap();
    taker.client.synced(market.bench.height().unwrap()).await;
    taker.sees_makers(MAKERS.into()).await;

    // Makers that do not answer: the coinjoin runs, and the button locks it away.
    asked(&taker, &board, "INTERNAL").await;
    for maker in &mut makers {
        maker.daemon.as_mut().unwrap().signal(Signal::STOP);
    }
    board.hold_until_gone("send", "1.8").await;
    board.screen("taker").await;
    board.light("quick-breath").await;
    until("makers are asked", || async {
        let status = taker.client.wallet_get("/taker/status").await.expect(200);
        (status["phase"] == json!("fill")).then_some(())
    })
    .await;
    board.press("3.3");
    board.light("off").await;
    until("it is locked", || async {
        taker.client.get("/session").await.body["session"].as_bool().is_none().then_some(())
    })
    .await;
    for maker in &mut makers {
        maker.daemon.as_mut().unwrap().signal(Signal::CONT);
    }
    taker.client.token.clear();
    assert_eq!(taker.client.get("/session").await.expect(200)["session"], false);
    taker.client.unlock("taker.jmdat").await;
    taker.client.synced(market.bench.height().unwrap()).await;
    let rounds = taker.rounds().await;
    assert!(rounds.iter().all(|round| round["state"] != json!("running")), "{rounds:?}");
    coins_are_free(&taker).await;
    let total: u64 =
        taker.client.utxos().await.iter().map(|coin| coin["value"].as_u64().unwrap()).sum();
    let cost: u64 = rounds.iter().map(|round| round["cost"].as_u64().unwrap()).sum();
    assert_eq!(total + cost + AMOUNT, 24_000_000, "{rounds:?}");

    // Nobody presses in time.
    taker.daemon.take().unwrap().stop();
    let config =
        "[wallet]\nkdf_memory_mib = 19\n[board]\napprove = [\"send\"]\napprove_within_s = 1\n";
    let path = socket(&taker.home);
    taker.home.write_config(&format!("{config}socket = \"{}\"\n", path.display()));
    let daemon = taker.home.start();
    taker.client = daemon.client();
    taker.daemon = Some(daemon);
    taker.client.unlock("taker.jmdat").await;
    taker.client.synced(market.bench.height().unwrap()).await;
    board.screen("idle").await;
    taker.coinjoin(0, AMOUNT, MAKERS, ELSEWHERE).await;
    let status = taker.coinjoin_ended().await;
    assert_eq!((&status["status"], &status["reason"]), (&json!("failed"), &json!("not_approved")));
    assert!(status["error"].as_str().unwrap().contains("in time"), "{status}");
    coins_are_free(&taker).await;
    tokio::time::timeout(Duration::from_secs(60), board.screen("idle")).await.unwrap();
    assert!(!taker.home.log_text().contains("panicked"));
}
