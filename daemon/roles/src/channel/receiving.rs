//! What others say: who may say it, and whether it is true.

use std::time::Duration;

use joinery_proto::line::{Recipient, RoutedLine};
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::NICK_AUTH;
use joinery_proto::onion::handshake::{DirectoryHandshake, HandshakeError, PeerHandshake};
use joinery_proto::onion::location::Location;
use joinery_proto::onion::nick_auth::{Challenge, Verdict};
use joinery_proto::onion::peerlist;
use joinery_proto::private_message::{ONION_HOSTID, UnverifiedMessage};

use super::config::NickAuthPolicy;
use super::direct::{Direct, MAX_STRIKES, Progress};
use super::directory::{Authentication, Stage};
use super::machine::{OnionChannel, Owner};
use super::output::Output;
use super::peers::bit;
use crate::complaints::Cause;
use crate::event::{ChannelEvent, DirectoryId, LinkId, Source};
use crate::recent::Recent;

/// A link that used up its budget is read again when this much of it is back.
const LINES_AFTER_PAUSE: u32 = 20;
const SIGNATURES_AFTER_PAUSE: u32 = 5;

impl OnionChannel {
    /// A line arrived, without its end; at most 65 536 bytes.
    pub fn received(&mut self, link: LinkId, line: &[u8], now: Duration) {
        self.now = self.now.max(now);
        match self.links.get(&link) {
            Some(Owner::Directory(id)) => {
                let id = *id;
                self.directory_said(id, link, line);
            }
            Some(Owner::Direct(_)) => self.peer_said(link, line),
            None => {}
        }
    }

    fn directory_said(&mut self, id: DirectoryId, link: LinkId, line: &[u8]) {
        let (now, via) = (self.now, Source::Directory(id));
        let Some(directory) = self.directory(id) else { return };
        if !directory.lines.take(now) {
            // The driver was told to pause; this is what it had read already, or it did not obey.
            return self.complain(Cause::TooManyLines, via);
        }
        let resume = directory.lines.ready_at(LINES_AFTER_PAUSE, now);
        if directory.lines.ready_at(1, now) > now {
            self.out(Output::Pause { link, until: resume });
        }
        let Ok(Envelope { kind, line }) = Envelope::decode(line) else {
            self.complain(Cause::MalformedLine, via);
            return self.give_up_directory(id, "it sent a line that is no message");
        };
        let Some(directory) = self.directory(id) else { return };
        if let Stage::Up(session) = &mut directory.stage {
            // Any line is a sign of life.
            session.heard = now;
            session.ping_sent = None;
        }
        match (kind, &directory.stage) {
            (MessageType::DirectoryHandshake, Stage::Handshaking { .. }) => {
                self.directory_answered(id, &line);
            }
            (
                MessageType::NickAuthChallenge
                | MessageType::NickAuthProof
                | MessageType::NickAuthResult,
                _,
            ) => self.nick_auth(id, kind, &line),
            (MessageType::Ping, Stage::Up(_)) if directory.pongs.take(now) => {
                self.send(link, MessageType::Pong, "");
            }
            (MessageType::PeerList, Stage::Up(_)) => self.peer_list(id, &line),
            (MessageType::Public | MessageType::Private, Stage::Up(_)) => {
                self.routed(via, &line);
            }
            // Reference nodes close for a 799 or 801; nothing that comes in can harm us. 785, 787 and 797 are
            // their internal numbers, which they let strangers inject: nothing here knows them.
            _ => {}
        }
    }

    fn directory_answered(&mut self, id: DirectoryId, line: &str) {
        let greeting = match DirectoryHandshake::parse(line, &self.config.network) {
            Ok(greeting) => greeting,
            Err(error) => {
                let refused = error == HandshakeError::Refused;
                return self.close_directory(id, &error.to_string(), refused);
            }
        };
        let (until, policy) = (self.now + self.config.timing.nick_auth, self.config.nick_auth);
        let Some(directory) = self.directory(id) else { return };
        let stage = std::mem::replace(&mut directory.stage, Stage::Stopped);
        let Stage::Handshaking { link, sent, .. } = stage else {
            directory.stage = stage;
            return;
        };
        let asks = directory.address.identity.is_some()
            && policy != NickAuthPolicy::Disabled
            && greeting.features.has(NICK_AUTH);
        let authentication = Authentication { link, until, sent, greeting, proof_sent: false };
        directory.stage = Stage::Authenticating(authentication);
        if asks {
            return;
        }
        if policy == NickAuthPolicy::RequireVerified {
            return self.give_up_directory(id, "it does not verify nicks");
        }
        self.directory_is_up(id, false);
    }

