//! Transactions that are over are set aside when there are many (`spec/wallet.md` 13.9), and nobody
//! notices.

use std::sync::Arc;

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::service::{OpenOptions, WalletHandle};
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::store::{ChainData, Fact, OwnTxState, Store};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};

use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, spend, until};

const TIP: u32 = 1300;
/// Rounds whose every coin was spent long ago.
const OVER: u32 = 30;
/// Rounds in all: the last ones left a coin, or spent one a moment ago.
const ROUNDS: u32 = 40;

/// Only while no wallet is open.
fn script(rig: &Rig, place: ScriptPlace) -> ScriptBuf {
    rig.keys().master().script_pubkey(&place).expect("derived")
}

fn external(index: u32) -> ScriptPlace {
    ScriptPlace::Ranged { keychain: Keychain { mixdepth: M0, branch: Branch::External }, index }
}

fn internal(index: u32) -> ScriptPlace {
    let keychain = Keychain { mixdepth: Mixdepth(1), branch: Branch::Internal };
    ScriptPlace::Ranged { keychain, index }
}

fn salted(n: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([77; 32]), vout: n }
}

/// A deposit, its way into the next mixdepth, and its way out.
fn round(rig: &Rig, n: u32) -> [Transaction; 3] {
    let deposit = spend(&[salted(n)], &[(script(rig, external(n)), 50_000 + u64::from(n))]);
    let moved = spend(
        &[at(&deposit, 0)],
        &[(foreign(1), 7), (script(rig, internal(n)), 40_000 + u64::from(n))],
    );
    let out = spend(&[at(&moved, 1)], &[(foreign(2), 30_000)]);
    [deposit, moved, out]
}

/// Forty such rounds.
fn history(rig: &Rig) -> Vec<(Transaction, u32)> {
    let mut txs = Vec::new();
    for n in 0..ROUNDS {
        let [deposit, moved, out] = round(rig, n);
        txs.push((deposit, 10 + n));
        txs.push((moved, 60 + n));
        if n < OVER {
            txs.push((out, 110 + n));
        } else if n % 2 == 0 {
            txs.push((out, TIP - 10));
        }
    }
    // A bond that was redeemed, and a coin of the same transaction as one that was spent.
    let bond = script(rig, ScriptPlace::Bond { timenumber: 3 });
    let funded = spend(&[salted(100)], &[(bond, 1_000_000), (script(rig, external(50)), 99)]);
    txs.push((spend(&[at(&funded, 0)], &[(foreign(3), 999_000)]), 200));
    txs.push((funded, 150));
    txs
}

fn options(rig: &Rig, how: As, prune_above: usize) -> OpenOptions {
    OpenOptions { prune_above, ..rig.options(how) }
}

async fn ready(rig: &Rig, how: As, prune_above: usize) -> WalletHandle {
    let options = options(rig, how, prune_above);
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options).await;
    until(&wallet, "caught up", |snapshot| snapshot.sync.complete).await;
    wallet
}

fn stored(rig: &Rig) -> ChainData {
    rig.store.reopen().load_chain().expect("memory").0
}

fn rig() -> Rig {
    let rig = Rig::on(Network::Regtest, WalletType::FidelityBond, 1..=TIP);
    rig.chain.place_all(history(&rig));
    rig
}

/// Mines until the store says so: a compaction that comes while the wallet is behind with its view sets nothing aside.
async fn mine_until(rig: &Rig, wallet: &WalletHandle, done: impl Fn(&ChainData) -> bool) {
    for _ in 0..50 {
        let next = wallet.snapshot().height().map(|height| height + 1);
        rig.chain.mine(&[]);
        rig.chain.look().await;
        until(wallet, "the block", |snapshot| snapshot.height() >= next).await;
        if done(&stored(rig)) {
            return;
        }
    }
    panic!("finished transactions are not set aside");
}

/// What must not change.
fn essence(snapshot: &Snapshot) -> Snapshot {
    Snapshot { revision: 0, ..snapshot.clone() }
}

