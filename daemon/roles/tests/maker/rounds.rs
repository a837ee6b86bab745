//! What must hold whatever takers do: nothing is signed for less, nothing is used twice, nothing grows, and after a
//! kill at any step the journal alone is enough to go on.

use std::collections::HashSet;
use std::time::Duration;

use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Transaction};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::PrivateWord;
use joinery_roles::ask::Question;
use joinery_roles::event::{ChannelEvent, DirectoryId, LinkId, Source};
use joinery_roles::order_book::BookOffer;
use joinery_wallet::round::RoundEvent;
use proptest::prelude::*;

use crate::stage::{
    DIRECTORY, FakeTaker, FakeWallet, Left, Stage, config, error_text, secs, words,
};

pub(crate) fn book_offer(nick: Nick) -> BookOffer {
    BookOffer {
        nick,
        offer: Offer::parse(OrderType::Sw0Relative, "0 100000 5000000000 0 0.00002").unwrap(),
        signed: true,
        disputed: false,
        heard: Duration::ZERO,
        directories: vec![DirectoryId(0)],
        direct: false,
        bond_value: 0.0,
    }
}

/// What a mutation does to a good transaction; true when what is left still pays us everything.
fn mutate(
    tx: &mut Transaction,
    kind: u8,
    place: usize,
    amount: u64,
    ours: &HashSet<OutPoint>,
) -> bool {
    let outputs = tx.output.len();
    let inputs = tx.input.len();
    match kind {
        // An input goes.
        0 => {
            tx.input.remove(place % inputs);
            // Without the taker's it spends more than there is.
            false
        }
        // An input is another one.
        1 => {
            let input = &mut tx.input[place % inputs];
            let was_ours = ours.contains(&input.previous_output);
            // Twice at the same place is another one again, not the first.
            input.previous_output.vout += 1;
            !was_ours
        }
        // An input comes twice.
        2 => {
            tx.input.push(tx.input[place % inputs].clone());
            false
        }
        // An output goes; the first two are ours.
        3 => {
            tx.output.remove(place % outputs);
            place % outputs >= 2
        }
        // An output is smaller.
        4 => {
            let output = &mut tx.output[place % outputs];
            output.value = Amount::from_sat(output.value.to_sat().saturating_sub(amount.max(1)));
            place % outputs >= 2
        }
        // An output goes to somebody else.
        5 => {
            tx.output[place % outputs].script_pubkey = ScriptBuf::from_bytes(vec![0x51]);
            place % outputs >= 2
        }
        // An output of ours comes twice.
        6 => {
            tx.output.push(tx.output[place % 2].clone());
            false
        }
        // Our two outputs change places.
        7 => {
            let first = tx.output[0].script_pubkey.clone();
            tx.output[0].script_pubkey = tx.output[1].script_pubkey.clone();
            tx.output[1].script_pubkey = first;
            false
        }
        // It can be mined in a long time only.
        8 => {
            tx.lock_time = bdk_wallet::bitcoin::absolute::LockTime::from_consensus(2_000_000_000);
            false
        }
        // A version that does not exist.
        9 => {
            tx.version = bdk_wallet::bitcoin::transaction::Version(4);
            false
        }
        // Another order.
        _ => {
            tx.output.rotate_left(place % outputs);
            tx.input.rotate_left(place % inputs);
            true
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// A maker never signs when any invariant of 4.7 is broken: each input and each output of a good transaction
    /// is bent in every way.
    #[test]
    fn no_signature_for_a_bent_transaction(
        bends in proptest::collection::vec((0_u8..11, 0_usize..8, 1_u64..2_000_000), 1..3),
        amount in 200_000_u64..2_300_000,
        tx_fee in prop::sample::select(vec![0_u64, 0, 3, 20]),
    ) {
        let mut config = config();
        config.terms.tx_fee = tx_fee;
        config.terms.relative_fee = "0.0002".parse().unwrap();
        let mut stage = Stage::with(config, &[(1, 700_000), (1, 800_000), (1, 900_000)]);
        let offer = stage.offers()[0];
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.amount = amount;
        taker.until_ioauth(&mut stage);
        let io = taker.io.clone().unwrap();
        let ours: HashSet<OutPoint> = io.utxos.iter().map(|utxo| utxo.outpoint).collect();
        let mut tx = taker.transaction(&stage, &offer);
        let good = tx.clone();
        let mut harmless = true;
        for (kind, place, change) in bends {
            // A mutation after outputs went is judged by what it finds: only the first may remove any.
            let intact = tx.output.len() == good.output.len() && tx.input.len() == good.input.len();
            if intact && tx.output[..2] == good.output[..2] {
                harmless &= mutate(&mut tx, kind, place, change, &ours);
            }
        }
        let said = taker.show(&mut stage, &tx);
        if harmless {
            prop_assert!(said.iter().all(|(word, _)| *word == PrivateWord::Sig), "{said:?}");
        } else {
            prop_assert_eq!(error_text(&said), Some("transaction rejected"));
            let rounds = stage.wallet.rounds();
            prop_assert!(rounds.iter().all(|round| round.signed.is_empty()));
        }
        // Whatever was signed pays us at least what was agreed.
        let agreed = i128::from(ours.iter().map(|o| stage.wallet.own(o).unwrap().value).sum::<u64>())
            + offer.earning(amount);
        for round in stage.wallet.rounds() {
            for (_, raw, _) in &round.signed {
                let signed: Transaction =
                    bdk_wallet::bitcoin::consensus::encode::deserialize(raw).unwrap();
                let back: u64 = signed
                    .output
                    .iter()
                    .filter(|output| round.scripts.contains(&output.script_pubkey))
                    .map(|output| output.value.to_sat())
                    .sum();
                prop_assert!(i128::from(back) >= agreed);
            }
        }
    }
}

/// Facts of a journal that must never repeat.
fn assert_nothing_twice(wallet: &FakeWallet) {
    let mut commitments = HashSet::new();
    let mut scripts = HashSet::new();
    let mut signed: HashSet<OutPoint> = HashSet::new();
    for round in wallet.rounds() {
        for event in &wallet.journal[&round.id] {
            if let RoundEvent::Revealed { scripts: shown, commitment } = event {
                assert!(commitments.insert(*commitment), "a commitment is used once");
                for script in shown {
                    assert!(scripts.insert(script.clone()), "a script is shown once");
                }
            }
        }
        if !round.signed.is_empty() {
            for coin in &round.coins {
                assert!(signed.insert(*coin), "no coin is signed away in two rounds");
            }
        }
    }
}

/// How a conversation went before the power failed.
struct Cut {
    stage: Stage,
    taker: FakeTaker,
    killed: bool,
}

/// Plays a conversation with `transactions` different `!tx`, one answer at a time, until `step` answers were given.
/// With `done` the wallet still does what is asked next; the machine never hears.
fn cut(coins: &[(u8, u64)], amount: u64, transactions: u64, step: usize, done: bool) -> Cut {
    let mut stage = Stage::new(coins);
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = amount;
    taker.fill(&mut stage);
    stage.slow = |_| true;
    stage.take_left();
    let text = taker.revelation();
    let sealed = taker.seal(&text);
    stage.private(&taker.key, DIRECTORY, PrivateWord::Auth, &sealed);
    let (mut answered, mut shown) = (0, 0);
    let killed = loop {
        if stage.waiting.is_empty() {
            let said = stage.said_to(taker.nick());
            taker.hear(&said);
            if taker.io.is_none() || shown == transactions {
                break false;
            }
            let mut tx = taker.transaction(&stage, &offer);
            tx.output[3].value -= Amount::from_sat(shown);
            shown += 1;
            let sealed = taker.seal(&joinery_proto::message::tx_payload(&tx));
            stage.private(&taker.key, DIRECTORY, PrivateWord::Tx, &sealed);
            continue;
        }
        let (id, question) = stage.waiting.remove(0);
        if answered == step {
            if done {
                let _ = stage.wallet.answer(question);
            }
            break true;
        }
        let answer = stage.wallet.answer(question);
        stage.maker.answered(id, answer, stage.now);
        stage.run();
        answered += 1;
    };
    Cut { stage, taker, killed }
}

/// What the wallet does when it is opened again: rounds that ran are over.
fn settle(wallet: &mut FakeWallet) {
    for events in wallet.journal.values_mut() {
        if !events.iter().any(|event| matches!(event, RoundEvent::Ended(_))) {
            events.push(RoundEvent::Ended(joinery_wallet::round::RoundEnd {
                code: "interrupted".to_owned(),
                text: String::new(),
                time: 0,
            }));
        }
    }
}

#[test]
fn killed_at_each_step_nothing_is_lost_and_nothing_used_twice() {
    let mut kills = 0;
    for scenario in 0..18_u64 {
        let coins: &[(u8, u64)] = match scenario % 4 {
            0 => &[(1, 3_000_000), (3, 3_100_000)],
            1 => &[(0, 700_000), (0, 800_000), (4, 3_000_000)],
            2 => &[(2, 2_000_000), (2, 2_100_000)],
            _ => &[(0, 3_000_000), (1, 3_000_000), (2, 3_000_000)],
        };
        let (amount, transactions) = (200_000 + scenario * 60_000, 1 + scenario % 3);
        for done in [true, false] {
            for step in 0..24 {
                let Cut { stage, mut taker, killed } = cut(coins, amount, transactions, step, done);
                if !killed {
                    // The whole conversation: three questions for the coins, three and two for the transactions.
                    assert!(step >= 6, "scenario {scenario}, step {step}");
                    break;
                }
                kills += 1;
                let mut wallet = stage.wallet.clone();
                // What left is durable.
                let revealed = wallet.blacklist().refuses(&taker.commitment());
                assert!(taker.io.is_none() || revealed);
                let signatures = stage
                    .left
                    .iter()
                    .filter(|left| matches!(left, Left::Said { word: PrivateWord::Sig, .. }));
                let recorded: usize = wallet.rounds().iter().map(|round| round.signed.len()).sum();
                let inputs = taker.io.as_ref().map_or(1, |io| io.utxos.len());
                assert!(signatures.count() / inputs <= recorded);
                settle(&mut wallet);
                let mut stage = Stage::open(config(), wallet);
                taker.shared = None;
                let offer = stage.offers()[0];
                let said = taker.fill(&mut stage);
                if revealed {
                    let text = error_text(&said).unwrap();
                    assert!(text.starts_with("Commitment is blacklisted: "));
                    taker.index = 1;
                    taker.fill(&mut stage);
                }
                assert_eq!(words(&taker.auth(&mut stage)), ["ioauth"], "{scenario} {step} {done}");
                let tx = taker.transaction(&stage, &offer);
                assert_eq!(words(&taker.show(&mut stage, &tx))[0], "sig");
                assert_nothing_twice(&stage.wallet);
            }
        }
    }
    assert!(kills >= 200, "{kills} kills");
}

/// A small generator for scripts of hostile takers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// Hostile and honest takers at once, over several ways, with kills of the maker: two hundred runs.
#[test]
fn market_of_liars_costs_nothing_but_what_the_commitments_allow() {
    let mut completed = 0;
    for seed in 1..=200_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let coins = [(0, 2_500_000), (1, 3_000_000), (1, 900_000), (3, 2_000_000), (4, 5_000_000)];
        let mut stage = Stage::new(&coins);
        let offer = stage.offers()[0];
        let mut takers: Vec<FakeTaker> = (0..8).map(|n| FakeTaker::new(&mut stage, n)).collect();
        let mut replay: Vec<(usize, Source, PrivateWord, String)> = Vec::new();
        let mut used: HashSet<Commitment> = HashSet::new();
        for _ in 0..60 {
            let who = usize::try_from(dice.roll(8)).unwrap();
            let via = match dice.roll(4) {
                0 => Source::Direct(LinkId(u64::try_from(who).unwrap() / 2)),
                n => Source::Directory(DirectoryId(u16::try_from(n).unwrap())),
            };
            let taker = &mut takers[who];
            taker.via = via;
            match dice.roll(13) {
                0..=2 => {
                    taker.amount = 100_000 + dice.roll(3_000_000);
                    taker.secret[9] = taker.secret[9].wrapping_add(1);
                    let payload = taker.fill_payload();
                    replay.push((who, via, PrivateWord::Fill, payload.clone()));
                    taker.fill_with(&mut stage, &payload);
                }
                3..=5 if taker.shared.is_some() => {
                    let text = taker.revelation();
                    let sealed = taker.seal(&text);
                    replay.push((who, via, PrivateWord::Auth, sealed.clone()));
                    stage.take_left();
                    stage.private(&taker.key, via, PrivateWord::Auth, &sealed);
                    let said = stage.said_to(taker.nick());
                    if words(&said) == ["ioauth"] {
                        taker.hear(&said);
                        assert!(used.insert(taker.commitment()), "one disclosure a commitment");
                        // At most three of these for each coin.
                        taker.index = (taker.index + 1) % 4;
                    }
                }
                6..=7 if taker.shared.is_some() && taker.io.is_some() => {
                    let mut tx = taker.transaction(&stage, &offer);
                    if dice.roll(3) == 0 {
                        let kind = u8::try_from(dice.roll(10)).unwrap();
                        let ours = stage.wallet.coins.iter().map(|coin| coin.outpoint).collect();
                        mutate(&mut tx, kind, 1, 1, &ours);
                    }
                    if tx.input.is_empty() || tx.output.is_empty() {
                        continue;
                    }
                    let sealed = taker.seal(&joinery_proto::message::tx_payload(&tx));
                    replay.push((who, via, PrivateWord::Tx, sealed.clone()));
                    stage.private(&taker.key, via, PrivateWord::Tx, &sealed);
                }
                8 if !replay.is_empty() => {
                    let (who, via, word, payload) =
                        replay[usize::try_from(dice.roll(1 << 30)).unwrap() % replay.len()].clone();
                    stage.private(&takers[who].key, via, word, &payload);
                }
                9 => stage.pass(secs(dice.roll(200))),
                10 => {
                    // The power fails. What was settled meanwhile is settled.
                    let mut wallet = stage.wallet.clone();
                    settle(&mut wallet);
                    takers.iter_mut().for_each(|taker| taker.shared = None);
                    stage = Stage::open(config(), wallet);
                }
                11 => {
                    // An honest taker between them.
                    let number = 100 + u32::try_from(dice.roll(1 << 20)).unwrap();
                    let mut honest = FakeTaker::new(&mut stage, number);
                    honest.amount = 100_000 + dice.roll(700_000);
                    if words(&honest.fill(&mut stage)) == ["pubkey"]
                        && words(&honest.auth(&mut stage)) == ["ioauth"]
                    {
                        let offer = stage.offers().first().copied().unwrap_or(offer);
                        let tx = honest.transaction(&stage, &offer);
                        honest.show(&mut stage, &tx);
                    }
                }
                _ => {
                    stage.public(taker.nick(), "orderbook");
                    stage.refresh();
                }
            }
            let state = stage.state.as_ref().unwrap();
            assert!(state.sessions_open <= 64);
        }
        assert_nothing_twice(&stage.wallet);
        // Every conversation ends by itself.
        stage.pass(secs(301));
        assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0, "seed {seed}");
        for round in stage.wallet.rounds() {
            assert!(round.end.is_some(), "seed {seed}: {round:?}");
            completed += round.signed.len();
            let offer_earns = round.sums.cost <= 0;
            assert!(offer_earns, "seed {seed}");
        }
        // Two addresses for each disclosure, and for each that was about to happen.
        let shown = stage.wallet.rounds().iter().filter(|round| !round.scripts.is_empty()).count();
        assert!(stage.wallet.addresses.len() <= 2 * shown + 4, "seed {seed}");
    }
    assert!(completed > 100, "honest steps come through: {completed}");
}

