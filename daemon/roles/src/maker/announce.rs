//! Who was told which offers (`spec/roles.md` 4.3).
//!
//! Each directory is told what stands when it comes up, and afterwards what changed, at most once in
//! [`MakerTiming::announce_interval`]. What stands counts for takers from the moment on at which it is set, told
//! or not.

use std::collections::BTreeMap;
use std::time::Duration;

use joinery_proto::offer::{Offer, OfferId};
use joinery_proto::public_message;

use super::config::MakerTiming;
use super::desk::Desk;
use super::output::Output;
use crate::event::Source;

/// One directory.
#[derive(Debug, Default)]
struct Place {
    up: bool,
    /// What was said there last.
    told: Vec<Offer>,
    /// It came up: everything is said again.
    all: bool,
    /// Something is to be said.
    dirty: bool,
    last: Option<Duration>,
}

/// Offers that stand, and who knows.
#[derive(Debug)]
pub(super) struct Announcer {
    timing: MakerTiming,
    standing: Vec<Offer>,
    /// Best balance when they were made, satoshi.
    best: u64,
    places: BTreeMap<Source, Place>,
    /// Offers are made anew then.
    due: Option<Duration>,
}

impl Announcer {
    pub(super) const fn new(timing: MakerTiming) -> Self {
        Self { timing, standing: Vec::new(), best: 0, places: BTreeMap::new(), due: None }
    }

    /// Offers that takers may fill.
    pub(super) fn standing(&self) -> &[Offer] {
        &self.standing
    }

    /// Best balance when they were made, satoshi.
    pub(super) const fn best(&self) -> u64 {
        self.best
    }

    /// Directories that are up.
    pub(super) fn directories_up(&self) -> usize {
        self.places.values().filter(|place| place.up).count()
    }

    pub(super) fn up(&mut self, via: Source) {
        // Direct peers ask when they want to know.
        if matches!(via, Source::Direct(_)) {
            return;
        }
        let place = self.places.entry(via).or_default();
        *place = Place { up: true, all: true, dirty: true, ..std::mem::take(place) };
    }

    pub(super) fn down(&mut self, via: Source) {
        if let Some(place) = self.places.get_mut(&via) {
            place.up = false;
        }
    }

    /// These offers stand from now on.
    pub(super) fn set(&mut self, offers: Vec<Offer>, best: u64) {
        self.best = best;
        self.due = None;
        if offers != self.standing {
            self.standing = offers;
            self.places.values_mut().for_each(|place| place.dirty = true);
        }
    }

    /// Offers are to be made anew after a random delay; an earlier plan stands.
    pub(super) fn later(&mut self, desk: &mut Desk) {
        if self.due.is_none() {
            let most = self.timing.reannounce_delay_max.as_secs_f64();
            let delay = Duration::from_secs_f64(desk.uniform(0.0, most).max(0.0));
            self.due = Some(desk.now.saturating_add(delay));
        }
    }

    /// Whether offers are to be made anew now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Tells directories what they may be told now.
    pub(super) fn flush(&mut self, desk: &mut Desk) {
        let (now, interval) = (desk.now, self.timing.announce_interval);
        for (via, place) in &mut self.places {
            let waits = place.last.is_some_and(|last| now < last.saturating_add(interval));
            if !place.up || !place.dirty || waits {
                continue;
            }
            place.dirty = false;
            let gone: Vec<OfferId> = place
                .told
                .iter()
                .map(|offer| offer.id)
                .filter(|id| !self.standing.iter().any(|offer| offer.id == *id))
                .collect();
            let all = std::mem::take(&mut place.all);
            let told = std::mem::replace(&mut place.told, self.standing.clone());
            let news = self.standing.iter().filter(|offer| all || !told.contains(offer));
            let cancelled = (!gone.is_empty()).then(|| public_message::cancel(&gone));
            for text in cancelled.into_iter().chain(news.map(public_message::announce)) {
                place.last = Some(now);
                desk.out(Output::Announce { text, on: Some(*via) });
            }
        }
    }

    /// Takes everything back, at once: the maker stops.
    pub(super) fn withdraw(&mut self, desk: &mut Desk) {
        self.standing.clear();
        self.due = None;
        for (via, place) in &mut self.places {
            let gone: Vec<OfferId> = place.told.drain(..).map(|offer| offer.id).collect();
            place.dirty = false;
            if place.up && !gone.is_empty() {
                let text = public_message::cancel(&gone);
                desk.out(Output::Announce { text, on: Some(*via) });
            }
        }
    }

    /// When something is to be done.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        let waiting = self.places.values().filter(|place| place.up && place.dirty);
        let wakes = waiting.map(|place| {
            place
                .last
                .map_or(Duration::ZERO, |last| last.saturating_add(self.timing.announce_interval))
        });
        wakes.chain(self.due).min()
    }
}
