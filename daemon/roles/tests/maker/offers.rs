//! Offers, announcements, answers to `!orderbook`, the bond, published commitments (`spec/roles.md` 4.1 to 4.3, 4.8).

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bond_proof::BondProof;
use joinery_proto::maker_offers::Spread;
use joinery_proto::message::OfferMessage;
use joinery_proto::offer::OrderType;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_proto::transaction::fees::required_by_maker;
use joinery_roles::ask::WalletView;
use joinery_roles::event::{ChannelEvent, DirectoryId, LinkId, Source};
use joinery_roles::maker::{
    CoinRules, MakerTerms, Output, Publication, StartRefusal, TermsError, check_start,
};
use joinery_roles::order_book::Book;
use joinery_wallet::snapshot::CoinKind;

use crate::rounds::book_offer;
use crate::stage::{
    DIRECTORY, FakeTaker, FakeWallet, HEIGHT, Left, Stage, config, key, maker_nick, secs, words,
};

const SPREAD: Spread = Spread { tx_fee: 0.3, cj_fee: 0.1, size: 0.1 };

fn announced(stage: &mut Stage) -> Vec<String> {
    let texts = stage.take_left().into_iter().filter_map(|left| match left {
        Left::Announced(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

fn stranger(number: u32) -> NickKey {
    NickKey::new(key(0x55, number))
}

// 4.1

#[test]
fn start_that_cannot_work_says_why() {
    let rules = CoinRules::default();
    let terms = MakerTerms::new(OrderType::Sw0Relative);
    let start = |coins: &[(u8, u64)], terms: &MakerTerms| {
        let mut wallet = FakeWallet::new();
        for (mixdepth, value) in coins {
            wallet.fund(*mixdepth, *value);
        }
        check_start(terms, &rules, &wallet.view())
    };
    assert_eq!(start(&[(0, 200_000)], &terms), Ok(()));
    assert_eq!(start(&[], &terms), Err(StartRefusal::NoCoins));
    let refusal = start(&[(0, 70_000), (1, 70_000)], &terms).unwrap_err();
    assert_eq!(refusal, StartRefusal::MinimumTooLarge);
    assert_eq!(
        refusal.to_string(),
        "Maker could not start, minsize exceeds the available balance."
    );
    assert_eq!(refusal.code(), "minsize_too_large");
    assert_eq!(StartRefusal::NoCoins.to_string(), "Maker could not start, no confirmed coins.");
    // The least that the smallest amount needs, and one satoshi less. The fee of 100 000 is 2.
    assert_eq!(start(&[(0, 127_299)], &terms), Err(StartRefusal::MinimumTooLarge));
    assert_eq!(start(&[(0, 127_300)], &terms), Ok(()));
    let spread = MakerTerms { spread: Some(SPREAD), ..terms };
    assert_eq!(start(&[(0, 100_000)], &spread), Err(StartRefusal::MinimumTooLarge));
    assert_eq!(start(&[(0, 200_000)], &spread), Ok(()));
    for (bad, error) in [
        (MakerTerms { order_type: OrderType::Relative, ..terms }, TermsError::OrderType),
        (MakerTerms { relative_fee: "0".parse().unwrap(), ..terms }, TermsError::RelativeFee),
        (MakerTerms { min_size: u64::MAX, ..terms }, TermsError::Amount),
        (MakerTerms { spread: Some(Spread { size: 1.5, ..SPREAD }), ..terms }, TermsError::Factor),
        (
            MakerTerms { spread: Some(Spread { size: f64::NAN, ..SPREAD }), ..terms },
            TermsError::Factor,
        ),
    ] {
        assert_eq!(start(&[(0, 200_000)], &bad), Err(StartRefusal::Terms(error)));
    }
}

#[test]
fn frozen_unconfirmed_and_bonded_coins_are_no_coins() {
    let mut wallet = FakeWallet::new();
    for _ in 0..3 {
        wallet.fund(0, 1_000_000);
    }
    wallet.coins[0].frozen = true;
    wallet.coins[1].height = None;
    wallet.coins[2].locktime = Some(1_600_000_000);
    let terms = MakerTerms::new(OrderType::Sw0Relative);
    let start = check_start(&terms, &CoinRules::default(), &wallet.view());
    assert_eq!(start, Err(StartRefusal::NoCoins));
    let stage = Stage::open(config(), wallet);
    assert!(stage.offers().is_empty());
}

#[test]
fn wallet_that_is_not_synced_offers_nothing_yet() {
    let mut wallet = FakeWallet::new();
    wallet.fund(1, 1_000_000);
    wallet.synced = false;
    let mut stage = Stage::open(config(), wallet);
    assert!(stage.offers().is_empty() && announced(&mut stage).is_empty());
    stage.wallet.synced = true;
    stage.refresh();
    assert_eq!(announced(&mut stage), ["sw0reloffer 0 100000 972700 0 0.00002"]);
}

// 4.2

#[test]
fn exact_offer_is_the_references_and_can_be_filled() {
    let mut stage = Stage::new(&[(0, 500_000), (2, 1_000_000_000)]);
    assert_eq!(announced(&mut stage), ["sw0reloffer 0 100000 999972700 0 0.00002"]);
    let view = &stage.state.as_ref().unwrap().offers[0];
    assert_eq!((view.oid, view.ordertype, view.cjfee.as_str()), (0, "sw0reloffer", "0.00002"));
    // Without any fee the reference's maximum is one satoshi more than can be served.
    let mut terms = config();
    terms.terms = MakerTerms { absolute_fee: 0, ..MakerTerms::new(OrderType::Sw0Absolute) };
    let stage = Stage::with(terms, &[(2, 1_000_000)]);
    assert_eq!(stage.offers()[0].max_size, 1_000_000 - 27_301);
}

#[test]
fn randomised_offers_stay_within_their_factors_and_can_be_filled() {
    for seed in 0..40_u8 {
        let mut config = config();
        let order_type =
            if seed % 2 == 0 { OrderType::Sw0Relative } else { OrderType::Sw0Absolute };
        config.terms =
            MakerTerms { spread: Some(SPREAD), tx_fee: 100, ..MakerTerms::new(order_type) };
        let mut wallet = FakeWallet::new();
        wallet.fund(1, 1_000_000_000);
        let mut maker = joinery_roles::maker::Maker::new(
            config,
            wallet.blacklist(),
            wallet.view(),
            [seed; 32],
            secs(0),
        );
        let Some(Output::State(state)) = maker.poll() else { panic!("a state") };
        let view = &state.offers[0];
        let fields =
            format!("{} {} {} {} {}", view.oid, view.minsize, view.maxsize, view.txfee, view.cjfee);
        let offer = joinery_proto::offer::Offer::parse(order_type, &fields).unwrap();
        assert!((899_975_430..=999_972_700).contains(&offer.max_size), "{offer}");
        assert!(offer.tx_fee <= 130, "{offer}");
        assert!(required_by_maker(&offer, offer.max_size).unwrap() <= 1_000_000_000);
        assert!(offer.earning(offer.min_size) >= 0, "{offer}");
        if seed % 2 == 0 {
            // The minimum was raised to 1.2 * 100 / 0.00002 before it was moved.
            assert!((5_400_000..=6_600_000).contains(&offer.min_size), "{offer}");
        }
    }
}

#[test]
fn fee_that_is_not_moved_keeps_its_text() {
    let mut config = config();
    let spread = Spread { cj_fee: 0.0, ..SPREAD };
    config.terms = MakerTerms { spread: Some(spread), ..config.terms };
    let stage = Stage::with(config, &[(1, 1_000_000)]);
    assert_eq!(stage.state.as_ref().unwrap().offers[0].cjfee, "0.00002");
}

#[test]
fn dual_offers_share_the_range() {
    let mut config = config();
    config.terms = MakerTerms { dual: true, ..config.terms };
    let mut stage = Stage::with(config.clone(), &[(1, 100_000_000)]);
    // 500 satoshi are 0.00002 of 25 000 000; half to even: 24 975 000 already gives 500.
    let offers = announced(&mut stage);
    assert_eq!(offers.len(), 2);
    let [relative, absolute] = stage.offers()[..] else { panic!("two offers") };
    assert_eq!((relative.id.get(), absolute.id.get()), (0, 1));
    assert_eq!(relative.min_size, absolute.max_size);
    assert_eq!((absolute.min_size, relative.max_size), (100_000, 99_972_700));
    assert_eq!(relative.cj_fee.of(relative.min_size), 500);
    assert!(relative.cj_fee.of(relative.min_size - 1) <= 500);
    // A small wallet never gets to the relative one.
    let stage = Stage::with(config, &[(1, 10_000_000)]);
    let [absolute] = stage.offers()[..] else { panic!("one offer") };
    assert_eq!(absolute.order_type, OrderType::Sw0Absolute);
    assert_eq!(absolute.id.get(), 1);
}

#[test]
fn most_inputs_bound_what_is_offered() {
    let stage = Stage::new(&[(1, 100_000); 40]);
    assert_eq!(stage.offers()[0].max_size, 1_500_000 - 27_300);
}

// 4.3

#[test]
fn each_directory_is_told_when_it_comes_up_and_at_most_every_thirty_seconds() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    assert_eq!(announced(&mut stage).len(), 1);
    let again = ChannelEvent::Up(DIRECTORY);
    stage.heard(&ChannelEvent::Down(DIRECTORY));
    stage.heard(&again);
    assert!(announced(&mut stage).is_empty(), "too early");
    stage.heard(&ChannelEvent::Up(Source::Directory(DirectoryId(1))));
    assert_eq!(announced(&mut stage).len(), 1, "another one is told at once");
    stage.pass(Duration::from_millis(29_999));
    assert!(announced(&mut stage).is_empty());
    stage.pass(Duration::from_millis(1));
    assert_eq!(announced(&mut stage).len(), 1);
    stage.pass(secs(3_600));
    assert!(announced(&mut stage).is_empty(), "nothing changed");
}

#[test]
fn small_changes_are_not_told() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    announced(&mut stage);
    stage.wallet.fund(1, 90_000);
    stage.refresh();
    stage.pass(secs(3_600));
    assert!(announced(&mut stage).is_empty());
    assert_eq!(stage.offers()[0].max_size, 972_700);
}

#[test]
fn offer_update_quantised_and_delayed() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    announced(&mut stage);
    stage.wallet.fund(1, 12_345_678);
    stage.refresh();
    assert!(announced(&mut stage).is_empty(), "not with the block that brought it");
    let mut waited = 0;
    let texts = loop {
        stage.pass(secs(1));
        waited += 1;
        let texts = announced(&mut stage);
        if !texts.is_empty() {
            break texts;
        }
        assert!(waited <= 600, "no later than the longest delay");
    };
    assert!(waited > 1, "a delay of this seed");
    // 13 318 378 could be served; the next lower number of two binary digits times four is told.
    assert_eq!(texts, ["sw0reloffer 0 100000 12582912 0 0.00002"]);
}

#[test]
fn offer_that_cannot_be_filled_any_more_shrinks_or_goes_at_once() {
    let mut stage = Stage::new(&[(1, 5_000_000), (2, 1_000_000)]);
    announced(&mut stage);
    stage.pass(secs(60));
    stage.wallet.coins.remove(0);
    stage.refresh();
    assert_eq!(announced(&mut stage), ["sw0reloffer 0 100000 917504 0 0.00002"]);
    // Within thirty seconds nothing is told; takers are refused all the same.
    stage.wallet.coins.clear();
    stage.refresh();
    assert!(announced(&mut stage).is_empty() && stage.offers().is_empty());
    let mut taker = FakeTaker::new(&mut stage, 1);
    assert_eq!(crate::stage::error_text(&taker.fill(&mut stage)), Some("oid not found"));
    stage.pass(secs(30));
    assert_eq!(announced(&mut stage), ["cancel 0"]);
    // Coins again: later, not at once.
    stage.wallet.fund(1, 1_000_000);
    stage.refresh();
    assert!(announced(&mut stage).is_empty());
    stage.pass(secs(600));
    assert_eq!(announced(&mut stage).len(), 1);
}

#[test]
fn no_offer_near_the_minimum_and_the_maker_goes_on() {
    // M3: the reference dies of an assertion here.
    let mut config = config();
    config.terms = MakerTerms { spread: Some(SPREAD), ..config.terms };
    let mut stage = Stage::with(config, &[(1, 1_000_000)]);
    for value in [100_001, 100_000, 127_299, 110_000] {
        stage.wallet.coins[0].value = value;
        stage.refresh();
        assert!(stage.offers().is_empty(), "{value}");
    }
    stage.wallet.coins[0].value = 1_000_000;
    stage.refresh();
    stage.pass(secs(601));
    assert_eq!(stage.offers().len(), 1);
}

#[test]
fn running_sessions_do_not_show_in_the_announced_size() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    announced(&mut stage);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 200_000;
    taker.until_ioauth(&mut stage);
    stage.refresh();
    stage.pass(secs(200));
    assert!(announced(&mut stage).is_empty());
    assert_eq!(stage.offers()[0].max_size, 972_700);
}

