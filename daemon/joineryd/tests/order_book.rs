//! The order book of the real daemon: bonds on a real chain, makers behind a directory that the test scripts, because
//! only such a one relays lies (`spec/protocol.md` 4.8, `spec/roles.md` 7, `spec/api.md` 12).
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf};
use joinery_proto::fidelity_bond::{BondTerms, bond_value};
use joinery_proto::nick::Nick;
use joinery_testkit::{Bench, DirectoryNode, Makers, TestBond, TestMaker};
use serde_json::{Value, json};
use support::{Client, Home, until};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::broadcast;

const HANDSHAKE: u64 = 793;
const DIRECTORY_HANDSHAKE: u64 = 795;
const PRIVATE: u64 = 685;
const PUBLIC: u64 = 687;
/// First of January 2035.
const LOCKTIME: u32 = 2_051_222_400;

fn secret(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number.max(1); 32]).unwrap()
}

/// What the directory does with connections.
#[derive(Default)]
struct Script {
    makers: Vec<TestMaker>,
    connections: AtomicUsize,
    asked: AtomicUsize,
    /// Answers only when told.
    silent: AtomicBool,
    /// Drops every connection at once.
    refuses: AtomicBool,
}

/// A directory in the test's hands: it answers for its makers and relays what the test says.
struct Directory {
    address: String,
    script: Arc<Script>,
    lines: broadcast::Sender<Option<String>>,
}

impl Directory {
    async fn start(makers: Vec<TestMaker>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Script { makers, ..Script::default() });
        let (lines, _) = broadcast::channel(64);
        let (served, relayed) = (Arc::clone(&script), lines.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::SeqCst);
                if !served.refuses.load(Ordering::SeqCst) {
                    let (script, relayed) = (Arc::clone(&served), relayed.subscribe());
                    tokio::spawn(serve(stream, script, relayed));
                }
            }
        });
        Self { address, script, lines }
    }

    /// Relays a public line with whatever sender it claims.
    fn relay(&self, from: &Nick, text: &str) {
        self.lines.send(Some(format!("{from}!PUBLIC!{text}"))).unwrap();
    }

    /// Lets the makers answer whoever asked last.
    fn answer(&self) {
        self.lines.send(Some(String::new())).unwrap();
    }

    /// Ends every connection.
    fn reset(&self) {
        let _ = self.lines.send(None);
    }
}

async fn send(writer: &mut OwnedWriteHalf, kind: u64, line: &str) -> bool {
    let text = format!("{}\r\n", json!({"type": kind, "line": line}));
    writer.write_all(text.as_bytes()).await.is_ok()
}

/// The makers answer a taker.
async fn answer(writer: &mut OwnedWriteHalf, script: &Script, taker: &Nick) {
    for maker in &script.makers {
        send(writer, PRIVATE, &maker.answer(taker)).await;
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    script: Arc<Script>,
    mut relayed: broadcast::Receiver<Option<String>>,
) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut asker = None;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let envelope: Value = serde_json::from_str(&line).unwrap();
                let text = envelope["line"].as_str().unwrap();
                match envelope["type"].as_u64().unwrap() {
                    HANDSHAKE => {
                        let theirs: Value = serde_json::from_str(text).unwrap();
                        assert_eq!(theirs["network"], "regtest");
                        let ours = json!({"app-name": "joinmarket", "directory": true,
                            "location-string": "127.0.0.1:5222", "proto-ver-min": 5, "proto-ver-max": 5,
                            "features": {}, "accepted": true, "nick": "J5dnOOOOOOOOOOOO",
                            "network": "regtest", "motd": "scripted"});
                        send(&mut writer, DIRECTORY_HANDSHAKE, &ours.to_string()).await;
                    }
                    PUBLIC if text.ends_with("!orderbook") => {
                        script.asked.fetch_add(1, Ordering::SeqCst);
                        let taker: Nick = text.split('!').next().unwrap().parse().unwrap();
                        asker = Some(taker);
                        if !script.silent.load(Ordering::SeqCst) {
                            answer(&mut writer, &script, &taker).await;
                        }
                    }
                    _ => {}
                }
            }
            line = relayed.recv() => {
                let Ok(Some(line)) = line else { return };
                match asker {
                    Some(taker) if line.is_empty() => answer(&mut writer, &script, &taker).await,
                    _ => drop(send(&mut writer, PUBLIC, &line).await),
                }
            }
        }
    }
}

