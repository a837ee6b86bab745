//! The task that owns the machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use joinery_roles::directory::{Directory, Incident, Load, Output};
use joinery_roles::event::LinkId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::connection::{Link, millis};
use super::metrics;

/// Inputs taken at a time. After them every connection that was sent something gets its turn to write, so that
/// only a peer that does not read falls behind, and not one that this process has not come to.
const BATCH: usize = 32;
/// Stalled connections are looked for so many times in the time that they have.
const LOOKS: u32 = 6;

/// What connections tell the machine.
#[derive(Debug)]
pub(super) enum Input {
    Opened(LinkId, Arc<Link>),
    Line(LinkId, Vec<u8>),
    Written(LinkId, Load),
    Closed(LinkId, Incident),
    /// Somebody wants to know how it is going.
    Metrics(oneshot::Sender<String>),
}

pub(super) struct Hub {
    directory: Directory,
    links: HashMap<LinkId, Arc<Link>>,
    start: Instant,
    /// Time to end a line that was begun, and for a socket to take anything.
    stall: Duration,
}

impl Hub {
    pub(super) fn new(directory: Directory, start: Instant, stall: Duration) -> Self {
        Self { directory, links: HashMap::new(), start, stall }
    }

    /// Feeds the machine until `stop` is cancelled, then ends all connections.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut look = tokio::time::interval(self.stall / LOOKS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.start + self.directory.next_tick();
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => self.end_stalled(),
                () = tokio::time::sleep_until(due.into()) => {}
                count = inputs.recv_many(&mut batch, BATCH) => if count == 0 { break },
            }
            for input in batch.drain(..) {
                self.feed(input);
                self.act();
            }
            let now = self.start.elapsed();
            if now >= self.directory.next_tick() {
                self.directory.tick(now);
                self.act();
            }
            tokio::task::yield_now().await;
        }
        for link in self.links.values() {
            link.close();
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.start.elapsed();
        match input {
            Input::Opened(id, link) => {
                self.links.insert(id, link);
                self.directory.opened(id, now);
            }
            Input::Line(id, line) => self.directory.received(id, &line, now),
            Input::Written(id, load) => self.directory.written(id, &load, now),
            Input::Closed(id, incident) => {
                self.links.remove(&id);
                self.directory.closed(id, incident, now);
            }
            // Nobody waits for it any more: fine.
            Input::Metrics(answer) => drop(answer.send(metrics::page(&self.directory, now))),
        }
    }

    /// Does what the machine wants.
    fn act(&mut self) {
        while let Some(output) = self.directory.poll() {
            match output {
                Output::Send { link, frame } => {
                    if let Some(link) = self.links.get(&link) {
                        link.push(frame);
                    }
                }
                Output::Close { link, .. } => {
                    if let Some(link) = self.links.remove(&link) {
                        link.close();
                    }
                }
                Output::Log(fact) => {
                    tracing::info!(
                        incident = fact.incident.name(),
                        count = fact.count,
                        "directory: trouble with peers"
                    );
                }
            }
        }
    }

    /// Ends connections that began a line or a write too long ago.
    fn end_stalled(&mut self) {
        let now = millis(self.start);
        let limit = u64::try_from(self.stall.as_millis()).unwrap_or(u64::MAX);
        let stalled = |since: &AtomicU64| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) >= limit
        };
        let mut ended = Vec::new();
        for (id, link) in &self.links {
            if stalled(&link.reading_since) {
                ended.push((*id, Incident::LineStalled));
            } else if stalled(&link.blocked_since) {
                ended.push((*id, Incident::WriteStalled));
            }
        }
        for (id, incident) in ended {
            if let Some(link) = self.links.remove(&id) {
                link.abort();
            }
            self.directory.closed(id, incident, self.start.elapsed());
            self.act();
        }
    }
}
