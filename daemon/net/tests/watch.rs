//! The engine against an honest fake server: what a wallet hears, when, and at what cost in requests.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

mod support;

use bdk_wallet::bitcoin::consensus::encode::serialize_hex;
use joinery_net::ElectrumEngine;
use joinery_testkit::fake_electrum::{FakeElectrum, Reply};
use joinery_wallet::chain::{ChainSource, TxHeight};
use serde_json::json;
use support::{TestWallet, ask, await_status, config, engine, script, scripts};

const HISTORY: &str = "blockchain.scripthash.get_history";
const GET: &str = "blockchain.transaction.get";
const MERKLE: &str = "blockchain.transaction.get_merkle";
const SUBSCRIBE: &str = "blockchain.scripthash.subscribe";

#[test]
fn first_sync_reports_confirmed_and_unconfirmed_transactions() {
    let server = FakeElectrum::start().unwrap();
    let (old, new) = server.change(|chain| {
        chain.mine(5);
        let old = chain.pay(&script(1), 1_000).compute_txid();
        chain.mine(3);
        (old, chain.pay(&script(2), 2_000).compute_txid())
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..10));
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(6));
    assert_eq!(wallet.height_of(new), Some(0));
    assert_eq!(wallet.histories[&script(1)], [(old, TxHeight::Block(6))]);
    assert_eq!(wallet.histories[&script(2)], [(new, TxHeight::Unconfirmed)]);
    assert_eq!(wallet.reports, 2, "scripts without a history are not asked for one");
    assert_eq!(server.count(HISTORY), 2);
    assert_eq!(wallet.progress.last(), Some(&(10, 10)));
    let tip = engine.status().borrow().tip;
    assert_eq!(tip, wallet.tip);
    assert_eq!(tip.map(|tip| tip.height), Some(8));
    let status = engine.status().borrow().clone();
    assert!(status.connected && status.configured && !status.public_server);
    assert_eq!(status.server.as_deref(), Some("FakeElectrum 1.0"));
    assert_eq!(status.last_error, None);
}

#[test]
fn restart_with_stored_statuses_downloads_no_history() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        for number in 0..50 {
            chain.pay(&script(number), 1_000);
        }
        chain.mine(10);
    });
    let first = engine(&server.url());
    let mut wallet = TestWallet::new(&first, scripts(0..500));
    wallet.until_caught_up(0);
    let (count, kept) = (wallet.transactions(), wallet.keep());
    assert_eq!(count, 50);
    drop(first);

    server.forget_requests();
    let second = engine(&server.url());
    let mut wallet = TestWallet::resume(&second, kept);
    wallet.until_caught_up(0);
    assert_eq!(wallet.transactions(), 50);
    assert_eq!(server.count(SUBSCRIBE), 500);
    for method in [HISTORY, GET, MERKLE] {
        assert_eq!(server.count(method), 0, "{method}");
    }
}

#[test]
fn news_cost_one_history_one_transaction_and_one_proof() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| chain.mine(3));
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..20));
    wallet.until_caught_up(0);
    server.forget_requests();
    let txid = server.change(|chain| chain.pay(&script(7), 5_000).compute_txid());
    wallet.until("seen", |wallet| wallet.height_of(txid) == Some(0));
    assert_eq!((server.count(HISTORY), server.count(GET), server.count(MERKLE)), (1, 1, 0));
    server.change(|chain| chain.mine(1));
    wallet.until("confirmed", |wallet| wallet.height_of(txid) == Some(4));
    assert_eq!((server.count(HISTORY), server.count(GET), server.count(MERKLE)), (2, 1, 1));
    server.change(|chain| chain.mine(1));
    wallet.until("a block without news", |wallet| wallet.tip.is_some_and(|t| t.height == 5));
    assert_eq!((server.count(HISTORY), server.count(GET), server.count(MERKLE)), (2, 1, 1));
}

