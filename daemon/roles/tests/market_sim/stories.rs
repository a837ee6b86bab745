//! Requests that go well, and those that a person stops.

use std::time::Duration;

use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::{Address, Network, OutPoint, ScriptBuf, WPubkeyHash};
use joinery_roles::choose::Chooser;
use joinery_roles::event::ChannelEvent;
use joinery_roles::order_book::{Book, BookPhase};
use joinery_roles::taker::{
    BroadcastPolicy, Destination, Phase, Reason, TakerPolicy, TakerRequest,
};
use joinery_wallet::round::RoundEvent;
use joinery_wallet::types::Mixdepth;

use crate::fake_maker::Behaviour::{self, *};
use crate::stage::{AMOUNT, Stage, policy, request};

/// Cheapest makers first, our own server: nothing is left to chance.
pub(crate) fn plain() -> TakerPolicy {
    TakerPolicy { chooser: Chooser::Cheapest, broadcast: BroadcastPolicy::Own, ..policy() }
}

/// Makers, and a taker with three coins.
pub(crate) fn stage(makers: &[Behaviour]) -> Stage {
    let mut stage = Stage::new(7, makers);
    for value in [5_000_000, 4_000_000, 3_000_000] {
        stage.fund(value);
    }
    stage
}

/// One request with the plain policy; returns the stage after its end.
pub(crate) fn play(makers: &[Behaviour], counterparties: u8) -> Stage {
    let mut stage = stage(makers);
    stage.begin(request(counterparties), plain());
    stage.run();
    stage
}

pub(crate) fn reason(stage: &Stage) -> Reason {
    stage.outcome.as_ref().unwrap().verdict.reason
}

