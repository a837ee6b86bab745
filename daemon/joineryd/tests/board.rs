//! The real daemon with a board on its socket: what a person at the box can do, and what a board that lies cannot.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use joinery_testkit::fake_electrum::FakeElectrum;
use serde_json::{Value, json};
use support::board::{Board, home_with_board, id_of, socket};
use support::client::{PASSWORD, parse_address};
use support::{Answer, Client, Daemon, Home, PATIENCE, until};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Nobody's address.
const ELSEWHERE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// A daemon that asks for everything, with a locked wallet.
async fn locked(more: &str) -> (Home, Daemon, Client) {
    let home = home_with_board(Home::new(), &format!("approve = [\"unlock\", \"send\"]\n{more}"));
    let daemon = home.start();
    let mut client = daemon.client();
    // Making a wallet is not unlocking one.
    client.create("box.jmdat").await;
    client.lock().await;
    (home, daemon, client)
}

async fn try_unlock(client: &Client) -> Answer {
    client.post("/wallet/box.jmdat/unlock", json!({"password": PASSWORD})).await
}

#[track_caller]
fn expect_refusal(answer: Answer, code: &str) {
    let body = answer.expect(409);
    assert_eq!(body["error_code"], code, "{body}");
}

async fn is_open(client: &Client) -> bool {
    client.get("/session").await.expect(200)["session"] == json!(true)
}

#[tokio::test]
async fn an_unlock_is_approved_refused_or_forgotten_at_the_box() {
    let (home, daemon, mut client) = locked("").await;
    let mut board = Board::connect(&socket(&home)).await;
    expect_refusal(try_unlock(&client).await, "approval_no_panel");
    board.hello("128x64").await;
    let status = board.when("a snapshot", |_| true).await;
    assert_eq!((&status["locked"], &status["coinjoin_state"]), (&json!(true), &json!(2)));
    assert_eq!((&status["network"], &status["backend"]), (&json!("regtest"), &json!("none")));
    assert_eq!(status["paired"], true);
    let fingerprint = daemon.listening.fingerprint.clone().unwrap().replace(':', "");
    assert_eq!(status["fingerprint"], fingerprint);
    let rpc = daemon.rpc_address();
    assert_eq!(status["url"], format!("https://{rpc}/"));
    let pairing = status["pairing"].as_str().unwrap();
    assert!(pairing.starts_with(&format!("http://{rpc}?cert=")), "{pairing}");
    assert!(status.get("balance_sat").is_none_or(Value::is_null));

    // Pressed.
    let (answer, first) = tokio::join!(try_unlock(&client), async {
        let pending = board.pending().await;
        assert_eq!((&pending["kind"], &pending["text"]), (&json!("unlock"), &json!("box")));
        assert!((1..=60).contains(&pending["expires_s"].as_u64().unwrap()));
        board.about("press", "unlock-1").await;
        board.about("press", id_of(&pending)).await;
        board.nothing_pending().await;
        pending
    });
    client.take_tokens(&answer.expect(200));
    board.when("it is open", |status| status["wallet"] == "box" && status["locked"] == false).await;
    client.lock().await;
    board.when("it is locked", |status| status["locked"] == true).await;

    // Refused; the press from before is for another request.
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        let pending = board.pending().await;
        assert_ne!(pending["id"], first["id"]);
        board.about("press", id_of(&first)).await;
        board.about("refuse", id_of(&first)).await;
        board.about("refuse", id_of(&pending)).await;
        board.nothing_pending().await;
        board.about("press", id_of(&pending)).await;
    });
    expect_refusal(answer, "approval_refused");

    // The board goes away while it is asked, and comes back with an old press.
    let (answer, mut board) = tokio::join!(try_unlock(&client), async {
        let pending = board.pending().await;
        drop(board);
        let mut board = Board::with_panel(&socket(&home)).await;
        board.about("press", id_of(&pending)).await;
        board
    });
    expect_refusal(answer, "approval_no_board");

    // Its panel is lost.
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        board.pending().await;
        board.hello("none").await;
    });
    expect_refusal(answer, "approval_no_panel");
    assert!(!is_open(&client).await);
    daemon.stop();
    assert!(!socket(&home).exists());
}

