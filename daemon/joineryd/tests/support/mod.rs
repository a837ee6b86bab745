//! What the process-level tests stand on: the real `joineryd` binary in a temporary data directory on free
//! ports, an HTTPS client that trusts its certificate alone, and a websocket.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test program uses its part")]

pub mod acknowledged;
pub mod board;
pub mod browser;
pub mod client;
pub mod contract;
pub mod daemon;
pub mod market;
pub mod raw;
pub mod real_board;
pub mod relay;
pub mod sealed;
pub mod socket;

pub use client::{Answer, Client};
pub use daemon::{Daemon, Home};
pub use market::{Market, Participant};
pub use raw::Raw;
pub use socket::Socket;

use std::time::{Duration, Instant};

/// How long a state may take to come about before that is a failure. Generous: machines are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Looks until the condition gives a value. Panics with `what` when it never does.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let last = Instant::now() >= end;
        if let Some(found) = look().await {
            return found;
        }
        assert!(!last, "waited in vain: {what}");
        // A pause between looks, not a wait for a guess.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
