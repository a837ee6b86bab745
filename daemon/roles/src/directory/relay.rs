//! What members send: messages for others, requests, signs of life (`spec/protocol.md` 4.4, 4.7, 4.8, 4.10).

use std::time::Duration;

use joinery_proto::line::{COMMAND_PREFIX, Recipient, RoutedLine};
use joinery_proto::offer::OrderType;
use joinery_proto::onion::envelope::{Envelope, MessageType};

use super::Directory;
use super::frame::Frame;
use super::incident::Incident;
use super::limits::{
    MAX_PUBLIC, ORDERBOOK_PER_WINDOW, PEER_LIST_PER_WINDOW, PING_PER_WINDOW, PUBLIC_PER_WINDOW,
};
use super::list::Listing;

impl Directory {
    /// A decoded line of anybody.
    pub(super) fn message(&mut self, place: usize, envelope: Envelope, now: Duration) {
        let Envelope { kind, line } = envelope;
        let Some(member) = self.peers.member_mut(place) else {
            return match kind {
                MessageType::Handshake => self.handshake(place, &line, now),
                _ => self.close(place, Incident::NoHandshake, now),
            };
        };
        // Anything that was heard is a sign of life.
        member.probed_at = None;
        match kind {
            MessageType::Public => self.public(place, line, now),
            MessageType::Private => self.private(place, line, now),
            MessageType::GetPeerList => self.list(place, now),
            MessageType::Ping => self.ping(place, now),
            MessageType::Pong => {}
            MessageType::NickAuthProof => self.prove(place, &line, now),
            MessageType::NickAuthChallenge | MessageType::NickAuthResult => {
                self.close(place, Incident::ProofUnasked, now);
            }
            MessageType::Disconnect => self.close(place, Incident::Goodbye, now),
            // The reference acts on its internal numbers when a stranger sends them.
            MessageType::PeerList
            | MessageType::Handshake
            | MessageType::DirectoryHandshake
            | MessageType::Unknown(_) => self.count(Incident::UnexpectedType, now),
        }
    }

    fn public(&mut self, place: usize, line: String, now: Duration) {
        let routed = RoutedLine::parse(&line).ok();
        let asks =
            routed.is_some_and(|routed| commands(routed.text).any(|word| word == "orderbook"));
        let Some(member) = self.peers.member_mut(place) else { return };
        // Lines that are no message count, too.
        if asks && !member.orderbook.take(ORDERBOOK_PER_WINDOW, now) {
            return self.close(place, Incident::OrderbookFlood, now);
        }
        if !asks && !member.public.take(PUBLIC_PER_WINDOW, now) {
            return self.close(place, Incident::PublicFlood, now);
        }
        let Some(RoutedLine { from, to: Recipient::Public, text }) = routed else {
            return self.count(Incident::MalformedMessage, now);
        };
        if from != member.nick {
            return self.close(place, Incident::SpoofedSender, now);
        }
        if !member.registered {
            return self.count(Incident::NotAdmitted, now);
        }
        if !is_plain(text) {
            return self.count(Incident::MalformedMessage, now);
        }
        if text.len() > MAX_PUBLIC {
            return self.count(Incident::MessageTooLong, now);
        }
        if commands(text).any(|word| OrderType::parse(word).is_some()) {
            self.peers.offers(place);
        }
        let Some(frame) = Frame::shared(MessageType::Public, line) else {
            return self.count(Incident::MessageTooLong, now);
        };
        let recipients = self.broadcast(&frame, Some(place), now);
        self.counters.public = self.counters.public.saturating_add(1);
        self.counters.public_recipients =
            self.counters.public_recipients.saturating_add(recipients);
    }

    fn private(&mut self, place: usize, line: String, now: Duration) {
        let Some(RoutedLine { from, to: Recipient::Nick(to), text }) =
            RoutedLine::parse(&line).ok()
        else {
            return self.count(Incident::MalformedMessage, now);
        };
        let Some(member) = self.peers.member_mut(place) else { return };
        if from != member.nick {
            return self.close(place, Incident::SpoofedSender, now);
        }
        if !member.registered {
            return self.count(Incident::NotAdmitted, now);
        }
        if !is_plain(text) {
            return self.count(Incident::MalformedMessage, now);
        }
        // Nobody of that name, or the directory itself, whose probes are answered in private.
        let Some(recipient) = self.peers.nick(&to).filter(|recipient| *recipient != place) else {
            self.counters.private_unknown = self.counters.private_unknown.saturating_add(1);
            return;
        };
        let Some(frame) = Frame::directed(MessageType::Private, line) else {
            return self.count(Incident::MessageTooLong, now);
        };
        if self.send(recipient, &frame, now) {
            self.counters.private = self.counters.private.saturating_add(1);
            self.tell_location(place, recipient, now);
        }
    }

    /// Tells the recipient of a private message where its sender can be dialled, unless that was the last thing
    /// anybody was told of this sender.
    fn tell_location(&mut self, sender: usize, recipient: usize, now: Duration) {
        let own = self.own_entry();
        let Some(peer) = self.peers.get(recipient) else { return };
        let link = peer.link;
        let reads_features = peer.registered().is_some_and(|member| member.reads_features);
        let Some(member) = self.peers.member_mut(sender) else { return };
        if member.address.is_none() || member.told == Some(link) {
            return;
        }
        member.told = Some(link);
        let mut line = member.entry(reads_features);
        if let Some(own) = own {
            line.push(',');
            line.push_str(&own);
        }
        if let Some(frame) = Frame::directed(MessageType::PeerList, line) {
            self.send(recipient, &frame, now);
        }
    }

    fn list(&mut self, place: usize, now: Duration) {
        let makers = self.peers.makers();
        let seed = self.draws.drawn.wrapping_add(self.counters.lists);
        let Some(member) = self.peers.member_mut(place) else { return };
        if !member.lists.take(PEER_LIST_PER_WINDOW, now) {
            return self.close(place, Incident::PeerListFlood, now);
        }
        if !member.registered {
            return self.count(Incident::NotAdmitted, now);
        }
        // One at a time: a second request is answered by the list that is under way.
        if member.listing.is_none() {
            member.listing = Some(Listing::new(makers, member.reads_features, seed));
            self.counters.lists = self.counters.lists.saturating_add(1);
            self.list_on(place, now);
        }
    }

    fn ping(&mut self, place: usize, now: Duration) {
        let Some(member) = self.peers.member_mut(place) else { return };
        if !member.pings.take(PING_PER_WINDOW, now) {
            return self.close(place, Incident::PingFlood, now);
        }
        // Sent only in answer: it closes the connection of a reference peer that did not ask.
        if let Some(frame) = Frame::directed(MessageType::Pong, String::new()) {
            self.send(place, &frame, now);
        }
    }
}

/// The command words of a message.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    text.split(COMMAND_PREFIX).map(|command| command.split(' ').next().unwrap_or_default())
}

/// Whether a text has nothing that could end a line or move a cursor at its reader's.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