#[test]
fn orderbook_request_is_answered_in_private_for_each_offer() {
    let mut config = config();
    config.terms = MakerTerms { dual: true, ..config.terms };
    let mut stage = Stage::with(config, &[(1, 100_000_000)]);
    stage.take_left();
    let asker = stranger(1);
    stage.public(asker.nick(), "orderbook");
    let said = stage.said_to(asker.nick());
    assert_eq!(words(&said), ["sw0reloffer", "sw0absoffer"]);
    assert_eq!(said[1].1, stage.offers()[1].fields());
    stage.take_left();
    stage.public(asker.nick(), "orderbook");
    assert!(stage.take_left().is_empty(), "once in ten seconds");
    stage.public(stranger(2).nick(), "orderbook!orderbook");
    assert!(stage.take_left().is_empty());
    // On a direct connection.
    let event = ChannelEvent::Public {
        from: stranger(3).nick(),
        via: Source::Direct(LinkId(4)),
        text: "orderbook".to_owned(),
    };
    stage.heard(&event);
    assert_eq!(stage.said_to(stranger(3).nick()).len(), 2);
}

#[test]
fn maker_knows_whether_it_can_be_found() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    assert!(!stage.state.as_ref().unwrap().reachable);
    let mut book = Book::empty();
    book.offers.push(book_offer(maker_nick()));
    stage.maker.book(Arc::new(book), stage.now);
    stage.run();
    assert!(stage.state.as_ref().unwrap().reachable);
    stage.heard(&ChannelEvent::Down(DIRECTORY));
    assert!(!stage.state.as_ref().unwrap().reachable);
}

