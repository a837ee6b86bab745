//! What the protocol costs on one core, beside what the two Python peers reached on a machine of two
//! cores (reference 0.9.12 / joinmarket-ng 0.37).

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::ecdsa::Signature;
use bdk_wallet::bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use bdk_wallet::bitcoin::{OutPoint, Txid};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use joinery_proto::bond_proof::{BondProof, Certificate};
use joinery_proto::fidelity_bond::TimeNumber;
use joinery_proto::message::OfferMessage;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::Proof;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord, UnverifiedMessage};
use joinery_proto::secp;

const FIELDS: &str = "0 100000 5000000000 0 0.00002";
const HEIGHT: u32 = 850_000;

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() {
    println!("Operations per second of the Python peers (reference / joinmarket-ng) and our aim:");
    println!("  podle_generate             419 /  3 630     8 000");
    println!("  podle_verify               110 /  5 424    10 000");
    println!("  message_sign             3 610 / 25 800    bare_ecdsa_sign less 5 %");
    println!("  message_verify           3 835 / 16 180    bare_ecdsa_parse_and_verify less 5 %");
    println!("  bond_proof_verify        1 754 /  8 605    11 000");
    println!("  offer_parse                  - / 68 200    2 000 000");
    println!("  offer_with_bond              - /  3 510    10 000");
    divan::main();
}

fn key(number: u16) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_slice(&bytes).expect("below the group order")
}

fn outpoint(number: u16) -> OutPoint {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    OutPoint { txid: Txid::from_byte_array(bytes), vout: 0 }
}

fn nick_key(number: u16) -> NickKey {
    NickKey::new(key(number))
}

fn bond_text(maker: &Nick, taker: &Nick, number: u16) -> String {
    let (coin, cert) = (key(number), key(number.wrapping_add(10_000)));
    let expiry = Certificate::expiry_at(HEIGHT).expect("16 bits");
    let certificate = Certificate::sign(&coin, &cert.public_key(secp()), expiry);
    let locktime = TimeNumber::new(100).expect("a month").locktime();
    let public = coin.public_key(secp());
    BondProof::create(maker, taker, &certificate, &cert, &public, &outpoint(number), locktime)
}

#[divan::bench]
fn bare_ecdsa_sign(bencher: Bencher<'_, '_>) {
    let (key, message) = (key(1), Message::from_digest([9; 32]));
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| secp().sign_ecdsa(black_box(&message), black_box(&key)));
}

#[divan::bench]
fn bare_ecdsa_verify(bencher: Bencher<'_, '_>) {
    let (key, message) = (key(1), Message::from_digest([9; 32]));
    let (signature, public) = (secp().sign_ecdsa(&message, &key), key.public_key(secp()));
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| secp().verify_ecdsa(black_box(&message), black_box(&signature), &public));
}

/// What the library has to do for one message from the wire: key and signature come encoded.
#[divan::bench]
fn bare_ecdsa_parse_and_verify(bencher: Bencher<'_, '_>) {
    let (key, message) = (key(1), Message::from_digest([9; 32]));
    let signature = secp().sign_ecdsa(&message, &key).serialize_der();
    let public = key.public_key(secp()).serialize();
    bencher.counter(ItemsCount::new(1_u32)).bench(|| {
        let public = PublicKey::from_slice(black_box(&public)).expect("a key");
        let signature = Signature::from_der(black_box(&signature)).expect("a signature");
        secp().verify_ecdsa(black_box(&message), &signature, &public)
    });
}

#[divan::bench]
fn podle_generate(bencher: Bencher<'_, '_>) {
    let (key, coin) = (key(1).keypair(secp()), outpoint(1));
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| Proof::generate(black_box(&key), black_box(&coin), 0));
}

#[divan::bench]
fn podle_verify(bencher: Bencher<'_, '_>) {
    let proof = Proof::generate(&key(1).keypair(secp()), &outpoint(1), 0);
    let commitment = proof.commitment();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| black_box(&proof).verify(black_box(&commitment), 3).expect("valid"));
}

#[divan::bench]
fn message_sign(bencher: Bencher<'_, '_>) {
    let key = nick_key(1);
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| key.sign_message(PrivateWord::Fill, black_box(FIELDS), ONION_HOSTID));
}

#[divan::bench]
fn message_verify(bencher: Bencher<'_, '_>) {
    let key = nick_key(1);
    let (text, nick) = (key.sign_message(PrivateWord::Fill, FIELDS, ONION_HOSTID), key.nick());
    bencher.counter(ItemsCount::new(1_u32)).bench(|| {
        let message = UnverifiedMessage::parse(black_box(&text)).expect("whole");
        message.verify(&nick, ONION_HOSTID).expect("genuine").payload.len()
    });
}

#[divan::bench]
fn bond_proof_verify(bencher: Bencher<'_, '_>) {
    let (maker, taker) = (nick_key(1).nick(), nick_key(2).nick());
    let text = bond_text(&maker, &taker, 3);
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| BondProof::verify(black_box(&text), &maker, &taker).expect("valid"));
}

#[divan::bench]
fn offer_parse(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| Offer::parse(OrderType::Sw0Relative, black_box(FIELDS)).expect("valid"));
}

/// One offer of a book: parsed, and its bond verified with script and expiry.
fn validate(payload: &str, maker: &Nick, taker: &Nick) -> usize {
    let message = OfferMessage::parse(OrderType::Sw0Relative, payload);
    if let Some(text) = &message.bond {
        let bond = BondProof::verify(text, maker, taker).expect("valid");
        bond.check_expiry(HEIGHT).expect("not expired");
        black_box(bond.script_pubkey());
    }
    message.offers.len()
}

#[divan::bench]
fn offer_with_bond(bencher: Bencher<'_, '_>) {
    let (maker, taker) = (nick_key(1).nick(), nick_key(2).nick());
    let offer = Offer::parse(OrderType::Sw0Relative, FIELDS).expect("valid");
    let payload = OfferMessage::payload(&offer, Some(&bond_text(&maker, &taker, 3)));
    bencher.counter(ItemsCount::new(1_u32)).bench(|| validate(black_box(&payload), &maker, &taker));
}

/// 3 000 offers, each in a signed message of its own maker, 500 of them with a bond: verified, parsed,
/// bonds validated. Items are offers.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn full_book_of_3000_offers_and_500_bonds(bencher: Bencher<'_, '_>) {
    let taker = nick_key(60_000).nick();
    let offer = Offer::parse(OrderType::Sw0Relative, FIELDS).expect("valid");
    let book: Vec<(Nick, String)> = (0..3_000)
        .map(|number| {
            let maker = nick_key(number);
            let bond = (number % 6 == 0).then(|| bond_text(&maker.nick(), &taker, number));
            let payload = OfferMessage::payload(&offer, bond.as_deref());
            let text = maker.sign_message(
                PrivateWord::Offer(OrderType::Sw0Relative),
                &payload,
                ONION_HOSTID,
            );
            (maker.nick(), text)
        })
        .collect();
    bencher.counter(ItemsCount::new(book.len())).bench(|| {
        let offers: usize = book
            .iter()
            .map(|(maker, text)| {
                let message = UnverifiedMessage::parse(text).expect("whole");
                let message = message.verify(maker, ONION_HOSTID).expect("genuine");
                validate(message.payload, maker, &taker)
            })
            .sum();
        assert_eq!(offers, 3_000);
    });
}
