//! How well each directory serves: is it there, does it show the same as the others, does it hide anybody
//! (`spec/protocol.md` 15.2).
//!
//! A maker counts against a directory only where the directory had the chance to show it and the duty. Directories of
//! the reference list nobody, and its makers answer each `!orderbook` through one directory that they choose: that
//! such a directory has not shown a maker says nothing, until the maker announces new terms, which go to all of them.
//! And makers need time to find back to a directory that was away.
//!
//! None of this proves malice: makers connect to different directories, and a reference directory relays the
//! lies of any peer. It tells a person which directory to look at.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::OrderBookTiming;
use super::makers::{Listed, Maker, Makers, terms};
use crate::event::{DirectoryId, Source};

/// Longest time for which a directory that was away is excused: makers of the reference never wait longer before
/// they try again (`spec/roles.md` 11.2, M21).
const LONGEST_GRACE: Duration = Duration::from_secs(9_000);

/// What is counted of one directory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectoryHealth {
    /// Which.
    pub directory: DirectoryId,
    /// Whether it is connected.
    pub up: bool,
    /// How long it was connected, all together.
    pub up_time: Duration,
    /// Share of the time since the start that it was connected, 0 to 1.
    pub up_share: f64,
    /// Connections that were lost.
    pub losses: u64,
    /// Public lines that it brought.
    pub public_lines: u64,
    /// Private messages that it brought.
    pub private_messages: u64,
    /// Makers with offers that are there.
    pub makers: usize,
    /// Their offers.
    pub offers: usize,
    /// Whether it has said that it lists its peers. Those of the reference do not, and show few makers for that reason.
    pub lists: bool,
    /// Makers that it had the chance and the duty to show, and does not: it lists its peers, and every other one that
    /// does so has shown the maker for long; or it brought nothing when the maker changed its terms, and every other
    /// one did. "Every other" may be a single one.
    pub withheld: usize,
    /// Offers of which it last showed other terms than their maker signed afterwards, or than most directories
    /// show.
    pub differing: usize,
    /// 0 to 100: share of the time that it was there, times the share of makers that it shows, times the share
    /// of offers that it shows right.
    pub score: u8,
}

#[derive(Debug, Default)]
struct Counts {
    since: Option<Duration>,
    /// When its connection was lost last, and how long it was away before the present one.
    lost: Option<Duration>,
    away: Duration,
    lists: bool,
    before: Duration,
    losses: u64,
    public_lines: u64,
    private_messages: u64,
}

/// Counters of all directories.
#[derive(Debug)]
pub(super) struct Health {
    start: Duration,
    timing: OrderBookTiming,
    counts: BTreeMap<DirectoryId, Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct View {
    makers: usize,
    offers: usize,
    withheld: usize,
    differing: usize,
}

/// A directory whose picture has had time to fill.
#[derive(Debug, Clone, Copy)]
struct Witness {
    id: DirectoryId,
    /// Makers have had time to come.
    ready: Duration,
    lists: bool,
}

impl Witness {
    const fn via(&self) -> Source {
        Source::Directory(self.id)
    }
}

impl Health {
    pub(super) fn new(directories: u16, timing: OrderBookTiming, now: Duration) -> Self {
        let counts = (0..directories).map(|id| (DirectoryId(id), Counts::default())).collect();
        Self { start: now, timing, counts }
    }

    /// Counts of a way, if it is one of our directories.
    fn of(&mut self, via: Source) -> Option<&mut Counts> {
        let Source::Directory(id) = via else { return None };
        self.counts.get_mut(&id)
    }

    pub(super) fn up(&mut self, via: Source, now: Duration) {
        if let Some(counts) = self.of(via)
            && counts.since.is_none()
        {
            counts.since = Some(now);
            counts.lists = false;
            counts.away = counts.lost.map_or(Duration::ZERO, |lost| now.saturating_sub(lost));
        }
    }

