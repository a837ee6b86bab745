//! The order book: 300 makers on a directory of our own, half of them with bonds on the private chain.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bdk_wallet::bitcoin::Amount;
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_testkit::{Bench, DirectoryNode, Makers, TestBond, TestMaker};

use crate::process::{Home, PATIENCE};
use crate::report::{Report, mebibytes};

const MAKERS: u16 = 300;
const BONDED: u16 = 150;
/// First of January 2035.
pub(crate) const LOCKTIME: u32 = 2_051_222_400;
/// How often the book is collected, each time by a new daemon.
const REPEATS: usize = 5;
/// How long the processor time of an idle client is looked at.
const LISTEN: Duration = Duration::from_secs(20);

/// A key for each number.
pub(crate) fn key(number: u16) -> Result<SecretKey> {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Ok(SecretKey::from_slice(&bytes)?)
}

/// Measures and notes.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut outputs = Vec::new();
    for number in 0..BONDED {
        let script = TestBond::script(&key(1_000 + number)?, LOCKTIME);
        outputs.push((script, Amount::from_sat(1_000_000)));
    }
    let coins = bench.fund_many(&outputs)?;
    bench.mine(6, None)?;
    let mut makers = Vec::new();
    for number in 0..MAKERS {
        let bond = match coins.get(usize::from(number)) {
            Some(coin) => {
                let key = key(1_000 + number)?;
                Some(TestBond { outpoint: *coin, key, locktime: LOCKTIME })
            }
            None => None,
        };
        let offer = format!("sw0reloffer 0 100000 {}000000 0 0.00002", number + 1);
        makers.push(TestMaker::new(key(number + 1)?, &offer, bond));
    }
    let directory = DirectoryNode::start("regtest")?;
    let makers = Makers::start(directory.address(), "regtest", makers)?;
    let (mut times, mut offered) = (Vec::new(), Vec::new());
    for round in 1..=REPEATS {
        let before = makers.asked().len();
        let home = Home::new(&bench.endpoints().electrum)?.directory(directory.address());
        let (daemon, _) = home.start().await?;
        let begin = Instant::now();
        let mut all_offers = None;
        let complete = loop {
            let (offers, bonds) = daemon.client.order_book().await?;
            let now = Instant::now();
            if offers == usize::from(MAKERS) {
                all_offers.get_or_insert(now);
            }
            if (offers, bonds) == (usize::from(MAKERS), usize::from(BONDED)) {
                break now;
            }
            ensure!(begin.elapsed() < PATIENCE, "{offers} offers, {bonds} bonds");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let first = makers.asked().get(before).copied().context("nobody was asked")?;
        let all_offers = all_offers.unwrap_or(complete);
        offered.push(all_offers.saturating_duration_since(first));
        times.push(complete.saturating_duration_since(first));
        if round == REPEATS {
            makers.set_noisy(true);
            let processor = daemon.processor_time()?;
            tokio::time::sleep(LISTEN).await;
            let used = daemon.processor_time()?.saturating_sub(processor);
            let share = used.as_secs_f64() / LISTEN.as_secs_f64() * 100.0;
            let memory = mebibytes(daemon.memory()?.resident);
            report.note("market_cpu", format!("{share:.1} % of a core ({memory})"));
        }
        daemon.stop()?;
    }
    report.times("market_offers", offered);
    report.times("market", times);
    Ok(())
}
