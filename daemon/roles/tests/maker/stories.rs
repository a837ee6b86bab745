//! What a maker answers in each row of the tables of `spec/roles.md` 4.4, 4.5, 4.7 and 4.12.

use std::collections::BTreeSet;
use std::time::Duration;

use bdk_wallet::bitcoin::Amount;
use joinery_proto::private_message::PrivateWord;
use joinery_roles::ask::AskError;
use joinery_roles::event::{LinkId, Source};
use joinery_roles::maker::{MAX_PER_LINK, MAX_SESSIONS, MakerEnd, Output};

use crate::stage::{
    DIRECTORY, FakeTaker, Left, Stage, config, error_text, key, maker_nick, outpoint, secs, words,
};

const COIN: u64 = 3_000_000;

fn stage() -> Stage {
    Stage::new(&[(1, COIN)])
}

// 4.4: `!fill`

#[test]
fn fill_is_answered_with_a_key_and_nothing_of_the_wallet() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    let said = taker.fill(&mut stage);
    assert_eq!(words(&said), ["pubkey"]);
    assert!(said[0].1.ends_with(" features=neutrino_compat"));
    assert!(stage.wallet.asked.is_empty(), "{:?}", stage.wallet.asked);
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 1);
    let [Left::Said { prefer, .. }] = stage.left.as_slice() else { panic!("{:?}", stage.left) };
    assert_eq!(*prefer, Some(DIRECTORY), "back on the way on which it came");
}

#[test]
fn each_bad_fill_has_its_text() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    let good = taker.fill_payload();
    let fields: Vec<&str> = good.split(' ').collect();
    let with = |place: usize, text: &str| {
        let mut fields = fields.clone();
        fields[place] = text;
        fields.join(" ")
    };
    let other_type = format!("Q{}", &fields[3][1..]);
    for (payload, reply) in [
        (with(0, "x"), Some("number is malformed or out of range")),
        (with(1, "1e6"), Some("number is malformed or out of range")),
        (fields[..3].join(" "), Some("payload has too few fields")),
        (with(3, &other_type), Some("Unsupported commitment type: Q")),
        (with(3, &format!("P{}", "zz".repeat(32))), None),
        (with(3, &fields[3][..64]), None),
        (with(0, "1"), Some("oid not found")),
        (with(1, "99999"), Some("amount out of range")),
        (with(1, "3000000"), Some("amount out of range")),
        (with(2, "abcd"), Some("Invalid nacl pubkey: abcd")),
        // Of two mistakes the first in the table counts.
        (with(2, "abcd").replacen('0', "1", 1), Some("oid not found")),
    ] {
        let said = taker.fill_with(&mut stage, &payload);
        assert_eq!(error_text(&said), reply, "{payload}");
        assert_eq!(said.len(), usize::from(reply.is_some()), "{payload}");
        stage.pass(secs(1));
    }
    // None of that used anything up.
    assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
}

#[test]
fn used_commitment_is_refused_and_one_more_maker_hears_of_it() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let commitment = taker.commitment();
    let maker = FakeTaker::new(&mut stage, 50).nick();
    let mut book = joinery_roles::order_book::Book::empty();
    book.offers.push(crate::rounds::book_offer(maker));
    stage.maker.book(std::sync::Arc::new(book), stage.now);

    let mut thief = FakeTaker::new(&mut stage, 2);
    for commitment in [commitment.to_string(), commitment.to_string().to_uppercase()] {
        let payload = thief.fill_payload();
        let payload = format!("{} P{commitment}", payload.rsplit_once(' ').unwrap().0);
        let said = thief.fill_with(&mut stage, &payload);
        let expected = format!("Commitment is blacklisted: {}", commitment.to_lowercase());
        assert_eq!(error_text(&said), Some(expected.as_str()));
        let relayed = stage.said_to(maker);
        assert_eq!(relayed, [(PrivateWord::Hp2, commitment.to_lowercase())]);
    }
}

