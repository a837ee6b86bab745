//! What becomes of what was signed: seen, confirmed, undone, given up.

use bdk_wallet::bitcoin::ScriptBuf;
use joinery_wallet::round::RoundEvent;
use joinery_wallet::service::RoundNews;
use joinery_wallet::store::{Fact, Store};
use joinery_wallet::types::Branch;

use crate::rig::{As, M0, Rig, coin, foreign, out, payment, spend, until};
use crate::round_stage::{clock, coinjoin, end, find, funded, news, revealed, round, sign};

#[tokio::test]
async fn a_signed_round_is_followed_into_a_block_and_out_of_it() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let mut events = wallet.events();
    let (id, scripts) = revealed(&wallet, &coins, 1).await;
    let tx = coinjoin(coins[0], &scripts, 50);
    let txid = tx.compute_txid();
    sign(&wallet, id, &tx, clock()).await.expect("signed");
    wallet.end_round(id, end("complete")).await.expect("ended");
    rig.chain.place(&tx, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "seen", |s| find(s, id).seen.is_some()).await;
    let seen = find(&snapshot, id).seen.expect("seen");
    assert_eq!(seen.0, txid);
    assert!(coin(&snapshot, coins[0]).is_none());
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "confirmed", |s| find(s, id).confirmed.is_some()).await;
    assert!(find(&snapshot, id).is_over());
    assert_eq!(find(&snapshot, id).confirmed.map(|(height, _)| height), Some(112));
    wallet.record_round(id, RoundEvent::Accounted).await.expect("accounted");
    wallet.record_round(id, RoundEvent::Accounted).await.expect("once");
    // The block is replaced; the transaction goes back to the mempool.
    rig.chain.reorganise(1);
    rig.chain.look().await;
    let snapshot = until(&wallet, "unconfirmed", |s| find(s, id).confirmed.is_none()).await;
    assert_eq!(find(&snapshot, id).seen, Some(seen), "the first sighting stays");
    assert!(find(&snapshot, id).accounted);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed again", |s| find(s, id).confirmed.is_some_and(|(h, _)| h == 114))
        .await;
    assert_eq!(
        news(&mut events, 10).await,
        [
            RoundNews::Begun,
            RoundNews::Coins,
            RoundNews::Step,
            RoundNews::Signed,
            RoundNews::Ended,
            RoundNews::Seen { txid },
            RoundNews::Confirmed { txid, height: 112 },
            RoundNews::Accounted,
            RoundNews::Seen { txid },
            RoundNews::Confirmed { txid, height: 114 },
        ]
    );
    // Opened again from nothing but the facts, nothing is claimed anew.
    let facts = rig.store.recorded().len();
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert_eq!(round(&wallet, id).confirmed.map(|(height, _)| height), Some(114));
    assert_eq!(rig.store.recorded().len(), facts, "{:?}", &rig.store.recorded()[facts..]);
}

#[tokio::test]
async fn a_confirmed_round_that_vanishes_in_a_reorganisation_holds_its_coins_again() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, scripts) = revealed(&wallet, &coins, 1).await;
    let tx = coinjoin(coins[0], &scripts, 50);
    sign(&wallet, id, &tx, clock()).await.expect("signed");
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| find(s, id).confirmed.is_some()).await;
    rig.chain.reorganise(1);
    rig.chain.forget(tx.compute_txid());
    rig.chain.look().await;
    let snapshot = until(&wallet, "gone", |s| find(s, id).confirmed.is_none()).await;
    assert!(find(&snapshot, id).holds_coins());
    let free = coin(&snapshot, coins[0]).expect("unspent again");
    assert!(free.locked, "but not free");
    // Somebody else's transaction over the same coin confirms: now it is settled.
    rig.chain.mine(&[&spend(&coins, &[(foreign(1), 90_000)])]);
    rig.chain.look().await;
    until(&wallet, "beaten", |s| find(s, id).abandoned).await;
}

#[tokio::test]
async fn a_makers_coins_are_free_when_nobody_sees_the_transaction_in_time() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let mut ids = Vec::new();
    let mut txs = Vec::new();
    for (n, age) in [(0, 3500), (1, 3601)] {
        let (id, scripts) =
            revealed(&wallet, &coins[n..=n], 1 + u8::try_from(n).expect("small")).await;
        let tx = coinjoin(coins[n], &scripts, 50);
        sign(&wallet, id, &tx, clock() - age).await.expect("signed");
        wallet.end_round(id, end("complete")).await.expect("ended");
        ids.push(id);
        txs.push(tx);
    }
    rig.chain.mine(&[&payment(
        9,
        &[out(&wallet.issue_address(M0, Branch::External).await.expect("issued"), 1000)],
    )]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "given up", |s| find(s, ids[1]).abandoned).await;
    assert!(!coin(&snapshot, coins[1]).expect("coin").locked);
    assert!(coin(&snapshot, coins[0]).expect("coin").locked, "still in time");
    assert!(!find(&snapshot, ids[0]).abandoned);
    // It appears all the same.
    rig.chain.place(&txs[1], None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "late", |s| find(s, ids[1]).seen.is_some()).await;
    assert!(!find(&snapshot, ids[1]).abandoned);
    rig.chain.mine(&[&txs[1]]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| find(s, ids[1]).confirmed.is_some()).await;
}

#[tokio::test]
async fn a_seen_transaction_that_vanished_is_given_up_after_three_days() {
    for (age, abandoned) in [(71, false), (73, true)] {
        let rig = Rig::new();
        let (wallet, coins) = funded(&rig, &[1, 2]).await;
        let (id, scripts) = revealed(&wallet, &coins[..1], 1).await;
        let tx = coinjoin(coins[0], &scripts, 50);
        let then = clock() - age * 3600;
        sign(&wallet, id, &tx, then).await.expect("signed");
        wallet.close().await;
        let event = RoundEvent::Seen { txid: tx.compute_txid(), time: then };
        rig.store.reopen().record(&[Fact::Round { round: id.0, event }]).expect("works");
        let wallet = rig.ready(As::Known).await;
        let snapshot = wallet.snapshot();
        assert_eq!(find(&snapshot, id).abandoned, abandoned, "{age} hours");
        assert_eq!(coin(&snapshot, coins[0]).expect("coin").locked, !abandoned);
    }
}

#[tokio::test]
async fn another_id_with_the_same_outputs_is_the_same_coinjoin() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, scripts) = revealed(&wallet, &coins, 1).await;
    let tx = coinjoin(coins[0], &scripts, 50);
    sign(&wallet, id, &tx, clock()).await.expect("signed");
    let mut final_tx = tx.clone();
    final_tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x16; 23]);
    assert_ne!(final_tx.compute_txid(), tx.compute_txid());
    rig.chain.mine(&[&final_tx]);
    rig.chain.look().await;
    let snapshot = until(&wallet, "confirmed", |s| find(s, id).confirmed.is_some()).await;
    assert_eq!(find(&snapshot, id).seen.map(|(txid, _)| txid), Some(final_tx.compute_txid()));
    assert_eq!(find(&snapshot, id).sums.cost, -100);
}
