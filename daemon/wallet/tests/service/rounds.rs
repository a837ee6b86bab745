//! Coinjoin rounds: who holds which coin, what is durable before what, and what becomes of what was signed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::{Address, Amount, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerRefusal;
use joinery_wallet::policy::WalletPolicy;
use joinery_wallet::round::{
    Round, RoundBegin, RoundEnd, RoundEvent, RoundId, RoundRole, RoundSums,
};
use joinery_wallet::service::{
    MakerRound, RoundAccounts, RoundError, RoundNews, RoundOutputs, RoundSent, SendError,
    SendRequest, ServiceError, SessionMode, Unusable, WalletEvent, WalletHandle,
};
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::store::{Fact, OwnTxState, Store};
use joinery_wallet::types::{Branch, Mixdepth, Network, WalletType};
use tokio::sync::broadcast;

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, out, payment, spend, until};

pub(crate) fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A taker's round.
pub(crate) fn begin(mixdepth: u8) -> RoundBegin {
    RoundBegin {
        role: RoundRole::Taker,
        time: clock(),
        mixdepth,
        amount: 50_000,
        counterparties: 1,
        destination: String::new(),
        nick: "J5nick".to_owned(),
        agreed: None,
    }
}

/// A maker's round over coins of mixdepth 0 with fresh addresses, for 50 000 satoshi and a fee of 100.
pub(crate) fn lend(coins: &[OutPoint]) -> MakerRound {
    MakerRound {
        time: clock(),
        mixdepth: M0,
        nick: "J5nick".to_owned(),
        taker: "J5taker".to_owned(),
        agreement: Agreement { amount: 50_000, fee: 100, tx_fee: 0 },
        coins: coins.to_vec(),
        outputs: RoundOutputs::Fresh(RoundAccounts { equal: Mixdepth(1), change: M0 }),
    }
}

/// Key of a maker's session.
pub(crate) const SESSION: NaclPublicKey = NaclPublicKey::from_bytes([5; 32]);

pub(crate) fn end(code: &str) -> RoundEnd {
    RoundEnd { code: code.to_owned(), text: "It ended.".to_owned(), time: clock() }
}

pub(crate) fn round(wallet: &WalletHandle, id: RoundId) -> std::sync::Arc<Round> {
    wallet.rounds().iter().find(|round| round.id == id).expect("round").clone()
}

fn find(snapshot: &Snapshot, id: RoundId) -> &Round {
    snapshot.rounds.iter().find(|round| round.id == id).expect("round")
}

/// A wallet with a confirmed coin of 100 000 satoshi for each salt, in mixdepth 0.
pub(crate) async fn funded(rig: &Rig, salts: &[u8]) -> (WalletHandle, Vec<OutPoint>) {
    let wallet = rig.ready(As::Fresh).await;
    let mut txs = Vec::new();
    for salt in salts {
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        txs.push(payment(*salt, &[out(&address, 100_000)]));
    }
    rig.chain.mine(&txs.iter().collect::<Vec<_>>());
    rig.chain.look().await;
    until(&wallet, "funds", |s| s.coins.len() == salts.len()).await;
    (wallet, txs.iter().map(|tx| at(tx, 0)).collect())
}

/// A maker's round up to the point where its coins and scripts are shown: coinjoin and change script.
pub(crate) async fn revealed(
    wallet: &WalletHandle,
    coins: &[OutPoint],
    commitment: u8,
) -> (RoundId, [ScriptBuf; 2]) {
    let opened = wallet.open_round(lend(coins)).await.expect("opened");
    let told = wallet.reveal_round(opened.id, [commitment; 32], SESSION, coins[0]).await;
    told.expect("recorded");
    (opened.id, [opened.equal.script_pubkey(), opened.change.script_pubkey()])
}

/// A coinjoin of two that spends one coin of ours, worth 100 000 satoshi, and earns us 100.
pub(crate) fn coinjoin(coin: OutPoint, scripts: &[ScriptBuf; 2], salt: u8) -> Transaction {
    let stranger = OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 };
    let outputs = [
        (scripts[0].clone(), 50_000),
        (scripts[1].clone(), 50_100),
        (foreign(salt), 50_000),
        (foreign(salt.wrapping_add(1)), 7_000),
    ];
    spend(&[stranger, coin], &outputs)
}

pub(crate) fn earning(sats: i64) -> RoundSums {
    RoundSums { amount: 50_000, cost: -sats, ..RoundSums::default() }
}

/// Has a transaction of a maker's round signed.
pub(crate) async fn sign(
    wallet: &WalletHandle,
    id: RoundId,
    tx: &Transaction,
    time: u64,
) -> Result<Vec<InputSignature>, RoundError> {
    wallet.sign_round(id, tx.clone(), time).await
}

/// Outputs of a transaction.
pub(crate) fn pairs(tx: &Transaction) -> Vec<(ScriptBuf, u64)> {
    tx.output.iter().map(|out| (out.script_pubkey.clone(), out.value.to_sat())).collect()
}

/// A taker's transaction over one of its coins, with something that looks like signatures.
pub(crate) fn complete(coin: OutPoint, change: &Address, salt: u8) -> Transaction {
    let stranger = OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 };
    let outputs = [
        (foreign(salt), 50_000),
        (foreign(salt.wrapping_add(1)), 50_000),
        (foreign(salt.wrapping_add(2)), 9_000),
        (change.script_pubkey(), 49_000),
    ];
    let mut tx = spend(&[stranger, coin], &outputs);
    tx.input.iter_mut().for_each(|input| input.witness.push([1; 72]));
    tx
}

/// The next news of rounds; they are told a moment after the snapshot shows them.
pub(crate) async fn news(
    events: &mut broadcast::Receiver<WalletEvent>,
    count: usize,
) -> Vec<RoundNews> {
    let mut out = Vec::new();
    let wait = async {
        while out.len() < count {
            if let WalletEvent::Round { what, .. } = events.recv().await.expect("the wallet lives")
            {
                out.push(what);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("news of rounds");
    out
}

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

/// Opens a taker's round over a coin, with the transaction complete and kept.
async fn kept(
    wallet: &WalletHandle,
    coin: OutPoint,
    salt: u8,
    send: bool,
) -> (RoundId, Transaction) {
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    wallet.reserve(id, vec![coin]).await.expect("reserved");
    let change = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    let tx = complete(coin, &change, salt);
    let event = RoundEvent::Shown { txid: tx.compute_txid(), sums: earning(-900) };
    wallet.record_round(id, event).await.expect("recorded");
    wallet.keep_transaction(id, tx.clone(), earning(-900), send).await.expect("kept");
    (id, tx)
}

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

pub(crate) fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let waker = std::task::Waker::noop();
    future.poll(&mut std::task::Context::from_waker(waker)).is_ready()
}