#[test]
fn commitment_of_a_running_session_is_refused_and_not_published() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    let mut thief = FakeTaker::new(&mut stage, 2);
    let payload = thief.fill_payload();
    let payload = format!("{} P{}", payload.rsplit_once(' ').unwrap().0, taker.commitment());
    let said = thief.fill_with(&mut stage, &payload);
    assert!(error_text(&said).unwrap().starts_with("Commitment is blacklisted: "));
    assert_eq!(stage.left.len(), 1, "nobody else hears of it");
    // The session goes on, also when somebody publishes its commitment now.
    stage.public(thief.nick(), &format!("hp2 {}", taker.commitment()));
    assert_eq!(words(&taker.auth(&mut stage)), ["ioauth"]);
}

#[test]
fn second_fill_replaces_only_before_auth() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    // A copy over another directory is no second fill.
    let payload = taker.fill_payload();
    assert!(taker.fill_with(&mut stage, &payload).is_empty());
    // Another amount with the same commitment, another key: a new session.
    taker.amount = 1_100_000;
    taker.secret[9] ^= 1;
    assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 1);
    assert_eq!(words(&taker.auth(&mut stage)), ["ioauth"]);
    taker.amount = 1_200_000;
    taker.index = 1;
    assert!(taker.fill(&mut stage).is_empty(), "coins were shown");
    assert_eq!(stage.wallet.journal.len(), 1);
}

#[test]
fn own_nicks_get_nothing() {
    let mut config = config();
    let mut probe = Stage::with(config.clone(), &[(1, COIN)]);
    let mut own = FakeTaker::new(&mut probe, 1);
    config.own_nicks.insert(own.nick());
    let mut stage = Stage::with(config, &[(1, COIN)]);
    let _ = FakeTaker::new(&mut stage, 1);
    assert!(own.fill(&mut stage).is_empty());
    stage.public(own.nick(), "orderbook");
    stage.public(maker_nick(), "orderbook");
    assert!(stage.take_left().is_empty());
}

#[test]
fn sessions_are_bounded_in_all_and_on_each_connection() {
    let mut stage = stage();
    let link = Source::Direct(LinkId(7));
    let mut opened = 0;
    for number in 0..4 {
        let mut taker = FakeTaker::new(&mut stage, number);
        taker.via = link;
        opened += taker.fill(&mut stage).len();
    }
    assert_eq!(opened, MAX_PER_LINK);
    for number in 10..60 {
        let mut taker = FakeTaker::new(&mut stage, number);
        opened += taker.fill(&mut stage).len();
    }
    assert_eq!(opened, MAX_SESSIONS);
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, MAX_SESSIONS);
    // After a minute without `!auth` each makes room for one other.
    stage.pass(secs(60));
    for number in 100..110 {
        let mut taker = FakeTaker::new(&mut stage, number);
        assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
    }
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, MAX_SESSIONS);
    // All of them end by themselves.
    stage.pass(secs(301));
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
    assert!(stage.wallet.asked.is_empty(), "fills alone cost nothing");
}

// 4.5: `!auth`

