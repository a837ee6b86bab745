//! What message channels tell the roles.

use joinery_proto::nick::Nick;

/// A directory of our configuration, by its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub u16);

/// A connection, numbered by whoever opens connections; a number is never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// The way on which a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Relayed by a directory.
    Directory(DirectoryId),
    /// Straight from the peer.
    Direct(LinkId),
    /// An IRC network of our configuration, by its place there.
    Irc(u16),
}

/// News of a message channel, in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Messages can be sent to and received from everybody there.
    Up(Source),
    /// The way is lost: what it said of peers' presence counts no more.
    Down(Source),
    /// A public message. The sender is a claim: reference directories do not check it.
    Public {
        /// Claimed sender.
        from: Nick,
        /// Way on which it came.
        via: Source,
        /// `command fields…`, for [`joinery_proto::public_message::parse`].
        text: String,
    },
    /// A private message to us whose signature was verified against the sender's nick.
    Private {
        /// Sender, proved.
        from: Nick,
        /// Way on which it came.
        via: Source,
        /// `command payload pubkey signature`, verified; for
        /// [`joinery_proto::private_message::UnverifiedMessage::parse`].
        text: String,
    },
    /// Something showed that a nick is there.
    Seen {
        /// Who.
        nick: Nick,
        /// Where.
        via: Source,
    },
    /// This directory is asked who is there, and has said that it answers such questions.
    Lists(DirectoryId),
    /// A directory's peer list names a place where this nick serves. It is on every list then that leaves nobody out.
    Serves {
        /// Who.
        nick: Nick,
    },
    /// A nick is gone from there. It may still be elsewhere.
    Left {
        /// Who.
        nick: Nick,
        /// Where.
        via: Source,
    },
}
