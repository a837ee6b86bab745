//! The light in the button. It tells what the box does from across the room, display or not.

use std::time::Duration;

/// What the light shows. No pattern flashes faster than three times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Locked.
    Off,
    /// Unlocked and idle.
    Steady,
    /// The maker runs.
    SlowBreath,
    /// The taker runs.
    QuickBreath,
    /// Someone is waited for.
    DoubleBlink,
    /// An error: the daemon is silent, or the box cannot do its work.
    FastBlink,
}

/// Between two steps of a breath: smooth enough for an eye, and cheap.
const STEP: Duration = Duration::from_millis(40);

impl Pattern {
    /// A word for logs and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Steady => "steady",
            Self::SlowBreath => "slow-breath",
            Self::QuickBreath => "quick-breath",
            Self::DoubleBlink => "double-blink",
            Self::FastBlink => "fast-blink",
        }
    }

    /// Brightness, 0 to 255 of the time lit, this long after the pattern began; and how long it stays so, `None` for
    /// ever.
    #[must_use]
    pub fn at(self, elapsed: Duration) -> (u8, Option<Duration>) {
        match self {
            Self::Off => (0, None),
            Self::Steady => (255, None),
            Self::SlowBreath => breath(elapsed, 4000),
            Self::QuickBreath => breath(elapsed, 1200),
            Self::DoubleBlink => steps(elapsed, &[(170, 255), (170, 0), (170, 255), (890, 0)]),
            Self::FastBlink => steps(elapsed, &[(200, 255), (200, 0)]),
        }
    }
}

fn phase(elapsed: Duration, period_ms: u32) -> u32 {
    let phase = elapsed.as_millis() % u128::from(period_ms);
    u32::try_from(phase).unwrap_or(0)
}

/// A triangle squared: an eye sees it rise and fall evenly. Never quite dark, which would look like "locked".
fn breath(elapsed: Duration, period_ms: u32) -> (u8, Option<Duration>) {
    let half = period_ms / 2;
    let phase = phase(elapsed, period_ms);
    let height = if phase < half { phase } else { period_ms - phase };
    let level = height * 255 / half;
    let lit = (level * level / 255).max(4);
    (u8::try_from(lit).unwrap_or(u8::MAX), Some(STEP))
}

fn steps(elapsed: Duration, steps: &[(u32, u8)]) -> (u8, Option<Duration>) {
    let period = steps.iter().map(|(length, _)| length).sum();
    let mut left = phase(elapsed, period);
    for (length, lit) in steps {
        if left < *length {
            return (*lit, Some(Duration::from_millis(u64::from(length - left))));
        }
        left -= length;
    }
    (0, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: [Pattern; 4] =
        [Pattern::SlowBreath, Pattern::QuickBreath, Pattern::DoubleBlink, Pattern::FastBlink];

    /// Brightness at each millisecond of ten seconds.
    fn course(pattern: Pattern) -> Vec<u8> {
        (0..10_000).map(|ms| pattern.at(Duration::from_millis(ms)).0).collect()
    }

    #[test]
    fn locked_is_dark_and_idle_is_steady_and_neither_costs_anything() {
        assert_eq!(Pattern::Off.at(Duration::from_secs(9)), (0, None));
        assert_eq!(Pattern::Steady.at(Duration::from_secs(9)), (255, None));
    }

    #[test]
    fn nothing_flashes_faster_than_three_times_a_second() {
        for pattern in MOVING {
            let rises: Vec<usize> = course(pattern)
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| pair[0] < 128 && pair[1] >= 128)
                .map(|(at, _)| at)
                .collect();
            for pair in rises.windows(2) {
                assert!(pair[1] - pair[0] >= 334, "{}: {pair:?}", pattern.name());
            }
        }
    }

    #[test]
    fn breaths_are_smooth_and_never_dark() {
        for pattern in [Pattern::SlowBreath, Pattern::QuickBreath] {
            let course = course(pattern);
            assert!(course.iter().all(|lit| *lit > 0));
            assert_eq!(course.iter().max(), Some(&255));
            assert!(course.windows(2).all(|pair| pair[0].abs_diff(pair[1]) < 3));
        }
    }

    #[test]
    fn whoever_follows_the_given_waits_sees_the_same_course() {
        for pattern in [Pattern::DoubleBlink, Pattern::FastBlink] {
            let (course, mut at) = (course(pattern), Duration::ZERO);
            while at < Duration::from_secs(9) {
                let (lit, wait) = pattern.at(at);
                let wait = wait.unwrap();
                let from = usize::try_from(at.as_millis()).unwrap();
                let to = from + usize::try_from(wait.as_millis()).unwrap();
                assert!(course[from..to].iter().all(|other| *other == lit));
                at += wait;
            }
        }
    }
}
