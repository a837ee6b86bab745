//! A private regtest chain: one bitcoind and one electrs in one directory.

mod chain;
mod funds;
mod launch;
mod nudge;
mod temporary;

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

pub use chain::Chain;
pub use funds::{Coin, funds_address};

use crate::process::Supervised;
use crate::tools::Tools;
use launch::{Ports, start_bitcoind, start_electrs};
use nudge::Nudge;
use temporary::Temporary;

/// Blocks that a new bench starts with. All but the last hundred paid a coin of 50 BTC that can be spent.
pub const INITIAL_BLOCKS: u64 = 150;

/// How long the programs may take to end by themselves.
const FAREWELL: Duration = Duration::from_secs(30);

/// Where a running bench can be reached: the one line that `regtest up` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// `tcp://127.0.0.1:PORT`, an Electrum server without TLS.
    pub electrum: String,
    /// `http://127.0.0.1:PORT`, Bitcoin Core's JSON-RPC.
    pub bitcoind_rpc: String,
    /// File with `user:password` for it.
    pub cookie_file: PathBuf,
    /// `127.0.0.1:PORT`, a JoinMarket directory node; only `regtest up` starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// A running bitcoind and electrs; both end, and a temporary directory goes away, when this is dropped.
///
/// Everything that only needs the chain (mining, funding, reorganising) is on [`Chain`], to which this
/// dereferences. All calls block; from async tests use them in a multi-thread runtime or in
/// `spawn_blocking`, so that the daemon under test can go on meanwhile. `Bench` is `Sync`: an `Arc` of it may
/// be shared between tests.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// use bdk_wallet::bitcoin::Amount;
/// let bench = joinery_testkit::Bench::start()?;
/// let address = joinery_testkit::funds_address();
/// let txid = bench.fund(&address, Amount::from_sat(100_000))?; // in the mempool
/// bench.mine(1, None)?; // confirmed, and electrs knows
/// # let _ = txid; Ok(()) }
/// ```
#[derive(Debug)]
pub struct Bench {
    chain: Chain,
    // Fields are dropped in this order: programs first, then what they write into.
    programs: Mutex<Programs>,
    nudge: Nudge,
    tools: Tools,
    ports: Ports,
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Programs {
    electrs: Option<Supervised>,
    bitcoind: Supervised,
}

impl Bench {
    /// Starts a new chain in a temporary directory and waits until both programs answer and agree.
    ///
    /// Builds the programs first when they are not in the cache yet ([`Tools::ensure`]), which takes minutes.
    ///
    /// # Errors
    /// When the tools cannot be built or a program does not come up; its log's end is in the message.
    pub fn start() -> Result<Self> {
        let directory = Temporary::new()?;
        let path = directory.path().to_owned();
        let mut bench = Self::start_in(&path)?;
        bench.temporary = Some(directory);
        Ok(bench)
    }

    /// Starts in `directory`, which is kept; goes on with the chain that an earlier bench left there.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(directory: &Path) -> Result<Self> {
        let tools = Tools::ensure()?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let (ports, bitcoind) = start_bitcoind(&tools, &directory)?;
        let chain = Chain::new(&directory, ports.endpoints(&directory), ports.rpc, ports.electrum);
        let height = chain.height()?;
        chain.mine(INITIAL_BLOCKS.saturating_sub(height), None)?;
        let electrs = start_electrs(&tools, &directory, &ports)?;
        let bench = Self {
            nudge: Nudge::start(ports.electrum)?,
            programs: Mutex::new(Programs { electrs: Some(electrs), bitcoind }),
            chain,
            tools,
            ports,
            temporary: None,
        };
        bench.await_electrs()?;
        Ok(bench)
    }

    /// Where the Electrum server listens; the same for the whole life of the bench, restarts included.
    #[must_use]
    pub fn electrum_addr(&self) -> SocketAddr {
        self.ports.electrum
    }

    /// Kills electrs with SIGKILL. Clients see their connections end and further ones refused.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn stop_electrs(&self) -> Result<()> {
        self.chain.set_indexing(false);
        // Taking it out and dropping it kills and reaps it.
        drop(self.programs().electrs.take());
        Ok(())
    }

    /// Starts electrs again on the same port and index, and waits until it has caught up. Does nothing while
    /// it is running.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_electrs(&self) -> Result<()> {
        {
            let mut programs = self.programs();
            if programs.electrs.is_none() {
                programs.electrs =
                    Some(start_electrs(&self.tools, self.chain.directory(), &self.ports)?);
            }
        }
        self.await_electrs()
    }

    /// [`Self::stop_electrs`] and [`Self::start_electrs`].
    ///
    /// # Errors
    /// As both.
    pub fn restart_electrs(&self) -> Result<()> {
        self.stop_electrs()?;
        self.start_electrs()
    }

    /// Stops electrs in its tracks (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn pause_electrs(&self) -> Result<()> {
        self.chain.set_indexing(false);
        self.signal_electrs(Signal::STOP)
    }

    /// Lets a paused electrs go on and waits until it has caught up.
    ///
    /// # Errors
    /// When the signal cannot be sent or electrs does not catch up.
    pub fn resume_electrs(&self) -> Result<()> {
        self.signal_electrs(Signal::CONT)?;
        self.await_electrs()
    }

    /// Stops bitcoind in its tracks: electrs goes on answering what it knows and hangs on the rest
    /// (broadcasts, fee estimates).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn pause_bitcoind(&self) -> Result<()> {
        self.programs().bitcoind.signal(Signal::STOP)
    }

    /// Lets a paused bitcoind go on.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn resume_bitcoind(&self) -> Result<()> {
        self.programs().bitcoind.signal(Signal::CONT)
    }

    /// The last lines that electrs wrote, for the message of a failing test.
    #[must_use]
    pub fn electrs_log(&self) -> String {
        crate::process::tail(&launch::electrs_log(self.chain.directory()))
    }

    /// Refuses when a program has ended by itself.
    ///
    /// # Errors
    /// With the end of the log of the one that is gone.
    pub fn require_running(&self) -> Result<()> {
        let mut programs = self.programs();
        if let Some(electrs) = programs.electrs.as_mut() {
            electrs.require_running()?;
        }
        programs.bitcoind.require_running()
    }

    /// Ends both programs in an orderly way, so that a kept directory can be used again.
    ///
    /// # Errors
    /// When signals cannot be sent.
    pub fn shutdown(self) -> Result<()> {
        let mut programs = self.programs();
        if let Some(mut electrs) = programs.electrs.take() {
            electrs.terminate(FAREWELL)?;
        }
        programs.bitcoind.terminate(FAREWELL)
    }

    fn await_electrs(&self) -> Result<()> {
        let caught_up = self.chain.await_index(|| {
            let mut programs = self.programs();
            programs.bitcoind.require_running()?;
            programs.electrs.as_mut().map_or(Ok(()), Supervised::require_running)
        });
        caught_up.with_context(|| format!("electrs' log ends with\n{}", self.electrs_log()))?;
        self.chain.set_indexing(true);
        Ok(())
    }

    fn signal_electrs(&self, signal: Signal) -> Result<()> {
        self.programs().electrs.as_mut().context("electrs is stopped")?.signal(signal)
    }

    fn programs(&self) -> std::sync::MutexGuard<'_, Programs> {
        // A panicking test must not keep the others from cleaning up; the state stays consistent.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Bench {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The thread that nudges electrs ends at once when its connection does.
        drop(self.programs().electrs.take());
        self.nudge.stop();
    }
}