#[tokio::test]
async fn a_wallet_without_its_finished_transactions_is_the_same() {
    let rig = rig();
    let wallet = ready(&rig, As::Recovered, usize::MAX).await;
    let before = wallet.snapshot();
    assert_eq!(before.coins.len(), 6, "five coins in mixdepth 1, one beside the bond");
    wallet.close().await;
    let everything = stored(&rig);
    assert!(everything.pruned.is_empty());

    rig.store.compact_after(0);
    let wallet = ready(&rig, As::Known, 20).await;
    // The next commit compacts.
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "the block", |snapshot| snapshot.height() == Some(TIP + 1)).await;
    let open = wallet.snapshot();
    wallet.close().await;
    let data = stored(&rig);
    let expected = usize::try_from(3 * OVER + 5 + 5 + 1).expect("small");
    assert_eq!(
        data.pruned.len(),
        expected,
        "whole rounds, deposits of the last ones, the redemption"
    );
    assert_eq!(data.graph.tx_graph.txs.len() + expected, everything.graph.tx_graph.txs.len());
    assert_eq!(open.coins, before.coins);

    // Reopened it serves the same at once, before any server is heard.
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options(&rig, As::Known, 20)).await;
    let served = essence(&wallet.snapshot());
    assert_eq!((&served.coins, &served.accounts), (&open.coins, &open.accounts));
    until(&wallet, "caught up", |snapshot| snapshot.sync.complete).await;
    assert_eq!(wallet.snapshot().accounts, open.accounts);

    // A full scan brings nothing back.
    wallet.rescan(6).await.expect("starts");
    until(&wallet, "scanned", |snapshot| snapshot.sync.scanning.is_none()).await;
    assert_eq!(wallet.snapshot().coins, open.coins);
    assert_eq!(wallet.snapshot().accounts, open.accounts);
    wallet.close().await;
    assert_eq!(stored(&rig).pruned.len(), expected);
    assert_eq!(
        stored(&rig).graph.tx_graph.txs.len() + expected,
        everything.graph.tx_graph.txs.len()
    );
}

/// What bounds the memory of a wallet that makes coinjoins for years.
#[tokio::test]
async fn however_long_the_past_no_more_transactions_are_held_than_the_limit() {
    const LIMIT: usize = 20;
    let rig = Rig::on(Network::Regtest, WalletType::FidelityBond, 1..=TIP);
    ready(&rig, As::Recovered, LIMIT).await.close().await;
    rig.store.compact_after(0);
    let mut count = 0;
    for step in 1..=4 {
        // All of them are deeper than a thousand blocks.
        let new = (count..10 * step).flat_map(|n| {
            let [deposit, moved, out] = round(&rig, n);
            [(deposit, 10 + n), (moved, 60 + n), (out, 110 + n)]
        });
        rig.chain.place_all(new.collect::<Vec<_>>());
        count = 10 * step;
        let wallet = ready(&rig, As::Known, LIMIT).await;
        mine_until(&rig, &wallet, |data| data.graph.tx_graph.txs.len() <= LIMIT).await;
        assert!(wallet.snapshot().coins.is_empty());
        wallet.close().await;
        let data = stored(&rig);
        assert!(data.graph.tx_graph.txs.len() <= LIMIT, "{}", data.graph.tx_graph.txs.len());
        let all = usize::try_from(3 * count).expect("small");
        assert_eq!(data.graph.tx_graph.txs.len() + data.pruned.len(), all, "nothing is lost");
    }
    let wallet = ready(&rig, As::Known, LIMIT).await;
    let next = wallet.issue_address(M0, Branch::External).await.expect("issued").script_pubkey();
    wallet.close().await;
    assert_eq!(next, script(&rig, external(count)), "used addresses stay used");
}

