//! The channel against a hand-driven clock and scripted nodes.

mod directories;
mod peers;
mod routing;
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::{DirectoryHandshake, PeerHandshake};
use joinery_proto::onion::location::Location;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};

use super::{ChannelConfig, DirectoryAddress, OnionChannel, Output, Purpose};
use crate::event::{ChannelEvent, DirectoryId, LinkId, Source};

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";
const DIRECTORY_NICK: &str = "J5dnOOOOOOOOOOOO";

fn key(byte: u8) -> NickKey {
    NickKey::new(SecretKey::from_slice(&[byte; 32]).unwrap())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A channel of nick key 1 with `count` loopback directories, its links and its clock.
struct Rig {
    channel: OnionChannel,
    now: Duration,
    outputs: Vec<Output>,
}

impl Rig {
    fn new(count: u16) -> Self {
        Self::with(count, |_| {})
    }

    fn with(count: u16, change: impl FnOnce(&mut ChannelConfig)) -> Self {
        let mut config = ChannelConfig::new("testnet", Arc::new(key(1)));
        config.allow_plain = true;
        config.directories = (0..count)
            .map(|n| DirectoryAddress::new(format!("127.0.0.1:{}", 5222 + n).parse().unwrap()))
            .collect();
        change(&mut config);
        let channel = OnionChannel::new(config, [9; 32]).unwrap();
        Self { channel, now: Duration::ZERO, outputs: Vec::new() }
    }

    /// A rig whose directories are all up, with these flags.
    fn up(count: u16, features: &[&str]) -> Self {
        let mut rig = Self::new(count);
        rig.bring_up(features);
        rig
    }

    fn bring_up(&mut self, features: &[&str]) {
        self.channel.tick(self.now);
        for link in self.dialled() {
            self.channel.opened(link, self.now);
            self.receive(link, MessageType::DirectoryHandshake, &directory_answer(features, true));
        }
        self.drain();
    }

    /// Takes all outputs.
    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.extend(std::iter::from_fn(|| self.channel.poll()));
        outputs
    }

    /// Takes all outputs, returns the links to dial.
    fn dialled(&mut self) -> Vec<LinkId> {
        let links = self.drain().into_iter().filter_map(|output| match output {
            Output::Dial { link, .. } => Some(link),
            _ => None,
        });
        links.collect()
    }

    /// Takes all outputs, returns what is sent, decoded.
    fn sent(&mut self) -> Vec<(LinkId, Envelope)> {
        let sent = self.drain().into_iter().filter_map(|output| match output {
            Output::Send { link, line } => {
                let line = line.strip_suffix("\r\n").expect("lines end with CR LF");
                assert!(!line.is_empty() && line.len() <= 39_998);
                Some((link, Envelope::decode(line.as_bytes()).unwrap()))
            }
            _ => None,
        });
        sent.collect()
    }

    /// Takes all outputs, returns the news.
    fn events(&mut self) -> Vec<ChannelEvent> {
        let events = self.drain().into_iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    fn receive(&mut self, link: LinkId, kind: MessageType, text: &str) {
        let line = wire(kind, text);
        self.channel.received(link, line.as_bytes(), self.now);
    }

    /// Goes to a time, doing what is due on the way; returns how often the machine woke up.
    fn run_until(&mut self, end: Duration) -> usize {
        let mut wakes = 0;
        while let Some(wake) = self.channel.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.channel.tick(self.now);
            let outputs: Vec<Output> = std::iter::from_fn(|| self.channel.poll()).collect();
            self.outputs.extend(outputs);
            wakes += 1;
            assert!(wakes < 100_000, "the machine spins at {:?}", self.now);
        }
        self.now = end;
        self.channel.tick(end);
        wakes
    }

    /// A link to a peer of key `byte`, dialled by us, open and greeted.
    fn direct_to(&mut self, byte: u8) -> LinkId {
        let nick = key(byte).nick();
        self.receive(LinkId(0), MessageType::PeerList, &format!("{nick};{ONION}"));
        self.drain();
        assert!(self.channel.connect_peer(nick, self.now));
        let link = self.dialled()[0];
        self.channel.opened(link, self.now);
        self.receive(link, MessageType::Handshake, &peer_handshake(byte));
        self.drain();
        link
    }
}

/// One line without its end, also of types that we never send.
fn wire(kind: MessageType, text: &str) -> String {
    serde_json::json!({"type": kind.number(), "line": text}).to_string()
}

fn directory_answer(features: &[&str], accepted: bool) -> String {
    DirectoryHandshake {
        nick: DIRECTORY_NICK.to_owned(),
        accepted,
        network: "testnet".to_owned(),
        features: Features::from_names(features.iter().copied()),
        motd: "hello".to_owned(),
    }
    .to_line()
}

fn peer_handshake(byte: u8) -> String {
    PeerHandshake {
        nick: key(byte).nick(),
        location: Location::NotServing,
        network: "testnet".to_owned(),
        features: Features::none(),
    }
    .to_line()
}

/// A private line from key `byte` to `to`.
fn private(byte: u8, to: Nick, word: PrivateWord, payload: &str) -> String {
    let key = key(byte);
    format!("{}!{to}!{}", key.nick(), key.sign_message(word, payload, ONION_HOSTID))
}

fn is_dial_to(output: &Output, nick: Nick) -> bool {
    matches!(output, Output::Dial { purpose: Purpose::Peer(dialled), .. } if *dialled == nick)
}

const fn by(directory: u16) -> Source {
    Source::Directory(DirectoryId(directory))
}
