//! Coinjoin rounds: who holds which coin, and what is durable before what.

use bdk_wallet::bitcoin::{Address, Amount, OutPoint};
use joinery_wallet::policy::WalletPolicy;
use joinery_wallet::round::{RoundBegin, RoundEvent, RoundId, RoundRole};
use joinery_wallet::service::{
    RoundError, SendError, SendRequest, ServiceError, SessionMode, Unusable,
};
use joinery_wallet::store::Fact;
use joinery_wallet::types::{Branch, Mixdepth, Network, WalletType};

use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, out, payment, spend, until};
use crate::round_stage::{
    SESSION, begin, clock, coinjoin, earning, end, find, funded, futures_poll, kept, lend,
    revealed, round, sign,
};

fn send_request(rig: &Rig, amount: Option<u64>, inputs: Option<Vec<OutPoint>>) -> SendRequest {
    SendRequest {
        mixdepth: M0,
        amount: amount.map(Amount::from_sat),
        destination: Address::from_script(&foreign(200), rig.network.bitcoin()).expect("address"),
        fees: None,
        inputs,
        max_fee: None,
    }
}

fn why(result: Result<(), RoundError>) -> Unusable {
    match result {
        Err(RoundError::Unusable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reserved_coin_is_nobody_elses_until_the_round_ends() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    assert_eq!(id, RoundId(1));
    wallet.reserve(id, vec![coins[0]]).await.expect("reserved");
    wallet.reserve(id, vec![coins[0]]).await.expect("once more changes nothing");
    let snapshot = wallet.snapshot();
    assert!(coin(&snapshot, coins[0]).expect("coin").locked);
    assert!(!coin(&snapshot, coins[1]).expect("coin").locked);
    assert_eq!(round(&wallet, id).coins, [coins[0]]);

    // Nobody else gets it: another round, a payment of its coin, a payment that would need it, a sweep, a person.
    let other = wallet.begin_round(begin(0)).await.expect("begun");
    assert_eq!(why(wallet.reserve(other, coins.clone()).await), Unusable::Held);
    assert!(!coin(&wallet.snapshot(), coins[1]).expect("coin").locked, "all or none");
    let paid = wallet.direct_send(send_request(&rig, Some(40_000), Some(vec![coins[0]]))).await;
    assert!(matches!(paid, Err(SendError::UnusableInput { outpoint, .. }) if outpoint == coins[0]));
    let paid = wallet.direct_send(send_request(&rig, Some(120_000), None)).await;
    assert!(matches!(paid, Err(SendError::InsufficientFunds { .. })), "{paid:?}");
    let frozen = wallet.set_frozen(vec![(coins[1], true), (coins[0], true)]).await;
    assert!(matches!(frozen, Err(ServiceError::HeldByRound { outpoint, round })
            if outpoint == coins[0] && round == id));
    assert!(!coin(&wallet.snapshot(), coins[1]).expect("coin").frozen, "all or none");
    wallet.set_frozen(vec![(coins[0], false)]).await.expect("nothing changes");
    let swept = wallet.direct_send(send_request(&rig, None, None)).await.expect("the other coin");
    assert_eq!(swept.transaction.input.len(), 1);
    assert_eq!(swept.transaction.input[0].previous_output, coins[1]);

    wallet.end_round(id, end("not_filled")).await.expect("ended");
    assert!(!coin(&wallet.snapshot(), coins[0]).expect("coin").locked);
    let again = wallet.end_round(id, end("other")).await;
    assert!(matches!(again, Err(RoundError::Ended(ended)) if ended == id));
    assert_eq!(round(&wallet, id).end.as_ref().expect("ended").code, "not_filled");
    wallet.reserve(other, vec![coins[0]]).await.expect("free again");
    wallet.record_round(other, RoundEvent::Released).await.expect("nothing is signed");
    assert!(!coin(&wallet.snapshot(), coins[0]).expect("coin").locked);
    wallet.set_frozen(vec![(coins[0], true)]).await.expect("free");
}

#[tokio::test]
async fn only_whole_coins_of_the_rounds_own_mixdepth_are_held() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2, 3]).await;
    let bond = wallet.bond_address(959).await.expect("bond");
    let bond = payment(10, &[out(&bond, 70_000)]);
    let elsewhere = wallet.issue_address(Mixdepth(2), Branch::External).await.expect("issued");
    let elsewhere = payment(11, &[out(&elsewhere, 70_000)]);
    let spent = spend(&[coins[2]], &[(foreign(1), 99_000)]);
    rig.chain.mine(&[&bond, &elsewhere, &spent]);
    rig.chain.look().await;
    until(&wallet, "all", |s| s.coins.len() == 4).await;
    wallet.set_frozen(vec![(coins[1], true)]).await.expect("free");
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    let unknown = OutPoint { txid: payment(99, &[]).compute_txid(), vout: 7 };
    for (outpoint, reason) in [
        (unknown, Unusable::Unknown),
        (coins[2], Unusable::Spent),
        (coins[1], Unusable::Frozen),
        (at(&bond, 0), Unusable::Bond),
        (at(&elsewhere, 0), Unusable::Mixdepth),
    ] {
        let result = wallet.reserve(id, vec![coins[0], outpoint]).await;
        assert!(
            matches!(&result, Err(RoundError::Unusable { outpoint: named, reason: why })
                if *named == outpoint && *why == reason),
            "{result:?}"
        );
        assert!(!coin(&wallet.snapshot(), coins[0]).expect("coin").locked, "all or none");
    }
    let many = (0..600).map(|vout| OutPoint { vout, ..unknown }).collect();
    assert!(matches!(wallet.reserve(id, many).await, Err(RoundError::TooLarge { .. })));
    let none = wallet.reserve(RoundId(77), vec![coins[0]]).await;
    assert!(matches!(none, Err(RoundError::NoSuchRound(RoundId(77)))));
    let no_account = wallet.begin_round(begin(9)).await;
    assert!(matches!(no_account, Err(RoundError::NoSuchMixdepth(Mixdepth(9)))));
}

