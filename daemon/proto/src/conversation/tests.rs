//! Both sides together: the whole conversation, and what each state does with what is not due.

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Address, Network, OutPoint, Txid};
use proptest::prelude::*;

use super::maker::{
    CommitmentPolicy, MAX_TRANSACTIONS, MakerChoice, MakerOutput, MakerSession, SESSION_TIMEOUT,
};
use super::taker::{ANSWER_TIMEOUT, TakerOutput, TakerSession};
use super::{Ended, Fact};
use crate::blacklist::CommitmentBlacklist;
use crate::nacl_box::NaclSecretKey;
use crate::nick::Nick;
use crate::offer::{Offer, OrderType};
use crate::podle::{Proof, Revelation};
use crate::private_message::PrivateWord;
use crate::transaction::fees::Agreement;
use crate::transaction::maker::MakerShare;
use crate::transaction::signing::OwnCoin;
use crate::transaction::taker::{Coinjoin, ForeignCoin, TakerShare, UsedPlaces};
use crate::utxo::WireUtxo;

const AMOUNT: u64 = 1_000_000;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn coin(byte: u8, value: u64) -> OwnCoin {
    let outpoint = OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 0 };
    OwnCoin::new(outpoint, value, key(byte))
}

fn on_chain(coin: &OwnCoin, confirmations: u32) -> ForeignCoin {
    ForeignCoin {
        outpoint: coin.outpoint,
        value: coin.value,
        script: coin.script().clone(),
        confirmations,
    }
}

fn address(byte: u8) -> Address {
    Address::from_script(coin(byte, 1).script(), Network::Regtest).unwrap()
}

fn offer() -> Offer {
    Offer::parse(OrderType::Sw0Relative, "0 100000 5000000000 0 0.00002").unwrap()
}

fn nick() -> Nick {
    "J5DdKBhSf2Ykxqqy".parse().unwrap()
}

/// What a wallet with this coin gives out when the fact is durable that a maker waits for.
fn persisted(
    maker: &mut MakerSession,
    coin: &OwnCoin,
    blacklist: &mut CommitmentBlacklist,
    nonce: [u8; 24],
) -> Vec<MakerOutput> {
    if let Some(key) = maker.session_key() {
        return maker.revealed(coin.authorise(&key), blacklist, nonce);
    }
    let Some((tx, share)) = maker.agreed() else { return Vec::new() };
    let verified = share.verify(tx.clone(), Some(100)).unwrap();
    let signatures = verified.sign(std::slice::from_ref(coin)).unwrap();
    maker.signed(&signatures, || nonce)
}

/// One taker and one maker with their messages in between, under the test's control.
struct Pair {
    taker: TakerSession,
    maker: Option<MakerSession>,
    blacklist: CommitmentBlacklist,
    taker_coin: OwnCoin,
    maker_coin: OwnCoin,
    revelation: String,
    used: UsedPlaces,
    coinjoin: Option<Coinjoin>,
    facts: Vec<Fact>,
    taker_end: Option<Ended>,
    maker_end: Option<Ended>,
    /// Everything that went to the maker.
    to_maker: Vec<(PrivateWord, String)>,
    nonce: u8,
}

impl Pair {
    fn new() -> (Self, Vec<TakerOutput>) {
        let taker_coin = coin(1, 2_000_000);
        let proof = Proof::generate(
            &taker_coin.secret_key().keypair(crate::secp()),
            &taker_coin.outpoint,
            0,
        );
        let commitment = proof.commitment();
        let revelation =
            Revelation { utxo: WireUtxo::plain(taker_coin.outpoint), proof }.to_string();
        let secret = NaclSecretKey::from_bytes([3; 32]);
        let (taker, outputs) =
            TakerSession::start(nick(), offer(), AMOUNT, secret, commitment, ANSWER_TIMEOUT);
        let mut used = UsedPlaces::default();
        used.add(
            [taker_coin.outpoint],
            [coin(10, 1).script().clone(), coin(11, 1).script().clone()],
        );
        let pair = Self {
            taker,
            maker: None,
            blacklist: CommitmentBlacklist::default(),
            taker_coin,
            maker_coin: coin(2, 3_000_000),
            revelation,
            used,
            coinjoin: None,
            facts: Vec::new(),
            taker_end: None,
            maker_end: None,
            to_maker: Vec::new(),
            nonce: 0,
        };
        (pair, outputs)
    }

