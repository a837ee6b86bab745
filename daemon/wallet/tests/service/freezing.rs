//! Automatic freezing of coins on reused addresses.

use joinery_wallet::types::Branch;

use crate::rig::{As, M0, Rig, at, coin, foreign, out, payment, spend, until};

#[tokio::test]
async fn a_second_payment_to_an_address_is_frozen_and_the_first_is_not() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let first = payment(1, &[out(&address, 50_000)]);
    let second = payment(2, &[out(&address, 600)]);
    rig.chain.mine(&[&first]);
    rig.chain.look().await;
    until(&wallet, "first", |s| s.coins.len() == 1).await;
    rig.chain.place(&second, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "second", |s| s.coins.len() == 2).await;
    assert!(coin(&snapshot, at(&second, 0)).expect("coin").frozen);
    assert!(!coin(&snapshot, at(&first, 0)).expect("coin").frozen);
    // The user's decision is never overridden: not by a block, not by a restart.
    wallet.set_frozen(vec![(at(&second, 0), false)]).await.expect("stored");
    rig.chain.mine(&[&second]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| s.coins.iter().all(|c| c.height.is_some())).await;
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert!(wallet.snapshot().coins.iter().all(|coin| !coin.frozen));
}

#[tokio::test]
async fn an_emptied_address_counts_as_used() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let first = payment(1, &[out(&address, 50_000)]);
    let away = spend(&[at(&first, 0)], &[(foreign(1), 49_000)]);
    rig.chain.mine(&[&first]);
    rig.chain.mine(&[&away]);
    rig.chain.look().await;
    until(&wallet, "empty", |s| s.height() == Some(112) && s.coins.is_empty()).await;
    let again = payment(2, &[out(&address, 50_000)]);
    rig.chain.mine(&[&again]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "again", |s| s.coins.len() == 1).await;
    assert!(snapshot.coins[0].frozen);
}

#[tokio::test]
async fn two_outputs_of_one_transaction_are_no_reuse() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.mine(&[&payment(1, &[out(&address, 50_000), out(&address, 60_000)])]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "both", |s| s.coins.len() == 2).await;
    assert!(snapshot.coins.iter().all(|coin| !coin.frozen));
}

#[tokio::test]
async fn reuse_in_one_batch_freezes_exactly_the_later_one() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    for (first, second) in [(1, 2), (4, 3)] {
        let address = if first == 1 {
            address.clone()
        } else {
            wallet.issue_address(M0, Branch::External).await.expect("issued")
        };
        let first = payment(first, &[out(&address, 50_000)]);
        let second = payment(second, &[out(&address, 60_000)]);
        // In the same block: the server's order decides.
        rig.chain.mine(&[&first, &second]);
        rig.chain.look().await;
        let snapshot = until(&wallet, "both", |s| coin(s, at(&second, 0)).is_some()).await;
        assert!(!coin(&snapshot, at(&first, 0)).expect("coin").frozen);
        assert!(coin(&snapshot, at(&second, 0)).expect("coin").frozen);
    }
}

#[tokio::test]
async fn coins_that_arrived_while_the_wallet_was_closed_are_judged_too() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.mine(&[&payment(1, &[out(&address, 50_000)])]);
    rig.chain.look().await;
    until(&wallet, "first", |s| s.coins.len() == 1).await;
    wallet.close().await;
    let second = payment(2, &[out(&address, 60_000)]);
    rig.chain.mine(&[&second]);
    let wallet = rig.ready(As::Known).await;
    assert!(coin(&wallet.snapshot(), at(&second, 0)).expect("coin").frozen);
}

#[tokio::test]
async fn the_first_sync_of_a_recovered_wallet_freezes_nothing() {
    let mut rig = Rig::new();
    let donor = rig.ready(As::Fresh).await;
    let address = donor.issue_address(M0, Branch::External).await.expect("issued");
    donor.close().await;
    rig.store = joinery_wallet::store::MemoryStore::new();
    rig.chain.mine(&[&payment(1, &[out(&address, 50_000)])]);
    rig.chain.mine(&[&payment(2, &[out(&address, 60_000)])]);
    let wallet = rig.ready(As::Recovered).await;
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins.len(), 2);
    assert!(snapshot.coins.iter().all(|coin| !coin.frozen));
    // But from then on reuse is reuse.
    let third = payment(3, &[out(&address, 70_000)]);
    rig.chain.mine(&[&third]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "third", |s| s.coins.len() == 3).await;
    assert!(coin(&snapshot, at(&third, 0)).expect("coin").frozen);
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert_eq!(wallet.snapshot().coins.iter().filter(|coin| coin.frozen).count(), 1);
}

#[tokio::test]
async fn the_limit_decides_which_values_are_frozen() {
    for (limit, frozen) in [(-1, true), (0, false), (9_999, false), (10_000, true)] {
        let mut rig = Rig::new();
        rig.policy.max_sats_freeze_reuse = limit;
        let wallet = rig.ready(As::Fresh).await;
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        let second = payment(2, &[out(&address, 10_000)]);
        rig.chain.mine(&[&payment(1, &[out(&address, 50_000)])]);
        rig.chain.mine(&[&second]);
        rig.chain.look().await;
        let snapshot = until(&wallet, "both", |s| s.coins.len() == 2).await;
        assert_eq!(coin(&snapshot, at(&second, 0)).expect("coin").frozen, frozen, "limit {limit}");
    }
}

#[tokio::test]
async fn a_decision_about_an_unknown_coin_is_kept_until_it_arrives() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let first = payment(1, &[out(&address, 50_000)]);
    let second = payment(2, &[out(&address, 60_000)]);
    wallet.set_frozen(vec![(at(&first, 0), true), (at(&second, 0), false)]).await.expect("stored");
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    rig.chain.mine(&[&first]);
    rig.chain.mine(&[&second]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "both", |s| s.coins.len() == 2).await;
    assert!(coin(&snapshot, at(&first, 0)).expect("coin").frozen);
    assert!(!coin(&snapshot, at(&second, 0)).expect("coin").frozen, "the user said no beforehand");
}