async fn book(client: &Client) -> Value {
    client.try_get("/obwatch/orderbook.json").await.unwrap().expect(200)
}

/// The wire form of each maker's offer in the book.
fn terms(book: &Value) -> BTreeMap<String, String> {
    let entries = book["offers"].as_array().unwrap().iter();
    let text = |entry: &Value| {
        let fee = entry["cjfee"].as_str().map_or_else(|| entry["cjfee"].to_string(), str::to_owned);
        format!(
            "{} {} {} {} {} {fee}",
            entry["ordertype"].as_str().unwrap(),
            entry["oid"],
            entry["minsize"],
            entry["maxsize"],
            entry["txfee"]
        )
    };
    entries.map(|entry| (entry["counterparty"].as_str().unwrap().to_owned(), text(entry))).collect()
}

/// What bonds of some makers pay.
fn outputs(bonded: u8) -> Vec<(ScriptBuf, Amount)> {
    let amount = |number: u8| Amount::from_sat(1_000_000 * (u64::from(number) + 1));
    let output = |number| (TestBond::script(&secret(100 + number), LOCKTIME), amount(number));
    (0..bonded).map(output).collect()
}

/// Makers, the first of them with these coins as bonds, and the offer of each nick.
fn makers(coins: &[OutPoint], count: u8) -> (Vec<TestMaker>, BTreeMap<String, String>) {
    let mut offers = BTreeMap::new();
    let makers = (0..count)
        .map(|number| {
            let offer = if number % 3 == 0 {
                format!("sw0absoffer 1 100000 {}0000000 0 500", number + 1)
            } else {
                format!("sw0reloffer 0 100000 {}0000000 0 0.00002", number + 1)
            };
            let bond = coins.get(usize::from(number)).map(|outpoint| TestBond {
                outpoint: *outpoint,
                key: secret(100 + number),
                locktime: LOCKTIME,
            });
            let maker = TestMaker::new(secret(number + 1), &offer, bond);
            offers.insert(maker.nick().to_string(), offer);
            maker
        })
        .collect();
    (makers, offers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn book_is_complete_through_our_own_directory() {
    let bench = Bench::start().unwrap();
    let coins = bench.fund_many(&outputs(10)).unwrap();
    bench.mine(1, None).unwrap();
    let directory = DirectoryNode::start("regtest").unwrap();
    let (makers, expected) = makers(&coins, 20);
    let makers = Makers::start(directory.address(), "regtest", makers).unwrap();
    let home = Home::with_electrum(&bench.endpoints().electrum)
        .argument(&format!("--directory={}", directory.address()));
    home.write_config("[wallet]\nkdf_memory_mib = 19\n[order_book]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = home.start();
    let client = daemon.client();
    let full = until("offers and bonds", || async {
        let book = book(&client).await;
        let bonds = book["fidelitybonds"].as_array().unwrap().len();
        (terms(&book) == expected && bonds == 10).then_some(book)
    })
    .await;
    assert!(full["offers"].as_array().unwrap().iter().all(|offer| offer["signed"] == true));
    let name = directory.address().to_string();
    assert_eq!(full["directory_stats"][&name]["maker_count"], 20);
    // The port for proxies has the same.
    let listening = std::fs::read(home.data().join("listening.json")).unwrap();
    let listening: Value = serde_json::from_slice(&listening).unwrap();
    let url = format!("{}/orderbook.json", listening["order_book"].as_str().unwrap());
    let proxied: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(terms(&proxied), expected);
    // Makers that leave are gone.
    drop(makers);
    until("an empty book", || async { terms(&book(&client).await).is_empty().then_some(()) }).await;
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn makers_and_their_bonds_on_a_real_chain_are_in_the_book() {
    let bench = Bench::start().unwrap();
    let bonded = 5_u8;
    let outputs = outputs(bonded);
    let coins = bench.fund_many(&outputs).unwrap();
    let blocks = bench.mine(3, None).unwrap();
    let block = bench.rpc("getblockheader", &json!([blocks[0]])).unwrap();
    let (makers, expected) = makers(&coins, 2 * bonded);
    let nicks: Vec<Nick> = makers.iter().map(TestMaker::nick).collect();
    let directory = Directory::start(makers).await;
    let home = Home::with_electrum(&bench.endpoints().electrum)
        .argument(&format!("--directory={}", directory.address));
    let begun = Instant::now();
    let mut daemon = home.start();
    let client = daemon.client();

    // No wallet is unlocked, and none is needed.
    let full = until("offers and bonds", || async {
        let book = book(&client).await;
        let bonds = book["fidelitybonds"].as_array().unwrap().len();
        (terms(&book).len() == nicks.len() && bonds == usize::from(bonded)).then_some(book)
    })
    .await;
    assert_eq!(terms(&full), expected);
    let tip = bench.rpc("getbestblockhash", &json!([])).unwrap();
    let tip = bench.rpc("getblockheader", &json!([tip])).unwrap();
    for bond in full["fidelitybonds"].as_array().unwrap() {
        let nick = bond["counterparty"].as_str().unwrap();
        let number = nicks.iter().position(|known| known.to_string() == nick).unwrap();
        let coin = coins[number];
        assert_eq!(bond["utxo"], json!({"txid": coin.txid.to_string(), "vout": coin.vout}));
        let (script, amount) = &outputs[number];
        assert_eq!(bond["script"], json!(script.to_hex_string()));
        assert_eq!(bond["amount"], json!(amount.to_sat()));
        assert_eq!((&bond["utxo_confirmations"], &bond["cert_expiry"]), (&json!(3), &json!(100)));
        let terms = BondTerms {
            amount: *amount,
            confirmation_time: block["time"].as_u64().unwrap(),
            locktime: LOCKTIME.into(),
        };
        assert_eq!(bond["utxo_confirmation_timestamp"], json!(terms.confirmation_time));
        let value = bond_value(&terms, tip["mediantime"].as_u64().unwrap(), 0.015, 1.3);
        let found = bond["bond_value"].as_f64().unwrap();
        assert!(value > 0.0 && (found - value).abs() / value < 1e-9, "{found} {value}");
        let offers = full["offers"].as_array().unwrap();
        let offer = offers.iter().find(|offer| offer["counterparty"] == json!(nick)).unwrap();
        assert_eq!(offer["fidelity_bond_value"], bond["bond_value"]);
    }

    // Lies in public change nothing that a maker signed.
    directory.script.silent.store(true, Ordering::SeqCst);
    let before = directory.script.asked.load(Ordering::SeqCst);
    directory.relay(&nicks[1], "sw0reloffer 0 100000 999999999 0 0.00001!cancel 0");
    until("a dispute", || async {
        let book = book(&client).await;
        assert_eq!(terms(&book), expected);
        let offers = book["offers"].as_array().unwrap();
        (offers.iter().filter(|offer| offer["disputed"] == true).count() == 1).then_some(())
    })
    .await;
    // The maker is asked who is right, and says it.
    until("a question", || async {
        (directory.script.asked.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    directory.script.silent.store(false, Ordering::SeqCst);
    directory.answer();
    until("the dispute's end", || async {
        let book = book(&client).await;
        assert_eq!(terms(&book), expected);
        let offers = book["offers"].as_array().unwrap();
        offers.iter().all(|offer| offer["disputed"] == false).then_some(())
    })
    .await;

    // A directory that resets every connection is not dialled in a hurry, and the API goes on.
    let start = Instant::now();
    let before = directory.script.connections.load(Ordering::SeqCst);
    directory.script.refuses.store(true, Ordering::SeqCst);
    directory.reset();
    until("an empty book", || async { terms(&book(&client).await).is_empty().then_some(()) }).await;
    until("three more attempts", || async {
        let now = directory.script.connections.load(Ordering::SeqCst);
        (now >= before + 3).then_some(())
    })
    .await;
    let attempts = directory.script.connections.load(Ordering::SeqCst) - before;
    // The first pause is half a second at least; a slow machine only makes it fewer.
    let most = start.elapsed().as_millis() / 500 + 1;
    assert!(u128::try_from(attempts).unwrap() <= most, "{attempts} in {:?}", start.elapsed());
    directory.script.refuses.store(false, Ordering::SeqCst);
    until("the book again", || async { (terms(&book(&client).await) == expected).then_some(()) })
        .await;
    let asked = u64::try_from(directory.script.asked.load(Ordering::SeqCst)).unwrap();
    assert!(asked <= 2 + begun.elapsed().as_secs() / 30, "two requests a minute: {asked}");
    daemon.require_running();
    daemon.stop();
}