#[test]
fn flood_of_fills_and_auths_asks_the_chain_a_bounded_number_of_times() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    // Proofs cost a taker nothing; the coins do not exist.
    let mut number = 0;
    for _ in 0..60 {
        for _ in 0..20 {
            number += 1;
            let mut taker = FakeTaker::new(&mut stage, number);
            stage.wallet.chain.clear();
            if words(&taker.fill(&mut stage)) == ["pubkey"] {
                taker.auth(&mut stage);
            }
        }
        stage.pass(secs(1));
    }
    let look_ups = stage.wallet.asked.iter().filter(|kind| **kind == "look up").count();
    assert!(look_ups <= 32 + 2 * 61, "{look_ups}");
    assert!(stage.wallet.journal.is_empty() && stage.wallet.addresses.is_empty());
    // The same absent coin is not looked for twice in a minute.
    stage.pass(secs(400));
    let mut taker = FakeTaker::new(&mut stage, 9_999);
    stage.wallet.chain.clear();
    let before = stage.wallet.asked.len();
    for _ in 0..4 {
        taker.secret[9] += 1;
        taker.fill(&mut stage);
        assert_eq!(error_text(&taker.auth(&mut stage)), Some("commitment rejected: utxo"));
    }
    assert_eq!(stage.wallet.asked.len(), before + 1);
}

