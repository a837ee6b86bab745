//! Routed lines: who speaks to whom (`spec/protocol.md` 4.8).
//!
//! `from!PUBLIC!text` or `from!to!text`; exactly the first two separators are split off, the text may hold
//! more of them.

use std::fmt;

use crate::nick::{Nick, NickError};

/// Separates routing fields, and commands within a message.
pub const COMMAND_PREFIX: char = '!';
/// Recipient of public lines.
pub const PUBLIC: &str = "PUBLIC";

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// Everybody.
    Public,
    /// One nick.
    Nick(Nick),
}

/// A line split at its routing fields. The sender is a claim until a signature proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutedLine<'a> {
    /// Claimed sender.
    pub from: Nick,
    /// Recipient.
    pub to: Recipient,
    /// The rest: `command fields…` without a leading `!`.
    pub text: &'a str,
}

/// Why a line cannot be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Fewer than two separators.
    #[error("expected from!to!text")]
    Separators,
    /// Sender or recipient is not a nick.
    #[error(transparent)]
    Nick(#[from] NickError),
    /// Empty, or an empty command (`!!`), which reference peers reject.
    #[error("no command after the recipient")]
    Empty,
}

impl<'a> RoutedLine<'a> {
    /// Splits a line.
    ///
    /// # Errors
    /// [`LineError`]; the line is to be ignored.
    pub fn parse(line: &'a str) -> Result<Self, LineError> {
        let (from, rest) = line.split_once(COMMAND_PREFIX).ok_or(LineError::Separators)?;
        let (to, text) = rest.split_once(COMMAND_PREFIX).ok_or(LineError::Separators)?;
        if text.is_empty() || text.starts_with(COMMAND_PREFIX) {
            return Err(LineError::Empty);
        }
        let to = if to == PUBLIC { Recipient::Public } else { Recipient::Nick(to.parse()?) };
        Ok(Self { from: from.parse()?, to, text })
    }
}

/// The wire form.
impl fmt::Display for RoutedLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Recipient::Public => write!(f, "{}!{PUBLIC}!{}", self.from, self.text),
            Recipient::Nick(to) => write!(f, "{}!{to}!{}", self.from, self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LineError, RoutedLine};

    #[test]
    fn rejects_double_separator_and_foreign_nicks() {
        let line = "J5CdDnhVDhc5R7Gg!J5DdKBhSf2Ykxqqy!!fill 0";
        assert_eq!(RoutedLine::parse(line), Err(LineError::Empty));
        assert!(RoutedLine::parse("J5CdDnhVDhc5R7Gg!public!orderbook").is_err());
        assert!(RoutedLine::parse("J5CdDnhVDhc5R7Gg!PUBLIC").is_err());
        assert!(RoutedLine::parse("nobody!PUBLIC!orderbook").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(line in "(J5CdDnhVDhc5R7Gg!)?(PUBLIC|J5DdKBhSf2Ykxqqy)?.{0,60}") {
            if let Ok(routed) = RoutedLine::parse(&line) {
                prop_assert_eq!(routed.to_string(), line);
            }
        }
    }
}
