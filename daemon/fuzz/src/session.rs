//! Whole hostile conversations: the input is a script of what the counterparty, the chain and the wallet
//! do in which order. The counterparty holds its own session key, so that it can seal whatever it likes.

use joinery_proto::bitcoin::absolute::LockTime;
use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::transaction::Version;
use joinery_proto::bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::conversation::Fact;
use joinery_proto::conversation::maker::{
    CommitmentPolicy, MAX_TRANSACTIONS, MakerChoice, MakerOutput, MakerSession,
};
use joinery_proto::conversation::taker::{ANSWER_TIMEOUT, TakerOutput, TakerSession};
use joinery_proto::message::{self, Fill, InputSignature, IoAuth, PubKey};
use joinery_proto::nacl_box::{NaclBox, NaclSecretKey};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::{Proof, Revelation};
use joinery_proto::private_message::PrivateWord;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::{MakerRefusal, MakerShare};
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::transaction::taker::{Coinjoin, ForeignCoin, TakerShare, UsedPlaces};
use joinery_proto::utxo::WireUtxo;

use crate::script::Script;

const AMOUNT: u64 = 1_000_000;
/// 1 000 000 at 0.00002.
const MAKER_FEE: u64 = 20;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte.clamp(1, 0xfe); 32]).expect("below the group order")
}

fn coin(byte: u8, value: u64) -> OwnCoin {
    let outpoint = OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 0 };
    OwnCoin::new(outpoint, value, key(byte))
}

fn script(byte: u8) -> ScriptBuf {
    coin(byte, 1).script().clone()
}

fn address(byte: u8) -> String {
    Address::from_script(&script(byte), Network::Regtest).expect("P2WPKH").to_string()
}

fn offer() -> Offer {
    Offer::parse(OrderType::Sw0Relative, "0 100000 5000000000 0 0.00002").expect("an offer")
}

fn nick() -> Nick {
    "J5DdKBhSf2Ykxqqy".parse().expect("a nick")
}

fn on_chain(script: &mut Script<'_>, coin: &OwnCoin) -> Option<ForeignCoin> {
    let good = ForeignCoin {
        outpoint: coin.outpoint,
        value: coin.value,
        script: coin.script().clone(),
        confirmations: 10,
    };
    match script.byte() % 8 {
        0 => None,
        1 => Some(ForeignCoin { confirmations: script.byte().into(), ..good }),
        2 => Some(ForeignCoin { value: script.near(good.value), ..good }),
        3 => Some(ForeignCoin { script: self::script(script.byte()), ..good }),
        4 => Some(ForeignCoin { outpoint: self::coin(script.byte(), 1).outpoint, ..good }),
        _ => Some(good),
    }
}

fn word(byte: u8) -> PrivateWord {
    use PrivateWord as W;
    let words = [
        W::Fill,
        W::PubKey,
        W::Auth,
        W::IoAuth,
        W::Tx,
        W::Sig,
        W::Push,
        W::Error,
        W::Hp2,
        W::Orderbook,
        W::Offer(OrderType::Sw0Relative),
    ];
    words[usize::from(byte) % words.len()]
}

