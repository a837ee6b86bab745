//! `onion_envelopes.json`, `extensions.json` and the formats in `directory_behaviour.json`.

use bdk_wallet::bitcoin::hex::FromHex;
use serde::Deserialize;
use serde_json::Value;

use crate::line::{Recipient, RoutedLine};
use crate::nick::Nick;
use crate::onion::envelope::{Envelope, MessageType};
use crate::onion::features::Features;
use crate::onion::handshake::{DirectoryHandshake, PeerHandshake};
use crate::onion::location::Location;
use crate::onion::nick_auth::{Challenge, Proof, Verdict};
use crate::onion::peerlist::{self, PeerEntry};
use crate::private_message::NickKey;
use crate::utxo::WireUtxo;

#[derive(Deserialize)]
struct File {
    types: std::collections::BTreeMap<String, u32>,
    encode: Vec<Encode>,
    decode: Vec<Decode>,
    receive_as_reference_peer: Vec<Receive>,
    peerlist_entries_second_implementation: Vec<Entry>,
    locations: Vec<LocationCase>,
    handshake_sent_by_taker: Value,
    handshake_sent_by_maker: Value,
    dn_handshake_received_by_client: Vec<DnHandshake>,
    handshake_received_by_directory: Vec<ClientHandshake>,
}

#[derive(Deserialize)]
struct Encode {
    r#type: u32,
    line: String,
    wire_hex: String,
}

#[derive(Deserialize)]
struct Decode {
    name: String,
    line_hex: Option<String>,
    generated: Option<Value>,
    length: usize,
    reference: DecodeOutcome,
    second_implementation_accepts: bool,
}

#[derive(Deserialize)]
struct DecodeOutcome {
    accepted: bool,
    line: Option<String>,
}

#[derive(Deserialize)]
struct Receive {
    name: String,
    r#type: u32,
    line: String,
    events: Vec<Vec<String>>,
    peers_known_after: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    entry: String,
    nick: Option<String>,
    location: Option<String>,
    #[serde(default)]
    disconnected: bool,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    error: bool,
}

#[derive(Deserialize)]
struct LocationCase {
    location: String,
    second_implementation: Option<(String, i64)>,
}

#[derive(Deserialize)]
struct DnHandshake {
    name: String,
    dn_handshake: Value,
    reference_client_accepts: bool,
}

#[derive(Deserialize)]
struct ClientHandshake {
    name: String,
    handshake: Value,
    reference_directory: DirectoryOutcome,
}

#[derive(Deserialize)]
struct DirectoryOutcome {
    handshaked: bool,
}

fn file() -> File {
    super::load("onion_envelopes")
}

#[test]
fn types_have_their_numbers() {
    for (name, number) in file().types {
        let kind = MessageType::from_number(number);
        assert!(!matches!(kind, MessageType::Unknown(_)), "{name}");
        assert_eq!(kind.number(), number);
    }
}