#[test]
fn good_auth_shows_coins_after_everything_is_durable() {
    let mut stage = Stage::new(&[(4, COIN)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let asked = ["look up", "open", "revealed"];
    assert_eq!(stage.wallet.asked, asked);
    // Equal output to the next account, cyclically; change to the same.
    let io = taker.io.as_ref().unwrap();
    let addresses: Vec<_> =
        stage.wallet.addresses.iter().map(|(md, address)| (*md, address.to_string())).collect();
    assert_eq!(addresses, [(0, io.cj_address.clone()), (4, io.change_address.clone())]);
    assert!(io.utxos.iter().all(|utxo| utxo.hint.is_none()), "not asked for in the long form");
    let round = &stage.wallet.rounds()[0];
    assert_eq!(round.coins, [outpoint(0xc0, 0)]);
    assert_eq!((round.begin.mixdepth, round.begin.amount), (4, taker.amount));
    assert_eq!(round.begin.nick, maker_nick().to_string());
    assert_eq!(round.scripts.len(), 2);
    // The own used list is the journal's.
    assert!(stage.wallet.blacklist().refuses(&taker.commitment()));
}

/// Auths with a coin that the chain knows otherwise.
fn auth_with(
    change: impl FnOnce(&mut Stage, &FakeTaker),
) -> (Stage, FakeTaker, Vec<(PrivateWord, String)>) {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    change(&mut stage, &taker);
    let said = taker.auth(&mut stage);
    (stage, taker, said)
}

#[test]
fn each_bad_commitment_has_its_reason_and_is_not_used_up() {
    let coin = outpoint(0x70, 1);
    type Change = Box<dyn FnOnce(&mut Stage, &FakeTaker)>;
    let cases: [(&str, Change); 4] = [
        ("utxo", Box::new(move |stage, _| drop(stage.wallet.chain.remove(&coin)))),
        (
            "age",
            Box::new(move |stage, _| stage.wallet.chain.get_mut(&coin).unwrap().confirmations = 4),
        ),
        // 20 percent of 1 000 000 is enough, one satoshi less is not.
        (
            "size",
            Box::new(move |stage, _| stage.wallet.chain.get_mut(&coin).unwrap().value = 199_999),
        ),
        (
            "proof",
            Box::new(move |stage, _| {
                let script = stage.wallet.coins[0].key;
                let script = joinery_proto::transaction::signing::OwnCoin::new(coin, 0, script);
                stage.wallet.chain.get_mut(&coin).unwrap().script = script.script().clone();
            }),
        ),
    ];
    for (reason, change) in cases {
        let (mut stage, mut taker, said) = auth_with(change);
        let expected = format!("commitment rejected: {reason}");
        assert_eq!(error_text(&said), Some(expected.as_str()));
        assert_eq!(stage.wallet.asked, ["look up"]);
        assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
        // It may be tried again: nothing was shown for it.
        assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
    }
    let (_, _, said) =
        auth_with(|stage, _| stage.wallet.chain.get_mut(&coin).unwrap().value = 200_000);
    assert_eq!(words(&said), ["ioauth"]);
}

#[test]
fn bad_proofs_are_refused_before_the_chain_is_asked() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    let good = taker.revelation();
    let other = FakeTaker::new(&mut stage, 2).revelation();
    let parts: Vec<&str> = good.split('|').collect();
    let cut = parts[..4].join("|");
    let swapped = [parts[0], parts[1], parts[2], parts[4], parts[3]].join("|");
    for text in [other.as_str(), &cut, &swapped, "junk"] {
        assert_eq!(
            error_text(&taker.auth_with(&mut stage, text)),
            Some("commitment rejected: proof"),
            "{text}"
        );
        stage.pass(secs(3_601));
        taker.secret[8] = taker.secret[8].wrapping_add(1);
        taker.fill(&mut stage);
    }
    // NUMS indexes from `taker_utxo_retries` on are not allowed.
    taker.index = 3;
    taker.secret[8] = taker.secret[8].wrapping_add(1);
    taker.fill(&mut stage);
    let said = taker.auth(&mut stage);
    assert_eq!(error_text(&said), Some("commitment rejected: proof"));
    assert!(stage.wallet.asked.is_empty());
}

#[test]
fn liar_is_not_talked_to_after_three_lies() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    for _ in 0..3 {
        taker.secret[8] = taker.secret[8].wrapping_add(1);
        assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
        taker.auth_with(&mut stage, "junk");
    }
    taker.secret[8] = taker.secret[8].wrapping_add(1);
    assert!(taker.fill(&mut stage).is_empty());
    stage.pass(secs(3_600));
    assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
}

#[test]
fn without_free_coins_the_taker_hears_it_and_its_commitment_is_not_used() {
    let mut stage = stage();
    let mut first = FakeTaker::new(&mut stage, 1);
    first.until_ioauth(&mut stage);
    let mut second = FakeTaker::new(&mut stage, 2);
    second.fill(&mut stage);
    assert_eq!(error_text(&second.auth(&mut stage)), Some("no funds"));
    assert!(!stage.wallet.blacklist().refuses(&second.commitment()));
    assert_eq!(stage.wallet.addresses.len(), 2, "no address for nothing");
}

#[test]
fn coin_that_the_wallet_does_not_give_is_left_out() {
    let mut stage = Stage::new(&[(1, COIN), (1, COIN + 1), (3, COIN)]);
    stage.wallet.unusable.insert(outpoint(0xc0, 0));
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    assert_eq!(stage.wallet.rounds()[0].coins.len(), 1);
    assert_ne!(stage.wallet.rounds()[0].coins, [outpoint(0xc0, 0)]);
    assert_eq!(stage.wallet.journal.len(), 1, "a refused attempt leaves no round");
    // When the wallet gives none, that is no fault of the taker.
    let mut stage = Stage::new(&[(1, COIN)]);
    stage.wallet.unusable.insert(outpoint(0xc0, 0));
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    assert_eq!(error_text(&taker.auth(&mut stage)), Some("no funds"));
    assert!(stage.wallet.journal.is_empty(), "no round without coins");
}