/// A transaction that is right, or nearly.
fn transaction(script: &mut Script<'_>, maker_coins: &[OwnCoin], change: u64) -> Transaction {
    let input = |outpoint| TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence(0xffff_fffd),
        witness: Witness::new(),
    };
    let mut inputs = vec![input(coin(1, 1).outpoint)];
    for coin in maker_coins {
        if script.byte() != 0xff {
            inputs.push(input(coin.outpoint));
        }
    }
    let mut outputs = vec![
        TxOut { value: Amount::from_sat(script.near(AMOUNT)), script_pubkey: self::script(20) },
        TxOut { value: Amount::from_sat(script.near(change)), script_pubkey: self::script(21) },
        TxOut { value: Amount::from_sat(AMOUNT), script_pubkey: self::script(10) },
    ];
    for _ in 0..script.byte() % 4 {
        match script.byte() % 4 {
            0 => inputs.push(input(coin(script.byte(), 1).outpoint)),
            1 => {
                let value = Amount::from_sat(script.near(AMOUNT));
                outputs.push(TxOut { value, script_pubkey: self::script(script.byte()) });
            }
            2 => drop(outputs.pop()),
            _ => {
                // Below the length, or zero.
                let turn = usize::from(script.byte()) % outputs.len().max(1);
                let turn = if outputs.is_empty() { 0 } else { turn };
                outputs.rotate_left(turn);
            }
        }
    }
    let version = if script.byte() == 0xff { i32::from(script.byte()) } else { 2 };
    let lock_time = if script.byte() == 0xff { u32::MAX / 2 } else { 100 };
    Transaction {
        version: Version(version),
        lock_time: LockTime::from_consensus(lock_time),
        input: inputs,
        output: outputs,
    }
}

