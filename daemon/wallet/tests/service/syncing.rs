//! Following the chain.

use joinery_wallet::path::ScriptPlace;
use joinery_wallet::service::ServiceError;
use joinery_wallet::store::Fact;
use joinery_wallet::types::{Branch, Keychain, Mixdepth};

use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, out, payment, spend, told, until};

fn external(index: u32) -> ScriptPlace {
    let keychain = Keychain { mixdepth: M0, branch: Branch::External };
    ScriptPlace::Ranged { keychain, index }
}

#[tokio::test]
async fn a_deposit_appears_and_is_told_twice_at_most() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let mut events = wallet.events();
    let tx = payment(1, &[out(&address, 50_000), (foreign(1), 9)]);
    rig.chain.place(&tx, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "pending", |s| s.coins.len() == 1).await;
    assert_eq!(snapshot.coins[0].confirmations(snapshot.height()), 0);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| s.coins[0].confirmations(s.height()) == 1).await;
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "two confirmations", |s| s.coins[0].confirmations(s.height()) == 2).await;
    assert_eq!(told(&mut events), [(tx.compute_txid(), 0), (tx.compute_txid(), 1)]);
}

#[tokio::test]
async fn a_replaced_transaction_gives_way() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let first = payment(1, &[out(&address, 50_000)]);
    let second = payment(1, &[out(&address, 40_000)]);
    rig.chain.place(&first, None);
    rig.chain.look().await;
    until(&wallet, "first", |s| coin(s, at(&first, 0)).is_some()).await;
    rig.chain.forget(first.compute_txid());
    rig.chain.place(&second, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "second", |s| coin(s, at(&second, 0)).is_some()).await;
    assert_eq!(snapshot.coins.len(), 1);
}

#[tokio::test]
async fn a_dropped_transaction_vanishes_and_comes_back_with_its_history() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.place(&tx, None);
    rig.chain.look().await;
    until(&wallet, "seen", |s| s.coins.len() == 1).await;
    for _ in 0..2 {
        rig.chain.hide(tx.compute_txid(), true);
        rig.chain.look().await;
        until(&wallet, "dropped", |s| s.coins.is_empty()).await;
        rig.chain.hide(tx.compute_txid(), false);
        rig.chain.look().await;
        until(&wallet, "back", |s| s.coins.len() == 1).await;
    }
    // The same over a restart between.
    rig.chain.hide(tx.compute_txid(), true);
    rig.chain.look().await;
    until(&wallet, "dropped", |s| s.coins.is_empty()).await;
    wallet.close().await;
    rig.chain.hide(tx.compute_txid(), false);
    let wallet = rig.ready(As::Known).await;
    assert_eq!(wallet.snapshot().coins.len(), 1);
}

#[tokio::test]
async fn confirmed_funds_survive_a_server_that_forgets_them() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "seen", |s| s.coins.len() == 1).await;
    rig.chain.hide(tx.compute_txid(), true);
    let height = rig.chain.mine(&[]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "new block", |s| s.height() == Some(height)).await;
    assert_eq!(snapshot.coins.len(), 1);
}

#[tokio::test]
async fn three_blocks_are_reorganised() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    rig.chain.mine(&[]);
    let height = rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "three confirmations", |s| {
        s.height() == Some(height) && s.coins.iter().all(|c| c.confirmations(s.height()) == 3)
    })
    .await;
    let mut events = wallet.events();
    rig.chain.reorganise(3);
    rig.chain.look().await;
    let snapshot =
        until(&wallet, "unconfirmed", |s| s.coins.len() == 1 && s.coins[0].height.is_none()).await;
    assert_eq!(snapshot.height(), Some(height + 1));
    let block = rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed again", |s| s.coins[0].height == Some(block)).await;
    assert_eq!(told(&mut events), [], "a reorganisation is no news");
    // The fork's loser block is not remembered as true after a restart.
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert_eq!(wallet.snapshot().coins[0].height, Some(block));
}

#[tokio::test]
async fn a_reorganisation_that_loses_a_deposit_takes_it_away() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| s.coins.len() == 1).await;
    rig.chain.reorganise(1);
    rig.chain.forget(tx.compute_txid());
    rig.chain.look().await;
    until(&wallet, "gone", |s| s.coins.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_is_behind_changes_nothing() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    let height = rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "tip", |s| s.height() == Some(height) && s.coins.len() == 1).await;
    let missing = rig.chain.fall_behind(1);
    let other = payment(2, &[out(&address, 60_000)]);
    rig.chain.place(&other, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "news from behind", |s| s.coins.len() == 2).await;
    assert_eq!(snapshot.height(), Some(height));
    rig.chain.catch_up(missing);
    let next = rig.chain.mine(&[&other]);
    rig.chain.look().await;
    let confirmed = |s: &joinery_wallet::snapshot::Snapshot| {
        s.height() == Some(next) && s.coins.iter().all(|coin| coin.height.is_some())
    };
    until(&wallet, "caught up", confirmed).await;
}