    fn nonce(&mut self) -> [u8; 24] {
        self.nonce += 1;
        [self.nonce; 24]
    }

    fn choice(&self) -> MakerChoice {
        MakerChoice {
            share: MakerShare {
                agreement: Agreement::of(&offer(), AMOUNT),
                coins: vec![self.maker_coin.lent()],
                cj_script: address(20).script_pubkey(),
                change_script: address(21).script_pubkey(),
            },
            cj_address: address(20).to_string(),
            change_address: address(21).to_string(),
            heights: vec![100],
        }
    }

    /// What the maker's wallet does when a fact is durable.
    fn persist(&mut self, fact: Fact, nonce: [u8; 24]) -> Vec<MakerOutput> {
        self.facts.push(fact);
        persisted(self.maker.as_mut().unwrap(), &self.maker_coin, &mut self.blacklist, nonce)
    }

    /// Carries out what the taker wants, until nothing is left.
    fn taker_wants(&mut self, outputs: Vec<TakerOutput>) {
        for output in outputs {
            match output {
                TakerOutput::Persist(fact) => {
                    self.facts.push(fact);
                    let next = self.taker.durable(0);
                    self.taker_wants(next);
                }
                TakerOutput::Send(word, payload) => self.deliver(word, payload),
                TakerOutput::Ready { .. } => {
                    let nonce = self.nonce();
                    let next = self.taker.authorise(&self.revelation.clone(), nonce, 0);
                    self.taker_wants(next);
                }
                TakerOutput::LookUp(utxos) => {
                    assert_eq!(utxos, [WireUtxo::plain(self.maker_coin.outpoint)]);
                    let coins = [Some(on_chain(&self.maker_coin, 1))];
                    let next = self.taker.coins_found(&coins, Network::Regtest, &mut self.used);
                    self.taker_wants(next);
                }
                TakerOutput::Answered(verified) => {
                    let share = TakerShare {
                        coins: vec![self.taker_coin.clone()],
                        amount: AMOUNT,
                        destination: address(10).script_pubkey(),
                        change: Some(address(11).script_pubkey()),
                    };
                    let coinjoin =
                        Coinjoin::build(share, vec![*verified], 500, 100, |_| 0).unwrap();
                    let nonce = self.nonce();
                    let next = self.taker.show_transaction(&coinjoin.unsigned(), nonce);
                    self.coinjoin = Some(coinjoin);
                    self.taker_wants(next);
                }
                TakerOutput::Signature(signature) => {
                    let coinjoin = self.coinjoin.as_mut().unwrap();
                    coinjoin.add_signature(&nick(), &signature);
                    if coinjoin.is_complete(&nick()) {
                        let next = self.taker.signatures_complete();
                        self.taker_wants(next);
                    }
                }
                TakerOutput::Ended(end) => self.taker_end = Some(end),
            }
        }
    }

    fn deliver(&mut self, word: PrivateWord, payload: String) {
        let outputs = match (&mut self.maker, word) {
            (None, PrivateWord::Fill) => {
                let secret = NaclSecretKey::from_bytes([4; 32]);
                let (session, outputs) = MakerSession::start(
                    &payload,
                    &[offer()],
                    secret,
                    &mut self.blacklist,
                    CommitmentPolicy::default(),
                    false,
                    0,
                )
                .unwrap();
                self.maker = Some(session);
                outputs
            }
            (Some(maker), word) => maker.received(word, &payload, Some(100), 0),
            (None, _) => Vec::new(),
        };
        self.to_maker.push((word, payload));
        self.maker_wants(outputs);
    }

    fn maker_wants(&mut self, outputs: Vec<MakerOutput>) {
        for output in outputs {
            let nonce = self.nonce();
            match output {
                MakerOutput::Persist(fact) => {
                    let next = self.persist(fact, nonce);
                    self.maker_wants(next);
                }
                MakerOutput::Send(word, payload) => {
                    let next = self.taker.received(word, &payload, 0);
                    // Each copy is sent again, as over a second directory.
                    let again = self.taker.received(word, &payload, 0);
                    self.taker_wants(next);
                    self.taker_wants(again);
                }
                MakerOutput::LookUp(revelation) => {
                    assert_eq!(revelation.utxo.outpoint, self.taker_coin.outpoint);
                    let coin = on_chain(&self.taker_coin, 5);
                    let next = self.maker.as_mut().unwrap().coin_found(Some(&coin));
                    self.maker_wants(next);
                }
                MakerOutput::ChooseCoins { offer: terms, amount } => {
                    assert_eq!((terms, amount), (offer(), AMOUNT));
                    let choice = self.choice();
                    let next = self.maker.as_mut().unwrap().coins_chosen(Some(choice));
                    self.maker_wants(next);
                }
                MakerOutput::PublishCommitment(commitment) => {
                    assert!(self.blacklist.refuses(&commitment));
                }
                MakerOutput::Ended(end) => self.maker_end = Some(end),
            }
        }
    }
}

