//! Nicks that this device had lately: never counterparties of its own (`spec/roles.md` 13, 11.1 T19).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use joinery_proto::nick::Nick;

use crate::durable;

/// How long a nick is remembered, seconds.
const DAY: u64 = 24 * 60 * 60;
/// Most nicks that are remembered; one is drawn for each round and for each published commitment.
const MAX_NICKS: usize = 4096;

/// The nicks, with the second at which each was drawn.
#[derive(Debug)]
pub(super) struct Nicks {
    path: PathBuf,
    known: Mutex<BTreeMap<String, u64>>,
}

impl Nicks {
    /// What the last run left; a file that cannot be read counts as empty, since all that is lost is a preference.
    pub(super) fn load(path: PathBuf) -> Self {
        let known = Mutex::new(durable::read_json(&path).unwrap_or_default());
        Self { path, known }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a nick from `now` on, seconds since epoch.
    pub(super) fn add(&self, nick: Nick, now: u64) {
        let mut known = self.lock();
        known.retain(|_, since| now.saturating_sub(*since) < DAY);
        while known.len() >= MAX_NICKS {
            let oldest =
                known.iter().min_by_key(|(_, since)| **since).map(|(nick, _)| nick.clone());
            oldest.and_then(|nick| known.remove(&nick));
        }
        known.insert(nick.to_string(), now);
        if let Err(error) = durable::write_json(&self.path, &*known) {
            tracing::warn!(%error, "nicks of this device cannot be stored");
        }
    }

    /// Nicks of the last day.
    pub(super) fn recent(&self, now: u64) -> BTreeSet<Nick> {
        let known = self.lock();
        let recent = known.iter().filter(|(_, since)| now.saturating_sub(**since) < DAY);
        recent.filter_map(|(nick, _)| nick.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_nicks_are_remembered_for_a_day_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nicks.json");
        let nick: Nick = "J5DdKBhSf2Ykxqqy".parse().unwrap();
        let nicks = Nicks::load(path.clone());
        nicks.add(nick, 1_000);
        assert!(Nicks::load(path.clone()).recent(1_000 + DAY - 1).contains(&nick));
        assert!(Nicks::load(path.clone()).recent(1_000 + DAY).is_empty());
        std::fs::write(&path, "{ torn").unwrap();
        assert!(Nicks::load(path).recent(1_000).is_empty());
    }
}