    /// JMP-0005 (`spec/protocol.md` 14.4). Out of place or malformed, it ends the connection.
    fn nick_auth(&mut self, id: DirectoryId, kind: MessageType, line: &str) {
        let (until, key) = (self.now + self.config.timing.nick_auth, self.config.key.clone());
        let Some(directory) = self.directory(id) else { return };
        let identity = directory.address.identity.clone();
        if let (Stage::Authenticating(authentication), Some(identity)) =
            (&mut directory.stage, identity)
        {
            match kind {
                MessageType::NickAuthChallenge if !authentication.proof_sent => {
                    if let Ok(challenge) = Challenge::parse(line, &identity) {
                        let proof = challenge.answer(&authentication.sent, &key).to_line();
                        authentication.proof_sent = true;
                        authentication.until = until;
                        let link = authentication.link;
                        return self.send(link, MessageType::NickAuthProof, proof);
                    }
                }
                MessageType::NickAuthResult if authentication.proof_sent => {
                    match Verdict::parse(line) {
                        Ok(verdict) if verdict.verified => return self.directory_is_up(id, true),
                        Ok(verdict) => {
                            let reason = format!("it refuses our nick: {:?}", verdict.code);
                            return self.close_directory(id, &reason, true);
                        }
                        Err(_) => {}
                    }
                }
                _ => {}
            }
        }
        self.complain(Cause::BadNickAuth, Source::Directory(id));
        self.give_up_directory(id, "nick authentication failed");
    }

    fn peer_list(&mut self, id: DirectoryId, line: &str) {
        let own = match self.directory(id).map(|directory| &directory.stage) {
            Some(Stage::Up(session)) => session.nick.clone(),
            _ => return,
        };
        for entry in peerlist::parse(line) {
            if entry.nick == self.nick || entry.nick.as_str() == own {
                continue;
            }
            if entry.left {
                self.left(entry.nick, id);
                continue;
            }
            // Who listens may have forgotten a nick that was nowhere for a while.
            let fresh = self.seen(entry.nick, id);
            let may_dial = match &entry.location {
                Location::Address(address) => self.config.may_dial(address),
                Location::NotServing => false,
            };
            let mut news = false;
            self.peers.update(&entry.nick, |peer| {
                if let Location::Address(address) = entry.location {
                    news = fresh || !peer.serves;
                    peer.serves = true;
                    if may_dial {
                        peer.note_location(address);
                    }
                }
                if !entry.features.is_empty() {
                    peer.features = entry.features;
                }
            });
            if news {
                self.event(ChannelEvent::Serves { nick: entry.nick });
            }
        }
        self.release_parked();
    }

    /// A nick showed itself on a directory. Whether that is news.
    fn seen(&mut self, nick: Nick, id: DirectoryId) -> bool {
        let Some(peer) = self.peers.claimed(nick) else { return false };
        let news = !peer.is_at(id);
        if news {
            peer.present |= bit(id);
            peer.before &= !bit(id);
            self.event(ChannelEvent::Seen { nick, via: Source::Directory(id) });
        }
        news
    }

    fn left(&mut self, nick: Nick, id: DirectoryId) {
        let mut was_there = false;
        self.peers.update(&nick, |peer| {
            was_there = peer.is_at(id);
            peer.present &= !bit(id);
            peer.before &= !bit(id);
        });
        if was_there {
            self.event(ChannelEvent::Left { nick, via: Source::Directory(id) });
        }
    }

    /// A public or private line. Which it is the text says and not the type, as for reference nodes.
    fn routed(&mut self, via: Source, line: &str) {
        let Ok(routed) = RoutedLine::parse(line) else {
            return self.complain(Cause::UnroutableMessage, via);
        };
        if routed.from == self.nick {
            return;
        }
        match routed.to {
            Recipient::Public => {
                if let Source::Directory(id) = via {
                    self.seen(routed.from, id);
                }
                let (from, text) = (routed.from, routed.text.to_owned());
                self.event(ChannelEvent::Public { from, via, text });
            }
            Recipient::Nick(to) if to == self.nick => self.private(via, routed.from, routed.text),
            Recipient::Nick(_) => {}
        }
    }

    /// A private line to us: cheap checks, then the budget, then the signature (`spec/protocol.md` 3.3).
    fn private(&mut self, via: Source, from: Nick, text: &str) {
        let now = self.now;
        let Ok(message) = UnverifiedMessage::parse(text) else {
            return self.unproved(via);
        };
        let digest = Recent::digest(&from, message.word, message.payload);
        let repeated = self.recent.contains(&digest, now);
        // A repetition says nothing new, except on a connection that we dialled: that it leads to its nick.
        // One that was opened to us cannot be bound by a line that a directory has seen and sends again.
        let unbound = match via {
            Source::Direct(link) => self
                .direct(link)
                .is_some_and(|direct| direct.bound.is_none() && !direct.is_inbound()),
            _ => false,
        };
        if repeated && !unbound {
            return;
        }
        if !self.take_signature(via) {
            return self.complain(Cause::TooManySignatures, via);
        }
        if message.verify(&from, ONION_HOSTID).is_err() {
            return self.unproved(via);
        }
        if let Some(peer) = self.peers.proved(from) {
            peer.route = Some(via);
        }
        match via {
            Source::Directory(id) => {
                self.seen(from, id);
            }
            Source::Direct(link) => self.bind(link, from),
            Source::Irc(_) => {}
        }
        if !repeated {
            self.recent.insert(digest, now);
            self.event(ChannelEvent::Private { from, via, text: text.to_owned() });
        }
    }

