//! Waiting for a condition instead of sleeping for a guess.

use std::time::{Duration, Instant};

/// How long the bench waits for a process to reach a state before it calls that a failure. Generous,
/// because a loaded two-core machine builds beside the tests; nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at `condition` until it holds or `deadline` has passed since the call; returns whether it held.
///
/// The condition is looked at once more after the deadline, so a slow look never turns into a false alarm.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    wait_for(deadline, || condition().then_some(())).is_some()
}

/// Like [`wait_until`], and hands out the value that the condition found.
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = Instant::now() >= end;
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        assert!(wait_until(Duration::from_secs(60), || {
            looks += 1;
            looks == 3
        }));
        assert_eq!(looks, 3);
    }

    #[test]
    fn gives_up_after_the_deadline_with_one_last_look() {
        let mut looks = 0;
        assert!(!wait_until(Duration::ZERO, || {
            looks += 1;
            false
        }));
        assert_eq!(looks, 1);
    }
}
