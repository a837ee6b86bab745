//! The IRC message channel with its sockets: one [`joinery_roles::irc_channel::IrcChannel`], which decides, in a task of
//! its own that does what it says. Only for peers of the reference that are not on the onion channel.
//!
//! * News arrive as [`ChannelEvent`]s on the queue that the caller gives, which may be that of the role's onion channel.
//!   A queue that is not read makes the channel stop reading, never grow.
//! * [`IrcHandle`] sends, shows how things stand ([`IrcStatus`]) and stops. When the last handle is dropped, or the
//!   receiver of the news, the channel ends as well.
//!
//! Servers are reached through the SOCKS5 proxy (Tor), by name: no name is ever looked up on this machine, and each
//! server gets circuits of its own. Only addresses of this machine itself are dialled without the proxy. TLS, where a
//! server has it, is spoken through the proxy; certificates are verified, which the reference does not do.
//!
//! ```no_run
//! # async fn example(key: joinery_proto::private_message::NickKey)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use joinery_net::irc::{IrcSockets, spawn};
//! use joinery_roles::irc_channel::{Audience, IrcConfig, IrcServer};
//!
//! let (sender, mut events) = tokio::sync::mpsc::channel(256);
//! let mut sockets = IrcSockets::new("taker");
//! sockets.proxy = Some(([127, 0, 0, 1], 9050).into());
//! let mut config = IrcConfig::new(key.into());
//! config.servers = vec![IrcServer::new("irc.example", 6697, "joinmarket-pit", "mainnet", true)?];
//! let channel = spawn(sockets, config, sender)?;
//! channel.ready().await?;
//! channel.request_orderbook(Audience::All).await?;
//! while let Some(event) = events.recv().await {
//!     println!("{event:?}");
//! }
//! # Ok(()) }
//! ```

mod dial;
mod driver;
mod handle;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use joinery_roles::event::ChannelEvent;
use joinery_roles::irc_channel::{IrcChannel, IrcConfig, IrcConfigError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::electrum::{ConfigError, TlsTrust};

pub use handle::{ChannelStopped, IrcHandle, IrcStatus, NotSaid};

/// Commands that wait for the task.
const COMMANDS: usize = 64;
/// Numbers of links that each channel has for itself.
const LINKS: u64 = 1 << 40;

/// Where the numbers of the next channel's links begin: never among those of onion channels, which count up from 0.
static NEXT_LINKS: AtomicU64 = AtomicU64::new(1 << 63);

/// What the sockets of a channel need to know.
#[derive(Debug)]
pub struct IrcSockets {
    /// Whose channel it is, in a word: part of each user name at the proxy, and in the log.
    pub purpose: &'static str,
    /// SOCKS5 proxy: Tor. Without one only loopback is dialled.
    pub proxy: Option<SocketAddr>,
    /// Which certificates are believed, server by server in the order of the configuration; those of the system where
    /// there is no entry.
    pub trust: Vec<TlsTrust>,
    /// How long a server may take to read a line before it is given up.
    pub write_timeout: Duration,
    /// Lines that may wait for a server to read them; one more and it is given up.
    pub write_queue: usize,
}

impl IrcSockets {
    /// No proxy, the system's certificates, and the usual limits.
    #[must_use]
    pub const fn new(purpose: &'static str) -> Self {
        Self {
            purpose,
            proxy: None,
            trust: Vec::new(),
            write_timeout: Duration::from_secs(30),
            write_queue: 64,
        }
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The machine does not take its configuration.
    #[error(transparent)]
    Config(#[from] IrcConfigError),
    /// A server wants TLS, and the system has no certificates.
    #[error(transparent)]
    Tls(#[from] ConfigError),
}

/// Starts a channel in a task of its own. Must be called within a runtime. What [`IrcConfig`] says of links is set here.
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(
    sockets: IrcSockets,
    mut config: IrcConfig,
    events: mpsc::Sender<ChannelEvent>,
) -> Result<IrcHandle, SpawnError> {
    config.first_link = NEXT_LINKS.fetch_add(LINKS, Ordering::Relaxed);
    let dialer = dial::Dialer::new(&sockets, &config.servers)?;
    let channel = IrcChannel::new(config, rand::random())?;
    let nick = channel.nick();
    let (calls, commands) = mpsc::channel(COMMANDS);
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (status, statuses) = watch::channel(IrcStatus::of(&channel));
    let driver = driver::Driver::new(channel, sockets, dialer, events, status);
    let (ends, ended) = (stop.clone(), stopped.clone().drop_guard());
    tokio::spawn(async move {
        // Told even when the driver panics.
        let _ended = ended;
        driver.run(commands, ends).await;
    });
    Ok(IrcHandle::new(nick, calls, statuses, stop, stopped))
}
