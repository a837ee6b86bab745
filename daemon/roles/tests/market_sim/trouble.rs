//! Everything that can go wrong: rows T1 to T25 of `spec/roles.md` 11.1, taker rows of `spec/defects.md` 1, and each
//! failing arrow of `spec/roles.md` 3.14.
//!
//! Rows T13, T16, T19, T21 to T23 and the preflight (T9) are in `rows.rs`, T15 and T17 among the stories. T8 has no test
//! of its own: bonds are never free (the wallet's rules). T18 is the API's. T3's score on the disk is the daemon's, fed by
//! [`joinery_roles::taker::Outcome::failed`]; T22's dedup is the channel's (`roles/src/channel/recent.rs`). Defects 1, 3
//! to 8, 17 and 42 are tested in the proto crate, 9 to 12 with the order book and the channel.

use std::collections::BTreeSet;
use std::time::Duration;

use joinery_roles::taker::{MakerStep, Phase, Reason, TakerPolicy, TakerRequest};
use joinery_wallet::round::RoundEvent;

use crate::fake_maker::Behaviour::*;
use crate::stage::{AMOUNT, Stage, request};
use crate::stories::{plain, play, reason, stage};

/// Indexes of the commitments that were used, in order.
fn indexes(stage: &Stage) -> Vec<u8> {
    let events = stage.wallet.journal.iter();
    events
        .filter_map(|(_, event)| match event {
            RoundEvent::CommitmentSent { index, .. } => Some(*index),
            _ => None,
        })
        .collect()
}

pub(crate) fn failures(stage: &Stage) -> Vec<&'static str> {
    stage.outcome.as_ref().unwrap().failed.values().map(|failure| failure.code).collect()
}

/// Row T4; the first arrow REPLACE: with the same commitment, while nothing was revealed.
#[test]
fn silent_makers_are_replaced_in_the_fill_phase() {
    for (bad, code) in [
        (SilentAtFill, "timed_out"),
        (RefusesFill, "counterparty_error"),
        (WeakKey, "unreadable"),
        (SaysBlacklisted, "commitment_refused"),
    ] {
        let stage = play(&[bad, Honest, Honest, Honest], 3);
        assert_eq!(reason(&stage), Reason::Complete, "{bad:?}");
        assert_eq!(indexes(&stage), [0], "{bad:?}");
        assert_eq!(failures(&stage), [code], "{bad:?}");
        assert_eq!((stage.count("fill"), stage.count("auth")), (4, 3), "{bad:?}");
        let place = |word: &str| stage.trace.iter().position(|said| said.starts_with(word));
        assert!(place("auth") > place("fill 3"), "the barrier: no auth before all keys are here");
    }
}

/// Row T25: a replacement after `!auth` gets the next commitment, because the first is known to everybody.
#[test]
fn a_maker_lost_after_auth_is_replaced_with_the_next_commitment() {
    for (bad, code) in [
        (SilentAtAuth, "timed_out"),
        (ErrorAtAuth, "counterparty_error"),
        (ForeignSessionKey, "maker_refused"),
        (SpentCoin, "maker_refused"),
        (UnconfirmedCoin, "maker_refused"),
        (DustChange, "maker_refused"),
        (SameAddresses, "maker_refused"),
        (ForeignNetwork, "maker_refused"),
        (ManyInputs, "too_many_inputs"),
    ] {
        let stage = play(&[bad, Honest, Honest], 2);
        assert_eq!(reason(&stage), Reason::Complete, "{bad:?}");
        assert_eq!(indexes(&stage), [0, 1], "{bad:?}");
        assert_eq!(failures(&stage), [code], "{bad:?}");
        // T5: nothing of the bad maker is in the transaction.
        let tx = &stage.wallet.signed[0];
        let bad_coin = stage.makers[0].coins[0].outpoint;
        assert!(tx.input.iter().all(|input| input.previous_output != bad_coin));
        assert_eq!(stage.outcome.as_ref().unwrap().attempts, 1);
        // The maker that was verified before is not asked again.
        assert_eq!(stage.trace.iter().filter(|said| *said == "fill 1").count(), 1);
    }
}

