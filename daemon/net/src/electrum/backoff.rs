//! Growing pauses between attempts, with jitter so that many daemons do not come back in step.

use std::time::Duration;

/// Pauses from `first`, doubled with each failure, up to `max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Counts a failure; returns how long to wait now, within a quarter of the exact value.
    pub(crate) fn next(&mut self) -> Duration {
        let exact = exponential(self.first, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        exact.mul_f64(rand::random_range(0.75..=1.25))
    }

    /// All is well again.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first` doubled `times` times, at most `max`.
pub(crate) fn exponential(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(31))).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_start_again_after_a_reset() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut backoff = Backoff::new(first, max);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let pause = backoff.next().as_secs_f64() / f64::from(expected);
            assert!((0.74..1.26).contains(&pause), "{pause} of {expected} s");
        }
        for _ in 0..1000 {
            assert!(backoff.next() <= max.mul_f64(1.25));
        }
        backoff.reset();
        assert!(backoff.next() <= first.mul_f64(1.25));
    }
}