#[test]
fn a_coinjoin_from_the_book_to_the_mempool() {
    let stage = play(&[Honest, Honest], 2);
    assert_eq!(reason(&stage), Reason::Complete);
    let expected = [
        "ask fee rate",
        "ask begin",
        "ask reserve",
        "ask coins",
        "ask record commitment",
        "fill 0",
        "fill 1",
        "ask address",
        "ask address",
        "auth 0",
        "auth 1",
        "ask look up",
        "ask look up",
        "ask record shown",
        "tx 0",
        "tx 1",
        "ask look up",
        "ask broadcast",
        "ask end",
        "finished complete",
    ];
    assert_eq!(stage.trace, expected);
    let outcome = stage.outcome.as_ref().unwrap();
    let sums = outcome.sums.clone().unwrap();
    assert_eq!((sums.amount, sums.coinjoin_fee, sums.counterparties.len()), (AMOUNT, 210, 2));
    assert_eq!(outcome.honest.len(), 2);
    assert!(outcome.failed.is_empty() && outcome.transaction.is_none());
    let txid = outcome.txid.unwrap();
    assert!(stage.chain.transactions.contains_key(&txid));
    // What is recorded, and in which order.
    let kinds: Vec<&str> = stage
        .wallet
        .journal
        .iter()
        .map(|(_, event)| match event {
            RoundEvent::Reserved { .. } => "reserved",
            RoundEvent::CommitmentSent { .. } => "commitment",
            RoundEvent::Shown { .. } => "shown",
            RoundEvent::Signed { .. } => "signed",
            RoundEvent::Ended(_) => "ended",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["reserved", "commitment", "shown", "signed", "ended"]);
}

#[test]
fn progress_tells_the_whole_story() {
    let stage = play(&[Honest, SilentAtFill, Honest], 2);
    let mut phases: Vec<Phase> = stage.progress.iter().map(|p| p.phase).collect();
    phases.dedup();
    assert_eq!(
        phases,
        [
            Phase::Connecting,
            Phase::Choosing,
            Phase::Filling,
            Phase::Authorising,
            Phase::Signing,
            Phase::Rechecking,
            Phase::Broadcasting,
            Phase::Ending,
            Phase::Over,
        ]
    );
    let signing = stage.progress.iter().find(|p| p.phase == Phase::Rechecking).unwrap();
    let steps: Vec<&str> = signing.makers.iter().map(|maker| maker.step.as_str()).collect();
    assert_eq!(steps, ["signed", "dropped", "signed"]);
    let fees = signing.fees.unwrap();
    assert_eq!(fees.coinjoin_fee, 100 + 120);
    assert!(fees.miner_fee > 0 && fees.limit >= fees.coinjoin_fee + fees.miner_fee);
    assert!(stage.progress.iter().all(|p| p.phase == Phase::Over || p.deadline.is_some()));
}

#[test]
fn a_sweep_leaves_nothing_behind() {
    let mut stage = stage(&[Honest; 3]);
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let address = Address::from_script(&script, Network::Regtest).unwrap();
    let sweep =
        TakerRequest { amount: 0, destination: Destination::Address(address), ..request(3) };
    stage.begin(sweep, plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let sums = stage.outcome.as_ref().unwrap().sums.clone().unwrap();
    assert_eq!(stage.chain.balance(|s| stage.wallet.owns(s)), 0);
    assert_eq!(stage.chain.balance(|s| *s == script), sums.amount);
    assert_eq!(sums.input_count, 3);
    assert_eq!(stage.count("ask"), stage.trace.iter().filter(|t| t.starts_with("ask")).count());
    assert!(!stage.trace.contains(&"ask address".to_owned()), "no address of ours is needed");
    // sweep_amount_frozen: makers were told one amount, and it is the one in the transaction.
    for maker in &stage.makers {
        assert_eq!(maker.fills[0].amount, sums.amount);
    }
}

#[test]
fn a_sweep_without_one_maker_goes_on_with_its_amount() {
    let mut stage = stage(&[Honest, Honest, SilentAtTx, Honest]);
    let policy = TakerPolicy { minimum_makers: 3, ..plain() };
    stage.begin(TakerRequest { amount: 0, ..request(4) }, policy);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let sums = stage.outcome.as_ref().unwrap().sums.clone().unwrap();
    assert_eq!(sums.counterparties.len(), 3);
    assert_eq!(stage.makers[0].fills[0].amount, sums.amount);
    assert_eq!(sums.input_value - sums.amount, u64::try_from(sums.cost).unwrap());
}

#[test]
fn named_coins_are_the_inputs_and_no_others() {
    let mut stage = stage(&[Honest; 2]);
    let (one, other) = (stage.fund(700_000), stage.fund(900_000));
    let named = TakerRequest { inputs: Some(vec![one, other]), ..request(2) };
    stage.begin(named, plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let tx = &stage.wallet.signed[0];
    let ours: Vec<OutPoint> = tx
        .input
        .iter()
        .map(|input| input.previous_output)
        .filter(|outpoint| {
            !stage.makers.iter().any(|m| m.coins.iter().any(|c| c.outpoint == *outpoint))
        })
        .collect();
    assert_eq!(ours.len(), 2);
    assert!(ours.contains(&one) && ours.contains(&other));
}

#[test]
fn internal_destinations_are_in_the_next_account() {
    let stage = play(&[Honest; 2], 2);
    let view = stage.wallet.view(&stage.chain);
    let fresh = |mixdepth| {
        view.coins.iter().filter(|c| c.mixdepth == Mixdepth(mixdepth) && c.height.is_none()).count()
    };
    assert_eq!((fresh(0), fresh(1)), (1, 1));
}

#[test]
fn an_old_book_is_asked_for_again_and_a_new_one_is_waited_for() {
    let mut stage = stage(&[Honest; 2]);
    let old = Book { completed: Some(Duration::from_secs(1)), ..stage.book() };
    stage.begin_with(request(2), plain(), old.clone());
    while stage.progress.last().unwrap().phase != Phase::Collecting {
        stage.step();
    }
    assert_eq!(stage.trace, ["refresh book"]);
    let collecting = Book { phase: BookPhase::Collecting, ..old };
    stage.give_book(collecting);
    assert_eq!(stage.progress.last().unwrap().phase, Phase::Collecting);
    let fresh = stage.book();
    stage.give_book(fresh);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
}

/// Row T17: the numbers say where the makers went.
#[test]
fn too_few_offers_end_with_numbers_after_a_second_look() {
    let mut stage = stage(&[Honest; 3]);
    let mut book = stage.book();
    book.offers[0].offer.max_size = AMOUNT;
    book.offers[1].offer.cj_fee = joinery_proto::cjfee::CjFee::Absolute(6_000);
    stage.begin_with(request(2), plain(), book);
    let verdict = stage.run().verdict.clone();
    assert_eq!(verdict.reason, Reason::NotEnoughOffers);
    let numbers =
        "3 makers known, 3 for this wallet type, 2 for this amount, 1 within the fee limits";
    assert!(verdict.text.contains(numbers), "{}", verdict.text);
    assert!(stage.trace.contains(&"refresh book".to_owned()));
    assert_eq!(stage.outcome.as_ref().unwrap().attempts, 3);
    assert_eq!(stage.count("fill"), 0);
}

#[test]
fn no_directory_ends_it_in_time() {
    let mut stage = stage(&[Honest; 2]);
    stage.directories = 0;
    stage.begin(request(2), plain());
    let begun = stage.now;
    assert_eq!(stage.run().verdict.reason, Reason::NoDirectory);
    assert_eq!(stage.now - begun, Duration::from_secs(120));
}

/// Stops when a phase is reached, and returns the stage after the end.
fn stopped_at(phase: Phase, policy: TakerPolicy, makers: &[Behaviour]) -> Stage {
    let mut stage = stage(makers);
    stage.at_phase.push((phase, Stage::stop));
    stage.begin(request(2), policy);
    stage.run();
    assert!(stage.at_phase.is_empty(), "{phase:?} was reached");
    stage
}

#[test]
fn a_stop_before_our_signature_ends_it_and_frees_everything() {
    for phase in [
        Phase::Connecting,
        Phase::Choosing,
        Phase::Filling,
        Phase::Authorising,
        Phase::Signing,
        Phase::Rechecking,
    ] {
        let stage = stopped_at(phase, plain(), &[Honest; 2]);
        assert_eq!(reason(&stage), Reason::Stopped, "{phase:?}");
        assert!(stage.wallet.signed.is_empty(), "{phase:?}");
        assert!(stage.wallet.view(&stage.chain).coins.iter().all(|coin| coin.free), "{phase:?}");
        for round in stage.wallet.rounds.values() {
            assert_eq!(round.end.as_ref().unwrap().code, "stopped", "{phase:?}");
        }
    }
}

#[test]
fn a_stop_after_our_signature_ends_when_it_is_seen() {
    // The maker that was asked to send it does not; then we do, at once.
    let policy = TakerPolicy { broadcast: BroadcastPolicy::MultiplePeers, ..plain() };
    let mut stage = stopped_at(Phase::Broadcasting, policy, &[NeverPushes; 2]);
    assert_eq!(reason(&stage), Reason::Complete);
    assert_eq!(stage.count("push"), 2);
    assert!(stage.trace.contains(&"ask broadcast".to_owned()));
    stage.refresh_view();
    // Where our own server is ruled out the person is told, and the transaction is kept.
    let policy = TakerPolicy { broadcast: BroadcastPolicy::NotSelf, ..plain() };
    let stage = stopped_at(Phase::Broadcasting, policy, &[NeverPushes; 2]);
    assert_eq!(reason(&stage), Reason::NotBroadcast);
    assert!(stage.outcome.as_ref().unwrap().transaction.is_some());
    assert!(stage.wallet.rounds.values().all(|round| round.holds_coins()));
}

#[test]
fn a_stop_between_attempts_ends_it() {
    let stage = stopped_at(Phase::Pausing, plain(), &[SilentAtTx, SilentAtTx, Honest, Honest]);
    assert_eq!(reason(&stage), Reason::Stopped);
}

#[test]
fn broadcast_policies() {
    // random-peer: every maker and we ourselves, each about as often.
    let mut pushed = [0_u32; 3];
    for seed in 0..60 {
        let mut stage = Stage::new(seed, &[Honest, Honest]);
        stage.fund(5_000_000);
        stage.begin(request(2), TakerPolicy { chooser: Chooser::Cheapest, ..policy() });
        assert_eq!(stage.run().verdict.reason, Reason::Complete);
        let pushes: Vec<usize> =
            (0..2).filter(|m| stage.trace.contains(&format!("push {m}"))).collect();
        assert!(pushes.len() <= 1);
        pushed[pushes.first().copied().unwrap_or(2)] += 1;
    }
    assert!(pushed.iter().all(|count| (8..35).contains(count)), "{pushed:?}");
    // not-self: never our server, also when nobody sends it.
    let policy = |broadcast| TakerPolicy { broadcast, ..plain() };
    let mut stage = stage(&[NeverPushes; 2]);
    stage.begin(request(2), policy(BroadcastPolicy::NotSelf));
    let begun = stage.now;
    assert_eq!(stage.run().verdict.reason, Reason::NotBroadcast);
    assert!(stage.now - begun >= Duration::from_secs(180));
    assert!(!stage.trace.contains(&"ask broadcast".to_owned()));
    assert!(stage.outcome.as_ref().unwrap().verdict.text.contains("NOT broadcast"));
    // multiple-peers: two makers are asked; when neither does, we do after the timeout (row T15).
    let mut stage = crate::stories::stage(&[NeverPushes; 2]);
    stage.begin(request(2), policy(BroadcastPolicy::MultiplePeers));
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(stage.count("push"), 2);
    assert!(stage.trace.contains(&"ask broadcast".to_owned()));
}

#[test]
fn words_for_broadcast_policies() {
    for (word, policy) in [
        ("self", BroadcastPolicy::Own),
        ("random-peer", BroadcastPolicy::RandomPeer),
        ("not-self", BroadcastPolicy::NotSelf),
        ("multiple-peers", BroadcastPolicy::MultiplePeers),
    ] {
        assert_eq!(BroadcastPolicy::from_setting(word), (policy, true));
    }
    assert_eq!(BroadcastPolicy::from_setting("nobody"), (BroadcastPolicy::Own, false));
}

#[test]
fn extended_coin_texts_go_only_where_both_announced_them() {
    let stage = play(&[Neutrino, Honest], 2);
    let hint = |maker: usize| {
        stage.makers[maker].revelations[0].split('|').next().unwrap().split(':').count()
    };
    assert_eq!((hint(0), hint(1)), (4, 2));
    let mut stage = crate::stories::stage(&[Neutrino, Honest]);
    stage.begin(request(2), TakerPolicy { neutrino_compat: false, ..plain() });
    stage.run();
    assert!(
        stage
            .makers
            .iter()
            .all(|m| m.revelations[0].split('|').next().unwrap().split(':').count() == 2)
    );
}

/// `spec/protocol.md` 7.3: makers publish the commitment while the round runs.
#[test]
fn our_own_published_commitment_is_not_a_reuse() {
    let stage = play(&[Honest, Honest, SilentAtTx, Honest], 3);
    // The market publishes it before `!tx`, see the stage; everybody heard it, and it went on.
    assert_eq!(reason(&stage), Reason::Complete);
    let commitment = stage.makers[0].fills[0].commitment;
    assert!(stage.makers.iter().all(|maker| maker.blacklist.contains(&commitment)));
}

#[test]
fn what_strangers_say_changes_nothing() {
    let mut stage = stage(&[Honest; 3]);
    stage.begin(request(2), plain());
    while stage.count("fill") < 2 {
        stage.step();
    }
    let via = joinery_roles::event::Source::Irc(0);
    let stranger = stage.makers[2].nick;
    let key = &stage.makers[2].key;
    let said: Vec<String> = [
        (joinery_proto::private_message::PrivateWord::Error, "you are wrong"),
        (joinery_proto::private_message::PrivateWord::PubKey, "ff"),
        (joinery_proto::private_message::PrivateWord::Sig, "AAAA"),
    ]
    .iter()
    .map(|(word, text)| key.sign_message(*word, text, "onion-network"))
    .collect();
    for text in said {
        stage.tell(&ChannelEvent::Private { from: stranger, via, text });
    }
    let (nick, before) = (stage.makers[0].nick, stage.trace.len());
    stage.tell(&ChannelEvent::Private { from: nick, via, text: "garbage".to_owned() });
    stage.tell(&ChannelEvent::Left { nick, via });
    assert_eq!(stage.trace.len(), before);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
}

/// Makers of our own wait at the barrier for a silent one, and none is lost.
#[test]
fn makers_that_wait_at_the_barrier_are_not_lost() {
    let mut stage = stage(&[SilentAtFill]);
    stage.add_real_makers(3);
    stage.begin(request(3), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let outcome = stage.outcome.as_ref().unwrap();
    let failed: Vec<&str> = outcome.failed.values().map(|failure| failure.code).collect();
    assert_eq!((failed, outcome.honest.len(), outcome.attempts), (vec!["timed_out"], 3, 1));
    assert_eq!((stage.count("fill"), stage.count("auth")), (4, 3), "{:?}", stage.trace);
}

#[test]
fn what_a_person_agreed_to_pay_is_never_exceeded() {
    let cost = |stage: &Stage| stage.outcome.as_ref().unwrap().sums.clone().unwrap().cost;
    let free = play(&[Honest, Honest], 2);
    let usual = u64::try_from(cost(&free)).unwrap();
    let expected = free.progress.iter().find_map(|progress| progress.fees).unwrap();
    for sweep in [false, true] {
        for (most, end) in [
            (100_000, Reason::Complete),
            (expected.coinjoin_fee + expected.miner_fee, Reason::Complete),
            (usual / 2, Reason::FeeOutOfRange),
            (0, Reason::FeeOutOfRange),
        ] {
            // A sweep of three coins costs more than the payment from one.
            let most = if sweep && end == Reason::Complete { most + 10_000 } else { most };
            let mut stage = stage(&[Honest, Honest]);
            let amount = if sweep { 0 } else { AMOUNT };
            let policy = TakerPolicy { max_cost: Some(most), ..plain() };
            stage.begin(TakerRequest { amount, ..request(2) }, policy);
            assert_eq!(stage.run().verdict.reason, end, "sweep {sweep}, at most {most}");
            if end == Reason::Complete {
                assert!(u64::try_from(cost(&stage)).unwrap() <= most);
            } else {
                assert_eq!(stage.count("tx"), 0, "no maker saw anything");
            }
        }
    }
}

#[test]
fn an_address_that_was_agreed_to_once_is_shown_in_one_attempt_only() {
    for (once, attempts) in [(false, 3), (true, 1)] {
        let mut stage = stage(&[SilentAtTx; 6]);
        let policy = TakerPolicy { destination_once: once, ..plain() };
        stage.begin(request(2), policy);
        stage.run();
        assert_eq!(reason(&stage), Reason::NotSigned);
        assert_eq!(stage.outcome.as_ref().unwrap().attempts, attempts);
    }
    // As long as nobody was shown it, it may serve again.
    let mut stage = stage(&[SilentAtAuth, SilentAtAuth, Honest, Honest]);
    let policy = TakerPolicy { destination_once: true, replacement_rounds: 0, ..plain() };
    stage.begin(request(2), policy);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(stage.outcome.as_ref().unwrap().attempts, 2);
}
