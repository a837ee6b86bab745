//! The directory node: a rendezvous and relay that sees no secrets and needs no wallet (`spec/roles.md` 8,
//! `spec/protocol.md` 4).
//!
//! A machine without I/O. Its driver tells it of connections, lines and bytes written, each with the time by a
//! steady clock, and after each input takes what [`Directory::poll`] hands out. Nothing here waits, reads a clock or
//! draws randomness: the same inputs give the same outputs.
//!
//! Made for many peers: what everybody gets is encoded once and shared, a peer list is made line by line as its
//! reader takes it, and an idle peer costs a few hundred bytes.

mod admission;
mod frame;
mod incident;
pub mod limits;
mod list;
mod peer;
mod registry;
mod relay;

use std::collections::VecDeque;
use std::time::Duration;

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256};
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::location::PeerAddress;
use joinery_proto::private_message::NickKey;

pub use frame::{Frame, Load};
pub use incident::{Fact, Incident};

use crate::event::LinkId;
use incident::Incidents;
use limits::{
    DEPARTURES, DEPARTURES_AT_ONCE, DIRECTED_BYTES, EVICT, HANDSHAKE, PONG, PROBE, SWEEP,
};
use list::Entries;
use peer::{Peer, Pushed};
use registry::Registry;

/// What a directory is and whom it takes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the JoinMarket network: `mainnet`, `signet`, `testnet`.
    pub network: String,
    /// Message of the day; cut at [`limits::MAX_MOTD`].
    pub motd: String,
    /// How clients know this directory, `HOST.onion:PORT` or another name. Only with one are proofs of nicks
    /// asked for, because a proof is made for one directory.
    pub identity: Option<String>,
    /// Where this directory is served; it lists itself there.
    pub address: Option<PeerAddress>,
    /// Whether peers may say that they serve on a loopback address, as they do in tests without Tor.
    pub loopback_peers: bool,
    /// Most members. A tenth more connections may be open, for handshakes.
    pub max_peers: usize,
}

impl Settings {
    /// A directory of `network` for 10 000 peers without identity.
    #[must_use]
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            motd: "Joinery directory".to_owned(),
            identity: None,
            address: None,
            loopback_peers: false,
            max_peers: 10_000,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Append to what is to be written to this connection.
    Send {
        /// To whom.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Write what still waits for this connection, for a short while, then close it. The machine has forgotten it.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        incident: Incident,
    },
    /// Log this.
    Log(Fact),
}

/// How much passed through, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections.
    pub connections: u64,
    /// Handshakes that were accepted.
    pub handshakes: u64,
    /// Proofs of nicks that were right.
    pub proofs: u64,
    /// Public messages that were passed on.
    pub public: u64,
    /// Recipients of those, summed up.
    pub public_recipients: u64,
    /// Private messages that were passed on.
    pub private: u64,
    /// Private messages to nobody who is here.
    pub private_unknown: u64,
    /// Peer lists that were asked for.
    pub lists: u64,
}

/// A directory node.
#[derive(Debug)]
pub struct Directory {
    settings: Settings,
    nick: Nick,
    draws: Draws,
    peers: Registry,
    outbox: VecDeque<Output>,
    counters: Counters,
    incidents: Incidents,
    /// Bytes of directed frames that wait.
    directed_bytes: usize,
    /// Who left and has yet to be told.
    departed: Vec<(Nick, String)>,
    departures_told_at: Option<Duration>,
    // Deadlines in the order in which they come, because each kind has one length. Links that are gone stay until
    // their time.
    handshakes: VecDeque<(Duration, LinkId)>,
    proofs: VecDeque<(Duration, LinkId)>,
    pongs: VecDeque<(Duration, LinkId)>,
    sweep_at: Duration,
}

impl Directory {
    /// A directory without peers. `seed` is secret and from the system's randomness: challenges and the nick are
    /// derived from it.
    #[must_use]
    pub fn new(mut settings: Settings, seed: [u8; 32]) -> Self {
        settings.motd = settings.motd.chars().take(limits::MAX_MOTD).collect();
        let mut draws = Draws { seed, drawn: 0 };
        let nick = draws.nick();
        Self {
            settings,
            nick,
            draws,
            peers: Registry::default(),
            outbox: VecDeque::new(),
            counters: Counters::default(),
            incidents: Incidents::new(),
            directed_bytes: 0,
            departed: Vec::new(),
            departures_told_at: None,
            handshakes: VecDeque::new(),
            proofs: VecDeque::new(),
            pongs: VecDeque::new(),
            sweep_at: SWEEP,
        }
    }

