//! What the board says to the daemon.

use serde::Serialize;

use super::{RequestId, VERSION};
use crate::Panel;

/// A message to the daemon. None of them carries more than the id of the request that was on the panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Sent first on each connection and whenever a panel appears or is lost: `panel` is `None` while nothing can be
    /// shown, and then nothing can be approved either.
    Hello {
        /// The panel that works now.
        panel: Option<Panel>,
    },
    /// The person approves this request, which was shown in full.
    Press {
        /// The request.
        pending: RequestId,
    },
    /// The person refuses this request; nothing else happens.
    Refuse {
        /// The request.
        pending: RequestId,
    },
    /// The button was held for three seconds: refuse what is pending, lock the wallet, stop every role.
    Hold {
        /// The request that was on the panel, if any.
        pending: Option<RequestId>,
    },
    /// The button was held for ten seconds: switch the machine off in an orderly way.
    Shutdown,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    panel: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

impl Message {
    /// The message as a line of JSON with its line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let plain = |r#type| Line { v: VERSION, r#type, pending: None, panel: None, version: None };
        let line = match self {
            Self::Hello { panel } => Line {
                panel: Some(panel.map_or("none", Panel::name)),
                version: Some(env!("CARGO_PKG_VERSION")),
                ..plain("hello")
            },
            Self::Press { pending } => Line { pending: Some(pending.as_str()), ..plain("press") },
            Self::Refuse { pending } => Line { pending: Some(pending.as_str()), ..plain("refuse") },
            Self::Hold { pending } => {
                Line { pending: pending.as_ref().map(RequestId::as_str), ..plain("hold") }
            }
            Self::Shutdown => plain("shutdown"),
        };
        let mut text = serde_json::to_string(&line).expect("a struct of strings is always JSON");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_document() {
        let id = || RequestId::try_from("u-1".to_owned()).unwrap();
        let lines: Vec<String> = [
            Message::Hello { panel: Some(Panel::Small) },
            Message::Press { pending: id() },
            Message::Refuse { pending: id() },
            Message::Hold { pending: Some(id()) },
            Message::Hold { pending: None },
            Message::Shutdown,
            Message::Hello { panel: None },
        ]
        .iter()
        .map(Message::to_line)
        .collect();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            lines.concat(),
            include_str!("../../tests/link/board-to-daemon.jsonl").replace("VERSION", version)
        );
    }
}