#[tokio::test]
async fn nobody_presses_and_a_late_press_does_nothing() {
    let (home, daemon, client) = locked("approve_within_s = 1").await;
    let mut board = Board::with_panel(&socket(&home)).await;
    let (answer, pending) = tokio::join!(try_unlock(&client), board.pending());
    expect_refusal(answer, "approval_timed_out");
    board.about("press", id_of(&pending)).await;
    board.nothing_pending().await;
    assert!(!is_open(&client).await);
    daemon.stop();
}

#[tokio::test]
async fn a_hold_refuses_and_locks() {
    let home = home_with_board(Home::new(), "approve = [\"send\", \"unlock\"]");
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    let mut board = Board::with_panel(&socket(&home)).await;
    // Another client logs in to the open wallet, and the person at the box wants none of it.
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        let pending = board.pending().await;
        board.about("hold", id_of(&pending)).await;
        board.when("locked", |status| status["locked"] == true).await;
    });
    expect_refusal(answer, "approval_refused");
    client.get("/session").await.expect(401);
    client.token.clear();
    assert!(!is_open(&client).await);
    // Without anything to lock, and without anything to refuse.
    board.say(&json!({"v": 1, "type": "hold"})).await;
    board.say(&json!({"v": 1, "type": "shutdown"})).await;
    let status = board.when("still here", |status| status["locked"] == true).await;
    assert!(status.get("switching_off").is_none(), "not configured");
    assert!(!is_open(&client).await);
    daemon.stop();
}

#[tokio::test]
async fn the_machine_is_switched_off_where_that_is_configured() {
    let home = Home::new();
    let mark = home.log().with_file_name("off");
    let command = format!("shutdown_command = [\"touch\", \"{}\"]", mark.display());
    let home = home_with_board(home, &command);
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    let mut board = Board::with_panel(&socket(&home)).await;
    board.say(&json!({"v": 1, "type": "shutdown"})).await;
    let last = |status: &Value| status["switching_off"] == true && status["locked"] == true;
    board.when("the last screen", last).await;
    assert!(mark.exists());
    daemon.stop();
}

#[tokio::test]
async fn without_a_board_the_configuration_is_the_way_out() {
    let (home, daemon, client) = locked("").await;
    expect_refusal(try_unlock(&client).await, "approval_no_board");
    assert!(!is_open(&client).await);
    daemon.stop();
    let home = home_with_board(home, "");
    let daemon = home.start();
    daemon.client().unlock("box.jmdat").await;
    daemon.stop();
}

