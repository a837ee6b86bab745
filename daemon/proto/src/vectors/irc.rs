//! `irc.json`.

use serde::Deserialize;

use crate::irc::{
    Reassembler, announcement_lines, channel_name, private_lines, source_name, source_nick,
};
use crate::nick::Nick;
use crate::offer::{Offer, OrderType};
use crate::private_message::PrivateWord;

#[derive(Deserialize)]
struct File {
    max_privmsg_len: usize,
    chunking: Vec<Chunking>,
    receive: Vec<Receive>,
    announce: Vec<Announce>,
    channel_names: Vec<ChannelName>,
}

#[derive(Deserialize)]
struct Chunking {
    name: String,
    to_nick: String,
    command: String,
    message: String,
    expected_lines: Vec<String>,
}

#[derive(Deserialize)]
struct Receive {
    name: String,
    our_nick: String,
    our_channel: String,
    lines: Vec<Line>,
    expected_private: Vec<(String, String)>,
    expected_public: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Line {
    source: String,
    target: String,
    text: String,
}

#[derive(Deserialize)]
struct Announce {
    name: String,
    offers: Vec<String>,
    expected_lines: Vec<String>,
}

#[derive(Deserialize)]
struct ChannelName {
    network: String,
    config_channel: String,
    expected: String,
}

fn file() -> File {
    super::load("irc")
}

#[test]
fn private_messages_are_cut_byte_for_byte() {
    assert_eq!(file().max_privmsg_len, crate::irc::MAX_PRIVMSG);
    for case in file().chunking {
        let to: Nick = case.to_nick.parse().unwrap();
        let word = PrivateWord::parse(&case.command).unwrap();
        let lines = private_lines(&to, word, &case.message);
        if case.name.starts_with("quirk") {
            // The reference ends this message too early; ours arrives whole.
            assert_ne!(lines, case.expected_lines);
        } else {
            assert_eq!(lines, case.expected_lines, "{}", case.name);
        }
        let mut reassembler = Reassembler::default();
        let head = format!("PRIVMSG {to} :");
        let whole: Vec<String> = lines
            .iter()
            .filter_map(|line| {
                reassembler.push(&case.to_nick, line.strip_prefix(&head).unwrap(), 0)
            })
            .collect();
        assert_eq!(whole, [format!("{} {}", case.command, case.message)], "{}", case.name);
    }
}

#[test]
fn messages_are_put_together_as_by_the_reference() {
    for case in file().receive {
        let (mut private, mut public) = (Vec::new(), Vec::new());
        let mut reassembler = Reassembler::default();
        for Line { source, target, text } in &case.lines {
            let Some(nick) = source_nick(source) else { continue };
            if *target == case.our_nick {
                let message = reassembler.push(source_name(source), text, 0);
                private.extend(message.map(|text| (nick.to_string(), format!("!{text}"))));
            } else if *target == case.our_channel {
                public.push((nick.to_string(), text.clone()));
            }
        }
        assert_eq!(private, case.expected_private, "{}", case.name);
        assert_eq!(public, case.expected_public, "{}", case.name);
    }
}

#[test]
fn announcements_are_packed_byte_for_byte() {
    for case in file().announce {
        let offer = |text: &String| {
            let (word, fields) = text.strip_prefix('!').unwrap().split_once(' ').unwrap();
            Offer::parse(OrderType::parse(word).unwrap(), fields).unwrap()
        };
        let offers: Vec<Offer> = case.offers.iter().map(offer).collect();
        let lines = announcement_lines("#joinmarket-pit", &offers);
        assert_eq!(lines, case.expected_lines, "{}", case.name);
    }
}

#[test]
fn channels_are_named_by_network() {
    for case in file().channel_names {
        assert_eq!(channel_name(&case.config_channel, &case.network), case.expected);
    }
}
