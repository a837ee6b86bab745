//! `onion_envelopes.json`, `extensions.json`, `directory_behaviour.json` against the machine.

use bdk_wallet::bitcoin::hex::FromHex;
use joinery_testkit::vectors::load;
use serde_json::Value;

use super::*;
use crate::channel::directory_identity;

fn file(name: &str) -> Value {
    load(env!("CARGO_MANIFEST_DIR"), name)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn directory_identities_are_those_of_the_vector() {
    let file = file("extensions.json");
    for case in file["nick_auth"]["directory_ids"].as_array().unwrap() {
        let port = u16::try_from(case["port"].as_u64().unwrap()).unwrap();
        let identity = directory_identity(text(&case["host"]), port);
        assert_eq!(identity.as_deref(), case["expected"].as_str(), "{case}");
    }
}

/// The whole exchange with the key of the vector: handshake, challenge, proof and verdict, byte for byte.
#[test]
fn nick_authentication_is_that_of_the_vector() {
    let file = file("extensions.json");
    let case = &file["nick_auth"];
    let secret = <[u8; 32]>::from_hex(text(&case["nick_privkey"])).unwrap();
    let key = NickKey::new(SecretKey::from_slice(&secret).unwrap());
    let mut config = ChannelConfig::new("mainnet", Arc::new(key));
    let address = text(&case["directory_id"]).parse().unwrap();
    config.directories = vec![DirectoryAddress::new(address)];
    let channel = OnionChannel::new(config, [0; 32]).unwrap();
    let mut rig = Rig { channel, now: Duration::ZERO, outputs: Vec::new() };
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    assert_eq!(rig.sent()[0].1.line, text(&case["handshake_line"]));
    let answer = directory_answer(&["nick_auth"], true).replace("testnet", "mainnet");
    rig.receive(link, MessageType::DirectoryHandshake, &answer);
    rig.channel.received(link, text(&case["challenge_envelope"]).as_bytes(), rig.now);
    let (_, proof) = rig.sent().remove(0);
    let expected = Envelope::decode(text(&case["proof_envelope"]).as_bytes()).unwrap();
    assert_eq!(proof.kind, expected.kind);
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(json(&proof.line), json(&expected.line));
    rig.channel.received(link, text(&case["result_envelope"]).as_bytes(), rig.now);
    assert!(rig.events().contains(&ChannelEvent::Up(by(0))));
}

/// What a reference peer makes of each line, and we too: the same public messages, the same peers; private
/// ones only when they are signed, which those of the vector are not.
#[test]
fn received_lines_have_the_effect_of_the_vector() {
    let file = file("onion_envelopes.json");
    let cases = file["receive_as_reference_peer"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let (name, secret) = (text(&case["name"]), [1; 32]);
        let mut config = ChannelConfig::new(
            "testnet",
            Arc::new(NickKey::new(SecretKey::from_slice(&secret).unwrap())),
        );
        config.allow_plain = true;
        config.directories = vec![DirectoryAddress::new("127.0.0.1:1".parse().unwrap())];
        let channel = OnionChannel::new(config, [0; 32]).unwrap();
        let mut rig = Rig { channel, now: Duration::ZERO, outputs: Vec::new() };
        rig.bring_up(&[]);
        let kind = MessageType::from_number(u32::try_from(case["type"].as_u64().unwrap()).unwrap());
        rig.receive(LinkId(0), kind, text(&case["line"]));
        let events = rig.events();
        let public: Vec<(String, String)> = events
            .iter()
            .filter_map(|event| match event {
                ChannelEvent::Public { from, text, .. } => {
                    Some((from.to_string(), format!("!{text}")))
                }
                _ => None,
            })
            .collect();
        let expected: Vec<(String, String)> = case["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event[0] == "pubmsg")
            .map(|event| (text(&event[1]).to_owned(), text(&event[2]).to_owned()))
            .collect();
        assert_eq!(public, expected, "{name}");
        assert!(!events.iter().any(|e| matches!(e, ChannelEvent::Private { .. })), "{name}");
        let known: Vec<String> = rig
            .channel
            .peers()
            .filter_map(|(nick, peer)| Some(format!("{nick}|{}", peer.location.as_ref()?)))
            .collect();
        let expected: Vec<&str> =
            case["peers_known_after"].as_array().unwrap().iter().map(text).collect();
        // Flags after the address are the extension that the reference does not know: the address counts.
        if !name.contains("feature suffix") {
            assert_eq!(known, expected, "{name}");
        }
    }
}

/// Everything that running directories sent to their clients is understood, and nothing of it closes.
#[test]
fn what_recorded_directories_sent_is_understood() {
    let file = file("directory_behaviour.json");
    let mut lines = 0;
    for session in ["reference_directory", "second_implementation_directory"] {
        for step in file[session].as_array().unwrap() {
            for (who, received) in step.as_object().unwrap() {
                let Some(received) = received.as_array() else { continue };
                if !who.ends_with("receives") {
                    continue;
                }
                let mut rig = Rig::up(1, &[]);
                for message in received.iter().filter(|message| message.is_object()) {
                    let number = u32::try_from(message["type"].as_u64().unwrap()).unwrap();
                    let kind = MessageType::from_number(number);
                    // The exchange of nick authentication has tests of its own.
                    if !matches!(
                        kind,
                        MessageType::Public
                            | MessageType::Private
                            | MessageType::PeerList
                            | MessageType::Pong
                    ) {
                        continue;
                    }
                    rig.receive(LinkId(0), kind, text(&message["line"]));
                    lines += 1;
                }
                let closes = |output: &Output| matches!(output, Output::Close { .. });
                assert!(!rig.drain().iter().any(closes), "{step}");
                // The directory's own entry is nobody's peer.
                assert!(rig.channel.peer(&DIRECTORY_NICK.parse().unwrap()).is_none());
            }
        }
    }
    assert!(lines > 15, "{lines}");
}