// 4.8

fn bonded(values: &[(u64, u32)]) -> FakeWallet {
    let mut wallet = FakeWallet::new();
    wallet.fund(1, 10_000_000);
    for (value, locktime) in values {
        wallet.fund(0, *value);
        let coin = wallet.coins.last_mut().unwrap();
        coin.locktime = Some(*locktime);
        coin.frozen = true;
    }
    wallet
}

fn proof(stage: &mut Stage, asker: &NickKey) -> Option<BondProof> {
    stage.take_left();
    stage.public(asker.nick(), "orderbook");
    let said = stage.said_to(asker.nick());
    let (PrivateWord::Offer(order_type), payload) = said.first()? else { panic!("an offer") };
    let bond = OfferMessage::parse(*order_type, payload).bond?;
    Some(BondProof::verify(&bond, &maker_nick(), &asker.nick()).expect("a good proof"))
}

#[test]
fn best_bond_is_shown_in_private_only() {
    // Twice the coins for half the time is worth more, because the value grows faster than the amount.
    let far = 1_700_000_000 + 2 * 31_556_952;
    let wallet = bonded(&[(100_000, far), (100_000_000, far), (90_000_000, far)]);
    let best = wallet.coins[2].outpoint;
    let mut stage = Stage::open(config(), wallet);
    assert!(announced(&mut stage).iter().all(|text| !text.contains("tbond")));
    let first = proof(&mut stage, &stranger(1)).unwrap();
    assert_eq!((first.outpoint, first.locktime), (best, far));
    // At height 1 000 until the next boundary.
    assert_eq!(first.cert_expiry, 1);
    let other = proof(&mut stage, &stranger(2)).unwrap();
    assert_eq!(other.cert_key, first.cert_key);
    let bond = stage.state.as_ref().unwrap().bond.unwrap();
    assert_eq!((bond.outpoint, bond.certified_until), (best, 2_016));
    assert!(bond.value > 0.0);
}

