//! `message_signing.json`.

use bdk_wallet::bitcoin::hex::{DisplayHex, FromHex};
use serde::Deserialize;

use crate::message_signature::digest;
use crate::private_message::{NickKey, PrivateWord, UnverifiedMessage};
use crate::signature;

#[derive(Deserialize)]
struct File {
    messages: Vec<Signed>,
    private_messages: Vec<Private>,
    high_s: HighS,
}

#[derive(Deserialize)]
struct Signed {
    name: String,
    privkey: String,
    pubkey: String,
    message: Option<String>,
    message_hex: Option<String>,
    message_hash: String,
    signature_der: String,
    signature_base64: String,
}

#[derive(Deserialize)]
struct Private {
    name: String,
    privkey: String,
    from_nick: String,
    command: String,
    payload: String,
    hostid: String,
    message_with_signature: String,
}

#[derive(Deserialize)]
struct HighS {
    message: String,
    pubkey: String,
    signature_base64: String,
    reference_accepts: bool,
}

#[test]
fn signatures_are_equal_byte_for_byte() {
    let file: File = super::load("message_signing");
    assert_eq!(file.messages.len(), 14);
    for case in &file.messages {
        let message = match (&case.message, &case.message_hex) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(hex)) => Vec::from_hex(hex).unwrap(),
            (None, None) => panic!("{}: no message", case.name),
        };
        let key = case.privkey.parse().unwrap();
        assert_eq!(digest(&message).to_lower_hex_string(), case.message_hash, "{}", case.name);
        let der = signature::sign_der(&message, &key).to_lower_hex_string();
        assert_eq!(der, case.signature_der, "{}", case.name);
        assert_eq!(signature::sign(&message, &key), case.signature_base64, "{}", case.name);
        let public = case.pubkey.parse().unwrap();
        assert_eq!(signature::verify(&message, &case.signature_base64, &public), Ok(()));
    }
}

#[test]
fn private_messages_are_equal_byte_for_byte() {
    let file: File = super::load("message_signing");
    assert_eq!(file.private_messages.len(), 4);
    for case in &file.private_messages {
        let key = NickKey::new(case.privkey.parse().unwrap());
        assert_eq!(key.nick().as_str(), case.from_nick, "{}", case.name);
        let word = PrivateWord::parse(&case.command).unwrap();
        let text = key.sign_message(word, &case.payload, &case.hostid);
        let expected = format!("{} {}", case.command, case.message_with_signature);
        assert_eq!(text, expected, "{}", case.name);
        let verified =
            UnverifiedMessage::parse(&text).unwrap().verify(&key.nick(), &case.hostid).unwrap();
        assert_eq!(verified.payload, case.payload, "{}", case.name);
    }
}

#[test]
fn high_s_is_accepted_as_in_the_reference() {
    let HighS { message, pubkey, signature_base64, reference_accepts } =
        super::load::<File>("message_signing").high_s;
    let key = pubkey.parse().unwrap();
    let accepted = signature::verify(message.as_bytes(), &signature_base64, &key).is_ok();
    assert_eq!(accepted, reference_accepts);
}
