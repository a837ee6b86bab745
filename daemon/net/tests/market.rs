//! The drivers of the market against scripted and real nodes on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

#[path = "market/irc.rs"]
mod irc;
#[path = "market/onion.rs"]
mod onion;
#[path = "market/tor.rs"]
mod tor;

use std::time::Duration;

/// A patience that a loaded machine does not exhaust; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}