#[test]
fn certificate_is_renewed_before_the_boundary_and_the_nick_stays() {
    let far = 1_700_000_000 + 31_556_952;
    let mut stage = Stage::open(config(), bonded(&[(100_000_000, far)]));
    let asker = stranger(1);
    let first = proof(&mut stage, &asker).unwrap();
    for (height, renewed) in
        [(2_012, false), (2_013, true), (2_014, true), (2_016, true), (2_017, true)]
    {
        stage.wallet.height = height;
        stage.refresh();
        stage.pass(secs(11));
        let now = proof(&mut stage, &asker).unwrap();
        assert!(now.check_expiry(height).is_ok());
        assert_eq!(now.cert_expiry > first.cert_expiry, renewed, "{height}");
    }
    let certified = stage.wallet.asked.iter().filter(|kind| **kind == "certify").count();
    assert_eq!(certified, 2, "renewed once");
}

#[test]
fn spent_bond_is_shown_no_more_and_a_new_one_is() {
    let far = 1_700_000_000 + 31_556_952;
    let mut stage = Stage::open(config(), bonded(&[(100_000_000, far), (50_000_000, far)]));
    let asker = stranger(1);
    let best = stage.wallet.coins[1].outpoint;
    assert_eq!(proof(&mut stage, &asker).unwrap().outpoint, best);
    stage.wallet.coins.remove(1);
    stage.slow = |question| matches!(question, joinery_roles::ask::Question::CertifyBond { .. });
    stage.refresh();
    stage.pass(secs(11));
    assert_eq!(proof(&mut stage, &asker), None, "at once");
    stage.slow = |_| false;
    stage.answer_all();
    stage.pass(secs(11));
    assert_eq!(proof(&mut stage, &asker).unwrap().outpoint, stage.wallet.coins[1].outpoint);
    stage.wallet.coins.remove(1);
    stage.refresh();
    stage.pass(secs(11));
    assert_eq!(proof(&mut stage, &asker), None);
}

