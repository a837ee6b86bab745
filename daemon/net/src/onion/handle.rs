//! What a role holds of its channel.

use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;
use joinery_roles::channel::{Audience, OnionChannel, SendError};
use joinery_roles::event::Source;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::OnionStatus;

/// Start-up waits this long for every directory, then one is enough (`spec/protocol.md` 4.10).
const PATIENCE: Duration = Duration::from_secs(60);

/// The channel has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message channel has stopped")]
pub struct ChannelStopped;

/// Why something was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSaid {
    /// There is no channel any more.
    #[error(transparent)]
    Stopped(#[from] ChannelStopped),
    /// There is no way to the recipient, or it does not fit a line.
    #[error(transparent)]
    Refused(#[from] SendError),
}

pub(super) type Call = Box<dyn FnOnce(&mut OnionChannel, Duration) + Send>;

/// Speaks to a running channel. Waiting for an answer of it never waits for the network or for whoever reads the
/// news. When the last handle is dropped the channel closes its connections and ends.
#[derive(Debug, Clone)]
pub struct OnionHandle {
    nick: Nick,
    started: Instant,
    calls: mpsc::Sender<Call>,
    status: watch::Receiver<OnionStatus>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl OnionHandle {
    pub(super) fn new(
        nick: Nick,
        calls: mpsc::Sender<Call>,
        status: watch::Receiver<OnionStatus>,
        stop: CancellationToken,
        stopped: CancellationToken,
    ) -> Self {
        Self { nick, started: Instant::now(), calls, status, stop, stopped }
    }

    /// Our nick on this channel.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.nick
    }

    /// How the channel does, now and whenever it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<OnionStatus> {
        self.status.clone()
    }

    /// Waits for the end of start-up: every directory is up, or at least one and a minute has passed.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn ready(&self) -> Result<(), ChannelStopped> {
        let mut status = self.status.clone();
        let all =
            |status: &OnionStatus| status.is_up() && status.count_up() == status.directories.len();
        let patience = sleep_until(self.started + PATIENCE);
        tokio::select! {
            every = status.wait_for(all) => return every.map(drop).map_err(|_| ChannelStopped),
            () = patience => {}
        }
        status.wait_for(OnionStatus::is_up).await.map(drop).map_err(|_| ChannelStopped)
    }

    /// Sends a public message: `command fields…` without a leading `!`. It waits for the budget of each directory
    /// (20 a minute), and goes to none that is not up.
    ///
    /// # Errors
    /// [`NotSaid`]: it does not fit a line, or the channel has ended.
    pub async fn announce(&self, text: impl Into<String>, to: Audience) -> Result<(), NotSaid> {
        let text = text.into();
        let said = self.call(move |channel, now| channel.announce(&text, to, now)).await?;
        said.map_err(|error| SendError::from(error).into())
    }

    /// Asks all makers for their offers, on every directory that is up, at most twice a minute.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn request_orderbook(&self) -> Result<(), ChannelStopped> {
        self.call(OnionChannel::request_orderbook).await
    }

    /// Asks for peer lists where they are given ([`OnionChannel::request_peers`]).
    ///
    /// # Errors
    /// When the channel has ended.
    pub async fn request_peers(&self) -> Result<(), ChannelStopped> {
        self.call(OnionChannel::request_peers).await
    }

    /// Signs and sends a private message on exactly one way; `prefer` is the one on which the message came that this
    /// one answers ([`OnionChannel::send_private`]).
    ///
    /// # Errors
    /// [`NotSaid`]; nothing was sent.
    pub async fn send_private(
        &self,
        to: Nick,
        word: PrivateWord,
        payload: impl Into<String>,
        prefer: Option<Source>,
    ) -> Result<(), NotSaid> {
        let payload = payload.into();
        let said = move |channel: &mut OnionChannel, now| {
            channel.send_private(to, word, &payload, prefer, now)
        };
        Ok(self.call(said).await??)
    }

    /// Dials a peer ahead of the first message to it, when its address is known. Returns whether a direct connection
    /// is there or under way.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn connect_peer(&self, nick: Nick) -> Result<bool, ChannelStopped> {
        self.call(move |channel, now| channel.connect_peer(nick, now)).await
    }

    /// Runs a short function on the machine, with its time, for whatever else it can; what it wants done is done right
    /// after.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn call<T: Send + 'static>(
        &self,
        function: impl FnOnce(&mut OnionChannel, Duration) -> T + Send + 'static,
    ) -> Result<T, ChannelStopped> {
        let (answer, result) = oneshot::channel();
        let call: Call = Box::new(move |channel, now| {
            // Whoever asked may have gone.
            let _ = answer.send(function(channel, now));
        });
        self.calls.send(call).await.map_err(|_| ChannelStopped)?;
        result.await.map_err(|_| ChannelStopped)
    }

    /// Asks the channel to end. What was said before still goes out, as far as it goes within two seconds.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the channel has ended and every connection is closed.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }
}
