//! A thousand coinjoins of the same daemons: whether their memory grows.
//!
//! A wallet keeps the transactions of its past, so a little must: what is measured is how much a round adds, and
//! whether it is more than that past.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use joinery_testkit::{Bench, DirectoryNode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stage::{self, DEPTH, Kind, Participant, median};
use crate::client::Request;
use crate::report::{Report, mebibytes, time};

/// One more than a coinjoin asks: a maker may be without free coins for a moment.
const MAKERS: usize = 5;
const ASKED: usize = 4;
const ROUNDS: usize = 1_000;
/// Memory is read this often.
const EVERY: usize = 100;
/// Accounts that coins are in, in turn.
const MIXDEPTHS: usize = 5;
/// Coins in each account at the start, satoshi.
const COINS: [u64; 4] = [2_000_000; 4];
/// The same of the taker, who pays the fees of all rounds.
const TAKER_COINS: [u64; 8] = [8_000_000; 8];
/// Equal amounts: one coin or two of each maker, so that the number of coins stays about the same.
const AMOUNTS: std::ops::Range<u64> = 1_200_000..2_800_000;
/// The taker merges the coins of an account each time: change would become too small to back a commitment. And it does
/// not wait a minute for a maker that is missing on one machine.
/// The fee is fixed: bitcoind's estimate of a chain that has these payments alone grows until it counts as absurd.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("POLICY", "merge_algorithm", "greediest"),
    ("POLICY", "tx_fees", "2000"),
    ("TIMEOUT", "maker_timeout_sec", "10"),
];
/// More failures than this and something is wrong with the bench.
const MAX_FAILED: usize = ROUNDS / 20;

/// Runs the rounds and notes memory on the way.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let directory = DirectoryNode::start("regtest")?;
    let mut makers = Vec::new();
    for number in 0..MAKERS {
        let name = format!("maker{number}");
        makers.push(
            Participant::new(bench, &directory, &name, &COINS, MIXDEPTHS, Kind::Usual).await?,
        );
    }
    let taker =
        Participant::new(bench, &directory, "taker", &TAKER_COINS, MIXDEPTHS, Kind::Usual).await?;
    for (section, field, value) in SETTINGS {
        taker.daemon.client.configure(section, field, value).await?;
    }
    stage::open(bench, &makers, std::slice::from_ref(&taker), MAKERS).await?;
    let mut events = taker.events().await?;
    let mut rng = StdRng::seed_from_u64(1);
    let (mut failed, mut sizes, mut begin) = (Vec::new(), Vec::new(), Instant::now());
    note(&mut sizes, 0, &makers, &taker, Duration::ZERO)?;
    for round in 1..=ROUNDS {
        // From the richest account to the one after it: none runs dry.
        let mixdepth = taker.daemon.client.richest_mixdepth().await?;
        let amount = rng.random_range(AMOUNTS);
        let request = Request { mixdepth, amount, makers: ASKED };
        if let Err(reason) = taker.coinjoin(&mut events, request).await?.outcome {
            failed.push(reason);
            ensure!(failed.len() <= MAX_FAILED, "too many coinjoins fail: {failed:?}");
        }
        bench.mine(DEPTH, None)?;
        taker.catch_up(bench).await?;
        for maker in &makers {
            maker.catch_up(bench).await?;
        }
        if round % EVERY == 0 {
            note(&mut sizes, round, &makers, &taker, begin.elapsed())?;
            begin = Instant::now();
        }
    }
    eprintln!("failed: {} {failed:?}", failed.len());
    let [early, .., late] = &sizes[1..] else { return Ok(()) };
    let rounds = u64::try_from(late.rounds - early.rounds)?.max(1);
    let slope = |from: u64, to: u64| {
        let sign = if to < from { "-" } else { "" };
        format!("{sign}{:.1} kB a round", to.abs_diff(from) as f64 / 1000.0 / rounds as f64)
    };
    let course = |of: fn(&Size) -> u64| {
        let course: Vec<String> = sizes.iter().map(|size| mebibytes(of(size))).collect();
        course.join(", ")
    };
    report.note("soak_maker", course(|size| size.maker));
    report.note("soak_maker_slope", slope(early.maker, late.maker));
    report.note("soak_taker", course(|size| size.taker));
    report.note("soak_taker_slope", slope(early.taker, late.taker));
    Ok(())
}

/// Resident memory at some moment, bytes.
#[derive(Debug)]
struct Size {
    rounds: usize,
    /// Median of the makers.
    maker: u64,
    taker: u64,
}

fn note(
    sizes: &mut Vec<Size>,
    rounds: usize,
    makers: &[Participant],
    taker: &Participant,
    took: Duration,
) -> Result<()> {
    let resident = makers.iter().map(|maker| Ok(maker.daemon.memory()?.resident));
    let maker = median(resident.collect::<Result<_>>()?);
    let size = Size { rounds, maker, taker: taker.daemon.memory()?.resident };
    eprintln!("{rounds} rounds ({}): {size:?}", time(took));
    sizes.push(size);
    Ok(())
}
