//! `regtest`: a real bitcoind, electrs and a JoinMarket directory on free loopback ports, for a person or for another program's tests.
//!
//! stdout carries answers only, each as one line of JSON; progress and errors go to stderr.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use bdk_wallet::bitcoin::address::NetworkUnchecked;
use bdk_wallet::bitcoin::{Address, Amount, Denomination, Network};
use clap::{Parser, Subcommand};
use joinery_testkit::{Bench, Chain, DirectoryNode, Endpoints, Tools};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// File in the directory of `up` that says where its programs listen, while they run.
const STATE: &str = "regtest.json";
/// Locked by `up` for as long as it runs.
const LOCK: &str = "regtest.lock";

/// A private Bitcoin test network: bitcoind and an Electrum server.
#[derive(Debug, Parser)]
#[command(name = "regtest")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start bitcoind, electrs and a directory node, print one line of JSON that says where, stay until SIGTERM or SIGINT.
    Up {
        /// Directory for data and logs; made if missing. A chain that is already there is continued.
        #[arg(long)]
        dir: PathBuf,
        /// Name of the JoinMarket network of the directory node. The reference calls its own `testnet` on regtest.
        #[arg(long, value_name = "NAME", default_value = "regtest")]
        jm_network: String,
    },
    /// Mine N blocks and wait until the Electrum server knows them.
    Mine {
        /// How many blocks, 1 to 100000.
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
        count: u64,
        /// Who is paid the rewards; the bench's own funds when not given.
        address: Option<String>,
        /// Directory of the running `regtest up`.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Pay an amount in BTC to an address. The payment is unconfirmed until the next `mine`.
    Fund {
        /// A regtest address.
        address: String,
        /// BTC with at most eight decimals, e.g. 0.5.
        #[arg(value_name = "BTC")]
        amount: String,
        /// Directory of the running `regtest up`.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Fetch and build bitcoind and electrs, unless they are in the user's cache directory already.
    Tools,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { dir, jm_network } => up(&dir, &jm_network),
        Command::Mine { count, address, dir } => mine(&dir, count, address.as_deref()),
        Command::Fund { address, amount, dir } => fund(&dir, &address, &amount),
        Command::Tools => tools(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed the exit code still tells.
            let _ = writeln!(std::io::stderr(), "regtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up(directory: &Path, jm_network: &str) -> Result<()> {
    // Before signals are caught: a build of many minutes can be interrupted, and is continued next time.
    Tools::ensure()?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let mut lock = fd_lock::RwLock::new(File::create(directory.join(LOCK))?);
    let Ok(_guard) = lock.try_write() else {
        bail!("another `regtest up` is running in {}", directory.display());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    // Listening before the programs start: a signal during the start must end them, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let state = directory.join(STATE);
    remove(&state)?;
    let bench = Bench::start_in(directory)?;
    // By rename: `mine` and `fund` see the whole file or none.
    let temporary = directory.join(".regtest.json.new");
    let node = DirectoryNode::start(jm_network)?;
    let mut endpoints = bench.endpoints().clone();
    endpoints.directory = Some(node.address().to_string());
    let line = serde_json::to_string(&endpoints)?;
    fs::write(&temporary, &line)?;
    fs::rename(&temporary, &state)?;
    print(&line)?;
    let ended = runtime.block_on(async {
        let mut look = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = look.tick() => {
                    bench.require_running()?;
                    node.require_running()?;
                }
            }
        }
    });
    remove(&state)?;
    bench.shutdown()?;
    ended
}

fn mine(directory: &Path, count: u64, address: Option<&str>) -> Result<()> {
    let address = address.map(parse_address).transpose()?;
    let chain = attach(directory)?;
    chain.mine(count, address.as_ref())?;
    answer(&json!({"height": chain.height()?, "hash": chain.tip()?}))
}

fn fund(directory: &Path, address: &str, amount: &str) -> Result<()> {
    let address = parse_address(address)?;
    let amount = Amount::from_str_in(amount, Denomination::Bitcoin)
        .with_context(|| format!("{amount:?} is not an amount of BTC, such as 0.5"))?;
    if amount == Amount::ZERO {
        bail!("an amount of zero cannot be paid");
    }
    let chain = attach(directory)?;
    let txid = chain.fund(&address, amount)?;
    chain.await_transaction(&address.script_pubkey(), txid)?;
    answer(&json!({"txid": txid}))
}

fn tools() -> Result<()> {
    let tools = Tools::ensure()?;
    answer(&json!({"bitcoind": tools.bitcoind, "electrs": tools.electrs}))
}

fn attach(directory: &Path) -> Result<Chain> {
    let not_running = || format!("no `regtest up` is running in {}", directory.display());
    let state = fs::read(directory.join(STATE)).with_context(not_running)?;
    let endpoints: Endpoints = serde_json::from_slice(&state).with_context(not_running)?;
    // The file stays behind when `up` is killed; then nobody answers.
    Chain::attach(directory, endpoints).with_context(not_running)
}

fn parse_address(text: &str) -> Result<Address> {
    Address::<NetworkUnchecked>::from_str(text)
        .with_context(|| format!("{text:?} is not a Bitcoin address"))?
        .require_network(Network::Regtest)
        .with_context(|| format!("{text:?} is not an address of regtest (bcrt1...)"))
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn answer(value: &Value) -> Result<()> {
    print(&value.to_string())
}

fn print(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}
