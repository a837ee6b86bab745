//! Payments.

use bdk_wallet::bitcoin::{Address, Amount, Transaction, Txid};
use joinery_wallet::chain::ChainError;
use joinery_wallet::policy::TxFees;
use joinery_wallet::service::{SendError, SendRequest, WalletHandle};
use joinery_wallet::snapshot::CoinKind;
use joinery_wallet::store::{Fact, OwnTxState, Store};
use joinery_wallet::types::{Branch, Mixdepth};

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, out, payment, spend, told, until};

fn destination(rig: &Rig) -> Address {
    Address::from_script(&foreign(200), rig.network.bitcoin()).expect("address")
}

fn request(rig: &Rig, amount: Option<u64>) -> SendRequest {
    SendRequest {
        mixdepth: M0,
        amount: amount.map(Amount::from_sat),
        destination: destination(rig),
        fees: None,
        inputs: None,
        max_fee: None,
    }
}

/// A wallet with confirmed coins of these values on addresses of their own.
async fn funded(rig: &Rig, values: &[u64]) -> (WalletHandle, Vec<Transaction>) {
    let wallet = rig.ready(As::Fresh).await;
    let mut txs = Vec::new();
    for (salt, value) in (1..).zip(values) {
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        txs.push(payment(salt, &[out(&address, *value)]));
    }
    rig.chain.mine(&txs.iter().collect::<Vec<_>>());
    rig.chain.look().await;
    until(&wallet, "funds", |s| s.coins.len() == values.len()).await;
    (wallet, txs)
}

fn own_state(rig: &Rig, txid: Txid) -> Option<OwnTxState> {
    rig.store.reopen().facts().own_txs.get(&txid).map(|own| own.state)
}

#[tokio::test]
async fn a_payment_is_applied_and_told_before_it_is_answered() {
    for listed in [true, false] {
        let rig = Rig::new();
        rig.chain.on_broadcast(OnBroadcast::Accept { listed });
        let (wallet, funds) = funded(&rig, &[100_000]).await;
        let mut events = wallet.events();
        let sent = wallet.direct_send(request(&rig, Some(40_000))).await.expect("sent");
        let txid = sent.transaction.compute_txid();
        assert_eq!(told(&mut events), [(txid, 0)]);
        let snapshot = wallet.snapshot();
        assert!(coin(&snapshot, at(&funds[0], 0)).is_none(), "input is gone at once");
        assert_eq!(snapshot.coins.len(), 1);
        let change = &snapshot.coins[0];
        assert_eq!(change.value.to_sat(), 100_000 - 40_000 - sent.fee);
        assert_eq!((change.height, change.kind), (None, CoinKind::Change));
        assert_eq!(change.place.branch(), Some(Branch::Internal));
        assert!(!change.locked && !change.frozen && !sent.includes_expired_bond);
        assert_eq!(own_state(&rig, txid), Some(OwnTxState::Broadcast));
        // The facts were durable before the broadcast, in this order.
        let facts = rig.store.recorded();
        let built = facts.iter().position(|f| matches!(f, Fact::OwnTransaction { .. }));
        let issued =
            facts.iter().position(|f| matches!(f, Fact::Issued { branch: 1, next_unused: 1, .. }));
        assert!(issued < built && issued.is_some());
        rig.chain.mine(&[&sent.transaction]);
        rig.chain.look().await;
        until(&wallet, "confirmed", |s| s.coins[0].height.is_some()).await;
        assert_eq!(told(&mut events), [(txid, 1)]);
        assert_eq!(own_state(&rig, txid), Some(OwnTxState::Confirmed));
    }
}

