//! What an IRC channel is made of.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::irc::channel_name;
use joinery_proto::private_message::NickKey;

/// Most servers of one channel; the reference has one or two.
pub const MAX_SERVERS: usize = 16;
/// Longest host name.
const MAX_HOST: usize = 253;
/// Longest name of a channel, with its `#`.
const MAX_CHANNEL: usize = 50;

/// A server to connect to, and the channel of the market there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrcServer {
    host: String,
    port: u16,
    channel: String,
    tls: bool,
}

/// Why this is no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IrcServerError {
    /// Not a host name or address.
    #[error("the host must be 1 to 253 printable characters")]
    Host,
    /// Port 0.
    #[error("the port must be 1 to 65535")]
    Port,
    /// Not a channel's name.
    #[error("the channel must be 1 to 49 letters, digits, hyphens, dots or underscores")]
    Channel,
}

impl IrcServer {
    /// A server. `channel` is the configured name without `#`; `network`, the JoinMarket network, says which suffix it
    /// gets (`spec/protocol.md` 5).
    ///
    /// # Errors
    /// [`IrcServerError`].
    pub fn new(
        host: &str,
        port: u16,
        channel: &str,
        network: &str,
        tls: bool,
    ) -> Result<Self, IrcServerError> {
        let printable = host.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.len() > MAX_HOST || !printable {
            return Err(IrcServerError::Host);
        }
        if port == 0 {
            return Err(IrcServerError::Port);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name = channel_name(channel, network);
        if channel.is_empty() || name.len() > MAX_CHANNEL || !channel.bytes().all(plain) {
            return Err(IrcServerError::Channel);
        }
        Ok(Self { host: host.to_owned(), port, channel: name, tls })
    }

    /// Host name or address. Names are never looked up on this side of the proxy.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, not 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The channel with its `#`.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// What signatures cover until the server tells the name of its network.
    pub(super) fn fallback_hostid(&self) -> String {
        format!("{}{}", self.host, self.port)
    }
}

/// Waiting times (`spec/protocol.md` 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrcTiming {
    /// Longest time for a connection to come up; by Tor that takes its time.
    pub connect: Duration,
    /// Longest time from there until we are in the channel; our old connection may hold the nick that long.
    pub register: Duration,
    /// Longest wait for the end of the list of who is in the channel.
    pub list: Duration,
    /// Pause before a nick that is in use is tried again.
    pub nick_retry: Duration,
    /// Time between two lines of ours; servers close for floods.
    pub line_gap: Duration,
    /// How often the server is pinged.
    pub ping: Duration,
    /// Silence after which the connection is taken for dead.
    pub dead: Duration,
    /// First pause before a server is dialled again; e times as much after each failure.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// Shortest pause after a server refused us.
    pub refused_pause: Duration,
    /// A connection that lasted this long counts as good again.
    pub settled: Duration,
}

impl Default for IrcTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(120),
            register: seconds(300),
            list: seconds(10),
            nick_retry: seconds(10),
            line_gap: Duration::from_millis(1_300),
            ping: seconds(120),
            dead: seconds(300),
            retry_first: seconds(1),
            retry_max: seconds(3_600),
            refused_pause: seconds(300),
            settled: seconds(60),
        }
    }
}

impl IrcTiming {
    /// For a private chain on one machine: everything that waits for a network waits a tenth.
    #[must_use]
    pub fn regtest() -> Self {
        let tenth = |time: Duration| time / 10;
        let normal = Self::default();
        Self {
            nick_retry: tenth(normal.nick_retry),
            line_gap: tenth(normal.line_gap),
            retry_first: tenth(normal.retry_first),
            retry_max: tenth(normal.retry_max),
            refused_pause: tenth(normal.refused_pause),
            settled: tenth(normal.settled),
            ..normal
        }
    }
}

/// What an IRC channel is made of.
#[derive(Debug, Clone)]
pub struct IrcConfig {
    /// Key of our nick, drawn for this run only; the same as on the onion channel of the same role.
    pub key: Arc<NickKey>,
    /// Servers; the number in [`crate::event::Source::Irc`] is the place in this list.
    pub servers: Vec<IrcServer>,
    /// Waiting times.
    pub timing: IrcTiming,
    /// Number of the first link. Channels of one process take ranges that do not meet.
    pub first_link: u64,
}

impl IrcConfig {
    /// Defaults: no servers.
    #[must_use]
    pub fn new(key: Arc<NickKey>) -> Self {
        Self { key, servers: Vec::new(), timing: IrcTiming::default(), first_link: 0 }
    }
}

/// Why a channel cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IrcConfigError {
    /// More servers than [`MAX_SERVERS`].
    #[error("{count} IRC servers are configured; at most {MAX_SERVERS} are possible")]
    TooManyServers {
        /// How many.
        count: usize,
    },
}