#[test]
fn envelopes_encode_byte_for_byte() {
    for case in file().encode {
        let envelope = Envelope::new(MessageType::from_number(case.r#type), case.line);
        let expected = Vec::from_hex(&case.wire_hex).unwrap();
        assert_eq!(envelope.encode().unwrap().into_bytes(), expected);
    }
}

#[test]
fn envelopes_decode_by_the_stricter_of_both_implementations() {
    for case in file().decode {
        let bytes = match (&case.line_hex, &case.generated) {
            (Some(hex), _) => Vec::from_hex(hex).unwrap(),
            (None, generated) => {
                panic!("{}: generated {generated:?} of {}", case.name, case.length)
            }
        };
        let decoded = Envelope::decode(&bytes);
        // `true` and -1 are integers for the reference; a type is a number from 0 here.
        let expected = case.reference.accepted
            && case.second_implementation_accepts
            && !case.name.contains("type true");
        assert_eq!(decoded.is_ok(), expected, "{}", case.name);
        if let (Ok(envelope), Some(line)) = (decoded, case.reference.line) {
            assert_eq!(envelope.line, line, "{}", case.name);
        }
    }
}

#[test]
fn lines_are_routed_as_by_a_reference_peer() {
    let ours: Nick = "J5CdDnhVDhc5R7Gg".parse().unwrap();
    for case in file().receive_as_reference_peer {
        let mut events = Vec::new();
        let mut peers: Vec<String> = Vec::new();
        match MessageType::from_number(case.r#type) {
            // Public or private is decided by the recipient, not by the number.
            MessageType::Private | MessageType::Public => match RoutedLine::parse(&case.line) {
                Ok(RoutedLine { from, to: Recipient::Public, text }) => {
                    events.push(vec!["pubmsg".into(), from.to_string(), format!("!{text}")]);
                }
                Ok(RoutedLine { from, to: Recipient::Nick(to), text }) if to == ours => {
                    events.push(vec!["privmsg".into(), from.to_string(), format!("!{text}")]);
                }
                _ => {}
            },
            MessageType::PeerList => {
                let known = peerlist::parse(&case.line).into_iter().filter(|entry| {
                    // What reference peers keep: served locations without flags. We also keep peers
                    // with flags, which is checked with the second implementation's entries.
                    !entry.left
                        && entry.features.is_empty()
                        && matches!(entry.location, Location::Address(_))
                        && !entry.nick.as_str().starts_with("J5dn")
                });
                peers.extend(known.map(|entry| format!("{}|{}", entry.nick, entry.location)));
            }
            _ => {}
        }
        // `!!fill` is passed on by the reference's channel and refused one step later.
        let expected: Vec<_> =
            case.events.into_iter().filter(|e| !e[2].starts_with("!!")).collect();
        assert_eq!(events, expected, "{}", case.name);
        assert_eq!(peers, case.peers_known_after, "{}", case.name);
    }
}

#[test]
fn peer_list_entries_parse_as_in_the_second_implementation() {
    for case in file().peerlist_entries_second_implementation {
        let entry = PeerEntry::parse(&case.entry);
        assert_eq!(entry.is_none(), case.error, "{}", case.entry);
        let Some(entry) = entry else { continue };
        assert_eq!(Some(entry.nick.to_string()), case.nick);
        assert_eq!(Some(entry.location.to_string()), case.location);
        assert_eq!(entry.left, case.disconnected, "{}", case.entry);
        assert!(entry.features.names().eq(case.features.iter().map(String::as_str)));
    }
}

#[test]
fn locations_parse_as_in_the_second_implementation() {
    for case in file().locations {
        let parsed = case.location.parse::<Location>();
        // An empty host is accepted there and leads nowhere.
        let expected = case.second_implementation.filter(|(host, _)| !host.is_empty());
        match (parsed, expected) {
            (Ok(Location::NotServing), Some((name, -1))) => assert_eq!(name, case.location),
            (Ok(Location::Address(address)), Some((host, port))) => {
                assert_eq!((address.host(), i64::from(address.port())), (host.as_str(), port));
            }
            (Err(_), None) => {}
            (parsed, expected) => panic!("{}: {parsed:?}, {expected:?}", case.location),
        }
    }
}

#[test]
fn handshakes_are_equal() {
    let file = file();
    for expected in [file.handshake_sent_by_taker, file.handshake_sent_by_maker] {
        let ours = PeerHandshake::parse(&expected.to_string(), "mainnet").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&ours.to_line()).unwrap(), expected);
    }
}

#[test]
fn directory_handshakes_are_accepted_as_by_the_reference() {
    for case in file().dn_handshake_received_by_client {
        let result = DirectoryHandshake::parse(&case.dn_handshake.to_string(), "mainnet");
        assert_eq!(result.is_ok(), case.reference_client_accepts, "{}: {result:?}", case.name);
    }
}

#[test]
fn client_handshakes_are_accepted_as_by_the_reference_directory() {
    for case in file().handshake_received_by_directory {
        let result = PeerHandshake::parse(&case.handshake.to_string(), "mainnet");
        assert_eq!(
            result.is_ok(),
            case.reference_directory.handshaked,
            "{}: {result:?}",
            case.name
        );
    }
}

#[derive(Deserialize)]
struct Extensions {
    nick_auth: NickAuth,
    utxo_strings: Vec<UtxoString>,
    features: Vec<FeatureCase>,
}

#[derive(Deserialize)]
struct NickAuth {
    nick: String,
    nick_privkey: String,
    directory_id: String,
    handshake_line: String,
    challenge_envelope: String,
    proof_envelope: String,
    result_envelope: String,
}

#[derive(Deserialize)]
struct UtxoString {
    text: String,
    expected: Option<Utxo>,
}

#[derive(Deserialize)]
struct Utxo {
    txid: String,
    vout: u32,
    scriptpubkey: Option<String>,
    blockheight: Option<u32>,
}

#[derive(Deserialize)]
struct FeatureCase {
    features: Vec<String>,
    handshake_features: serde_json::Map<String, Value>,
    peerlist_suffix: Option<String>,
}

