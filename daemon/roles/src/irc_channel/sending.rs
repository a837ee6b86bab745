//! What we say.

use std::time::Duration;

use joinery_proto::irc::{
    MAX_MESSAGE, announcement_lines_within, is_sendable, private_lines_within,
};
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::private_message::PrivateWord;

use super::machine::IrcChannel;

/// Where a public message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// To all servers that are up.
    All,
    /// To one of them.
    Server(u16),
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The recipient is not in the channel of that server, or we are not.
    #[error("there is no way to {nick}")]
    NoRoute {
        /// Whom it was for.
        nick: Nick,
    },
    /// Too many lines wait already.
    #[error("too many lines wait to be sent")]
    Busy,
    /// It is empty or would end a line.
    #[error("the text cannot be in a line")]
    Text,
    /// It fits no line, or is larger than any peer takes.
    #[error("the text is too long")]
    TooLong,
}

impl IrcChannel {
    /// Sends a public message: `command fields…` without a leading `!`. It waits for its turn behind what was to be
    /// sent before. Where too many lines wait it is left out.
    ///
    /// # Errors
    /// [`SendError::Text`] or [`SendError::TooLong`]; it went nowhere.
    pub fn announce(&mut self, text: &str, to: Audience, now: Duration) -> Result<(), SendError> {
        if !is_sendable(text) {
            return Err(SendError::Text);
        }
        let lines = |channel: &str, longest: usize| {
            let line = format!("PRIVMSG {channel} :!{text}");
            (line.len() <= longest).then(|| vec![line])
        };
        self.publish(to, now, lines)
    }

    /// Announces offers, as many to a line as fit.
    ///
    /// # Errors
    /// [`SendError::TooLong`]; they went nowhere.
    pub fn announce_offers(
        &mut self,
        offers: &[Offer],
        to: Audience,
        now: Duration,
    ) -> Result<(), SendError> {
        let lines = |channel: &str, longest: usize| {
            let lines = announcement_lines_within(longest, channel, offers);
            lines.iter().all(|line| line.len() <= longest).then_some(lines)
        };
        self.publish(to, now, lines)
    }

    fn publish(
        &mut self,
        to: Audience,
        now: Duration,
        lines: impl Fn(&str, usize) -> Option<Vec<String>>,
    ) -> Result<(), SendError> {
        self.now = self.now.max(now);
        let mut ready = Vec::new();
        for id in 0..self.count() {
            let wanted = to == Audience::All || to == Audience::Server(id);
            let Some(server) = self.server(id).filter(|server| wanted && server.is_up()) else {
                continue;
            };
            let lines = lines(server.address.channel(), server.longest);
            ready.push((id, lines.ok_or(SendError::TooLong)?));
        }
        for (id, lines) in ready {
            if let Some(server) = self.server(id).filter(|server| server.has_room(lines.len())) {
                server.enqueue(lines);
                self.flush(id);
            }
        }
        Ok(())
    }

    /// Asks all makers for their offers. Requests above two a minute wait; several that wait become one.
    pub fn request_orderbook(&mut self, to: Audience, now: Duration) {
        self.now = self.now.max(now);
        for id in 0..self.count() {
            let wanted = to == Audience::All || to == Audience::Server(id);
            if let Some(server) = self.server(id).filter(|server| wanted && server.is_up()) {
                server.want_orderbook();
                self.flush(id);
            }
        }
    }

    /// Signs a private message for the network of `server` and sends it there, cut into lines that go out one after
    /// the other behind what waits already. Which way a message takes is decided by [`crate::routes::Routes`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn send_private(
        &mut self,
        server: u16,
        to: Nick,
        word: PrivateWord,
        payload: &str,
        now: Duration,
    ) -> Result<(), SendError> {
        self.now = self.now.max(now);
        let key = std::sync::Arc::clone(&self.config.key);
        let place = self.server(server).filter(|server| server.is_up());
        let place = place.filter(|server| server.present.contains_key(&to));
        let place = place.ok_or(SendError::NoRoute { nick: to })?;
        // Pieces are cut between bytes; everything that the protocol defines is ASCII.
        if !is_sendable(payload) || !payload.is_ascii() {
            return Err(SendError::Text);
        }
        let text = key.sign_message(word, payload, &place.hostid);
        let message = text.split_once(' ').map(|(_, message)| message).unwrap_or_default();
        if text.len() >= MAX_MESSAGE {
            return Err(SendError::TooLong);
        }
        let lines = private_lines_within(place.longest, &to, word, message);
        if !place.has_room(lines.len()) {
            return Err(SendError::Busy);
        }
        place.enqueue(lines);
        self.flush(server);
        Ok(())
    }
}
