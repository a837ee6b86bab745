//! Line rules of the IRC channel (`spec/protocol.md` 5, vector `irc.json`). Only reference peers use it.
//!
//! Private messages are cut into pieces that fit an IRC line; each piece ends with a two-character
//! trailer that says whether more follow.

mod message;

use std::collections::HashMap;

use crate::line::COMMAND_PREFIX;
use crate::nick::Nick;
use crate::offer::Offer;
use crate::private_message::PrivateWord;
use crate::public_message;

pub use message::{
    IrcLine, MAX_HOSTID, MAX_LINE_IN, MAX_LINE_OUT, MAX_NAME, MAX_PARAMS, is_host_id, is_sendable,
    longest_privmsg, network_name, source_name, source_nick,
};

/// Longest line that reference peers build, characters, `PRIVMSG target :` included.
pub const MAX_PRIVMSG: usize = 450;
/// Trailer of a piece that is not the last.
const MORE: &str = " ;";
/// Trailer of the last piece, and of announcements.
const LAST: &str = " ~";
/// Largest message that is put together, bytes. The reference has no limit.
pub const MAX_MESSAGE: usize = 65_536;
/// Longest time from the first piece to the last, milliseconds.
pub const MAX_ASSEMBLY_MS: u64 = 60_000;
/// Most senders with an unfinished message; one more, and the oldest unfinished message is dropped.
pub const MAX_SENDERS: usize = 256;
/// Largest sum of all unfinished messages, bytes; beyond, the largest one is dropped.
pub const MAX_UNFINISHED: usize = 1_048_576;

/// The channel of a network: the configured name with a suffix on test networks.
#[must_use]
pub fn channel_name(configured: &str, network: &str) -> String {
    match network {
        "mainnet" => format!("#{configured}"),
        "signet" => format!("#{configured}-sig"),
        _ => format!("#{configured}-test"),
    }
}

/// Lines that carry a private message, as long as the reference makes them. `message` is the payload with key and
/// signature; ASCII.
#[must_use]
pub fn private_lines(to: &Nick, word: PrivateWord, message: &str) -> Vec<String> {
    private_lines_within(MAX_PRIVMSG, to, word, message)
}

/// Lines that carry a private message, none longer than `longest`: see [`longest_privmsg`].
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of short texts")]
pub fn private_lines_within(
    longest: usize,
    to: &Nick,
    word: PrivateWord,
    message: &str,
) -> Vec<String> {
    let head = format!("PRIVMSG {to} :");
    let word = word.as_str();
    // "!" and " " around the word, and the trailer. All parts are short, so this stays positive.
    let room = longest.saturating_sub(head.len() + word.len() + 4).max(1);
    let pieces: Vec<&[u8]> = message.as_bytes().chunks(room).collect();
    let count = pieces.len();
    let line = |(index, piece): (usize, &[u8])| {
        let command = if index == 0 { format!("!{word} ") } else { String::new() };
        // Told by position, not by comparing texts as the reference does: equal pieces are no problem.
        let trailer = if index + 1 == count { LAST } else { MORE };
        format!("{head}{command}{}{trailer}", String::from_utf8_lossy(piece))
    };
    pieces.into_iter().enumerate().map(line).collect()
}

/// Lines that announce offers in a channel: as many whole offers to a line as the reference puts there.
#[must_use]
pub fn announcement_lines(channel: &str, offers: &[Offer]) -> Vec<String> {
    announcement_lines_within(MAX_PRIVMSG, channel, offers)
}

/// Lines that announce offers in a channel, none longer than `longest` unless a single offer is: see
/// [`longest_privmsg`].
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of short texts")]
pub fn announcement_lines_within(longest: usize, channel: &str, offers: &[Offer]) -> Vec<String> {
    let head = format!("PRIVMSG {channel} :");
    let mut lines = Vec::new();
    let mut line = head.clone();
    for offer in offers {
        let item = format!("{COMMAND_PREFIX}{}", public_message::announce(offer));
        if line.len() > head.len() && line.len() + item.len() + LAST.len() > longest {
            lines.push(format!("{line}{LAST}"));
            line.clone_from(&head);
        }
        line.push_str(&item);
    }
    if line.len() > head.len() {
        lines.push(format!("{line}{LAST}"));
    }
    lines
}

/// An unfinished message.
#[derive(Debug)]
struct Unfinished {
    /// When its first piece came, milliseconds.
    start: u64,
    text: String,
}

/// Puts private messages together, one buffer per sender, all bounds enforced.
///
/// Senders are told apart by their whole names, not by the 16 characters that make a nick: whoever takes a longer
/// name could otherwise spoil the messages of the nick that it begins with.
#[derive(Debug, Default)]
pub struct Reassembler {
    buffers: HashMap<String, Unfinished>,
    /// Bytes in all buffers.
    held: usize,
}