#[test]
fn chain_that_cannot_be_asked_is_never_the_takers_fault() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    stage.wallet.unreachable = true;
    assert!(taker.auth(&mut stage).is_empty());
    // It comes back before the third try.
    stage.pass(secs(4));
    stage.wallet.unreachable = false;
    stage.take_left();
    stage.pass(secs(4));
    let said = stage.said_to(taker.nick());
    assert_eq!(words(&said), ["ioauth"]);

    let mut stage = self::stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    stage.wallet.unreachable = true;
    taker.fill(&mut stage);
    taker.auth(&mut stage);
    stage.pass(secs(10));
    assert_eq!(error_text(&stage.said_to(taker.nick())), Some("temporarily unavailable"));
    assert_eq!(stage.wallet.asked, ["look up"; 3]);
    assert_eq!(stage.error(), Some("session_failed"));
    stage.wallet.unreachable = false;
    taker.until_ioauth(&mut stage);
}

/// When the others of the round have answered its `!fill`: they refuse a commitment that they have heard of.
#[test]
fn used_commitment_is_published_five_to_fifteen_seconds_later() {
    let is_published = |stage: &Stage| {
        let published = |left: &&Left| matches!(left, Left::Published(_));
        stage.left.iter().filter(published).cloned().collect::<Vec<_>>()
    };
    let mut delays = BTreeSet::new();
    let mut stage = Stage::new(&[(1, COIN), (2, COIN), (3, COIN), (4, COIN)]);
    for number in 0..4 {
        let mut taker = FakeTaker::new(&mut stage, number);
        taker.until_ioauth(&mut stage);
        stage.pass(Duration::from_millis(4_999));
        assert_eq!(is_published(&stage), []);
        let mut waited = 4_999;
        while is_published(&stage).is_empty() {
            stage.pass(Duration::from_millis(100));
            waited += 100;
        }
        assert!(waited <= 15_099, "{waited} ms");
        delays.insert(waited);
        stage.pass(secs(60));
        assert_eq!(is_published(&stage), [Left::Published(taker.commitment())], "once");
    }
    assert!(delays.len() > 1, "nobody can tell from it when the maker answered: {delays:?}");
}

#[test]
fn used_commitments_are_published_before_a_maker_ends() {
    let mut stage = Stage::new(&[(1, COIN), (2, COIN), (3, COIN), (4, COIN)]);
    let mut takers = [1, 2].map(|number| FakeTaker::new(&mut stage, number));
    for taker in &mut takers {
        taker.until_ioauth(&mut stage);
    }
    stage.take_left();
    stage.wallet.broken = Some(AskError::Closed);
    let mut third = FakeTaker::new(&mut stage, 3);
    third.fill(&mut stage);
    third.auth(&mut stage);
    let expected = takers.map(|taker| Left::Published(taker.commitment()));
    let end = stage.left.iter().position(|left| matches!(left, Left::Finished(_))).unwrap();
    assert_eq!(stage.left.get(end - 2..end), Some(&expected[..]));
    assert_eq!(stage.left.get(end), Some(&Left::Finished(MakerEnd::WalletClosed)));
}

#[test]
fn second_auth_shows_nothing_more() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let asked = stage.wallet.asked.len();
    assert!(taker.auth(&mut stage).is_empty());
    assert_eq!((stage.wallet.asked.len(), stage.wallet.addresses.len()), (asked, 2));
}

#[test]
fn taker_that_asks_for_long_coin_texts_gets_them() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    let script = taker.coin.script().to_hex_string();
    let (coin, rest) =
        taker.revelation().split_once('|').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let said = taker.auth_with(&mut stage, &format!("{coin}:{script}:900|{rest}"));
    assert_eq!(words(&said), ["ioauth"]);
    let hint = taker.io.as_ref().unwrap().utxos[0].hint.clone().unwrap();
    assert_eq!(hint.height, 500);
}