/// A maker with a hostile taker. Whatever happens, signatures leave only after the fact is durable, only for a
/// transaction that pays the maker its coins back with the agreed fee, and for at most three transactions.
pub fn maker(data: &[u8]) -> bool {
    let mut script = Script(data);
    let taker_coin = coin(1, 2_000_000);
    let maker_coins = [coin(2, 3_000_000), coin(3, 500_000)];
    let input_value: u64 = maker_coins.iter().map(|coin| coin.value).sum();
    let proof = Proof::generate(
        &taker_coin.secret_key().keypair(joinery_proto::secp()),
        &taker_coin.outpoint,
        script.byte() % 4,
    );
    let commitment = proof.commitment();
    let revelation = Revelation { utxo: WireUtxo::plain(taker_coin.outpoint), proof }.to_string();

    let taker_secret = NaclSecretKey::from_bytes([3; 32]);
    let maker_secret = || NaclSecretKey::from_bytes([4; 32]);
    let shared: NaclBox =
        taker_secret.shared_with(&maker_secret().public_key()).expect("an ordinary key");
    let mut blacklist = CommitmentBlacklist::default();
    let fill = match script.byte() % 16 {
        0 => script.text(),
        _ => {
            let amount = if script.byte() == 0xff { script.near(AMOUNT) } else { AMOUNT };
            let key = taker_secret.public_key();
            Fill { offer: offer().id, amount, key, commitment }.to_string()
        }
    };
    let started = MakerSession::start(
        &fill,
        &[offer()],
        maker_secret(),
        &mut blacklist,
        CommitmentPolicy::default(),
        script.byte() % 2 == 0,
        0,
    );
    let Ok((mut session, _)) = started else { return false };

    let mut now = 0;
    let mut nonce = 0_u8;
    let mut draw = move || {
        nonce = nonce.wrapping_add(1);
        [nonce; 24]
    };
    let mut revealed_durable = false;
    // The last transaction that became a fact to be persisted.
    let mut agreed: Option<Txid> = None;
    let mut shown: Vec<Transaction> = Vec::new();
    let mut persist: Option<Fact> = None;
    let mut signed: Vec<Txid> = Vec::new();
    let mut steps = 0;
    while !script.is_empty() && steps < 64 {
        steps += 1;
        let outputs = match script.byte() % 13 {
            0 => session.received(word(script.byte()), &script.text(), Some(100), now),
            1 => {
                let sealed = shared.seal(draw(), &script.text());
                session.received(word(script.byte()), &sealed, Some(100), now)
            }
            2 | 3 => {
                let sealed = shared.seal(draw(), &revelation);
                session.received(PrivateWord::Auth, &sealed, Some(100), now)
            }
            4 => session.coin_found(on_chain(&mut script, &taker_coin).as_ref()),
            5 => {
                let change = input_value - AMOUNT + MAKER_FEE;
                let choice = (script.byte() != 0xff).then(|| MakerChoice {
                    share: MakerShare {
                        agreement: Agreement::of(
                            &offer(),
                            if change % 2 == 0 || script.byte() != 0xff { AMOUNT } else { 1 },
                        ),
                        coins: maker_coins.iter().map(OwnCoin::lent).collect(),
                        cj_script: self::script(20),
                        change_script: self::script(21),
                    },
                    cj_address: address(20),
                    change_address: address(21),
                    heights: vec![100, 101],
                });
                session.coins_chosen(choice)
            }
            6 | 7 => {
                if let Some(fact) = persist.take() {
                    match fact {
                        Fact::CoinsRevealed { .. } => revealed_durable = true,
                        Fact::Signed { txid, .. } => agreed = Some(txid),
                        _ => {}
                    }
                    if let Some(key) = session.session_key() {
                        let proof = maker_coins[0].authorise(&key);
                        session.revealed(proof, &mut blacklist, draw())
                    } else if let Some((tx, share)) = session.agreed() {
                        let verified = share.verify(tx.clone(), Some(100));
                        let verified =
                            verified.expect("what was agreed stands up to a second look");
                        let signatures = verified.sign(&maker_coins).expect("all keys are there");
                        session.signed(&signatures, &mut draw)
                    } else {
                        Vec::new()
                    }
                } else {
                    Vec::new()
                }
            }
            8 | 9 => {
                let change = input_value - AMOUNT + MAKER_FEE;
                let tx = transaction(&mut script, &maker_coins, change);
                let sealed = shared.seal(draw(), &message::tx_payload(&tx));
                shown.push(tx);
                session.received(PrivateWord::Tx, &sealed, Some(100), now)
            }
            10 => {
                now += u64::from(script.byte()) * 1_000;
                session.tick(now)
            }
            11 if script.byte() == 0xff => session.refuse_transaction(MakerRefusal::Overspent),
            _ if script.byte() == 0xff => session.stop(),
            _ => Vec::new(),
        };
        for output in outputs {
            match output {
                MakerOutput::Persist(fact) => {
                    if let Fact::Signed { txid, .. } = &fact {
                        assert!(!signed.contains(txid), "each transaction is signed once");
                        let (tx, _) = session.agreed().expect("what is to be signed is shown");
                        assert_eq!(tx.compute_txid(), *txid);
                    }
                    persist = Some(fact);
                }
                MakerOutput::Send(PrivateWord::IoAuth, _) => {
                    assert!(revealed_durable, "coins are revealed after that is durable");
                }
                MakerOutput::Send(PrivateWord::Sig, sealed) => {
                    let txid = agreed.expect("a signature leaves after that is durable");
                    let tx = shown.iter().find(|tx| tx.compute_txid() == txid);
                    let tx = tx.expect("only what the taker showed is signed");
                    for coin in &maker_coins {
                        let spent = tx.input.iter().filter(|i| i.previous_output == coin.outpoint);
                        assert_eq!(spent.count(), 1, "each of our coins is spent once");
                    }
                    let back: u64 = tx
                        .output
                        .iter()
                        .filter(|o| {
                            o.script_pubkey == self::script(20)
                                || o.script_pubkey == self::script(21)
                        })
                        .map(|output| output.value.to_sat())
                        .sum();
                    assert!(back >= input_value + MAKER_FEE, "paid {back} for {input_value}");
                    let text = shared.open(&sealed).expect("sealed for the taker");
                    assert!(InputSignature::parse(&text).is_ok());
                    if !signed.contains(&txid) {
                        signed.push(txid);
                    }
                    assert!(signed.len() <= MAX_TRANSACTIONS, "no free signatures");
                }
                _ => {}
            }
        }
    }
    !signed.is_empty()
}

