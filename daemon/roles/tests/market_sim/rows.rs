//! Rows of `spec/roles.md` 11.1 and `spec/defects.md` 1 that are about what is never done, and what is said before
//! anybody is asked; the others are in `trouble.rs`.

use std::collections::BTreeSet;

use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::{Address, Network, ScriptBuf, WPubkeyHash};
use joinery_roles::ask::WalletView;
use joinery_roles::taker::{Destination, MakerStep, Reason, TakerPolicy, TakerRequest, preflight};
use joinery_wallet::types::Mixdepth;

use crate::fake_maker::Behaviour::*;
use crate::stage::{Stage, request};
use crate::stories::{plain, play, reason, stage};
use crate::trouble::failures;

/// Row T13, defect 14.
#[test]
fn maker_input_cap() {
    let mut stage = stage(&[Honest, Honest, Honest]);
    // Makers with odd numbers have two coins.
    let policy = TakerPolicy { max_maker_inputs: 1, ..plain() };
    stage.begin(request(2), policy);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(failures(&stage), ["too_many_inputs"]);
}

/// Row T16, defect 2.
#[test]
fn tx_sent_to_makers_has_no_side_channel() {
    let stage = play(&[Honest; 2], 2);
    let tx = &stage.wallet.signed[0];
    let sequences: BTreeSet<u32> = tx.input.iter().map(|input| input.sequence.0).collect();
    assert_eq!(sequences, BTreeSet::from([0xffff_fffe]));
    assert!(tx.input.iter().all(|input| input.script_sig.is_empty()));
    assert_eq!(tx.version.0, 2);
    assert!(tx.lock_time.to_consensus_u32() <= stage.chain.height);
}

/// Row T19: our own makers are not chosen.
#[test]
fn own_nicks_are_never_counterparties() {
    let stage = stage(&[Honest; 3]);
    let own = stage.makers[0].nick;
    let setup = joinery_roles::taker::TakerSetup {
        request: request(2),
        policy: plain(),
        nick: stage.makers[1].nick,
        own_nicks: BTreeSet::from([own]),
        avoid: BTreeSet::new(),
        epoch: 0,
    };
    let (view, book) = (stage.wallet.view(&stage.chain), stage.book());
    let mut taker =
        joinery_roles::taker::Taker::new(setup, view.into(), book.into(), [1; 32], stage.now);
    let via = joinery_roles::event::Source::Irc(0);
    taker.heard(&joinery_roles::event::ChannelEvent::Up(via), stage.now);
    let mut asked = None;
    while let Some(output) = taker.poll() {
        if let joinery_roles::taker::Output::Ask(id, _) = output {
            asked = Some(id);
        }
    }
    let rate = joinery_roles::ask::AttemptFeeRate { rate: 1_000, floor: 1_000 };
    let answer = joinery_roles::ask::Answer::FeeRate(Ok(rate));
    taker.answered(asked.unwrap(), answer, stage.now);
    let last = std::iter::from_fn(|| taker.poll()).filter_map(|output| match output {
        joinery_roles::taker::Output::Progress(progress) => progress.last,
        _ => None,
    });
    let texts: Vec<String> = last.map(|verdict| verdict.text).collect();
    assert!(texts[0].contains("1 makers known"), "{texts:?}");
}