#[test]
fn nick_authentication_is_equal_byte_for_byte() {
    let case = super::load::<Extensions>("extensions").nick_auth;
    let key = NickKey::new(case.nick_privkey.parse().unwrap());
    assert_eq!(key.nick().as_str(), case.nick);
    let line = |envelope: &str| Envelope::decode(envelope.trim_end().as_bytes()).unwrap();
    let challenge_line = line(&case.challenge_envelope);
    assert_eq!(challenge_line.kind, MessageType::NickAuthChallenge);
    let challenge = Challenge::parse(&challenge_line.line, &case.directory_id).unwrap();
    assert_eq!(challenge.to_line(), challenge_line.line);
    assert!(Challenge::parse(&challenge_line.line, "elsewhere.onion:5222").is_err());
    let proof = challenge.answer(&case.handshake_line, &key);
    let proof_line = line(&case.proof_envelope);
    assert_eq!(proof_line.kind, MessageType::NickAuthProof);
    assert_eq!(proof.to_line(), proof_line.line);
    let parsed = Proof::parse(&proof_line.line).unwrap();
    parsed.verify(&challenge, &case.handshake_line, &key.nick()).unwrap();
    assert!(parsed.verify(&challenge, "another handshake", &key.nick()).is_err());
    let other = "J5DdKBhSf2Ykxqqy".parse().unwrap();
    assert!(parsed.verify(&challenge, &case.handshake_line, &other).is_err());
    let verdict_line = line(&case.result_envelope);
    assert_eq!(verdict_line.kind, MessageType::NickAuthResult);
    let verdict = Verdict::parse(&verdict_line.line).unwrap();
    assert!(verdict.verified);
    assert_eq!(verdict.to_line(), verdict_line.line);
    assert!(Verdict::parse("{\"code\":\"ok\",\"verified\":false}").is_err());
    assert!(Verdict::parse("{\"code\":\"ok\",\"verified\":true,\"x\":1}").is_err());
    assert!(Verdict::parse("{\"code\":\"ok\",\"code\":\"ok\",\"verified\":true}").is_err());
}

#[test]
fn extended_coins_parse_as_in_the_second_implementation() {
    for case in super::load::<Extensions>("extensions").utxo_strings {
        let parsed = case.text.parse::<WireUtxo>().ok();
        assert_eq!(parsed.is_some(), case.expected.is_some(), "{}", case.text);
        let Some((parsed, expected)) = parsed.zip(case.expected) else { continue };
        assert_eq!(parsed.to_string(), case.text);
        assert_eq!(parsed.outpoint.txid.to_string(), expected.txid);
        assert_eq!(parsed.outpoint.vout, expected.vout);
        let hint = parsed.hint.map(|hint| (format!("{:x}", hint.script), hint.height));
        assert_eq!(hint, expected.scriptpubkey.zip(expected.blockheight));
    }
}

#[test]
fn features_are_written_as_in_the_second_implementation() {
    for case in super::load::<Extensions>("extensions").features {
        let features = Features::from_json(&case.handshake_features);
        let mut names = case.features.clone();
        names.sort();
        assert!(features.names().eq(names.iter().map(String::as_str)));
        assert_eq!(features.peerlist_field(), case.peerlist_suffix);
    }
}

/// Every line that the running directories sent is read, and the handshakes are accepted or refused as
/// the text of each stimulus says.
#[test]
fn lines_of_real_directories_are_read() {
    let file: serde_json::Map<String, Value> = super::load("directory_behaviour");
    let mut seen = 0;
    for (session, network) in
        [("reference_directory", "testnet"), ("second_implementation_directory", "regtest")]
    {
        for step in file[session].as_array().unwrap() {
            let step = step.as_object().unwrap();
            for (receiver, messages) in step.iter().filter(|(key, _)| key.contains("receives")) {
                for message in messages.as_array().unwrap() {
                    let Some(message) = message.as_object() else {
                        assert_eq!(message, "connection closed");
                        continue;
                    };
                    let kind = message["type"].as_u64().unwrap().try_into().unwrap();
                    let line = match &message["line"] {
                        Value::String(line) => line.clone(),
                        object => object.to_string(),
                    };
                    let text = format!("{}: {line}", step["stimulus"]);
                    seen += 1;
                    match MessageType::from_number(kind) {
                        MessageType::DirectoryHandshake => {
                            let accepted = line.contains("\"accepted\":true");
                            let result = DirectoryHandshake::parse(&line, network);
                            assert_eq!(result.is_ok(), accepted, "{text}");
                        }
                        MessageType::PeerList => {
                            assert!(!peerlist::parse(&line).is_empty(), "{text}")
                        }
                        MessageType::Private | MessageType::Public => {
                            assert!(RoutedLine::parse(&line).is_ok(), "{text}");
                        }
                        MessageType::Pong => assert!(line.is_empty()),
                        MessageType::NickAuthResult => {
                            assert!(Verdict::parse(&line).is_ok(), "{text}");
                        }
                        MessageType::NickAuthChallenge => {
                            // The recording has a placeholder for the random challenge.
                            let line = line.replace("<64 hex>", &"5a".repeat(32));
                            assert!(Challenge::parse(&line, "test:dir").is_ok(), "{text}");
                        }
                        other => panic!("{receiver} {other:?} {text}"),
                    }
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} lines");
}
