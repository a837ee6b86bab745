//! A whole market on one machine: a directory, makers, and takers that begin the next coinjoin when one is over.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use futures_util::future::try_join_all;
use joinery_testkit::{Bench, DirectoryNode};
use tokio::runtime::Handle;

use super::stage::{self, Kind, Participant};
use crate::client::Request;
use crate::report::Report;

const MAKERS: usize = 10;
const TAKERS: usize = 4;
/// Makers of each coinjoin.
const ASKED: usize = 4;
/// How long it goes on.
const TIME: Duration = Duration::from_secs(30);
/// A block comes so often, and with it change that can be spent again.
const BLOCK: Duration = Duration::from_secs(2);
/// Equal amount, satoshi.
const AMOUNT: u64 = 1_000_000;

/// What one taker came to.
#[derive(Debug, Default)]
struct Count {
    done: usize,
    failed: Vec<String>,
}

/// Measures and notes.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let directory = DirectoryNode::start("regtest")?;
    let (mut makers, mut takers) = (Vec::new(), Vec::new());
    for number in 0..MAKERS {
        let name = format!("maker{number}");
        makers.push(
            Participant::new(bench, &directory, &name, &[20_000_000; 60], 1, Kind::Usual).await?,
        );
    }
    for number in 0..TAKERS {
        let name = format!("taker{number}");
        takers.push(
            Participant::new(bench, &directory, &name, &[1_500_000; 150], 1, Kind::Usual).await?,
        );
    }
    stage::open(bench, &makers, &takers, MAKERS).await?;
    let processor = |all: &[Participant]| -> Result<Duration> {
        all.iter().map(|participant| participant.daemon.processor_time()).sum()
    };
    let before = (processor(&makers)?, processor(&takers)?);
    let (begin, runtime) = (Instant::now(), Handle::current());
    let counts = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            // Waits for electrs, hence on a thread of its own.
            let blocks = scope.spawn(|| mine(bench, begin + TIME));
            let counts = try_join_all(takers.iter().map(|taker| buy(taker, begin + TIME)));
            let counts = runtime.block_on(counts);
            blocks.join().map_err(|_| anyhow!("the thread that mines panicked"))??;
            counts
        })
    })?;
    let took = begin.elapsed();
    let done: usize = counts.iter().map(|count| count.done).sum();
    let failed: Vec<&String> = counts.iter().flat_map(|count| &count.failed).collect();
    ensure!(done > failed.len(), "more failures than coinjoins: {failed:?}");
    eprintln!("failed: {failed:?}");
    #[expect(clippy::cast_precision_loss, reason = "some hundred coinjoins")]
    let (rate, done_f) = (done as f64 / took.as_secs_f64(), done as f64);
    let cost = |after: Duration, before: Duration| {
        (after.saturating_sub(before)).as_secs_f64() * 1000.0 / done_f
    };
    let of_makers = cost(processor(&makers)?, before.0);
    let of_takers = cost(processor(&takers)?, before.1);
    report.note(
        "throughput",
        format!(
            "{rate:.1} a second ({done} in {:.0} s, {} failed; processor for each: {of_makers:.0} ms of all makers, \
             {of_takers:.0} ms of the takers)",
            took.as_secs_f64(),
            failed.len(),
        ),
    );
    Ok(())
}

/// A block now and then until the time is over.
fn mine(bench: &Bench, until: Instant) -> Result<()> {
    while Instant::now() < until {
        std::thread::sleep(BLOCK);
        bench.mine(1, None)?;
    }
    Ok(())
}

/// One coinjoin after the other until the time is over.
async fn buy(taker: &Participant, until: Instant) -> Result<Count> {
    let mut events = taker.events().await?;
    let mut count = Count::default();
    while Instant::now() < until {
        let request = Request { mixdepth: 0, amount: AMOUNT, makers: ASKED };
        match taker.coinjoin(&mut events, request).await?.outcome {
            Ok(()) => count.done += 1,
            Err(reason) => count.failed.push(reason),
        }
    }
    Ok(count)
}