/// A clear-text `!error` that answers `!auth` is acted on at once.
#[test]
fn an_error_is_not_waited_out() {
    let mut stage = stage(&[ErrorAtAuth, RefusesFill, Honest, Honest]);
    stage.begin(request(2), plain());
    let begun = stage.now;
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert!(stage.now - begun < Duration::from_secs(30), "{:?}", stage.now - begun);
}

#[test]
fn makers_cannot_put_a_coin_of_ours_in() {
    let mut stage = stage(&[TakersCoin, Honest, Honest]);
    // One that is not an input.
    let other = stage.wallet.fund(&mut stage.chain, 2, 50_000_000, 50);
    stage.makers[0].takers_coin = Some(other);
    stage.begin(request(2), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(failures(&stage), ["maker_refused"]);
}

/// FILL, majority blacklisted: rotate. The same makers are asked again with the next index.
#[test]
fn a_majority_that_knows_the_commitment_makes_us_take_the_next() {
    let mut stage = stage(&[Honest; 3]);
    // Somebody published the first commitment of the coin that will be used.
    stage.begin(request(3), plain());
    while stage.count("fill") == 0 {
        stage.step();
    }
    // The cheapest coin that suffices: find the commitment by letting one maker hear it.
    while stage.makers.iter().all(|maker| maker.fills.is_empty()) {
        stage.step();
    }
    let commitment = stage.makers.iter().find_map(|m| m.fills.first()).unwrap().commitment;
    for maker in &mut stage.makers {
        maker.blacklist.insert(commitment);
    }
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(indexes(&stage), [0, 1]);
    assert!(failures(&stage).is_empty(), "{:?}", failures(&stage));
    assert_eq!(stage.outcome.as_ref().unwrap().honest.len(), 3);
}

/// FILL, majority blacklisted, no commitment left.
#[test]
fn when_all_commitments_are_known_it_ends_with_that_reason() {
    let mut stage = Stage::new(3, &[SaysBlacklisted; 8]);
    stage.fund(5_000_000);
    stage.begin(request(4), plain());
    assert_eq!(stage.run().verdict.reason, Reason::CommitmentUnavailable);
    assert_eq!(indexes(&stage), [0, 1, 2]);
}

/// Row T7: one liar of two cannot use up all tries.
#[test]
fn one_liar_among_few_costs_one_commitment() {
    let stage = play(&[SaysBlacklisted, Honest, Honest], 2);
    assert_eq!(reason(&stage), Reason::Complete);
    assert_eq!(indexes(&stage), [0, 1]);
}

/// A liar among replacements is dropped: the commitment that only it was asked with is not given up for its word.
#[test]
fn one_lying_replacement_costs_no_commitment() {
    let stage = play(&[SilentAtAuth, Honest, SaysBlacklisted, Honest], 2);
    assert_eq!(reason(&stage), Reason::Complete);
    assert_eq!(indexes(&stage), [0, 1]);
}

/// Complaints about a commitment that is given up already, still under way or repeated, are not counted again.
#[test]
fn late_complaints_do_not_give_up_a_second_commitment() {
    for seed in 0..20 {
        let mut stage = Stage::new(seed, &[Honest; 6]);
        stage.fund(5_000_000);
        stage.begin(request(6), plain());
        while stage.makers.iter().all(|maker| maker.fills.is_empty()) {
            stage.step();
        }
        let first = stage.makers.iter().find_map(|m| m.fills.first()).unwrap().commitment;
        for maker in &mut stage.makers {
            maker.blacklist.insert(first);
        }
        assert_eq!(stage.run().verdict.reason, Reason::Complete);
        assert_eq!(indexes(&stage), [0, 1]);
    }
}

/// The last commitment is not spent on making a sufficient round larger.
#[test]
fn a_sufficient_round_keeps_the_last_commitment() {
    let mut stage = Stage::new(1, &[SilentAtAuth, Honest, Honest, Honest]);
    let coin = stage.fund(5_000_000);
    stage.wallet.use_commitments(coin, &[0]);
    let policy = TakerPolicy { minimum_makers: 2, ..plain() };
    stage.begin(request(3), policy);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(indexes(&stage), [1]);
    assert_eq!(stage.outcome.as_ref().unwrap().honest.len(), 2);
}

/// AUTH, too few: RETRYABLE(makers), and at the end that reason.
#[test]
fn too_few_makers_end_after_all_attempts() {
    let mut stage = stage(&[SilentAtFill, SilentAtFill, SilentAtAuth, ErrorAtAuth, Honest]);
    stage.begin(request(2), plain());
    stage.run();
    let outcome = stage.outcome.as_ref().unwrap();
    assert!(
        matches!(outcome.verdict.reason, Reason::NotEnoughMakers | Reason::NotEnoughOffers),
        "{:?}",
        outcome.verdict
    );
    assert_eq!(outcome.failed.len(), 4);
    assert!(stage.wallet.signed.is_empty());
    assert!(stage.wallet.view(&stage.chain).coins.iter().all(|coin| coin.free));
}

/// Row T3: whoever failed is not asked again.
#[test]
fn failed_makers_are_not_asked_again() {
    let mut stage = stage(&[SilentAtTx, SilentAtTx, Honest, Honest, Honest]);
    stage.begin(request(2), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    for maker in 0..2 {
        let asked = format!("fill {maker}");
        assert_eq!(stage.trace.iter().filter(|said| **said == asked).count(), 1);
    }
}

/// SIGN: the signers get a second transaction without the silent one; no new commitment (3.11).
#[test]
fn signers_are_shown_a_second_transaction() {
    for bad in [SilentAtTx, BadSignatures] {
        let mut stage = stage(&[Honest, bad, Honest]);
        let policy = TakerPolicy { minimum_makers: 2, ..plain() };
        stage.begin(request(3), policy);
        let begun = stage.now;
        assert_eq!(stage.run().verdict.reason, Reason::Complete, "{bad:?}");
        assert_eq!(indexes(&stage), [0]);
        assert_eq!((stage.count("tx"), stage.outcome.as_ref().unwrap().attempts), (5, 1));
        assert_eq!(stage.outcome.as_ref().unwrap().honest.len(), 2);
        assert_eq!(stage.wallet.signed.len(), 1, "ours went to the second only");
        let waited = stage.now - begun >= Duration::from_secs(120);
        assert_eq!(waited, bad == SilentAtTx, "two bad signatures are enough");
    }
}

/// A message of a maker that has signed, heard after the deadline and before the tick, does not cost us that maker.
#[test]
fn a_message_at_the_deadline_does_not_cost_a_signer() {
    let mut stage = stage(&[Honest, SilentAtTx, Honest]);
    stage.begin(request(3), TakerPolicy { minimum_makers: 2, ..plain() });
    let signed = |stage: &Stage| {
        let makers = &stage.progress.last().unwrap().makers;
        makers.iter().filter(|maker| maker.step == MakerStep::Signed).count()
    };
    while signed(&stage) < 2 {
        stage.step();
    }
    stage.now = stage.progress.last().unwrap().deadline.unwrap() + Duration::from_millis(1);
    let (from, via) = (stage.makers[0].nick, joinery_roles::event::Source::Irc(0));
    let word = joinery_proto::private_message::PrivateWord::Sig;
    let text = stage.makers[0].key.sign_message(word, "AAAA", "onion-network");
    stage.tell(&joinery_roles::event::ChannelEvent::Private { from, via, text });
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!((failures(&stage).len(), stage.outcome.as_ref().unwrap().attempts), (1, 1));
}

/// Without a next commitment, makers that call the last one blacklisted are replaced as long as others accept it.
#[test]
fn liars_cannot_end_an_attempt_with_the_last_commitment() {
    let mut stage =
        Stage::new(2, &[SaysBlacklisted, SaysBlacklisted, Honest, Honest, Honest, Honest]);
    let coin = stage.fund(5_000_000);
    stage.wallet.use_commitments(coin, &[0, 1]);
    stage.begin(request(4), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(indexes(&stage), [2]);
}

/// SIGN: joinmarket-ng makers do not answer a second `!tx`; then a new attempt, with the signers first.
#[test]
fn signers_that_closed_their_session_come_first_in_the_next_attempt() {
    let mut stage = stage(&[SilentAtTx, SignsOnce, SignsOnce, Honest, Honest]);
    let policy = TakerPolicy { minimum_makers: 2, ..plain() };
    stage.begin(request(3), policy);
    stage.run();
    let outcome = stage.outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict.reason, Reason::Complete, "{:?}", outcome.verdict);
    assert_eq!(outcome.attempts, 2);
}

/// The same where nobody else is left: enough of them signed, so those must do.
#[test]
fn signers_that_closed_their_session_suffice_when_nobody_else_is_left() {
    for amount in [1_000_000, 0] {
        let mut stage = stage(&[SilentAtTx, SignsOnce, SignsOnce]);
        let policy = TakerPolicy { minimum_makers: 2, ..plain() };
        stage.begin(TakerRequest { amount, ..request(3) }, policy);
        stage.run();
        let outcome = stage.outcome.as_ref().unwrap();
        assert_eq!(outcome.verdict.reason, Reason::Complete, "{:?}", outcome.verdict);
        assert_eq!((outcome.attempts, outcome.honest.len()), (2, 2));
    }
    // But not where fewer than the least signed.
    let mut stage = stage(&[SilentAtTx, SilentAtTx, SignsOnce]);
    let policy = TakerPolicy { minimum_makers: 2, ..plain() };
    stage.begin(request(3), policy);
    stage.run();
    assert_eq!(stage.outcome.as_ref().unwrap().verdict.reason, Reason::NotEnoughOffers);
}

/// RECHECK, input spent: RETRYABLE(conflict); row T6: before our signature, and the right one is blamed.
#[test]
fn a_coin_that_is_spent_before_we_sign_is_noticed() {
    let stage = play(&[Steals, Honest, Honest], 2);
    assert_eq!(reason(&stage), Reason::Complete);
    assert_eq!(failures(&stage), ["input_spent"]);
    assert_eq!(stage.outcome.as_ref().unwrap().attempts, 2);
    assert_eq!(stage.wallet.signed.len(), 1);
    let rounds: Vec<&str> = stage
        .wallet
        .rounds
        .values()
        .map(|round| round.end.as_ref().unwrap().code.as_str())
        .collect();
    assert_eq!(rounds, ["input_spent", "complete"]);
}

/// RECHECK: a coin of ours that is gone is noticed, too.
#[test]
fn our_own_coin_that_is_spent_elsewhere_is_noticed() {
    let mut stage = stage(&[Honest; 2]);
    stage.at_phase.push((Phase::Rechecking, |stage| {
        let held = stage.wallet.rounds.values().next().unwrap().coins[0];
        stage.chain.steal(&held);
        stage.balance = stage.chain.balance(|script| stage.wallet.owns(script));
        stage.refresh_view();
    }));
    stage.begin(request(2), plain());
    stage.run();
    assert_eq!(
        stage.wallet.rounds.values().next().unwrap().end.as_ref().unwrap().code,
        "input_spent"
    );
}

/// BROADCAST, rejected; row T2: the state ends. There is no new attempt: the refused transaction is complete, and whoever
/// has it could send it later; a second one with other coins would pay twice.
#[test]
fn a_transaction_that_our_server_refuses_ends_with_its_words() {
    let mut stage = stage(&[Honest; 2]);
    stage.wallet.faults.rejects = true;
    stage.begin(request(2), plain());
    let outcome = stage.run();
    assert!(!outcome.is_success());
    assert!(outcome.verdict.text.contains("min relay fee not met"), "{}", outcome.verdict.text);
    assert!(outcome.txid.is_some() && outcome.transaction.is_some());
    assert_eq!(outcome.attempts, 1);
    assert_eq!(stage.wallet.signed.len(), 1);
}

/// Defect 20: also in a wallet of one account.
#[test]
fn cj_and_change_distinct() {
    let mut stage = stage(&[Honest; 2]);
    stage.wallet.max_mixdepth = 0;
    stage.begin(request(2), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let view = stage.wallet.view(&stage.chain);
    let fresh: Vec<u64> =
        view.coins.iter().filter(|coin| coin.height.is_none()).map(|coin| coin.value).collect();
    assert_eq!(fresh.len(), 2);
    assert!(fresh.contains(&AMOUNT));
    assert_eq!(stage.wallet.issued.iter().collect::<BTreeSet<_>>().len(), 2);
}

/// Row T24: that the chain cannot be asked is nobody's fault.
#[test]
fn nobody_is_blamed_when_the_chain_cannot_be_asked() {
    let mut stage = stage(&[Honest; 2]);
    stage.begin(request(2), TakerPolicy { retries: 0, ..plain() });
    stage.at_phase.push((Phase::Authorising, |stage| stage.wallet.faults.unreachable = 1.0));
    assert_eq!(stage.run().verdict.reason, Reason::ChainUnreachable);
    assert!(failures(&stage).is_empty());
    // Now and then is no harm.
    let mut stage = crate::stories::stage(&[Honest; 2]);
    stage.wallet.faults.unreachable = 0.5;
    stage.begin(request(2), plain());
    let reason = stage.run().verdict.reason;
    assert!(matches!(reason, Reason::Complete | Reason::ChainUnreachable));
    assert!(failures(&stage).is_empty());
}

/// What the server does not answer about is not said to be gone; and a maker that names such coins does not stop the
/// request again and again.
#[test]
fn maker_whose_coins_get_no_answer_is_left_out_without_blame() {
    for replacement_rounds in [0, 2] {
        let mut stage = stage(&[Honest; 4]);
        let coin = stage.makers[0].coins[0].outpoint;
        stage.wallet.faults.unanswered.insert(coin);
        stage.begin(request(2), TakerPolicy { replacement_rounds, minimum_makers: 2, ..plain() });
        assert_eq!(stage.run().verdict.reason, Reason::Complete);
        assert!(failures(&stage).is_empty(), "{:?}", failures(&stage));
        assert_eq!(stage.trace.iter().filter(|said| *said == "fill 0").count(), 1);
        let attempts = stage.outcome.as_ref().unwrap().attempts;
        assert_eq!(attempts, if replacement_rounds == 0 { 2 } else { 1 });
    }
}

/// Nothing leaves before its fact is durable.
#[test]
fn a_full_disk_stops_everything_before_it_leaves() {
    // Records in order: reserved, commitment, shown, signed.
    for (full_after, leaves) in [(0, ""), (1, ""), (2, "auth"), (3, "tx")] {
        let mut stage = stage(&[Honest; 2]);
        stage.wallet.faults.full_after = Some(full_after);
        stage.begin(request(2), plain());
        assert_eq!(stage.run().verdict.reason, Reason::Storage, "{full_after}");
        let last = stage
            .trace
            .iter()
            .rev()
            .find(|said| !said.starts_with("ask") && !said.starts_with("finished"));
        let last = last.map(|said| said.split(' ').next().unwrap()).unwrap_or_default();
        assert_eq!(last, leaves, "{full_after}");
        assert_eq!(stage.count("push"), 0);
        assert!(stage.chain.transactions.is_empty());
    }
}

/// Row T1: every state has a deadline, also when the wallet does not answer.
#[test]
fn every_state_ends_when_nobody_answers() {
    for question in [
        "fee rate",
        "begin",
        "reserve",
        "coins",
        "record commitment",
        "address",
        "look up",
        "record shown",
        "broadcast",
        "end",
    ] {
        let mut stage = stage(&[Honest; 2]);
        stage.deaf.push(question);
        stage.begin(request(2), TakerPolicy { retries: 0, ..plain() });
        let reason = stage.run().verdict.reason;
        let good = reason == Reason::Complete;
        assert_eq!(good, question == "end", "{question}: {reason:?}");
    }
}

#[test]
fn coins_that_something_else_took_are_left_alone() {
    let mut stage = stage(&[Honest; 2]);
    stage.wallet.faults.unusable = true;
    stage.begin(request(2), plain());
    stage.at_phase.push((Phase::Pausing, |stage| stage.wallet.faults.unusable = false));
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    let codes: Vec<&str> = stage
        .wallet
        .rounds
        .values()
        .map(|round| round.end.as_ref().unwrap().code.as_str())
        .collect();
    assert_eq!(codes, ["coins_taken", "complete"]);
}

/// Row T20, defect 21: addresses are issued before they are shown, and never shown in two attempts; those that nobody
/// was shown serve again.
#[test]
fn addresses_of_a_shown_transaction_are_burned() {
    // The first attempt fails before `!tx`.
    let mut stage = stage(&[SilentAtAuth, SilentAtAuth, Honest, Honest, Honest]);
    stage.begin(request(2), TakerPolicy { replacement_rounds: 0, ..plain() });
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(stage.wallet.issued.len(), 2);
    // The first attempt fails after it.
    let mut stage = crate::stories::stage(&[SilentAtTx, SilentAtTx, Honest, Honest, Honest]);
    stage.begin(request(2), plain());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(stage.wallet.issued.len(), 4);
}

/// Row T14: a fee that the inputs do not cover ends the attempt cleanly, and the next one selects for it.
#[test]
fn a_fee_too_large_for_the_inputs_ends_the_attempt_and_is_learnt_from() {
    let mut stage = Stage::new(5, &[Honest; 4]);
    // Exactly enough for the estimate of three inputs a party; makers bring more than that.
    let secret = crate::fake_maker::secret;
    for maker in &mut stage.makers {
        for number in 0..8 {
            let key = secret(&format!("{} {number}", maker.nick));
            let script =
                joinery_proto::transaction::signing::p2wpkh(&key.public_key(joinery_proto::secp()));
            let outpoint = stage.chain.fund(script, 30_000, 20);
            maker
                .coins
                .push(joinery_proto::transaction::signing::OwnCoin::new(outpoint, 30_000, key));
            maker.worth += 30_000;
        }
    }
    stage.fund(AMOUNT + 8_000);
    stage.fund(AMOUNT + 400_000);
    stage.begin(request(4), plain());
    let outcome = stage.run();
    assert_eq!(outcome.verdict.reason, Reason::Complete, "{:?}", outcome.verdict);
    assert_eq!(outcome.attempts, 2);
    let codes: Vec<&str> =
        stage.wallet.rounds.values().map(|r| r.end.as_ref().unwrap().code.as_str()).collect();
    assert_eq!(codes, ["fee_out_of_range", "complete"]);
}

/// Rows T10 to T12: one rate for all estimates, and a sweep whose fee is far from the plan is not made.
#[test]
fn a_sweep_whose_fee_is_far_off_is_not_made() {
    let mut stage = stage(&[Honest; 3]);
    let policy = TakerPolicy { max_sweep_fee_change: 0.1, retries: 0, ..plain() };
    stage.begin(TakerRequest { amount: 0, ..request(3) }, policy);
    assert_eq!(stage.run().verdict.reason, Reason::FeeOutOfRange);
    assert_eq!(stage.trace.iter().filter(|said| *said == "ask fee rate").count(), 1);
    assert_eq!(stage.count("tx"), 0);
}

/// A replacement does not make the round dearer than was budgeted (3.9, for sweeps to the satoshi).
#[test]
fn replacements_stay_within_the_budget() {
    // The replacement would cost more than the maker that it replaces.
    let mut stage = stage(&[SilentAtFill, Honest, Honest]);
    let policy = TakerPolicy { minimum_makers: 1, retries: 0, ..plain() };
    stage.begin(TakerRequest { amount: 0, ..request(2) }, policy.clone());
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
    assert_eq!(stage.outcome.as_ref().unwrap().honest.len(), 1);
    // The other way round it may come in.
    let mut stage = crate::stories::stage(&[Honest, Honest, SilentAtFill]);
    let mut book = stage.book();
    book.offers.swap(0, 2);
    stage.begin_with(TakerRequest { amount: 0, ..request(2) }, policy, book);
    assert_eq!(stage.run().verdict.reason, Reason::Complete);
}
