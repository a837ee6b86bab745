//! The daemon as a process, and what the kernel says about it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use joinery_testkit::Supervised;
use tempfile::TempDir;

use crate::client::Client;

/// How long anything may take before the bench gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// The binary that is measured, built in release mode by `cargo bench`.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_joineryd");

/// The unit that a new installation has.
const UNIT: &str = include_str!("../../../../systemd/joineryd.service");

/// Variables that the unit gives the daemon: how it uses memory depends on them.
fn environment() -> impl Iterator<Item = String> {
    UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")).map(str::to_owned)
}

/// A data directory on the disk that temporary files are on.
#[derive(Debug)]
pub(crate) struct Home {
    directory: TempDir,
    electrum: String,
    market: Option<SocketAddr>,
}

impl Home {
    /// An empty one for daemons that use this Electrum server.
    pub(crate) fn new(electrum: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("joineryd-bench-").tempdir()?;
        Ok(Self { directory, electrum: electrum.to_owned(), market: None })
    }

    /// Daemons use this JoinMarket directory.
    pub(crate) fn directory(mut self, address: SocketAddr) -> Self {
        self.market = Some(address);
        self
    }

    /// Daemons find this configuration, TOML.
    pub(crate) fn settings(self, text: &str) -> Result<Self> {
        let data = self.directory.path().join("data");
        std::fs::DirBuilder::new().mode(0o700).create(&data)?;
        std::fs::write(data.join("joineryd.toml"), text)?;
        Ok(self)
    }

    /// Starts the daemon and waits until `/session` is answered; also gives how long that took.
    pub(crate) async fn start(&self) -> Result<(Daemon, Duration)> {
        let (rpc, websocket) = (free_port()?, free_port()?);
        let mut arguments: Vec<String> = environment().collect();
        arguments.extend([
            BINARY.to_owned(),
            format!("--data-dir={}", self.directory.path().join("data").display()),
            "--network=regtest".to_owned(),
            format!("--electrum={}", self.electrum),
            format!("--listen={rpc}"),
            format!("--wss-listen={websocket}"),
        ]);
        arguments.extend(self.market.map(|address| format!("--directory={address}")));
        let log = self.directory.path().join("log");
        let begin = Instant::now();
        let process = Supervised::start("joineryd", Path::new("/usr/bin/env"), &arguments, &log)?;
        let certificate = self.directory.path().join("data/ssl/cert.pem");
        let client = Client::new(rpc)?;
        let mut daemon = Daemon { process, websocket, certificate, client };
        loop {
            if daemon.client.session().await.is_ok() {
                return Ok((daemon, begin.elapsed()));
            }
            daemon.process.require_running()?;
            if begin.elapsed() > PATIENCE {
                bail!("the daemon does not answer:\n{}", daemon.process.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// An address that nobody listens on. Somebody could take it before the daemon does; the bench fails then.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A running daemon, killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Supervised,
    websocket: SocketAddr,
    certificate: PathBuf,
    /// Speaks to it.
    pub(crate) client: Client,
}

impl Daemon {
    /// Where its websocket listens.
    pub(crate) const fn websocket(&self) -> SocketAddr {
        self.websocket
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Memory of the process as the kernel counts it, bytes.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = PathBuf::from(format!("/proc/{}/status", self.process.id()));
        let status = std::fs::read_to_string(&path)?;
        let bytes = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let number =
                line.and_then(|line| line.trim().strip_suffix(" kB")).context("no size")?;
            Ok(number.trim().parse::<u64>()? * 1024)
        };
        Ok(Memory { resident: bytes("VmRSS")?, peak: bytes("VmHWM")? })
    }

    /// Processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // 100 ticks a second on every Linux (USER_HZ).
        // The name may hold anything; after its closing bracket come numbers, the 12th and 13th in ticks.
        let (_, numbers) = stat.rsplit_once(')').context("no name")?;
        let ticks = |place: usize| -> Result<u64> {
            Ok(numbers.split_whitespace().nth(place).context("no time")?.parse()?)
        };
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(60))
    }
}

/// What a process occupies, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) resident: u64,
    /// At most so far.
    pub(crate) peak: u64,
}
