//! The engine against a real bitcoind and electrs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bdk_wallet::bitcoin::{Address, Amount, Network, ScriptBuf, Txid};
use joinery_testkit::{Bench, INITIAL_BLOCKS};
use joinery_wallet::chain::{BroadcastError, ChainSource, TxHeight};
use support::keyed::Keyed;
use support::{TestWallet, ask, await_status, engine, script, scripts};

fn address(number: u32) -> Address {
    Address::from_script(&script(number), Network::Regtest).unwrap()
}

fn url(bench: &Bench) -> String {
    format!("tcp://{}", bench.electrum_addr())
}

fn height(bench: &Bench) -> u32 {
    u32::try_from(bench.height().unwrap()).unwrap()
}

#[test]
fn payments_are_seen_confirmed_reorganised_and_replaced() {
    let bench = Bench::start().unwrap();
    let old = bench.fund_confirmed(&address(0), Amount::from_sat(70_000)).unwrap();
    let engine = engine(&url(&bench));
    let mut wallet = TestWallet::new(&engine, scripts(0..300));
    wallet.until_caught_up(0);
    let start = u32::try_from(INITIAL_BLOCKS).unwrap() + 1;
    assert_eq!(wallet.height_of(old), Some(start));
    assert_eq!(wallet.tip.map(|tip| tip.hash), Some(bench.tip().unwrap()));

    // Seen in the mempool, then confirmed.
    let txid = bench.fund(&address(1), Amount::from_sat(80_000)).unwrap();
    wallet.until("seen", |wallet| wallet.height_of(txid) == Some(0));
    bench.mine(1, None).unwrap();
    wallet.until("confirmed", |wallet| wallet.height_of(txid) == Some(start + 1));

    // Reorganisations: unconfirmed, then confirmed in another block.
    for depth in [3, 10] {
        bench.mine(depth - 1, None).unwrap();
        wallet.until("in step", |w| w.tip.is_some_and(|tip| tip.height == height(&bench)));
        let before = wallet.height_of(txid);
        assert!(before.is_some_and(|height| height > 0));
        let replaced = bench.height().unwrap() - u64::from(before.unwrap()) + 1;
        bench.reorg(replaced).unwrap();
        wallet.until("unconfirmed", |wallet| wallet.height_of(txid) == Some(0));
        assert_eq!(wallet.height_of(old), Some(start));
        bench.mine(1, None).unwrap();
        let now = height(&bench);
        wallet.until("confirmed again", |wallet| wallet.height_of(txid) == Some(now));
        assert_eq!(wallet.tip.map(|tip| tip.hash), Some(bench.tip().unwrap()));
    }

    // A transaction is replaced by one that pays somebody else.
    let keyed = Keyed::new();
    let coin = bench.fund_many(&[(keyed.script(), Amount::from_sat(100_000))]).unwrap()[0];
    bench.mine(1, None).unwrap();
    let worth = Amount::from_sat(100_000);
    let first = keyed.spend(coin, worth, script(5), Amount::from_sat(99_000));
    let second = keyed.spend(coin, worth, script(6), Amount::from_sat(90_000));
    ask(engine.broadcast(first.clone())).unwrap();
    wallet.until("ours", |wallet| wallet.height_of(first.compute_txid()) == Some(0));
    ask(engine.broadcast(second.clone())).unwrap();
    wallet.until("replaced", |wallet| wallet.histories[&script(5)].is_empty());
    let now = TxHeight::Unconfirmed;
    wallet.until("the other", |w| {
        w.histories.get(&script(6)).is_some_and(|h| *h == [(second.compute_txid(), now)])
    });
    assert!(wallet.disconnected.is_empty(), "{:?}", wallet.disconnected);

    // Known already, conflicting, and invalid.
    ask(engine.broadcast(second.clone())).unwrap();
    let conflict = ask(engine.broadcast(first));
    assert!(matches!(conflict, Err(BroadcastError::Rejected { .. })), "{conflict:?}");
    let mut forged = second;
    forged.output[0].value = Amount::from_sat(80_000);
    let invalid = ask(engine.broadcast(forged));
    assert!(matches!(invalid, Err(BroadcastError::Rejected { .. })), "{invalid:?}");
}

#[test]
fn electrs_may_restart_and_stall() {
    let bench = Bench::start().unwrap();
    let engine = engine(&url(&bench));
    let mut wallet = TestWallet::new(&engine, scripts(0..250));
    wallet.until_caught_up(0);

    wallet.caught_up = None;
    bench.stop_electrs().unwrap();
    wallet.until("told", |wallet| !wallet.disconnected.is_empty());
    let missed = bench.fund(&address(200), Amount::from_sat(50_000)).unwrap();
    bench.mine(2, None).unwrap();
    bench.start_electrs().unwrap();
    wallet.until_caught_up(0);
    wallet.until("missed", |wallet| wallet.height_of(missed).is_some_and(|height| height > 0));

    // Paused for less than the time that an answer may take: the same connection goes on.
    let losses = wallet.disconnected.len();
    bench.pause_electrs().unwrap();
    let stalled = bench.fund(&address(201), Amount::from_sat(50_000)).unwrap();
    bench.resume_electrs().unwrap();
    wallet.until("after the pause", |wallet| wallet.height_of(stalled) == Some(0));
    assert_eq!(wallet.disconnected.len(), losses);
}

