//! The engine against a server that lies, fails or overwhelms (`spec/wallet.md` 15 item 8, `defects.md` 22,
//! 33, 38): nothing false reaches the wallet, nothing true is lost, and once the server is honest all is well.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

mod support;

use std::time::{Duration, Instant};

use bdk_wallet::bitcoin::consensus::encode::serialize_hex;
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::{OutPoint, Txid};
use joinery_net::ElectrumEngine;
use joinery_testkit::fake_electrum::{FakeElectrum, Fault, Reply};
use joinery_testkit::{PATIENCE, wait_until};
use joinery_wallet::chain::{BroadcastError, ChainError, ChainSource};
use serde_json::json;
use support::{TestWallet, ask, await_status, config, engine, script, scripts};

/// A server with a confirmed and an unconfirmed payment, on top of a few blocks.
fn server() -> (FakeElectrum, Txid, Txid) {
    let server = FakeElectrum::start().unwrap();
    let (old, new) = server.change(|chain| {
        chain.mine(20);
        let old = chain.pay(&script(1), 1_000).compute_txid();
        chain.mine(4);
        (old, chain.pay(&script(2), 2_000).compute_txid())
    });
    (server, old, new)
}

/// Starts an engine against a server that lies from the beginning; the lie must be noticed, nothing must be
/// reported, and the truth must arrive when the server has become honest.
fn noticed_and_survived(fault: &Fault, reason: &str) {
    let (server, old, new) = server();
    server.lie(fault.clone());
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_error(&engine, &format!("{fault:?} is noticed"), reason);
    wallet.pump();
    // A transaction of the mempool has nothing that could be proven.
    assert!(wallet.height_of(old).is_none(), "{fault:?}");
    assert_eq!(wallet.caught_up, None, "{fault:?}");
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!((wallet.height_of(old), wallet.height_of(new)), (Some(21), Some(0)), "{fault:?}");
}

