//! One connection and what is known of who is behind it.

use std::time::Duration;

use bdk_wallet::bitcoin::hashes::sha256;
use joinery_proto::nick::Nick;
use joinery_proto::onion::features::{self, Features};
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::location::Location;
use joinery_proto::onion::nick_auth::Challenge;
use joinery_proto::onion::onion_name;

use super::frame::{Frame, Load};
use super::limits::{DIRECTED_ALWAYS, DIRECTED_PER_PEER, LINES, QUEUE, QUEUE_DIRECTED, WINDOW};
use super::list::Listing;
use crate::budget::Budget;
use crate::event::LinkId;

/// A connection. Boxed parts exist only from the handshake on.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: LinkId,
    /// When its last whole line came.
    pub(super) heard_at: Duration,
    /// Frames that were sent and are not yet written.
    pub(super) queue: Load,
    /// Lines of any kind.
    pub(super) lines: Budget,
    /// Since the handshake.
    pub(super) member: Option<Box<Member>>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is on its way.
    Sent,
    /// There is too much for this peer alone already.
    Dropped,
    /// The peer does not keep up with what everybody gets.
    Behind,
}

impl Peer {
    pub(super) fn new(link: LinkId, now: Duration) -> Self {
        let (per_second, burst) = LINES;
        Self {
            link,
            heard_at: now,
            queue: Load::default(),
            lines: Budget::new(per_second, burst),
            member: None,
        }
    }

    /// Accounts for a frame that is to be sent. `room` says how many bytes all directed frames may still take.
    pub(super) fn push(&mut self, frame: &Frame, room: usize) -> Pushed {
        let queue = &mut self.queue;
        if frame.is_directed() {
            let length = frame.bytes().len();
            let allowed = if length <= room { DIRECTED_PER_PEER } else { DIRECTED_ALWAYS };
            let full = queue.directed_bytes.saturating_add(length) > allowed;
            // One may always wait, so that others who read nothing cannot silence this peer.
            if queue.directed >= QUEUE_DIRECTED || (full && queue.directed > 0) {
                return Pushed::Dropped;
            }
        } else if queue.frames.saturating_sub(queue.directed) >= QUEUE {
            return Pushed::Behind;
        }
        queue.add(frame);
        Pushed::Sent
    }

    /// The member, when it is registered: others see it and it hears others.
    pub(super) fn registered(&self) -> Option<&Member> {
        self.member.as_deref().filter(|member| member.registered)
    }
}

/// Somebody who shook hands.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) nick: Nick,
    /// `host:port`; `None` when it serves nothing.
    pub(super) address: Option<Box<str>>,
    /// Key of its onion name: two members never have the same.
    pub(super) onion: Option<[u8; 32]>,
    /// `F:a+b` of peer lists.
    features: Option<Box<str>>,
    /// Understands `F:`.
    pub(super) reads_features: bool,
    pub(super) answers_pings: bool,
    /// Holds its nick. A newcomer whose nick somebody holds does not until it has proved that it is the owner.
    pub(super) registered: bool,
    /// Has announced an offer.
    pub(super) offers: bool,
    /// Has been asked to prove its nick.
    pub(super) proof: Option<Box<Proving>>,
    /// Was asked for a sign of life.
    pub(super) probed_at: Option<Duration>,
    /// A peer list that is being sent.
    pub(super) listing: Option<Listing>,
    /// To whom its location was told last.
    pub(super) told: Option<LinkId>,
    pub(super) public: Window,
    pub(super) orderbook: Window,
    pub(super) lists: Window,
    pub(super) pings: Window,
}

/// What a proof is checked against.
#[derive(Debug)]
pub(super) struct Proving {
    pub(super) challenge: Challenge,
    pub(super) handshake: sha256::Hash,
}

impl Member {
    pub(super) fn new(handshake: &PeerHandshake) -> Self {
        let (address, onion) = match &handshake.location {
            Location::NotServing => (None, None),
            Location::Address(address) => {
                (Some(address.to_string().into_boxed_str()), onion_name::decode(address.host()))
            }
        };
        Self {
            nick: handshake.nick,
            address,
            onion,
            features: handshake.features.peerlist_field().map(String::into_boxed_str),
            reads_features: has(&handshake.features, features::PEERLIST_FEATURES),
            answers_pings: has(&handshake.features, features::PING),
            registered: false,
            offers: false,
            proof: None,
            probed_at: None,
            listing: None,
            told: None,
            public: Window::default(),
            orderbook: Window::default(),
            lists: Window::default(),
            pings: Window::default(),
        }
    }

    /// Whether others look for it: it can be dialled or has something to offer.
    pub(super) const fn is_maker(&self) -> bool {
        self.address.is_some() || self.offers
    }

    /// Its entry in peer lists.
    pub(super) fn entry(&self, with_features: bool) -> String {
        let location = self.address.as_deref().unwrap_or(NOT_SERVING);
        match self.features.as_deref().filter(|_| with_features) {
            Some(features) => format!("{};{location};{features}", self.nick),
            None => format!("{};{location}", self.nick),
        }
    }

    /// Its entry when it has left.
    pub(super) fn departure(&self) -> String {
        format!("{};D", self.entry(false))
    }
}

/// Location of those who serve nothing.
const NOT_SERVING: &str = joinery_proto::onion::location::NOT_SERVING;

fn has(features: &Features, name: &str) -> bool {
    features.has(name)
}

/// Counts what may happen a few times in a minute.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    since: Duration,
    count: u16,
}

impl Window {
    /// Counts one; `false` when that is more than `limit` in this window.
    pub(super) fn take(&mut self, limit: u16, now: Duration) -> bool {
        if self.count == 0 || now.saturating_sub(self.since) >= WINDOW {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= limit
    }
}