#[tokio::test]
async fn nested_coins_are_no_coinjoin_coins() {
    let rig = Rig::on(Network::Regtest, WalletType::NestedSegwit, 1..=110);
    let (wallet, coins) = funded(&rig, &[1]).await;
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    assert_eq!(why(wallet.reserve(id, coins).await), Unusable::Script);
}

#[tokio::test]
async fn keys_are_handed_out_for_coins_that_a_takers_round_holds_and_no_others() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2, 3]).await;
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    wallet.reserve(id, vec![coins[0]]).await.expect("reserved");
    let own = wallet.coinjoin_coins(id, vec![coins[0]]).await.expect("held");
    let snapshot = wallet.snapshot();
    let held = coin(&snapshot, coins[0]).expect("coin");
    assert_eq!((own[0].outpoint, own[0].value), (coins[0], 100_000));
    assert_eq!(*own[0].script(), held.script);
    let other = wallet.coinjoin_coins(id, coins[..2].to_vec()).await;
    assert!(matches!(other, Err(RoundError::NotHeld { outpoint, .. }) if outpoint == coins[1]));
    let foreign_round = wallet.begin_round(begin(0)).await.expect("begun");
    let other = wallet.coinjoin_coins(foreign_round, vec![coins[0]]).await;
    assert!(matches!(other, Err(RoundError::NotHeld { .. })));
    // For a maker the wallet signs itself.
    let (maker, _) = revealed(&wallet, &coins[2..], 1).await;
    let key = wallet.coinjoin_coins(maker, vec![coins[2]]).await;
    assert!(matches!(key, Err(RoundError::OutOfOrder(_))), "{key:?}");
    wallet.end_round(id, end("stopped")).await.expect("ended");
    let over = wallet.coinjoin_coins(id, vec![coins[0]]).await;
    assert!(matches!(over, Err(RoundError::Ended(_))));
}

#[tokio::test]
async fn a_commitment_is_used_once_and_with_the_event() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    let sent = |index, byte: u8| RoundEvent::CommitmentSent {
        outpoint: Some(coins[0]),
        index,
        commitment: [byte; 32],
    };
    wallet.record_round(id, sent(0, 1)).await.expect("recorded");
    let snapshot = wallet.snapshot();
    assert_eq!(coin(&snapshot, coins[0]).expect("coin").commitments_used, [0]);
    for event in [sent(0, 2), sent(1, 1)] {
        let again = wallet.record_round(id, event).await;
        assert!(matches!(again, Err(RoundError::CommitmentUsed)), "{again:?}");
    }
    wallet.record_round(id, sent(2, 3)).await.expect("recorded");
    let snapshot = wallet.snapshot();
    let used = coin(&snapshot, coins[0]).expect("coin");
    assert_eq!((used.commitments_used.as_slice(), used.tries()), ([0, 2].as_slice(), 3));
    // Both facts are of one record: neither is there without the other.
    let facts = rig.store.recorded();
    let event = facts.iter().position(|fact| {
        matches!(fact, Fact::Round { event: RoundEvent::CommitmentSent { .. }, .. })
    });
    let used = facts.iter().position(|fact| matches!(fact, Fact::CommitmentUsed { .. }));
    assert_eq!(used.expect("used") + 1, event.expect("event"));
    let maker = wallet.open_round(lend(&coins)).await.expect("opened").id;
    let wrong = wallet.record_round(maker, sent(1, 9)).await;
    assert!(matches!(wrong, Err(RoundError::OutOfOrder(_))));
}

