//! A button that is pressed by words: for tests, and for keys of a terminal, which have no release.

use std::str::FromStr;
use std::thread::sleep;
use std::time::Duration;

use super::Inputs;

/// What a hand does: `down`, `up`, or `press SECONDS` (0.1 if not said, 60 at most).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Press and keep holding.
    Down,
    /// Let go.
    Up,
    /// Press for so long.
    Press(Duration),
}

/// Not a word that a hand knows.
#[derive(Debug, thiserror::Error)]
#[error("not down, up or press SECONDS")]
pub struct NoScript;

/// A short press.
const SHORT: f64 = 0.1;
/// Longer than anything that the button tells apart.
const LONGEST: f64 = 60.0;

impl FromStr for Script {
    type Err = NoScript;

    fn from_str(line: &str) -> Result<Self, NoScript> {
        let mut words = line.split_whitespace();
        let script = match (words.next(), words.next()) {
            (Some("down"), None) => Self::Down,
            (Some("up"), None) => Self::Up,
            (Some("press"), seconds) => {
                let seconds = seconds.map_or(Ok(SHORT), str::parse).map_err(|_| NoScript)?;
                if !(0.0..=LONGEST).contains(&seconds) {
                    return Err(NoScript);
                }
                Self::Press(Duration::from_secs_f64(seconds))
            }
            _ => return Err(NoScript),
        };
        words.next().map_or(Ok(script), |_| Err(NoScript))
    }
}

impl Script {
    /// Does it; returns when it is done, `false` when nobody listens any more.
    #[must_use]
    pub fn play(self, inputs: &Inputs) -> bool {
        match self {
            Self::Down => inputs.level(true),
            Self::Up => inputs.level(false),
            Self::Press(length) => {
                let down = inputs.level(true);
                sleep(length);
                down && inputs.level(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_know_three_words() {
        let read = |line: &str| line.parse::<Script>().ok();
        assert_eq!(read("down"), Some(Script::Down));
        assert_eq!(read(" up\n"), Some(Script::Up));
        assert_eq!(read("press"), Some(Script::Press(Duration::from_millis(100))));
        assert_eq!(read("press 3.1"), Some(Script::Press(Duration::from_millis(3100))));
        for wrong in [
            "",
            "push",
            "press x",
            "press -1",
            "press NaN",
            "press inf",
            "press 61",
            "press 1 2",
            "down 1",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