#[test]
fn whole_conversation_ends_in_a_transaction() {
    let (mut pair, outputs) = Pair::new();
    pair.taker_wants(outputs);
    assert_eq!(pair.taker_end, Some(Ended::Complete));
    // The maker waits for another transaction of this session, as long as the session may last.
    assert_eq!(pair.maker_end, None);
    let maker = pair.maker.as_mut().unwrap();
    assert!(maker.has_signed() && maker.is_replaceable());
    let outputs = maker.tick(SESSION_TIMEOUT);
    assert!(matches!(outputs[..], [MakerOutput::Ended(Ended::Complete)]));
    let tx = pair.coinjoin.take().unwrap().finish().unwrap();
    let kinds: Vec<String> = pair
        .facts
        .iter()
        .map(|fact| serde_json::to_value(fact).unwrap()["fact"].as_str().unwrap().to_owned())
        .collect();
    let order = ["commitment_sent", "coins_revealed", "transaction_shown", "signed"];
    assert_eq!(kinds, order);
    let txid = tx.compute_txid();
    assert!(pair.facts.contains(&Fact::TransactionShown { txid }));
    assert!(pair.facts.contains(&Fact::Signed { txid, outpoints: vec![pair.maker_coin.outpoint] }));
    // Facts survive their serialised form.
    for fact in &pair.facts {
        let text = serde_json::to_string(fact).unwrap();
        assert_eq!(serde_json::from_str::<Fact>(&text).unwrap(), *fact);
    }
}

#[test]
fn replayed_messages_change_nothing() {
    let (mut pair, outputs) = Pair::new();
    pair.taker_wants(outputs);
    let maker = pair.maker.as_mut().unwrap();
    for (word, payload) in &pair.to_maker {
        assert!(maker.received(*word, payload, Some(100), 0).is_empty(), "{word:?}");
    }
    // A replayed fill is refused: its commitment is used.
    let (_, fill) = &pair.to_maker[0];
    let secret = NaclSecretKey::from_bytes([5; 32]);
    let policy = CommitmentPolicy::default();
    let refused =
        MakerSession::start(fill, &[offer()], secret, &mut pair.blacklist, policy, false, 0);
    let end = refused.err().unwrap();
    assert!(end.reply().unwrap().starts_with("Commitment is blacklisted: "));
}

fn started() -> (MakerSession, CommitmentBlacklist, Pair) {
    let (mut pair, outputs) = Pair::new();
    let mut blacklist = CommitmentBlacklist::default();
    let TakerOutput::Persist(_) = &outputs[0] else { panic!("a fact first") };
    let sent = pair.taker.durable(0);
    let TakerOutput::Send(PrivateWord::Fill, fill) = &sent[0] else { panic!("then the fill") };
    let secret = NaclSecretKey::from_bytes([4; 32]);
    let policy = CommitmentPolicy::default();
    let (maker, _) =
        MakerSession::start(fill, &[offer()], secret, &mut blacklist, policy, false, 0).unwrap();
    (maker, blacklist, pair)
}

fn auth(pair: &Pair) -> String {
    let maker = NaclSecretKey::from_bytes([4; 32]).public_key();
    let shared = NaclSecretKey::from_bytes([3; 32]).shared_with(&maker).unwrap();
    shared.seal([9; 24], &pair.revelation)
}

