//! The onion channel with hostile directories, hostile peers and a network that loses connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::handshake::DirectoryHandshake;
use joinery_proto::onion::nick_auth::{Challenge, Verdict, VerdictCode};
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord, UnverifiedMessage};
use joinery_roles::channel::{
    Audience, ChannelConfig, DirectoryAddress, MAX_PEERS, NickAuthPolicy, OnionChannel, Output,
    Purpose,
};
use joinery_roles::event::{ChannelEvent, DirectoryId, LinkId, Source};

use super::{IDENTITY, features, handshake, line, location, nick, pause, private, public, raw};
use crate::script::Script;

/// Directories: an onion service with an identity, and one on this machine.
const DIRECTORIES: [&str; 2] = [IDENTITY, "127.0.0.1:5222"];

/// What stands around the machine.
struct World {
    channel: OnionChannel,
    now: Duration,
    plain: bool,
    dialing: BTreeMap<LinkId, Purpose>,
    open: BTreeMap<LinkId, Option<Purpose>>,
    known: BTreeSet<LinkId>,
    /// When which public message and which request for a list went to each directory.
    said: BTreeMap<DirectoryId, Vec<(Duration, bool)>>,
    lists: BTreeMap<DirectoryId, Vec<Duration>>,
    /// A ping that may be answered.
    pinged: Option<LinkId>,
    up: bool,
    heard: bool,
}

/// Runs a script. Whatever happens: only known links are written to, with lines that every node takes; only onion
/// services are dialled unless the chain is private; nobody is believed without a signature; no directory gets more
/// than it takes; everything is bounded, and nothing spins. Returns whether a directory came up and a proved message
/// arrived.
pub fn channel(data: &[u8]) -> bool {
    let mut script = Script(data);
    let flags = script.byte();
    let us = NickKey::new(SecretKey::from_slice(&[0x77; 32]).expect("below the group order"));
    let ours = us.nick();
    let mut config = ChannelConfig::new(super::NETWORK, Arc::new(us));
    config.allow_plain = flags & 1 == 1;
    config.want_peers = flags & 2 == 2;
    config.dial_peers = flags & 4 == 4;
    config.await_location = flags & 8 == 8;
    config.nick_auth = match flags >> 4 & 3 {
        0 => NickAuthPolicy::RequireVerified,
        1 => NickAuthPolicy::Disabled,
        _ => NickAuthPolicy::PreferVerified,
    };
    config.directories =
        DIRECTORIES.map(|text| DirectoryAddress::new(text.parse().expect("an address"))).into();
    let mut world = World {
        plain: config.allow_plain,
        channel: OnionChannel::new(config, [1; 32]).expect("two directories"),
        now: Duration::ZERO,
        dialing: BTreeMap::new(),
        open: BTreeMap::new(),
        known: BTreeSet::new(),
        said: BTreeMap::new(),
        lists: BTreeMap::new(),
        pinged: None,
        up: false,
        heard: false,
    };
    world.channel.tick(world.now);
    world.look();
    let mut steps = 0;
    while !script.is_empty() && steps < 200 {
        steps += 1;
        world.step(&mut script, ours);
        world.look();
        world.pinged = None;
        assert!(world.channel.peer_count() <= MAX_PEERS);
        assert!(world.channel.link_count() <= 64 + 64 + DIRECTORIES.len());
        world.channel.tick(world.now);
        world.look();
        let spins = world.channel.next_wake().is_some_and(|wake| wake <= world.now);
        assert!(!spins, "the machine spins at {:?}", world.now);
    }
    world.channel.stop(world.now);
    world.look();
    assert!(world.dialing.is_empty() && world.open.is_empty(), "everything is closed at the end");
    assert_eq!(world.channel.next_wake(), None);
    world.up && world.heard
}

impl World {
    fn step(&mut self, script: &mut Script<'_>, ours: Nick) {
        let open: Vec<LinkId> = self.open.keys().copied().collect();
        let now = self.now;
        match script.byte() % 20 {
            0 => self.now += pause(script),
            1 => {
                let dialing: Vec<LinkId> = self.dialing.keys().copied().collect();
                if let Some(link) = script.pick(&dialing) {
                    let purpose = self.dialing.remove(&link);
                    self.open.insert(link, purpose);
                    self.channel.opened(link, now);
                }
            }
            2 => {
                let all: Vec<LinkId> =
                    self.dialing.keys().chain(self.open.keys()).copied().collect();
                if let Some(link) = script.pick(&all) {
                    self.dialing.remove(&link);
                    self.open.remove(&link);
                    self.channel.closed(link, "reset", now);
                }
            }
            3 => {
                for _ in 0..=script.byte() / 4 {
                    let link = self.channel.accepted(now);
                    assert!(self.known.insert(link), "numbers are new");
                    self.open.insert(link, None);
                    self.look();
                }
            }
            4 => {
                let text = script.text();
                let _ = self.channel.announce(&text, Audience::All, now);
            }
            5 => self.channel.request_orderbook(now),
            6 => self.channel.request_peers(now),
            7 => {
                let _ = self.channel.connect_peer(nick(script.byte()), now);
            }
            8 => {
                let words = [PrivateWord::Fill, PrivateWord::Auth, PrivateWord::Tx];
                let word = script.pick(&words).expect("there are some");
                let to = nick(script.byte());
                let via = match script.byte() % 4 {
                    0 => Some(Source::Directory(DirectoryId(script.byte().into()))),
                    1 => script.pick(&open).map(Source::Direct),
                    _ => None,
                };
                let payload = script.text();
                let _ = self.channel.send_private(to, word, &payload, via, now);
            }
            9 => {
                self.channel.set_location(location(script));
                if script.byte() > 0xf0 {
                    self.channel.reconnect(now);
                }
            }
            _ => {
                if let Some(link) = script.pick(&open) {
                    let line = self.line(script, ours);
                    let ping = Envelope::decode(&line).is_ok_and(|e| e.kind == MessageType::Ping);
                    self.pinged = ping.then_some(link);
                    self.channel.received(link, &line, now);
                }
            }
        }
    }