/// The lie begins when the wallet is in step; its view must stay as it is.
fn view_stays(fault: &Fault, reason: &str, provoke: impl FnOnce(&FakeElectrum)) {
    let (server, old, new) = server();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(fault.clone());
    provoke(&server);
    wallet.until_error(&engine, &format!("{fault:?} is noticed"), reason);
    wallet.pump();
    assert_eq!((wallet.height_of(old), wallet.height_of(new)), (Some(21), Some(0)), "{fault:?}");
    assert_eq!(wallet.tip.map(|tip| tip.height), Some(24), "{fault:?}");
    server.honest();
    wallet.caught_up = None;
    server.change(|chain| chain.mine(2));
    wallet.until("the truth", |w| w.tip.is_some_and(|tip| tip.height >= 26));
    wallet.until("confirmed", |wallet| wallet.height_of(new).is_some_and(|height| height > 24));
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn wrong_transaction_for_a_txid() {
    noticed_and_survived(&Fault::WrongTransaction, "another transaction than");
    noticed_and_survived(&Fault::UnparsableTransaction, "another transaction than");
}

#[test]
fn wrong_merkle_proof() {
    noticed_and_survived(&Fault::WrongMerkleProof, "does not prove");
}

#[test]
fn merkle_proof_of_another_position_or_too_deep() {
    noticed_and_survived(&Fault::WrongMerklePosition, "does not prove");
    noticed_and_survived(&Fault::DeepMerkleProof(60), "does not prove");
}

/// A branch tells of the transactions beside it. A liar can name any; it must not confirm them.
#[test]
fn transaction_that_is_not_in_the_block_is_not_confirmed_as_a_neighbour() {
    // Whether the branch of the true one lies as well.
    for both in [false, true] {
        let (server, old, new) = server();
        let (foreign, reward) = server.change_silently(|chain| {
            let foreign = chain.pay(&script(3), 9_000);
            chain.evict(&foreign.compute_txid());
            (foreign, chain.block(21).unwrap().txdata[0].compute_txid())
        });
        let (txid, hex) = (foreign.compute_txid(), serialize_hex(&foreign));
        let hash = joinery_testkit::script_hash(&script(3));
        let status = sha256::Hash::hash(format!("{txid}:21:").as_bytes());
        server.answer_with(move |request| {
            let first = &request.params[0];
            let result = match request.method.as_str() {
                "blockchain.scripthash.subscribe" if *first == json!(hash) => json!(status),
                "blockchain.scripthash.get_history" if *first == json!(hash) => {
                    json!([{"tx_hash": txid, "height": 21}])
                }
                "blockchain.transaction.get" if *first == json!(txid) => json!(hex),
                "blockchain.transaction.get_merkle" if *first == json!(txid) => {
                    json!({"block_height": 21, "pos": 0, "merkle": [old]})
                }
                "blockchain.transaction.get_merkle" if *first == json!(old) => {
                    let beside = if both { txid } else { reward };
                    json!({"block_height": 21, "pos": 1, "merkle": [beside]})
                }
                _ => return None,
            };
            Some(Reply::Result(result))
        });
        let engine = engine(&server.url());
        let mut wallet = TestWallet::new(&engine, scripts(0..5));
        wallet.until_error(&engine, "noticed", "does not prove");
        wallet.pump();
        assert_eq!(wallet.height_of(txid), None);
        assert!(!wallet.histories.contains_key(&script(3)));
        assert!(!both || wallet.height_of(old).is_none());
        server.honest();
        wallet.until_caught_up(0);
        assert_eq!((wallet.height_of(old), wallet.height_of(new)), (Some(21), Some(0)));
        assert_eq!(wallet.height_of(txid), None);
    }
}

#[test]
fn headers_without_work_or_link() {
    noticed_and_survived(&Fault::BadProofOfWork { from: 10 }, "no proof of work");
    view_stays(&Fault::BadProofOfWork { from: 25 }, "no proof of work", |server| {
        server.change_silently(|chain| chain.mine(1));
        server.change(|chain| chain.mine(1));
    });
}

/// The notification is only a hint; the headers that are fetched and verified count.
#[test]
fn tip_that_links_to_nothing_is_not_believed() {
    let (server, old, _) = server();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(Fault::UnlinkedTip);
    server.change(|chain| chain.mine(1));
    wallet.until("the next block", |w| w.tip.is_some_and(|tip| tip.height == 25));
    let honest = server.change_silently(|chain| chain.block(25).unwrap().block_hash());
    assert_eq!(wallet.tip.map(|tip| tip.hash), Some(honest));
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn headers_of_another_branch_prove_nothing() {
    noticed_and_survived(&Fault::ForkedHeaders { from: 15 }, "does not prove");
}

#[test]
fn invented_history_is_not_reported() {
    let (server, old, new) = server();
    server.lie(Fault::InventedHistory { extra: 2 });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_error(&engine, "noticed", "not to be had");
    // What is true of it may be told, but not the history.
    assert!(wallet.histories.is_empty());
    assert_eq!(wallet.caught_up, None);
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!((wallet.height_of(old), wallet.height_of(new)), (Some(21), Some(0)));
    assert_eq!(wallet.histories.len(), 2);
}

#[test]
fn history_that_belies_its_status_is_not_reported() {
    noticed_and_survived(&Fault::HistoriesBelieStatus { keep: 0 }, "announced status");
}

#[test]
fn shrunk_history_comes_back_with_the_truth() {
    let (server, old, _) = server();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(Fault::ShrunkHistories { keep: 0 });
    wallet.until("the lie", |wallet| wallet.histories[&script(1)].is_empty());
    // The proof that was given for it stays a proof.
    assert_eq!(wallet.height_of(old), Some(21));
    server.honest();
    wallet.until("the truth", |wallet| wallet.histories[&script(2)].len() == 1);
    wallet.until("visible", |wallet| wallet.histories[&script(1)].len() == 1);
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn lower_tip_keeps_ours_until_the_server_has_caught_up() {
    let (server, old, _) = server();
    let first = engine(&server.url());
    let mut wallet = TestWallet::new(&first, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(Fault::LowerTip { by: 6 });
    server.disconnect_all();
    await_status(&first, "behind", |status| {
        status.last_error.as_deref().is_some_and(|error| error.contains("behind block 24"))
    });
    wallet.pump();
    assert_eq!(wallet.tip.map(|tip| tip.height), Some(24));
    assert_eq!(first.status().borrow().tip.map(|tip| tip.height), Some(24));
    assert_eq!(wallet.height_of(old), Some(21));

    // A daemon that starts against it waits as well.
    let kept = wallet.keep();
    drop(first);
    let second = engine(&server.url());
    let mut wallet = TestWallet::resume(&second, kept);
    await_status(&second, "behind", |status| {
        status.last_error.as_deref().is_some_and(|error| error.contains("behind block 24"))
    });
    wallet.pump();
    assert_eq!((wallet.updates, wallet.caught_up), (0, None));
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
    assert_eq!(second.status().borrow().last_error, None);
}

#[test]
fn another_network_is_never_synced() {
    let (server, ..) = server();
    server.answer_with(|request| {
        (request.method == "server.features").then(|| {
            Reply::Result(json!({
                "genesis_hash": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
            }))
        })
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    await_status(&engine, "refused", |status| {
        status.last_error.as_deref().is_some_and(|error| error.contains("another network"))
    });
    wallet.until("told", |wallet| !wallet.disconnected.is_empty());
    assert_eq!(wallet.updates, 0);
    assert_eq!(
        server.count("blockchain.scripthash.subscribe"),
        0,
        "our scripts are not shown to it"
    );
}

/// Resident memory of this process in bytes.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn endless_and_gigabyte_lines_end_the_connection_without_filling_the_memory() {
    let before = memory();
    for method in
        ["server.version", "blockchain.scripthash.subscribe", "blockchain.transaction.get"]
    {
        noticed_and_survived(&Fault::EndlessLine { method: Some(method) }, "line of more than");
        noticed_and_survived(
            &Fault::HugeLine { method: Some(method), bytes: 1 << 30 },
            "line of more than",
        );
    }
    let grown = memory().saturating_sub(before);
    // Not a measurement: a gigabyte would be far beyond, all tests of this file together are far below.
    assert!(grown < 400 << 20, "grown by {grown} bytes");
}

#[test]
fn unasked_endless_line_ends_the_connection() {
    let (server, old, _) = server();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.send_line(&"x".repeat(1 << 20));
    wallet.until("the end", |wallet| !wallet.disconnected.is_empty());
    wallet.caught_up = None;
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn garbage_and_unasked_answers_end_the_connection() {
    noticed_and_survived(&Fault::Garbage, "protocol");
    noticed_and_survived(&Fault::DeepJson(20_000), "protocol");
    noticed_and_survived(&Fault::DeepJson(100_000), "line of more than");
    noticed_and_survived(&Fault::WrongId, "protocol");
}

#[test]
fn answers_that_come_twice_do_no_harm() {
    let (server, old, _) = server();
    server.lie(Fault::Echo);
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn notifications_about_scripts_of_others_are_ignored() {
    let (server, ..) = server();
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    let reports = wallet.reports;
    for number in 0..100_u32 {
        let hash = format!("{number:064x}");
        server.send_line(
            &json!({"method": "blockchain.scripthash.subscribe", "params": [hash, "ab".repeat(32)]})
                .to_string(),
        );
    }
    let txid = server.change(|chain| chain.pay(&script(3), 1_000).compute_txid());
    wallet.until("still at work", |wallet| wallet.height_of(txid) == Some(0));
    assert_eq!(wallet.reports, reports + 1);
    assert!(wallet.disconnected.is_empty());
}

#[test]
fn silence_is_noticed_and_does_not_block_questions() {
    let (server, old, _) = server();
    let mut config = config(&server.url());
    config.timing.answer = Duration::from_millis(700);
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(Fault::Silence { after: 0 });
    let fee = ask(engine.estimate_fee(3));
    assert!(matches!(fee, Err(ChainError::TimedOut | ChainError::Unavailable { .. })), "{fee:?}");
    wallet.until("noticed", |wallet| !wallet.disconnected.is_empty());
    assert!(wallet.disconnected[0].contains("in time"), "{:?}", wallet.disconnected);
    wallet.caught_up = None;
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
}

#[test]
fn refused_history_is_asked_for_again_while_the_rest_goes_on() {
    let (server, old, new) = server();
    let refused = joinery_testkit::script_hash(&script(1));
    server.answer_with(move |request| {
        let concerns = request.method == "blockchain.scripthash.get_history"
            && request.params[0] == json!(refused);
        concerns.then(|| Reply::Error { code: 1, message: "history too large".into() })
    });
    let engine = engine(&server.url());
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until("the others", |wallet| wallet.height_of(new) == Some(0));
    assert_eq!(wallet.height_of(old), None);
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
}

/// Defect 33: a server that resets each connection must not be asked in a busy loop.
#[test]
fn econnreset_backoff() {
    let (server, old, _) = server();
    server.refuse_connections(true);
    let mut config = config(&server.url());
    config.timing.backoff_first = Duration::from_millis(200);
    config.timing.backoff_max = Duration::from_millis(800);
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    let began = Instant::now();
    assert!(wait_until(PATIENCE, || began.elapsed() > Duration::from_secs(3)));
    server.refuse_connections(false);
    server.lie(Fault::DisconnectOn("server.version"));
    assert!(wait_until(PATIENCE, || began.elapsed() > Duration::from_secs(6)));
    // 0.2 + 0.4 + 0.8 + 0.8 ... seconds, less a quarter: 11 attempts in 6 s.
    assert!(server.count("server.version") <= 8, "{}", server.count("server.version"));
    wallet.pump();
    assert_eq!(wallet.disconnected.len(), 1, "told once, not with each attempt");
    server.honest();
    wallet.until_caught_up(0);
    assert_eq!(wallet.height_of(old), Some(21));
}

/// Defect 38.
#[test]
fn fee_floor_and_cap() {
    let (server, ..) = server();
    let engine = engine(&server.url());
    await_status(&engine, "connected", |status| status.connected);
    let estimate = |fault: f64| {
        server.honest();
        server.lie(Fault::EstimateFee(fault));
        ask(engine.estimate_fee(3)).map(|estimate| estimate.sat_per_kvb)
    };
    assert_eq!(estimate(0.000_123_45).unwrap(), Some(12_345));
    assert_eq!(estimate(-1.0).unwrap(), None);
    assert_eq!(estimate(0.0).unwrap(), None);
    assert!(matches!(estimate(1e300), Err(ChainError::Lie { .. })));
    assert!(matches!(estimate(2.0), Err(ChainError::Lie { .. })));
    let floor = |relay: f64| {
        server.honest();
        server.lie(Fault::RelayFee(relay));
        ask(engine.mempool_min_fee())
    };
    assert_eq!(floor(0.000_001).unwrap(), 1_000, "never below one satoshi per vbyte");
    assert_eq!(floor(-1.0).unwrap(), 1_000);
    assert_eq!(floor(0.000_05).unwrap(), 5_000);
    assert!(matches!(floor(1e9), Err(ChainError::Lie { .. })));
    server.honest();
    server.answer_with(|request| {
        (request.method == "mempool.get_fee_histogram")
            .then(|| Reply::Result(json!([[30.0, 90_000_000], [7.5, 20_000_000]])))
    });
    assert_eq!(ask(engine.mempool_min_fee()).unwrap(), 7_500, "a full mempool");
    server.honest();
    server.lie(Fault::ErrorOn {
        method: "blockchain.estimatefee",
        code: 1,
        message: "a\nb".into(),
    });
    assert!(
        matches!(ask(engine.estimate_fee(3)), Err(ChainError::Server { text }) if text == "a?b")
    );
}

#[test]
fn broadcast_tells_sent_refused_and_unknown_apart() {
    let (server, ..) = server();
    let engine = engine(&server.url());
    await_status(&engine, "connected", |status| status.connected);
    let unsent = |satoshi| {
        server.change_silently(|chain| {
            let tx = chain.pay(&script(4), satoshi);
            chain.evict(&tx.compute_txid());
            tx
        })
    };
    let tx = unsent(5_000);
    ask(engine.broadcast(tx.clone())).unwrap();
    assert!(server.change_silently(|c| c.transaction(&tx.compute_txid()).is_some()));
    ask(engine.broadcast(tx.clone())).expect("already known is success");

    let tx = unsent(6_000);
    server.lie(Fault::broadcast_refused("min relay fee not met"));
    let refused = ask(engine.broadcast(tx.clone()));
    assert!(matches!(refused, Err(BroadcastError::Rejected { .. })), "{refused:?}");
    // Refused, but the server has it: sent before, by us or by somebody else.
    server.change_silently(|chain| chain.submit(tx.clone()).unwrap());
    ask(engine.broadcast(tx)).unwrap();

    server.honest();
    let tx = unsent(7_000);
    server.lie(Fault::broadcast_refused("server busy - request timed out"));
    let busy = ask(engine.broadcast(tx.clone()));
    assert!(matches!(busy, Err(BroadcastError::Unknown(ChainError::Server { .. }))), "{busy:?}");
    server.honest();
    server.lie(Fault::BroadcastWrongTxid);
    let lie = ask(engine.broadcast(tx.clone()));
    assert!(matches!(lie, Err(BroadcastError::Unknown(ChainError::Lie { .. }))), "{lie:?}");
    server.honest();
    server.lie(Fault::DisconnectOn("blockchain.transaction.broadcast"));
    let gone = ask(engine.broadcast(tx));
    assert!(matches!(gone, Err(BroadcastError::Unknown(_))), "{gone:?}");
}

#[test]
fn lookups_use_their_own_connection_and_prove_what_can_be_proven() {
    let (server, old, new) = server();
    let engine = engine(&server.url());
    await_status(&engine, "synced", |status| status.tip.is_some());
    let output =
        |txid, vout, number| ask(engine.foreign_output(OutPoint::new(txid, vout), script(number)));
    let found = output(old, 0, 1).unwrap().unwrap();
    assert_eq!((found.value, found.confirmations, found.height), (1_000, 4, Some(21)));
    let found = output(new, 0, 2).unwrap().unwrap();
    assert_eq!((found.value, found.confirmations, found.height), (2_000, 0, None));
    assert_eq!(output(old, 1, 1).unwrap(), None);
    assert_eq!(output(old, 0, 2).unwrap(), None, "another script");
    assert_eq!(ask(engine.transaction(old)).unwrap().unwrap().compute_txid(), old);
    assert_eq!(ask(engine.transaction(Txid::all_zeros())).unwrap(), None);
    let time = server.change_silently(|chain| chain.block(3).unwrap().header.time);
    assert_eq!(ask(engine.block_time(3)).unwrap(), time);

    // The second time nothing is asked.
    server.forget_requests();
    assert!(output(old, 0, 1).unwrap().is_some());
    assert_eq!(output(old, 1, 1).unwrap(), None);
    ask(engine.block_time(3)).unwrap();
    let asked: Vec<_> =
        server.requests().into_iter().filter(|r| r.method != "server.ping").collect();
    assert!(asked.is_empty(), "{asked:?}");

    // With the next block the same output is looked at anew.
    server.change(|chain| chain.mine(1));
    await_status(&engine, "next block", |s| s.tip.is_some_and(|tip| tip.height == 25));
    assert_eq!(output(old, 0, 1).unwrap().unwrap().confirmations, 5);
    let first = server.requests().into_iter().find(|r| r.method.ends_with("listunspent")).unwrap();
    assert_eq!(first.connection, 1, "the wallet's is number 0");

    // The time of a block comes with the proof; of what is deep in the chain only "unspent" is asked again.
    let asked = |height: u32| {
        server.forget_requests();
        server.change(|chain| chain.mine(1));
        await_status(&engine, "next block", |s| s.tip.is_some_and(|tip| tip.height == height));
        let confirmations = output(old, 0, 1).unwrap().unwrap().confirmations;
        assert_eq!(confirmations, height - 20);
        ask(engine.block_time(21)).unwrap();
        let lookups = server.requests().into_iter().filter(|r| r.connection == 1);
        let methods = lookups.map(|r| r.method).filter(|method| method != "server.ping");
        methods.collect::<Vec<_>>()
    };
    let all = [
        "blockchain.scripthash.listunspent",
        "blockchain.transaction.get",
        "blockchain.transaction.get_merkle",
        "blockchain.block.header",
    ];
    assert_eq!(asked(26), all);
    assert_eq!(asked(27), all, "the last time: six blocks are above it");
    assert_eq!(asked(28), all[..1]);
}

#[test]
fn proven_output_that_moves_to_another_block_is_proven_anew() {
    let (server, old, _) = server();
    let engine = engine(&server.url());
    server.change(|chain| chain.mine(10));
    let until = |height: u32| {
        await_status(&engine, "the tip", |s| s.tip.is_some_and(|tip| tip.height == height));
    };
    until(34);
    let output = || ask(engine.foreign_output(OutPoint::new(old, 0), script(1)));
    assert_eq!(output().unwrap().unwrap().height, Some(21));
    server.change(|chain| chain.mine(1));
    until(35);
    server.lie(Fault::WrongTransaction);
    assert!(output().is_ok(), "it is not asked for again");
    server.honest();
    // A reorganisation that deep does not happen by chance; what was proven before counts no more.
    server.change(|chain| chain.reorganise(20));
    until(36);
    server.lie(Fault::WrongTransaction);
    let moved = output();
    assert!(matches!(moved, Err(ChainError::Lie { .. })), "{moved:?}");
    server.honest();
    assert_eq!(output().unwrap().unwrap().height, None);
}

#[test]
fn lookups_are_not_deceived() {
    for fault in
        [Fault::WrongTransaction, Fault::WrongMerkleProof, Fault::BadProofOfWork { from: 21 }]
    {
        let (server, old, _) = server();
        let engine = engine(&server.url());
        await_status(&engine, "synced", |status| status.tip.is_some());
        // One that exists, so that the second connection stands before the lie.
        ask(engine.block_time(1)).unwrap();
        server.lie(fault.clone());
        let output = ask(engine.foreign_output(OutPoint::new(old, 0), script(1)));
        assert!(matches!(output, Err(ChainError::Lie { .. })), "{fault:?} {output:?}");
        server.honest();
        let output = ask(engine.foreign_output(OutPoint::new(old, 0), script(1)));
        assert!(matches!(output, Ok(Some(_))), "{output:?}");
    }
}

#[test]
fn silent_lookup_gives_up_and_leaves_the_wallet_alone() {
    let (server, old, _) = server();
    let mut config = config(&server.url());
    config.timing.lookup = Duration::from_millis(800);
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    server.lie(Fault::SilenceOn("blockchain.scripthash.listunspent"));
    let output = ask(engine.foreign_output(OutPoint::new(old, 0), script(1)));
    assert!(matches!(output, Err(ChainError::TimedOut)), "{output:?}");
    server.lie(Fault::HugeLine { method: Some("blockchain.block.header"), bytes: 1 << 30 });
    let time = ask(engine.block_time(7));
    assert!(matches!(time, Err(ChainError::Unavailable { .. })), "{time:?}");
    let txid = server.change(|chain| chain.pay(&script(3), 1_000).compute_txid());
    wallet.until("the wallet goes on", |wallet| wallet.height_of(txid) == Some(0));
    assert!(wallet.disconnected.is_empty());
}

#[test]
fn nothing_that_is_not_connected_is_asked() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let engine = engine(&format!("tcp://{address}"));
    await_status(&engine, "refused", |status| status.last_error.is_some());
    assert!(matches!(ask(engine.estimate_fee(3)), Err(ChainError::Unavailable { .. })));
    assert!(matches!(ask(engine.mempool_min_fee()), Err(ChainError::Unavailable { .. })));
    assert!(matches!(
        ask(engine.transaction(Txid::all_zeros())),
        Err(ChainError::Unavailable { .. })
    ));
}