#[test]
fn young_small_spent_and_foreign_coins_are_refused() {
    let (_, _, pair) = started();
    let good = on_chain(&pair.taker_coin, 5);
    let young = ForeignCoin { confirmations: 4, ..good.clone() };
    let small = ForeignCoin { value: 199_999, ..good.clone() };
    let least = ForeignCoin { value: 200_000, ..good.clone() };
    let foreign = ForeignCoin { script: coin(7, 1).script().clone(), ..good.clone() };
    let elsewhere = ForeignCoin { outpoint: coin(7, 1).outpoint, ..good.clone() };
    for (coin, accepted) in [
        (Some(&good), true),
        (Some(&least), true),
        (Some(&young), false),
        (Some(&small), false),
        (Some(&foreign), false),
        (Some(&elsewhere), false),
        (None, false),
    ] {
        let (mut maker, mut blacklist, pair) = started();
        let looked = maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0);
        assert!(matches!(looked[..], [MakerOutput::LookUp(_)]));
        let outputs = maker.coin_found(coin);
        match outputs.as_slice() {
            [MakerOutput::ChooseCoins { .. }] => assert!(accepted, "{coin:?}"),
            [MakerOutput::Ended(end @ Ended::AuthRefused(_))] => {
                assert!(!accepted, "{coin:?}");
                let reason = match coin {
                    Some(coin) if *coin == young => "age",
                    Some(coin) if *coin == small => "size",
                    Some(coin) if *coin == foreign => "proof",
                    _ => "utxo",
                };
                assert_eq!(end.reply(), Some(format!("commitment rejected: {reason}")));
                let reserved = maker.reserved_commitment().unwrap();
                assert!(blacklist.refuses(&reserved));
                blacklist.release(&reserved);
                assert!(!blacklist.refuses(&reserved));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let (mut maker, mut blacklist, pair) = started();
    maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0);
    maker.coin_found(Some(&on_chain(&pair.taker_coin, 5)));
    let outputs = maker.coins_chosen(Some(pair.choice()));
    assert!(matches!(outputs[..], [MakerOutput::Persist(Fact::CoinsRevealed { .. })]));
    // Whatever arrives meanwhile, nothing is sent.
    assert!(maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0).is_empty());
    let outputs = persisted(&mut maker, &pair.maker_coin, &mut blacklist, [2; 24]);
    assert!(matches!(outputs[0], MakerOutput::Send(PrivateWord::IoAuth, _)));
    assert!(matches!(outputs[1], MakerOutput::PublishCommitment(_)));
    assert_eq!(maker.reserved_commitment(), None);
}

#[test]
fn wallet_cannot_change_the_terms_of_a_session() {
    let (mut maker, _, pair) = started();
    maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0);
    maker.coin_found(Some(&on_chain(&pair.taker_coin, 5)));
    let mut choice = pair.choice();
    choice.share.agreement.amount += 1;
    let outputs = maker.coins_chosen(Some(choice));
    assert!(matches!(outputs[..], [MakerOutput::Ended(Ended::NoCoins)]));
}

#[test]
fn silent_counterparties_time_out() {
    let (mut maker, _, mut pair) = started();
    assert!(maker.tick(299_999).is_empty());
    let outputs = maker.tick(300_000);
    assert!(matches!(outputs[..], [MakerOutput::Ended(Ended::TimedOut { waiting_for: "auth" })]));
    assert!(maker.tick(310_000).is_empty(), "only once");
    let outputs = pair.taker.tick(ANSWER_TIMEOUT);
    assert!(matches!(outputs[..], [TakerOutput::Ended(Ended::TimedOut { waiting_for: "pubkey" })]));
    // A clock that jumps back ends nothing early.
    let (mut maker, _, _) = started();
    assert!(maker.tick(0).is_empty());
}

#[test]
fn clear_text_error_ends_the_takers_wait_at_once() {
    let (mut pair, _) = Pair::new();
    pair.taker.durable(0);
    let text = "Taker's UTXO too young: 2 < 5";
    let outputs = pair.taker.received(PrivateWord::Error, text, 1);
    let [TakerOutput::Ended(Ended::CounterpartyError { text: kept })] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!(kept, text);
}

#[test]
fn encrypted_commands_are_never_accepted_in_clear_text() {
    let (mut maker, _, pair) = started();
    assert!(maker.received(PrivateWord::Auth, &pair.revelation, Some(100), 0).is_empty());
    assert!(maker.is_replaceable());
    // A sealed auth under another command word is ignored as well.
    for word in [PrivateWord::Tx, PrivateWord::IoAuth, PrivateWord::Sig, PrivateWord::Push] {
        assert!(maker.received(word, &auth(&pair), Some(100), 0).is_empty());
    }
}

