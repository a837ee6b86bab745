//! What the machine wants done.

use std::time::Duration;

use super::config::IrcServer;
use crate::complaints::Cause;
use crate::event::{ChannelEvent, LinkId, Source};

/// One thing to do or to know, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// Its number from now on.
        link: LinkId,
        /// The server's place in the configuration: each gets its own Tor circuit.
        server: u16,
        /// Where to and how; names are never looked up on this side of the proxy.
        address: IrcServer,
    },
    /// Write a line.
    Send {
        /// On which link.
        link: LinkId,
        /// The line with its end, at most 512 bytes.
        line: String,
    },
    /// Close a link once what was sent is written. Nothing is to be reported of it any more.
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
    /// We are in the channel of a server.
    ServerUp {
        /// Which.
        server: u16,
        /// What signatures cover there; printable.
        hostid: String,
    },
    /// A server is lost or could not be reached.
    ServerLost {
        /// Which.
        server: u16,
        /// Why; at most 256 characters, some of them a server's: not fit for a terminal as they are.
        reason: String,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// Our nick is held by somebody else there, most likely by our own last connection.
    NickInUse {
        /// Where.
        server: u16,
    },
    /// Somebody did what he should not.
    Misbehaviour {
        /// What.
        cause: Cause,
        /// On which way this time.
        via: Source,
        /// How often it happened since the last such line.
        unreported: u64,
    },
}
