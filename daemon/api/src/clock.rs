//! Time as the API sees it, so that tests can move it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks in one: the wall clock, for what people see, and a steady one, for how long tokens and
/// waits last. The steady one starts at the wall's time and never jumps: a board without a clock battery
/// moves its wall clock by years when it finds the network.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<ManualClock>);

impl Clock {
    /// The clocks of the machine.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// Seconds since epoch, as the machine believes now.
    #[must_use]
    pub fn wall(&self) -> u64 {
        match &self.0 {
            None => since_epoch().as_secs(),
            Some(manual) => manual.0.load(Ordering::SeqCst),
        }
    }

    /// Time since epoch as it was believed at first use, plus what has passed since.
    #[must_use]
    pub fn steady(&self) -> Duration {
        static START: OnceLock<(Duration, Instant)> = OnceLock::new();
        match &self.0 {
            None => {
                let (base, start) = START.get_or_init(|| (since_epoch(), Instant::now()));
                *base + start.elapsed()
            }
            Some(manual) => Duration::from_secs(manual.0.load(Ordering::SeqCst)),
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A clock that moves only when told to. Seconds since epoch.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Starts at a time.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// Moves on.
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Something that reads it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Some(self.clone()))
    }
}