#[tokio::test]
async fn events_that_are_not_for_a_role_are_refused() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let maker = wallet.open_round(lend(&coins)).await.expect("opened").id;
    let taker = wallet.begin_round(begin(0)).await.expect("begun");
    let before = rig.store.records();
    let (txid, commitment) = (coins[0].txid, [1; 32]);
    let sums = || earning(1);
    for event in [
        RoundEvent::Begun(begin(0)),
        RoundEvent::Reserved { outpoints: coins.clone() },
        RoundEvent::Revealed { scripts: vec![foreign(1)], commitment },
        RoundEvent::Signed { txid, raw: vec![0], sums: sums(), time: 1 },
        RoundEvent::Seen { txid, time: 1 },
        RoundEvent::Confirmed { txid, height: 1, time: 1 },
        RoundEvent::Abandoned { time: 1 },
        RoundEvent::Ended(end("x")),
    ] {
        for id in [maker, taker] {
            let result = wallet.record_round(id, event.clone()).await;
            assert!(matches!(result, Err(RoundError::OutOfOrder(_))), "{id}: {event:?}");
        }
    }
    let outpoint = Some(coins[0]);
    for event in [
        RoundEvent::Shown { txid, sums: sums() },
        RoundEvent::CommitmentSent { outpoint, index: 0, commitment },
        RoundEvent::Released,
    ] {
        let result = wallet.record_round(maker, event.clone()).await;
        assert!(matches!(result, Err(RoundError::OutOfOrder(_))), "{event:?}");
    }
    // A maker's coins are those that its round was opened with, and a taker's round has no terms to sign by.
    let more = wallet.reserve(maker, coins.clone()).await;
    assert!(matches!(more, Err(RoundError::OutOfOrder(_))), "{more:?}");
    let agreed = round(&wallet, maker).begin.agreed.clone();
    let begun = [
        RoundBegin { role: RoundRole::Maker, ..begin(0) },
        RoundBegin { role: RoundRole::Maker, agreed: agreed.clone(), ..begin(0) },
        RoundBegin { agreed, ..begin(0) },
    ];
    for begin in begun {
        let result = wallet.begin_round(begin).await;
        assert!(matches!(result, Err(RoundError::OutOfOrder(_))), "{result:?}");
    }
    let told = wallet.reveal_round(taker, commitment, SESSION, coins[0]).await;
    assert!(matches!(told, Err(RoundError::OutOfOrder(_))), "{told:?}");
    let signed = wallet.sign_round(taker, spend(&coins, &[(foreign(1), 1)]), clock()).await;
    assert!(matches!(signed, Err(RoundError::OutOfOrder(_))), "{signed:?}");
    assert_eq!(rig.store.records(), before);
}

#[tokio::test]
async fn a_power_cut_frees_what_was_not_signed_and_keeps_what_was() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2, 3]).await;
    let (open, opened) = revealed(&wallet, &coins[..1], 1).await;
    let (maker, scripts) = revealed(&wallet, &coins[1..2], 2).await;
    let tx = coinjoin(coins[1], &scripts, 50);
    sign(&wallet, maker, &tx, clock()).await.expect("signed");
    let (taker, _) = kept(&wallet, coins[2], 60, false).await;
    drop(wallet);
    let mut options = rig.options(As::Known);
    options.policy = std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(WalletPolicy {
        send_interrupted: false,
        ..rig.policy.clone()
    }));
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options).await;
    // At once, before anything is heard of the chain.
    let snapshot = wallet.snapshot();
    for id in [open, maker, taker] {
        assert_eq!(find(&snapshot, id).end.as_ref().expect("ended").code, "interrupted");
    }
    let locked = |n: usize| coin(&snapshot, coins[n]).expect("coin").locked;
    assert_eq!([locked(0), locked(1), locked(2)], [false, true, true]);
    assert!(find(&snapshot, open).is_over());
    // A round that was interrupted signs nothing more, not even what it signed before.
    for (id, tx) in [(maker, &tx), (open, &coinjoin(coins[0], &opened, 51))] {
        let again = sign(&wallet, id, tx, clock()).await;
        assert!(matches!(again, Err(RoundError::Ended(_))), "{again:?}");
    }
    let next = wallet.begin_round(begin(0)).await.expect("begun");
    assert_eq!(next, RoundId(4), "numbers are never used twice");
}

#[tokio::test]
async fn a_failing_store_lets_nothing_leave() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let (id, scripts) = revealed(&wallet, &coins, 1).await;
    rig.store.set_failing(true);
    let begun = wallet.begin_round(begin(0)).await;
    assert!(matches!(begun, Err(RoundError::Store(_))));
    let tx = coinjoin(coins[0], &scripts, 50);
    let result = sign(&wallet, id, &tx, clock()).await;
    assert!(matches!(result, Err(RoundError::Store(_))));
    assert!(round(&wallet, id).signed.is_empty());
    assert!(matches!(wallet.end_round(id, end("x")).await, Err(RoundError::Store(_))));
    assert!(coin(&wallet.snapshot(), coins[0]).expect("coin").locked, "nothing was let go");
    rig.store.set_failing(false);
    wallet.end_round(id, end("x")).await.expect("works again");
}