#[test]
fn fees_and_lookups_work_with_electrs() {
    let bench = Bench::start().unwrap();
    let txid = bench.fund_confirmed(&address(3), Amount::from_sat(70_000)).unwrap();
    bench.mine(4, None).unwrap();
    let engine = engine(&url(&bench));
    await_status(&engine, "synced", |status| {
        status.tip.is_some_and(|tip| tip.height == height(&bench))
    });
    assert_eq!(ask(engine.estimate_fee(3)).unwrap().sat_per_kvb, None, "too few transactions");
    assert!(ask(engine.mempool_min_fee()).unwrap() >= 1_000);
    let tx = ask(engine.transaction(txid)).unwrap().unwrap();
    assert_eq!(tx.compute_txid(), txid);
    let vout = tx.output.iter().position(|output| output.script_pubkey == script(3)).unwrap();
    let outpoint = bdk_wallet::bitcoin::OutPoint::new(txid, u32::try_from(vout).unwrap());
    let output = ask(engine.foreign_output(outpoint, script(3))).unwrap().unwrap();
    assert_eq!((output.value, output.confirmations), (70_000, 5));
    let absent = bdk_wallet::bitcoin::OutPoint::new(txid, 77);
    assert_eq!(ask(engine.foreign_output(absent, script(3))).unwrap(), None);
    let unknown: Txid = "11".repeat(32).parse().unwrap();
    assert_eq!(ask(engine.transaction(unknown)).unwrap(), None);
    assert!(ask(engine.block_time(1)).unwrap() > 0);
}

/// Counts requests by method on their way to a server.
struct Counter {
    address: SocketAddr,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Counter {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Mutex<HashMap<String, usize>>>::default();
        let log = Arc::clone(&counts);
        // The threads end with the connections and with the process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, log) = (client.unwrap(), Arc::clone(&log));
                let server = TcpStream::connect(server).unwrap();
                let (mut back_from, mut back_to) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back_from, &mut back_to);
                    let _ = back_to.shutdown(std::net::Shutdown::Both);
                });
                std::thread::spawn(move || {
                    let mut server = server;
                    for line in BufReader::new(client).split(b'\n').map_while(Result::ok) {
                        count(&log, &line);
                        if server.write_all(&[&line, b"\n".as_slice()].concat()).is_err() {
                            break;
                        }
                    }
                    let _ = server.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { address, counts }
    }

    fn of(&self, method: &str) -> usize {
        self.counts.lock().unwrap().get(method).copied().unwrap_or(0)
    }
}

fn count(log: &Mutex<HashMap<String, usize>>, line: &[u8]) {
    let value: serde_json::Value = serde_json::from_slice(line).unwrap();
    let calls = value.as_array().cloned().unwrap_or_else(|| vec![value]);
    for call in calls {
        let method = call["method"].as_str().unwrap().to_owned();
        *log.lock().unwrap().entry(method).or_default() += 1;
    }
}

#[test]
fn thousands_of_scripts_sync_and_a_restart_downloads_nothing() {
    let bench = Bench::start().unwrap();
    let watched = scripts(0..5_000);
    let outputs: Vec<(ScriptBuf, Amount)> =
        watched.iter().map(|script| (script.clone(), Amount::from_sat(20_000))).collect();
    let outpoints = bench.fund_many(&outputs).unwrap();
    bench.mine(1, None).unwrap();
    let first = engine(&url(&bench));
    let mut wallet = TestWallet::new(&first, scripts(0..5_500));
    wallet.until_caught_up(0);
    assert_eq!(wallet.histories.len(), 5_000);
    for outpoint in [outpoints[0], outpoints[4_999]] {
        assert_eq!(wallet.height_of(outpoint.txid), Some(height(&bench)));
    }
    assert_eq!(wallet.progress.last(), Some(&(5_500, 5_500)));
    let kept = wallet.keep();
    drop(first);

    let counter = Counter::before(bench.electrum_addr());
    let second = engine(&format!("tcp://{}", counter.address));
    let mut wallet = TestWallet::resume(&second, kept);
    wallet.until_caught_up(0);
    assert_eq!(counter.of("blockchain.scripthash.subscribe"), 5_500);
    for method in [
        "blockchain.scripthash.get_history",
        "blockchain.transaction.get",
        "blockchain.transaction.get_merkle",
    ] {
        assert_eq!(counter.of(method), 0, "{method}");
    }
}
