//! Makers that failed lately: a soft preference, halved each day (`spec/roles.md` 3.15, 11.1 T3).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use joinery_proto::nick::Nick;
use joinery_roles::taker::Outcome;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Time in which a score is halved, seconds.
const HALF_LIFE: f64 = 86_400.0;
/// Makers at or above it are avoided.
const AVOID: f64 = 0.5;
/// Scores below it are forgotten.
const FORGET: f64 = 0.05;
/// Most makers that are remembered.
const MAX_MAKERS: usize = 2_000;
/// What a coinjoin that went well takes off.
const GOOD: f64 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Score {
    /// Failures, each halved since with the days.
    points: f64,
    /// Seconds since epoch at which `points` was right.
    at: u64,
}

impl Score {
    fn now(self, now: u64) -> f64 {
        #[allow(clippy::cast_precision_loss)] // seconds since epoch are far below 2^53
        let age = now.saturating_sub(self.at) as f64;
        self.points * (-age / HALF_LIFE).exp2()
    }
}

/// The scores.
#[derive(Debug)]
pub(super) struct Scores {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Score>>,
}

impl Scores {
    /// What the last run left; a file that cannot be read counts as empty, since all that is lost is a preference.
    pub(super) fn load(path: PathBuf) -> Self {
        let mut known: BTreeMap<String, Score> = durable::read_json(&path).unwrap_or_default();
        known.retain(|_, score| score.points.is_finite());
        Self { path, known: Mutex::new(known) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Score>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makers to be chosen only when there are too few others.
    pub(super) fn avoid(&self, now: u64) -> BTreeSet<Nick> {
        let known = self.lock();
        let bad = known.iter().filter(|(_, score)| score.now(now) >= AVOID);
        bad.filter_map(|(nick, _)| nick.parse().ok()).collect()
    }

    /// Takes over how makers did in a request.
    pub(super) fn record(&self, outcome: &Outcome, now: u64) {
        let failed = outcome.failed.keys().map(|nick| (nick, 1.0));
        let good = outcome.honest.iter().map(|nick| (nick, -GOOD));
        self.change(failed.chain(good), now);
    }

    fn change<'a>(&self, changes: impl Iterator<Item = (&'a Nick, f64)>, now: u64) {
        let mut known = self.lock();
        for (nick, change) in changes {
            let score = known.entry(nick.to_string()).or_insert(Score { points: 0.0, at: now });
            *score = Score { points: (score.now(now) + change).max(0.0), at: now };
        }
        known.retain(|_, score| score.now(now) >= FORGET);
        while known.len() > MAX_MAKERS {
            let least = known.iter().min_by(|a, b| a.1.now(now).total_cmp(&b.1.now(now)));
            let least = least.map(|(nick, _)| nick.clone());
            least.and_then(|nick| known.remove(&nick));
        }
        if let Err(error) = durable::write_json(&self.path, &*known) {
            tracing::warn!(%error, "scores of makers cannot be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_fade_and_good_rounds_make_up_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("makers.json");
        let scores = Scores::load(path.clone());
        let nick: Nick = "J5DdKBhSf2Ykxqqy".parse().unwrap();
        let day = 86_400;
        scores.change([(&nick, 1.0)].into_iter(), 0);
        assert!(scores.avoid(day).contains(&nick));
        assert!(!scores.avoid(day + 600).contains(&nick));
        assert!(Scores::load(path.clone()).avoid(10).contains(&nick));
        scores.change([(&nick, -GOOD), (&nick, -GOOD)].into_iter(), 10);
        assert!(scores.avoid(10).is_empty());
        assert!(Scores::load(path).lock().is_empty());
    }
}
