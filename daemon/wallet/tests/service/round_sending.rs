//! A taker's transaction, sent by us, by others, or late.

use bdk_wallet::bitcoin::Txid;
use joinery_wallet::service::{RoundError, RoundSent};
use joinery_wallet::store::{OwnTxState, Store};
use joinery_wallet::types::Branch;

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, M0, Rig, coin, foreign, spend, until};
use crate::round_stage::{begin, complete, earning, end, find, funded, kept, revealed, round};

fn own_state(rig: &Rig, txid: Txid) -> Option<OwnTxState> {
    rig.store.reopen().facts().own_txs.get(&txid).map(|own| own.state)
}

#[tokio::test]
async fn what_others_send_is_kept_and_not_sent_by_us() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, tx) = kept(&wallet, coins[0], 50, false).await;
    wallet.end_round(id, end("complete")).await.expect("ended");
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "block", |s| s.height() == Some(112)).await;
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert_eq!(rig.chain.broadcasts().len(), 0);
    let snapshot = wallet.snapshot();
    assert!(coin(&snapshot, coins[0]).expect("not spent yet").locked);
    assert_eq!(find(&snapshot, id).signed.len(), 1);
    // A maker sends it.
    rig.chain.place(&tx, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "seen", |s| find(s, id).seen.is_some()).await;
    assert!(coin(&snapshot, coins[0]).is_none());
    assert_eq!(rig.chain.broadcasts().len(), 0);
    assert_eq!(own_state(&rig, tx.compute_txid()), None);
}

#[tokio::test]
async fn what_we_send_is_sent_until_it_is_listed() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, tx) = kept(&wallet, coins[0], 50, true).await;
    let txid = tx.compute_txid();
    assert_eq!(own_state(&rig, txid), Some(OwnTxState::Built), "durable before it is sent");
    rig.chain.on_broadcast(OnBroadcast::Lost);
    assert_eq!(wallet.send_round_transaction(id).await.expect("tried"), RoundSent::Unknown);
    assert!(round(&wallet, id).seen.is_none(), "sent is not seen");
    wallet.end_round(id, end("unknown")).await.expect("ended");
    wallet.close().await;
    rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
    let wallet = rig.ready(As::Known).await;
    let snapshot = until(&wallet, "seen", |s| find(s, id).seen.is_some()).await;
    assert!(coin(&snapshot, coins[0]).is_none());
    assert_eq!(rig.chain.broadcasts().len(), 2);
    assert_eq!(rig.chain.broadcasts()[1], tx);
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| find(s, id).confirmed.is_some()).await;
    assert_eq!(wallet.send_round_transaction(id).await.expect("in a block"), RoundSent::Accepted);
    assert_eq!(rig.chain.broadcasts().len(), 2);
}

#[tokio::test]
async fn a_fallback_that_comes_too_late_is_no_failure() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, tx) = kept(&wallet, coins[0], 50, false).await;
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| find(s, id).confirmed.is_some()).await;
    wallet.keep_transaction(id, tx, earning(-900), true).await.expect("the same again");
    assert_eq!(wallet.send_round_transaction(id).await.expect("in a block"), RoundSent::Accepted);
    assert!(rig.chain.broadcasts().is_empty());
}

#[tokio::test]
async fn a_transaction_that_was_kept_can_be_sent_later_and_after_a_refusal() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, tx) = kept(&wallet, coins[0], 50, false).await;
    wallet.end_round(id, end("not_broadcast")).await.expect("ended");
    rig.chain.on_broadcast(OnBroadcast::Reject("min relay fee not met"));
    let sent = wallet.send_round_transaction(id).await.expect("tried");
    assert_eq!(sent, RoundSent::Rejected { text: "min relay fee not met".to_owned() });
    let held = wallet.snapshot();
    assert!(coin(&held, coins[0]).expect("not spent").locked, "others may still send it");
    rig.chain.on_broadcast(OnBroadcast::Accept { listed: false });
    assert_eq!(wallet.send_round_transaction(id).await.expect("tried"), RoundSent::Accepted);
    assert!(coin(&wallet.snapshot(), coins[0]).is_none());
    rig.chain.look().await;
    until(&wallet, "seen", |s| find(s, id).seen.is_some()).await;
    // Others were faster: whatever the server says of ours, it is there.
    rig.chain.on_broadcast(OnBroadcast::Reject("txn-already-in-mempool"));
    wallet.send_round_transaction(id).await.expect("tried");
    assert_eq!(own_state(&rig, tx.compute_txid()), Some(OwnTxState::Broadcast));
    assert!(coin(&wallet.snapshot(), coins[0]).is_none());
}

#[tokio::test]
async fn a_takers_transaction_must_be_of_its_round_and_signed() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    wallet.reserve(id, vec![coins[0]]).await.expect("reserved");
    let change = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    let other = complete(coins[1], &change, 50);
    let result = wallet.keep_transaction(id, other, earning(-1), true).await;
    assert!(matches!(result, Err(RoundError::NotHeld { .. })), "{result:?}");
    let mut bare = complete(coins[0], &change, 50);
    bare.input[0].witness.clear();
    let result = wallet.keep_transaction(id, bare, earning(-1), true).await;
    assert!(matches!(result, Err(RoundError::WrongTransaction(_))));
    let nothing = wallet.send_round_transaction(id).await;
    assert!(matches!(nothing, Err(RoundError::OutOfOrder(_))));
    let (maker, _) = revealed(&wallet, &coins[1..], 1).await;
    let tx = complete(coins[1], &change, 50);
    let result = wallet.keep_transaction(maker, tx, earning(1), false).await;
    assert!(matches!(result, Err(RoundError::OutOfOrder(_))));
    assert!(rig.chain.broadcasts().is_empty());
}

#[tokio::test]
async fn a_takers_transaction_that_another_one_beats_is_given_up_and_not_sent_again() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, tx) = kept(&wallet, coins[0], 50, true).await;
    rig.chain.on_broadcast(OnBroadcast::Lost);
    wallet.send_round_transaction(id).await.expect("tried");
    rig.chain.mine(&[&spend(&coins, &[(foreign(1), 90_000)])]);
    rig.chain.look().await;
    until(&wallet, "beaten", |s| find(s, id).abandoned).await;
    assert_eq!(own_state(&rig, tx.compute_txid()), Some(OwnTxState::Rejected));
    let sent = rig.chain.broadcasts().len();
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "block", |s| s.height() == Some(113)).await;
    assert_eq!(rig.chain.broadcasts().len(), sent);
}
