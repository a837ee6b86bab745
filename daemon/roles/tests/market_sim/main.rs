//! Whole coinjoins of our taker in simulated time: stories about each way in which a request can go (`spec/roles.md`
//! 3.14, 11.1; `spec/defects.md` 1), and markets full of bad makers with a malicious directory among three.
//!
//! A failing seed is printed; `JOINERY_SEED=N` plays only that one. The same seed gives the same history.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests, where a panic is the report and a seed is printed

mod chain;
mod fake_maker;
mod kills;
mod market;
mod real_maker;
mod recorded;
mod rows;
mod stage;
mod stories;
mod trouble;
mod wallet;
