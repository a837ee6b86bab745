//! The published vectors, every case of every file (`tests/vectors/`).

mod blacklist;
mod bond;
mod cjfee;
mod commands;
mod fees;
mod irc;
mod maker_offers;
mod message_signing;
mod naclbox;
mod nick;
mod offers;
mod onion;
mod podle;
mod recorded_peers;
mod transaction;
mod transaction_build;
mod transcript;

use serde::de::DeserializeOwned;

/// Parses a vector file; unknown keys are ignored.
fn load<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}
