//! Defects that other makers had (`spec/defects.md` 1, `spec/roles.md` 11.2). The list is in `main.rs`.

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::maker_offers::Spread;
use joinery_proto::message::OfferMessage;
use joinery_proto::nacl_box::NaclSecretKey;
use joinery_proto::private_message::PrivateWord;
use joinery_proto::signature;
use joinery_proto::transaction::signing::{OwnCoin, p2wpkh};
use joinery_roles::maker::MakerEnd;
use joinery_wallet::snapshot::CoinKind;

use crate::stage::{
    DIRECTORY, FakeTaker, FakeWallet, Left, Stage, config, error_text, key, secs, words,
};

#[test]
fn podle_blacklist_is_over_bytes() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let used = taker.commitment().to_string();
    let prefix = taker.fill_payload().rsplit_once(' ').unwrap().0.to_owned();
    let mut other = FakeTaker::new(&mut stage, 2);
    let mixed: String = used
        .chars()
        .enumerate()
        .map(|(index, c)| if index % 2 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    for text in [used.clone(), used.to_uppercase(), mixed] {
        let said = other.fill_with(&mut stage, &format!("{prefix} P{text}"));
        assert_eq!(error_text(&said), Some(&*format!("Commitment is blacklisted: {used}")));
    }
    // White space and other lengths are no commitments at all.
    for text in [format!("{used}00"), format!(" {used}"), used[..62].to_owned()] {
        assert!(other.fill_with(&mut stage, &format!("{prefix} P{text}")).is_empty());
    }
}

#[test]
fn podle_pubkey_must_match_utxo_spk() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    let mut thief = FakeTaker::new(&mut stage, 1);
    let victim = FakeTaker::new(&mut stage, 2);
    // A good proof with the thief's key that names the victim's coin.
    thief.coin = OwnCoin::new(victim.coin.outpoint, 0, key(0x70, 1));
    thief.fill(&mut stage);
    assert_eq!(error_text(&thief.auth(&mut stage)), Some("commitment rejected: proof"));
    assert!(stage.wallet.journal.is_empty());
}

#[test]
fn ioauth_binds_key_to_utxo() {
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    let said = taker.fill(&mut stage);
    let session_key = said[0].1.split(' ').next().unwrap().to_owned();
    taker.auth(&mut stage);
    let io = taker.io.as_ref().unwrap();
    signature::verify(session_key.as_bytes(), &io.btc_signature, &io.auth_key).unwrap();
    let first = stage.wallet.own(&io.utxos[0].outpoint).unwrap();
    let script = OwnCoin::new(first.outpoint, 0, first.key).script().clone();
    assert_eq!(p2wpkh(&io.auth_key), script, "the first coin's key");
    // Each session has a key of its own.
    let mut other = FakeTaker::new(&mut stage, 2);
    assert_ne!(other.fill(&mut stage)[0].1.split(' ').next(), Some(session_key.as_str()));
    assert_ne!(NaclSecretKey::from_bytes(taker.secret).public_key().to_string(), session_key);
}

#[test]
fn no_tbond_in_pubmsg() {
    let mut wallet = FakeWallet::new();
    wallet.fund(1, 3_000_000);
    wallet.fund(0, 100_000_000);
    wallet.coins[1].locktime = Some(1_800_000_000);
    let mut stage = Stage::open(config(), wallet);
    let taker = FakeTaker::new(&mut stage, 1);
    stage.public(taker.nick(), "orderbook");
    stage.wallet.fund(1, 30_000_000);
    stage.refresh();
    stage.pass(secs(700));
    let mut public = 0;
    for left in &stage.left {
        match left {
            Left::Announced(text) => {
                public += 1;
                assert!(!text.contains("tbond"), "{text}");
            }
            Left::Said { word: PrivateWord::Offer(order_type), payload, .. } => {
                assert!(OfferMessage::parse(*order_type, payload).bond.is_some());
            }
            _ => {}
        }
    }
    assert_eq!(public, 2);
}