#[tokio::test]
async fn what_happened_during_a_disconnection_is_found_afterwards() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.connect(false);
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    // Also an address that is issued meanwhile is watched afterwards.
    let second = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.mine(&[&payment(2, &[out(&second, 60_000)])]);
    rig.chain.connect(true);
    until(&wallet, "both", |s| s.coins.len() == 2).await;
}

#[tokio::test]
async fn spending_elsewhere_with_the_same_seed_is_noticed() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "coin", |s| s.coins.len() == 1).await;
    let mut events = wallet.events();
    let away = spend(&[at(&tx, 0)], &[(foreign(7), 49_000)]);
    rig.chain.place(&away, None);
    rig.chain.look().await;
    until(&wallet, "spent", |s| s.coins.is_empty()).await;
    assert_eq!(told(&mut events), [(away.compute_txid(), 0)], "also without an output to us");
}

#[tokio::test]
async fn the_first_sync_is_silent_and_reported_until_it_is_complete() {
    let rig = Rig::new();
    let donor = rig.ready(As::Fresh).await;
    let address = donor.issue_address(M0, Branch::External).await.expect("issued");
    donor.close().await;
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);

    let mut rig = rig;
    rig.store = joinery_wallet::store::MemoryStore::new();
    rig.chain.connect(false);
    let wallet = rig.open(As::Recovered).await;
    let mut events = wallet.events();
    assert!(wallet.snapshot().sync.scanning.is_some());
    assert!(!wallet.snapshot().sync.ever_complete);
    rig.chain.connect(true);
    let snapshot = until(&wallet, "complete", |s| s.sync.complete).await;
    assert_eq!((snapshot.coins.len(), snapshot.sync.scanning), (1, None));
    assert!(snapshot.sync.ever_complete);
    assert_eq!(told(&mut events), []);
    wallet.close().await;
    rig.chain.connect(false);
    let wallet = rig.open(As::Known).await;
    assert_eq!(wallet.snapshot().coins.len(), 1, "the last state is served without a server");
    assert_eq!(wallet.snapshot().sync.scanning, None);
    assert_eq!(wallet.snapshot().height(), Some(111));
}

#[tokio::test]
async fn a_restart_asks_only_for_what_changed() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.mine(&[&payment(1, &[out(&address, 50_000)])]);
    rig.chain.look().await;
    until(&wallet, "coin", |s| s.coins.len() == 1).await;
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    let watched = rig.chain.watched.lock().expect("not poisoned").clone();
    let status = watched.get(&address.script_pubkey()).expect("watched");
    assert!(status.is_some(), "the stored status goes to the engine");
    assert_eq!(watched.values().filter(|status| status.is_some()).count(), 1);
    drop(wallet);
}

#[tokio::test]
async fn a_long_history_is_restored_with_growing_windows() {
    let rig = Rig::new();
    let keys = rig.keys();
    rig.chain.place_all((0..450_u32).map(|index| {
        let script = keys.master().script_pubkey(&external(index)).expect("derived");
        let mut tx = payment(1, &[(script, 10_000 + u64::from(index))]);
        tx.input[0].previous_output.vout = index;
        (tx, 5 + index % 100)
    }));
    drop(keys);
    let wallet = rig.ready(As::Recovered).await;
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins.len(), 450);
    assert_eq!(snapshot.branch(M0, Branch::External).expect("branch").next_unused, 450);
    assert!(snapshot.coins.iter().all(|coin| !coin.frozen));
    wallet.close().await;
    let wallet = rig.open(As::Known).await;
    assert_eq!(wallet.snapshot().coins, snapshot.coins);
}

#[tokio::test]
async fn a_rescan_with_a_wider_gap_finds_what_lies_beyond() {
    let rig = Rig::new();
    let keys = rig.keys();
    let script = keys.master().script_pubkey(&external(300)).expect("derived");
    let bond = keys.master().script_pubkey(&ScriptPlace::Bond { timenumber: 500 }).expect("bond");
    drop(keys);
    rig.chain.mine(&[&payment(1, &[(script, 70_000)]), &payment(2, &[(bond.clone(), 80_000)])]);
    let wallet = rig.ready(As::Fresh).await;
    assert!(wallet.snapshot().coins.is_empty());
    assert!(!rig.chain.is_watched(&bond), "bonds are not shown to the server without need");
    let mut events = wallet.events();
    wallet.rescan(400).await.expect("open");
    assert!(wallet.snapshot().sync.scanning.is_some(), "set before the answer");
    wallet.rescan(6).await.expect("joins the running one");
    let snapshot = until(&wallet, "finished", |s| s.sync.scanning.is_none()).await;
    assert_eq!(snapshot.coins.len(), 2);
    assert!(snapshot.coins.iter().any(|coin| coin.place.is_bond() && coin.frozen));
    assert_eq!(told(&mut events), [], "old history is no news");
    // Afterwards the funded bond stays watched, the other 959 do not.
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert!(rig.chain.is_watched(&bond));
    assert!(rig.chain.watched_count() < 5 * (120 + 220) + 302 + 10);
    drop(wallet);
}

