//! How well each directory serves: is it there, does it show the same as the others, does it hide anybody
//! (`spec/protocol.md` 15.2).
//!
//! None of this proves malice: makers connect to different directories, and a reference directory relays the
//! lies of any peer. It tells a person which directory to look at, and the channel which one to prefer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::makers::{Makers, terms};
use crate::event::{DirectoryId, Source};

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
    /// Makers that every other connected directory shows and this one does not. Counted with three or more
    /// directories; with two, those that the other one shows.
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
    before: Duration,
    losses: u64,
    public_lines: u64,
    private_messages: u64,
}

/// Counters of all directories.
#[derive(Debug)]
pub(super) struct Health {
    start: Duration,
    settle: Duration,
    stale: Duration,
    counts: BTreeMap<DirectoryId, Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct View {
    makers: usize,
    offers: usize,
    withheld: usize,
    differing: usize,
}

impl Health {
    pub(super) fn new(directories: u16, settle: Duration, stale: Duration, now: Duration) -> Self {
        let counts = (0..directories).map(|id| (DirectoryId(id), Counts::default())).collect();
        Self { start: now, settle, stale, counts }
    }

    /// Counts of a way, if it is one of our directories.
    fn of(&mut self, via: Source) -> Option<&mut Counts> {
        let Source::Directory(id) = via else { return None };
        self.counts.get_mut(&id)
    }

    pub(super) fn up(&mut self, via: Source, now: Duration) {
        if let Some(counts) = self.of(via) {
            counts.since.get_or_insert(now);
        }
    }

    pub(super) fn down(&mut self, via: Source, now: Duration) {
        let Some(counts) = self.of(via) else { return };
        if let Some(since) = counts.since.take() {
            counts.before = counts.before.saturating_add(now.saturating_sub(since));
            counts.losses = counts.losses.saturating_add(1);
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
                withheld: view.withheld,
                differing: view.differing,
                score: percent(up_share * shows * right),
            }
        };
        self.counts.iter().map(report).collect()
    }

    fn compare(&self, makers: &Makers, now: Duration) -> BTreeMap<DirectoryId, View> {
        let settled = |since: Duration| now.saturating_sub(since) >= self.settle;
        let mut views: BTreeMap<DirectoryId, View> = BTreeMap::new();
        // Directories whose picture has had time to fill.
        let up: Vec<DirectoryId> = self
            .counts
            .iter()
            .filter(|(_, counts)| counts.since.is_some_and(settled))
            .map(|(id, _)| *id)
            .collect();
        for (_, maker) in makers.iter() {
            if maker.offers.is_empty() {
                continue;
            }
            let mut there = 0_usize;
            for place in &maker.places {
                let Source::Directory(id) = place else { continue };
                let view = views.entry(*id).or_default();
                view.makers = view.makers.saturating_add(1);
                view.offers = view.offers.saturating_add(maker.offers.len());
                there = there.saturating_add(usize::from(up.contains(id)));
            }
            if up.len() >= 2 && there.saturating_add(1) == up.len() {
                let hides = |id: &&DirectoryId| !maker.places.contains(&Source::Directory(**id));
                if let Some(id) = up.iter().find(hides) {
                    let view = views.entry(*id).or_default();
                    view.withheld = view.withheld.saturating_add(1);
                }
            }
            for listed in maker.offers.values() {
                let recent = |at: Duration| settled(at) && now.saturating_sub(at) < self.stale;
                let shown: Vec<_> = listed.shown.iter().filter(|shown| recent(shown.at)).collect();
                // What its maker signed is the truth; a line that came after that may be newer than the truth.
                let (truth, until) = match listed.signed {
                    Some(signed) => (Some(terms(&listed.offer)), signed),
                    None => {
                        let half = shown.len() / 2;
                        let votes = |terms| shown.iter().filter(|s| s.terms == terms).count();
                        let most = shown.iter().map(|s| s.terms).find(|terms| votes(*terms) > half);
                        let Some(most) = most else { continue };
                        (most, now)
                    }
                };
                for line in shown {
                    if line.terms == truth || line.at >= until {
                        continue;
                    }
                    if let Source::Directory(id) = line.via {
                        let view = views.entry(id).or_default();
                        view.differing = view.differing.saturating_add(1);
                    }
                }
            }
        }
        views
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
