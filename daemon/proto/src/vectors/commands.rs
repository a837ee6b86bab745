//! `commands.json`: every line, through routing, signature, box and payload parser.

use serde::Deserialize;
use serde_json::Value;

use super::transcript::boxes;
use crate::line::{Recipient, RoutedLine};
use crate::message::{Fill, IoAuth, OfferMessage, PubKey, parse_tx};
use crate::podle::{Commitment, Revelation};
use crate::private_message::{ONION_HOSTID, PrivateWord, UnverifiedMessage};
use crate::public_message::{self, PublicCommand};

#[derive(Deserialize)]
struct File {
    private: Vec<Private>,
    public: Vec<Public>,
}

#[derive(Deserialize)]
struct Private {
    name: String,
    direction: String,
    plaintext: String,
    line: String,
    expected_events: Vec<Vec<Value>>,
    dropped: Option<String>,
}

#[derive(Deserialize)]
struct Public {
    name: String,
    line: String,
    expected_events: Vec<Vec<Value>>,
}

/// Number of events that a verified message gives rise to here.
fn events(word: PrivateWord, payload: &str, direction: &str, plaintext: &str) -> usize {
    let opened = || {
        let (taker, maker) = boxes();
        // The receiver's box: the maker's for messages of the taker.
        let receiver = if direction == "T->M" { maker } else { taker };
        let sealed: String = payload.split(' ').collect();
        let text = receiver.open(&sealed).ok()?;
        assert_eq!(text, plaintext);
        Some(text)
    };
    match word {
        PrivateWord::Fill => usize::from(Fill::parse(payload).is_ok()),
        PrivateWord::PubKey => usize::from(PubKey::parse(payload).is_ok()),
        PrivateWord::Auth => {
            usize::from(opened().is_some_and(|text| text.parse::<Revelation>().is_ok()))
        }
        PrivateWord::IoAuth => {
            usize::from(opened().is_some_and(|text| IoAuth::parse(&text).is_ok()))
        }
        PrivateWord::Tx => usize::from(opened().is_some_and(|text| parse_tx(&text).is_ok())),
        PrivateWord::Sig => unreachable!("no such line in the file"),
        PrivateWord::Push | PrivateWord::Error => 1,
        PrivateWord::Hp2 => usize::from(Commitment::from_hex(payload).is_ok()),
        PrivateWord::Orderbook => 0,
        PrivateWord::Offer(order_type) => {
            let message = OfferMessage::parse(order_type, payload);
            message.offers.len() + usize::from(message.bond.is_some())
        }
    }
}

#[test]
fn private_lines_have_the_expected_effect() {
    let file: File = super::load("commands");
    assert_eq!(file.private.len(), 21);
    for case in &file.private {
        let line = RoutedLine::parse(&case.line).unwrap();
        assert!(matches!(line.to, Recipient::Nick(_)), "{}", case.name);
        let parsed = UnverifiedMessage::parse(line.text);
        if case.dropped.is_some() {
            assert!(parsed.is_err(), "{}", case.name);
            continue;
        }
        let message = parsed.unwrap().verify(&line.from, ONION_HOSTID).unwrap();
        if !message.word.is_sealed() && !case.plaintext.is_empty() {
            assert_eq!(message.payload, case.plaintext, "{}", case.name);
        }
        // Two places where we are stricter than the reference: a fill needs a commitment, and a
        // transaction must be one.
        let expected = match case.name.as_str() {
            "fill without commitment" | "tx with invalid base64 inside the ciphertext" => 0,
            _ => case.expected_events.len(),
        };
        let actual = events(message.word, message.payload, &case.direction, &case.plaintext);
        assert_eq!(actual, expected, "{}", case.name);
    }
}

#[test]
fn public_lines_have_the_expected_effect() {
    let file: File = super::load("commands");
    assert_eq!(file.public.len(), 9);
    for case in &file.public {
        let line = RoutedLine::parse(&case.line).unwrap();
        assert_eq!(line.to, Recipient::Public, "{}", case.name);
        let kinds: Vec<&str> = public_message::parse(line.text)
            .iter()
            .map(|command| match command {
                PublicCommand::Orderbook => "on_orderbook_requested",
                PublicCommand::Offer(_) => "on_order_seen",
                PublicCommand::BadOffer(_) => "bad offer",
                PublicCommand::Cancel(_) => "on_order_cancel",
                PublicCommand::CommitmentSeen(_) => "on_commitment_seen",
            })
            .collect();
        let expected: Vec<&str> =
            case.expected_events.iter().map(|event| event[0].as_str().unwrap()).collect();
        assert_eq!(kinds, expected, "{}", case.name);
    }
}