/// Rows T8 and T9, and everything else that is said before anybody is asked (3.1).
#[test]
fn preflight_says_at_once_what_cannot_work() {
    let mut stage = stage(&[Honest; 2]);
    let policy = plain();
    let view = stage.wallet.view(&stage.chain);
    let why = |request: &TakerRequest, view: &WalletView| {
        preflight(request, &policy, view, Some(1_000)).map_err(|verdict| verdict.reason)
    };
    let good = why(&request(2), &view).unwrap();
    assert_eq!((good.available, good.tries_left), (12_000_000, 9));
    assert!(good.warnings.is_empty() && good.miner_fee.is_some());
    let with = |change: &dyn Fn(&mut TakerRequest)| {
        let mut request = request(2);
        change(&mut request);
        request
    };
    let foreign = Address::from_script(
        &ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([1; 20])),
        Network::Bitcoin,
    )
    .unwrap();
    let coin = view.coins[0].outpoint;
    for (request, reason) in [
        (with(&|r| r.mixdepth = Mixdepth(5)), Reason::BadMixdepth),
        (with(&|r| r.mixdepth = Mixdepth(1)), Reason::InsufficientFunds),
        (with(&|r| r.amount = 27_299), Reason::BadAmount),
        (with(&|r| r.amount = u64::MAX), Reason::BadAmount),
        (with(&|r| r.amount = 13_000_000), Reason::InsufficientFunds),
        (with(&|r| r.counterparties = 0), Reason::BadCounterparties),
        (with(&|r| r.counterparties = 100), Reason::BadCounterparties),
        (with(&|r| r.destination = Destination::Address(foreign.clone())), Reason::BadDestination),
        (with(&|r| r.inputs = Some(vec![])), Reason::BadInputs),
        (with(&|r| r.inputs = Some(vec![coin, coin])), Reason::BadInputs),
    ] {
        assert_eq!(why(&request, &view).unwrap_err(), reason, "{request:?}");
    }
    let unsynced = WalletView { synced: false, ..view };
    assert_eq!(why(&request(2), &unsynced).unwrap_err(), Reason::NotSynced);
    // Coins that are too new are another matter than coins that are used up.
    let mut young = Stage::new(1, &[]);
    young.wallet.fund(&mut young.chain, 0, 5_000_000, 2);
    let verdict =
        preflight(&request(2), &policy, &young.wallet.view(&young.chain), None).unwrap_err();
    assert_eq!(verdict.reason, Reason::CommitmentTooNew);
    assert!(verdict.text.contains("try again in 3 blocks"), "{}", verdict.text);
    for coin in stage.wallet.view(&stage.chain).coins {
        stage.wallet.use_commitments(coin.outpoint, &[0, 1, 2]);
    }
    let used = stage.wallet.view(&stage.chain);
    assert_eq!(why(&request(2), &used).unwrap_err(), Reason::CommitmentUnavailable);
    // A request that cannot work ends without asking anybody.
    stage.begin(request(2), policy.clone());
    assert_eq!(stage.run().verdict.reason, Reason::CommitmentUnavailable);
    assert_eq!(stage.trace, ["finished commitment_unavailable"]);
}

/// Row T21: signatures in any order, over any directory, twice.
#[test]
fn signatures_fit_by_key_and_maker() {
    // Makers with odd numbers have two inputs; messages overtake each other by their latency.
    for seed in 0..20 {
        let mut stage = Stage::new(seed, &[Honest; 4]);
        stage.fund(5_000_000);
        stage.begin(request(4), plain());
        assert_eq!(stage.run().verdict.reason, Reason::Complete);
    }
}

/// Row T22: one route for each message.
#[test]
fn every_message_goes_out_once() {
    let stage = play(&[Honest; 3], 3);
    let sent: Vec<&String> = stage.trace.iter().filter(|said| !said.starts_with("ask")).collect();
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len());
}

/// Row T23, defect 5: a key that a directory put in its place is found out.
#[test]
fn ioauth_binds_key_to_utxo() {
    let stage = play(&[ForeignSessionKey, Honest, Honest], 2);
    let dropped = stage.progress.iter().flat_map(|p| &p.makers).find_map(|m| match &m.step {
        MakerStep::Dropped(failure) => Some(failure.text.clone()),
        _ => None,
    });
    assert!(dropped.unwrap().contains("session key"));
}

#[test]
fn slow_makers_are_silent_makers() {
    let stage = play(&[Slow(70), Slow(20), Honest], 2);
    assert_eq!(reason(&stage), Reason::Complete);
    assert_eq!(failures(&stage), ["timed_out"]);
}

/// Answers that are not what was asked for, late ones and double ones: it ends in time, and nothing is signed for them.
#[test]
fn answers_of_the_wrong_kind_do_no_harm() {
    use joinery_roles::ask::{Answer, AskError};
    for seed in 0..40 {
        let mut stage = Stage::new(seed, &[Honest; 3]);
        stage.fund(5_000_000);
        stage.confuse = Some(|rng| match rand::Rng::random_range(rng, 0..6) {
            0 => Answer::Recorded(Ok(())),
            1 => Answer::Coins(Ok(Vec::new())),
            2 => Answer::Found(Ok(vec![None; 3])),
            3 => Answer::Reserved(Err(AskError::Internal("confused".to_owned()))),
            4 => Answer::Begun(Err(AskError::Closed)),
            _ => Answer::Broadcast(Err(AskError::Internal("confused".to_owned()))),
        });
        stage.begin(request(2), TakerPolicy { retries: 0, ..plain() });
        stage.run();
    }
}
