//! How long the first sync of thousands of fresh transactions takes, with a real electrs on loopback. Prints a
//! line for each case; run with `cargo bench -p joinery-net`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people that may just stop"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf};
use joinery_testkit::Bench;
use support::keyed::Keyed;
use support::{Kept, TestWallet, engine, script, scripts};

const COUNT: u32 = 5_000;

fn sync(bench: &Bench, what: &str, kept: Option<Kept>) -> Kept {
    let engine = engine(&format!("tcp://{}", bench.electrum_addr()));
    support::await_status(&engine, "connected", |status| status.connected);
    let began = Instant::now();
    let mut wallet = match kept {
        Some(kept) => TestWallet::resume(&engine, kept),
        None => TestWallet::new(&engine, scripts(0..COUNT)),
    };
    wallet.until_caught_up(0);
    println!(
        "{what}: {:.2} s, {} transactions, {} updates",
        began.elapsed().as_secs_f64(),
        wallet.transactions(),
        wallet.updates
    );
    wallet.keep()
}

fn main() {
    let bench = Bench::start().unwrap();
    let worth = Amount::from_sat(20_000);
    let keyed = Keyed::new();
    let coins: Vec<(ScriptBuf, Amount)> = (0..COUNT).map(|_| (keyed.script(), worth)).collect();
    let coins: Vec<OutPoint> = bench.fund_many(&coins).unwrap();
    bench.mine(1, None).unwrap();
    let mut last = None;
    for (number, coin) in (0..).zip(coins) {
        let tx = keyed.spend(coin, worth, script(number), Amount::from_sat(19_000));
        last = Some((number, bench.submit(&tx).unwrap()));
    }
    let (number, txid) = last.unwrap();
    bench.await_transaction(&script(number), txid).unwrap();
    sync(&bench, "5000 scripts, 5000 transactions in the mempool", None);
    bench.mine(1, None).unwrap();
    let kept = sync(&bench, "the same, confirmed in one block", None);
    sync(&bench, "restart with stored statuses", Some(kept));
}