// 4.7: `!tx`

#[test]
fn good_transaction_is_signed_after_that_is_durable() {
    let mut stage = Stage::new(&[(1, 700_000), (1, 800_000), (1, 900_000)]);
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 1_500_000;
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    let before = stage.wallet.asked.len();
    let said = taker.show(&mut stage, &tx);
    assert_eq!(words(&said), ["sig"; 2], "one for each input");
    assert_eq!(stage.wallet.asked[before..], ["look up", "fee rate", "signed"]);
    let round = &stage.wallet.rounds()[0];
    let (txid, raw, _) = &round.signed[0];
    assert_eq!(*txid, tx.compute_txid());
    assert_eq!(*raw, bdk_wallet::bitcoin::consensus::encode::serialize(&tx));
    let fee = offer.cj_fee.of(taker.amount);
    assert_eq!(round.sums.cost, -i64::try_from(fee).unwrap());
    assert_eq!((round.sums.coinjoin_fee, round.sums.miner_fee), (fee, 0));
    assert_eq!(round.sums.counterparties, [taker.nick().to_string()]);
    assert_eq!((round.sums.input_count, round.sums.input_value), (2, 1_700_000));
    assert_eq!(stage.state.as_ref().unwrap().signed, 1);
    // A copy over another directory is not answered twice.
    assert!(taker.show(&mut stage, &tx).is_empty());
}

#[test]
fn lying_transaction_ends_the_session_and_frees_the_coins() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    tx.output[1].value -= Amount::from_sat(1);
    let said = taker.show(&mut stage, &tx);
    assert_eq!(error_text(&said), Some("transaction rejected"));
    let round = &stage.wallet.rounds()[0];
    assert_eq!(round.end.as_ref().unwrap().code, "transaction_refused");
    assert!(!round.holds_coins() && round.signed.is_empty());
    // The same coins serve the next one; the addresses are never shown again.
    stage.refresh();
    let mut other = FakeTaker::new(&mut stage, 2);
    other.until_ioauth(&mut stage);
    assert_eq!(other.io.as_ref().unwrap().utxos, taker.io.as_ref().unwrap().utxos);
    assert_ne!(other.io.as_ref().unwrap().cj_address, taker.io.as_ref().unwrap().cj_address);
    assert_ne!(
        other.io.as_ref().unwrap().change_address,
        taker.io.as_ref().unwrap().change_address
    );
}

#[test]
fn unreadable_transaction_is_refused() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    assert_eq!(error_text(&taker.show_text(&mut stage, "AAAA")), Some("transaction rejected"));
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
}

#[test]
fn up_to_three_transactions_of_one_session_are_signed() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    for index in 0..3_u64 {
        let mut tx = tx.clone();
        tx.output[3].value -= Amount::from_sat(index);
        assert_eq!(words(&taker.show(&mut stage, &tx)), ["sig"]);
    }
    let mut fourth = tx;
    fourth.output[3].value -= Amount::from_sat(9);
    assert!(taker.show(&mut stage, &fourth).is_empty());
    let round = &stage.wallet.rounds()[0];
    assert_eq!(round.signed.len(), 3);
    assert_eq!(round.end.as_ref().unwrap().code, "complete");
    assert!(round.holds_coins(), "until a block settles it");
}

#[test]
fn signatures_of_a_bad_further_transaction_are_refused_and_the_round_stays_signed() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    taker.show(&mut stage, &tx);
    tx.output[0].value -= Amount::from_sat(1);
    assert_eq!(error_text(&taker.show(&mut stage, &tx)), Some("transaction rejected"));
    let round = &stage.wallet.rounds()[0];
    assert_eq!((round.signed.len(), round.end.as_ref().unwrap().code.as_str()), (1, "complete"));
}

#[test]
fn transaction_below_the_relay_rate_is_refused_when_its_inputs_are_known() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    // The whole fee but 300 satoshi goes to the taker: less than one for each of about 272 bytes is left.
    tx.output[3].value += Amount::from_sat(4_800);
    assert_eq!(error_text(&taker.show(&mut stage, &tx)), Some("transaction rejected"));
    // 300 are enough.
    let mut stage = self::stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    tx.output[3].value += Amount::from_sat(4_700);
    assert_eq!(words(&taker.show(&mut stage, &tx)), ["sig"]);
    // An input that the chain does not know leaves the rate unknown.
    let mut stage = self::stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    tx.output[3].value += Amount::from_sat(5_000);
    stage.wallet.chain.clear();
    assert_eq!(words(&taker.show(&mut stage, &tx)), ["sig"]);
}

