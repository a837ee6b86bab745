//! What a channel is made of.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::onion::features::{
    Features, NEUTRINO_COMPAT, NICK_AUTH, PEERLIST_FEATURES, PING,
};
use joinery_proto::onion::location::{Location, PeerAddress};
use joinery_proto::private_message::NickKey;

/// Most directories of one channel; more are in nobody's list.
pub const MAX_DIRECTORIES: usize = 64;

/// A directory to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryAddress {
    /// Where it is dialled.
    pub address: PeerAddress,
    /// The identity that it must name in nick authentication (`spec/protocol.md` 14.4). `None`: nick
    /// authentication is not offered there.
    pub identity: Option<String>,
}

impl DirectoryAddress {
    /// A directory with the identity that follows from an onion address.
    #[must_use]
    pub fn new(address: PeerAddress) -> Self {
        let identity = directory_identity(address.host(), address.port());
        Self { address, identity }
    }
}

/// Identity of a directory by its onion address: `<56 lower-case characters>.onion:<port>`. Others have one
/// only by configuration (vector `extensions.json`).
#[must_use]
pub fn directory_identity(host: &str, port: u16) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let identity = format!("{host}:{port}");
    let address: PeerAddress = identity.parse().ok()?;
    address.is_onion().then_some(identity)
}

/// What is done about nick authentication with directories that offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NickAuthPolicy {
    /// Prove the nick where a directory asks; do without where it does not.
    #[default]
    PreferVerified,
    /// Use no directory that does not verify nicks.
    RequireVerified,
    /// Do not offer it.
    Disabled,
}

/// Waiting times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelTiming {
    /// Longest time for a connection to come up: Tor may have to solve a puzzle (`spec/protocol.md` 4.2).
    pub connect: Duration,
    /// Longest time for a directory's answer to our handshake.
    pub directory_handshake: Duration,
    /// Longest time for each step of nick authentication.
    pub nick_auth: Duration,
    /// First pause before a directory is dialled again; half as much again after each failure.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// Earliest and latest end of the jitter that is added to a pause: one second less to five more.
    pub retry_jitter: (Duration, Duration),
    /// Shortest pause after a directory refused us: it may still hold our dead connection.
    pub refused_pause: Duration,
    /// A connection that lasted this long counts as good again.
    pub settled: Duration,
    /// How long the first message to a maker waits for a direct connection.
    pub direct_wait: Duration,
}

impl Default for ChannelTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(120),
            directory_handshake: seconds(60),
            nick_auth: seconds(30),
            retry_first: seconds(6),
            retry_max: seconds(600),
            retry_jitter: (seconds(1), seconds(5)),
            refused_pause: seconds(60),
            settled: seconds(60),
            direct_wait: seconds(5),
        }
    }
}

impl ChannelTiming {
    /// For a private chain on one machine: everything that waits for a network waits a tenth.
    #[must_use]
    pub fn regtest() -> Self {
        let tenth = |time: Duration| time / 10;
        let normal = Self::default();
        Self {
            retry_first: tenth(normal.retry_first),
            retry_max: tenth(normal.retry_max),
            retry_jitter: (tenth(normal.retry_jitter.0), tenth(normal.retry_jitter.1)),
            refused_pause: tenth(normal.refused_pause),
            settled: tenth(normal.settled),
            direct_wait: tenth(normal.direct_wait),
            ..normal
        }
    }
}

/// What a channel is made of.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// Name of the JoinMarket network: `mainnet`, `testnet` (also for regtest with reference peers),
    /// `signet`, `regtest`.
    pub network: String,
    /// Key of our nick, drawn for this run only.
    pub key: Arc<NickKey>,
    /// Directories; [`crate::event::DirectoryId`] is the place in this list.
    pub directories: Vec<DirectoryAddress>,
    /// Where we serve. May be set later with [`super::OnionChannel::set_location`].
    pub location: Location,
    /// Whether directories are dialled only after [`super::OnionChannel::set_location`] was called: a maker's first
    /// handshake must already say where it serves.
    pub await_location: bool,
    /// Whether we can fill in extended coin texts, as makers do: shown on direct connections only.
    pub neutrino_compat: bool,
    /// Whether directories are asked for their peers after connecting, as takers do.
    pub want_peers: bool,
    /// Whether peers are dialled for direct connections.
    pub dial_peers: bool,
    /// Whether addresses other than version 3 onions are dialled: loopback on regtest only. The driver
    /// refuses anything beyond loopback a second time.
    pub allow_plain: bool,
    /// Nick authentication.
    pub nick_auth: NickAuthPolicy,
    /// Waiting times.
    pub timing: ChannelTiming,
    /// Number of the first link. Channels of one process take ranges that do not meet.
    pub first_link: u64,
}

impl ChannelConfig {
    /// Defaults: no directories, not serving, everything onion.
    #[must_use]
    pub fn new(network: impl Into<String>, key: Arc<NickKey>) -> Self {
        Self {
            network: network.into(),
            key,
            directories: Vec::new(),
            location: Location::NotServing,
            await_location: false,
            neutrino_compat: false,
            want_peers: false,
            dial_peers: true,
            allow_plain: false,
            nick_auth: NickAuthPolicy::default(),
            timing: ChannelTiming::default(),
            first_link: 0,
        }
    }

    /// Whether this address may be dialled at all.
    pub(super) fn may_dial(&self, address: &PeerAddress) -> bool {
        address.is_onion() || self.allow_plain
    }

    /// The flags that joinmarket-ng shows to directories (`spec/protocol.md` 14.5). Flags are visible to
    /// everybody: a set of our own would mark us.
    pub(super) fn directory_features(&self, directory: &DirectoryAddress) -> Features {
        let auth = directory.identity.is_some() && self.nick_auth != NickAuthPolicy::Disabled;
        let auth = auth.then_some(NICK_AUTH);
        Features::from_names([PEERLIST_FEATURES, PING].into_iter().chain(auth))
    }

    /// The flags on direct connections.
    pub(super) fn direct_features(&self) -> Features {
        let auth = (self.nick_auth != NickAuthPolicy::Disabled).then_some(NICK_AUTH);
        let neutrino = self.neutrino_compat.then_some(NEUTRINO_COMPAT);
        Features::from_names([PEERLIST_FEATURES, PING].into_iter().chain(auth).chain(neutrino))
    }
}

/// Why a channel cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelConfigError {
    /// More directories than [`MAX_DIRECTORIES`].
    #[error("{count} directories are configured; at most {MAX_DIRECTORIES} are possible")]
    TooManyDirectories {
        /// How many.
        count: usize,
    },
}
