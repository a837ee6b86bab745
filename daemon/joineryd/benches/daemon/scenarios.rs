//! What is done with the daemon, in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bdk_wallet::bitcoin::{Address, Amount, Network, ScriptBuf};
use joinery_testkit::Bench;

use crate::process::{BINARY, Daemon, Home, PATIENCE};
use crate::report::{Report, mebibytes};

/// Accounts of a wallet; addresses are spread over them.
const MIXDEPTHS: usize = 5;

/// Addresses that one transaction of the bench pays, about as many as a coinjoin has outputs.
const PAID_AT_ONCE: usize = 10;

/// Addresses that one block pays.
const PAID_IN_A_BLOCK: usize = 100;

/// Value of each coin.
const COIN: Amount = Amount::from_sat(100_000);

/// How often a quick call is repeated.
const REPEATS: usize = 30;

/// Runs all scenarios, or the one that is named.
pub(crate) async fn run(bench: &Bench, report: &mut Report, only: Option<&str>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let size = std::fs::metadata(BINARY)?.len();
    report.note("size", mebibytes(size));
    if wanted("start") {
        start(bench, report).await?;
    }
    if wanted("small") {
        small(bench, report).await?;
    }
    if wanted("hundred") {
        hundred(bench, report).await?;
    }
    if wanted("thousands") {
        five_thousand(bench, report).await?;
    }
    if wanted("market") {
        crate::market::run(bench, report).await?;
    }
    if wanted("coinjoin") {
        crate::coinjoin::run(bench, report).await?;
    }
    if wanted("answers") {
        crate::coinjoin::answers(bench, report).await?;
    }
    if wanted("book") {
        crate::coinjoin::book(bench, report).await?;
    }
    if wanted("throughput") {
        crate::coinjoin::throughput(bench, report).await?;
    }
    // Takes too long for every day.
    if only == Some("soak") {
        crate::coinjoin::soak(bench, report).await?;
    }
    if wanted("restore") {
        ten_thousand(bench, report).await?;
    }
    Ok(())
}

fn home(bench: &Bench) -> Result<Home> {
    Home::new(&bench.endpoints().electrum)
}

async fn start(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut first = Vec::new();
    for _ in 0..5 {
        let (daemon, took) = home(bench)?.start().await?;
        first.push(took);
        daemon.stop()?;
    }
    report.times("first_start", first);
    let home = home(bench)?;
    home.start().await?.0.stop()?;
    let mut later = Vec::new();
    for _ in 0..10 {
        let (daemon, took) = home.start().await?;
        later.push(took);
        daemon.stop()?;
    }
    report.times("start", later);
    let (daemon, _) = home.start().await?;
    settle().await;
    report.note("memory_idle", mebibytes(daemon.memory()?.resident));
    daemon.stop()
}

/// A wallet of twelve coins: memory, unlock, send.
async fn small(bench: &Bench, report: &mut Report) -> Result<()> {
    let home = home(bench)?;
    let (mut daemon, _) = home.start().await?;
    daemon.client.create("small.jmdat").await?;
    let mut addresses = Vec::new();
    for _ in 0..12 {
        addresses.push(daemon.client.address(0).await?.0);
    }
    fund(bench, &addresses)?;
    synced(bench, &daemon, addresses.len()).await?;

    // As a user has it: the daemon was started, one wallet was opened.
    daemon.stop()?;
    (daemon, _) = home.start().await?;
    daemon.client.unlock("small.jmdat").await?;
    synced(bench, &daemon, addresses.len()).await?;
    settle().await;
    report.note("memory_small", with_peak(&daemon)?);

    let mut unlocks = Vec::new();
    for _ in 0..5 {
        daemon.client.lock().await?;
        unlocks.push(daemon.client.unlock("small.jmdat").await?);
    }
    report.times("unlock", unlocks);

    synced(bench, &daemon, addresses.len()).await?;
    let destination = joinery_testkit::funds_address().to_string();
    let mut sends = Vec::new();
    for _ in 0..10 {
        sends.push(daemon.client.send(0, 50_000, &destination).await?);
    }
    report.times("send", sends);
    bench.mine(1, None)?;
    daemon.stop()
}

