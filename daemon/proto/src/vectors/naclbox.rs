//! `naclbox.json`.

use bdk_wallet::bitcoin::hex::FromHex;
use serde::Deserialize;

use crate::nacl_box::{NaclPublicKey, NaclSecretKey};

#[derive(Deserialize)]
struct File {
    boxes: Vec<Box>,
    decryption_failures: Vec<Opening>,
    public_key_parsing: Vec<KeyText>,
}

#[derive(Deserialize)]
struct Box {
    name: String,
    direction: String,
    taker_seckey: String,
    taker_pubkey: String,
    maker_seckey: String,
    maker_pubkey: String,
    nonce: String,
    plaintext: String,
    combined_nonce_mac_ciphertext: String,
}

#[derive(Deserialize)]
struct Opening {
    name: String,
    wire_base64: String,
    receiver_seckey: String,
    sender_pubkey: String,
    expected_decrypts: bool,
}

#[derive(Deserialize)]
struct KeyText {
    name: String,
    pubkey: String,
    reference_accepts: bool,
}

fn secret(hex: &str) -> NaclSecretKey {
    NaclSecretKey::from_bytes(<[u8; 32]>::from_hex(hex).unwrap())
}

#[test]
fn boxes_seal_and_open_byte_for_byte() {
    use base64::Engine as _;
    let file: File = super::load("naclbox");
    assert!(!file.boxes.is_empty());
    for case in &file.boxes {
        let (taker, maker) = (secret(&case.taker_seckey), secret(&case.maker_seckey));
        assert_eq!(taker.public_key().to_string(), case.taker_pubkey, "{}", case.name);
        assert_eq!(maker.public_key().to_string(), case.maker_pubkey, "{}", case.name);
        let (sender, receiver) =
            if case.direction == "taker_to_maker" { (&taker, &maker) } else { (&maker, &taker) };
        let nonce = <[u8; 24]>::from_hex(&case.nonce).unwrap();
        let sealed =
            sender.shared_with(&receiver.public_key()).unwrap().seal(nonce, &case.plaintext);
        let wire = Vec::from_hex(&case.combined_nonce_mac_ciphertext).unwrap();
        let wire = base64::engine::general_purpose::STANDARD.encode(wire);
        assert_eq!(sealed, wire, "{}", case.name);
        let opened = receiver.shared_with(&sender.public_key()).unwrap().open(&wire).unwrap();
        assert_eq!(opened, case.plaintext, "{}", case.name);
    }
}

#[test]
fn forged_boxes_do_not_open() {
    let file: File = super::load("naclbox");
    for case in &file.decryption_failures {
        let sender: NaclPublicKey = case.sender_pubkey.parse().unwrap();
        let opened = secret(&case.receiver_seckey)
            .shared_with(&sender)
            .and_then(|shared| shared.open(&case.wire_base64));
        assert_eq!(opened.is_ok(), case.expected_decrypts, "{}: {opened:?}", case.name);
    }
}

#[test]
fn keys_parse_as_in_the_reference() {
    let file: File = super::load("naclbox");
    for case in &file.public_key_parsing {
        let key = case.pubkey.parse::<NaclPublicKey>();
        assert_eq!(key.is_ok(), case.reference_accepts, "{}", case.name);
    }
}
