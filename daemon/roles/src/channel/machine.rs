//! The machine: links, their life and their deadlines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::PEERLIST_FEATURES;
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::location::Location;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::config::{ChannelConfig, ChannelConfigError, MAX_DIRECTORIES, NickAuthPolicy};
use super::direct::{
    Direct, Direction, HANDSHAKE_WAIT, IMPOSTOR_AFTER, MAX_INBOUND, MAX_OUTBOUND, Progress,
    REDIAL_AFTER,
};
use super::directory::{Directory, DirectoryState, DirectoryStatus, Session, Stage};
use super::output::{LogFact, Output, Purpose};
use super::peers::{PeerInfo, Peers};
use super::sending::Parked;
use crate::budget::Budget;
use crate::complaints::{Cause, Complaints};
use crate::event::{ChannelEvent, DirectoryId, LinkId, Source};
use crate::recent::Recent;

/// Longest reason of a lost connection that is kept, characters.
const MAX_REASON: usize = 256;
/// Signatures that are verified for all direct connections together (`spec/protocol.md` 13.2).
const DIRECT_SIGNATURES_PER_SECOND: f64 = 50.0;
const DIRECT_SIGNATURES_BURST: u32 = 500;

/// What a link belongs to.
#[derive(Debug)]
pub(super) enum Owner {
    Directory(DirectoryId),
    Direct(Direct),
}

impl Owner {
    /// Whether it is a direct connection to this nick, ready or not.
    pub(super) fn is_for(&self, nick: &Nick) -> bool {
        matches!(self, Self::Direct(direct) if direct.is_for(nick))
    }
}

/// The onion message channel of one nick. See the module's text for how to drive it.
#[derive(Debug)]
pub struct OnionChannel {
    pub(super) config: ChannelConfig,
    pub(super) nick: Nick,
    pub(super) rng: StdRng,
    next_link: u64,
    pub(super) directories: Vec<Directory>,
    pub(super) links: BTreeMap<LinkId, Owner>,
    pub(super) peers: Peers,
    pub(super) parked: VecDeque<Parked>,
    pub(super) recent: Recent,
    pub(super) direct_signatures: Budget,
    complaints: Complaints,
    outputs: VecDeque<Output>,
    /// The latest time that anybody told.
    pub(super) now: Duration,
    stopped: bool,
}

impl OnionChannel {
    /// A channel that dials at its first [`Self::tick`]. `seed` decides jitter and choices of way: from the
    /// operating system in a daemon, from the scheduler in a simulation.
    ///
    /// # Errors
    /// [`ChannelConfigError`].
    pub fn new(config: ChannelConfig, seed: [u8; 32]) -> Result<Self, ChannelConfigError> {
        let count = config.directories.len();
        if count > MAX_DIRECTORIES {
            return Err(ChannelConfigError::TooManyDirectories { count });
        }
        Ok(Self {
            nick: config.key.nick(),
            rng: StdRng::from_seed(seed),
            next_link: config.first_link,
            directories: config.directories.iter().cloned().map(Directory::new).collect(),
            links: BTreeMap::new(),
            peers: Peers::default(),
            parked: VecDeque::new(),
            recent: Recent::default(),
            direct_signatures: Budget::new(DIRECT_SIGNATURES_PER_SECOND, DIRECT_SIGNATURES_BURST),
            complaints: Complaints::default(),
            outputs: VecDeque::new(),
            now: Duration::ZERO,
            stopped: false,
            config,
        })
    }