async fn hundred(bench: &Bench, report: &mut Report) -> Result<()> {
    let home = home(bench)?;
    let (mut daemon, _) = home.start().await?;
    daemon.client.create("hundred.jmdat").await?;
    let (addresses, took) = issue(&daemon, 100).await?;
    report.times("address", took);
    fund(bench, &addresses)?;
    synced(bench, &daemon, addresses.len()).await?;
    report.times("display_100", repeat(&daemon, "/display").await?);
    report.times("utxos_100", repeat(&daemon, "/utxos").await?);
    daemon.stop()
}

async fn five_thousand(bench: &Bench, report: &mut Report) -> Result<()> {
    let home = home(bench)?;
    let (mut daemon, _) = home.start().await?;
    daemon.client.create("thousands.jmdat").await?;
    let (addresses, _) = issue(&daemon, 5000).await?;
    daemon.client.lock().await?;
    daemon.stop()?;
    fund(bench, &addresses)?;

    (daemon, _) = home.start().await?;
    let begin = Instant::now();
    daemon.client.unlock("thousands.jmdat").await?;
    synced(bench, &daemon, addresses.len()).await?;
    report.times("first_unlock_5000", vec![begin.elapsed()]);
    report.times("display_5000", repeat(&daemon, "/display").await?);
    report.times("utxos_5000", repeat(&daemon, "/utxos").await?);
    settle().await;
    report.note("memory_5000", with_peak(&daemon)?);
    daemon.stop()
}

async fn ten_thousand(bench: &Bench, report: &mut Report) -> Result<()> {
    let first = home(bench)?;
    let (mut daemon, _) = first.start().await?;
    let words = daemon.client.create("many.jmdat").await?;
    let (addresses, _) = issue(&daemon, 10_000).await?;
    fund(bench, &addresses)?;
    synced(bench, &daemon, addresses.len()).await?;
    daemon.stop()?;

    let mut restarts = Vec::new();
    for _ in 0..3 {
        (daemon, _) = first.start().await?;
        let begin = Instant::now();
        daemon.client.unlock("many.jmdat").await?;
        synced(bench, &daemon, addresses.len()).await?;
        restarts.push(begin.elapsed());
        daemon.stop()?;
    }
    report.times("restart_10000", restarts);

    let second = home(bench)?;
    (daemon, _) = second.start().await?;
    let begin = Instant::now();
    daemon.client.recover("restored.jmdat", &words).await?;
    synced(bench, &daemon, addresses.len()).await?;
    report.times("restore_10000", vec![begin.elapsed()]);
    report.times("display_10000", repeat(&daemon, "/display").await?);
    settle().await;
    report.note("memory_10000", with_peak(&daemon)?);
    daemon.stop()
}

/// Waits until the wallet is in sync with the best block and shows this many coins.
async fn synced(bench: &Bench, daemon: &Daemon, coins: usize) -> Result<()> {
    let height = bench.height()?;
    let begin = Instant::now();
    loop {
        if daemon.client.is_synced(height).await? && daemon.client.coin_count().await? == coins {
            return Ok(());
        }
        let found = daemon.client.coin_count().await?;
        ensure!(begin.elapsed() < PATIENCE, "{found} of {coins} coins after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives allocators and background work a moment before memory is read.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

fn with_peak(daemon: &Daemon) -> Result<String> {
    let memory = daemon.memory()?;
    Ok(format!("{} (peak {})", mebibytes(memory.resident), mebibytes(memory.peak)))
}

async fn repeat(daemon: &Daemon, path: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        times.push(daemon.client.get(path).await?.1);
    }
    Ok(times)
}

/// New addresses, spread over the mixdepths.
async fn issue(daemon: &Daemon, count: usize) -> Result<(Vec<String>, Vec<Duration>)> {
    let (mut addresses, mut times) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (address, took) = daemon.client.address(number % MIXDEPTHS).await?;
        addresses.push(address);
        times.push(took);
    }
    Ok((addresses, times))
}

/// Pays every address once, a few with each transaction, over many blocks, as it comes about in life.
fn fund(bench: &Bench, addresses: &[String]) -> Result<()> {
    let outputs = addresses
        .iter()
        .map(|text| {
            let address = text.parse::<Address<_>>()?.require_network(Network::Regtest)?;
            Ok((address.script_pubkey(), COIN))
        })
        .collect::<Result<Vec<(ScriptBuf, Amount)>>>()
        .context("an address of the daemon")?;
    for block in outputs.chunks(PAID_IN_A_BLOCK) {
        for together in block.chunks(PAID_AT_ONCE) {
            bench.fund_many(together)?;
        }
        bench.mine(1, None)?;
    }
    Ok(())
}
