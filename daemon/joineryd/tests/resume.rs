//! A maker after a power cut: one press and no password, for earning only (`[board] resume`).
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use joinery_testkit::DirectoryNode;
use joinery_testkit::fake_electrum::FakeElectrum;
use serde_json::{Value, json};
use support::board::{Board, home_with_board, id_of, socket};
use support::client::{PASSWORD, parse_address};
use support::real_board::RealBoard;
use support::sealed::SealedKey;
use support::{Client, Daemon, Home, Market, Participant, until};

/// What opens a wallet without its password.
fn kept(home: &Home) -> Option<PathBuf> {
    let entries = std::fs::read_dir(home.data().join("wallets")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_string_lossy().contains(".resume"))
}

async fn is_kept(home: &Home) {
    // Not one that is being written.
    let whole = |path: &PathBuf| path.extension().is_some_and(|end| end == "resume");
    until("the key is kept", || async { kept(home).filter(whole) }).await;
}

async fn is_forgotten(home: &Home) {
    until("nothing is kept", || async { kept(home).is_none().then_some(()) }).await;
}

/// `/session` as somebody sees it who is not logged in.
async fn session(client: &Client) -> Value {
    client.get("/session").await.expect(200)
}

/// Offers that the order book of a daemon has, by nick.
async fn nicks(taker: &Participant) -> BTreeSet<String> {
    let path = "/obwatch/orderbook.json";
    let book = taker.client.request(reqwest::Method::GET, path, None).await.expect(200);
    let offers = book["offers"].as_array().unwrap();
    offers.iter().map(|offer| offer["counterparty"].as_str().unwrap().to_owned()).collect()
}

/// The maker of a taker's order book, once there is one besides those.
async fn new_maker(taker: &Participant, known: &BTreeSet<String>) -> String {
    until("a maker that was not there before", || async {
        nicks(taker).await.into_iter().find(|nick| !known.contains(nick))
    })
    .await
}

