//! The bench itself, with a real bitcoind and electrs.

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{Amount, ScriptBuf, WPubkeyHash};
use joinery_testkit::{Bench, INITIAL_BLOCKS, PATIENCE, funds_address, wait_until};

/// Scripts that nobody has the key of.
fn scripts(count: u32) -> Vec<ScriptBuf> {
    (0..count)
        .map(|number| {
            let mut hash = [7; 20];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))
        })
        .collect()
}

#[test]
fn electrs_follows_funding_mining_and_reorganisation() {
    let bench = Bench::start().unwrap();
    assert_eq!(bench.height().unwrap(), INITIAL_BLOCKS);
    let script = &scripts(1)[0];
    let address =
        bdk_wallet::bitcoin::Address::from_script(script, bdk_wallet::bitcoin::Network::Regtest)
            .unwrap();

    let txid = bench.fund(&address, Amount::from_sat(123_456)).unwrap();
    assert_eq!(bench.mempool().unwrap(), [txid]);
    bench.await_transaction(script, txid).unwrap();
    assert!(bench.coins_of(script).unwrap().is_empty());

    bench.mine(1, None).unwrap();
    assert!(bench.mempool().unwrap().is_empty());
    let coins = bench.coins_of(script).unwrap();
    assert_eq!(coins.len(), 1);
    assert_eq!((coins[0].outpoint.txid, coins[0].amount), (txid, Amount::from_sat(123_456)));
    assert_eq!(coins[0].height, Some(INITIAL_BLOCKS + 1));
    let history = bench.electrum().unwrap().history(script).unwrap();
    assert_eq!(history[0]["height"], INITIAL_BLOCKS + 1);

    let replaced = bench.tip().unwrap();
    let new = bench.reorg(1).unwrap();
    assert_eq!(new.len(), 2);
    assert!(!new.contains(&replaced));
    assert_eq!(bench.mempool().unwrap(), [txid]);
    let history = bench.electrum().unwrap().history(script).unwrap();
    assert_eq!(history[0]["height"], 0, "unconfirmed again: {history:?}");
}

#[test]
fn thousands_of_addresses_are_funded_at_once() {
    let bench = Bench::start().unwrap();
    let scripts = scripts(5_003);
    let outputs: Vec<(ScriptBuf, Amount)> = (10_000..)
        .zip(&scripts)
        .map(|(sats, script)| (script.clone(), Amount::from_sat(sats)))
        .collect();
    let outpoints = bench.fund_many(&outputs).unwrap();
    assert_eq!(outpoints.len(), 5_003);
    assert_eq!(bench.mempool().unwrap().len(), 3);
    bench.mine(1, None).unwrap();
    assert!(bench.mempool().unwrap().is_empty());
    for index in [0, 2_499, 2_500, 5_002] {
        let coins = bench.coins_of(&scripts[index]).unwrap();
        assert_eq!(coins.len(), 1);
        assert_eq!((coins[0].outpoint, coins[0].amount), (outpoints[index], outputs[index].1));
    }
}

#[test]
fn more_payments_than_coins_without_a_block_in_between() {
    let bench = Bench::start().unwrap();
    let script = &scripts(1)[0];
    for _ in 0..60 {
        bench.fund_many(&[(script.clone(), Amount::from_sat(1_000))]).unwrap();
    }
    assert_eq!(bench.mempool().unwrap().len(), 60);
    bench.mine(1, None).unwrap();
    assert_eq!(bench.coins_of(script).unwrap().len(), 60);
    // The height at which subsidies halve for the first time has passed; the bench still has coins to give.
    bench.fund(&funds_address(), Amount::ONE_BTC * 200).unwrap();
}

#[test]
fn electrs_can_be_stopped_paused_and_restarted() {
    let bench = Bench::start().unwrap();
    let address = bench.electrum_addr();
    let mut before = bench.electrum().unwrap();
    let refused = || std::net::TcpStream::connect(address).is_err();

    bench.stop_electrs().unwrap();
    assert!(wait_until(PATIENCE, refused));
    assert!(before.tip().is_err());
    bench.mine(2, None).unwrap();
    bench.start_electrs().unwrap();
    assert_eq!(bench.electrum().unwrap().tip().unwrap().0, INITIAL_BLOCKS + 2);

    bench.pause_electrs().unwrap();
    // The kernel still accepts connections; nobody answers on them.
    let silence = std::time::Duration::from_millis(300);
    assert!(joinery_testkit::Electrum::connect(address, silence).is_err());
    bench.mine(1, None).unwrap();
    bench.resume_electrs().unwrap();
    assert_eq!(bench.electrum().unwrap().tip().unwrap().0, INITIAL_BLOCKS + 3);

    bench.restart_electrs().unwrap();
    assert_eq!(bench.electrum_addr(), address);
    assert_eq!(bench.electrum().unwrap().tip().unwrap().0, INITIAL_BLOCKS + 3);
}

#[test]
fn nothing_is_left_when_a_test_panics() {
    let mut left = None;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let bench = Bench::start().unwrap();
        left = Some((bench.directory().to_owned(), bench.electrum_addr()));
        std::panic::resume_unwind(Box::new("planned"));
    }));
    assert!(outcome.is_err());
    let (directory, electrum) = left.unwrap();
    assert!(!directory.exists());
    assert!(std::net::TcpStream::connect(electrum).is_err());
}
