//! What a server says: who is there, and who speaks.

use std::time::Duration;

use joinery_proto::irc::{
    IrcLine, is_host_id, is_sendable, longest_privmsg, network_name, source_nick,
};
use joinery_proto::line::COMMAND_PREFIX;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::UnverifiedMessage;

use super::machine::IrcChannel;
use super::output::{LogFact, Output};
use super::server::{MAX_PRESENT, Stage};
use crate::complaints::Cause;
use crate::event::{ChannelEvent, LinkId, Source};
use crate::recent::Recent;

/// A link that used up its budget is read again when this much of it is back.
const LINES_AFTER_PAUSE: u32 = 20;
const SIGNATURES_AFTER_PAUSE: u32 = 5;
/// Signs of rank in front of names in lists.
const RANKS: [char; 5] = ['~', '&', '@', '%', '+'];
/// Longest token of a ping that is answered, bytes.
const MAX_TOKEN: usize = 400;

impl IrcChannel {
    /// A line arrived, without its end; at most [`joinery_proto::irc::MAX_LINE_IN`] bytes.
    pub fn received(&mut self, link: LinkId, line: &[u8], now: Duration) {
        self.now = self.now.max(now);
        let now = self.now;
        let Some(id) = self.links.get(&link).copied() else { return };
        let Some(server) = self.server(id) else { return };
        if !server.lines.take(now) {
            // The driver was told to pause; this is what it had read already, or it did not obey.
            return self.complain(Cause::TooManyLines, Source::Irc(id));
        }
        let resume = server.lines.ready_at(LINES_AFTER_PAUSE, now);
        let spent = server.lines.ready_at(1, now) > now;
        server.heard = now;
        if spent {
            self.out(Output::Pause { link, until: resume });
        }
        let text = String::from_utf8_lossy(line);
        let Some(line) = IrcLine::parse(&text) else {
            if !text.is_empty() {
                self.complain(Cause::MalformedLine, Source::Irc(id));
            }
            return;
        };
        self.line(id, &line);
        self.flush(id);
    }

    fn line(&mut self, id: u16, line: &IrcLine<'_>) {
        let Some(server) = self.server(id) else { return };
        match (line.command, server.stage) {
            ("PING", _) => {
                let token = line.params.last().copied().unwrap_or_default();
                if is_sendable(token) && token.len() <= MAX_TOKEN {
                    server.pong(token);
                }
            }
            ("ERROR", _) => {
                let reason = format!("the server says: {}", line.param(0));
                self.give_up(id, &reason, false);
            }
            (command, Stage::Registering { welcomed, .. }) => {
                self.registering(id, command, line, welcomed);
            }
            ("366", Stage::Listing { .. }) if server.is_channel(line.param(1)) => self.listed(id),
            // Nobody has been told of us yet.
            ("PRIVMSG", Stage::Listing { .. }) => {}
            (command, Stage::Listing { .. } | Stage::Up { .. }) => {
                self.in_channel(id, command, line);
            }
            _ => {}
        }
    }

    /// Before we are in the channel.
    fn registering(&mut self, id: u16, command: &str, line: &IrcLine<'_>, welcomed: bool) {
        let (now, timing, our_nick) = (self.now, self.config.timing, self.nick);
        let Some(server) = self.server(id) else { return };
        match (command, welcomed) {
            ("001", false) => {
                if line.param(0) != our_nick.as_str() {
                    // Cut or changed: nobody could prove that it is ours.
                    let reason = "it does not give us our nick: does it allow 16 characters?";
                    return self.give_up(id, reason, true);
                }
                if let Stage::Registering { welcomed, nick_at, .. } = &mut server.stage {
                    (*welcomed, *nick_at) = (true, None);
                }
                server.ping_at = now.saturating_add(timing.ping);
                let channel = server.address.channel().to_owned();
                server.control(format!("JOIN {channel}"));
            }
            ("005", _) => match network_name(&line.params) {
                Some(name) if is_host_id(name) => server.hostid = name.to_owned(),
                Some(_) => self.give_up(id, "the name of its network is not acceptable", true),
                None => {}
            },
            ("433" | "436" | "437", false) => {
                if let Stage::Registering { nick_at: nick_at @ None, .. } = &mut server.stage {
                    *nick_at = Some(now.saturating_add(timing.nick_retry));
                    self.out(Output::Log(LogFact::NickInUse { server: id }));
                }
            }
            ("432" | "464" | "465" | "466", false) => {
                let reason = format!("it refuses us: {}", last(line));
                self.give_up(id, &reason, true);
            }
            (
                "403" | "405" | "437" | "471" | "473" | "474" | "475" | "476" | "477" | "489"
                | "520",
                true,
            ) if server.is_channel(line.param(1)) => {
                let reason = format!("it does not let us into the channel: {}", last(line));
                self.give_up(id, &reason, true);
            }
            ("JOIN", true)
                if line.name() == our_nick.as_str() && server.is_channel(line.param(0)) =>
            {
                self.joined(id, longest_privmsg(line.source.unwrap_or_default()));
            }
            ("NICK", _) if line.name() == our_nick.as_str() => {
                self.give_up(id, "it took our nick away", false);
            }
            _ => {}
        }
    }