/// Cuts the power of a maker that runs and brings it back.
async fn power_cut(maker: &mut Participant) {
    is_kept(&maker.home).await;
    maker.daemon.take().unwrap().kill();
    let daemon = maker.home.start();
    maker.client = daemon.client();
    maker.daemon = Some(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maker_goes_on_after_a_power_cut_with_one_press() {
    let machine = SealedKey::new();
    let market = Market::start();
    let home = home_with_board(market.home(), "resume = true\napprove = [\"unlock\", \"send\"]")
        .variable("CREDENTIALS_DIRECTORY", machine.given().to_str().unwrap());
    let mut board = RealBoard::start(&home);
    let coins = [(0, 20_000_000), (1, 10_000_000)];
    let mut maker = market.participant_at(home, "box", &coins).await;
    let taker = market.participant("taker", &[(0, 9_000_000), (0, 8_000_000)]).await;
    market.settle(&[&maker, &taker]).await;
    let minimum = json!({"section": "POLICY", "field": "minimum_makers", "value": "1"});
    taker.client.wallet_post("/configset", minimum).await.expect(200);
    let mut seen = BTreeSet::new();
    assert_eq!(kept(&maker.home), None, "nothing is kept of a wallet that does not earn");
    maker.make().await;
    board.screen("maker").await;
    seen.insert(new_maker(&taker, &seen).await);

    // The power is cut and comes back: somebody is asked, whenever that may be.
    power_cut(&mut maker).await;
    board.screen("unlock").await;
    board.light("double-blink").await;
    let now = session(&maker.client).await;
    assert_eq!((&now["session"], &now["maker_running"]), (&json!(false), &json!(false)));
    board.press_until_gone("unlock").await;
    board.screen("maker").await;
    board.light("slow-breath").await;
    seen.insert(new_maker(&taker, &seen).await);
    let now = session(&maker.client).await;
    assert_eq!((&now["maker_running"], &now["maker_only"]), (&json!(true), &json!(true)));
    assert_eq!(now["wallet_name"], "box.jmdat");

    // Nobody is logged in, and no token of before counts.
    for path in ["getseed", "display", "utxos", "maker/stop", "lock", "rounds"] {
        maker.client.get(&format!("/wallet/box.jmdat/{path}")).await.expect(401);
    }
    for path in ["taker/direct-send", "taker/coinjoin", "configset", "maker/start"] {
        maker.client.post(&format!("/wallet/box.jmdat/{path}"), json!({})).await.expect(401);
    }

    // It earns.
    until("the makers of before are gone", || async {
        (nicks(&taker).await.len() == 1).then_some(())
    })
    .await;
    taker.coinjoin(0, 1_000_000, 1, "INTERNAL").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");

    // A second power cut. Then the owner comes and opens it with the password, approved at the box.
    power_cut(&mut maker).await;
    board.screen("unlock").await;
    board.press_until_gone("unlock").await;
    board.screen("maker").await;
    seen.insert(new_maker(&taker, &seen).await);
    maker.client.token.clear();
    let path = "/wallet/box.jmdat/unlock";
    maker.client.post(path, json!({"password": "wrong"})).await.expect(401);
    assert_eq!(session(&maker.client).await["maker_only"], true);
    let (answer, ()) =
        tokio::join!(maker.client.post(path, json!({"password": PASSWORD})), async {
            board.screen("unlock").await;
            board.press_until_gone("unlock").await;
        });
    maker.client.take_tokens(&answer.expect(200));
    let now = maker.client.get("/session").await.expect(200);
    assert_eq!((&now["maker_running"], &now["maker_only"]), (&json!(true), &json!(false)));
    maker.client.wallet_get("/getseed").await.expect(200);
    let rounds = maker.rounds().await;
    let earned: Vec<i64> = rounds.iter().map(|round| round["cost"].as_i64().unwrap()).collect();
    assert!(earned.iter().any(|cost| *cost < 0) && earned.iter().all(|cost| *cost <= 0));

    // Held for three seconds: locked, and not asked again after the next power cut.
    board.press("3.3");
    board.light("off").await;
    is_forgotten(&maker.home).await;
    maker.daemon.take().unwrap().kill();
    let daemon = maker.home.start();
    board.screen("pairing").await;
    assert_eq!(session(&daemon.client()).await["session"], false);
    assert!(!maker.home.log_text().contains("panicked"));
    daemon.stop();
}

/// A daemon that earns with a wallet on a made-up chain; nobody else is there.
async fn earning(machine: &SealedKey, server: &FakeElectrum, node: &DirectoryNode) -> Rig {
    let home = Home::with_electrum(&server.url())
        .argument(&format!("--directory={}", node.address()))
        .variable("CREDENTIALS_DIRECTORY", machine.given().to_str().unwrap());
    let home = home_with_board(home, "resume = true");
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    let script = parse_address(&client.address(0).await).script_pubkey();
    server.change(|chain| chain.pay(&script, 1_000_000));
    server.change(|chain| chain.mine(6));
    client.utxos_when("a confirmed coin", confirmed).await;
    let mut rig = Rig { daemon: Some(daemon), home, client };
    rig.make().await;
    rig
}

fn confirmed(coins: &[Value]) -> bool {
    coins.iter().any(|coin| coin["confirmations"].as_u64() >= Some(5))
}

struct Rig {
    daemon: Option<Daemon>,
    home: Home,
    client: Client,
}

impl Rig {
    async fn make(&mut self) {
        let terms = json!({"txfee": "0", "cjfee_a": "250", "cjfee_r": "0",
            "ordertype": "sw0absoffer", "minsize": "100000"});
        self.client.wallet_post("/maker/start", terms).await.expect(202);
        is_kept(&self.home).await;
    }

    async fn power_cut(&mut self) {
        self.daemon.take().unwrap().kill();
        let daemon = self.home.start();
        self.client = daemon.client();
        self.daemon = Some(daemon);
    }

    async fn log_in(&mut self) {
        self.client.unlock("box.jmdat").await;
        // What was not on the disk when the power went is fetched again.
        self.client.utxos_when("a confirmed coin", confirmed).await;
    }

    async fn board(&self) -> Board {
        Board::with_panel(&socket(&self.home)).await
    }

    /// A board is there, and is asked nothing.
    async fn nobody_is_asked(&self) {
        is_forgotten(&self.home).await;
        let status = self.board().await.when("a snapshot", |_| true).await;
        assert_eq!((&status["pending"], &status["locked"]), (&Value::Null, &json!(true)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_ended_does_not_come_back() {
    let (machine, server) = (SealedKey::new(), FakeElectrum::start().unwrap());
    server.change(|chain| chain.mine(20));
    let node = DirectoryNode::start("regtest").unwrap();
    let mut rig = earning(&machine, &server, &node).await;

    // Stopped.
    rig.client.wallet_get("/maker/stop").await.expect(202);
    assert_eq!(kept(&rig.home), None, "by the time of the answer");
    rig.power_cut().await;
    rig.nobody_is_asked().await;

    // Locked.
    rig.log_in().await;
    rig.make().await;
    rig.client.lock().await;
    assert_eq!(kept(&rig.home), None, "by the time of the answer");
    rig.power_cut().await;
    rig.nobody_is_asked().await;

    // An orderly end of the daemon is not a person's word: the maker goes on.
    rig.log_in().await;
    rig.make().await;
    rig.daemon.take().unwrap().stop();
    assert!(kept(&rig.home).is_some());
    let daemon = rig.home.start();
    (rig.client, rig.daemon) = (daemon.client(), Some(daemon));
    let mut board = rig.board().await;
    let pending = board.pending().await;
    assert_eq!((&pending["kind"], &pending["text"]), (&json!("resume"), &json!("box")));
    assert!(pending["expires_s"].is_null() && pending["from"].is_null(), "{pending}");

    // Refused by a hold, although nothing was open.
    board.about("hold", id_of(&pending)).await;
    board.nothing_pending().await;
    is_forgotten(&rig.home).await;
    rig.power_cut().await;
    rig.nobody_is_asked().await;

    // Another press than that for this request, a board that goes away, and one without a panel: it goes on waiting.
    rig.log_in().await;
    rig.make().await;
    rig.power_cut().await;
    let mut board = rig.board().await;
    let first = board.pending().await;
    board.about("press", id_of(&pending)).await;
    board.hello("none").await;
    board.about("press", id_of(&first)).await;
    board.when("still waiting", |status| status["pending"]["id"] == first["id"]).await;
    drop(board);
    let mut board = rig.board().await;
    board.when("still waiting", |status| status["pending"]["id"] == first["id"]).await;
    assert_eq!(session(&rig.client).await["session"], false);

    // The owner opens it with the password instead: that person decides what runs.
    rig.log_in().await;
    board.when("open", |status| status["locked"] == false && status["pending"].is_null()).await;
    board.about("press", id_of(&first)).await;
    let status = board.when("another snapshot", |_| true).await;
    assert_eq!(status["coinjoin_state"], 2);
    assert_eq!(kept(&rig.home), None);
    drop(board);

    // A new password while the maker earns: it is kept with that one.
    rig.make().await;
    let change = json!({"password": PASSWORD, "new_password": "another one"});
    let changed = rig.client.wallet_post("/change-password", change).await.expect(200);
    rig.client.take_tokens(&changed);
    rig.power_cut().await;
    let mut board = rig.board().await;
    let pending = board.pending().await;
    board.about("press", id_of(&pending)).await;
    board.when("the maker runs", |status| status["coinjoin_state"] == 1).await;
    assert_eq!(session(&rig.client).await["maker_only"], true);
    rig.daemon.take().unwrap().stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_key_nothing_is_kept_and_the_password_works() {
    let (machine, server) = (SealedKey::new(), FakeElectrum::start().unwrap());
    server.change(|chain| chain.mine(20));
    let node = DirectoryNode::start("regtest").unwrap();
    let mut rig = earning(&machine, &server, &node).await;

    // The card in another machine.
    machine.move_to_another_machine();
    rig.power_cut().await;
    rig.nobody_is_asked().await;
    rig.log_in().await;

    // A damaged file.
    rig.make().await;
    let path = kept(&rig.home).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    rig.power_cut().await;
    rig.nobody_is_asked().await;
    rig.log_in().await;

    // The wallet file was replaced by an older one, with another password key: found out after the press.
    rig.make().await;
    let wallet = rig.home.data().join("wallets/box.jmdat");
    let change = json!({"password": PASSWORD, "new_password": "another one"});
    let old = std::fs::read(&wallet).unwrap();
    let changed = rig.client.wallet_post("/change-password", change).await.expect(200);
    rig.client.take_tokens(&changed);
    rig.daemon.take().unwrap().kill();
    std::fs::write(&wallet, old).unwrap();
    let daemon = rig.home.start();
    (rig.client, rig.daemon) = (daemon.client(), Some(daemon));
    let mut board = rig.board().await;
    let pending = board.pending().await;
    board.about("press", id_of(&pending)).await;
    is_forgotten(&rig.home).await;
    let status = board.when("another snapshot", |status| status["pending"].is_null()).await;
    assert_eq!(status["locked"], true);
    drop(board);
    rig.log_in().await;

    // No key at all: earning works, and nothing is kept.
    rig.make().await;
    std::fs::write(machine.given().join("joinery.resume"), "-").unwrap();
    rig.power_cut().await;
    rig.nobody_is_asked().await;
    assert!(rig.home.log_text().contains("the credential joinery.resume was not made"));
    rig.log_in().await;
    let terms = json!({"txfee": "0", "cjfee_a": "250", "cjfee_r": "0",
        "ordertype": "sw0absoffer", "minsize": "100000"});
    rig.client.wallet_post("/maker/start", terms).await.expect(202);
    rig.client.wallet_get("/maker/stop").await.expect(202);
    assert_eq!(kept(&rig.home), None);
    rig.daemon.take().unwrap().stop();

    // Switched off after it was on: what was kept goes at the next start.
    std::fs::write(rig.home.data().join("wallets/.box.jmdat.resume"), "anything").unwrap();
    let home = home_with_board(rig.home, "resume = false");
    let daemon = home.start();
    assert_eq!(kept(&home), None);
    daemon.stop();
}
