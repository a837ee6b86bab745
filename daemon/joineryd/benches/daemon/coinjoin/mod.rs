//! Coinjoins of real daemons: ten makers and a taker as processes, a directory over TCP, a real chain. The order book is
//! known beforehand, as it is on a box that watches it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bdk_wallet::bitcoin::{Address, Amount, Network};
use joinery_testkit::{Bench, DirectoryNode};

use crate::process::{Daemon, Home, PATIENCE};
use crate::report::{Report, mebibytes};

const MAKERS: usize = 10;
/// Coinjoins with four makers, and with ten.
const ROUNDS: [(usize, usize); 2] = [(4, 15), (10, 5)];
/// Equal amount, satoshi.
const AMOUNT: u64 = 1_000_000;
/// Coins of the taker: each backs three commitments at most.
const COINS: usize = 30;
/// Blocks after which change may back commitments again.
const DEPTH: u64 = 6;

/// A daemon with a funded wallet.
async fn participant(
    bench: &Bench,
    directory: &DirectoryNode,
    name: &str,
    coins: &[u64],
) -> Result<(Daemon, Home)> {
    let home = Home::new(&bench.endpoints().electrum)?.directory(directory.address());
    let (mut daemon, _) = home.start().await?;
    daemon.client.create(&format!("{name}.jmdat")).await?;
    let mut outputs = Vec::new();
    for satoshi in coins {
        let (address, _) = daemon.client.address(0).await?;
        let address = address.parse::<Address<_>>()?.require_network(Network::Regtest)?;
        outputs.push((address.script_pubkey(), Amount::from_sat(*satoshi)));
    }
    bench.fund_many(&outputs)?;
    Ok((daemon, home))
}

async fn wait(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<Instant> {
    let begin = Instant::now();
    loop {
        if done().await? {
            return Ok(Instant::now());
        }
        ensure!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Measures and notes.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let directory = DirectoryNode::start("regtest")?;
    let mut makers = Vec::new();
    for number in 0..MAKERS {
        let coins = vec![20_000_000; 20];
        makers.push(participant(bench, &directory, &format!("maker{number}"), &coins).await?);
    }
    let (taker, _home) = participant(bench, &directory, "taker", &vec![3_000_000; COINS]).await?;
    bench.mine(DEPTH, None)?;
    for (maker, _) in &makers {
        let height = bench.height()?;
        wait("a maker catches up", async || maker.client.is_synced(height).await).await?;
        maker.client.start_maker().await?;
    }
    wait("the offers arrive", async || Ok(taker.client.order_book().await?.0 == MAKERS)).await?;
    for (count, rounds) in ROUNDS {
        let (mut whole, mut protocol) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let height = bench.height()?;
            wait("the taker catches up", async || taker.client.is_synced(height).await).await?;
            let begin = Instant::now();
            taker.client.coinjoin(AMOUNT, count).await?;
            let (mut filled, mut signed) = (None, None);
            let end = wait("the coinjoin ends", async || {
                let (status, phase) = taker.client.taker_status().await?;
                let now = Instant::now();
                match phase.as_str() {
                    "fill" | "auth" | "sign" => {
                        filled.get_or_insert(now);
                    }
                    "recheck" | "broadcast" | "over" => {
                        signed.get_or_insert(now);
                    }
                    _ => {}
                }
                ensure!(["running", "completed"].contains(&status.as_str()), "coinjoin {status}");
                Ok(status == "completed")
            })
            .await?;
            whole.push(end - begin);
            let (filled, signed) = (filled.unwrap_or(begin), signed.unwrap_or(end));
            protocol.push(signed.saturating_duration_since(filled));
            bench.mine(DEPTH, None)?;
        }
        let keys = if count == 4 {
            ("coinjoin_4", "coinjoin_4_protocol")
        } else {
            ("coinjoin_10", "coinjoin_10_protocol")
        };
        report.times(keys.0, whole);
        report.times(keys.1, protocol);
    }
    let mut resident = Vec::new();
    for (maker, _) in &makers {
        resident.push(maker.memory()?.resident);
    }
    resident.sort_unstable();
    let middle = resident.get(MAKERS / 2).copied().unwrap_or_default();
    report.note("memory_maker", mebibytes(middle));
    report.note("memory_taker", mebibytes(taker.memory()?.resident));
    Ok(())
}