#[test]
fn maker_input_cap() {
    // Forty small coins would be a consolidation at the taker's cost; it would drop us.
    let mut stage = Stage::new(&[(1, 100_000); 40]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 1_400_000;
    taker.until_ioauth(&mut stage);
    assert_eq!(taker.io.as_ref().unwrap().utxos.len(), 15);
    // Greediest would take the fewest of the small ones that suffice; here that is more than allowed.
    let mut config = config();
    config.rules.merge_algorithm = joinery_wallet::policy::MergeAlgorithm::Greediest;
    let mut coins = vec![(1, 50_000); 30];
    coins.push((1, 2_000_000));
    let mut stage = Stage::with(config, &coins);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    assert_eq!(taker.io.as_ref().unwrap().utxos.len(), 1);
}

#[test]
fn maker_liquidity_confirmed_p2wpkh() {
    let mut wallet = FakeWallet::new();
    for mixdepth in 0..4 {
        wallet.fund(mixdepth, 3_000_000);
    }
    wallet.coins[0].height = None;
    wallet.coins[1].frozen = true;
    wallet.coins[2].locktime = Some(1_600_000_000);
    let good = wallet.coins[3].outpoint;
    let mut stage = Stage::open(config(), wallet);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let named: Vec<OutPoint> =
        taker.io.as_ref().unwrap().utxos.iter().map(|utxo| utxo.outpoint).collect();
    assert_eq!(named, [good]);
    let mut other = FakeTaker::new(&mut stage, 2);
    other.fill(&mut stage);
    assert_eq!(error_text(&other.auth(&mut stage)), Some("no funds"));
}

#[test]
fn cj_and_change_distinct() {
    let mut wallet = FakeWallet::new();
    wallet.max_mixdepth = 0;
    wallet.fund(0, 3_000_000);
    let mut stage = Stage::open(config(), wallet);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    let io = taker.io.as_ref().unwrap();
    assert_ne!(io.cj_address, io.change_address);
    assert!(stage.wallet.addresses.iter().all(|(mixdepth, _)| *mixdepth == 0));
}

#[test]
fn session_state_always_settles() {
    // Whatever is never answered: the conversation ends, and so does the maker when it is stopped.
    let kinds: [fn(&joinery_roles::ask::Question) -> bool; 5] = [
        |q| matches!(q, joinery_roles::ask::Question::LookUp(_)),
        |q| matches!(q, joinery_roles::ask::Question::Open(_)),
        |q| matches!(q, joinery_roles::ask::Question::Reveal { .. }),
        |q| matches!(q, joinery_roles::ask::Question::Sign { .. }),
        |q| matches!(q, joinery_roles::ask::Question::End { .. }),
    ];
    for slow in kinds {
        let mut stage = Stage::new(&[(1, 3_000_000)]);
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.fill(&mut stage);
        stage.slow = slow;
        let offer = stage.offers()[0];
        taker.auth(&mut stage);
        if taker.io.is_some() {
            let tx = taker.transaction(&stage, &offer);
            taker.show(&mut stage, &tx);
        }
        stage.pass(secs(300));
        assert_eq!(stage.state.as_ref().unwrap().sessions_open, 0);
        stage.maker.stop(stage.now);
        stage.run();
        stage.pass(secs(30));
        assert_eq!(stage.left.last(), Some(&Left::Finished(MakerEnd::Stopped)));
    }
}

#[test]
fn loss_by_a_small_amount_with_a_share_of_the_miner_fee_is_refused() {
    // M6: the fee of a small amount does not cover what we add to the miner fee.
    let mut config = config();
    config.terms.tx_fee = 1_000;
    config.terms.min_size = 27_300;
    let mut stage = Stage::with(config.clone(), &[(1, 200_000_000)]);
    // 1.5 * 1 000 / 0.00002.
    assert_eq!(stage.offers()[0].min_size, 75_000_000);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 40_000_000;
    assert_eq!(error_text(&taker.fill(&mut stage)), Some("amount out of range"));
    // A least profit holds for every amount within the range, too.
    config.minimum_profit = 600;
    let mut stage = Stage::with(config, &[(1, 200_000_000)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.coin = OwnCoin::new(taker.coin.outpoint, 500_000_000, key(0x70, 1));
    stage.wallet.chain.get_mut(&taker.coin.outpoint).unwrap().value = 500_000_000;
    taker.amount = 79_900_000;
    assert_eq!(error_text(&taker.fill(&mut stage)), Some("amount out of range"));
    taker.amount = 80_000_000;
    taker.until_ioauth(&mut stage);
}

#[test]
fn randomised_terms_never_lose_either() {
    for seed in 0..20 {
        let mut config = config();
        config.terms.tx_fee = 1_000;
        config.terms.spread = Some(Spread { tx_fee: 0.3, cj_fee: 0.1, size: 0.1 });
        let mut stage = Stage::with(config, &[(1, 500_000_000 + seed)]);
        let offer = stage.offers()[0];
        assert!(offer.earning(offer.min_size) >= 0, "{offer}");
        let mut taker = FakeTaker::new(&mut stage, 1);
        taker.amount = offer.min_size - 1;
        assert_eq!(error_text(&taker.fill(&mut stage)), Some("amount out of range"));
    }
}

#[test]
fn malformed_messages_of_every_kind_do_nothing() {
    // M14.
    let mut stage = Stage::new(&[(1, 3_000_000)]);
    let taker = FakeTaker::new(&mut stage, 1);
    stage.take_left();
    for word in [
        PrivateWord::PubKey,
        PrivateWord::Auth,
        PrivateWord::IoAuth,
        PrivateWord::Tx,
        PrivateWord::Sig,
        PrivateWord::Push,
        PrivateWord::Error,
        PrivateWord::Hp2,
    ] {
        for payload in ["-", "AAAA", "0 0 0 0", &"f".repeat(30_000), "\u{fffd}"] {
            stage.private(&taker.key, DIRECTORY, word, payload);
        }
    }
    for text in ["", "cancel", "hp2", "sw0reloffer 0 0 0 0 NaN", "!!!"] {
        stage.public(taker.nick(), text);
    }
    let event = joinery_roles::event::ChannelEvent::Private {
        from: taker.nick(),
        via: DIRECTORY,
        text: "fill".to_owned(),
    };
    stage.heard(&event);
    assert_eq!(stage.take_left(), []);
    assert!(stage.wallet.asked.is_empty());
}

#[test]
fn coins_stay_in_few_accounts() {
    // 4.6: the account after the largest gap pays, so that coins clump and the largest offer stays large.
    let mut stage = Stage::new(&[(0, 3_000_000), (1, 3_000_000), (3, 3_000_000)]);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.until_ioauth(&mut stage);
    // Gaps: before 0 two, before 1 one, before 3 two; the first of equal ones.
    assert_eq!(stage.wallet.rounds()[0].begin.mixdepth, 0);
    stage.refresh();
    let mut other = FakeTaker::new(&mut stage, 2);
    other.until_ioauth(&mut stage);
    assert_eq!(stage.wallet.rounds()[1].begin.mixdepth, 1);
    assert!(words(&taker.auth(&mut stage)).is_empty());
    assert!(stage.wallet.coins.iter().all(|coin| coin.kind == CoinKind::Deposit));
}