/// Two equal outputs beside two others look like a coinjoin of two, unless we made them ourselves.
#[tokio::test]
async fn our_own_payment_with_equal_outputs_is_not_called_a_coinjoin() {
    for (ours, kind) in [(true, CoinKind::Deposit), (false, CoinKind::CoinjoinOutput)] {
        let rig = Rig::new();
        let (wallet, funds) = funded(&rig, &[100_000]).await;
        let first = wallet.issue_address(Mixdepth(1), Branch::External).await.expect("issued");
        let second = wallet.issue_address(Mixdepth(1), Branch::External).await.expect("issued");
        wallet.close().await;
        let tx = spend(
            &[at(&funds[0], 0)],
            &[out(&first, 30_000), out(&second, 30_000), (foreign(1), 20_000), (foreign(2), 9_000)],
        );
        let txid = tx.compute_txid();
        if ours {
            let raw = bdk_wallet::bitcoin::consensus::serialize(&tx);
            let fact = Fact::OwnTransaction { txid, raw, time: 0 };
            rig.store.reopen().record(&[fact]).expect("not failing");
        }
        rig.chain.mine(&[&tx]);
        let wallet = rig.ready(As::Known).await;
        let kinds: Vec<CoinKind> = wallet.snapshot().coins.iter().map(|coin| coin.kind).collect();
        assert_eq!(kinds, [kind, kind]);
    }
}

#[tokio::test]
async fn a_payment_dearer_than_agreed_is_not_signed() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[100_000]).await;
    let agreed = |sats| SendRequest {
        fees: Some(TxFees::SatPerKvb(10_000)),
        max_fee: Some(Amount::from_sat(sats)),
        ..request(&rig, Some(40_000))
    };
    let before = wallet.snapshot();
    let error = wallet.direct_send(agreed(1000)).await.expect_err("too dear");
    let SendError::FeeAboveLimit { fee, limit: 1000 } = error else { panic!("{error}") };
    assert!(fee >= 1400, "{fee}");
    assert!(rig.chain.broadcasts().is_empty());
    assert_eq!(wallet.snapshot().coins, before.coins, "nothing is held");
    // The random part is at most a fifth, of 141 virtual bytes.
    let sent = wallet.direct_send(agreed(1692)).await.expect("sent");
    assert!(sent.fee <= 1692);
}

#[tokio::test]
async fn a_rejected_payment_frees_its_coins() {
    let rig = Rig::new();
    rig.chain.on_broadcast(OnBroadcast::Reject("min relay fee not met"));
    let (wallet, funds) = funded(&rig, &[100_000]).await;
    let before = wallet.snapshot();
    let mut events = wallet.events();
    let result = wallet.direct_send(request(&rig, Some(40_000))).await;
    assert!(matches!(&result, Err(SendError::Rejected { text }) if text.contains("relay fee")));
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins, before.coins, "unlocked and unspent");
    assert_eq!(told(&mut events), []);
    let txid = rig.chain.broadcasts()[0].compute_txid();
    assert_eq!(own_state(&rig, txid), Some(OwnTxState::Rejected));
    // The change address was shown to the server: it is not used again.
    rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
    let sent = wallet.direct_send(request(&rig, Some(40_000))).await.expect("sent");
    assert_eq!(sent.transaction.input[0].previous_output, at(&funds[0], 0));
    let next = wallet.snapshot().branch(M0, Branch::Internal).expect("branch").next_unused;
    assert_eq!(next, 2);
    // Neither a reconnection nor a restart sends the rejected one again.
    rig.chain.connect(false);
    rig.chain.connect(true);
    wallet.close().await;
    drop(rig.ready(As::Known).await);
    assert_eq!(rig.chain.broadcasts().iter().filter(|tx| tx.compute_txid() == txid).count(), 1);
}

