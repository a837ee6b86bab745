//! What we say, and on which way.

use std::time::Duration;

use joinery_proto::line::{Recipient, RoutedLine};
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, EnvelopeError, MessageType};
use joinery_proto::onion::features::PEERLIST_FEATURES;
use joinery_proto::private_message::{ONION_HOSTID, PrivateWord};
use rand::seq::IndexedRandom;

use super::direct::PROOF_WAIT;
use super::directory::{PEER_LIST_INTERVAL, Session};
use super::machine::{OnionChannel, Owner, directory_id};
use super::output::{LogFact, Output};
use super::peers::bit;
use crate::event::{DirectoryId, LinkId, Source};

/// Most messages that wait for direct connections.
const MAX_PARKED: usize = 64;

/// Where a public message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// To all directories that are up.
    All,
    /// To one of them: after it came back a maker announces its offers there only.
    Directory(DirectoryId),
}

/// Why a private message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The recipient is on no directory that is up and not directly connected.
    #[error("there is no way to {nick}")]
    NoRoute {
        /// Whom it was for.
        nick: Nick,
    },
    /// It does not fit a line.
    #[error(transparent)]
    Line(#[from] EnvelopeError),
}

/// A message that waits for a direct connection, or to hear where its recipient is.
#[derive(Debug)]
pub(super) struct Parked {
    to: Nick,
    line: String,
    prefer: Option<Source>,
    /// A direct connection was tried.
    dialled: bool,
    pub(super) until: Duration,
}

impl OnionChannel {
    /// Sends a public message: `command fields…` without a leading `!`. It waits for the budget of each
    /// directory (20 a minute, 2 of them `orderbook`), which no honest use exceeds for long.
    ///
    /// # Errors
    /// It does not fit a line.
    pub fn announce(
        &mut self,
        text: &str,
        to: Audience,
        now: Duration,
    ) -> Result<(), EnvelopeError> {
        self.now = self.now.max(now);
        // The same line goes to all: it fits everywhere or nowhere.
        self.public_line(text).encode()?;
        for index in 0..self.directories.len() {
            let Some(id) = directory_id(index) else { continue };
            let wanted = to == Audience::All || to == Audience::Directory(id);
            let Some(directory) = self.directory(id).filter(|_| wanted) else { continue };
            if directory.session().is_some() {
                directory.enqueue(text.to_owned());
                self.flush_directory(id);
            }
        }
        Ok(())
    }

    /// Asks all makers for their offers, on every directory that is up. A request that the budget holds back
    /// is sent later; several become one.
    pub fn request_orderbook(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for index in 0..self.directories.len() {
            let Some(id) = directory_id(index) else { continue };
            let Some(directory) = self.directory(id) else { continue };
            if directory.session().is_some() {
                directory.want_orderbook();
                self.flush_directory(id);
            }
        }
    }

    /// Asks for peer lists where they are given. One that was asked for within the last minute is new enough.
    pub fn request_peers(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for index in 0..self.directories.len() {
            let Some(id) = directory_id(index) else { continue };
            let Some(directory) = self.directory(id) else { continue };
            let asked = directory.peer_list_at;
            let fresh = asked.is_some_and(|at| now < at.saturating_add(PEER_LIST_INTERVAL));
            if directory.session().is_some() && !fresh {
                directory.peer_list_wanted = true;
                self.flush_directory(id);
            }
        }
    }

    /// Dials a peer for a direct connection ahead of the first message to it. Returns whether one is there
    /// or under way.
    pub fn connect_peer(&mut self, nick: Nick, now: Duration) -> bool {
        self.now = self.now.max(now);
        self.dial_peer(nick)
    }