#[test]
fn bond_that_is_worth_nothing_any_more_is_not_shown() {
    // Locked for a year, expired for longer than that.
    let mut wallet = bonded(&[(100_000_000, 1_600_000_000)]);
    wallet.coins[1].height = Some(HEIGHT);
    let mut stage = Stage::open(config(), wallet);
    assert_eq!(proof(&mut stage, &stranger(1)), None);
    assert!(!stage.wallet.asked.contains(&"certify"));
}

#[test]
fn certificate_that_was_not_to_be_had_is_asked_for_again() {
    let far = 1_700_000_000 + 31_556_952;
    let mut wallet = bonded(&[(100_000_000, far)]);
    let locked = wallet.coins.remove(1);
    let mut stage = Stage::open(config(), wallet);
    stage.slow = |question| matches!(question, joinery_roles::ask::Question::CertifyBond { .. });
    stage.wallet.coins.push(locked.clone());
    stage.refresh();
    stage.wallet.coins.pop();
    stage.slow = |_| false;
    stage.answer_all();
    assert_eq!(stage.error(), Some("bond_not_certified"));
    stage.wallet.coins.push(locked);
    stage.pass(secs(60));
    assert!(proof(&mut stage, &stranger(1)).is_some());
}

#[test]
fn md0_single_input() {
    // Four deposits beside a bond: never two of them together, except for what came out of coinjoins.
    let far = 1_700_000_000 + 31_556_952;
    let mut wallet = FakeWallet::new();
    wallet.fund(0, 100_000_000);
    wallet.coins[0].locktime = Some(far);
    for value in [1_000_000, 1_100_000, 1_200_000, 1_300_000] {
        wallet.fund(0, value);
    }
    wallet.coins[1].kind = CoinKind::CoinjoinOutput;
    wallet.coins[2].kind = CoinKind::CoinjoinOutput;
    wallet.coins[3].kind = CoinKind::CoinjoinChange;
    let mut stage = Stage::open(config(), wallet.clone());
    stage.refresh();
    stage.pass(secs(601));
    // Both equal outputs and the largest other: 1.0 + 1.1 + 1.3.
    assert!(stage.offers()[0].max_size <= 3_400_000 - 27_300);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 3_000_000;
    taker.until_ioauth(&mut stage);
    let used = stage.wallet.rounds()[0].coins.clone();
    let unproven = used
        .iter()
        .filter(|outpoint| stage.wallet.own(outpoint).unwrap().kind != CoinKind::CoinjoinOutput);
    assert_eq!((used.len(), unproven.count()), (3, 1));
    // Without a bond all of them may go together.
    wallet.coins.remove(0);
    let mut stage = Stage::open(config(), wallet);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 4_500_000;
    taker.until_ioauth(&mut stage);
    assert_eq!(stage.wallet.rounds()[0].coins.len(), 4);
}