#[test]
fn transaction_that_spends_more_than_there_is_is_refused() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    tx.output[3].value += Amount::from_sat(5_001);
    assert_eq!(error_text(&taker.show(&mut stage, &tx)), Some("transaction rejected"));
}

#[test]
fn silent_chain_does_not_hold_signatures_back_for_long() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.slow = |question| matches!(question, joinery_roles::ask::Question::LookUp(_));
    let tx = taker.transaction(&stage, &offer);
    assert!(taker.show(&mut stage, &tx).is_empty());
    stage.pass(secs(5));
    assert_eq!(words(&stage.said_to(taker.nick())), ["sig"]);
    stage.answer_all();
    // A chain that cannot be asked does not hold them back at all.
    let mut stage = self::stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.wallet.unreachable = true;
    let tx = taker.transaction(&stage, &offer);
    assert_eq!(words(&taker.show(&mut stage, &tx)), ["sig"]);
}

#[test]
fn other_coin_of_ours_among_the_inputs_is_refused() {
    let mut stage = Stage::new(&[(1, COIN), (3, 2 * COIN)]);
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let mut tx = taker.transaction(&stage, &offer);
    let shown = taker.io.as_ref().unwrap().utxos[0].outpoint;
    let other = stage.wallet.coins.iter().find(|coin| coin.outpoint != shown).unwrap().outpoint;
    let mut input = tx.input[0].clone();
    input.previous_output = other;
    tx.input.push(input);
    assert_eq!(error_text(&taker.show(&mut stage, &tx)), Some("transaction rejected"));
    assert!(stage.wallet.rounds()[0].signed.is_empty());
}

#[test]
fn push_is_for_the_taker_of_a_signed_transaction_and_once() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    let payload = joinery_proto::message::tx_payload(&tx);
    let push = |stage: &mut Stage, key: &joinery_proto::private_message::NickKey| {
        stage.private(key, DIRECTORY, PrivateWord::Push, &payload);
    };
    push(&mut stage, &taker.key);
    assert!(stage.wallet.pushed.is_empty(), "not signed yet");
    taker.show(&mut stage, &tx);
    let stranger = FakeTaker::new(&mut stage, 2);
    push(&mut stage, &stranger.key);
    assert!(stage.wallet.pushed.is_empty(), "not its own");
    stage.take_left();
    push(&mut stage, &taker.key);
    push(&mut stage, &taker.key);
    assert_eq!(stage.wallet.pushed, [tx]);
    assert!(stage.take_left().is_empty(), "never answered");
}

#[test]
fn push_comes_too_late_after_an_hour_or_when_the_coins_are_spent() {
    for spent in [false, true] {
        let mut stage = stage();
        let offer = stage.offers()[0];
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.until_ioauth(&mut stage);
        let tx = taker.transaction(&stage, &offer);
        taker.show(&mut stage, &tx);
        if spent {
            stage.wallet.coins.clear();
            stage.refresh();
        } else {
            stage.pass(secs(3_600));
        }
        let payload = joinery_proto::message::tx_payload(&tx);
        stage.private(&taker.key, DIRECTORY, PrivateWord::Push, &payload);
        assert!(stage.wallet.pushed.is_empty());
    }
}

// 4.12: states and their ends

#[test]
fn session_without_auth_ends_and_its_commitment_can_be_used() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    stage.pass(secs(300));
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
    assert!(stage.wallet.journal.is_empty());
    assert_eq!(words(&taker.fill(&mut stage)), ["pubkey"]);
}

#[test]
fn session_without_tx_frees_coins_and_burns_addresses_and_commitment() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.pass(secs(300));
    let round = &stage.wallet.rounds()[0];
    assert_eq!(round.end.as_ref().unwrap().code, "timed_out");
    assert!(!round.holds_coins());
    let said = taker.fill(&mut stage);
    assert!(error_text(&said).unwrap().starts_with("Commitment is blacklisted: "));
}

