//! Machines of `joinery-roles` with hostile strangers: the input is a script of who does what in which order.

mod channel;
mod directory;
mod irc;
mod order_book;

use std::sync::OnceLock;
use std::time::Duration;

use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::{Features, NICK_AUTH, PEERLIST_FEATURES, PING};
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::location::Location;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};

use crate::script::Script;

pub use channel::channel;
pub use directory::directory;
pub use irc::irc;
pub use order_book::order_book;

const NETWORK: &str = "testnet";
/// The identity of a directory that asks for proofs.
const IDENTITY: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";
const LOCATIONS: [&str; 5] = [
    "NOT-SERVING-ONION",
    "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion:5222",
    "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion:5222",
    "127.0.0.1:5222",
    "example.org:5222",
];
/// Strangers have these keys.
const KEYS: u8 = 8;

/// A script in which the honest do their part.
///
/// # Panics
/// For an unknown target.
#[must_use]
pub fn honest(target: &str) -> Vec<u8> {
    match target {
        "machine_channel" => channel::honest(),
        "machine_directory" => directory::honest(),
        "machine_irc" => irc::honest(),
        "machine_order_book" => order_book::honest(),
        _ => panic!("no such machine: {target}"),
    }
}

/// Key of a stranger, or our own, number 0.
fn key(number: u8) -> &'static NickKey {
    static MADE: OnceLock<Vec<NickKey>> = OnceLock::new();
    let make = || {
        let key = |byte| SecretKey::from_slice(&[byte; 32]).expect("below the group order");
        (1..=KEYS).map(|byte| NickKey::new(key(byte))).collect()
    };
    &MADE.get_or_init(make)[usize::from(number % KEYS)]
}

fn nick(number: u8) -> Nick {
    key(number).nick()
}

/// Seconds, minutes or an hour.
fn pause(script: &mut Script<'_>) -> Duration {
    let length = u64::from(script.byte() / 4);
    match script.byte() % 4 {
        0 => Duration::from_millis(length),
        1 => Duration::from_secs(length),
        2 => Duration::from_secs(length * 15),
        _ => Duration::from_secs(length * 60),
    }
}

fn features(script: &mut Script<'_>) -> Features {
    let flags = script.byte();
    let names = [PEERLIST_FEATURES, PING, NICK_AUTH, "neutrino_compat"];
    Features::from_names((0..4).filter(|bit| flags >> bit & 1 == 1).map(|bit| names[bit]))
}

fn location(script: &mut Script<'_>) -> Location {
    let text = script.pick(&LOCATIONS).expect("there are some");
    text.parse().expect("a location")
}

/// The handshake of a stranger.
fn handshake(script: &mut Script<'_>, number: u8) -> String {
    let network = if script.byte() == 0xff { "mainnet" } else { NETWORK }.to_owned();
    let (location, features) = (location(script), features(script));
    PeerHandshake { nick: nick(number), location, network, features }.to_line()
}

/// A signed line from one stranger to another, or nearly.
fn private(script: &mut Script<'_>, from: u8, to: Nick) -> String {
    let words = [PrivateWord::Fill, PrivateWord::PubKey, PrivateWord::Push, PrivateWord::Error];
    let word = script.pick(&words).expect("there are some");
    let payload = format!("payload{}", script.byte() % 4);
    let text = key(from).sign_message(word, &payload, ONION_HOSTID);
    let claimed = if script.byte() > 0xf0 { nick(script.byte()) } else { nick(from) };
    let line = format!("{claimed}!{to}!{text}");
    if script.byte() > 0xf0 { line.replace("payload", "Payload") } else { line }
}

/// A public line.
fn public(script: &mut Script<'_>, from: u8) -> String {
    let texts = ["orderbook", "cancel 0", "sw0reloffer 0 100000 5000000 0 0.00002", "hp2 00"];
    let text = match script.byte() % 8 {
        0 => script.text(),
        other => texts[usize::from(other % 4)].to_owned(),
    };
    format!("{}!PUBLIC!{text}", nick(from))
}

/// A line of any type, without its end. The tools for our own lines refuse what is too long; strangers do not.
fn line(kind: MessageType, text: &str) -> Vec<u8> {
    serde_json::json!({"type": kind.number(), "line": text}).to_string().into_bytes()
}

/// Whatever a stranger may write.
fn raw(script: &mut Script<'_>) -> Vec<u8> {
    use MessageType as T;
    let kinds = [
        T::Private,
        T::Public,
        T::PeerList,
        T::GetPeerList,
        T::Handshake,
        T::DirectoryHandshake,
        T::Ping,
        T::Pong,
        T::Disconnect,
        T::NickAuthChallenge,
        T::NickAuthProof,
        T::NickAuthResult,
        T::Unknown(797),
    ];
    match script.byte() % 4 {
        0 => script.text().into_bytes(),
        _ => {
            let kind = script.pick(&kinds).expect("there are some");
            line(kind, &script.text())
        }
    }
}

/// What we wrote; every line of ours is one that every deployed node takes.
fn ours(line: &str) -> Envelope {
    let text = line.strip_suffix("\r\n").expect("lines end with CR LF");
    assert!(!text.is_empty() && text.len() <= 39_998, "{} bytes", text.len());
    let envelope = Envelope::decode(text.as_bytes()).expect("a message");
    assert!(envelope.kind != MessageType::Disconnect, "closes connections of the reference");
    assert!(!matches!(envelope.kind, MessageType::Unknown(_)));
    envelope
}
