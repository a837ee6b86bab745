//! The brake on password guessing: unlocking needs no token, so anybody who reaches the port can try
//! (`spec/api.md` 6.7). One brake for all callers and wallets: an attacker has many addresses, and the
//! wallet has one password.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;
use crate::error::ApiError;

/// Wrong passwords that cost nothing but the key derivation.
const FREE_FAILURES: u32 = 5;
/// Wait after the first failure above that; it doubles with each one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Callers that may wait for the one key derivation at a time; the next one is sent away.
const MAX_WAITING: usize = 16;

#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    /// On the steady clock.
    closed_until: Duration,
}

/// Lets one password attempt at a time pass, and after failures none for a while.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Clock,
    attempts: Mutex<Attempts>,
    /// Where the number of failures survives a restart: pulling the plug must not buy fresh attempts.
    path: Option<PathBuf>,
    turn: Semaphore,
    waiting: Semaphore,
}

/// The right to try one password. The outcome must be reported.
#[derive(Debug)]
#[must_use]
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    _turn: SemaphorePermit<'a>,
}

fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FREE_FAILURES) {
        None => Duration::ZERO,
        Some(more) => FIRST_WAIT.saturating_mul(1 << more.min(5)).min(LONGEST_WAIT),
    }
}

impl Throttle {
    pub(crate) fn new(clock: Clock, path: Option<PathBuf>) -> Self {
        let stored = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let failures = stored.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let closed_until = clock.steady() + wait_after(failures);
        Self {
            clock,
            attempts: Mutex::new(Attempts { failures, closed_until }),
            path,
            turn: Semaphore::new(1),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), ApiError> {
        let left = self.lock().closed_until.saturating_sub(self.clock.steady());
        if left.is_zero() { Ok(()) } else { Err(ApiError::TooManyAttempts { retry_after: left }) }
    }

    /// Waits for the turn to try one password.
    ///
    /// # Errors
    /// 429 while the brake is on or too many wait already.
    pub(crate) async fn attempt(&self) -> Result<Attempt<'_>, ApiError> {
        self.check()?;
        let crowded = |_| ApiError::TooManyAttempts { retry_after: FIRST_WAIT };
        let _place = self.waiting.try_acquire().map_err(crowded)?;
        let turn = self.turn.acquire().await.map_err(|_| ApiError::Internal("throttle_closed"))?;
        // Those before us may have failed meanwhile.
        self.check()?;
        Ok(Attempt { throttle: self, _turn: turn })
    }

    /// Takes the brake off: somebody proved to be at the box itself.
    pub(crate) fn clear(&self) {
        let mut attempts = self.lock();
        if attempts.failures > 0 {
            *attempts = Attempts::default();
            self.store(0);
        }
    }

    fn store(&self, failures: u32) {
        let Some(path) = &self.path else { return };
        let outcome = if failures == 0 {
            std::fs::remove_file(path)
        } else {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(path).and_then(|mut file| {
                file.write_all(failures.to_string().as_bytes())?;
                file.sync_data()
            })
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "number of failed unlocks cannot be stored");
        }
    }
}

impl Attempt<'_> {
    /// The password was right.
    pub(crate) fn succeeded(self) {
        self.throttle.clear();
    }

    /// The password was wrong.
    pub(crate) fn failed(self) {
        let throttle = self.throttle;
        let mut attempts = throttle.lock();
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.closed_until = throttle.clock.steady() + wait_after(attempts.failures);
        throttle.store(attempts.failures);
        tracing::warn!(failures = attempts.failures, "wrong wallet password");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn retry_after(error: &ApiError) -> Option<u64> {
        error.parts().retry_after
    }

    #[tokio::test]
    async fn unlock_backoff_global() {
        let clock = ManualClock::new(1000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("failed-unlocks");
        let throttle = Throttle::new(clock.clock(), Some(path.clone()));
        for _ in 0..FREE_FAILURES {
            throttle.attempt().await.unwrap().failed();
        }
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            let refused = throttle.attempt().await.unwrap_err();
            assert_eq!(retry_after(&refused), Some(wait));
            clock.advance(wait);
            throttle.attempt().await.unwrap().failed();
        }
        // A restart remembers, and nobody else can read it.
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let throttle = Throttle::new(clock.clock(), Some(path.clone()));
        assert_eq!(retry_after(&throttle.attempt().await.unwrap_err()), Some(30));
        clock.advance(30);
        throttle.attempt().await.unwrap().succeeded();
        assert!(!path.exists());
        throttle.attempt().await.unwrap().failed();
        throttle.attempt().await.unwrap().failed();
    }

    #[tokio::test]
    async fn somebody_at_the_box_can_take_the_brake_off() {
        let throttle = Throttle::new(ManualClock::new(0).clock(), None);
        for _ in 0..FREE_FAILURES {
            throttle.attempt().await.unwrap().failed();
        }
        assert!(throttle.attempt().await.is_err());
        throttle.clear();
        assert!(throttle.attempt().await.is_ok());
    }

    #[tokio::test]
    async fn parallel_attempts_take_turns_and_a_crowd_is_sent_away() {
        let throttle = std::sync::Arc::new(Throttle::new(ManualClock::new(0).clock(), None));
        let first = throttle.attempt().await.unwrap();
        let others: Vec<_> = (0..100)
            .map(|_| {
                let throttle = std::sync::Arc::clone(&throttle);
                tokio::spawn(async move {
                    match throttle.attempt().await {
                        Ok(attempt) => {
                            attempt.failed();
                            true
                        }
                        Err(_) => false,
                    }
                })
            })
            .collect();
        // Let all of them come to the door before the first leaves.
        while throttle.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        first.failed();
        let mut tried = 0;
        for other in others {
            tried += u32::from(other.await.unwrap());
        }
        assert_eq!(tried, FREE_FAILURES - 1);
    }
}
