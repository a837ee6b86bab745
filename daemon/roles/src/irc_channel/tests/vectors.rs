//! Every case of `irc.json`, through the machine: signatures are put on what the vector only marks as signed.

use serde_json::Value;

use super::*;

fn file() -> Value {
    let text = include_str!("../../../../proto/tests/vectors/irc.json");
    serde_json::from_str(text).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A rig in the channel of the vectors whose peers are there.
fn rig(peers: &[&str]) -> (Rig, LinkId) {
    let (mut rig, link) = Rig::up();
    for peer in peers {
        rig.says(link, &format!(":{peer}!u@h JOIN {CHANNEL}"));
    }
    rig.drain();
    (rig, link)
}

#[test]
fn chunking_is_that_of_the_vectors() {
    for case in file()["chunking"].as_array().unwrap() {
        let (to, name) = (text(&case["to_nick"]), text(&case["name"]));
        let (mut rig, _) = rig(&[to]);
        let word = PrivateWord::parse(text(&case["command"])).unwrap();
        // The vector's message stands for payload, key and signature: ours has its own key and signature, so the
        // payload is what is compared, up to where they begin.
        let payload = text(&case["message"]);
        rig.channel.send_private(0, to.parse().unwrap(), word, payload, rig.now).unwrap();
        rig.pass(at(60));
        let lines = rig.sent();
        let room = case["max_chunk_len"].as_u64().unwrap();
        let head = format!("PRIVMSG {to} :");
        let mut whole = String::new();
        for (index, line) in lines.iter().enumerate() {
            let piece = line.strip_prefix(&head).unwrap();
            let last = index + 1 == lines.len();
            whole += piece.strip_suffix(if last { " ~" } else { " ;" }).unwrap();
            assert!(line.len() <= 450, "{name}");
            if index == 0 && !last {
                let full = u64::try_from(piece.len() - word.as_str().len() - 4).unwrap();
                assert_eq!(full, room, "{name}");
            }
        }
        let signed = key(1).sign_message(word, payload, NETWORK);
        assert_eq!(whole, format!("!{signed}"), "{name}");
    }
}

#[test]
fn receiving_is_that_of_the_vectors() {
    for case in file()["receive"].as_array().unwrap() {
        let (mut rig, link) = rig(&[]);
        let name = text(&case["name"]);
        let us = nick(1).to_string();
        let mut expected_public = Vec::new();
        for line in case["lines"].as_array().unwrap() {
            let [source, target, said] = ["source", "target", "text"].map(|key| text(&line[key]));
            let target = if target == text(&case["our_nick"]) { &us } else { target };
            rig.says(link, &format!(":{source} PRIVMSG {target} :{said}"));
        }
        for pair in case["expected_public"].as_array().unwrap() {
            let (from, said) = (text(&pair[0]), text(&pair[1]));
            expected_public.push((from.to_owned(), said.strip_prefix('!').unwrap().to_owned()));
        }
        let outputs = rig.drain();
        let public = outputs.iter().filter_map(|output| match output {
            Output::Event(ChannelEvent::Public { from, text, .. }) => {
                Some((from.to_string(), text.clone()))
            }
            _ => None,
        });
        assert_eq!(public.collect::<Vec<_>>(), expected_public, "{name}");
        // None of the vector's private messages is signed: whole or not, nobody believes them.
        let private =
            |output: &Output| matches!(output, Output::Event(ChannelEvent::Private { .. }));
        assert!(!outputs.iter().any(private), "{name}");
        let whole = !case["expected_private"].as_array().unwrap().is_empty();
        assert_eq!(complaint(&outputs, Cause::UnprovedSender), whole, "{name}");
    }
}

/// The same cases with the vector's senders replaced by keys that can sign.
#[test]
fn receiving_signed_messages_cut_as_in_the_vectors() {
    for case in file()["receive"].as_array().unwrap() {
        let (mut rig, link) = rig(&[]);
        let name = text(&case["name"]);
        let mut expected = 0;
        let senders = ["J5DdKBhSf2Ykxqqy", "J5XXXXXXXXXXXXXX"];
        for pair in case["expected_private"].as_array().unwrap() {
            let byte = u8::try_from(senders.iter().position(|s| *s == text(&pair[0])).unwrap())
                .unwrap()
                + 2;
            let (word, payload) =
                text(&pair[1]).strip_prefix('!').unwrap().split_once(' ').unwrap();
            rig.signed(link, byte, PrivateWord::parse(word).unwrap(), payload, NETWORK);
            expected += 1;
        }
        let private = |event: &ChannelEvent| matches!(event, ChannelEvent::Private { .. });
        assert_eq!(rig.events().into_iter().filter(private).count(), expected, "{name}");
    }
}

#[test]
fn announcements_and_channel_names_are_those_of_the_vectors() {
    use joinery_proto::offer::{Offer, OrderType};
    for case in file()["announce"].as_array().unwrap() {
        let (mut rig, _) = rig(&[]);
        let offers: Vec<Offer> = case["offers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|offer| {
                let (word, fields) =
                    text(offer).strip_prefix('!').unwrap().split_once(' ').unwrap();
                Offer::parse(OrderType::parse(word).unwrap(), fields).unwrap()
            })
            .collect();
        rig.channel.announce_offers(&offers, Audience::All, rig.now).unwrap();
        rig.pass(at(60));
        let expected: Vec<String> = case["expected_lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| text(line).to_owned())
            .collect();
        assert_eq!(rig.sent(), expected, "{}", text(&case["name"]));
    }
    for case in file()["channel_names"].as_array().unwrap() {
        let [network, name, expected] =
            ["network", "config_channel", "expected"].map(|key| text(&case[key]));
        let server = IrcServer::new("h", 1, name, network, false).unwrap();
        assert_eq!(server.channel(), expected);
    }
}