#[test]
fn signed_session_waits_for_more_and_ends_complete() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    taker.show(&mut stage, &tx);
    assert_eq!(stage.wallet.rounds()[0].end, None);
    stage.pass(secs(300));
    assert_eq!(stage.wallet.rounds()[0].end.as_ref().unwrap().code, "complete");
    assert!(stage.wallet.rounds()[0].holds_coins());
}

#[test]
fn same_taker_starts_the_next_round_after_its_signatures() {
    let mut stage = Stage::new(&[(1, COIN), (3, COIN)]);
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    taker.show(&mut stage, &tx);
    taker.index = 1;
    taker.until_ioauth(&mut stage);
    let rounds = stage.wallet.rounds();
    assert_eq!(rounds[0].end.as_ref().unwrap().code, "complete");
    assert_ne!(rounds[0].coins, rounds[1].coins);
}

#[test]
fn session_whose_coins_are_spent_elsewhere_is_over() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    stage.wallet.coins.clear();
    stage.refresh();
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
    assert_eq!(error_text(&stage.said_to(taker.nick())), None, "it was said when the view came");
    assert!(taker.show(&mut stage, &tx).is_empty());
    assert!(stage.wallet.rounds()[0].signed.is_empty());
}

#[test]
fn signed_session_whose_coins_are_spent_is_complete_and_silent() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    taker.show(&mut stage, &tx);
    stage.take_left();
    stage.wallet.coins.clear();
    stage.refresh();
    assert!(stage.said_to(taker.nick()).is_empty());
    assert_eq!(stage.wallet.rounds()[0].end.as_ref().unwrap().code, "complete");
}

#[test]
fn sessions_live_as_long_as_the_settings_say() {
    let mut config = config();
    config.timing.session = secs(40);
    let mut stage = Stage::with(config, &[(1, COIN)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.pass(secs(39));
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 1);
    stage.pass(secs(1));
    assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
}

#[test]
fn relay_rate_is_asked_for_once_in_a_while() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    for index in 0..3_u64 {
        let mut tx = tx.clone();
        tx.output[3].value -= Amount::from_sat(index);
        assert_eq!(words(&taker.show(&mut stage, &tx)), ["sig"]);
    }
    let asked = stage.wallet.asked.iter().filter(|kind| **kind == "fee rate").count();
    assert_eq!(asked, 1);
}

#[test]
fn stop_refuses_new_sessions_and_lets_those_that_showed_coins_finish() {
    let mut stage = Stage::new(&[(1, COIN), (3, COIN)]);
    let offer = stage.offers()[0];
    let mut early = FakeTaker::new(&mut stage, 1);
    early.fill(&mut stage);
    let mut late = FakeTaker::new(&mut stage, 2);
    late.until_ioauth(&mut stage);
    stage.take_left();
    stage.maker.stop(stage.now);
    stage.run();
    assert_eq!(stage.take_left(), [Left::Announced("cancel 0".to_owned())]);
    let state = stage.state.clone().unwrap();
    assert!(state.stopping && state.offers.is_empty());
    assert_eq!(state.sessions_open, 1);
    let mut new = FakeTaker::new(&mut stage, 3);
    assert_eq!(error_text(&new.fill(&mut stage)), Some("oid not found"));
    assert!(early.auth(&mut stage).is_empty());
    stage.pass(secs(29));
    let tx = late.transaction(&stage, &offer);
    assert_eq!(words(&late.show(&mut stage, &tx)), ["sig"]);
    stage.pass(secs(1));
    assert_eq!(stage.left.last(), Some(&Left::Finished(MakerEnd::Stopped)));
    assert_eq!(stage.wallet.rounds()[0].end.as_ref().unwrap().code, "complete");
    assert_eq!(stage.maker.next_wake(), None);
}

#[test]
fn stop_without_sessions_is_at_once_and_with_a_silent_taker_in_thirty_seconds() {
    let mut stage = stage();
    stage.maker.stop(stage.now);
    stage.run();
    assert_eq!(stage.left.last(), Some(&Left::Finished(MakerEnd::Stopped)));
    let mut stage = self::stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.take_left();
    stage.maker.stop(stage.now);
    stage.run();
    stage.pass(Duration::from_millis(29_999));
    let left = stage.take_left();
    assert_eq!(left.len(), 2, "the cancel, and the commitment that was used: {left:?}");
    assert_eq!(left.last(), Some(&Left::Published(taker.commitment())));
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.left.last(), Some(&Left::Finished(MakerEnd::Stopped)));
    assert_eq!(stage.wallet.rounds()[0].end.as_ref().unwrap().code, "stopped");
    assert!(!stage.wallet.rounds()[0].holds_coins());
}