// 4.5, commitments of others

#[test]
fn published_commitments_are_remembered_and_bounded() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    let publisher = stranger(1).nick();
    let mut taker = FakeTaker::new(&mut stage, 1);
    stage.public(publisher, &format!("hp2 {}", taker.commitment()));
    stage.public(publisher, "hp2 abcd");
    assert_eq!(stage.wallet.remembered, [taker.commitment()]);
    let said = taker.fill(&mut stage);
    assert!(crate::stage::error_text(&said).unwrap().starts_with("Commitment is blacklisted: "));
    for number in 0..500_u16 {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        stage.public(publisher, &format!("hp2 {}", Commitment::from_bytes(bytes)));
    }
    assert_eq!(stage.wallet.remembered.len(), 60);
    // Another way has a budget of its own.
    let text = format!("hp2 {}", Commitment::from_bytes([8; 32]));
    let via = Source::Directory(DirectoryId(1));
    stage.heard(&ChannelEvent::Public { from: publisher, via, text });
    assert_eq!(stage.wallet.remembered.len(), 61);
    let mut config = config();
    config.accept_commitments = false;
    let mut stage = Stage::with(config, &[(1, 1_000_000)]);
    stage.public(publisher, &format!("hp2 {}", Commitment::from_bytes([8; 32])));
    assert!(stage.wallet.remembered.is_empty());
}

#[test]
fn hp2_priority_own_first() {
    let mut config = config();
    config.publication = Publication::Relay;
    let mut stage = Stage::with(config, &[(1, 2_000_000), (3, 2_000_000)]);
    let maker = stranger(9).nick();
    let mut book = Book::empty();
    book.offers.push(book_offer(maker));
    stage.maker.book(Arc::new(book), stage.now);
    stage.take_left();
    // A flood of requests is answered a few times.
    for number in 0..200_u32 {
        let commitment = Commitment::from_bytes([u8::try_from(number % 250).unwrap(); 32]);
        let asker = stranger(number);
        stage.private(&asker, DIRECTORY, PrivateWord::Hp2, &commitment.to_string());
    }
    let relayed = announced(&mut stage);
    assert_eq!(relayed.len(), 3);
    assert!(relayed[0].starts_with("hp2 "));
    // Our own go out all the same.
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.pass(secs(15));
    assert_eq!(stage.said_to(maker), [(PrivateWord::Hp2, taker.commitment().to_string())]);
    stage.take_left();
    let asker = stranger(1);
    stage.private(&asker, DIRECTORY, PrivateWord::Hp2, "zz");
    stage.private(&asker, DIRECTORY, PrivateWord::Hp2, &"ab".repeat(32));
    assert_eq!(announced(&mut stage), [format!("hp2 {}", "ab".repeat(32))]);
}

#[test]
fn publication_that_failed_goes_over_another_maker() {
    let mut stage = Stage::new(&[(1, 2_000_000)]);
    let maker = stranger(9).nick();
    let mut book = Book::empty();
    book.offers.push(book_offer(maker));
    book.offers.push(book_offer(maker_nick()));
    stage.maker.book(Arc::new(book), stage.now);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    stage.pass(secs(15));
    assert!(stage.left.contains(&Left::Published(taker.commitment())));
    stage.maker.publication_failed(taker.commitment(), stage.now);
    stage.run();
    assert_eq!(stage.said_to(maker), [(PrivateWord::Hp2, taker.commitment().to_string())]);
}

#[test]
fn empty_view_is_harmless() {
    let mut stage = Stage::new(&[(1, 1_000_000)]);
    stage.maker.wallet(Arc::new(WalletView { synced: true, ..WalletView::default() }), stage.now);
    stage.run();
    assert!(stage.offers().is_empty());
}