/// A taker with a hostile maker. Nothing leaves before its fact is durable; a finished transaction pays
/// the taker its amount and its change.
pub fn taker(data: &[u8]) -> bool {
    let mut script = Script(data);
    let taker_coin = coin(1, 2_000_000);
    let maker_coins = [coin(2, 3_000_000), coin(3, 500_000)];
    let proof = Proof::generate(
        &taker_coin.secret_key().keypair(joinery_proto::secp()),
        &taker_coin.outpoint,
        0,
    );
    let commitment = proof.commitment();
    let revelation = Revelation { utxo: WireUtxo::plain(taker_coin.outpoint), proof }.to_string();
    let taker_secret = || NaclSecretKey::from_bytes([3; 32]);
    let maker_secret = NaclSecretKey::from_bytes([4; 32]);
    let shared = maker_secret.shared_with(&taker_secret().public_key()).expect("an ordinary key");
    let (mut session, outputs) =
        TakerSession::start(nick(), offer(), AMOUNT, taker_secret(), commitment, ANSWER_TIMEOUT);
    let mut used = UsedPlaces::default();
    used.add([taker_coin.outpoint], [self::script(10), self::script(11)]);

    let mut now = 0;
    let mut nonce = 0_u8;
    let mut draw = move || {
        nonce = nonce.wrapping_add(1);
        [nonce; 24]
    };
    let mut queue = outputs;
    let mut persist: Option<Fact> = None;
    let (mut committed, mut shown) = (false, false);
    let mut asked: Vec<WireUtxo> = Vec::new();
    let mut verified = None;
    let mut coinjoin: Option<Coinjoin> = None;
    let mut complete = false;
    let mut steps = 0;
    while (!script.is_empty() || !queue.is_empty()) && steps < 64 {
        steps += 1;
        for output in std::mem::take(&mut queue) {
            match output {
                TakerOutput::Persist(fact) => persist = Some(fact),
                TakerOutput::Send(PrivateWord::Fill, _) => {
                    assert!(committed, "the commitment leaves after that is durable");
                }
                TakerOutput::Send(PrivateWord::Tx, _) => {
                    assert!(shown, "the transaction leaves after that is durable");
                }
                TakerOutput::LookUp(utxos) => asked = utxos,
                TakerOutput::Answered(maker) => verified = Some(maker),
                TakerOutput::Signature(signature) => {
                    if let Some(coinjoin) = &mut coinjoin {
                        let _ = coinjoin.add_signature(&nick(), &signature);
                        complete |= coinjoin.is_complete(&nick());
                    }
                }
                _ => {}
            }
        }
        queue = match script.byte() % 12 {
            0 => session.received(word(script.byte()), &script.text(), now),
            1 => {
                let sealed = shared.seal(draw(), &script.text());
                session.received(word(script.byte()), &sealed, now)
            }
            2 => {
                let key = maker_secret.public_key();
                let neutrino_compat = script.byte() % 2 == 0;
                let payload = PubKey { key, neutrino_compat }.to_string();
                session.received(PrivateWord::PubKey, &payload, now)
            }
            3 => session.authorise(&revelation, draw(), now),
            4 => {
                let auth = &maker_coins[usize::from(script.byte() % 2)];
                let proof = auth.authorise(&maker_secret.public_key());
                let mut utxos: Vec<_> =
                    maker_coins.iter().map(|coin| WireUtxo::plain(coin.outpoint)).collect();
                match script.byte() % 8 {
                    0 => utxos.push(WireUtxo::plain(taker_coin.outpoint)),
                    1 => utxos.push(utxos[0].clone()),
                    2 => utxos.truncate(1),
                    _ => {}
                }
                let places = [20, 21, 10, script.byte()];
                let place = |byte: u8| if byte < 0xf0 { 0 } else { usize::from(byte % 4) };
                let answer = IoAuth {
                    utxos,
                    auth_key: proof.key,
                    cj_address: address(places[place(script.byte())]),
                    change_address: address(places[1.max(place(script.byte()))]),
                    btc_signature: proof.signature,
                };
                let sealed = shared.seal(draw(), &answer.to_string());
                session.received(PrivateWord::IoAuth, &sealed, now)
            }
            5 => {
                let coins: Vec<_> = asked
                    .iter()
                    .map(|utxo| {
                        let own = maker_coins.iter().find(|coin| coin.outpoint == utxo.outpoint);
                        on_chain(&mut script, own.unwrap_or(&taker_coin))
                    })
                    .collect();
                session.coins_found(&coins, Network::Regtest, &mut used)
            }
            6 | 7 => match persist.take() {
                Some(fact) => {
                    match fact {
                        Fact::CommitmentSent { .. } => committed = true,
                        Fact::TransactionShown { .. } => shown = true,
                        _ => {}
                    }
                    session.durable(now)
                }
                None => Vec::new(),
            },
            8 => match verified.take() {
                Some(maker) => {
                    let share = TakerShare {
                        coins: vec![taker_coin.clone()],
                        amount: AMOUNT,
                        destination: self::script(10),
                        change: Some(self::script(11)),
                    };
                    match Coinjoin::build(share, vec![*maker], 500, 100, |_| 0) {
                        Ok(built) => {
                            let next = session.show_transaction(&built.unsigned(), draw());
                            coinjoin = Some(built);
                            next
                        }
                        Err(_) => Vec::new(),
                    }
                }
                None => Vec::new(),
            },
            9 => match &coinjoin {
                Some(coinjoin) => {
                    let all = script.byte() % 4 != 0;
                    let signed = sign_as_maker(coinjoin.transaction(), &maker_coins);
                    let mut next = Vec::new();
                    for text in signed.into_iter().skip(usize::from(!all)) {
                        let sealed = shared.seal(draw(), &text);
                        next.extend(session.received(PrivateWord::Sig, &sealed, now));
                    }
                    next
                }
                None => Vec::new(),
            },
            10 => {
                now += u64::from(script.byte()) * 1_000;
                session.tick(now)
            }
            _ if script.byte() == 0xff => session.stop(),
            _ => Vec::new(),
        };
    }
    let Some(coinjoin) = coinjoin else { return false };
    let paid = |tx: &Transaction, to: u8| -> u64 {
        let outputs = tx.output.iter().filter(|output| output.script_pubkey == self::script(to));
        outputs.map(|output| output.value.to_sat()).sum()
    };
    let tx = coinjoin.transaction();
    assert_eq!(paid(tx, 10), AMOUNT, "the taker gets its amount");
    let change = paid(tx, 11);
    let cost = taker_coin.value - AMOUNT - change;
    assert!(cost <= 500 + MAKER_FEE + 2_730, "the taker pays {cost}");
    if complete {
        assert!(coinjoin.makers_complete());
        assert!(coinjoin.finish().is_ok(), "verified signatures make a whole transaction");
    }
    complete
}

