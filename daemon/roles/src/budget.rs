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
    }
}
