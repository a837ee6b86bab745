//! The onion message channel with its sockets: one [`joinery_roles::channel::OnionChannel`], which decides, in a task
//! of its own that does what it says. The order book watcher, a taker and a maker each [`spawn`] one with their own
//! nick; nothing is shared between them, and no circuit either.
//!
//! * News arrive as [`ChannelEvent`]s on the queue that the caller gives: ways up and down, public claims, private
//!   messages with their sender proved, who was seen and who left. A queue that is not read makes the channel stop
//!   reading, never grow. The other channel of a role (IRC) may write to the same queue.
//! * [`OnionHandle`] sends, shows how things stand ([`OnionStatus`]) and stops. When the last handle is dropped, or the
//!   receiver of the news, the channel ends as well.
//!
//! A maker gives a [`Serving`]: the channel then listens on this machine, has Tor make an onion service in front of
//! that, dials directories when it can be reached, and removes it at the end; [`OnionStatus::service`] says how far
//! that is. Inbound connections stay within the limits of `spec/protocol.md` 13.2: 64 of them, 15 s for the handshake,
//! ten minutes of silence, lines of 64 KiB, 10 lines a second.
//!
//! Names are never looked up on this machine: onion names travel to the SOCKS5 proxy as they are, each directory and
//! each peer with a user and password of its own, so that Tor keeps it on its own circuits (`spec/protocol.md` 4.2).
//! Besides, only addresses of this machine are dialled, and those only where the channel's configuration allows it.
//!
//! ```no_run
//! # async fn example(key: joinery_proto::private_message::NickKey, maker: joinery_proto::nick::Nick)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use joinery_net::onion::{OnionConfig, spawn};
//! use joinery_proto::private_message::PrivateWord;
//! use joinery_roles::channel::ChannelConfig;
//! use joinery_roles::event::ChannelEvent;
//!
//! let (sender, mut events) = tokio::sync::mpsc::channel(256);
//! let mut config = OnionConfig::new("taker");
//! config.proxy = Some(([127, 0, 0, 1], 9050).into());
//! // The key is drawn for this round only. Directories, location, timing: see `ChannelConfig`.
//! let channel = spawn(config, ChannelConfig::new("mainnet", key.into()), sender)?;
//! channel.ready().await?;
//! channel.request_orderbook().await?;
//! while let Some(event) = events.recv().await {
//!     if let ChannelEvent::Private { from, via, .. } = event {
//!         // Answers travel on the way on which the question came.
//!         channel.send_private(from, PrivateWord::Push, "…", Some(via)).await?;
//!         break;
//!     }
//! }
//! // Lets go what was said last, closes everything, and returns when that is done.
//! channel.stop();
//! channel.stopped().await;
//! # Ok(()) }
//! ```

mod dial;
mod driver;
mod handle;
mod serve;
mod status;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use joinery_roles::channel::{ChannelConfig, ChannelConfigError, OnionChannel};
use joinery_roles::event::ChannelEvent;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use handle::{ChannelStopped, NotSaid, OnionHandle};
pub use serve::{ServeError, ServiceState, Serving};
pub use status::OnionStatus;

use serve::Service;

/// Commands that wait for the task.
const COMMANDS: usize = 64;
/// Numbers of links that each channel has for itself: more than a thousand years of one a second would take.
const LINKS: u64 = 1 << 40;

/// Where the numbers of the next channel's links begin: [`joinery_roles::event::Source::Direct`] means one connection of
/// the whole process.
static NEXT_LINKS: AtomicU64 = AtomicU64::new(0);

/// What the sockets of a channel need to know.
#[derive(Debug)]
pub struct OnionConfig {
    /// Whose channel it is, in a word: part of each user name at the proxy, and in the log.
    pub purpose: &'static str,
    /// SOCKS5 proxy: Tor. Without one only loopback is dialled.
    pub proxy: Option<SocketAddr>,
    /// How peers reach us; `None` for takers and watchers, whom nobody can reach.
    pub serving: Option<Serving>,
    /// How long a peer may take to read a line before it is given up.
    pub write_timeout: Duration,
    /// Lines that may wait for a peer to read them; one more and it is given up.
    pub write_queue: usize,
}

impl OnionConfig {
    /// Neither proxy nor service, and the usual limits.
    #[must_use]
    pub const fn new(purpose: &'static str) -> Self {
        Self {
            purpose,
            proxy: None,
            serving: None,
            write_timeout: Duration::from_secs(30),
            write_queue: 128,
        }
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The machine does not take its configuration.
    #[error(transparent)]
    Config(#[from] ChannelConfigError),
    /// We cannot listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Starts a channel in a task of its own. Must be called within a runtime. What [`ChannelConfig`] says of links is set
/// here, and of our location when there is a [`OnionConfig::serving`].
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(
    mut config: OnionConfig,
    mut channel: ChannelConfig,
    events: mpsc::Sender<ChannelEvent>,
) -> Result<OnionHandle, SpawnError> {
    channel.first_link = NEXT_LINKS.fetch_add(LINKS, Ordering::Relaxed);
    let service = match config.serving.take() {
        Some(serving) => Service::start(serving, channel.allow_plain)?,
        None => Service::none(),
    };
    channel.await_location |= service.is_awaited();
    if let Some(location) = &service.location {
        channel.location = location.clone();
    }
    let channel = OnionChannel::new(channel, rand::random())?;
    let nick = channel.nick();
    let (calls, commands) = mpsc::channel(COMMANDS);
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (status, statuses) = watch::channel(OnionStatus::of(&channel, service.state()));
    let driver = driver::Driver::new(channel, config, service, events, status);
    let (ends, ended) = (stop.clone(), stopped.clone().drop_guard());
    tokio::spawn(async move {
        // Told even when the driver panics.
        let _ended = ended;
        driver.run(commands, ends).await;
    });
    Ok(OnionHandle::new(nick, calls, statuses, stop, stopped))
}