    /// Signs and sends a private message over exactly one way: a direct connection, else `prefer` (where the
    /// message that this one answers came from), else where the peer's last verified message came from, else
    /// one directory that has seen it.
    ///
    /// A `!fill` to a maker whose address is known waits up to five seconds for a direct connection, so that
    /// directories need not see it. One to a maker that no directory has shown yet waits as long for a peer list:
    /// a new channel knows nobody, and its lists come a moment after it is up.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn send_private(
        &mut self,
        to: Nick,
        word: PrivateWord,
        payload: &str,
        prefer: Option<Source>,
        now: Duration,
    ) -> Result<(), SendError> {
        self.now = self.now.max(now);
        let text = self.config.key.sign_message(word, payload, ONION_HOSTID);
        let line = RoutedLine { from: self.nick, to: Recipient::Nick(to), text: &text };
        let line = Envelope::new(MessageType::Private, line.to_string()).encode()?;
        let direct = self.direct_link(&to);
        let on_the_way = direct.is_none() && self.dial_peer(to);
        let waits = on_the_way || (direct.is_none() && self.may_be_shown(&to));
        if waits && word == PrivateWord::Fill && self.parked.len() < MAX_PARKED {
            let until = self.now + self.config.timing.direct_wait;
            self.parked.push_back(Parked { to, line, prefer, dialled: on_the_way, until });
            return Ok(());
        }
        // What waits for this peer must not be overtaken.
        self.release_parked_for(&to, true);
        let route = self.route(&to, prefer).ok_or(SendError::NoRoute { nick: to })?;
        self.send_on(route, &to, line);
        Ok(())
    }

    /// Nobody has said where the nick is, and somebody may yet: a directory that lists its peers, or one that is not
    /// up. Reference directories never list anybody.
    fn may_be_shown(&self, nick: &Nick) -> bool {
        let known = self.peers.get(nick).is_some_and(|peer| peer.present | peer.before != 0);
        let lists = |session: &Session| session.features.has(PEERLIST_FEATURES);
        !known && self.directories.iter().any(|directory| directory.session().is_none_or(lists))
    }

    fn public_line(&self, text: &str) -> Envelope {
        let line = RoutedLine { from: self.nick, to: Recipient::Public, text };
        Envelope::new(MessageType::Public, line.to_string())
    }

    /// Sends what waits and may go to a directory.
    pub(super) fn flush_directory(&mut self, id: DirectoryId) {
        let now = self.now;
        let Some(directory) = self.directory(id) else { return };
        let Some(session) = directory.session() else { return };
        let (link, lists) = (session.link, session.features.has(PEERLIST_FEATURES));
        let due = directory.peer_list_at.is_none_or(|at| now >= at + PEER_LIST_INTERVAL);
        // Where it was not announced a request is never answered.
        if directory.peer_list_wanted && (due || !lists) {
            directory.peer_list_wanted = false;
            if lists {
                directory.peer_list_at = Some(now);
                self.send(link, MessageType::GetPeerList, "");
            }
        }
        while let Some(text) = self.directory(id).and_then(|d| d.next_public(now)) {
            let Envelope { kind, line } = self.public_line(&text);
            self.send(link, kind, line);
        }
    }

    /// A direct connection that serves for a nick: the one on which it spoke last, else the newest.
    pub(super) fn direct_link(&self, nick: &Nick) -> Option<LinkId> {
        let serves = |owner: &Owner| matches!(owner, Owner::Direct(direct) if direct.serves(nick));
        let last = self.peers.get(nick).and_then(|peer| peer.route);
        if let Some(Source::Direct(link)) = last
            && self.links.get(&link).is_some_and(serves)
        {
            return Some(link);
        }
        self.links.iter().rev().find_map(|(link, owner)| serves(owner).then_some(*link))
    }

    fn directory_link(&self, id: DirectoryId) -> Option<LinkId> {
        Some(self.directories.get(usize::from(id.0))?.session()?.link)
    }

    /// A way that a message named, as far as it still leads to the nick.
    fn usable(&self, source: Source, nick: &Nick) -> Option<Source> {
        match source {
            Source::Directory(id) => self.directory_link(id).map(|_| source),
            // A watcher that asked on its own connection is answered there: offers are no secret.
            Source::Direct(link) => match self.links.get(&link) {
                Some(Owner::Direct(direct)) => {
                    let its = direct.serves(nick)
                        || (direct.bound.is_none() && direct.claimed.as_ref() == Some(nick));
                    its.then_some(source)
                }
                _ => None,
            },
            Source::Irc(_) => None,
        }
    }

    /// The one way for a message (`spec/protocol.md` 4.9).
    fn route(&mut self, nick: &Nick, prefer: Option<Source>) -> Option<Source> {
        if let Some(link) = self.direct_link(nick) {
            return Some(Source::Direct(link));
        }
        if let Some(source) = prefer.and_then(|source| self.usable(source, nick)) {
            return Some(source);
        }
        let peer = self.peers.get(nick)?;
        let (present, before, last) = (peer.present, peer.before, peer.route);
        let up = |mask: u64| {
            let ids = (0..self.directories.len()).filter_map(directory_id);
            ids.filter(|id| mask & bit(*id) != 0 && self.directory_link(*id).is_some())
                .collect::<Vec<_>>()
        };
        if let Some(Source::Directory(id)) = last
            && up(present).contains(&id)
        {
            return last;
        }
        // Reference directories never list peers: after a reconnection the place where it was is the best
        // guess.
        let mut choice = up(present);
        if choice.is_empty() {
            choice = up(before);
        }
        choice.choose(&mut self.rng).copied().map(Source::Directory)
    }

    fn send_on(&mut self, route: Source, to: &Nick, line: String) {
        let link = match route {
            Source::Directory(id) => self.directory_link(id),
            Source::Direct(link) => Some(link),
            Source::Irc(_) => None,
        };
        // The route was found just now.
        let Some(link) = link else { return };
        let now = self.now;
        if let Some(Owner::Direct(direct)) = self.links.get_mut(&link)
            && direct.bound.as_ref() != Some(to)
            && !direct.is_inbound()
        {
            direct.proof_due.get_or_insert_with(|| now.saturating_add(PROOF_WAIT));
        }
        self.out(Output::Send { link, line });
    }

    /// Sends parked messages whose direct connection is there, will not come, or took too long.
    pub(super) fn release_parked(&mut self) {
        let waiting: Vec<Nick> = self.parked.iter().map(|parked| parked.to).collect();
        for nick in waiting {
            self.release_parked_for(&nick, false);
        }
    }

    fn release_parked_for(&mut self, nick: &Nick, at_once: bool) {
        let mut rest = std::mem::take(&mut self.parked);
        let waiting = rest.iter_mut().filter(|parked| parked.to == *nick && !parked.dialled);
        for parked in waiting {
            // Where it is may be known by now.
            parked.dialled = self.direct_link(nick).is_some() || self.dial_peer(*nick);
        }
        let under_way = self.links.values().any(|owner| owner.is_for(nick));
        let unknown = self.may_be_shown(nick);
        let ready = at_once || self.direct_link(nick).is_some() || !(under_way || unknown);
        let now = self.now;
        let mut released = Vec::new();
        rest.retain_mut(|parked| {
            let release = parked.to == *nick && (ready || parked.until <= now);
            if release {
                released.push((std::mem::take(&mut parked.line), parked.prefer));
            }
            !release
        });
        self.parked = rest;
        for (line, prefer) in released {
            match self.route(nick, prefer) {
                Some(route) => self.send_on(route, nick, line),
                None => self.out(Output::Log(LogFact::Undeliverable { nick: *nick })),
            }
        }
    }
}