    /// Whether another signature may be verified for this way.
    fn take_signature(&mut self, via: Source) -> bool {
        let now = self.now;
        let Source::Directory(id) = via else { return self.direct_signatures.take(now) };
        let Some(directory) = self.directory(id) else { return false };
        let taken = directory.signatures.take(now);
        let (ready, resume) = (
            directory.signatures.ready_at(1, now),
            directory.signatures.ready_at(SIGNATURES_AFTER_PAUSE, now),
        );
        if let (true, Some(link)) = (ready > now, directory.link()) {
            self.out(Output::Pause { link, until: resume });
        }
        taken
    }

    /// A private message that proves nobody. A directory only relays it; a peer is to blame.
    fn unproved(&mut self, via: Source) {
        self.complain(Cause::UnprovedSender, via);
        if let Source::Direct(link) = via {
            self.strike(link);
        }
    }

    fn strike(&mut self, link: LinkId) {
        let Some(direct) = self.direct(link) else { return };
        direct.strikes = direct.strikes.saturating_add(1);
        if direct.strikes >= MAX_STRIKES {
            self.close_direct(link, Some("it sent too much that proves nothing"));
            self.release_parked();
        }
    }

    pub(super) fn direct(&mut self, link: LinkId) -> Option<&mut Direct> {
        match self.links.get_mut(&link) {
            Some(Owner::Direct(direct)) => Some(direct),
            _ => None,
        }
    }

    fn peer_said(&mut self, link: LinkId, line: &[u8]) {
        let (now, via) = (self.now, Source::Direct(link));
        let Some(direct) = self.direct(link) else { return };
        if !direct.lines.take(now) {
            return self.complain(Cause::TooManyLines, via);
        }
        direct.heard = now;
        let Ok(Envelope { kind, line }) = Envelope::decode(line) else {
            self.complain(Cause::MalformedLine, via);
            self.close_direct(link, Some("it sent a line that is no message"));
            return self.release_parked();
        };
        let progress = direct.progress;
        let (its_nick, certain) = direct.its_nick();
        match (kind, progress) {
            (MessageType::Handshake, Progress::Handshaking { .. }) => {
                self.peer_greeted(link, &line)
            }
            (MessageType::Public | MessageType::Private, Progress::Ready) => {
                // Where the nick is certain only that one may speak; before, public lines only in the name
                // that it claimed.
                let foreign = RoutedLine::parse(&line).is_ok_and(|routed| {
                    Some(routed.from) != its_nick && (certain || routed.to == Recipient::Public)
                });
                if foreign {
                    self.complain(Cause::ForeignNick, via);
                    return self.strike(link);
                }
                self.routed(via, &line);
            }
            // A directory's handshake from a peer, pings, peer lists: not theirs to send.
            _ => {}
        }
    }

    fn peer_greeted(&mut self, link: LinkId, line: &str) {
        let handshake = match PeerHandshake::parse(line, &self.config.network) {
            Ok(handshake) => handshake,
            Err(error) => {
                self.complain(Cause::BadHandshake, Source::Direct(link));
                self.close_direct(link, Some(&error.to_string()));
                return self.release_parked();
            }
        };
        let nick = handshake.nick;
        let Some(direct) = self.direct(link) else { return };
        direct.progress = Progress::Ready;
        direct.claimed = Some(nick);
        if direct.is_inbound() {
            // Only now, as joinmarket-ng does: who scans for services learns no nick from us.
            self.greet_peer(link);
        } else if direct.serves(&nick) {
            self.peers.update(&nick, |peer| {
                peer.direct = Some(link);
                peer.features = handshake.features;
            });
        } else {
            self.close_direct(link, Some("it answered in another name"));
        }
        self.release_parked();
    }

    /// A verified message binds its connection to its sender. An outbound connection that speaks for another
    /// nick than the one that it was dialled for is of no use.
    fn bind(&mut self, link: LinkId, from: Nick) {
        let Some(direct) = self.direct(link) else { return };
        if direct.bound == Some(from) {
            return;
        }
        direct.bound = Some(from);
        direct.proof_due = None;
        if let Some(peer) = self.peers.proved(from) {
            peer.direct = Some(link);
        }
        self.event(ChannelEvent::Seen { nick: from, via: Source::Direct(link) });
    }
}