#[test]
fn nothing_leaves_when_the_journal_fails_and_the_maker_ends() {
    type IsStep = fn(&joinery_roles::ask::Question) -> bool;
    let steps: [IsStep; 2] = [
        |question| matches!(question, joinery_roles::ask::Question::Open(_)),
        |question| matches!(question, joinery_roles::ask::Question::Reveal { .. }),
    ];
    for step in steps {
        let mut stage = stage();
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.fill(&mut stage);
        stage.slow = step;
        assert!(taker.auth(&mut stage).is_empty());
        stage.wallet.broken = Some(AskError::Storage("disk full".to_owned()));
        stage.answer_all();
        let said = stage.said_to(taker.nick());
        assert_eq!(error_text(&said), Some("temporarily unavailable"));
        let end = Left::Finished(MakerEnd::Storage("disk full".to_owned()));
        assert_eq!(stage.left.last(), Some(&end));
        assert!(!stage.left.iter().any(|left| matches!(left, Left::Published(_))));
    }
}

#[test]
fn signature_stays_here_when_it_cannot_be_recorded() {
    let mut stage = stage();
    let offer = stage.offers()[0];
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let tx = taker.transaction(&stage, &offer);
    stage.wallet.broken = Some(AskError::Closed);
    let said = taker.show(&mut stage, &tx);
    assert_eq!(words(&said), ["error"]);
    assert_eq!(stage.left.last(), Some(&Left::Finished(MakerEnd::WalletClosed)));
}

#[test]
fn answer_that_comes_after_the_session_leaves_nothing_open() {
    for kind in ["open", "revealed"] {
        let mut stage = stage();
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.fill(&mut stage);
        stage.slow = match kind {
            "open" => |q| matches!(q, joinery_roles::ask::Question::Open(_)),
            _ => |q| matches!(q, joinery_roles::ask::Question::Reveal { .. }),
        };
        taker.auth(&mut stage);
        assert_eq!(stage.waiting.len(), 1);
        let held = std::mem::take(&mut stage.waiting);
        stage.pass(secs(301));
        assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
        let asked_meanwhile = std::mem::replace(&mut stage.waiting, held);
        stage.slow = |_| false;
        stage.answer_all();
        stage.waiting = asked_meanwhile;
        stage.answer_all();
        for round in stage.wallet.rounds() {
            assert!(round.is_over() && !round.holds_coins(), "{kind}: {round:?}");
        }
        assert!(
            !stage
                .left
                .iter()
                .any(|left| matches!(left, Left::Said { word: PrivateWord::IoAuth, .. }))
        );
        // What may be durably used is refused.
        let said = taker.fill(&mut stage);
        let expected = if kind == "revealed" { "error" } else { "pubkey" };
        assert_eq!(words(&said), [expected], "{kind}");
    }
}

#[test]
fn same_taker_with_the_same_commitment_gets_the_same_addresses() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.fill(&mut stage);
    stage.slow = |question| matches!(question, joinery_roles::ask::Question::Open(_));
    taker.auth(&mut stage);
    stage.pass(secs(301));
    stage.slow = |_| false;
    stage.answer_all();
    assert_eq!(stage.wallet.addresses.len(), 2);
    stage.refresh();
    taker.until_ioauth(&mut stage);
    assert_eq!(stage.wallet.addresses.len(), 2, "drawn once");
    let io = taker.io.as_ref().unwrap();
    assert_eq!(io.cj_address, stage.wallet.addresses[0].1.to_string());
}

#[test]
fn keys_of_the_wallet_are_not_in_what_is_printed() {
    let mut stage = stage();
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let printed = format!("{:?}", stage.maker);
    for secret in [key(0xc0, 0), key(0x70, 1)] {
        assert!(!printed.contains(&secret.display_secret().to_string()));
    }
    let _: Option<Output> = stage.maker.poll();
}
