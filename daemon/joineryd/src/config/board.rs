//! The board and what needs a press of its button.

use std::path::PathBuf;
use std::time::Duration;

use joinery_api::ConsentRules;
use joinery_wallet::bitcoin::Amount;

use super::file::BoardTable;
use super::{ConfigError, value};
use crate::cli::Options;

/// Words of a shutdown command.
const MAX_COMMAND: usize = 16;
/// Longest wait for a press, seconds.
const LONGEST_WAIT: u32 = 60;
/// Where user names are looked up.
const PASSWD: &str = "/etc/passwd";

/// The board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Board {
    /// Where its process is listened for; `None`: there is none.
    pub(crate) socket: Option<PathBuf>,
    /// The user that it must run as; `None`: our own.
    pub(crate) user: Option<u32>,
    /// What needs a press.
    pub(crate) rules: ConsentRules,
    /// What switches the machine off; empty: the button cannot.
    pub(crate) shutdown: Vec<String>,
    /// The panel shows what the wallet holds.
    pub(crate) show_balance: bool,
    /// After a power cut a press lets the maker go on.
    pub(crate) resume: bool,
}

impl Board {
    pub(super) fn build(options: &Options, file: BoardTable) -> Result<Self, ConfigError> {
        let socket = options.board_socket.clone().or(file.socket);
        if let Some(socket) = &socket
            && !socket.is_absolute()
        {
            return Err(value(
                "board.socket (--board-socket)",
                socket.display(),
                "must be an absolute path",
            ));
        }
        let mut rules = ConsentRules::default();
        for word in file.approve.unwrap_or_default() {
            match word.as_str() {
                "unlock" => rules.unlock = true,
                "send" => rules.send = true,
                _ => return Err(value("board.approve", word, "must be unlock or send")),
            }
        }
        if (rules.unlock || rules.send) && socket.is_none() {
            return Err(ConfigError::Contradiction(
                "board.approve needs board.socket (--board-socket): without a board nothing could be approved",
            ));
        }
        let resume = file.resume.unwrap_or(false);
        if resume && socket.is_none() {
            return Err(ConfigError::Contradiction(
                "board.resume needs board.socket (--board-socket): without a board nobody could press",
            ));
        }
        if let Some(sats) = file.approve_send_above_sats {
            let amount = Amount::from_sat(sats);
            if amount > Amount::MAX_MONEY {
                let reason = "must be an amount in satoshi";
                return Err(value("board.approve_send_above_sats", sats, reason));
            }
            rules.send_above = amount;
        }
        match file.approve_within_s {
            None => {}
            Some(seconds @ 1..=LONGEST_WAIT) => {
                rules.patience = Duration::from_secs(u64::from(seconds));
            }
            Some(seconds) => {
                return Err(value(
                    "board.approve_within_s",
                    seconds,
                    "must be from 1 to 60 seconds",
                ));
            }
        }
        let shutdown = file.shutdown_command.unwrap_or_default();
        if shutdown.len() > MAX_COMMAND || shutdown.first().is_some_and(String::is_empty) {
            return Err(value(
                "board.shutdown_command",
                shutdown.join(" "),
                "must be a program and at most 15 arguments",
            ));
        }
        Ok(Self {
            socket,
            user: file.user.map(|user| uid(&user)).transpose()?,
            rules,
            shutdown,
            show_balance: file.show_balance.unwrap_or(false),
            resume,
        })
    }
}

/// The number of a user that is given by name or number.
fn uid(user: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let table = std::fs::read_to_string(PASSWD).unwrap_or_default();
    find_uid(&table, user)
        .ok_or_else(|| value("board.user", user, "must be a user of this machine"))
}

/// Looks a name up in lines of `name:password:uid:…`.
fn find_uid(table: &str, user: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user && !user.is_empty()).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let table =
            "root:x:0:0:root:/root:/bin/sh\nrubbish\njoinery-board:x:998:997::/:/bin/false\n";
        assert_eq!(find_uid(table, "joinery-board"), Some(998));
        assert_eq!(find_uid(table, "root"), Some(0));
        for unknown in ["joinery", "", "rubbish", "x", "998"] {
            assert_eq!(find_uid(table, unknown), None, "{unknown}");
        }
    }
}
