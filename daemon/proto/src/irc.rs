//! Line rules of the IRC channel (`spec/protocol.md` 5, vector `irc.json`). Only reference peers use it.
//!
//! Private messages are cut into pieces that fit an IRC line; each piece ends with a two-character
//! trailer that says whether more follow.

use std::collections::HashMap;

use crate::line::COMMAND_PREFIX;
use crate::nick::{NICK_LENGTH, Nick};
use crate::offer::Offer;
use crate::private_message::PrivateWord;
use crate::public_message;

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
/// Most senders with an unfinished message.
pub const MAX_SENDERS: usize = 256;

/// The channel of a network: the configured name with a suffix on test networks.
#[must_use]
pub fn channel_name(configured: &str, network: &str) -> String {
    match network {
        "mainnet" => format!("#{configured}"),
        "signet" => format!("#{configured}-sig"),
        _ => format!("#{configured}-test"),
    }
}

/// Nick in a message source `nick!user@host`, cut as reference peers do.
#[must_use]
pub fn source_nick(source: &str) -> Option<Nick> {
    let nick = source.split('!').next()?;
    nick.get(..nick.len().min(NICK_LENGTH))?.parse().ok()
}

/// Lines that carry a private message. `message` is the payload with key and signature; ASCII.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of short texts")]
pub fn private_lines(to: &Nick, word: PrivateWord, message: &str) -> Vec<String> {
    let head = format!("PRIVMSG {to} :");
    let word = word.as_str();
    // "!" and " " around the word, and the trailer. All parts are short, so this stays positive.
    let room = MAX_PRIVMSG.saturating_sub(head.len() + word.len() + 4).max(1);
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

/// Lines that announce offers in a channel: as many whole offers to a line as fit.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of short texts")]
pub fn announcement_lines(channel: &str, offers: &[Offer]) -> Vec<String> {
    let head = format!("PRIVMSG {channel} :");
    let mut lines = Vec::new();
    let mut line = head.clone();
    for offer in offers {
        let item = format!("{COMMAND_PREFIX}{}", public_message::announce(offer));
        if line.len() > head.len() && line.len() + item.len() + LAST.len() > MAX_PRIVMSG {
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

/// Puts private messages together, one buffer per sender, all bounds enforced.
#[derive(Debug, Default)]
pub struct Reassembler {
    buffers: HashMap<Nick, (u64, String)>,
}

impl Reassembler {
    /// Takes the text of one line from a sender; returns a whole message without its leading `!` when
    /// this was its last piece. `now` in milliseconds of any steady clock.
    #[expect(clippy::arithmetic_side_effects, reason = "lengths of two texts in memory")]
    pub fn push(&mut self, from: Nick, text: &str, now: u64) -> Option<String> {
        self.buffers.retain(|_, (start, _)| now.saturating_sub(*start) <= MAX_ASSEMBLY_MS);
        let (piece, trailer) = text.split_at_checked(text.len().checked_sub(LAST.len())?)?;
        let begun = self.buffers.remove(&from);
        if begun.is_none() && !piece.starts_with(COMMAND_PREFIX) {
            return None;
        }
        let (start, mut message) = begun.unwrap_or((now, String::new()));
        if message.len() + piece.len() > MAX_MESSAGE {
            return None;
        }
        message.push_str(piece);
        match trailer {
            LAST => message.strip_prefix(COMMAND_PREFIX).map(str::to_owned),
            MORE if self.buffers.len() < MAX_SENDERS => {
                self.buffers.insert(from, (start, message));
                None
            }
            // Neither trailer: the partial message is dropped.
            _ => None,
        }
    }

    /// A sender left: forget its partial message.
    pub fn left(&mut self, nick: &Nick) {
        self.buffers.remove(nick);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_ASSEMBLY_MS, MAX_MESSAGE, MAX_PRIVMSG, Reassembler, private_lines};
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
            assert_eq!(reassembler.push(nick(), &piece, 0), None);
            assert!(reassembler.buffers.values().all(|(_, text)| text.len() <= MAX_MESSAGE));
        }
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.push(nick(), "!tx AAA ;", 0), None);
        assert_eq!(reassembler.push(nick(), "BBB ~", MAX_ASSEMBLY_MS + 1), None);
    }

    proptest! {
        #[test]
        fn messages_survive_the_channel(message in "[!-~]{1,2000}") {
            let lines = private_lines(&nick(), PrivateWord::Tx, &message);
            let mut reassembler = Reassembler::default();
            let mut out = None;
            for line in &lines {
                prop_assert!(line.len() <= MAX_PRIVMSG);
                prop_assert!(out.is_none());
                let text = line.strip_prefix("PRIVMSG J5DdKBhSf2Ykxqqy :").unwrap();
                out = reassembler.push(nick(), text, 0);
            }
            prop_assert_eq!(out.unwrap(), format!("tx {message}"));
        }

        #[test]
        fn receiving_never_panics(lines in proptest::collection::vec(".{0,40}", 0..20)) {
            let mut reassembler = Reassembler::default();
            for line in lines {
                let _ = reassembler.push(nick(), &line, 0);
            }
        }
    }
}
