//! Lines of IRC itself (RFC 1459 2.3, RFC 2812 2.3): who says what command with which parameters.
//!
//! Lines are bytes of no declared encoding; what is no UTF-8 is replaced before it gets here, which spoils nothing
//! that the market sends.

use crate::irc::MAX_PRIVMSG;
use crate::nick::{NICK_LENGTH, Nick};
use crate::private_message::ONION_HOSTID;

/// Longest line that is taken, bytes without its end. Servers send up to 510; a few send more.
pub const MAX_LINE_IN: usize = 2_048;
/// Longest line that servers pass on, bytes without its end, the source that they put in front included.
pub const MAX_LINE_OUT: usize = 510;
/// Most parameters of a line; what follows belongs to the last one.
pub const MAX_PARAMS: usize = 15;
/// Longest name of a user that is taken, bytes. Servers allow 9 to about 30.
pub const MAX_NAME: usize = 64;
/// Longest host id that is taken, bytes: the longest host name and a port.
pub const MAX_HOSTID: usize = 258;

/// One line, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrcLine<'a> {
    /// `nick!user@host` or a server's name; what the server claims.
    pub source: Option<&'a str>,
    /// A word in upper case as servers send it, or three digits.
    pub command: &'a str,
    /// At most [`MAX_PARAMS`]; the last one may hold spaces.
    pub params: Vec<&'a str>,
}

impl<'a> IrcLine<'a> {
    /// Splits a line without its end. `None`: it holds no command.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line.trim_start_matches(' ');
        if rest.starts_with('@') {
            // Tags, which nobody asked for.
            rest = rest.split_once(' ')?.1.trim_start_matches(' ');
        }
        let mut source = None;
        if let Some(prefixed) = rest.strip_prefix(':') {
            let (prefix, after) = prefixed.split_once(' ')?;
            source = Some(prefix).filter(|prefix| !prefix.is_empty());
            rest = after.trim_start_matches(' ');
        }
        let (command, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let word = !command.is_empty() && command.bytes().all(|b| b.is_ascii_alphabetic());
        let number = command.len() == 3 && command.bytes().all(|b| b.is_ascii_digit());
        if !word && !number {
            return None;
        }
        let mut params = Vec::new();
        loop {
            rest = rest.trim_start_matches(' ');
            if let Some(last) = rest.strip_prefix(':') {
                params.push(last);
                break;
            }
            if rest.is_empty() {
                break;
            }
            if params.len().saturating_add(1) == MAX_PARAMS {
                params.push(rest);
                break;
            }
            let (param, after) = rest.split_once(' ').unwrap_or((rest, ""));
            params.push(param);
            rest = after;
        }
        Some(Self { source, command, params })
    }

    /// A parameter by its place, empty if it is not there.
    #[must_use]
    pub fn param(&self, place: usize) -> &'a str {
        self.params.get(place).copied().unwrap_or_default()
    }

    /// The name of who speaks: the source up to its `!`.
    #[must_use]
    pub fn name(&self) -> &'a str {
        source_name(self.source.unwrap_or_default())
    }
}

/// The name in a source `name!user@host`.
#[must_use]
pub fn source_name(source: &str) -> &str {
    source.split('!').next().unwrap_or_default()
}

/// The nick in a source, cut to its 16 characters as reference peers do. Only a signature says whether it is
/// really that nick: two users can have names that are cut to the same.
#[must_use]
pub fn source_nick(source: &str) -> Option<Nick> {
    let name = source_name(source);
    name.get(..name.len().min(NICK_LENGTH))?.parse().ok()
}

/// Whether a text can be part of a line that we send: nothing in it ends the line or begins another one.
#[must_use]
pub fn is_sendable(text: &str) -> bool {
    !text.is_empty() && !text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// Longest line that arrives whole at others when the server puts `source` in front: what the reference builds, or
/// less where our source is long.
#[must_use]
pub fn longest_privmsg(source: &str) -> usize {
    // A colon before the source and a space after it.
    let room = MAX_LINE_OUT.saturating_sub(source.len()).saturating_sub(2);
    // A source that leaves less than this is nonsense.
    room.clamp(MAX_PRIVMSG / 2, MAX_PRIVMSG)
}

/// The name of the network in the parameters of a 005, which signatures of private messages cover.
#[must_use]
pub fn network_name<'a>(params: &[&'a str]) -> Option<&'a str> {
    params.iter().find_map(|param| param.strip_prefix("NETWORK="))
}

/// Whether a network may have this host id. Signatures cover payload and host id without anything between them, so
/// when one host id ends with another one, what was signed for the one can be shown on the other. A server must not
/// make us sign for, or believe what was signed for, the onion network.
#[must_use]
pub fn is_host_id(text: &str) -> bool {
    let (lower, onion) = (text.to_ascii_lowercase(), ONION_HOSTID);
    !text.is_empty()
        && text.len() <= MAX_HOSTID
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !lower.ends_with(onion)
        && !onion.ends_with(&lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> IrcLine<'_> {
        IrcLine::parse(line).unwrap()
    }

    #[test]
    fn lines_are_split_as_the_rfc_says() {
        let line = parse(":J5DdKBhSf2Ykxqqy!u@h PRIVMSG J5CdDnhVDhc5R7Gg :!tx  AA BB ~");
        assert_eq!(line.name(), "J5DdKBhSf2Ykxqqy");
        assert_eq!((line.command, line.param(0)), ("PRIVMSG", "J5CdDnhVDhc5R7Gg"));
        assert_eq!(line.param(1), "!tx  AA BB ~");
        assert_eq!(line.param(2), "");
        let line = parse("PING :irc.example");
        assert_eq!((line.source, line.command, line.params), (None, "PING", vec!["irc.example"]));
        let line = parse("@time=1 :irc.example 005 me NETWORK=Net CHANTYPES=# :are supported");
        assert_eq!((line.command, network_name(&line.params)), ("005", Some("Net")));
        assert_eq!(parse("ERROR :").params, [""]);
        let many = format!("X {}", "a ".repeat(40));
        assert_eq!(parse(&many).params.len(), MAX_PARAMS);
        for bad in ["", ":", ":src", ":src ", "@tag", "12 a", "PR1V a", "\u{e9} a", ": :"] {
            assert!(IrcLine::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn no_network_may_be_taken_for_the_onion_network() {
        for good in ["hackint", "Libera.Chat", "127.0.0.1:6667", "onion-networks"] {
            assert!(is_host_id(good), "{good}");
        }
        for bad in ["", "a b", "onion-network", "Onion-Network", "network", "K", "my-onion-network"]
        {
            assert!(!is_host_id(bad), "{bad}");
        }
        assert!(!is_host_id(&"x".repeat(MAX_HOSTID + 1)));
    }

    #[test]
    fn long_sources_leave_less_room() {
        let source = format!("J5CdDnhVDhc5R7Gg!~J5CdDnhV@{}", "h".repeat(63));
        assert_eq!(longest_privmsg(&source) + source.len() + 2, MAX_LINE_OUT);
        assert_eq!(longest_privmsg("J5CdDnhVDhc5R7Gg!~u@127.0.0.1"), MAX_PRIVMSG);
        assert_eq!(longest_privmsg(&"h".repeat(2_000)), MAX_PRIVMSG / 2);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_bounded(line in ".{0,200}") {
            if let Some(parsed) = IrcLine::parse(&line) {
                prop_assert!(parsed.params.len() <= MAX_PARAMS);
            }
            let _ = source_nick(&line);
        }
    }
}