/// electrs reads a whole block for each proof; neighbours in a block are proven by the same branch.
#[test]
fn neighbours_in_a_block_cost_a_quarter_of_the_proofs() {
    let server = FakeElectrum::start().unwrap();
    let paid: Vec<_> = server.change(|chain| {
        let paid = (0..40).map(|n| chain.pay(&script(1), 1_000 + n).compute_txid()).collect();
        chain.mine(1);
        paid
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert!(paid.iter().all(|txid| wallet.height_of(*txid) == Some(1)));
    assert_eq!(wallet.transactions(), 40);
    // Places 1, 5 ... 37 tell of 0 to 39; one is left.
    assert_eq!(server.count(MERKLE), 11);
}

/// In a block with transactions of others in between a branch tells nothing more: two rounds of questions.
#[test]
fn scattered_transactions_of_a_block_are_proven_one_by_one() {
    let server = FakeElectrum::start().unwrap();
    let paid: Vec<_> = server.change(|chain| {
        let mut paid = Vec::new();
        for number in 0..12_u64 {
            paid.push(chain.pay(&script(1), 1_000 + number).compute_txid());
            for foreign in 0..4 {
                chain.pay(&script(90), 10_000 + number * 10 + foreign);
            }
        }
        chain.mine(1);
        paid
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert!(paid.iter().all(|txid| wallet.height_of(*txid) == Some(1)));
    assert_eq!(server.count(MERKLE), 12);
}

/// Differences of protocol 1.6 that concern us (`spec/wallet.md` 13.7).
#[test]
fn server_of_protocol_1_6_is_understood() {
    let server = FakeElectrum::start().unwrap();
    let (paid, headers) = server.change(|chain| {
        chain.mine(5);
        let paid = chain.pay(&script(1), 1_000).compute_txid();
        chain.mine(2);
        let headers: Vec<String> =
            (0..=7).map(|height| serialize_hex(&chain.block(height).unwrap().header)).collect();
        (paid, headers)
    });
    server.answer_with(move |request| match request.method.as_str() {
        "server.version" => {
            assert_eq!(request.params[1], json!(["1.4", "1.6"]), "a range is offered");
            Some(Reply::Result(json!(["FakeElectrum 2.0", "1.6"])))
        }
        "blockchain.block.headers" => {
            let start = usize::try_from(request.params[0].as_u64()?).ok()?;
            let count = usize::try_from(request.params[1].as_u64()?).ok()?;
            let list: Vec<_> = headers.iter().skip(start).take(count).collect();
            Some(Reply::Result(json!({"count": list.len(), "headers": list, "max": 2016})))
        }
        "mempool.get_info" => Some(Reply::Result(json!({
            "mempoolminfee": 0.000_042, "minrelaytxfee": 0.000_01, "incrementalrelayfee": 0.000_01
        }))),
        // No longer there.
        "blockchain.relayfee" => {
            Some(Reply::Error { code: -32601, message: "unknown method".into() })
        }
        _ => None,
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(paid), Some(6));
    assert_eq!(ask(engine.mempool_min_fee()).unwrap(), 4_200);
    assert_eq!(server.count("blockchain.relayfee"), 0);
}

#[test]
fn servers_of_older_protocols_are_refused() {
    let server = FakeElectrum::start().unwrap();
    server.answer_with(|request| {
        (request.method == "server.version")
            .then(|| Reply::Result(json!(["FakeElectrum 0.1", "1.2"])))
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_error(&engine, "refused", "older than 1.4");
    assert_eq!(server.count(SUBSCRIBE), 0);
}

#[test]
fn commands_raise_the_generation_that_is_caught_up_with() {
    let server = FakeElectrum::start().unwrap();
    let txid = server.change(|chain| {
        let txid = chain.pay(&script(50), 1_000).compute_txid();
        chain.mine(2);
        txid
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..10));
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(txid), None);
    wallet.watch(scripts(10..60));
    wallet.watch(scripts(60..61));
    wallet.until_caught_up(2);
    assert_eq!(wallet.height_of(txid), Some(1));

    server.forget_requests();
    let reports = wallet.reports;
    wallet.rescan();
    wallet.until_caught_up(3);
    assert_eq!(server.count(SUBSCRIBE), 61);
    assert_eq!(server.count(HISTORY), 1, "only the script that has a history");
    assert_eq!(server.count(GET), 0);
    assert_eq!(wallet.reports, reports + 1);
}

#[test]
fn many_transactions_come_in_pieces_of_bounded_size() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        for number in 0..300 {
            chain.pay_many(&[(script(number), 1_000), (script(number + 1), 2_000)]);
            if number % 50 == 49 {
                chain.mine(1);
            }
        }
        // All on one script, more than a piece holds.
        let outputs: Vec<_> = (0..3).map(|satoshi| (script(1000), 700 + satoshi)).collect();
        for _ in 0..600 {
            chain.pay_many(&outputs);
        }
        chain.mine(1);
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..1001));
    wallet.until_caught_up(0);
    assert_eq!(wallet.transactions(), 900);
    assert_eq!(wallet.histories[&script(1000)].len(), 600);
    assert!(wallet.updates >= 2 && wallet.largest <= 500, "{} {}", wallet.updates, wallet.largest);
    assert_eq!(server.count(GET), 900, "each transaction once");
}

#[test]
fn reorganisations_of_any_depth_unconfirm_and_reconfirm() {
    for depth in [1, 3, 10, 30] {
        let server = FakeElectrum::start().unwrap();
        let (deep, txid) = server.change(|chain| {
            let deep = chain.pay(&script(1), 1_000).compute_txid();
            chain.mine(5);
            let txid = chain.pay(&script(2), 1_000).compute_txid();
            chain.mine(depth);
            (deep, txid)
        });
        let engine = engine(&server.url());
        let mut wallet = TestWallet::new(&engine, scripts(0..5));
        wallet.until_caught_up(0);
        assert_eq!(wallet.height_of(txid), Some(6));
        server.change(|chain| chain.reorganise(depth));
        wallet.until("unconfirmed", |wallet| wallet.height_of(txid) == Some(0));
        wallet.until("new tip", |w| w.tip.is_some_and(|tip| tip.height == 6 + depth));
        assert_eq!(wallet.height_of(deep), Some(1));
        server.change(|chain| chain.mine(1));
        wallet.until("confirmed again", |wallet| wallet.height_of(txid) == Some(7 + depth));
        assert!(wallet.disconnected.is_empty(), "{:?}", wallet.disconnected);
    }
}

/// The status of a script names heights and not blocks, so it says nothing when a transaction moves from one
/// block to another of the same height.
#[test]
fn transaction_that_keeps_its_height_in_a_reorganisation_stays_confirmed() {
    let server = FakeElectrum::start().unwrap();
    let tx = server.change(|chain| {
        chain.mine(5);
        let tx = chain.pay(&script(1), 1_000);
        chain.mine(2);
        tx
    });
    let txid = tx.compute_txid();
    let first = engine(&server.url());
    let mut wallet = TestWallet::new(&first, scripts(0..5));
    wallet.until_caught_up(0);
    let replace = |server: &FakeElectrum, tx: &bdk_wallet::bitcoin::Transaction| {
        let depth = server.change_silently(|chain| chain.height()) - 5;
        server.change(|chain| {
            chain.roll_back(depth);
            chain.evict(&tx.compute_txid());
            chain.mine_with(vec![tx.clone()]);
            chain.mine(depth);
        });
    };
    replace(&server, &tx);
    wallet.until("new branch", |w| w.tip.is_some_and(|tip| tip.height == 8));
    wallet.until("proven anew", |wallet| wallet.height_of(txid) == Some(6));

    // The same while nobody is connected.
    let kept = wallet.keep();
    drop(first);
    replace(&server, &tx);
    let second = engine(&server.url());
    let mut wallet = TestWallet::resume(&second, kept);
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(txid), Some(6));
    assert_eq!(wallet.tip.map(|tip| tip.height), Some(9));
}

#[test]
fn transaction_that_a_reorganisation_forgets_leaves_the_history() {
    let server = FakeElectrum::start().unwrap();
    let txid = server.change(|chain| {
        chain.mine(5);
        let txid = chain.pay(&script(1), 1_000).compute_txid();
        chain.mine(2);
        txid
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(txid), Some(6));
    server.change(|chain| chain.reorganise_and_forget(2));
    // The news of the script may come before the news of the blocks; until those come the old block counts.
    wallet.until("gone", |wallet| {
        wallet.histories[&script(1)].is_empty() && wallet.height_of(txid).is_none()
    });
    assert_eq!(wallet.statuses[&script(1)], None);
}

#[test]
fn replaced_and_evicted_transactions_leave_the_history() {
    let server = FakeElectrum::start().unwrap();
    let tx = server.change(|chain| {
        chain.mine(5);
        chain.pay(&script(1), 1_000)
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    let mut other = tx.clone();
    other.output[0].value -= bdk_wallet::bitcoin::Amount::from_sat(100);
    let new = other.compute_txid();
    server.change(|chain| chain.submit(other).unwrap());
    wallet.until("replaced", |w| w.histories[&script(1)] == [(new, TxHeight::Unconfirmed)]);
    server.change(|chain| chain.evict(&new));
    wallet.until("dropped", |wallet| wallet.histories[&script(1)].is_empty());
}

#[test]
fn every_script_is_subscribed_again_after_a_reconnect() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| chain.mine(3));
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..300));
    wallet.until_caught_up(0);
    wallet.caught_up = None;
    server.forget_requests();
    server.refuse_connections(true);
    server.disconnect_all();
    wallet.until("told of the loss", |wallet| !wallet.disconnected.is_empty());
    await_status(&engine, "not connected", |status| !status.connected);
    let missed = server.change(|chain| chain.pay(&script(200), 9_000).compute_txid());
    server.refuse_connections(false);
    wallet.until("what was missed", |wallet| wallet.height_of(missed) == Some(0));
    wallet.until_caught_up(0);
    assert_eq!(server.count(SUBSCRIBE), 300);
    let later = server.change(|chain| chain.pay(&script(299), 9_000).compute_txid());
    wallet.until("notifications work", |wallet| wallet.height_of(later) == Some(0));
}

#[test]
fn disconnect_during_subscription_and_download_is_survived() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        for number in 0..400 {
            chain.pay(&script(number), 1_000);
        }
        chain.mine(2);
    });
    // Each connection dies after so many answers; the work gets done nevertheless, in smaller pieces.
    server.lie(joinery_testkit::fake_electrum::Fault::DisconnectAfter { answers: 700 });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..400));
    wallet.until("something", |wallet| wallet.disconnected.len() > 1);
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!(wallet.transactions(), 400);
}

