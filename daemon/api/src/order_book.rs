//! The order book as clients see it (`spec/api.md` 12). Nobody collects offers yet: the book is empty, and
//! asking for a refresh is limited all the same.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// Time between two refreshes.
const REFRESH: Duration = Duration::from_secs(60);

/// Offers heard, and when they were last asked for.
#[derive(Debug)]
pub(crate) struct OrderBook {
    clock: Clock,
    refreshed: Mutex<Option<Duration>>,
}

impl OrderBook {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, refreshed: Mutex::new(None) }
    }

    /// Whether a refresh is due; if so the next one is not for a minute.
    pub(crate) fn refresh_is_due(&self) -> bool {
        let now = self.clock.steady();
        let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        let due = refreshed.is_none_or(|last| now >= last + REFRESH);
        if due {
            *refreshed = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn one_refresh_a_minute() {
        let clock = ManualClock::new(0);
        let book = OrderBook::new(clock.clock());
        assert!(book.refresh_is_due());
        clock.advance(59);
        assert!(!book.refresh_is_due());
        clock.advance(1);
        assert!(book.refresh_is_due());
    }
}
