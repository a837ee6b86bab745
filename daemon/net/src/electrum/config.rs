//! What the engine is told, checked once before anything starts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use joinery_wallet::types::Network;

use super::url::{ProxyUrl, Scheme, ServerUrl};

/// SHA-256 of a certificate in DER form: what a pin compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// The text is not 64 hexadecimal digits, with or without colons between the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 fingerprint has 64 hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut digits = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16));
        let mut next = || digits.next().flatten().and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let (high, low) = (next().ok_or(FingerprintError)?, next().ok_or(FingerprintError)?);
            *byte = (high << 4) | low;
        }
        if digits.next().is_some() { Err(FingerprintError) } else { Ok(Self(bytes)) }
    }
}

/// Which certificates of an `ssl://` server are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsTrust {
    /// Those that a root of the operating system vouches for, made out to the server's name, in their time.
    #[default]
    System,
    /// Exactly this one, whatever name and dates it bears: for the self-signed certificates of most Electrum
    /// servers.
    Pin(Fingerprint),
}

/// How long the engine waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For a connection to stand, TLS and proxy included.
    pub connect: Duration,
    /// For an answer on the wallet's connection. A server that is indexing a block may be slow.
    pub answer: Duration,
    /// For a whole lookup of somebody else's coin (`spec/wallet.md` 13.7).
    pub lookup: Duration,
    /// Between pings to a server on this machine or network. electrs looks for new transactions when it is
    /// asked something, so this bounds how late we hear of one.
    pub ping_near: Duration,
    /// Between pings to any other server.
    pub ping_far: Duration,
    /// Pause after the first failure; doubled with each further one.
    pub backoff_first: Duration,
    /// Longest pause between two attempts.
    pub backoff_max: Duration,
    /// A connection that lasted this long makes the next pause short again.
    pub settled: Duration,
    /// How often every script is subscribed anew and compared, in case a server forgot one.
    pub recheck: Duration,
}

/// Pause between pings to a near server of the main chain.
const PING_NEAR_MAINNET: Duration = Duration::from_secs(3);

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(60),
            answer: Duration::from_secs(60),
            lookup: Duration::from_secs(10),
            ping_near: Duration::from_millis(900),
            ping_far: Duration::from_secs(5),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            settled: Duration::from_secs(60),
            recheck: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Everything that [`super::ElectrumEngine::start`] must know.
#[derive(Debug, Clone)]
pub struct ElectrumConfig {
    /// The server.
    pub server: ServerUrl,
    /// Which certificates are believed; of no meaning for `tcp://`.
    pub tls: TlsTrust,
    /// SOCKS5 proxy through which the server is reached; names are resolved there and never here.
    pub proxy: Option<ProxyUrl>,
    /// Lets a server of strangers be used without a proxy (`--allow-public-electrum`).
    pub allow_public_electrum: bool,
    /// The chain; a server of another one is refused.
    pub network: Network,
    /// Waiting times.
    pub timing: Timing,
}

impl ElectrumConfig {
    /// Defaults for everything but the server and the chain.
    #[must_use]
    pub fn new(server: ServerUrl, network: Network) -> Self {
        let mut timing = Timing::default();
        if network == Network::Mainnet {
            // Each ping makes electrs read bitcoind's whole list of unconfirmed transactions, which is long.
            timing.ping_near = PING_NEAR_MAINNET;
        }
        Self {
            server,
            tls: TlsTrust::System,
            proxy: None,
            allow_public_electrum: false,
            network,
            timing,
        }
    }

    /// Whether the server, as far as the configuration tells, belongs to strangers and sees our address: not
    /// on a private network and not behind a proxy (`spec/wallet.md` 13.8).
    #[must_use]
    pub fn is_public_server(&self) -> bool {
        self.proxy.is_none() && self.server.host.is_foreign()
    }