impl Reassembler {
    /// Takes the text of one line from a sender, by [`source_name`]; returns a whole message without its leading `!`
    /// when this was its last piece. `now` in milliseconds of any steady clock.
    pub fn push(&mut self, sender: &str, text: &str, now: u64) -> Option<String> {
        self.buffers.retain(|_, message| {
            let young = now.saturating_sub(message.start) <= MAX_ASSEMBLY_MS;
            if !young {
                self.held = self.held.saturating_sub(message.text.len());
            }
            young
        });
        if sender.len() > MAX_NAME {
            return None;
        }
        let begun = self.take(sender);
        let (piece, trailer) = text.split_at_checked(text.len().checked_sub(LAST.len())?)?;
        if begun.is_none() && !piece.starts_with(COMMAND_PREFIX) {
            return None;
        }
        let mut message = begun.unwrap_or(Unfinished { start: now, text: String::new() });
        if message.text.len().saturating_add(piece.len()) > MAX_MESSAGE {
            return None;
        }
        message.text.push_str(piece);
        match trailer {
            LAST => message.text.strip_prefix(COMMAND_PREFIX).map(str::to_owned),
            MORE => {
                self.hold(sender, message);
                None
            }
            // Neither trailer: the partial message is dropped.
            _ => None,
        }
    }

    /// A sender left: forget its partial message.
    pub fn left(&mut self, sender: &str) {
        self.take(sender);
    }

    /// Bytes of unfinished messages.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    fn take(&mut self, sender: &str) -> Option<Unfinished> {
        let message = self.buffers.remove(sender)?;
        self.held = self.held.saturating_sub(message.text.len());
        Some(message)
    }

    fn hold(&mut self, sender: &str, message: Unfinished) {
        if self.buffers.len() >= MAX_SENDERS {
            let oldest = self.buffers.iter().min_by_key(|(_, message)| message.start);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.take(&oldest);
            }
        }
        self.held = self.held.saturating_add(message.text.len());
        self.buffers.insert(sender.to_owned(), message);
        if self.held > MAX_UNFINISHED {
            let largest = self.buffers.iter().max_by_key(|(_, message)| message.text.len());
            if let Some(largest) = largest.map(|(name, _)| name.clone()) {
                self.take(&largest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        MAX_ASSEMBLY_MS, MAX_MESSAGE, MAX_NAME, MAX_PRIVMSG, MAX_SENDERS, MAX_UNFINISHED,
        Reassembler, private_lines, private_lines_within,
    };
    use crate::nick::Nick;
    use crate::private_message::PrivateWord;

    fn nick() -> Nick {
        "J5DdKBhSf2Ykxqqy".parse().unwrap()
    }

    #[test]
    fn buffers_are_bounded_in_size_and_time() {
        let mut reassembler = Reassembler::default();
        let piece = format!("!tx {} ;", "x".repeat(1_000));
        for _ in 0..2 * MAX_MESSAGE / 1_000 {
            assert_eq!(reassembler.push("a", &piece, 0), None);
            assert!(reassembler.buffers.values().all(|message| message.text.len() <= MAX_MESSAGE));
        }
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.push("a", "!tx AAA ;", 0), None);
        assert_eq!(reassembler.push("a", "BBB ~", MAX_ASSEMBLY_MS + 1), None);
        assert_eq!(reassembler.held(), 0);
        assert_eq!(reassembler.push(&"n".repeat(MAX_NAME + 1), "!tx AAA ~", 0), None);
    }

    #[test]
    fn many_senders_cannot_hold_more_than_the_sum_nor_keep_others_out() {
        let mut reassembler = Reassembler::default();
        for piece in 0..50 {
            for sender in 0..2 * MAX_SENDERS {
                let text = format!("!tx {} ;", "x".repeat(2_000));
                reassembler.push(&sender.to_string(), &text, piece);
                let held: usize = reassembler.buffers.values().map(|m| m.text.len()).sum();
                assert_eq!(held, reassembler.held());
                assert!(held <= MAX_UNFINISHED && reassembler.buffers.len() <= MAX_SENDERS);
            }
        }
        assert_eq!(reassembler.push("late", "!tx AAA ;", 60), None);
        assert_eq!(reassembler.push("late", "BBB ~", 60), Some("tx AAABBB".to_owned()));
    }

    #[test]
    fn a_longer_name_spoils_no_message_of_the_nick_it_begins_with() {
        let (nick, mut reassembler) = (nick().to_string(), Reassembler::default());
        assert_eq!(reassembler.push(&nick, "!tx AAA ;", 0), None);
        assert_eq!(reassembler.push(&format!("{nick}_"), "junk", 0), None);
        assert_eq!(reassembler.push(&nick, "BBB ~", 0), Some("tx AAABBB".to_owned()));
    }

    proptest! {
        #[test]
        fn messages_survive_the_channel(message in "[!-~]{1,2000}", longest in 225..=MAX_PRIVMSG) {
            prop_assert_eq!(
                private_lines(&nick(), PrivateWord::Tx, &message),
                private_lines_within(MAX_PRIVMSG, &nick(), PrivateWord::Tx, &message)
            );
            let lines = private_lines_within(longest, &nick(), PrivateWord::Tx, &message);
            let mut reassembler = Reassembler::default();
            let mut out = None;
            for line in &lines {
                prop_assert!(line.len() <= longest);
                prop_assert!(out.is_none());
                let text = line.strip_prefix("PRIVMSG J5DdKBhSf2Ykxqqy :").unwrap();
                out = reassembler.push("a", text, 0);
            }
            prop_assert_eq!(out.unwrap(), format!("tx {message}"));
        }

        #[test]
        fn receiving_never_panics(lines in proptest::collection::vec(".{0,40}", 0..20)) {
            let mut reassembler = Reassembler::default();
            for line in lines {
                let _ = reassembler.push("a", &line, 0);
            }
        }
    }
}
