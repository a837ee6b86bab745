//! What the machine wants done.

use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::onion::location::PeerAddress;

use crate::complaints::Cause;
use crate::event::{ChannelEvent, DirectoryId, LinkId, Source};

/// What a connection is for. Each gets its own Tor circuit (`spec/protocol.md` 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To a directory.
    Directory(DirectoryId),
    /// Straight to a peer.
    Peer(Nick),
}

/// One thing to do or to know, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// Its number from now on.
        link: LinkId,
        /// Where to; names are never looked up on this side of the proxy.
        address: PeerAddress,
        /// What for.
        purpose: Purpose,
    },
    /// Write a line.
    Send {
        /// On which link.
        link: LinkId,
        /// The line with its end, at most 40 000 bytes.
        line: String,
    },
    /// Close a link. Nothing is to be reported of it any more.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Read nothing from a link for a while: it brings more than it may.
    Pause {
        /// Which.
        link: LinkId,
        /// Until this time of the caller's clock.
        until: Duration,
    },
    /// News for the roles.
    Event(ChannelEvent),
    /// Something for the log.
    Log(LogFact),
}

/// Facts for the log. Those that strangers can cause at will come at most once a minute each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFact {
    /// A directory took us.
    DirectoryUp {
        /// Which.
        directory: DirectoryId,
        /// Whether it verified our nick.
        verified: bool,
        /// Its message of the day; untrusted, printable, at most 1 024 characters.
        motd: String,
    },
    /// A directory is lost or could not be reached.
    DirectoryLost {
        /// Which.
        directory: DirectoryId,
        /// Why; at most 256 characters.
        reason: String,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// A direct connection that we dialled did not come about or was of no use.
    PeerUnreachable {
        /// Whom we wanted.
        nick: Nick,
        /// Why; at most 256 characters.
        reason: String,
    },
    /// A private message found no way any more.
    Undeliverable {
        /// Whom it was for.
        nick: Nick,
    },
    /// A foreign node did what it should not.
    Misbehaviour {
        /// What.
        cause: Cause,
        /// On which way this time.
        via: Source,
        /// How often it happened since the last such line.
        unreported: u64,
    },
}