    fn in_channel(&mut self, id: u16, command: &str, line: &IrcLine<'_>) {
        let our_nick = self.nick;
        let ours = line.name() == our_nick.as_str();
        let Some(server) = self.server(id) else { return };
        match command {
            "PRIVMSG" if ours => {}
            "PRIVMSG" if line.param(0) == our_nick.as_str() => self.piece(id, line),
            "PRIVMSG" if server.is_channel(line.param(0)) => self.public(id, line),
            "JOIN" if !ours && server.is_channel(line.param(0)) => self.seen(id, line.name()),
            // The list of those who were there before us.
            "353" if server.is_channel(line.param(2)) => {
                for name in line.param(3).split(' ') {
                    self.seen(id, name.trim_start_matches(RANKS));
                }
            }
            "PART" if server.is_channel(line.param(0)) => {
                self.gone(id, line.name(), "it put us out of the channel");
            }
            "KICK" if server.is_channel(line.param(0)) => {
                self.gone(id, line.param(1), "we were put out of the channel");
            }
            "QUIT" => self.gone(id, line.name(), "it says that we have quit"),
            "KILL" => self.gone(id, line.param(0), "we were put off the network"),
            // Answer to a message to somebody who is not there any more.
            "401" if line.param(1) != our_nick.as_str() => self.gone(id, line.param(1), ""),
            "NICK" => {
                self.gone(id, line.name(), "it took our nick away");
                if !ours {
                    self.seen(id, line.param(0));
                }
            }
            _ => {}
        }
    }

    /// A user with exactly this name is in the channel. Names that only begin with a nick are nobody's.
    fn seen(&mut self, id: u16, name: &str) {
        let Ok(nick) = name.parse::<Nick>() else { return };
        if nick == self.nick {
            return;
        }
        let Some(server) = self.server(id).filter(|server| server.is_joined()) else { return };
        let told = server.is_up();
        if server.present.len() < MAX_PRESENT && !server.present.contains_key(&nick) {
            server.present.insert(nick, false);
            if told {
                self.event(ChannelEvent::Seen { nick, via: Source::Irc(id) });
            }
        }
    }

    /// A signature proved that this nick is there. When the table is full, one that was never proved makes room.
    fn proved(&mut self, id: u16, nick: Nick) {
        let Some(server) = self.server(id) else { return };
        let known = server.present.contains_key(&nick);
        let mut evicted = None;
        if !known && server.present.len() >= MAX_PRESENT {
            evicted = server.present.iter().find_map(|(nick, proved)| (!proved).then_some(*nick));
            let Some(evicted) = &evicted else { return };
            server.present.remove(evicted);
        }
        server.present.insert(nick, true);
        let via = Source::Irc(id);
        if let Some(nick) = evicted {
            self.event(ChannelEvent::Left { nick, via });
        }
        if !known {
            self.event(ChannelEvent::Seen { nick, via });
        }
    }

    /// A user is not there any more; if it is us, that is the end of the connection.
    fn gone(&mut self, id: u16, name: &str, reason: &str) {
        if name == self.nick.as_str() {
            return self.give_up(id, reason, false);
        }
        let Some(server) = self.server(id) else { return };
        server.pieces.left(name);
        let Ok(nick) = name.parse::<Nick>() else { return };
        let told = server.is_up();
        if server.present.remove(&nick).is_some() && told {
            self.event(ChannelEvent::Left { nick, via: Source::Irc(id) });
        }
    }

    /// A public line. Nothing proves it, so only who has exactly this nick may speak in its name.
    fn public(&mut self, id: u16, line: &IrcLine<'_>) {
        let Ok(from) = line.name().parse::<Nick>() else { return };
        let Some(text) = line.param(1).strip_prefix(COMMAND_PREFIX) else { return };
        if text.is_empty() {
            return;
        }
        self.seen(id, line.name());
        let text = text.to_owned();
        self.event(ChannelEvent::Public { from, via: Source::Irc(id), text });
    }

    /// A piece of a private message to us.
    fn piece(&mut self, id: u16, line: &IrcLine<'_>) {
        let millis = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        // Others talk to bots, too; they are not heard, and hold no buffers.
        let Some(from) = source_nick(line.name()) else { return };
        let Some(server) = self.server(id) else { return };
        if let Some(text) = server.pieces.push(line.name(), line.param(1), millis) {
            self.private(id, from, line.name() == from.as_str(), &text);
        }
    }

    /// A whole private message: cheap checks, then the budget, then the signature (`spec/protocol.md` 3.3).
    fn private(&mut self, id: u16, from: Nick, exact: bool, text: &str) {
        let (now, via) = (self.now, Source::Irc(id));
        let Ok(message) = UnverifiedMessage::parse(text) else {
            return self.complain(Cause::UnprovedSender, via);
        };
        let digest = Recent::digest(&from, message.word, message.payload);
        if self.recent.contains(&digest, now) {
            return;
        }
        let Some(server) = self.server(id) else { return };
        let taken = server.signatures.take(now);
        let resume = server.signatures.ready_at(SIGNATURES_AFTER_PAUSE, now);
        let spent = server.signatures.ready_at(1, now) > now;
        let (link, hostid) = (server.link(), server.hostid.clone());
        if let (true, Some(link)) = (spent, link) {
            self.out(Output::Pause { link, until: resume });
        }
        if !taken {
            return self.complain(Cause::TooManySignatures, via);
        }
        if message.verify(&from, &hostid).is_err() {
            return self.complain(Cause::UnprovedSender, via);
        }
        if exact {
            self.proved(id, from);
        }
        self.recent.insert(digest, now);
        self.event(ChannelEvent::Private { from, via, text: text.to_owned() });
    }
}

/// The text of a numeric, which comes last.
fn last<'a>(line: &IrcLine<'a>) -> &'a str {
    line.params.last().copied().unwrap_or_default()
}