    pub(super) fn lists(&mut self, id: DirectoryId) {
        if let Some(counts) = self.counts.get_mut(&id) {
            counts.lists = true;
        }
    }

    pub(super) fn down(&mut self, via: Source, now: Duration) {
        let Some(counts) = self.of(via) else { return };
        if let Some(since) = counts.since.take() {
            counts.before = counts.before.saturating_add(now.saturating_sub(since));
            counts.losses = counts.losses.saturating_add(1);
            counts.lost = Some(now);
        }
    }

    pub(super) fn public_line(&mut self, via: Source) {
        if let Some(counts) = self.of(via) {
            counts.public_lines = counts.public_lines.saturating_add(1);
        }
    }

    pub(super) fn private_message(&mut self, via: Source) {
        if let Some(counts) = self.of(via) {
            counts.private_messages = counts.private_messages.saturating_add(1);
        }
    }

    /// The state of all directories, in their order.
    pub(super) fn report(&self, makers: &Makers, now: Duration) -> Vec<DirectoryHealth> {
        let views = self.compare(makers, now);
        let shown = makers.iter().filter(|(_, maker)| !maker.offers.is_empty()).count();
        let report = |(id, counts): (&DirectoryId, &Counts)| {
            let view = views.get(id).copied().unwrap_or_default();
            let up_time = counts.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            let up_time = counts.before.saturating_add(up_time);
            let lived = now.saturating_sub(self.start);
            let up_share = share(up_time.as_secs_f64(), lived.as_secs_f64());
            let shows = 1.0 - fraction(view.withheld, shown);
            let right = 1.0 - fraction(view.differing, view.offers);
            DirectoryHealth {
                directory: *id,
                up: counts.since.is_some(),
                up_time,
                up_share,
                losses: counts.losses,
                public_lines: counts.public_lines,
                private_messages: counts.private_messages,
                makers: view.makers,
                offers: view.offers,
                lists: counts.lists,
                withheld: view.withheld,
                differing: view.differing,
                score: percent(up_share * shows * right),
            }
        };
        self.counts.iter().map(report).collect()
    }

    fn compare(&self, makers: &Makers, now: Duration) -> BTreeMap<DirectoryId, View> {
        let witnesses = self.witnesses(now);
        let mut views: BTreeMap<DirectoryId, View> = BTreeMap::new();
        for (_, maker) in makers.iter() {
            if maker.offers.is_empty() {
                continue;
            }
            for place in &maker.places {
                let Source::Directory(id) = place.via else { continue };
                let view = views.entry(id).or_default();
                view.makers = view.makers.saturating_add(1);
                view.offers = view.offers.saturating_add(maker.offers.len());
            }
            for one in &witnesses {
                if self.leaves_out(one, maker, &witnesses, now)
                    || self.keeps_back(one, maker, &witnesses, now)
                {
                    let view = views.entry(one.id).or_default();
                    view.withheld = view.withheld.saturating_add(1);
                }
            }
            for listed in maker.offers.values() {
                for id in self.differing(maker, listed, now) {
                    let view = views.entry(id).or_default();
                    view.differing = view.differing.saturating_add(1);
                }
            }
        }
        views
    }

    fn witnesses(&self, now: Duration) -> Vec<Witness> {
        let witness = |(id, counts): (&DirectoryId, &Counts)| {
            let since = counts.since?;
            let grace = self.timing.grace.max(counts.away.min(LONGEST_GRACE));
            let ready = since.saturating_add(grace);
            (now.saturating_sub(since) >= self.timing.settle).then_some(Witness {
                id: *id,
                ready,
                lists: counts.lists,
            })
        };
        self.counts.iter().filter_map(witness).collect()
    }

    /// From when on a maker that is not shown may be missed on a directory.
    fn chance(&self, one: &Witness, maker: &Maker) -> Duration {
        let left = maker.left_at(one.via());
        let back = left.map_or(Duration::ZERO, |at| at.saturating_add(self.timing.grace));
        one.ready.max(back)
    }