#[tokio::test]
async fn a_payment_of_unknown_fate_is_sent_again_until_it_is_seen() {
    let rig = Rig::new();
    rig.chain.on_broadcast(OnBroadcast::Lost);
    let (wallet, funds) = funded(&rig, &[100_000]).await;
    let result = wallet.direct_send(request(&rig, Some(40_000))).await;
    assert!(matches!(result, Err(SendError::Uncertain)));
    let txid = rig.chain.broadcasts()[0].compute_txid();
    let snapshot = wallet.snapshot();
    assert!(coin(&snapshot, at(&funds[0], 0)).is_none(), "its coins cannot be spent twice");
    assert_eq!(own_state(&rig, txid), Some(OwnTxState::Built));
    let again = wallet.direct_send(request(&rig, Some(90_000))).await;
    assert!(matches!(again, Err(SendError::InsufficientFunds { .. })));
    // A history without it, of its own scripts, does not take it away.
    let other = payment(9, &[(wallet.snapshot().coins[0].script.clone(), 7_000)]);
    rig.chain.place(&other, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "other", |s| s.coins.len() == 2).await;
    assert!(coin(&snapshot, at(&funds[0], 0)).is_none());
    // A reconnection, a block, then a restart, send it again.
    rig.chain.connect(false);
    rig.chain.connect(true);
    eventually("sent twice", || rig.chain.broadcasts().len() == 2).await;
    rig.chain.mine(&[]);
    rig.chain.look().await;
    eventually("sent three times", || rig.chain.broadcasts().len() == 3).await;
    wallet.close().await;
    rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
    let wallet = rig.open(As::Known).await;
    assert!(coin(&wallet.snapshot(), at(&funds[0], 0)).is_none(), "also after the restart");
    eventually("accepted", || own_state(&rig, txid) == Some(OwnTxState::Broadcast)).await;
    assert_eq!(rig.chain.broadcasts().len(), 4);
    assert!(rig.chain.has_output(at(&rig.chain.broadcasts()[3], 0)));
    // Seen: no reason to send it once more.
    until(&wallet, "caught up", |s| s.sync.complete).await;
    rig.chain.connect(false);
    rig.chain.connect(true);
    rig.chain.mine(&[]);
    rig.chain.look().await;
    until(&wallet, "block", |s| s.height() == Some(113)).await;
    assert_eq!(rig.chain.broadcasts().len(), 4);
}

#[tokio::test]
async fn a_payment_that_arrived_without_an_answer_is_told_when_it_is_seen() {
    let rig = Rig::new();
    rig.chain.on_broadcast(OnBroadcast::ArrivedUnanswered);
    let (wallet, _) = funded(&rig, &[100_000]).await;
    let mut events = wallet.events();
    let result = wallet.direct_send(request(&rig, None)).await;
    assert!(matches!(result, Err(SendError::Uncertain)));
    assert_eq!(told(&mut events), []);
    rig.chain.look().await;
    let txid = rig.chain.broadcasts()[0].compute_txid();
    let mut heard = Vec::new();
    let wait = async {
        while heard.is_empty() {
            if let Ok(joinery_wallet::service::WalletEvent::Transaction {
                transaction,
                confirmations,
                ..
            }) = events.recv().await
            {
                heard.push((transaction.compute_txid(), confirmations));
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("told");
    assert_eq!(heard, [(txid, 0)]);
}

#[tokio::test]
async fn a_payment_whose_coins_were_taken_is_given_up() {
    let rig = Rig::new();
    rig.chain.on_broadcast(OnBroadcast::Lost);
    let (wallet, funds) = funded(&rig, &[100_000]).await;
    let result = wallet.direct_send(request(&rig, Some(40_000))).await;
    assert!(matches!(result, Err(SendError::Uncertain)));
    let txid = rig.chain.broadcasts()[0].compute_txid();
    let rival = spend(&[at(&funds[0], 0)], &[(foreign(9), 99_000)]);
    rig.chain.mine(&[&rival]);
    rig.chain.look().await;
    until(&wallet, "change is gone", |s| s.coins.is_empty()).await;
    eventually("given up", || own_state(&rig, txid) == Some(OwnTxState::Rejected)).await;
    wallet.close().await;
    let before = rig.chain.broadcasts().len();
    drop(rig.ready(As::Known).await);
    assert_eq!(rig.chain.broadcasts().len(), before);
}

#[tokio::test]
async fn a_crash_between_storing_and_sending_sends_after_the_restart() {
    let rig = Rig::new();
    let (wallet, funds) = funded(&rig, &[100_000]).await;
    // The record of the crash: everything up to the broadcast, nothing after it.
    rig.chain.on_broadcast(OnBroadcast::Lost);
    let _ = wallet.direct_send(request(&rig, Some(40_000))).await;
    let txid = rig.chain.broadcasts()[0].compute_txid();
    drop(wallet);
    rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
    let store = rig.store.reopen_after_crash();
    let wallet = rig.open_with(Box::new(store), rig.options(As::Known)).await;
    until(&wallet, "complete", |s| s.sync.complete).await;
    eventually("accepted", || own_state(&rig, txid) == Some(OwnTxState::Broadcast)).await;
    let snapshot = until(&wallet, "change", |s| s.coins.len() == 1).await;
    assert!(coin(&snapshot, at(&funds[0], 0)).is_none());
}

#[tokio::test]
async fn a_dropped_request_is_carried_through() {
    let rig = Rig::new();
    let (wallet, funds) = funded(&rig, &[100_000]).await;
    let pending = wallet.direct_send(request(&rig, Some(40_000)));
    // Polled once, then dropped, as when a client goes away.
    let _ = tokio::time::timeout(std::time::Duration::ZERO, pending).await;
    let snapshot =
        until(&wallet, "sent", |s| coin(s, at(&funds[0], 0)).is_none() && !s.coins.is_empty())
            .await;
    assert!(snapshot.coins.iter().all(|coin| !coin.locked));
    assert_eq!(rig.chain.broadcasts().len(), 1);
}

#[tokio::test]
async fn two_payments_never_use_the_same_coin() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[100_000, 100_000]).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (wallet, request) = (wallet.clone(), request(&rig, Some(80_000)));
            tokio::spawn(async move { wallet.direct_send(request).await })
        })
        .collect();
    let mut sent = Vec::new();
    for task in tasks {
        match task.await.expect("runs") {
            Ok(tx) => sent.push(tx.transaction.input[0].previous_output),
            Err(SendError::InsufficientFunds { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1]);
}

#[tokio::test]
async fn without_a_connection_nothing_is_built() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[100_000]).await;
    rig.chain.connect(false);
    let result = wallet.direct_send(request(&rig, Some(40_000))).await;
    assert!(matches!(result, Err(SendError::Chain(ChainError::Unavailable { .. }))));
    assert!(rig.store.reopen().facts().own_txs.is_empty());
    assert!(wallet.snapshot().coins.iter().all(|coin| !coin.locked));
}