    /// What comes on a link.
    fn line(&self, script: &mut Script<'_>, ours: Nick) -> Vec<u8> {
        let from = script.byte();
        match script.byte() % 12 {
            0 => raw(script),
            1 => {
                let nick =
                    if script.byte() == 0xff { script.text() } else { "J5dnOOOOOOOOOOOO".into() };
                let (accepted, network) = (script.byte() != 0xff, super::NETWORK.to_owned());
                let (features, motd) = (features(script), script.text());
                let answer = DirectoryHandshake { nick, accepted, network, features, motd };
                line(MessageType::DirectoryHandshake, &answer.to_line())
            }
            2 => line(MessageType::Handshake, &handshake(script, from)),
            3 | 4 => {
                let to = if script.byte() == 0xff { nick(script.byte()) } else { ours };
                line(MessageType::Private, &private(script, from, to))
            }
            5 => line(MessageType::Public, &public(script, from)),
            6 => {
                let entries = (0..script.byte() % 16).map(|_| {
                    let (who, place) = (nick(script.byte()), location(script));
                    let end = [";D", "", ";F:ping", ";D;F:ping+nick_auth"];
                    format!("{who};{place}{}", end[usize::from(script.byte() % 4)])
                });
                let entries: Vec<String> = entries.collect();
                line(MessageType::PeerList, &entries.join(","))
            }
            7 => line(MessageType::Ping, ""),
            8 => line(
                MessageType::NickAuthChallenge,
                &Challenge::new([from; 32], IDENTITY).to_line(),
            ),
            9 => {
                let verified = script.byte() != 0xff;
                let code = if verified { VerdictCode::Ok } else { VerdictCode::Invalid };
                line(MessageType::NickAuthResult, &Verdict { code, verified }.to_line())
            }
            10 => vec![b'x'; usize::from(script.byte()) * 256],
            _ => line(MessageType::GetPeerList, ""),
        }
    }

    /// Does what the machine wants done, as far as it may want it.
    fn look(&mut self) {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Dial { link, address, purpose } => {
                    assert!(address.is_onion() || self.plain, "{address} is dialled");
                    assert!(self.known.insert(link), "numbers are new");
                    self.dialing.insert(link, purpose);
                }
                Output::Send { link, line } => self.sent(link, &line),
                Output::Close { link } => {
                    let known = self.dialing.remove(&link).is_some();
                    assert!(
                        self.open.remove(&link).is_some() || known || self.known.contains(&link)
                    );
                }
                Output::Pause { link, until } => {
                    assert!(self.open.contains_key(&link) && until > self.now);
                }
                Output::Event(ChannelEvent::Private { from, text, .. }) => {
                    let message = UnverifiedMessage::parse(&text).expect("it was understood");
                    assert!(message.verify(&from, ONION_HOSTID).is_ok(), "nobody proved {from}");
                    self.heard = true;
                }
                Output::Event(ChannelEvent::Up(_)) => self.up = true,
                Output::Event(_) | Output::Log(_) => {}
            }
        }
    }

    fn sent(&mut self, link: LinkId, text: &str) {
        let envelope = super::ours(text);
        let purpose = self.open.get(&link).expect("only open links are written to");
        if envelope.kind == MessageType::Pong {
            assert_eq!(self.pinged, Some(link), "a pong is an answer");
        }
        let Some(Purpose::Directory(id)) = purpose else { return };
        let minute = |at: &Duration| *at + Duration::from_secs(60) > self.now;
        match envelope.kind {
            MessageType::Public => {
                let said = self.said.entry(*id).or_default();
                said.push((self.now, envelope.line.ends_with("!PUBLIC!orderbook")));
                let recent = said.iter().filter(|(at, _)| minute(at));
                assert!(recent.clone().count() <= 20, "twenty lines a minute");
            }
            MessageType::GetPeerList => {
                let lists = self.lists.entry(*id).or_default();
                assert!(lists.last().is_none_or(|at| !minute(at)), "one list a minute");
                lists.push(self.now);
            }
            _ => {}
        }
    }
}

/// Both directories are dialled; one takes us in and relays a proved message.
pub(super) fn honest() -> Vec<u8> {
    let mut script = vec![0x27];
    // The second link opens; it was dialled second.
    script.extend([1, 1]);
    // Its answer: link 0 of the open ones, no flags, an empty message of the day.
    script.extend([19, 0, 1, 1, 0, 0, 0, 0]);
    // A stranger's list, and a message of stranger 2.
    script.extend([19, 0, 1, 6, 1, 2, 1, 1]);
    script.extend([19, 0, 2, 3, 0, 0, 0, 0, 0]);
    script.extend([5, 8, 0, 2, 3, 1, b'A', b'A', 0, 40, 1]);
    script
}
