//! Measures the daemon as its users feel it: the release binary as a process, HTTPS from outside, a real
//! bitcoind and electrs behind it. `make bench` prints a table; `make bench RECORD=1` also writes it to
//! `docs/benchmarks.md`.
//!
//! A program of its own and not a test: nothing here fails because something was slow.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose result is a table")]

mod client;
mod coinjoin;
mod events;
mod market;
mod process;
mod report;
mod scenarios;
mod tap;

use anyhow::Result;
use joinery_testkit::Bench;

use report::Report;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!(
            "nothing measured: run with `cargo bench -p joineryd --bench daemon` or `make bench`"
        );
        return Ok(());
    }
    let record = arguments.iter().any(|argument| argument == "--record");
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));

    client::use_ring();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bench = Bench::start()?;
    let mut report = Report::new();
    runtime.block_on(scenarios::run(&bench, &mut report, only))?;
    println!("\n{}", report.table(only.is_none()));
    if record && only.is_none() {
        let path = report.record()?;
        eprintln!("recorded in {}", path.display());
    }
    Ok(())
}
