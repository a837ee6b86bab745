//! When offers are asked for, and when enough was waited for the answers (`spec/roles.md` 3.3, 7.1).

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::OrderBookTiming;
use crate::budget::Budget;
use crate::event::Source;

/// `!orderbook` a minute and way: joinmarket-rs directories disconnect at four (`spec/protocol.md` 13.2).
const ASKS_PER_MINUTE: u32 = 2;

/// The channel takes an answer that a maker repeats to the byte within half a minute for a duplicate; asking for it
/// sooner would be in vain.
const SAME_ANSWER: Duration = Duration::from_secs(35);

/// How far the book is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookPhase {
    /// No directory or IRC server is connected.
    Connecting,
    /// Offers were asked for and come in.
    Collecting,
    /// Whoever answers has answered. Later offers still come in.
    Complete,
}

#[derive(Debug)]
struct Place {
    budget: Budget,
    up: bool,
    /// It is to be asked as soon as its budget allows.
    owed: bool,
}

/// Asks and collections.
#[derive(Debug)]
pub(super) struct Gathering {
    timing: OrderBookTiming,
    /// Directories and IRC networks; they are few and stay.
    places: BTreeMap<Source, Place>,
    phase: BookPhase,
    /// Start of the collection under way.
    started: Duration,
    /// When something new came last, or was asked for.
    newest: Duration,
    /// When everybody was asked last.
    asked: Duration,
    /// When anybody was asked last.
    last_ask: Option<Duration>,
    /// Nobody is asked before.
    hold: Duration,
    /// When everybody was asked because of a dispute last, and when that is to be done next.
    disputed: Option<Duration>,
    dispute_due: Option<Duration>,
    /// End of the last collection.
    pub(super) completed: Option<Duration>,
}

impl Gathering {
    pub(super) fn new(timing: OrderBookTiming) -> Self {
        Self {
            timing,
            places: BTreeMap::new(),
            phase: BookPhase::Connecting,
            started: Duration::ZERO,
            newest: Duration::ZERO,
            asked: Duration::ZERO,
            last_ask: None,
            hold: Duration::ZERO,
            disputed: None,
            dispute_due: None,
            completed: None,
        }
    }

    pub(super) const fn phase(&self) -> BookPhase {
        self.phase
    }

    /// A way is there: it is asked.
    pub(super) fn up(&mut self, via: Source, now: Duration) {
        // Direct peers answer for themselves only; nobody asks them on behalf of the book.
        if matches!(via, Source::Direct(_)) {
            return;
        }
        let place = self.places.entry(via).or_insert_with(|| Place {
            budget: Budget::new(f64::from(ASKS_PER_MINUTE) / 60.0, ASKS_PER_MINUTE),
            up: false,
            owed: false,
        });
        (place.up, place.owed) = (true, true);
        if self.phase == BookPhase::Connecting {
            self.asked = now;
            // All that was known went with the last way; an answer that counts as a duplicate would not bring it back.
            self.hold = self.answers_are_new();
        }
    }

    /// When makers' answers are not taken for duplicates any more.
    fn answers_are_new(&self) -> Duration {
        self.last_ask.map_or(Duration::ZERO, |last| last.saturating_add(SAME_ANSWER))
    }

    /// A way is lost.
    pub(super) fn down(&mut self, via: Source) {
        if let Some(place) = self.places.get_mut(&via) {
            (place.up, place.owed) = (false, false);
        }
        if !self.places.values().any(|place| place.up) {
            self.phase = BookPhase::Connecting;
        }
    }

    /// Everybody is to be asked.
    pub(super) fn refresh(&mut self, now: Duration) {
        self.asked = now;
        for place in self.places.values_mut() {
            place.owed = place.up;
        }
    }

    /// Something new came.
    pub(super) fn news(&mut self, now: Duration) {
        self.newest = now;
    }

    /// A public line contradicts a signed offer: who is right is for its maker to say.
    ///
    /// Not more often than the timing says: strangers can cause it. The last one is not forgotten.
    pub(super) fn dispute(&mut self, now: Duration) {
        let due = self.disputed.map_or(now, |last| last.saturating_add(self.timing.dispute));
        let heard = self.answers_are_new();
        self.dispute_due.get_or_insert_with(|| due.max(now).max(heard));
    }

    /// Who is to be asked now.
    pub(super) fn asks(&mut self, now: Duration) -> Vec<Source> {
        if self.dispute_due.is_some_and(|due| due <= now) {
            (self.dispute_due, self.disputed) = (None, Some(now));
            self.refresh(now);
        }
        let due = now.saturating_sub(self.asked) >= self.timing.refresh;
        if due && self.phase != BookPhase::Connecting {
            self.refresh(now);
        }
        let mut asks = Vec::new();
        for (via, place) in &mut self.places {
            if place.owed && now >= self.hold && place.budget.take(now) {
                place.owed = false;
                asks.push(*via);
            }
        }
        if !asks.is_empty() {
            if self.phase == BookPhase::Connecting {
                // However long it took: a regular question is not due at once.
                self.asked = now;
            }
            if self.phase != BookPhase::Collecting {
                self.started = now;
            }
            self.phase = BookPhase::Collecting;
            self.newest = now;
            self.last_ask = Some(now);
        }
        asks
    }

    /// Ends the collection when it is over; true if it ended now.
    pub(super) fn end(&mut self, now: Duration) -> bool {
        let over = self.phase == BookPhase::Collecting && self.ends() <= now;
        if over {
            self.phase = BookPhase::Complete;
            self.completed = Some(now);
        }
        over
    }

    fn ends(&self) -> Duration {
        let quiet = self.newest.saturating_add(self.timing.collect_quiet);
        let least = self.started.saturating_add(self.timing.collect_min);
        quiet.max(least).min(self.started.saturating_add(self.timing.collect_max))
    }

    /// Whether somebody waits for the budget of asks.
    pub(super) fn owes(&self) -> bool {
        self.places.values().any(|place| place.owed)
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        let refresh = self.asked.saturating_add(self.timing.refresh);
        let regular = match self.phase {
            BookPhase::Connecting => None,
            BookPhase::Collecting => Some(self.ends().min(refresh)),
            BookPhase::Complete => Some(refresh),
        };
        regular.into_iter().chain(self.dispute_due).min()
    }
}
