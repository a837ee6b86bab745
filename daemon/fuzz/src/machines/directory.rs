//! The directory node with hostile peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use joinery_proto::line::RoutedLine;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::nick_auth::Challenge;
use joinery_roles::directory::{Directory, Incident, Load, Output, Settings, limits};
use joinery_roles::event::LinkId;

use super::{IDENTITY, handshake, key, line, nick, pause, private, public, raw};
use crate::script::Script;

/// Members at most; a tenth more may be open, and never fewer than 16.
const MEMBERS: usize = 20;

#[derive(Default)]
struct Peer {
    /// What it said of itself first.
    greeting: Option<(u8, String)>,
    nick: Option<Nick>,
    challenge: Option<Challenge>,
    /// Frames that wait for it.
    load: Load,
}

struct World {
    directory: Directory,
    now: Duration,
    peers: BTreeMap<LinkId, Peer>,
    links: u64,
    relayed: bool,
}

/// Runs a script. Whatever happens: nobody speaks in another's name, only open connections are written to, everything
/// is bounded and given back, and nothing spins. Returns whether something was relayed.
pub fn directory(data: &[u8]) -> bool {
    let mut script = Script(data);
    let flags = script.byte();
    let settings = Settings {
        identity: (flags & 1 == 1).then(|| IDENTITY.to_owned()),
        loopback_peers: flags & 2 == 2,
        max_peers: MEMBERS,
        ..Settings::new(super::NETWORK)
    };
    let mut world = World {
        directory: Directory::new(settings, [1; 32]),
        now: Duration::ZERO,
        peers: BTreeMap::new(),
        links: 0,
        relayed: false,
    };
    let mut steps = 0;
    while !script.is_empty() && steps < 300 {
        steps += 1;
        world.step(&mut script);
        world.look(None);
        world.directory.tick(world.now);
        world.look(None);
        assert!(world.directory.next_tick() > world.now, "the machine spins at {:?}", world.now);
        assert!(world.directory.members() <= MEMBERS, "{}", world.directory.members());
        assert!(world.directory.connections() <= MEMBERS + MEMBERS / 10);
        assert_eq!(world.directory.connections(), world.peers.len());
        let waiting: usize = world.peers.values().map(|peer| peer.load.directed_bytes).sum();
        assert_eq!(world.directory.waiting_bytes(), waiting, "what waits is counted");
        assert!(waiting <= limits::DIRECTED_BYTES);
    }
    let links: BTreeSet<LinkId> = world.peers.keys().copied().collect();
    for link in links {
        world.close(link);
    }
    let left = (world.directory.members(), world.directory.makers(), world.directory.connections());
    assert_eq!((left, world.directory.waiting_bytes()), ((0, 0, 0), 0), "nothing is left");
    world.relayed
}

impl World {
    fn close(&mut self, link: LinkId) {
        if self.peers.remove(&link).is_some() {
            self.directory.closed(link, Incident::Gone, self.now);
            self.look(None);
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let open: Vec<LinkId> = self.peers.keys().copied().collect();
        match script.byte() % 12 {
            0 => self.now += pause(script),
            1 => {
                for _ in 0..=script.byte() / 16 {
                    let link = LinkId(self.links);
                    self.links += 1;
                    self.peers.insert(link, Peer::default());
                    self.directory.opened(link, self.now);
                    self.look(None);
                }
            }
            2 => {
                if let Some(link) = script.pick(&open) {
                    self.close(link);
                }
            }
            3 | 4 => {
                // The driver has written all that waits.
                if let Some(link) = script.pick(&open) {
                    let peer = self.peers.get_mut(&link).expect("it is open");
                    let load = std::mem::take(&mut peer.load);
                    self.directory.written(link, &load, self.now);
                }
            }
            _ => {
                if let Some(link) = script.pick(&open) {
                    let line = self.line(script, link);
                    self.directory.received(link, &line, self.now);
                    self.look(Some(link));
                }
            }
        }
    }

    fn line(&mut self, script: &mut Script<'_>, link: LinkId) -> Vec<u8> {
        let Some(peer) = self.peers.get_mut(&link) else { return Vec::new() };
        let number = match &peer.greeting {
            Some((number, _)) if script.byte() < 0xf0 => *number,
            _ => script.byte(),
        };
        match script.byte() % 10 {
            0 => raw(script),
            1 | 2 => {
                let text = handshake(script, number);
                if peer.greeting.is_none() {
                    peer.nick = PeerHandshake::parse(&text, super::NETWORK).ok().map(|h| h.nick);
                    peer.greeting = Some((number, text.clone()));
                }
                line(MessageType::Handshake, &text)
            }
            3 => line(MessageType::Public, &public(script, number)),
            4 => {
                let to = nick(script.byte());
                line(MessageType::Private, &private(script, number, to))
            }
            5 => line(MessageType::GetPeerList, ""),
            6 => line(MessageType::Ping, ""),
            7 => line(MessageType::Pong, ""),
            8 => {
                let Some((challenge, (_, greeting))) =
                    peer.challenge.as_ref().zip(peer.greeting.as_ref())
                else {
                    return line(MessageType::Pong, "");
                };
                let proof = challenge.answer(greeting, key(number));
                line(MessageType::NickAuthProof, &proof.to_line())
            }
            _ => vec![b'x'; usize::from(script.byte()) * 256],
        }
    }

    /// Takes what the machine hands out; `speaker` has just said something.
    fn look(&mut self, speaker: Option<LinkId>) {
        let speaks = speaker.and_then(|link| self.peers.get(&link)).and_then(|peer| peer.nick);
        while let Some(output) = self.directory.poll() {
            match output {
                Output::Send { link, frame } => {
                    let text = frame.bytes().strip_suffix(b"\r\n").expect("CR LF");
                    assert!(!text.is_empty() && text.len() <= 39_998, "{} bytes", text.len());
                    let envelope = Envelope::decode(text).expect("a message");
                    let peer = self.peers.get_mut(&link).expect("only open links are written to");
                    peer.load.add(&frame);
                    match envelope.kind {
                        MessageType::Public | MessageType::Private => {
                            let routed = RoutedLine::parse(&envelope.line).expect("a line");
                            if routed.from != self.directory.nick() {
                                assert_eq!(Some(routed.from), speaks, "in its own name");
                                self.relayed = true;
                            }
                        }
                        MessageType::NickAuthChallenge => {
                            peer.challenge = Challenge::parse(&envelope.line, IDENTITY).ok();
                        }
                        MessageType::Unknown(_) | MessageType::Disconnect => {
                            panic!("it sends {:?}", envelope.kind)
                        }
                        _ => {}
                    }
                }
                Output::Close { link, .. } => {
                    assert!(self.peers.remove(&link).is_some(), "only what is open is closed");
                }
                Output::Log(_) => {}
            }
        }
    }
}

/// Two strangers connect, introduce themselves and speak.
pub(super) fn honest() -> Vec<u8> {
    let mut script = vec![0];
    script.extend([1, 16]);
    script.extend([11, 0, 1, 1, 0, 1, 3]);
    script.extend([11, 1, 2, 1, 0, 2, 3]);
    script.extend([11, 0, 0, 3, 1]);
    script.extend([11, 1, 0, 4, 1, 0, 0, 0, 0]);
    script.extend([11, 1, 0, 5]);
    script.extend([3, 0, 3, 1, 2, 0]);
    script
}