#[tokio::test]
async fn own_transactions_that_are_over_are_forgotten_and_no_others() {
    let rig = rig();
    let [_, over, _] = round(&rig, 0);
    // Its output is spent, but not long ago.
    let [_, recent, _] = round(&rig, ROUNDS - 2);
    let waiting = spend(&[salted(300)], &[(script(&rig, external(51)), 5_000)]);
    let mut facts = Vec::new();
    for (tx, state) in [
        (&over, OwnTxState::Confirmed),
        (&recent, OwnTxState::Confirmed),
        (&waiting, OwnTxState::Broadcast),
    ] {
        let (txid, raw) = (tx.compute_txid(), bdk_wallet::bitcoin::consensus::serialize(tx));
        facts.push(Fact::OwnTransaction { txid, raw, time: 0 });
        facts.push(Fact::OwnTransactionState { txid, state });
    }
    rig.store.reopen().record(&facts).expect("not failing");
    ready(&rig, As::Recovered, 20).await.close().await;
    rig.store.compact_after(0);
    let wallet = ready(&rig, As::Known, 20).await;
    mine_until(&rig, &wallet, |data| !data.pruned.is_empty()).await;
    eventually("what waits is sent again", || !rig.chain.broadcasts().is_empty()).await;
    wallet.close().await;

    let store = rig.store.reopen();
    let left: Vec<Txid> = store.facts().own_txs.keys().copied().collect();
    let mut expected = [recent.compute_txid(), waiting.compute_txid()];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert!(stored(&rig).pruned.contains_key(&over.compute_txid()));
    let sent = rig.chain.broadcasts().iter().map(Transaction::compute_txid).collect::<Vec<_>>();
    assert!(sent.iter().all(|txid| *txid == waiting.compute_txid()));
}

#[tokio::test]
async fn an_address_that_only_finished_transactions_used_still_counts_as_used() {
    let rig = rig();
    ready(&rig, As::Recovered, 20).await.close().await;
    rig.store.compact_after(0);
    let wallet = ready(&rig, As::Known, 20).await;
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "the block", |snapshot| snapshot.height() == Some(TIP + 1)).await;
    wallet.close().await;
    assert!(!stored(&rig).pruned.is_empty());

    let used = script(&rig, external(4));
    let wallet = ready(&rig, As::Known, 20).await;
    let issued = wallet.issue_address(M0, Branch::External).await.expect("issued").script_pubkey();
    assert!((0..=50).all(|n| script_of(&wallet, n) != Some(issued.clone())), "no index goes back");
    let again = spend(&[salted(200)], &[(used, 12_345)]);
    let fresh = spend(&[salted(201)], &[(issued, 12_346)]);
    rig.chain.mine(&[&again, &fresh]);
    rig.chain.look().await;
    let has = |snapshot: &Snapshot, tx| coin(snapshot, at(tx, 0)).is_some();
    let snapshot = until(&wallet, "both", |s| has(s, &again) && has(s, &fresh)).await;
    assert!(coin(&snapshot, at(&again, 0)).expect("there").frozen, "reuse is seen");
    assert!(!coin(&snapshot, at(&fresh, 0)).expect("there").frozen);
    // Its bond is watched for as long as the wallet lives.
    wallet.close().await;
    let wallet = ready(&rig, As::Known, 20).await;
    wallet.close().await;
    assert!(rig.chain.is_watched(&script(&rig, ScriptPlace::Bond { timenumber: 3 })));
}

fn script_of(wallet: &WalletHandle, index: u32) -> Option<ScriptBuf> {
    let snapshot = wallet.snapshot();
    let coin = snapshot.coins.iter().find(|coin| coin.place == external(index))?;
    Some(coin.script.clone())
}

#[tokio::test]
async fn what_was_set_aside_under_another_chain_is_fetched_again() {
    let rig = rig();
    ready(&rig, As::Recovered, 20).await.close().await;
    rig.store.compact_after(0);
    let wallet = ready(&rig, As::Known, 20).await;
    rig.chain.mine(&[]);
    rig.chain.look().await;
    let before = until(&wallet, "the block", |snapshot| snapshot.height() == Some(TIP + 1)).await;
    wallet.close().await;

    let mut data = stored(&rig);
    let (_, first) = data.pruned.iter_mut().next().expect("pruned");
    first.block.hash = BlockHash::from_byte_array([9; 32]);
    rig.store.reopen().compact(&data).expect("memory");
    let wallet = ready(&rig, As::Known, usize::MAX).await;
    assert_eq!(wallet.snapshot().coins, before.coins);
    assert_eq!(wallet.snapshot().accounts, before.accounts);
    let snapshot: Arc<Snapshot> = wallet.snapshot();
    assert_eq!(snapshot.tip.map(|tip| tip.height), Some(TIP + 1));
    wallet.close().await;
    assert!(stored(&rig).pruned.is_empty());
}