/// A wallet with 250 000 satoshi on a fake chain, open, and a board with a panel.
async fn funded(server: &FakeElectrum) -> (Home, Daemon, Client, Board) {
    server.change(|chain| chain.mine(20));
    let home = Home::with_electrum(&server.url());
    let rules = "approve = [\"send\"]\napprove_send_above_sats = 10000\nshow_balance = true";
    let home = home_with_board(home, rules);
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    let script = parse_address(&client.address(0).await).script_pubkey();
    server.change(|chain| chain.pay(&script, 250_000));
    server.change(|chain| chain.mine(3));
    client.utxos_when("a confirmed coin", |coins| coins.len() == 1).await;
    let board = Board::with_panel(&socket(&home)).await;
    (home, daemon, client, board)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_made_as_it_was_shown_or_not_at_all() {
    let server = FakeElectrum::start().unwrap();
    let (_home, daemon, client, mut board) = funded(&server).await;
    let status = board.when("the balance", |status| status["balance_sat"] == 250_000).await;
    assert_eq!((&status["backend"], &status["tor"]), (&json!("ok"), &json!("off")));
    assert_eq!(status["height"], 23);

    let (answer, ()) = tokio::join!(client.send(0, 100_000, ELSEWHERE), async {
        let pending = board.pending().await;
        board.about("refuse", id_of(&pending)).await;
    });
    expect_refusal(answer, "approval_refused");
    assert_eq!(client.utxos().await.len(), 1);

    let (answer, pending) = tokio::join!(client.send(0, 100_000, ELSEWHERE), async {
        let pending = board.pending().await;
        board.about("press", id_of(&pending)).await;
        pending
    });
    assert_eq!(pending["kind"], "send");
    assert_eq!(
        (&pending["amount_sat"], &pending["sweep"], &pending["jar"], &pending["own"]),
        (&json!(100_000), &json!(false), &json!(0), &json!(false))
    );
    assert_eq!(pending["destination"], ELSEWHERE);
    let sent = answer.expect(200);
    let fee = sent["details"]["fee_sats"].as_u64().unwrap();
    assert!(fee <= pending["fee_max_sat"].as_u64().unwrap());
    let txid = &sent["txinfo"]["txid"];
    let seen = |confirmations: u32| {
        move |status: &Value| {
            let tx = &status["transaction"];
            tx["txid"] == *txid && tx["confirmations"] == confirmations
        }
    };
    let status = board.when("the payment", seen(0)).await;
    let shown = &status["transaction"];
    assert_eq!((&shown["direction"], &shown["amount_sat"]), (&json!("out"), &json!(100_000 + fee)));
    server.change(|chain| chain.mine(1));
    board.when("its block", seen(1)).await;
    let script = parse_address(&client.address(1).await).script_pubkey();
    server.change(|chain| chain.pay(&script, 7_000));
    let paid = |status: &Value| status["transaction"]["direction"] == "in";
    let status = board.when("a payment to the wallet", paid).await;
    assert_eq!(status["transaction"]["amount_sat"], 7_000);

    // Small ones pass; a sweep never does, and a hold while it waits locks instead.
    client.send(0, 10_000, ELSEWHERE).await.expect(200);
    let (answer, pending) = tokio::join!(client.send(0, 0, ELSEWHERE), async {
        let pending = board.pending().await;
        board.about("hold", id_of(&pending)).await;
        board.when("locked", |status| status["locked"] == true).await;
        pending
    });
    expect_refusal(answer, "approval_refused");
    assert_eq!(pending["sweep"], true);
    daemon.stop();
}

/// Whether an honest board gets in and is heard.
async fn an_honest_board_works(home: &Home, client: &Client) {
    let mut board = Board::with_panel(&socket(home)).await;
    let (answer, ()) = tokio::join!(try_unlock(client), async {
        let pending = board.pending().await;
        board.about("refuse", id_of(&pending)).await;
        board.nothing_pending().await;
    });
    expect_refusal(answer, "approval_refused");
}

#[tokio::test]
async fn a_board_that_misbehaves_is_sent_away_and_has_done_nothing() {
    let (home, mut daemon, client) = locked("").await;
    let path = socket(&home);
    let press = |id: &str| json!({"v": 1, "type": "press", "pending": id}).to_string();
    let hello = r#"{"v":1,"type":"hello","panel":"128x64","version":"9"}"#;
    let long = format!("{{\"v\":1,\"type\":\"{}\"}}", "x".repeat(300));
    for nonsense in [
        format!("{}\n", press("a")),
        "\n".to_owned(),
        format!("{hello}\n\n"),
        format!("{hello}\n{long}\n"),
        format!("{hello}\n{}", "y".repeat(100_000)),
        format!("{hello}\n{{\"v\":2,\"type\":\"hold\"}}\n"),
        format!("{hello}\n{{\"v\":1,\"type\":\"press\"}}\n"),
        format!("{hello}\n{{\"v\":1,\"type\":\"press\",\"pending\":\"a\",\"pending\":\"b\"}}\n"),
        format!("{hello}\n{}\n", press("a\u{0}b")),
        format!("{hello}\n").repeat(21),
        format!("{}\n", press("a")).repeat(10_000),
        "\u{0}\u{1}\u{2}".repeat(1000),
        // Half a line, and nothing at all: five seconds each.
        format!("{hello}\n{{\"v\":1,\"type\":"),
        String::new(),
    ] {
        let mut board = Board::connect(&path).await;
        board.write(nonsense.as_bytes()).await;
        board.closed().await;
        daemon.require_running();
    }
    assert!(!is_open(&client).await);
    an_honest_board_works(&home, &client).await;
    // Unknown things are ignored, not punished.
    let mut board = Board::with_panel(&path).await;
    board.say(&json!({"v": 1, "type": "dance", "pending": 5})).await;
    board.say(&json!({"v": 1, "type": "press", "pending": "x", "more": [1, 2]})).await;
    board.when("another snapshot", |status| status["locked"] == true).await;
    assert!(!home.log_text().contains("panic"));
    daemon.stop();
}

#[tokio::test]
async fn there_is_one_board_at_a_time() {
    let (home, daemon, client) = locked("").await;
    let path = socket(&home);
    let mut first = Board::with_panel(&path).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut end = [0];
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut end).unwrap(), 0, "the second is sent away without a word");
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        let pending = first.pending().await;
        first.about("refuse", id_of(&pending)).await;
    });
    expect_refusal(answer, "approval_refused");
    drop(first);
    an_honest_board_works(&home, &client).await;
    daemon.stop();
}

