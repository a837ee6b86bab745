//! A directory with scripted peers around it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::onion_name;
use joinery_proto::private_message::NickKey;
use joinery_roles::directory::{Directory, Fact, Frame, Incident, Load, Output, Settings};
use joinery_roles::event::LinkId;

pub(crate) const NETWORK: &str = "regtest";

/// A directory, its clock and what its peers got.
pub(crate) struct Room {
    pub(crate) directory: Directory,
    pub(crate) now: Duration,
    pub(crate) facts: Vec<Fact>,
    inbox: BTreeMap<LinkId, Vec<Envelope>>,
    closed: BTreeMap<LinkId, Incident>,
    /// Peers that read nothing: their frames stay unwritten.
    deaf: BTreeSet<LinkId>,
    links: u64,
}

/// Whom a test plays.
pub(crate) struct Player {
    pub(crate) link: LinkId,
    pub(crate) key: NickKey,
    /// The text of its handshake.
    pub(crate) handshake: String,
}

impl Player {
    pub(crate) fn nick(&self) -> String {
        self.key.nick().to_string()
    }

    pub(crate) fn public(&self, text: &str) -> String {
        format!("{}!PUBLIC!{text}", self.nick())
    }

    pub(crate) fn private(&self, to: &Self, text: &str) -> String {
        format!("{}!{}!{text}", self.nick(), to.nick())
    }
}

/// The key of a number.
pub(crate) fn key(number: u64) -> NickKey {
    let mut bytes = [7_u8; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NickKey::new(joinery_proto::bitcoin::secp256k1::SecretKey::from_slice(&bytes).unwrap())
}

/// The location of a number.
pub(crate) fn onion(number: u64) -> String {
    let mut bytes = [9_u8; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    format!("{}:5222", onion_name::encode(&bytes))
}

pub(crate) fn handshake(key: &NickKey, location: &str, features: &[&str]) -> String {
    let handshake = PeerHandshake {
        nick: key.nick(),
        location: location.parse().unwrap(),
        network: NETWORK.into(),
        features: Features::from_names(features.iter().copied()),
    };
    handshake.to_line()
}

impl Room {
    pub(crate) fn new() -> Self {
        Self::with(Settings::new(NETWORK))
    }

    /// A directory that asks for proofs of nicks.
    pub(crate) fn with_identity(identity: &str) -> Self {
        Self::with(Settings { identity: Some(identity.into()), ..Settings::new(NETWORK) })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self {
            directory: Directory::new(settings, [1; 32]),
            now: Duration::from_secs(1),
            facts: Vec::new(),
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
            deaf: BTreeSet::new(),
            links: 0,
        }
    }

    /// A new connection.
    pub(crate) fn connect(&mut self) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.directory.opened(link, self.now);
        self.settle();
        link
    }

    /// A connection that shakes hands.
    pub(crate) fn enter(&mut self, number: u64, location: &str, features: &[&str]) -> Player {
        let key = key(number);
        let handshake = handshake(&key, location, features);
        let link = self.connect();
        self.say(link, MessageType::Handshake, &handshake);
        Player { link, key, handshake }
    }

    pub(crate) fn taker(&mut self, number: u64) -> Player {
        let player = self.enter(number, "NOT-SERVING-ONION", &[]);
        assert!(self.take(player.link)[0].line.contains("\"accepted\": true"));
        player
    }

    pub(crate) fn maker(&mut self, number: u64) -> Player {
        let player = self.enter(number, &onion(number), &[]);
        assert!(self.take(player.link)[0].line.contains("\"accepted\": true"));
        player
    }

    pub(crate) fn say(&mut self, link: LinkId, kind: MessageType, line: &str) {
        let text = format!("{{\"type\": {}, \"line\": {}}}", kind.number(), quoted(line));
        self.raw(link, text.as_bytes());
    }

    pub(crate) fn raw(&mut self, link: LinkId, line: &[u8]) {
        self.directory.received(link, line, self.now);
        self.settle();
    }

    /// The connection ends.
    pub(crate) fn leave(&mut self, link: LinkId) {
        self.directory.closed(link, Incident::Gone, self.now);
        self.settle();
    }

    /// Time passes, and everything that is due on the way is done when it is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.directory.next_tick() <= end {
            self.now = self.now.max(self.directory.next_tick());
            self.directory.tick(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// From now on this peer reads nothing.
    pub(crate) fn deafen(&mut self, link: LinkId) {
        self.deaf.insert(link);
    }

    /// What a peer got since the last call.
    pub(crate) fn take(&mut self, link: LinkId) -> Vec<Envelope> {
        self.inbox.remove(&link).unwrap_or_default()
    }

    /// The texts of what a peer got, `TYPE LINE` each.
    pub(crate) fn lines(&mut self, link: LinkId) -> Vec<String> {
        let texts = self.take(link).into_iter();
        texts.map(|envelope| format!("{} {}", envelope.kind.number(), envelope.line)).collect()
    }

    /// Why a connection was closed, if it was.
    pub(crate) fn closed(&self, link: LinkId) -> Option<Incident> {
        self.closed.get(&link).copied()
    }

    /// Does what the directory asks for, to the end.
    fn settle(&mut self) {
        while let Some(output) = self.directory.poll() {
            match output {
                Output::Send { link, frame } => self.deliver(link, &frame),
                Output::Close { link, incident } => {
                    assert_eq!(self.closed.insert(link, incident), None, "closed once");
                }
                Output::Log(fact) => self.facts.push(fact),
            }
        }
    }

    fn deliver(&mut self, link: LinkId, frame: &Frame) {
        assert!(!self.closed.contains_key(&link), "nothing is sent to a closed connection");
        let line = frame.bytes().strip_suffix(b"\r\n").unwrap();
        self.inbox.entry(link).or_default().push(Envelope::decode(line).unwrap());
        if !self.deaf.contains(&link) {
            let mut load = Load::default();
            load.add(frame);
            self.directory.written(link, &load, self.now);
        }
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}