#[test]
fn at_most_four_coins_are_looked_up_at_once() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    stage.slow = |question| matches!(question, Question::LookUp(_));
    for number in 0..10 {
        let mut taker = FakeTaker::new(&mut stage, number);
        taker.fill(&mut stage);
        taker.auth(&mut stage);
    }
    assert_eq!(stage.waiting.len(), 4);
    let mut seen = 0;
    while !stage.waiting.is_empty() {
        assert!(stage.waiting.len() <= 4);
        let (id, question) = stage.waiting.remove(0);
        let answer = stage.wallet.answer(question);
        stage.maker.answered(id, answer, stage.now);
        stage.run();
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn utxo_lease_exclusive() {
    // Two takers at once on a maker with two accounts: different coins; the third gets none.
    let mut stage = Stage::new(&[(1, 3_000_000), (3, 3_100_000)]);
    let mut takers: Vec<FakeTaker> = (0..3).map(|n| FakeTaker::new(&mut stage, n)).collect();
    stage.slow = |question| matches!(question, Question::Open(_));
    for taker in &mut takers {
        taker.fill(&mut stage);
        taker.auth(&mut stage);
    }
    stage.take_left();
    stage.slow = |_| false;
    stage.answer_all();
    let held: Vec<OutPoint> = stage.wallet.rounds().into_iter().flat_map(|r| r.coins).collect();
    assert_eq!(held.len(), 2);
    assert_ne!(held[0], held[1]);
    let mut answers: Vec<&str> =
        takers.iter().flat_map(|taker| words(&stage.said_to(taker.nick()))).collect();
    answers.sort_unstable();
    assert_eq!(answers.iter().filter(|word| **word == "ioauth").count(), 2, "{answers:?}");
}

#[test]
fn gap_is_not_inflated_by_one_taker() {
    // Row 40: three commitments of a coin, three disclosures, six addresses; whatever else the taker sends.
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    for index in 0..6 {
        taker.index = index;
        for _ in 0..3 {
            taker.secret[9] += 1;
            if words(&taker.fill(&mut stage)) == ["pubkey"] {
                taker.auth(&mut stage);
                taker.auth(&mut stage);
            }
        }
        stage.pass(secs(3_700));
        stage.refresh();
    }
    let revealed = stage.wallet.rounds().iter().filter(|round| !round.scripts.is_empty()).count();
    assert_eq!((revealed, stage.wallet.addresses.len()), (3, 6));
}

#[test]
fn state_after_thousands_of_takers_is_bounded() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    for number in 0..3_000_u32 {
        let mut taker = FakeTaker::new(&mut stage, number);
        taker.via = Source::Direct(LinkId(u64::from(number)));
        stage.heard(&ChannelEvent::Public {
            from: taker.nick(),
            via: taker.via,
            text: "orderbook".to_owned(),
        });
        taker.fill(&mut stage);
        stage.take_left();
        stage.pass(Duration::from_millis(100));
    }
    assert!(stage.state.as_ref().unwrap().sessions_open <= 32);
    // Everything that is remembered of them fits a megabyte or so, as text.
    let printed = format!("{:?}", stage.maker).len();
    assert!(printed < 4_000_000, "{printed} characters");
}