    /// Whether all these directories have shown the maker for long enough at that time, and there is one at least.
    fn known_for_long<'a>(
        &self,
        maker: &Maker,
        mut others: impl Iterator<Item = &'a Witness>,
        by: Duration,
    ) -> bool {
        let long = |other: &Witness| {
            let since = maker.there_since(other.via());
            since.is_some_and(|since| since.saturating_add(self.timing.grace) <= by)
        };
        others.next().is_some_and(long) && others.all(long)
    }

    /// Whether its list of peers lacks a maker that is on those of all others.
    fn leaves_out(&self, one: &Witness, maker: &Maker, all: &[Witness], now: Duration) -> bool {
        let others = all.iter().filter(|other| other.id != one.id && other.lists);
        one.lists
            && maker.serves
            && maker.there_since(one.via()).is_none()
            && self.chance(one, maker) <= now
            && self.known_for_long(maker, others, now)
    }

    /// Whether it brought nothing when the maker changed its terms, and all others brought them.
    ///
    /// Only a change is told to all directories at once. The same terms are announced again where a maker comes back to
    /// one of them.
    fn keeps_back(&self, one: &Witness, maker: &Maker, all: &[Witness], now: Duration) -> bool {
        let others = || all.iter().filter(|other| other.id != one.id);
        let silent = |listed: &Listed| {
            let by = |via| listed.shown.iter().find(move |shown| shown.via == via);
            let Some(changed) = listed.changed else { return false };
            // Terms that nobody signed could be anybody's.
            if listed.signed.is_none() || listed.is_answered_by(one.via()) {
                return false;
            }
            let truth = Some(terms(&listed.offer));
            // Other terms that it showed lately are a difference, not a silence.
            let recent = |at: Duration| now.saturating_sub(at) < self.timing.stale;
            if by(one.via()).is_some_and(|shown| shown.terms == truth || recent(shown.at)) {
                return false;
            }
            let mut announced = Duration::MAX;
            for other in others() {
                let Some(shown) = by(other.via()).filter(|shown| shown.terms == truth) else {
                    return false;
                };
                announced = announced.min(shown.first);
            }
            let due = announced.saturating_add(self.timing.settle);
            let (from, there) = match maker.there_since(one.via()) {
                // It says itself that the maker is there.
                Some(since) => (since, true),
                None => (self.chance(one, maker), self.known_for_long(maker, others(), announced)),
            };
            there && due <= now && from <= announced.min(changed)
        };
        maker.offers.values().any(silent)
    }

    /// Directories that showed other terms of an offer than its maker signed afterwards; where nobody signed, other
    /// ones than most.
    fn differing(&self, maker: &Maker, listed: &Listed, now: Duration) -> Vec<DirectoryId> {
        let settled = |at: Duration| now.saturating_sub(at) >= self.timing.settle;
        let recent = |at: Duration| settled(at) && now.saturating_sub(at) < self.timing.stale;
        let shown: Vec<_> = listed.shown.iter().filter(|shown| recent(shown.at)).collect();
        // What its maker signed is the truth; a line that came after that may be newer than the truth.
        let (truth, until) = match listed.signed {
            Some(signed) => (Some(terms(&listed.offer)), signed),
            None => {
                let half = shown.len() / 2;
                let votes = |terms| shown.iter().filter(|s| s.terms == terms).count();
                let most = shown.iter().map(|s| s.terms).find(|terms| votes(*terms) > half);
                let Some(most) = most else { return Vec::new() };
                (most, now)
            }
        };
        let mut differing = Vec::new();
        for line in shown {
            // Who was not there since cannot have been told there.
            let stayed = maker.there_since(line.via).is_some_and(|since| since <= line.at);
            if let Source::Directory(id) = line.via
                && stayed
                && line.terms != truth
                && line.at < until
            {
                differing.push(id);
            }
        }
        differing
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^32, for display")]
fn fraction(part: usize, whole: usize) -> f64 {
    share(part as f64, whole as f64)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 before"
)]
fn percent(share: f64) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}