#[tokio::test]
async fn a_wallet_opened_for_the_maker_refuses_everything_else() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let (taker, _) = kept(&wallet, coins[0], 50, false).await;
    wallet.close().await;
    let mut options = rig.options(As::Known);
    options.mode = SessionMode::MakerOnly;
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options).await;
    until(&wallet, "caught up", |s| s.sync.complete).await;
    let paid = wallet.direct_send(send_request(&rig, Some(10_000), None)).await;
    assert!(matches!(paid, Err(SendError::MakerOnly)), "{paid:?}");
    assert!(matches!(wallet.seed().await, Err(ServiceError::MakerOnly)));
    let text = wallet.sign_message("m/84'/1'/0'/0/0", "hello").await;
    assert!(matches!(text, Err(ServiceError::MakerOnly)));
    let begun = wallet.begin_round(begin(0)).await;
    assert!(matches!(begun, Err(RoundError::MakerOnly)));
    let sent = wallet.send_round_transaction(taker).await;
    assert!(matches!(sent, Err(RoundError::MakerOnly)));
    // No key leaves it: not for the taker's round, and not for one of the maker.
    let key = wallet.coinjoin_coins(taker, coins.clone()).await;
    assert!(matches!(key, Err(RoundError::MakerOnly)), "{key:?}");
    let held = wallet.open_round(lend(&coins[..1])).await.map(|_| ());
    assert_eq!(why(held), Unusable::Held, "the taker's round still has it");
    let maker = wallet.open_round(lend(&coins[1..])).await.expect("opened").id;
    let key = wallet.coinjoin_coins(maker, coins[1..].to_vec()).await;
    assert!(matches!(key, Err(RoundError::OutOfOrder(_))), "{key:?}");
    assert!(rig.chain.broadcasts().is_empty());
}

#[tokio::test]
async fn bonds_are_certified_while_they_are_unspent_and_confirmed() {
    use bdk_wallet::bitcoin::secp256k1::SecretKey;
    use joinery_proto::bond_proof::BondProof;
    use joinery_proto::fidelity_bond::locktime_of_month;

    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let address = wallet.bond_address(959).await.expect("bond");
    let bond = payment(10, &[out(&address, 70_000)]);
    rig.chain.place(&bond, None);
    rig.chain.look().await;
    until(&wallet, "bond", |s| s.coins.len() == 2).await;
    let cert_secret = SecretKey::from_slice(&[7; 32]).expect("key");
    let cert_key = cert_secret.public_key(joinery_proto::secp());
    let early = wallet.certify_bond(at(&bond, 0), cert_key, 1).await;
    assert!(matches!(early, Err(RoundError::Unusable { reason: Unusable::Unconfirmed, .. })));
    rig.chain.mine(&[&bond]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| s.coins.iter().all(|coin| coin.height.is_some())).await;
    let certified = wallet.certify_bond(at(&bond, 0), cert_key, 1).await.expect("certified");
    assert_eq!(u64::from(certified.locktime), locktime_of_month(959));
    assert_eq!(certified.value, 70_000);
    let (maker, taker) = (nick(1), nick(2));
    let proof = BondProof::create(
        &maker,
        &taker,
        &certified.certificate,
        &cert_secret,
        &certified.coin_key,
        &certified.outpoint,
        certified.locktime,
    );
    let proof = BondProof::verify(&proof, &maker, &taker).expect("verifies");
    assert_eq!(proof.script_pubkey(), address.script_pubkey());
    let plain = wallet.certify_bond(coins[0], cert_key, 1).await;
    assert!(matches!(plain, Err(RoundError::Unusable { reason: Unusable::NoBond, .. })));
}

fn nick(byte: u8) -> joinery_proto::nick::Nick {
    let key = bdk_wallet::bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).expect("key");
    joinery_proto::nick::Nick::from_public_key(&key.public_key(joinery_proto::secp()))
}

/// A round whose owner went away before it heard of it does not stay open.
#[tokio::test]
async fn a_round_that_nobody_waits_for_is_ended() {
    let rig = Rig::new();
    let (wallet, _) = funded(&rig, &[1]).await;
    // An answer that is there at the first look has found somebody: asked again then.
    while {
        let other = wallet.clone();
        let begin = begin(0);
        let mut request = Box::pin(async move { other.begin_round(begin).await });
        // Polled once, so that the command is in the queue, then dropped.
        futures_poll(request.as_mut())
    } {}
    eventually("ended", || wallet.rounds().iter().any(|round| round.end.is_some())).await;
}
