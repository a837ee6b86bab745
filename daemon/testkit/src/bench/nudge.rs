//! Keeps electrs awake.
//!
//! electrs looks at bitcoind's mempool after each request it answers, and otherwise only every
//! `wait_duration_secs`, a whole number. A ping a few times a second on a connection of our own makes new
//! transactions visible to everybody within a fraction of a second, at the pace that electrs can follow.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::electrum::Electrum;

/// Pause between two pings, and thus about the age of a transaction when clients hear of it.
const PAUSE: Duration = Duration::from_millis(100);
/// Patience with one answer; a paused electrs takes longer and the connection is made anew.
const SILENCE: Duration = Duration::from_secs(2);

/// The thread that pings, until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Nudge {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudge {
    pub(super) fn start(electrs: SocketAddr) -> Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("bench-nudge".into()).spawn(move || {
            let mut connection: Option<Electrum> = None;
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                // electrs may be stopped, starting or paused: that is the test's business, ours is to try again.
                let alive = match connection.take() {
                    Some(alive) => Ok(alive),
                    None => Electrum::connect(electrs, SILENCE),
                };
                connection = alive
                    .and_then(|mut alive| alive.call("server.ping", &json!([])).map(|_| alive))
                    .ok();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic, and if it did there would be nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        self.stop();
    }
}