    /// Our nick.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.nick
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::tick`] is to be called if nothing else happens before. `None`: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let awaits = self.config.await_location;
        let held =
            |directory: &&Directory| matches!(directory.stage, Stage::Waiting { .. }) && awaits;
        let dialled = self.directories.iter().filter(|directory| !held(directory));
        let directories = dialled.filter_map(|directory| directory.wake(self.now));
        let direct = self.links.values().filter_map(|owner| match owner {
            Owner::Direct(direct) => Some(direct.wake()),
            Owner::Directory(_) => None,
        });
        let parked = self.parked.iter().map(|parked| parked.until);
        directories.chain(direct).chain(parked).min()
    }

    /// How each directory does.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryStatus> + '_ {
        self.directories.iter().map(Directory::status)
    }

    /// Whether anything can be sent: at least one directory is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.directories.iter().any(|directory| directory.session().is_some())
    }

    /// Start-up is over (`spec/protocol.md` 4.10): every directory is up, or at least one is and a minute
    /// has passed since `started`.
    #[must_use]
    pub fn is_ready(&self, started: Duration, now: Duration) -> bool {
        let up = |directory: &Directory| directory.status().state == DirectoryState::Up;
        let patience = Duration::from_secs(60);
        self.is_up() && (self.directories.iter().all(up) || now.saturating_sub(started) >= patience)
    }

    /// What is known of a peer.
    #[must_use]
    pub fn peer(&self, nick: &Nick) -> Option<&PeerInfo> {
        self.peers.get(nick)
    }

    /// All known peers, by nick.
    pub fn peers(&self) -> impl Iterator<Item = (&Nick, &PeerInfo)> {
        self.peers.iter()
    }

    /// How many peers are known.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// How many links there are, in whatever state.
    #[must_use]
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Where we serve, from now on. Directories hear of it at their next handshake: call
    /// [`Self::reconnect`] when they should hear of it now. Ends [`ChannelConfig::await_location`].
    pub fn set_location(&mut self, location: Location) {
        self.config.location = location;
        self.config.await_location = false;
    }

    /// Closes the connections to all directories and dials again at once.
    pub fn reconnect(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for index in 0..self.directories.len() {
            let Some(id) = directory_id(index) else { continue };
            if matches!(self.directories[index].stage, Stage::Stopped) {
                continue;
            }
            self.drop_directory_link(id);
            self.directories[index].stage = Stage::Waiting { until: self.now };
        }
        self.tick(now);
    }

    /// Closes everything; nothing is dialled any more.
    pub fn stop(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.stopped = true;
        self.parked.clear();
        for index in 0..self.directories.len() {
            if let Some(id) = directory_id(index) {
                self.drop_directory_link(id);
            }
            self.directories[index].stage = Stage::Stopped;
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close_direct(link, None);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for index in 0..self.directories.len() {
            let Some(id) = directory_id(index) else { continue };
            self.tick_directory(id);
        }
        let due = |(link, owner): (&LinkId, &Owner)| match owner {
            Owner::Direct(direct) if direct.wake() <= self.now => Some(*link),
            _ => None,
        };
        for link in self.links.iter().filter_map(due).collect::<Vec<_>>() {
            self.direct_is_late(link);
        }
        self.release_parked();
    }

    /// A dialled link is open.
    pub fn opened(&mut self, link: LinkId, now: Duration) {
        self.now = self.now.max(now);
        match self.links.get_mut(&link) {
            Some(Owner::Directory(id)) => {
                let id = *id;
                self.greet_directory(id, link);
            }
            Some(Owner::Direct(direct)) => {
                direct.progress = Progress::Handshaking { until: self.now + HANDSHAKE_WAIT };
                direct.heard = self.now;
                self.greet_peer(link);
            }
            None => {}
        }
    }

    /// A peer has opened a connection to our service; returns its number. When there is no room the oldest
    /// connection without a handshake gives way, else the oldest that has proved no nick, else this one: then its
    /// number comes back with [`Output::Close`]. So whoever has proved a nick stays, and strangers who hold
    /// connections open cannot keep others out for long.
    pub fn accepted(&mut self, now: Duration) -> LinkId {
        self.now = self.now.max(now);
        let link = self.new_link();
        if self.stopped {
            self.out(Output::Close { link });
            return link;
        }
        // Numbers grow, so the first one is the oldest.
        let inbound = || {
            self.links.iter().filter_map(|(link, owner)| match owner {
                Owner::Direct(direct) if direct.is_inbound() => Some((*link, direct)),
                _ => None,
            })
        };
        if inbound().count() >= MAX_INBOUND {
            let silent = |direct: &Direct| matches!(direct.progress, Progress::Handshaking { .. });
            let victim = inbound()
                .find(|(_, direct)| silent(direct))
                .or_else(|| inbound().find(|(_, direct)| direct.bound.is_none()));
            let victim = victim.map(|(link, _)| link);
            self.complain(Cause::TooManyConnections, Source::Direct(link));
            let Some(victim) = victim else {
                self.out(Output::Close { link });
                return link;
            };
            self.close_direct(victim, None);
        }
        let progress = Progress::Handshaking { until: self.now + HANDSHAKE_WAIT };
        let direct = Direct::new(Direction::Inbound, progress, self.now);
        self.links.insert(link, Owner::Direct(direct));
        link
    }

    /// A link could not be opened, or is no more. `reason` is for the log.
    pub fn closed(&mut self, link: LinkId, reason: &str, now: Duration) {
        self.now = self.now.max(now);
        match self.links.get(&link) {
            Some(Owner::Directory(id)) => {
                let id = *id;
                self.links.remove(&link);
                self.directory_lost(id, reason, false);
            }
            Some(Owner::Direct(_)) => self.forget_direct(link, Some(reason)),
            None => {}
        }
        self.release_parked();
    }

    pub(super) fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: ChannelEvent) {
        self.out(Output::Event(event));
    }

    pub(super) fn complain(&mut self, cause: Cause, via: Source) {
        if let Some(unreported) = self.complaints.report(cause, self.now) {
            self.out(Output::Log(LogFact::Misbehaviour { cause, via, unreported }));
        }
    }

    fn new_link(&mut self) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        link
    }

    /// The directory of an id that we gave out ourselves.
    pub(super) fn directory(&mut self, id: DirectoryId) -> Option<&mut Directory> {
        self.directories.get_mut(usize::from(id.0))
    }

    /// Sends a line of which all parts are ours and known to fit.
    pub(super) fn send(&mut self, link: LinkId, kind: MessageType, text: impl Into<String>) {
        if let Ok(line) = Envelope::new(kind, text).encode() {
            self.out(Output::Send { link, line });
        }
    }

    // Directories.

    fn tick_directory(&mut self, id: DirectoryId) {
        let (now, awaits) = (self.now, self.config.await_location);
        let Some(directory) = self.directory(id) else { return };
        match &directory.stage {
            Stage::Waiting { until } if *until <= now && !awaits => self.dial_directory(id),
            Stage::Dialing { until, .. } if *until <= now => {
                self.give_up_directory(id, "no connection in time");
            }
            Stage::Handshaking { until, .. } if *until <= now => {
                self.give_up_directory(id, "no answer to the handshake in time");
            }
            Stage::Authenticating(authentication) if authentication.until <= now => {
                let proof_sent = authentication.proof_sent;
                if !proof_sent && self.config.nick_auth != NickAuthPolicy::RequireVerified {
                    self.directory_is_up(id, false);
                } else {
                    self.give_up_directory(id, "nick authentication did not end in time");
                }
            }
            Stage::Up(session) => {
                if session.deadline() <= now {
                    self.directory_is_silent(id);
                }
                self.flush_directory(id);
            }
            _ => {}
        }
    }

    fn dial_directory(&mut self, id: DirectoryId) {
        let until = self.now + self.config.timing.connect;
        let link = self.new_link();
        let allowed = {
            let Some(directory) = self.directories.get(usize::from(id.0)) else { return };
            self.config.may_dial(&directory.address.address)
        };
        let Some(directory) = self.directory(id) else { return };
        if !allowed {
            // Never dialled without Tor, whatever the configuration says.
            directory.stage = Stage::Stopped;
            let reason = "its address is not an onion service".to_owned();
            let retry_in = Duration::MAX;
            self.out(Output::Log(LogFact::DirectoryLost { directory: id, reason, retry_in }));
            return;
        }
        directory.stage = Stage::Dialing { link, until };
        let address = directory.address.address.clone();
        self.links.insert(link, Owner::Directory(id));
        self.out(Output::Dial { link, address, purpose: Purpose::Directory(id) });
    }

    fn greet_directory(&mut self, id: DirectoryId, link: LinkId) {
        let until = self.now + self.config.timing.directory_handshake;
        let Some(directory) = self.directories.get(usize::from(id.0)) else { return };
        let features = self.config.directory_features(&directory.address);
        let sent = PeerHandshake {
            nick: self.nick,
            location: self.config.location.clone(),
            network: self.config.network.clone(),
            features,
        }
        .to_line();
        self.send(link, MessageType::Handshake, sent.clone());
        if let Some(directory) = self.directory(id) {
            directory.stage = Stage::Handshaking { link, until, sent };
        }
    }

    /// The directory took us, and our nick if there was to be a proof.
    pub(super) fn directory_is_up(&mut self, id: DirectoryId, verified: bool) {
        let (now, want_peers) = (self.now, self.config.want_peers);
        let Some(directory) = self.directory(id) else { return };
        let stage = std::mem::replace(&mut directory.stage, Stage::Stopped);
        let Stage::Authenticating(authentication) = stage else {
            directory.stage = stage;
            return;
        };
        let greeting = authentication.greeting;
        directory.stage = Stage::Up(Session {
            link: authentication.link,
            features: greeting.features,
            nick: greeting.nick,
            since: now,
            heard: now,
            ping_sent: None,
            verified,
        });
        directory.clear();
        directory.peer_list_wanted = want_peers;
        let lists =
            want_peers && directory.session().is_some_and(|up| up.features.has(PEERLIST_FEATURES));
        let motd = greeting.motd;
        self.out(Output::Log(LogFact::DirectoryUp { directory: id, verified, motd }));
        self.event(ChannelEvent::Up(Source::Directory(id)));
        if lists {
            self.event(ChannelEvent::Lists(id));
        }
        self.flush_directory(id);
    }

    /// Nothing was heard for long: ping where that is understood, else take it for dead.
    fn directory_is_silent(&mut self, id: DirectoryId) {
        let now = self.now;
        let Some(Directory { stage: Stage::Up(session), .. }) = self.directory(id) else { return };
        let answers = session.features.has(joinery_proto::onion::features::PING);
        if answers && session.ping_sent.is_none() {
            session.ping_sent = Some(now);
            let link = session.link;
            self.send(link, MessageType::Ping, "");
        } else {
            self.give_up_directory(id, "nothing was heard for too long");
        }
    }

    /// Closes the connection of a directory that does not do its part.
    pub(super) fn give_up_directory(&mut self, id: DirectoryId, reason: &str) {
        self.close_directory(id, reason, false);
    }

    pub(super) fn close_directory(&mut self, id: DirectoryId, reason: &str, refused: bool) {
        if let Some(link) = self.directory(id).and_then(|directory| directory.link()) {
            self.links.remove(&link);
            self.out(Output::Close { link });
        }
        self.directory_lost(id, reason, refused);
        self.release_parked();
    }

    /// Closes without planning the next attempt.
    fn drop_directory_link(&mut self, id: DirectoryId) {
        let Some(directory) = self.directory(id) else { return };
        let (link, was_up) = (directory.link(), directory.session().is_some());
        if let Some(link) = link {
            self.links.remove(&link);
            self.out(Output::Close { link });
        }
        if was_up {
            self.peers.directory_lost(id);
            self.event(ChannelEvent::Down(Source::Directory(id)));
        }
    }

    fn directory_lost(&mut self, id: DirectoryId, reason: &str, refused: bool) {
        let (now, timing) = (self.now, self.config.timing);
        let Some(directory) = self.directories.get_mut(usize::from(id.0)) else { return };
        let was_up = directory.session().map(|session| session.since);
        // Only a connection that lasted wipes out failures: one that is reset right after each handshake
        // would otherwise be dialled without end.
        if was_up.is_some_and(|since| now.saturating_sub(since) >= timing.settled) {
            directory.failures = 0;
        }
        let retry_in = directory.pause(&timing, refused, &mut self.rng);
        directory.stage = Stage::Waiting { until: now.saturating_add(retry_in) };
        directory.clear();
        let reason = reason.chars().take(MAX_REASON).collect();
        self.out(Output::Log(LogFact::DirectoryLost { directory: id, reason, retry_in }));
        if was_up.is_some() {
            self.peers.directory_lost(id);
            self.event(ChannelEvent::Down(Source::Directory(id)));
        }
    }

    // Direct connections.

    /// Dials a peer for a direct connection, unless there is one, none is possible or it failed just now.
    /// Returns whether one is under way or there.
    pub(super) fn dial_peer(&mut self, nick: Nick) -> bool {
        if self.links.values().any(|owner| owner.is_for(&nick)) {
            return true;
        }
        let outbound =
            |owner: &Owner| matches!(owner, Owner::Direct(direct) if !direct.is_inbound());
        let room = self.links.values().filter(|owner| outbound(owner)).count() < MAX_OUTBOUND;
        if !room || !self.config.dial_peers || self.stopped {
            return false;
        }
        let Some(peer) = self.peers.get(&nick) else { return false };
        let Some(address) = peer.location.clone() else { return false };
        if peer.dial_after > self.now || !self.config.may_dial(&address) {
            return false;
        }
        let until = self.now + self.config.timing.connect;
        let link = self.new_link();
        let direction = Direction::Outbound { nick, address: address.clone() };
        let direct = Direct::new(direction, Progress::Dialing { until }, self.now);
        self.links.insert(link, Owner::Direct(direct));
        self.out(Output::Dial { link, address, purpose: Purpose::Peer(nick) });
        true
    }

    /// Our own handshake, which is the client's in both directions.
    pub(super) fn greet_peer(&mut self, link: LinkId) {
        let text = PeerHandshake {
            nick: self.nick,
            location: self.config.location.clone(),
            network: self.config.network.clone(),
            features: self.config.direct_features(),
        }
        .to_line();
        self.send(link, MessageType::Handshake, text);
    }

    fn direct_is_late(&mut self, link: LinkId) {
        let Some(Owner::Direct(direct)) = self.links.get(&link) else { return };
        let reason = match direct.progress {
            Progress::Dialing { .. } => "no connection in time",
            Progress::Handshaking { .. } => {
                self.complain(Cause::BadHandshake, Source::Direct(link));
                "no handshake in time"
            }
            Progress::Ready if direct.proof_due.is_some_and(|due| due <= self.now) => {
                "it did not prove its nick"
            }
            Progress::Ready => "idle",
        };
        self.close_direct(link, Some(reason));
    }

    /// Closes a direct connection. A reason says that the peer is to blame.
    pub(super) fn close_direct(&mut self, link: LinkId, reason: Option<&str>) {
        self.forget_direct(link, reason);
        self.out(Output::Close { link });
    }

    fn forget_direct(&mut self, link: LinkId, reason: Option<&str>) {
        let Some(Owner::Direct(direct)) = self.links.remove(&link) else { return };
        let now = self.now;
        if let Some(nick) = direct.bound {
            self.event(ChannelEvent::Left { nick, via: Source::Direct(link) });
            self.peers.update(&nick, |peer| {
                peer.direct = peer.direct.filter(|direct| *direct != link);
            });
        }
        let Direction::Outbound { nick, address } = direct.direction else { return };
        // Without a proof the address was of no use; with one, only the connection ended.
        let pause = if direct.proof_due.is_some() { IMPOSTOR_AFTER } else { REDIAL_AFTER };
        self.peers.update(&nick, |peer| {
            peer.direct = peer.direct.filter(|direct| *direct != link);
            if direct.bound.is_none() && peer.location.as_ref() == Some(&address) {
                peer.dial_after = now.saturating_add(pause);
            }
        });
        if let (Some(reason), None) = (reason, direct.bound) {
            let reason = reason.chars().take(MAX_REASON).collect();
            self.out(Output::Log(LogFact::PeerUnreachable { nick, reason }));
        }
    }
}

/// Number of a directory by its place; there are at most [`MAX_DIRECTORIES`].
pub(super) fn directory_id(index: usize) -> Option<DirectoryId> {
    u16::try_from(index).ok().map(DirectoryId)
}
