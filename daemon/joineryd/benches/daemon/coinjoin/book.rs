//! Memory of daemons that hold the order book of a large market, and of a coinjoin with ten makers out of it.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bdk_wallet::bitcoin::Amount;
use joinery_testkit::{Bench, DirectoryNode, Makers, TestBond, TestMaker};

use super::stage::{self, DEPTH, Kind, Participant, median, wait};
use crate::client::Request;
use crate::market::{LOCKTIME, key};
use crate::report::{Report, mebibytes};

/// Real makers, which the taker will choose.
const REAL: u16 = 10;
/// Of these, those that hold the book.
const WATCHING: u16 = 3;
const OFFERS: u16 = 3_000;
const BONDED: u16 = 500;
/// Equal amount, satoshi.
const AMOUNT: u64 = 1_000_000;

/// Measures and notes.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut outputs = Vec::new();
    for number in 0..BONDED {
        let script = TestBond::script(&key(10_000 + number)?, LOCKTIME);
        outputs.push((script, Amount::from_sat(1_000_000)));
    }
    let bonds = bench.fund_many(&outputs)?;
    // Before anybody hears of them: a bond that is not there when it is looked up is not looked up again for ten minutes.
    bench.mine(DEPTH, None)?;
    let directory = DirectoryNode::start("regtest")?;
    let mut others = Vec::new();
    for number in 0..OFFERS - REAL {
        let bond = match bonds.get(usize::from(number)) {
            Some(coin) => {
                let key = key(10_000 + number)?;
                Some(TestBond { outpoint: *coin, key, locktime: LOCKTIME })
            }
            None => None,
        };
        // Half of the amount is more than any taker pays: nobody asks them, since they would not answer.
        let offer = format!("sw0reloffer 0 100000 {}000000 0 0.5", number + 1);
        others.push(TestMaker::new(key(number + 1)?, &offer, bond));
    }
    let _others = Makers::start(directory.address(), "regtest", others)?;
    let mut makers = Vec::new();
    for number in 0..REAL {
        let name = format!("maker{number}");
        // The others would only keep the electrs of this machine busy.
        let kind = if number < WATCHING { Kind::Usual } else { Kind::Blind };
        makers.push(Participant::new(bench, &directory, &name, &[20_000_000; 3], 1, kind).await?);
    }
    let taker =
        Participant::new(bench, &directory, "taker", &[3_000_000; 3], 1, Kind::Usual).await?;
    stage::open(bench, &makers, std::slice::from_ref(&taker), usize::from(OFFERS)).await?;
    let watching = &makers[..usize::from(WATCHING)];
    for participant in watching.iter().chain([&taker]) {
        wait("the book is complete", async || {
            let complete = (usize::from(OFFERS), usize::from(BONDED));
            let has = participant.daemon.client.order_book().await?;
            if has != complete {
                eprintln!("{has:?} of {complete:?} offers and bonds");
                // Each look costs the daemon a document of a megabyte.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(has == complete)
        })
        .await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let resident = |makers: &[Participant]| -> Result<u64> {
        let each = makers.iter().map(|maker| Ok(maker.daemon.memory()?.resident));
        Ok(median(each.collect::<Result<_>>()?))
    };
    report.note("book_maker", mebibytes(resident(watching)?));
    report.note("book_taker", mebibytes(taker.daemon.memory()?.resident));
    let mut events = taker.events().await?;
    let request = Request { mixdepth: 0, amount: AMOUNT, makers: usize::from(REAL) };
    let timeline = taker.coinjoin(&mut events, request).await?;
    timeline.outcome.map_err(|reason| anyhow!("the coinjoin failed: {reason}"))?;
    report.note("book_maker_round", mebibytes(resident(watching)?));
    report.note("book_taker_round", mebibytes(taker.daemon.memory()?.resident));
    Ok(())
}
