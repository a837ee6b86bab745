//! A maker's round from what is told to what is signed.

use bdk_wallet::bitcoin::{Address, OutPoint};
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerRefusal;
use joinery_wallet::service::{MakerRound, RoundError, RoundOutputs};
use joinery_wallet::types::Branch;

use crate::rig::{M0, Rig, coin, foreign, spend};
use crate::round_stage::{SESSION, clock, end, funded, lend, pairs, revealed, round, sign};

#[tokio::test]
async fn scripts_are_shown_to_one_taker_only() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let opened = wallet.open_round(lend(&coins[..1])).await.expect("opened");
    let (equal, change) = (opened.equal, opened.change);
    wallet.reveal_round(opened.id, [1; 32], SESSION, coins[0]).await.expect("recorded");
    let again = wallet.reveal_round(opened.id, [2; 32], SESSION, coins[0]).await;
    assert!(matches!(again, Err(RoundError::ScriptUsed)), "{again:?}");
    wallet.end_round(opened.id, end("timeout")).await.expect("ended");
    let known = |equal: &Address, change: &Address| MakerRound {
        outputs: RoundOutputs::Known { equal: equal.clone(), change: change.clone() },
        ..lend(&coins[..1])
    };
    let id = wallet.open_round(known(&equal, &change)).await.expect("opened").id;
    let again = wallet.reveal_round(id, [2; 32], SESSION, coins[0]).await;
    assert!(matches!(again, Err(RoundError::ScriptUsed)), "{again:?}");
    wallet.reveal_round(id, [1; 32], SESSION, coins[0]).await.expect("the same commitment");
    let records = rig.store.records();
    wallet.reveal_round(id, [1; 32], SESSION, coins[0]).await.expect("asked twice");
    assert_eq!(rig.store.records(), records);
    let other = wallet.reveal_round(id, [1; 32], SESSION, coins[1]).await;
    assert!(matches!(other, Err(RoundError::NotHeld { outpoint, .. }) if outpoint == coins[1]));
    wallet.end_round(id, end("timeout")).await.expect("ended");
    // Nothing but what was handed out for such outputs, and two different ones.
    let network = rig.network.bitcoin();
    let stranger = Address::from_script(&foreign(1), network).expect("address");
    let deposit = wallet.issue_address(M0, Branch::External).await.expect("issued");
    for (equal, change) in [(&equal, &stranger), (&stranger, &change), (&deposit, &change)] {
        let opened = wallet.open_round(known(equal, change)).await;
        assert!(matches!(opened, Err(RoundError::OutOfOrder(_))), "{opened:?}");
    }
    let one = wallet.open_round(known(&equal, &equal)).await;
    assert!(matches!(one, Err(RoundError::Refused(MakerRefusal::SameScript))), "{one:?}");
}

#[tokio::test]
async fn a_coin_proves_the_session_key_once_that_it_is_told_is_durable() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let id = wallet.open_round(lend(&coins)).await.expect("opened").id;
    let tx = spend(&coins, &[(foreign(1), 1)]);
    let early = sign(&wallet, id, &tx, clock()).await;
    assert!(matches!(early, Err(RoundError::OutOfOrder(_))), "{early:?}");
    rig.store.set_failing(true);
    let told = wallet.reveal_round(id, [1; 32], SESSION, coins[1]).await;
    assert!(matches!(told, Err(RoundError::Store(_))), "{told:?}");
    rig.store.set_failing(false);
    let proof = wallet.reveal_round(id, [1; 32], SESSION, coins[1]).await.expect("recorded");
    let message = "05".repeat(32);
    joinery_proto::signature::verify(message.as_bytes(), &proof.signature, &proof.key)
        .expect("verifies");
    let snapshot = wallet.snapshot();
    let script = joinery_proto::transaction::signing::p2wpkh(&proof.key);
    assert_eq!(script, coin(&snapshot, coins[1]).expect("coin").script);
    let held = round(&wallet, id);
    assert_eq!((held.commitment, held.scripts.len()), (Some([1; 32]), 2));
}

#[tokio::test]
async fn a_maker_signs_nothing_that_costs_it_money() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2, 3]).await;
    for (agreement, refusal) in [
        (
            Agreement { amount: 50_000, fee: 99, tx_fee: 100 },
            MakerRefusal::NegativeEarning { fee: 99, tx_fee: 100 },
        ),
        (
            Agreement { amount: 50_000, fee: 0, tx_fee: u64::MAX },
            MakerRefusal::NegativeEarning { fee: 0, tx_fee: u64::MAX },
        ),
    ] {
        let opened = wallet.open_round(MakerRound { agreement, ..lend(&coins) }).await;
        assert!(matches!(&opened, Err(RoundError::Refused(why)) if *why == refusal), "{opened:?}");
    }
    assert!(wallet.rounds().is_empty());

    let (id, scripts) = revealed(&wallet, &coins[..2], 1).await;
    let good = |extra: u64| {
        let outputs =
            [(scripts[0].clone(), 50_000), (scripts[1].clone(), 150_000 + extra), (foreign(9), 1)];
        spend(&[coins[0], coins[1]], &outputs)
    };
    let before = rig.store.records();
    for (why, tx) in [
        ("less than 150100", good(99)),
        ("coin", spend(&[coins[0]], &[(scripts[0].clone(), 500_000)])),
        ("is not an input", spend(&[OutPoint { vout: 9, ..coins[0] }], &pairs(&good(100)))),
        ("not part of the session", spend(&coins, &pairs(&good(100)))),
        ("occurs 0 times", spend(&coins[..2], &[(scripts[1].clone(), 500_000)])),
    ] {
        match sign(&wallet, id, &tx, clock()).await {
            Err(RoundError::Refused(refusal)) => {
                assert!(refusal.to_string().contains(why), "{refusal}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
    assert!(round(&wallet, id).signed.is_empty());
    assert_eq!(rig.store.records(), before);

    for extra in [100, 101, 102] {
        let signatures = sign(&wallet, id, &good(extra), clock()).await.expect("good");
        assert_eq!(signatures.len(), 2);
    }
    let first = sign(&wallet, id, &good(100), clock()).await.expect("the same again");
    assert_eq!(sign(&wallet, id, &good(100), 0).await.expect("and again"), first);
    assert_eq!(rig.store.records(), before + 3);
    let fourth = sign(&wallet, id, &good(103), clock()).await;
    assert!(matches!(fourth, Err(RoundError::OutOfOrder(_))));
    let sums = &round(&wallet, id).sums;
    assert_eq!((sums.amount, sums.coinjoin_fee, sums.miner_fee, sums.cost), (50_000, 100, 0, -100));
    assert_eq!((sums.input_count, sums.input_value), (2, 200_000));
    assert_eq!(sums.counterparties, ["J5taker"]);
    wallet.end_round(id, end("complete")).await.expect("ended");
    assert!(coin(&wallet.snapshot(), coins[0]).expect("coin").locked, "signed coins stay held");
    let over = sign(&wallet, id, &good(100), clock()).await;
    assert!(matches!(over, Err(RoundError::Ended(_))), "{over:?}");
}
