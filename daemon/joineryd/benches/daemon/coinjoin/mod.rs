//! Coinjoins of real daemons as processes. The order book is known beforehand, as it is on a box that watches it.

mod book;
mod soak;
mod stage;
mod throughput;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use joinery_testkit::{Bench, DirectoryNode};

use crate::client::Request;
use crate::report::{Report, mebibytes};
use crate::tap::Answer;
use stage::{DEPTH, Kind, Participant, Timeline, median};

pub(crate) use book::run as book;
pub(crate) use soak::run as soak;
pub(crate) use throughput::run as throughput;

const MAKERS: usize = 10;
/// Coinjoins with four makers, and with ten.
const ROUNDS: [(usize, usize); 2] = [(4, 15), (10, 5)];
/// Coinjoins with one maker, and with four at once, whose answers are timed.
const ANSWERS: [(usize, usize); 2] = [(1, 20), (4, 10)];
/// Equal amount, satoshi.
const AMOUNT: u64 = 1_000_000;
/// Coins of the taker: each backs three commitments at most.
const COINS: usize = 45;

/// A coinjoin that takes longer than this has a story, which is shown.
const LONG: Duration = Duration::from_secs(5);

/// Time from the request to the transaction, phase by phase; memory afterwards.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let directory = DirectoryNode::start("regtest")?;
    let mut makers = Vec::new();
    for number in 0..MAKERS {
        let (name, coins) = (format!("maker{number}"), [20_000_000; 20]);
        makers.push(Participant::new(bench, &directory, &name, &coins, 1, Kind::Usual).await?);
    }
    let coins = [3_000_000; COINS];
    let taker = Participant::new(bench, &directory, "taker", &coins, 1, Kind::Usual).await?;
    stage::open(bench, &makers, std::slice::from_ref(&taker), MAKERS).await?;
    for (count, rounds) in ROUNDS {
        let timelines = repeat(bench, &taker, &makers, count, rounds).await?;
        note_times(report, count, &timelines);
    }
    let resident = makers.iter().map(|maker| Ok(maker.daemon.memory()?.resident));
    let resident = median(resident.collect::<Result<_>>()?);
    report.note("memory_maker", mebibytes(resident));
    report.note("memory_taker", mebibytes(taker.daemon.memory()?.resident));
    Ok(())
}

/// How long makers take for each message, on the wire between maker and directory: disk, chain and all.
pub(crate) async fn answers(bench: &Bench, report: &mut Report) -> Result<()> {
    let directory = DirectoryNode::start("regtest")?;
    let mut makers = Vec::new();
    for number in 0..4 {
        let (name, coins) = (format!("maker{number}"), [20_000_000; 20]);
        makers.push(Participant::new(bench, &directory, &name, &coins, 1, Kind::Tapped).await?);
    }
    let coins = [3_000_000; COINS];
    let taker = Participant::new(bench, &directory, "taker", &coins, 1, Kind::Usual).await?;
    stage::open(bench, &makers, std::slice::from_ref(&taker), makers.len()).await?;
    taker.daemon.client.configure("POLICY", "minimum_makers", "1").await?;
    for (count, rounds) in ANSWERS {
        repeat(bench, &taker, &makers, count, rounds).await?;
        note_answers(report, count, &makers);
    }
    Ok(())
}

/// The same coinjoin several times, with blocks in between.
async fn repeat(
    bench: &Bench,
    taker: &Participant,
    makers: &[Participant],
    count: usize,
    rounds: usize,
) -> Result<Vec<Timeline>> {
    let mut events = taker.events().await?;
    let mut timelines = Vec::new();
    for _ in 0..rounds {
        for participant in makers.iter().chain([taker]) {
            participant.catch_up(bench).await?;
        }
        let request = Request { mixdepth: 0, amount: AMOUNT, makers: count };
        let timeline = taker.coinjoin(&mut events, request).await?;
        if let Err(reason) = timeline.outcome {
            return Err(anyhow!("a coinjoin with {count} makers failed: {reason}"));
        }
        if timeline.end - timeline.begin > LONG {
            eprintln!("a long one; dropped: {}", taker.dropped().await?);
            for maker in makers {
                eprintln!("  {}", maker.last_round().await?);
            }
        }
        timelines.push(timeline);
        bench.mine(DEPTH, None)?;
    }
    Ok(timelines)
}

/// Whole, protocol, and each phase.
fn note_times(report: &mut Report, makers: usize, timelines: &[Timeline]) {
    let (mut whole, mut protocol) = (Vec::new(), Vec::new());
    let mut phases: BTreeMap<usize, (&str, Vec<Duration>)> = BTreeMap::new();
    for timeline in timelines {
        whole.push(timeline.end - timeline.begin);
        let signed = ["recheck", "broadcast"].iter().find_map(|phase| timeline.at(phase));
        if let (Some(filled), Some(signed)) = (timeline.at("fill"), signed) {
            protocol.push(signed - filled);
        }
        let ends = timeline.phases.iter().skip(1).map(|(_, at)| *at).chain([timeline.end]);
        for (place, ((name, at), end)) in timeline.phases.iter().zip(ends).enumerate() {
            phases.entry(place).or_insert_with(|| (name, Vec::new())).1.push(end - *at);
        }
        let first = timeline.phases.first().map_or(timeline.end, |(_, at)| *at);
        let request = phases.entry(usize::MAX).or_insert_with(|| ("request", Vec::new()));
        request.1.push(first - timeline.begin);
    }
    report.times(&format!("coinjoin_{makers}"), whole);
    report.times(&format!("coinjoin_{makers}_protocol"), protocol);
    for (name, times) in phases.into_values() {
        report.times(&format!("phase_{makers}_{name}"), times);
    }
}

/// From a taker's message to the maker's answer, on the wire between maker and directory.
fn note_answers(report: &mut Report, count: usize, makers: &[Participant]) {
    let taps = makers.iter().filter_map(|maker| maker.tap.as_ref());
    let answers: Vec<Answer> = taps.flat_map(|tap| tap.answers()).collect();
    for word in ["fill", "auth", "tx"] {
        let times = answers.iter().filter(|answer| answer.to == word).map(|answer| answer.took);
        report.times(&format!("answer_{count}_{word}"), times.collect());
    }
}
