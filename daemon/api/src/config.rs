//! What the daemon tells the API when it starts it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use joinery_wallet::directory::SealingKey;

use crate::clock::Clock;
use crate::consent::ConsentRules;
use crate::order_book::MarketView;
use crate::update::UpdatePaths;

/// Gives the last part of the log, for the log page of browser wallets. May block; bounded by the giver.
pub type LogTail = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Seconds since epoch at which the TLS certificate ends, read at each use because it can be renewed while
/// the daemon runs; `None` without TLS.
pub type CertificateEnd = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Settings of the API itself. [`ApiConfig::new`] gives the defaults of `spec/api.md`.
#[derive(Clone)]
pub struct ApiConfig {
    /// Names by which clients may call us, lower case, without port: the machine's name and `NAME.local`,
    /// names on the certificate. IP addresses, `localhost` and onion names are always fine.
    pub hosts: Vec<String>,
    /// Whether to look at the Host header at all (protection against DNS rebinding). Off only behind a
    /// proxy that rewrites it.
    pub check_host: bool,
    /// Origins that may read answers, besides our own and loopback ones: `https://wallet.example:8443`.
    pub origins: Vec<String>,
    /// Built browser wallet, served at `/`.
    pub static_dir: Option<PathBuf>,
    /// `yigen-statement.csv`.
    pub yieldgen_report: Option<PathBuf>,
    /// Whether the report needs no token: Jam 0.4.1 asks without one.
    pub public_yieldgen_report: bool,
    /// The log, if it can be shown.
    pub log_tail: Option<LogTail>,
    /// End of the TLS certificate.
    pub certificate_end: Option<CertificateEnd>,
    /// Our own version, for `backend_version`.
    pub version: String,
    /// Where the number of failed unlocks survives a restart.
    pub failed_unlocks: Option<PathBuf>,
    /// Unauthenticated websockets that may be open at once.
    pub idle_websockets: usize,
    /// Time between websocket pings.
    pub websocket_ping: Duration,
    /// The order book; `None`: it is switched off.
    pub market: Option<MarketView>,
    /// What has to be approved at the box.
    pub consent: ConsentRules,
    /// With what a running maker's wallet is sealed, so that it can go on after a power cut; `None`: it cannot.
    pub resume: Option<Arc<SealingKey>>,
    /// How this machine is updated; `None`: not by us.
    pub updates: Option<UpdatePaths>,
    /// The time.
    pub clock: Clock,
}

impl ApiConfig {
    /// Defaults for a daemon of this version.
    #[must_use]
    pub fn new(version: impl Into<String>) -> Self {
        Self {
            hosts: Vec::new(),
            check_host: true,
            origins: Vec::new(),
            static_dir: None,
            yieldgen_report: None,
            public_yieldgen_report: true,
            log_tail: None,
            certificate_end: None,
            version: version.into(),
            failed_unlocks: None,
            idle_websockets: 32,
            websocket_ping: Duration::from_secs(30),
            market: None,
            consent: ConsentRules::default(),
            resume: None,
            updates: None,
            clock: Clock::system(),
        }
    }
}

impl std::fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiConfig")
            .field("hosts", &self.hosts)
            .field("check_host", &self.check_host)
            .field("origins", &self.origins)
            .field("static_dir", &self.static_dir)
            .field("public_yieldgen_report", &self.public_yieldgen_report)
            .finish_non_exhaustive()
    }
}
