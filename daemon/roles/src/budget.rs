//! Token buckets: how much of something may happen in a time.

use std::time::Duration;

/// Allows `burst` at once and `per_second` in the long run. Time is what the caller says it is: a steady clock
/// since any start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Duration,
}

impl Budget {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self { burst: f64::from(burst), per_second, left: f64::from(burst), at: Duration::ZERO }
    }

    /// Takes one if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.take_many(1, now)
    }

    /// Takes all of `count` or nothing.
    pub fn take_many(&mut self, count: u32, now: Duration) -> bool {
        self.refill(now);
        let wanted = f64::from(count);
        let enough = self.left >= wanted;
        if enough {
            self.left -= wanted;
        }
        enough
    }

    /// When `count` will be there if nothing is taken until then; `now` when they are there. More than the
    /// burst never come together: the answer is then for the full bucket.
    #[must_use]
    pub fn ready_at(&self, count: u32, now: Duration) -> Duration {
        let mut later = *self;
        later.refill(now);
        let missing = f64::from(count).min(self.burst) - later.left;
        if missing <= 0.0 {
            return now;
        }
        // A rate of nothing means never; the nanosecond makes up for what the division rounds down.
        Duration::try_from_secs_f64(missing / self.per_second)
            .ok()
            .and_then(|wait| now.checked_add(wait)?.checked_add(Duration::from_nanos(1)))
            .unwrap_or(Duration::MAX)
    }

    fn refill(&mut self, now: Duration) {
        // A clock that went back gives nothing.
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.left = passed.as_secs_f64().mul_add(self.per_second, self.left).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_first_then_the_rate() {
        let mut budget = Budget::new(2.0, 3);
        let at = Duration::from_millis;
        assert!((0..3).all(|_| budget.take(at(0))));
        assert!(!budget.take(at(499)));
        assert!(budget.take(at(500)));
        assert!(!budget.take(at(500)));
        assert!(!budget.take(at(100)), "a clock that goes back gives nothing");
        assert!(budget.take_many(3, at(60_000)));
        assert!(!budget.take_many(4, at(600_000)), "never more than the burst");
        let mut budget = Budget::new(3.0, 2);
        assert!(budget.take_many(2, at(0)));
        let ready = budget.ready_at(1, at(0));
        assert!(ready > at(333) && ready < at(334), "{ready:?}");
        assert!(budget.take(ready));
        assert_eq!(Budget::new(0.0, 1).ready_at(2, at(5)), at(5));
        let mut empty = Budget::new(0.0, 1);
        assert!(empty.take(at(0)));
        assert_eq!(empty.ready_at(1, at(0)), Duration::MAX);
    }
}
