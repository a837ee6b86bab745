//! `session_transcript.json`: a whole conversation, line by line.

use bdk_wallet::bitcoin::hex::FromHex;
use serde::Deserialize;

use crate::line::{Recipient, RoutedLine};
use crate::message::{Fill, InputSignature, IoAuth, PubKey, parse_push, parse_tx};
use crate::nacl_box::{NaclBox, NaclSecretKey};
use crate::podle::Revelation;
use crate::private_message::{NickKey, ONION_HOSTID, PrivateWord, UnverifiedMessage};
use crate::signature;

#[derive(Deserialize)]
struct File {
    hostid: String,
    taker: Party,
    maker: Party,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Party {
    nick: String,
    nick_privkey: String,
    enc_seckey: String,
    enc_pubkey: String,
}

#[derive(Deserialize)]
struct Step {
    direction: String,
    command: String,
    encrypted: bool,
    plaintext: String,
    line: String,
}

fn secret(party: &Party) -> NaclSecretKey {
    NaclSecretKey::from_bytes(<[u8; 32]>::from_hex(&party.enc_seckey).unwrap())
}

/// The boxes of taker and maker of the transcript; `commands.json` uses the same keys.
pub(super) fn boxes() -> (NaclBox, NaclBox) {
    let File { taker, maker, .. } = super::load("session_transcript");
    let (taker, maker) = (secret(&taker), secret(&maker));
    (
        taker.shared_with(&maker.public_key()).unwrap(),
        maker.shared_with(&taker.public_key()).unwrap(),
    )
}

#[test]
fn every_line_is_made_read_and_opened() {
    let file: File = super::load("session_transcript");
    assert_eq!(file.hostid, ONION_HOSTID);
    let keys = |party: &Party| NickKey::new(party.nick_privkey.parse().unwrap());
    let (taker, maker) = (keys(&file.taker), keys(&file.maker));
    assert_eq!(taker.nick().as_str(), file.taker.nick);
    assert_eq!(maker.nick().as_str(), file.maker.nick);
    assert_eq!(secret(&file.taker).public_key().to_string(), file.taker.enc_pubkey);
    let (taker_box, maker_box) = boxes();
    let mut words = Vec::new();
    let mut tx = None;
    for step in &file.steps {
        let line = RoutedLine::parse(&step.line).unwrap();
        if line.to == Recipient::Public {
            continue;
        }
        let (sender, receiver_box) =
            if step.direction == "T->M" { (&taker, &maker_box) } else { (&maker, &taker_box) };
        let message = UnverifiedMessage::parse(line.text).unwrap();
        let message = message.verify(&line.from, ONION_HOSTID).unwrap();
        assert_eq!(message.word.as_str(), step.command);
        // Signing again gives the same bytes.
        assert_eq!(sender.sign_message(message.word, message.payload, ONION_HOSTID), line.text);
        assert_eq!(message.word.is_sealed(), step.encrypted);
        let text = if step.encrypted {
            receiver_box.open(message.payload).unwrap()
        } else {
            message.payload.to_owned()
        };
        assert_eq!(text, step.plaintext);
        match message.word {
            PrivateWord::Fill => assert_eq!(Fill::parse(&text).unwrap().to_string(), text),
            PrivateWord::PubKey => assert_eq!(PubKey::parse(&text).unwrap().to_string(), text),
            PrivateWord::Auth => {
                let revelation: Revelation = text.parse().unwrap();
                revelation.proof.verify(&revelation.proof.commitment(), 3).unwrap();
                assert_eq!(revelation.to_string(), text);
            }
            PrivateWord::IoAuth => {
                let ioauth = IoAuth::parse(&text).unwrap();
                let key = file.maker.enc_pubkey.as_bytes();
                signature::verify(key, &ioauth.btc_signature, &ioauth.auth_key).unwrap();
                assert_eq!(ioauth.to_string(), text);
            }
            PrivateWord::Tx => tx = Some(parse_tx(&text).unwrap()),
            PrivateWord::Sig => {
                assert_eq!(InputSignature::parse(&text).unwrap().to_string(), text);
            }
            PrivateWord::Push => {
                let pushed = parse_push(&text).unwrap();
                assert_eq!(Some(pushed.compute_txid()), tx.as_ref().map(|tx| tx.compute_txid()));
            }
            _ => {}
        }
        words.push(message.word.as_str());
    }
    for word in ["fill", "pubkey", "auth", "ioauth", "tx", "sig"] {
        assert!(words.contains(&word), "no {word} in the transcript");
    }
}