#[test]
fn extended_coins_only_for_takers_that_use_them() {
    for extended in [false, true] {
        let (mut maker, mut blacklist, mut pair) = started();
        let mut revelation: Revelation = pair.revelation.parse().unwrap();
        let script = pair.taker_coin.script().clone();
        revelation.utxo.hint = extended.then_some(crate::utxo::UtxoHint { script, height: 96 });
        pair.revelation = revelation.to_string();
        maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0);
        maker.coin_found(Some(&on_chain(&pair.taker_coin, 5)));
        maker.coins_chosen(Some(pair.choice()));
        let outputs = persisted(&mut maker, &pair.maker_coin, &mut blacklist, [2; 24]);
        let [MakerOutput::Send(PrivateWord::IoAuth, sealed), ..] = outputs.as_slice() else {
            panic!("{outputs:?}")
        };
        let maker_key = NaclSecretKey::from_bytes([4; 32]).public_key();
        let shared = NaclSecretKey::from_bytes([3; 32]).shared_with(&maker_key).unwrap();
        let answer = crate::message::IoAuth::parse(&shared.open(sealed).unwrap()).unwrap();
        assert_eq!(answer.utxos[0].hint.is_some(), extended);
        assert_eq!(answer.utxos[0].outpoint, pair.maker_coin.outpoint);
    }
}