#[test]
fn wallet_that_does_not_read_blocks_neither_questions_nor_its_successor() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        for number in 0..20 {
            chain.pay_many(&vec![(script(number), 1_000); 5]);
        }
        chain.mine(1);
    });
    let engine = engine(&server.url());
    await_status(&engine, "connected", |status| status.connected);
    let mut first = TestWallet::new(&engine, scripts(0..20));
    for _ in 0..30 {
        // Each block is news; the queue fills, because nobody reads.
        server.change(|chain| chain.mine(1));
    }
    let fee = ask(engine.estimate_fee(3));
    assert!(fee.is_ok(), "{fee:?}");
    let mut second = TestWallet::new(&engine, scripts(0..20));
    second.until_caught_up(0);
    assert_eq!(second.transactions(), 20);
    assert!(joinery_testkit::wait_until(joinery_testkit::PATIENCE, || first.is_over()));
}

#[test]
fn what_was_not_told_when_the_connection_ended_is_downloaded_again() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| chain.mine(5));
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    // Nobody reads, so that the queue is full at some time and the engine holds a deposit in its hand.
    let downloads = || server.count("blockchain.transaction.get");
    let mut paid = Vec::new();
    loop {
        let before = downloads();
        paid.push(server.change(|chain| chain.pay(&script(1), 1_000).compute_txid()));
        let short = std::time::Duration::from_millis(500);
        if !joinery_testkit::wait_until(short, || downloads() > before) {
            break;
        }
    }
    assert!(paid.len() > 2, "the queue holds more than one update");
    server.disconnect_all();
    await_status(&engine, "gone", |status| !status.connected);
    wallet.until("every deposit", |wallet| {
        paid.iter().all(|txid| wallet.height_of(*txid) == Some(0))
    });
}

#[test]
fn dropping_the_engine_ends_its_connections() {
    let server = FakeElectrum::start().unwrap();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..3));
    wallet.until_caught_up(0);
    assert_eq!(server.connected(), 1, "none for lookups while nobody asks");
    drop(engine);
    assert!(joinery_testkit::wait_until(joinery_testkit::PATIENCE, || server.connected() == 0));
    assert!(joinery_testkit::wait_until(joinery_testkit::PATIENCE, || wallet.is_over()));
}

#[test]
fn forgotten_subscription_is_found_by_the_periodic_recheck() {
    let server = FakeElectrum::start().unwrap();
    let mut config = config(&server.url());
    config.timing.recheck = std::time::Duration::from_millis(500);
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..3));
    wallet.until_caught_up(0);
    let txid = server.change_silently(|chain| chain.pay(&script(1), 1_000).compute_txid());
    wallet.until("found", |wallet| wallet.height_of(txid) == Some(0));
}
