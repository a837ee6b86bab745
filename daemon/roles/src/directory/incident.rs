//! What went wrong with a peer, for counters and for the log.

use std::fmt;
use std::time::Duration;

/// How often one kind of incident is logged.
const QUIET: Duration = Duration::from_secs(60);

macro_rules! incidents {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a peer was closed or a line dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Incident {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Incident {
            /// Every kind, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A stable name for logs and metrics: lower case, words joined by `_`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

incidents! {
    /// The peer closed its connection, or the network did.
    Gone => "gone",
    /// The peer announced that it goes (type 801).
    Goodbye => "goodbye",
    /// There is no room for another connection.
    Full => "full",
    /// No handshake in time.
    HandshakeTimeout => "handshake_timeout",
    /// Something else came before the handshake.
    NoHandshake => "no_handshake",
    /// A line that is no message, or an empty one.
    MalformedLine => "malformed_line",
    /// A line longer than any peer sends.
    LineTooLong => "line_too_long",
    /// A line that was begun and not ended in time.
    LineStalled => "line_stalled",
    /// The peer takes nothing of what is sent to it.
    WriteStalled => "write_stalled",
    /// The peer is too far behind the broadcasts.
    SlowReader => "slow_reader",
    /// A handshake that is not one, or with oversized parts.
    MalformedHandshake => "malformed_handshake",
    /// A handshake of another application, version or network, or of a directory.
    ForeignHandshake => "foreign_handshake",
    /// The location is none, or its onion name has a wrong checksum.
    BadLocation => "bad_location",
    /// Not a nick.
    BadNick => "bad_nick",
    /// Somebody else is here under this nick.
    NickTaken => "nick_taken",
    /// Somebody else is here with this onion name.
    OnionTaken => "onion_taken",
    /// A message under somebody else's nick.
    SpoofedSender => "spoofed_sender",
    /// Too many public messages.
    PublicFlood => "public_flood",
    /// Too many requests for the order book.
    OrderbookFlood => "orderbook_flood",
    /// Too many requests for the peer list.
    PeerListFlood => "peer_list_flood",
    /// Too many pings.
    PingFlood => "ping_flood",
    /// A message of the nick's authentication that nobody asked for.
    ProofUnasked => "proof_unasked",
    /// The proof of a nick is wrong.
    ProofFailed => "proof_failed",
    /// No proof of the nick in time.
    ProofTimeout => "proof_timeout",
    /// The nick's owner proved itself on another connection.
    Displaced => "displaced",
    /// Silent for too long.
    Idle => "idle",
    /// No answer to a ping.
    NoPong => "no_pong",
    /// Line dropped: too many lines.
    LineFlood => "line_flood",
    /// Line dropped: not `from!to!text`, or public and private contradict each other.
    MalformedMessage => "malformed_message",
    /// Line dropped: longer than what is passed on.
    MessageTooLong => "message_too_long",
    /// Line dropped: the sender has yet to prove its nick.
    NotAdmitted => "not_admitted",
    /// Line dropped: too much waits for the recipient, or for all recipients together.
    QueueFull => "queue_full",
    /// Line dropped: a type that clients do not send, among them the internal ones of the reference.
    UnexpectedType => "unexpected_type",
}

impl Incident {
    /// Whether this happens to well-behaved peers too and is only counted.
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        matches!(self, Self::Gone | Self::Goodbye | Self::Displaced)
    }

    /// Its place in [`Self::ALL`].
    const fn place(self) -> usize {
        // The discriminants of a field-less enum count from 0.
        self as usize
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something for the log: how often a kind of incident happened since it was last logged. It carries no text from
/// a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub incident: Incident,
    /// How often, from 1.
    pub count: u64,
}

/// Counts incidents and lets each kind through to the log once a minute.
#[derive(Debug)]
pub(super) struct Incidents {
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    total: u64,
    unlogged: u64,
    logged_at: Option<Duration>,
}

impl Kind {
    fn fact(&mut self, incident: Incident, now: Duration) -> Option<Fact> {
        let quiet = self.logged_at.is_some_and(|at| now.saturating_sub(at) < QUIET);
        if self.unlogged == 0 || quiet || incident.is_ordinary() {
            return None;
        }
        self.logged_at = Some(now);
        Some(Fact { incident, count: std::mem::take(&mut self.unlogged) })
    }
}

impl Incidents {
    pub(super) fn new() -> Self {
        Self { kinds: vec![Kind::default(); Incident::ALL.len()] }
    }

    /// Counts one; says whether it is to be logged now.
    pub(super) fn count(&mut self, incident: Incident, now: Duration) -> Option<Fact> {
        let kind = self.kinds.get_mut(incident.place())?;
        kind.total = kind.total.saturating_add(1);
        kind.unlogged = kind.unlogged.saturating_add(1);
        kind.fact(incident, now)
    }

    /// What has waited long enough.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Fact> {
        let kinds = Incident::ALL.iter().zip(&mut self.kinds);
        kinds.filter_map(|(incident, kind)| kind.fact(*incident, now)).collect()
    }

    /// How often it happened in all.
    pub(super) fn total(&self, incident: Incident) -> u64 {
        self.kinds.get(incident.place()).map_or(0, |kind| kind.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_place_and_name() {
        for (place, incident) in Incident::ALL.iter().enumerate() {
            assert_eq!(incident.place(), place);
        }
        let names: std::collections::HashSet<_> = Incident::ALL.iter().map(|i| i.name()).collect();
        assert_eq!(names.len(), Incident::ALL.len());
    }

    #[test]
    fn a_million_incidents_are_one_line_a_minute_and_none_is_lost() {
        let mut incidents = Incidents::new();
        let mut logged = Vec::new();
        for number in 0..1_000_000_u64 {
            // 10 000 a second.
            let now = Duration::from_micros(number * 100);
            logged.extend(incidents.count(Incident::SpoofedSender, now));
            logged.extend(incidents.due(now));
        }
        assert_eq!(logged.len(), 2, "at 0 s and at 60 s");
        logged.extend(incidents.due(Duration::from_secs(200)));
        assert_eq!(logged.iter().map(|fact| fact.count).sum::<u64>(), 1_000_000);
        assert_eq!(incidents.total(Incident::SpoofedSender), 1_000_000);
        assert!(incidents.due(Duration::from_secs(300)).is_empty());
    }
}