/// What an honest maker answers to a transaction, in clear.
fn sign_as_maker(tx: &Transaction, coins: &[OwnCoin]) -> Vec<String> {
    let spent = coins.iter().filter(|c| tx.input.iter().any(|i| i.previous_output == c.outpoint));
    let share = MakerShare {
        agreement: Agreement::of(&offer(), AMOUNT),
        coins: spent.map(OwnCoin::lent).collect(),
        cj_script: self::script(20),
        change_script: self::script(21),
    };
    let Ok(verified) = share.verify(tx.clone(), Some(100)) else { return Vec::new() };
    verified.sign(coins).map(|s| s.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// Scripts of honest conversations, as seeds.
#[must_use]
pub fn honest(side: &str) -> Vec<u8> {
    match side {
        // Proof index, kind of fill, amount, compatibility; then auth, coin, choice, durable, tx, durable.
        "session_maker" => vec![0, 1, 0, 1, 2, 4, 7, 5, 0, 6, 8, 0, 0, 5, 5, 0, 0, 0, 6],
        // durable, pubkey, authorise, ioauth, coins, build, durable, signatures.
        _ => vec![6, 2, 0, 3, 4, 0, 7, 0, 0, 0, 5, 7, 7, 8, 6, 9, 1, 11, 0],
    }
}