#[tokio::test]
async fn a_recovery_looks_for_every_bond() {
    let rig = Rig::new();
    let keys = rig.keys();
    let bond = keys.master().script_pubkey(&ScriptPlace::Bond { timenumber: 10 }).expect("bond");
    drop(keys);
    rig.chain.mine(&[&payment(2, &[(bond, 80_000)])]);
    let wallet = rig.ready(As::Recovered).await;
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins.len(), 1);
    assert!(!snapshot.coins[0].frozen, "its lock time has passed");
    assert_eq!(snapshot.coins[0].locktime, Some(1_604_188_800));
}

#[tokio::test]
async fn a_crash_before_the_commit_repeats_the_work() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let tx = payment(1, &[out(&address, 50_000)]);
    rig.chain.mine(&[&tx]);
    rig.store.set_failing(true);
    rig.chain.look().await;
    until(&wallet, "coin", |s| s.coins.len() == 1).await;
    wallet.close().await;
    rig.store.set_failing(false);
    let store = rig.store.reopen_after_crash();
    let wallet = rig.open_with(Box::new(store), rig.options(As::Known)).await;
    until(&wallet, "found again", |s| s.coins.len() == 1 && s.sync.complete).await;
    assert!(!wallet.snapshot().coins[0].frozen);
}

#[tokio::test]
async fn after_close_every_call_says_closed() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let other = wallet.clone();
    assert!(wallet.verify_password("correct horse".into()).await.expect("open"));
    assert!(!wallet.verify_password("wrong".into()).await.expect("open"));
    let checking = tokio::spawn({
        let wallet = wallet.clone();
        async move { wallet.verify_password("correct horse".into()).await }
    });
    tokio::task::yield_now().await;
    wallet.close().await;
    drop(rig.keys());
    let _ = checking.await.expect("answers, whatever it is");
    let issued = other.issue_address(M0, Branch::External).await;
    assert!(matches!(issued, Err(ServiceError::Closed)));
    assert!(matches!(other.seed().await, Err(ServiceError::Closed)));
    assert!(matches!(other.rescan(6).await, Err(ServiceError::Closed)));
    other.close().await;
}

#[tokio::test]
async fn a_panic_closes_the_wallet_instead_of_hanging() {
    use joinery_wallet::store::{ChainData, Facts, Statuses, Store, StoreError};
    #[derive(Debug)]
    struct Trap(joinery_wallet::store::MemoryStore);
    impl Store for Trap {
        fn facts(&self) -> &Facts {
            self.0.facts()
        }
        fn record(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
            assert!(!facts.iter().any(|fact| matches!(fact, Fact::BondIssued { .. })), "trap");
            self.0.record(facts)
        }
        fn note(&mut self, facts: &[Fact]) {
            self.0.note(facts);
        }
        fn load_chain(&mut self) -> Result<(ChainData, Statuses), StoreError> {
            self.0.load_chain()
        }
        fn append_chain(
            &mut self,
            change: &ChainData,
            statuses: &[(bdk_wallet::bitcoin::ScriptBuf, Option<[u8; 32]>)],
        ) -> Result<(), StoreError> {
            self.0.append_chain(change, statuses)
        }
        fn commit(&mut self) -> Result<(), StoreError> {
            self.0.commit()
        }
        fn wants_compaction(&self) -> bool {
            false
        }
        fn compact(&mut self, merged: &ChainData) -> Result<(), StoreError> {
            self.0.compact(merged)
        }
        fn recovered_from_loss(&self) -> bool {
            false
        }
    }
    let rig = Rig::new();
    let store = Box::new(Trap(rig.store.handle()));
    let wallet = rig.open_with(store, rig.options(As::Fresh)).await;
    assert!(matches!(wallet.bond_address(100).await, Err(ServiceError::Closed)));
    let issued = wallet.issue_address(Mixdepth(1), Branch::External).await;
    assert!(matches!(issued, Err(ServiceError::Closed)));
    wallet.close().await;
    eventually("files are free again", || {
        drop(rig.keys());
        true
    })
    .await;
}
