//! What a role holds of its IRC channel.

use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::private_message::PrivateWord;
use joinery_roles::irc_channel::{Audience, IrcChannel, SendError, ServerState, ServerStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Start-up waits this long for every server, then one is enough (`spec/protocol.md` 5).
const PATIENCE: Duration = Duration::from_secs(60);

/// How a channel does, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IrcStatus {
    /// Each server, in the order of the configuration.
    pub servers: Vec<ServerStatus>,
    /// Why the proxy (Tor) cannot be used; `None` when it could be used the last time, or was not needed yet.
    pub proxy_failure: Option<String>,
}

impl IrcStatus {
    pub(super) fn of(channel: &IrcChannel) -> Self {
        Self { servers: channel.servers().collect(), proxy_failure: None }
    }

    /// Whether anything can be sent: at least one server is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.count_up() > 0
    }

    /// How many servers are up.
    #[must_use]
    pub fn count_up(&self) -> usize {
        self.servers.iter().filter(|server| server.state == ServerState::Up).count()
    }
}

/// The channel has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the IRC channel has stopped")]
pub struct ChannelStopped;

/// Why something was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSaid {
    /// There is no channel any more.
    #[error(transparent)]
    Stopped(#[from] ChannelStopped),
    /// The channel does not take it.
    #[error(transparent)]
    Refused(#[from] SendError),
}

pub(super) type Call = Box<dyn FnOnce(&mut IrcChannel, Duration) + Send>;

/// Speaks to a running channel. Waiting for an answer of it never waits for the network or for whoever reads the
/// news. When the last handle is dropped the channel closes its connections and ends.
#[derive(Debug, Clone)]
pub struct IrcHandle {
    nick: Nick,
    started: Instant,
    calls: mpsc::Sender<Call>,
    status: watch::Receiver<IrcStatus>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl IrcHandle {
    pub(super) fn new(
        nick: Nick,
        calls: mpsc::Sender<Call>,
        status: watch::Receiver<IrcStatus>,
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
    pub fn status(&self) -> watch::Receiver<IrcStatus> {
        self.status.clone()
    }

    /// Waits for the end of start-up: every server is up, or at least one and a minute has passed.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn ready(&self) -> Result<(), ChannelStopped> {
        let mut status = self.status.clone();
        let all = |status: &IrcStatus| status.is_up() && status.count_up() == status.servers.len();
        tokio::select! {
            every = status.wait_for(all) => return every.map(drop).map_err(|_| ChannelStopped),
            () = sleep_until(self.started + PATIENCE) => {}
        }
        status.wait_for(IrcStatus::is_up).await.map(drop).map_err(|_| ChannelStopped)
    }

    /// Sends a public message: `command fields…` without a leading `!`.
    ///
    /// # Errors
    /// [`NotSaid`]: it does not fit a line, or the channel has ended.
    pub async fn announce(&self, text: impl Into<String>, to: Audience) -> Result<(), NotSaid> {
        let text = text.into();
        Ok(self.call(move |channel, now| channel.announce(&text, to, now)).await??)
    }

    /// Announces offers, as many to a line as fit.
    ///
    /// # Errors
    /// [`NotSaid`]: one does not fit a line, or the channel has ended.
    pub async fn announce_offers(&self, offers: Vec<Offer>, to: Audience) -> Result<(), NotSaid> {
        Ok(self.call(move |channel, now| channel.announce_offers(&offers, to, now)).await??)
    }

    /// Asks all makers for their offers, at most twice a minute.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn request_orderbook(&self, to: Audience) -> Result<(), ChannelStopped> {
        self.call(move |channel, now| channel.request_orderbook(to, now)).await
    }

    /// Signs a private message for the network of a server and sends it there ([`IrcChannel::send_private`]).
    ///
    /// # Errors
    /// [`NotSaid`]; nothing was sent.
    pub async fn send_private(
        &self,
        server: u16,
        to: Nick,
        word: PrivateWord,
        payload: impl Into<String>,
    ) -> Result<(), NotSaid> {
        let payload = payload.into();
        let said = move |channel: &mut IrcChannel, now| {
            channel.send_private(server, to, word, &payload, now)
        };
        Ok(self.call(said).await??)
    }

    /// Runs a short function on the machine, with its time, for whatever else it can; what it wants done is done right
    /// after.
    ///
    /// # Errors
    /// The channel has ended.
    pub async fn call<T: Send + 'static>(
        &self,
        function: impl FnOnce(&mut IrcChannel, Duration) -> T + Send + 'static,
    ) -> Result<T, ChannelStopped> {
        let (answer, result) = oneshot::channel();
        let call: Call = Box::new(move |channel, now| {
            // Whoever asked may have gone.
            let _ = answer.send(function(channel, now));
        });
        self.calls.send(call).await.map_err(|_| ChannelStopped)?;
        result.await.map_err(|_| ChannelStopped)
    }

    /// Asks the channel to end. Servers are told that we leave, if they listen within two seconds.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the channel has ended and every connection is closed.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }
}