    /// The directory's own nick. What is sent to it is dropped.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.nick
    }

    /// Registered members.
    #[must_use]
    pub fn members(&self) -> usize {
        self.peers.members()
    }

    /// Members that can be dialled or have announced an offer.
    #[must_use]
    pub const fn makers(&self) -> usize {
        self.peers.makers()
    }

    /// Connections, registered or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.peers.connections()
    }

    /// Bytes of frames for single peers that wait to be written.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.directed_bytes
    }

    /// How much passed through.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often something went wrong.
    #[must_use]
    pub fn incidents(&self, incident: Incident) -> u64 {
        self.incidents.total(incident)
    }

    /// The next thing to do; to be called until it is `None` after each input.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// A connection was accepted.
    pub fn opened(&mut self, link: LinkId, now: Duration) {
        self.counters.connections = self.counters.connections.saturating_add(1);
        let room = self.settings.max_peers.saturating_add(self.settings.max_peers / 10).max(16);
        if self.peers.connections() >= room {
            // Whoever has waited longest without a handshake makes room: sockets that say nothing must not keep
            // others out.
            self.close_oldest_silent(now);
        }
        if self.peers.connections() >= room {
            self.outbox.push_back(Output::Close { link, incident: Incident::Full });
            self.count(Incident::Full, now);
            return;
        }
        self.peers.insert(Peer::new(link, now));
        self.handshakes.push_back((now.saturating_add(HANDSHAKE), link));
    }

    fn close_oldest_silent(&mut self, now: Duration) {
        while let Some((_, link)) = self.handshakes.pop_front() {
            let place = self.peers.place(link);
            if let Some(place) = place.filter(|place| self.is_silent(*place)) {
                return self.close(place, Incident::Full, now);
            }
        }
    }

    /// Whether no handshake has come.
    fn is_silent(&self, place: usize) -> bool {
        self.peers.get(place).is_some_and(|peer| peer.member.is_none())
    }

    /// A line came, without its end. The driver cuts lines at [`limits::MAX_LINE`].
    pub fn received(&mut self, link: LinkId, line: &[u8], now: Duration) {
        let Some(place) = self.peers.place(link) else { return };
        let Some(peer) = self.peers.get_mut(place) else { return };
        peer.heard_at = now;
        if !peer.lines.take(now) {
            self.count(Incident::LineFlood, now);
            return;
        }
        if line.len() > limits::MAX_LINE {
            self.close(place, Incident::LineTooLong, now);
        } else if let Ok(envelope) = Envelope::decode(line) {
            self.message(place, envelope, now);
        } else {
            self.close(place, Incident::MalformedLine, now);
        }
        self.tell_departures(now, false);
    }

    /// The driver handed frames over to the network.
    pub fn written(&mut self, link: LinkId, load: &Load, now: Duration) {
        let Some(place) = self.peers.place(link) else { return };
        let Some(peer) = self.peers.get_mut(place) else { return };
        let before = peer.queue.directed_bytes;
        peer.queue.subtract(load);
        let freed = before.saturating_sub(peer.queue.directed_bytes);
        self.directed_bytes = self.directed_bytes.saturating_sub(freed);
        if peer.queue.frames == 0 {
            self.list_on(place, now);
        }
    }

    /// A connection ended, or the driver ended it for a reason of its own: [`Incident::Gone`],
    /// [`Incident::LineTooLong`], [`Incident::LineStalled`], [`Incident::WriteStalled`]. Nothing more is sent there.
    pub fn closed(&mut self, link: LinkId, incident: Incident, now: Duration) {
        if let Some(place) = self.peers.place(link) {
            self.forget(place, incident, now);
            self.tell_departures(now, false);
        }
    }

    /// When [`Self::tick`] is to be called next. Inputs before that may bring it forward.
    #[must_use]
    pub fn next_tick(&self) -> Duration {
        let heads = [&self.handshakes, &self.proofs, &self.pongs]
            .map(|queue| queue.front().map(|(deadline, _)| *deadline));
        let told = self.departures_told_at.filter(|_| !self.departed.is_empty());
        let departures = told.map(|at| at.saturating_add(DEPARTURES));
        heads.into_iter().chain([departures]).flatten().fold(self.sweep_at, Ord::min)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.expire(now);
        if now >= self.sweep_at {
            self.sweep_at = now.saturating_add(SWEEP);
            self.sweep(now);
            let facts = self.incidents.due(now);
            self.outbox.extend(facts.into_iter().map(Output::Log));
        }
        self.tell_departures(now, false);
    }

    /// Deadlines of handshakes, proofs and pongs.
    fn expire(&mut self, now: Duration) {
        while let Some(link) = due(&mut self.handshakes, now) {
            let place = self.peers.place(link);
            if let Some(place) = place.filter(|place| self.is_silent(*place)) {
                self.close(place, Incident::HandshakeTimeout, now);
            }
        }
        while let Some(link) = due(&mut self.proofs, now) {
            let Some(place) = self.peers.place(link) else { continue };
            if self.peers.member_mut(place).is_some_and(|member| member.proof.is_some()) {
                self.refuse_proof(place, Incident::ProofTimeout, now);
            }
        }
        while let Some(link) = due(&mut self.pongs, now) {
            let Some(place) = self.peers.place(link) else { continue };
            // Whatever came since then took the mark away; a later mark has a deadline of its own.
            let asked = self.peers.member_mut(place).and_then(|member| member.probed_at);
            if asked.is_some_and(|at| at.saturating_add(PONG) <= now) {
                self.close(place, Incident::NoPong, now);
            }
        }
    }

    /// Looks for the silent.
    fn sweep(&mut self, now: Duration) {
        let (mut dead, mut quiet) = (Vec::new(), Vec::new());
        for (place, peer) in self.peers.iter() {
            let silence = now.saturating_sub(peer.heard_at);
            if silence >= EVICT {
                dead.push(place);
            } else if silence >= PROBE
                && let Some(member) = peer.registered()
                && member.probed_at.is_none()
                && (member.answers_pings || member.is_maker())
            {
                quiet.push((place, member.answers_pings));
            }
        }
        for place in dead {
            self.close(place, Incident::Idle, now);
        }
        // A maker that knows no pings answers a request for its offers; others are left alone until they are
        // taken for dead.
        let ping = Frame::directed(MessageType::Ping, String::new());
        let request = format!("{}!PUBLIC!orderbook", self.nick);
        let request = Frame::directed(MessageType::Public, request);
        for (place, pings) in quiet {
            let frame = if pings { &ping } else { &request };
            let Some(frame) = frame else { continue };
            if let Some(peer) = self.peers.get_mut(place) {
                if pings {
                    self.pongs.push_back((now.saturating_add(PONG), peer.link));
                }
                if let Some(member) = &mut peer.member {
                    member.probed_at = Some(now);
                }
            }
            self.send(place, frame, now);
        }
    }

    /// Sends to one peer. One that is too far behind is closed.
    fn send(&mut self, place: usize, frame: &Frame, now: Duration) -> bool {
        let pushed = self.push(place, frame);
        match pushed {
            Pushed::Sent => {}
            Pushed::Dropped => self.count(Incident::QueueFull, now),
            Pushed::Behind => self.close(place, Incident::SlowReader, now),
        }
        pushed == Pushed::Sent
    }

    /// Sends to every member but one; says to how many. Whoever is too far behind is closed.
    fn broadcast(&mut self, frame: &Frame, except: Option<usize>, now: Duration) -> u64 {
        let (mut sent, mut behind) = (0_u64, Vec::new());
        for (place, peer) in self.peers.iter_mut() {
            if Some(place) == except || peer.registered().is_none() {
                continue;
            }
            if peer.push(frame, 0) == Pushed::Sent {
                let frame = frame.clone();
                self.outbox.push_back(Output::Send { link: peer.link, frame });
                sent = sent.saturating_add(1);
            } else {
                behind.push(place);
            }
        }
        for place in behind {
            self.close(place, Incident::SlowReader, now);
        }
        sent
    }

    fn push(&mut self, place: usize, frame: &Frame) -> Pushed {
        let room = DIRECTED_BYTES.saturating_sub(self.directed_bytes);
        let Some(peer) = self.peers.get_mut(place) else { return Pushed::Dropped };
        let pushed = peer.push(frame, room);
        if pushed == Pushed::Sent {
            if frame.is_directed() {
                self.directed_bytes = self.directed_bytes.saturating_add(frame.bytes().len());
            }
            self.outbox.push_back(Output::Send { link: peer.link, frame: frame.clone() });
        }
        pushed
    }

    /// Goes on with a peer list when there is one for this peer.
    fn list_on(&mut self, place: usize, now: Duration) {
        let member = self.peers.member_mut(place);
        let Some(mut listing) = member.and_then(|member| member.listing.take()) else { return };
        let own = self.own_entry();
        // Lines without entries are left out, so that the end is found here and now.
        loop {
            let (frame, last) = listing.chunk(&self.peers, own.as_deref());
            let sent = frame.is_some_and(|frame| self.send(place, &frame, now));
            if last {
                return;
            }
            if sent {
                if let Some(member) = self.peers.member_mut(place) {
                    member.listing = Some(listing);
                }
                return;
            }
        }
    }

    /// The directory's entry in peer lists.
    fn own_entry(&self) -> Option<String> {
        self.settings.address.as_ref().map(|address| format!("{};{address}", self.nick))
    }

    /// Closes a connection.
    fn close(&mut self, place: usize, incident: Incident, now: Duration) {
        if let Some(peer) = self.peers.get(place) {
            self.outbox.push_back(Output::Close { link: peer.link, incident });
            self.forget(place, incident, now);
        }
    }

    fn forget(&mut self, place: usize, incident: Incident, now: Duration) {
        let Some(peer) = self.peers.remove(place) else { return };
        self.directed_bytes = self.directed_bytes.saturating_sub(peer.queue.directed_bytes);
        if let Some(member) = peer.registered() {
            self.departed.push((member.nick, member.departure()));
        }
        self.count(incident, now);
    }

    /// Tells everybody who left, unless that was done a moment ago.
    fn tell_departures(&mut self, now: Duration, at_once: bool) {
        let recently = |at: Duration| now.saturating_sub(at) < DEPARTURES;
        let wait = !at_once && self.departures_told_at.is_some_and(recently);
        if self.departed.is_empty() || wait {
            return;
        }
        self.departures_told_at = Some(now);
        if at_once {
            // The last one is what is urgent.
            self.departed.rotate_right(1);
        }
        let count = self.departed.len().min(DEPARTURES_AT_ONCE);
        let mut lines = Vec::new();
        let mut entries = Entries::default();
        for (_, entry) in self.departed.drain(..count) {
            entries.push(&entry);
            if entries.is_long() {
                lines.push(entries.take());
            }
        }
        if !entries.is_empty() {
            lines.push(entries.take());
        }
        // Who turns out to be a slow reader now is told of next time.
        for line in lines {
            if let Some(frame) = Frame::shared(MessageType::PeerList, line) {
                self.broadcast(&frame, None, now);
            }
        }
    }

    fn count(&mut self, incident: Incident, now: Duration) {
        let fact = self.incidents.count(incident, now);
        self.outbox.extend(fact.map(Output::Log));
    }
}

/// Randomness from the seed.
#[derive(Debug)]
struct Draws {
    seed: [u8; 32],
    drawn: u64,
}

impl Draws {
    /// 32 bytes that nobody can foresee who does not know the seed.
    fn draw(&mut self) -> [u8; 32] {
        self.drawn = self.drawn.saturating_add(1);
        let mut engine = sha256::Hash::engine();
        engine.input(b"joinery directory");
        engine.input(&self.seed);
        engine.input(&self.drawn.to_be_bytes());
        sha256::Hash::from_engine(engine).to_byte_array()
    }

    /// A nick that nobody has the key of.
    fn nick(&mut self) -> Nick {
        loop {
            // All but one in 2^128 texts are a key.
            if let Ok(key) = SecretKey::from_slice(&self.draw()) {
                return NickKey::new(key).nick();
            }
        }
    }
}

/// The next deadline that has passed.
fn due(queue: &mut VecDeque<(Duration, LinkId)>, now: Duration) -> Option<LinkId> {
    queue.pop_front_if(|(deadline, _)| *deadline <= now).map(|(_, link)| link)
}