/// A board that does not read: it is given up, and all others go on.
#[tokio::test]
async fn a_board_that_hangs_stops_nothing() {
    let (home, mut daemon, client) = locked("").await;
    let path = socket(&home);
    let mut board = Board::with_panel(&path).await;
    // Every line is answered with a snapshot, which nobody reads.
    let hold = format!("{}\n", json!({"v": 1, "type": "refuse", "pending": "x"}));
    // As fast as a board may speak.
    let mut pace = tokio::time::interval(Duration::from_millis(60));
    let giving_up = async {
        while !home.log_text().contains("does not read") {
            pace.tick().await;
            board.write(hold.as_bytes()).await;
            is_open(&client).await;
        }
    };
    timeout(PATIENCE, giving_up).await.expect("the daemon gives the board up");
    an_honest_board_works(&home, &client).await;
    daemon.require_running();
    daemon.stop();
}

#[tokio::test]
async fn only_the_boards_user_is_let_in() {
    // The test is not that user.
    let (home, daemon, client) = locked("user = \"4242\"").await;
    let path = socket(&home);
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut end = [0];
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut end).unwrap(), 0, "sent away without a word");
    until("the log says so", || async {
        home.log_text().contains("a stranger knocked").then_some(())
    })
    .await;
    expect_refusal(try_unlock(&client).await, "approval_no_board");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    daemon.stop();
}

/// Connects as this user; how many bytes of the daemon it gets to see.
fn heard_by(uid: u32, path: &Path) -> usize {
    const CLIENT: &str = r#"use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$!";
        $n = sysread($s, $line, 64); print length($line // "");"#;
    let output = Command::new("perl").args(["-e", CLIENT]).arg(path).uid(uid).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

/// Who is let in is decided by the user of the other process, also when the file's rights let everybody connect.
#[tokio::test]
async fn a_process_of_another_user_is_sent_away() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "not root: no process of another user can be started; only_the_boards_user_is_let_in ran"
        );
        return;
    }
    let open_to_all = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (home, daemon, client) = locked("").await;
    let path = socket(&home);
    open_to_all(path.parent().unwrap(), 0o755);
    open_to_all(&path, 0o666);
    assert_eq!(heard_by(NOBODY, &path), 0);
    let log = home.log_text();
    assert!(log.contains("a stranger knocked") && log.contains("65534"), "{log}");
    an_honest_board_works(&home, &client).await;
    daemon.stop();

    // With that user as the board's it is the other way round, for root, too.
    let home = home_with_board(home, &format!("user = \"{NOBODY}\""));
    let daemon = home.start();
    open_to_all(&path, 0o666);
    assert!(heard_by(NOBODY, &path) > 0);
    assert_eq!(heard_by(0, &path), 0);
    daemon.stop();
}

#[tokio::test]
async fn the_socket_of_a_killed_daemon_is_taken_over_and_nothing_else() {
    let (home, daemon, _) = locked("").await;
    daemon.kill();
    assert!(socket(&home).exists());
    let daemon = home.start();
    an_honest_board_works(&home, &daemon.client()).await;
    daemon.stop();
    std::fs::write(socket(&home), "mine").unwrap();
    let output = home.command(&[]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot listen for the board"), "{text}");
    assert_eq!(std::fs::read_to_string(socket(&home)).unwrap(), "mine");
}