#[tokio::test]
async fn a_server_without_an_estimate_costs_the_fallback_rate() {
    let rig = Rig::new();
    rig.chain.no_fee_estimate();
    let (wallet, _) = funded(&rig, &[100_000]).await;
    let sent = wallet.direct_send(request(&rig, None)).await.expect("sent");
    // One P2WPKH input and output: 110 vbytes at 20000 sat per 1000.
    assert_eq!(sent.fee, 2200);
}

#[tokio::test]
async fn a_full_disk_builds_nothing() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[100_000]).await;
    rig.store.set_failing(true);
    let result = wallet.direct_send(request(&rig, Some(40_000))).await;
    assert!(matches!(result, Err(SendError::Store(_))));
    assert!(rig.chain.broadcasts().is_empty());
    assert!(wallet.snapshot().coins.iter().all(|coin| !coin.locked));
    rig.store.set_failing(false);
    wallet.direct_send(request(&rig, Some(40_000))).await.expect("sent");
}

#[tokio::test]
async fn paying_the_next_change_address_takes_another_one_for_the_change() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[100_000]).await;
    let keychain = joinery_wallet::types::Keychain { mixdepth: M0, branch: Branch::Internal };
    let own = {
        let other = Rig::new();
        let place = joinery_wallet::path::ScriptPlace::Ranged { keychain, index: 0 };
        other.keys().master().address(&place).expect("derived")
    };
    let mut ask = request(&rig, Some(40_000));
    ask.destination = own;
    wallet.direct_send(ask).await.expect("sent");
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins.len(), 2);
    assert_eq!(snapshot.branch(M0, Branch::Internal).expect("branch").next_unused, 2);
}

#[tokio::test]
async fn frozen_coins_stay_where_they_are() {
    let rig = Rig::new();
    let (wallet, funds) = funded(&rig, &[100_000, 50_000]).await;
    wallet.set_frozen(vec![(at(&funds[0], 0), true)]).await.expect("stored");
    let sent = wallet.direct_send(request(&rig, None)).await.expect("sent");
    assert_eq!(sent.transaction.input.len(), 1);
    let snapshot = wallet.snapshot();
    assert_eq!(snapshot.coins.len(), 1);
    assert_eq!(snapshot.coins[0].outpoint, at(&funds[0], 0));
    let result = wallet.direct_send(request(&rig, None)).await;
    assert!(matches!(result, Err(SendError::NothingToSweep(_))));
}