    /// Whether the server belongs to strangers, as far as the configuration tells, and is reached through a
    /// proxy: it does not see our address, but all mixdepths of the wallet on one connection
    /// (`docs/decisions/0004-one-circuit-for-the-wallet.md`).
    #[must_use]
    pub fn is_foreign_server(&self) -> bool {
        self.proxy.is_some() && self.server.host.is_foreign()
    }

    /// Whether each transaction is sent on a connection and circuit of its own: behind a proxy, unless the
    /// server is on a private network.
    pub(crate) fn sends_apart(&self) -> bool {
        self.proxy.is_some() && (self.server.host.is_foreign() || self.server.host.is_onion())
    }

    /// Checks what can be checked without a network; `start` does it too.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.proxy.is_none() && self.server.host.is_onion() {
            return Err(ConfigError::OnionWithoutProxy);
        }
        if self.is_public_server() && !self.allow_public_electrum {
            return Err(ConfigError::PublicServer { server: self.server.to_string() });
        }
        if self.server.scheme == Scheme::Tcp && self.tls != TlsTrust::System {
            return Err(ConfigError::PinWithoutTls);
        }
        Ok(())
    }
}

/// Why the engine cannot be started with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A server of strangers without a proxy and without permission.
    #[error(
        "{server} is not on a private network: it would see all coins of the wallet together with our \
         address; use your own server, a proxy, or --allow-public-electrum"
    )]
    PublicServer {
        /// Its URL.
        server: String,
    },
    /// An onion service cannot be reached directly.
    #[error("an onion address needs a proxy, as in --proxy socks5://127.0.0.1:9050")]
    OnionWithoutProxy,
    /// A certificate fingerprint for a connection that has no certificate.
    #[error("a certificate fingerprint was given, but tcp:// uses no certificate; use ssl://")]
    PinWithoutTls,
    /// The operating system's certificates cannot be used.
    #[error("the system's certificates cannot be loaded: {reason}")]
    TrustStore {
        /// Why.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A thread could not be started.
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> ElectrumConfig {
        ElectrumConfig::new(url.parse().unwrap(), Network::Regtest)
    }

    #[test]
    fn public_server_needs_permission_or_a_proxy() {
        let mut config = config("ssl://electrum.example.org:50002");
        assert!(config.is_public_server());
        assert!(matches!(config.check(), Err(ConfigError::PublicServer { .. })));
        config.allow_public_electrum = true;
        assert!(config.check().is_ok());
        assert!(config.is_public_server(), "permission does not make it private");
        config.allow_public_electrum = false;
        config.proxy = Some("socks5://127.0.0.1:9050".parse().unwrap());
        assert!(!config.is_public_server());
        assert!(config.check().is_ok());
        assert!(config.is_foreign_server(), "a proxy does not make it ours");
    }

    #[test]
    fn onion_needs_a_proxy_whatever_is_allowed() {
        let mut config = config(&format!("tcp://{}.onion:50001", "b".repeat(56)));
        config.allow_public_electrum = true;
        assert!(matches!(config.check(), Err(ConfigError::OnionWithoutProxy)));
        config.proxy = Some("socks5://127.0.0.1:9050".parse().unwrap());
        assert!(config.check().is_ok());
    }

    #[test]
    fn pin_on_a_plain_connection_is_a_mistake() {
        let mut config = config("tcp://127.0.0.1:50001");
        config.tls = TlsTrust::Pin(Fingerprint([1; 32]));
        assert!(matches!(config.check(), Err(ConfigError::PinWithoutTls)));
    }

    #[test]
    fn fingerprint_reads_what_it_prints() {
        let fingerprint = Fingerprint([0xA7; 32]);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!("a7".repeat(32).parse(), Ok(fingerprint));
        assert_eq!("a7".repeat(31).parse::<Fingerprint>(), Err(FingerprintError));
        assert_eq!("a7".repeat(33).parse::<Fingerprint>(), Err(FingerprintError));
        assert_eq!("xy".repeat(32).parse::<Fingerprint>(), Err(FingerprintError));
    }
}
