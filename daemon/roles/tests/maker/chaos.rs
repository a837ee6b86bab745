//! Anything in any order: the machine never panics, keeps its bounds, and ends when it is told to.

use std::sync::Arc;

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::private_message::{ONION_HOSTID, PrivateWord};
use joinery_proto::transaction::maker::MakerRefusal;
use joinery_roles::ask::{Answer, AskError, AttemptFeeRate, QuestionId, SendResult, WalletView};
use joinery_roles::event::{ChannelEvent, DirectoryId, LinkId, Source};
use joinery_roles::maker::MakerEnd;
use proptest::prelude::*;

use crate::stage::{DIRECTORY, FakeTaker, Left, Stage, secs};

/// An answer to some other question.
fn foreign_answer(kind: u8) -> Answer {
    match kind % 12 {
        0 => Answer::Begun(Err(AskError::Internal(String::new()))),
        1 => Answer::Opened(Err(AskError::Unusable(OutPoint::null()))),
        2 => Answer::Coins(Ok(Vec::new())),
        3 => Answer::Recorded(Ok(())),
        4 => Answer::Found(Ok(Vec::new())),
        5 => Answer::FeeRate(Ok(AttemptFeeRate { rate: u64::MAX, floor: u64::MAX })),
        6 => Answer::Broadcast(Ok(SendResult::Unknown)),
        7 => Answer::Found(Err(AskError::Unreachable(String::new()))),
        8 => Answer::Address(Err(AskError::Internal(String::new()))),
        9 => Answer::Signed(Err(AskError::Refused(MakerRefusal::Supply))),
        10 => Answer::Revealed(Err(AskError::Internal(String::new()))),
        _ => Answer::Certified(Err(AskError::Internal(String::new()))),
    }
}

fn via(kind: u8) -> Source {
    match kind % 3 {
        0 => Source::Direct(LinkId(u64::from(kind / 3))),
        1 => Source::Irc(u16::from(kind / 3)),
        _ => Source::Directory(DirectoryId(u16::from(kind / 3))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn anything_in_any_order_is_survived(
        script in proptest::collection::vec((0_u8..14, any::<u8>(), "[ -~]{0,60}"), 1..60),
    ) {
        let mut stage = Stage::new(&[(0, 3_000_000), (1, 2_000_000), (3, 900_000)]);
        let offer = stage.offers()[0];
        let mut takers: Vec<FakeTaker> = (0..3).map(|n| FakeTaker::new(&mut stage, n)).collect();
        stage.slow = |_| true;
        for (kind, number, text) in script {
            let taker = &mut takers[usize::from(number % 3)];
            match kind {
                0 => {
                    taker.secret[9] = taker.secret[9].wrapping_add(number);
                    taker.fill(&mut stage);
                }
                1 if taker.shared.is_some() => {
                    let said = taker.auth(&mut stage);
                    taker.hear(&said);
                }
                2 if taker.shared.is_some() && taker.io.is_some() => {
                    let tx = taker.transaction(&stage, &offer);
                    taker.show(&mut stage, &tx);
                }
                3 => stage.public(taker.nick(), &text),
                4 => {
                    let words = [PrivateWord::Fill, PrivateWord::Auth, PrivateWord::Tx, PrivateWord::Push];
                    let word = words[usize::from(number % 4)];
                    stage.private(&taker.key, via(number), word, &format!("x{text}"));
                }
                5 => {
                    let text = taker.key.sign_message(PrivateWord::Hp2, "ab", ONION_HOSTID);
                    stage.heard(&ChannelEvent::Private { from: taker.nick(), via: via(number), text });
                }
                // An answer as it should be, the oldest or another one.
                6..=8 if !stage.waiting.is_empty() => {
                    let place = if kind == 8 { usize::from(number) % stage.waiting.len() } else { 0 };
                    let (id, question) = stage.waiting.remove(place);
                    let answer = stage.wallet.answer(question);
                    stage.maker.answered(id, answer, stage.now);
                    stage.run();
                    let said = stage.said_to(takers[0].nick());
                    if takers[0].shared.is_some() && said.iter().all(|(w, _)| *w == PrivateWord::IoAuth) {
                        takers[0].hear(&said);
                    }
                }
                // One that belongs to another question, or to none.
                9 if number % 4 == 0 && !stage.waiting.is_empty() => {
                    let (id, _) = stage.waiting.remove(0);
                    stage.maker.answered(id, foreign_answer(number), stage.now);
                    stage.run();
                }
                10 => {
                    stage.maker.answered(QuestionId(u64::MAX), foreign_answer(number), stage.now);
                    stage.run();
                }
                11 => stage.pass(secs(u64::from(number))),
                12 if number % 8 == 0 => {
                    stage.maker.wallet(Arc::new(WalletView::default()), stage.now);
                    stage.run();
                }
                12 => stage.refresh(),
                _ => {
                    let event = if number % 2 == 0 {
                        ChannelEvent::Up(via(number))
                    } else {
                        ChannelEvent::Down(DIRECTORY)
                    };
                    stage.heard(&event);
                }
            }
            prop_assert!(stage.state.as_ref().unwrap().sessions_open <= 3);
            // A message of ours is short enough for a line, whatever was echoed.
            for left in &stage.left {
                if let Left::Said { payload, .. } = left {
                    prop_assert!(payload.len() < 4_000);
                }
            }
        }
        stage.slow = |_| false;
        stage.answer_all();
        stage.maker.stop(stage.now);
        stage.run();
        stage.pass(secs(31));
        prop_assert!(matches!(stage.left.last(), Some(Left::Finished(MakerEnd::Stopped))));
        prop_assert_eq!(stage.maker.next_wake(), None);
    }
}
