//! Direct connections to peers (`spec/protocol.md` 4.6), both ways.

use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::onion::location::PeerAddress;

use crate::budget::Budget;

/// Most connections that peers have opened to us.
pub(super) const MAX_INBOUND: usize = 64;
/// Most connections that we have opened to peers.
pub(super) const MAX_OUTBOUND: usize = 64;
/// Time for a handshake after a connection was opened.
pub(super) const HANDSHAKE_WAIT: Duration = Duration::from_secs(15);
/// Silence after which a direct connection is closed.
pub(super) const IDLE: Duration = Duration::from_secs(600);
/// Lines that a direct connection may bring.
const LINES_PER_SECOND: f64 = 10.0;
const LINES_BURST: u32 = 100;
/// Messages that prove nothing, after which a direct connection is closed. Honest peers send none.
pub(super) const MAX_STRIKES: u8 = 10;
/// How long a connection that we dialled may leave our message without one that proves its nick.
pub(super) const PROOF_WAIT: Duration = Duration::from_secs(60);
/// Pause before an address that failed is dialled again.
pub(super) const REDIAL_AFTER: Duration = Duration::from_secs(60);
/// Pause after a connection that answered in a nick's name and never proved it.
pub(super) const IMPOSTOR_AFTER: Duration = Duration::from_secs(1_800);

/// Who opened the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Direction {
    /// We did, for this nick.
    Outbound { nick: Nick, address: PeerAddress },
    /// A peer did.
    Inbound,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Waiting for the driver.
    Dialing { until: Duration },
    /// Open; the peer has not introduced itself.
    Handshaking { until: Duration },
    /// In use.
    Ready,
}

/// One direct connection.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) direction: Direction,
    pub(super) progress: Progress,
    /// The nick of its handshake: a hint.
    pub(super) claimed: Option<Nick>,
    /// The nick that its first verified message proved. Nobody else may speak on it.
    pub(super) bound: Option<Nick>,
    pub(super) heard: Duration,
    pub(super) lines: Budget,
    pub(super) strikes: u8,
    /// Until when it must have proved its nick.
    pub(super) proof_due: Option<Duration>,
}

impl Direct {
    pub(super) fn new(direction: Direction, progress: Progress, now: Duration) -> Self {
        Self {
            direction,
            progress,
            claimed: None,
            bound: None,
            heard: now,
            lines: Budget::new(LINES_PER_SECOND, LINES_BURST),
            strikes: 0,
            proof_due: None,
        }
    }

    pub(super) fn is_inbound(&self) -> bool {
        self.direction == Direction::Inbound
    }

    /// Whether private messages to `nick` may travel here. A connection that we dialled and that answers in
    /// the nick's name will do, as for reference takers: it learns what the directory would have learned, and
    /// it has [`PROOF_WAIT`] to prove itself. One that somebody opened to us must have proved it before:
    /// everybody can claim a name.
    pub(super) fn serves(&self, nick: &Nick) -> bool {
        if self.progress != Progress::Ready {
            return false;
        }
        match (&self.bound, &self.direction) {
            (Some(bound), _) => bound == nick,
            (None, Direction::Outbound { nick: wanted, .. }) => {
                wanted == nick && self.claimed.as_ref() == Some(nick)
            }
            (None, Direction::Inbound) => false,
        }
    }

    /// Whether it was dialled for this nick or is its own.
    pub(super) fn is_for(&self, nick: &Nick) -> bool {
        match &self.direction {
            Direction::Outbound { nick: wanted, .. } => wanted == nick,
            Direction::Inbound => self.bound.as_ref() == Some(nick),
        }
    }

    /// The only nick that may speak here, and whether that is certain: an inbound connection that has proved
    /// nothing has only a name that it claims.
    pub(super) fn its_nick(&self) -> (Option<Nick>, bool) {
        match (&self.bound, &self.direction) {
            (Some(bound), _) => (Some(*bound), true),
            (None, Direction::Outbound { nick, .. }) => (Some(*nick), true),
            (None, Direction::Inbound) => (self.claimed, false),
        }
    }

    pub(super) fn wake(&self) -> Duration {
        match self.progress {
            Progress::Dialing { until } | Progress::Handshaking { until } => until,
            Progress::Ready => {
                let idle = self.heard.saturating_add(IDLE);
                self.proof_due.map_or(idle, |due| due.min(idle))
            }
        }
    }
}