#[test]
fn refused_fills_have_the_references_texts() {
    let mut blacklist = CommitmentBlacklist::default();
    let key = NaclSecretKey::from_bytes([3; 32]).public_key();
    let commitment = "ab".repeat(32);
    blacklist.use_up(crate::podle::Commitment::from_hex(&"cd".repeat(32)).unwrap());
    let mut refused = |payload: &str| {
        let secret = NaclSecretKey::from_bytes([5; 32]);
        let policy = CommitmentPolicy::default();
        let offers = [offer()];
        let started =
            MakerSession::start(payload, &offers, secret, &mut blacklist, policy, false, 0);
        started.expect_err("refused").reply()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(refused(&format!("1 200000 {key} P{commitment}")), text("oid not found"));
    assert_eq!(refused(&format!("0 99999 {key} P{commitment}")), text("amount out of range"));
    assert_eq!(refused(&format!("0 5000000001 {key} P{commitment}")), text("amount out of range"));
    let used = "CD".repeat(32);
    let expected = text(&format!("Commitment is blacklisted: {}", used.to_lowercase()));
    assert_eq!(refused(&format!("0 200000 {key} P{used}")), expected);
    let low_order = "0".repeat(64);
    for (payload, reply) in [
        (format!("0 200000 {key} Q{commitment}"), "Unsupported commitment type: Q".to_owned()),
        (format!("0 200000 {key}"), "payload has too few fields".to_owned()),
        (format!("0 -1 {key} P{commitment}"), "number is malformed or out of range".to_owned()),
        (format!("x 200000 {key} P{commitment}"), "number is malformed or out of range".to_owned()),
        (format!("0 200000 zz P{commitment}"), "Invalid nacl pubkey: zz".to_owned()),
        (
            format!("0 200000 {low_order} P{commitment}"),
            format!("Invalid nacl pubkey: {low_order}"),
        ),
    ] {
        assert_eq!(refused(&payload), Some(reply), "{payload}");
    }
    // What is no commitment at all is dropped in silence.
    assert_eq!(refused(&format!("0 200000 {key} P{commitment}0")), None);
    assert_eq!(refused(&format!("0 200000 {key} P{}", "zz".repeat(32))), None);
    // An echo is bounded and printable.
    let long = refused(&format!("0 200000 {}\u{7f} P{commitment}", "x".repeat(500))).unwrap();
    assert_eq!(long, format!("Invalid nacl pubkey: {}", "x".repeat(64)));
    // None of these reserved the commitment.
    let secret = NaclSecretKey::from_bytes([5; 32]);
    let good = format!("0 200000 {key} P{commitment}");
    let policy = CommitmentPolicy::default();
    assert!(
        MakerSession::start(&good, &[offer()], secret, &mut blacklist, policy, false, 0).is_ok()
    );
}

/// A transaction that pays the maker what was agreed, plus `error` satoshi of change; `tag` makes it another one.
fn shown(pair: &Pair, error: i64, tag: u8) -> bdk_wallet::bitcoin::Transaction {
    let fee = offer().cj_fee.of(AMOUNT);
    let cj = AMOUNT.saturating_add_signed(error.min(0));
    let change = (3_000_000 - AMOUNT + fee).saturating_add_signed(error);
    let output = |value, byte| bdk_wallet::bitcoin::TxOut {
        value: bdk_wallet::bitcoin::Amount::from_sat(value),
        script_pubkey: address(byte).script_pubkey(),
    };
    let input =
        |outpoint| bdk_wallet::bitcoin::TxIn { previous_output: outpoint, ..Default::default() };
    bdk_wallet::bitcoin::Transaction {
        version: bdk_wallet::bitcoin::transaction::Version::TWO,
        lock_time: bdk_wallet::bitcoin::absolute::LockTime::ZERO,
        input: vec![input(pair.maker_coin.outpoint), input(pair.taker_coin.outpoint)],
        output: vec![output(cj, 20), output(change, 21), output(7, 22 + tag)],
    }
}

/// A maker whose coins are told, and the box of its taker.
fn revealed() -> (MakerSession, CommitmentBlacklist, Pair, crate::nacl_box::NaclBox) {
    let (mut maker, mut blacklist, pair) = started();
    maker.received(PrivateWord::Auth, &auth(&pair), Some(100), 0);
    maker.coin_found(Some(&on_chain(&pair.taker_coin, 5)));
    maker.coins_chosen(Some(pair.choice()));
    persisted(&mut maker, &pair.maker_coin, &mut blacklist, [2; 24]);
    let maker_key = NaclSecretKey::from_bytes([4; 32]).public_key();
    let shared = NaclSecretKey::from_bytes([3; 32]).shared_with(&maker_key).unwrap();
    (maker, blacklist, pair, shared)
}

#[test]
fn three_different_transactions_are_signed_each_after_it_is_durable() {
    let (mut maker, mut blacklist, pair, shared) = revealed();
    for tag in 0..u8::try_from(MAX_TRANSACTIONS).unwrap() {
        let tx = shown(&pair, 0, tag);
        let sealed = shared.seal([tag; 24], &crate::message::tx_payload(&tx));
        let outputs = maker.received(PrivateWord::Tx, &sealed, Some(100), 0);
        let [MakerOutput::Persist(Fact::Signed { txid, .. })] = outputs.as_slice() else {
            panic!("{outputs:?}")
        };
        assert_eq!(*txid, tx.compute_txid());
        assert_eq!(maker.agreed().unwrap().0, &tx);
        // Before that is durable, nothing else is looked at.
        assert!(maker.received(PrivateWord::Tx, &sealed, Some(100), 0).is_empty());
        let outputs = persisted(&mut maker, &pair.maker_coin, &mut blacklist, [7; 24]);
        assert!(matches!(outputs[0], MakerOutput::Send(PrivateWord::Sig, _)));
        let last = usize::from(tag) + 1 == MAX_TRANSACTIONS;
        assert_eq!(matches!(outputs.last(), Some(MakerOutput::Ended(Ended::Complete))), last);
        // The same one again costs nothing and gives nothing.
        assert!(maker.received(PrivateWord::Tx, &sealed, Some(100), 0).is_empty());
    }
    assert!(maker.is_over());
    let tx = shared.seal([9; 24], &crate::message::tx_payload(&shown(&pair, 0, 9)));
    assert!(maker.received(PrivateWord::Tx, &tx, Some(100), 0).is_empty(), "no fourth");
}

#[test]
fn further_transaction_is_checked_like_the_first() {
    let (mut maker, mut blacklist, pair, shared) = revealed();
    let tell = |maker: &mut MakerSession, error, tag| {
        let tx = crate::message::tx_payload(&shown(&pair, error, tag));
        maker.received(PrivateWord::Tx, &shared.seal([tag; 24], &tx), Some(100), 0)
    };
    assert!(matches!(tell(&mut maker, 0, 1)[..], [MakerOutput::Persist(_)]));
    persisted(&mut maker, &pair.maker_coin, &mut blacklist, [7; 24]);
    let outputs = tell(&mut maker, -1, 2);
    let [MakerOutput::Ended(end @ Ended::TransactionRefused(_))] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!(end.reply().unwrap(), "transaction rejected");
    assert!(maker.is_over());
}

#[test]
fn transaction_may_be_refused_for_what_only_the_chain_knows() {
    use crate::transaction::maker::MakerRefusal;
    let (mut maker, mut blacklist, pair, shared) = revealed();
    let refusal = MakerRefusal::FeeRate { fee: 1, size: 400, floor: 1_000 };
    assert!(maker.refuse_transaction(refusal.clone()).is_empty(), "there is none yet");
    let tx = crate::message::tx_payload(&shown(&pair, 0, 1));
    maker.received(PrivateWord::Tx, &shared.seal([1; 24], &tx), Some(100), 0);
    let outputs = maker.refuse_transaction(refusal);
    assert!(matches!(outputs[..], [MakerOutput::Ended(Ended::TransactionRefused(_))]));
    assert!(
        persisted(&mut maker, &pair.maker_coin, &mut blacklist, [7; 24]).is_empty(),
        "nothing is signed any more"
    );
}

fn any_word() -> impl Strategy<Value = PrivateWord> {
    prop::sample::select(vec![
        PrivateWord::Fill,
        PrivateWord::PubKey,
        PrivateWord::Auth,
        PrivateWord::IoAuth,
        PrivateWord::Tx,
        PrivateWord::Sig,
        PrivateWord::Push,
        PrivateWord::Error,
        PrivateWord::Hp2,
        PrivateWord::Orderbook,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A hostile taker who has the box and sends anything in any order, between good messages or instead of
    /// them: no signature leaves unless the transaction pays what was agreed.
    #[test]
    fn hostile_taker_gets_no_signature_below_the_terms(
        script in proptest::collection::vec((any_word(), any::<bool>(), 0_u8..8, -1_i64..3), 1..24),
    ) {
        let (mut maker, mut blacklist, pair) = started();
        let maker_key = NaclSecretKey::from_bytes([4; 32]).public_key();
        let shared = NaclSecretKey::from_bytes([3; 32]).shared_with(&maker_key).unwrap();
        // What was signed, and what is being made durable.
        let (mut signed, mut persisting) = (std::collections::BTreeSet::new(), None);
        for (word, good, tag, error) in script {
            let tx = shown(&pair, error, tag);
            let text = match (good, word) {
                (true, PrivateWord::Auth) => pair.revelation.clone(),
                (true, PrivateWord::Tx) => crate::message::tx_payload(&tx),
                _ => format!("{tag} junk"),
            };
            let payload = if word.is_sealed() { shared.seal([tag; 24], &text) } else { text };
            let mut queue = std::collections::VecDeque::from(maker.received(word, &payload, Some(100), 0));
            while let Some(output) = queue.pop_front() {
                let next = match output {
                    MakerOutput::LookUp(_) => maker.coin_found(Some(&on_chain(&pair.taker_coin, 5))),
                    MakerOutput::ChooseCoins { .. } => {
                        maker.coins_chosen(Some(pair.choice()))
                    }
                    MakerOutput::Persist(fact) => {
                        if let Fact::Signed { txid, .. } = fact {
                            prop_assert_eq!(txid, tx.compute_txid());
                            prop_assert!(error >= 0, "signs for less than agreed");
                            persisting = Some(txid);
                        }
                        persisted(&mut maker, &pair.maker_coin, &mut blacklist, [tag; 24])
                    }
                    MakerOutput::Send(PrivateWord::Sig, _) => {
                        let txid = persisting.take();
                        prop_assert!(txid.is_some_and(|txid| signed.insert(txid)), "once each");
                        Vec::new()
                    }
                    _ => Vec::new(),
                };
                queue.extend(next);
            }
        }
        prop_assert!(signed.len() <= MAX_TRANSACTIONS);
    }

    /// A hostile maker can end its own part of the round and nothing else.
    #[test]
    fn hostile_maker_cannot_move_the_taker_past_a_barrier(
        script in proptest::collection::vec((any_word(), "[ -~]{0,120}", any::<bool>()), 0..20),
    ) {
        let (mut pair, _) = Pair::new();
        pair.taker.durable(0);
        let maker_secret = NaclSecretKey::from_bytes([4; 32]);
        let taker_key = NaclSecretKey::from_bytes([3; 32]).public_key();
        let shared = maker_secret.shared_with(&taker_key).unwrap();
        for (word, text, seal) in script {
            let payload = if seal { shared.seal([1; 24], &text) } else { text };
            for output in pair.taker.received(word, &payload, 0) {
                let harmless = matches!(output, TakerOutput::Ended(_) | TakerOutput::Ready { .. });
                prop_assert!(harmless, "{output:?}");
            }
        }
    }
}
