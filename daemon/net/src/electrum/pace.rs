//! How much is asked of the server at once.
//!
//! electrs answers everything that waits for it in one go, and whenever nothing waits it first looks at every
//! subscribed script of every client. So what counts there is how often it runs out of questions. Other servers
//! limit what one client may ask, and a small machine needs a minute for what a large one does in a second.
//! Therefore as much is asked as the server has answered quickly before.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Answer, Call, Client};
use super::error::{LinkError, ServerError};

/// Scripts in one JSON array, at first and at most.
const BATCH: usize = 200;
/// A round that took no longer than this may be followed by a larger one.
const QUICK: Duration = Duration::from_millis(500);
/// A round that took longer is followed by a smaller one: the wallet's other questions wait behind it.
const SLOW: Duration = Duration::from_secs(4);

/// What is under way at the same time, for each kind of question, because they cost a server so differently.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Scripts in one JSON array.
    pub(super) batch: usize,
    /// Whether requests go out as JSON arrays, which lets electrs work in parallel.
    pub(super) arrays: bool,
    pub(super) subscriptions: Window,
    pub(super) histories: Window,
    pub(super) transactions: Window,
    pub(super) proofs: Window,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: BATCH,
            arrays: true,
            subscriptions: Window { now: 800, most: 8_000 },
            histories: Window { now: 800, most: 2_000 },
            transactions: Window { now: 200, most: 1_000 },
            proofs: Window { now: 200, most: 1_000 },
        }
    }
}

impl Pace {
    /// The server complained or gave up.
    pub(super) fn shrink(&mut self) {
        self.batch = (self.batch / 2).max(1);
        for window in
            [&mut self.subscriptions, &mut self.histories, &mut self.transactions, &mut self.proofs]
        {
            window.now = (window.now / 4).max(1);
        }
    }

    /// Everything was answered.
    pub(super) fn grow(&mut self) {
        self.batch = (self.batch * 2).min(BATCH);
    }
}

/// Count of questions that may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    now: usize,
    most: usize,
}

impl Window {
    pub(super) const fn size(self) -> usize {
        self.now
    }

    /// So many questions, sent together, were answered in this time.
    pub(super) fn took(&mut self, questions: usize, time: Duration) {
        if time > SLOW {
            self.now = (self.now / 2).max(1);
        } else if time <= QUICK && questions >= self.now {
            self.now = (self.now * 2).min(self.most);
        }
    }

    /// Makes calls, a windowful after the other, and hands each outcome to `each`, in order.
    ///
    /// # Errors
    /// The first that `each` returns, or the end of the connection.
    pub(super) async fn ask(
        &mut self,
        client: &Client,
        calls: Vec<Call>,
        mut each: impl FnMut(usize, Result<Answer, ServerError>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut calls = calls.into_iter();
        let mut done = 0;
        loop {
            let some: Vec<Call> = calls.by_ref().take(self.now).collect();
            let count = some.len();
            if count == 0 {
                return Ok(());
            }
            let begin = Instant::now();
            client.call_many(some, count, |index, answer| each(done + index, answer)).await?;
            self.took(count, begin.elapsed());
            done += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_servers_are_asked_more_and_slow_ones_less() {
        let mut window = Window { now: 800, most: 2_000 };
        window.took(799, QUICK);
        assert_eq!(window.size(), 800, "that was not all that is allowed");
        window.took(800, QUICK);
        assert_eq!(window.size(), 1_600);
        window.took(1_600, QUICK);
        assert_eq!(window.size(), 2_000, "not without end");
        window.took(2_000, QUICK * 2);
        assert_eq!(window.size(), 2_000);
        window.took(10, SLOW * 2);
        assert_eq!(window.size(), 1_000);
    }

    #[test]
    fn complaints_bring_it_down_at_once_and_never_to_nothing() {
        let mut pace = Pace::default();
        pace.shrink();
        assert_eq!((pace.batch, pace.subscriptions.size(), pace.proofs.size()), (100, 200, 50));
        for _ in 0..20 {
            pace.shrink();
            pace.histories.took(1, SLOW * 2);
        }
        assert_eq!((pace.batch, pace.histories.size()), (1, 1));
        pace.grow();
        pace.histories.took(1, QUICK);
        assert_eq!((pace.batch, pace.histories.size()), (2, 2));
    }
}
