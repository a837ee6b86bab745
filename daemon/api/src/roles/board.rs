//! What the roles reported last, for whoever asks, and told to websockets when it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use joinery_roles::maker::{MakerEnd, MakerState};
use joinery_roles::taker::{Outcome, Phase, Progress};
use serde_json::json;

use super::json::{TakerStatusJson, counts, maker_event, taker_finished_event, taker_phase_event};
use super::run::{MakerDesk, TakerDesk};
use crate::activity::RoleGuard;
use crate::glance::TakerGlance;
use crate::hub::Hub;

/// The coinjoin that runs or ran last.
#[derive(Debug, Clone)]
pub(crate) struct TakerRecord {
    generation: u64,
    pub(super) progress: Option<Progress>,
    /// When the phase ends at the latest.
    pub(super) deadline: Option<Instant>,
    pub(super) ended: Option<TakerEnd>,
}

/// How the last coinjoin ended.
#[derive(Debug, Clone)]
pub(crate) enum TakerEnd {
    /// As the machine says.
    Outcome(Box<Outcome>),
    /// Its task ended without a word: a mistake of ours.
    Vanished,
}

/// The maker that runs or ran last.
#[derive(Debug, Clone)]
struct MakerRecord {
    generation: u64,
    state: Option<Arc<MakerState>>,
    /// Why takers cannot reach it.
    trouble: Option<String>,
    over: bool,
}

#[derive(Debug, Default)]
struct Inner {
    generation: u64,
    taker: Option<TakerRecord>,
    maker: Option<MakerRecord>,
    /// Why the last maker ended or could not start: stable word and sentence.
    maker_error: Option<(String, String)>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct RoleBoard {
    inner: Mutex<Inner>,
    hub: Arc<Hub>,
}

impl RoleBoard {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), hub })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A desk for a taker that begins.
    pub(crate) fn taker_desk(self: &Arc<Self>, guard: RoleGuard) -> TakerDesk {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.taker = Some(TakerRecord { generation, progress: None, deadline: None, ended: None });
        drop(inner);
        TakerDesk { guard, board: Arc::clone(self), generation }
    }

    /// A desk for a maker that begins.
    pub(crate) fn maker_desk(self: &Arc<Self>, guard: RoleGuard) -> MakerDesk {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.maker = Some(MakerRecord { generation, state: None, trouble: None, over: false });
        inner.maker_error = None;
        drop(inner);
        MakerDesk { guard, board: Arc::clone(self), generation }
    }

    pub(super) fn taker_progress(&self, generation: u64, progress: Progress, now: Duration) {
        let deadline = progress
            .deadline
            .and_then(|deadline| Instant::now().checked_add(deadline.saturating_sub(now)));
        let mut inner = self.lock();
        let Some(record) = inner.taker.as_mut().filter(|taker| taker.generation == generation)
        else {
            return;
        };
        record.progress = Some(match record.progress.take() {
            // What the last attempt came to stays to be seen when it is over.
            Some(last) if progress.phase == Phase::Over => {
                Progress { phase: Phase::Over, deadline: None, ..last }
            }
            _ => progress,
        });
        record.deadline = deadline;
        let event = taker_phase_event(record);
        // Still locked: news go out in the order in which they happened.
        self.hub.publish_json(&json!({"taker": event}));
    }

    pub(super) fn taker_finished(&self, generation: u64, outcome: Option<Outcome>) {
        let mut inner = self.lock();
        let Some(record) = inner
            .taker
            .as_mut()
            .filter(|taker| taker.generation == generation && taker.ended.is_none())
        else {
            return;
        };
        record.deadline = None;
        record.ended = Some(outcome.map_or(TakerEnd::Vanished, |o| TakerEnd::Outcome(Box::new(o))));
        let event = taker_finished_event(record);
        self.hub.publish_json(&json!({"taker": event}));
    }

    pub(super) fn maker_state(&self, generation: u64, state: Arc<MakerState>) {
        let mut inner = self.lock();
        let Some(record) = inner.maker.as_mut().filter(|maker| maker.generation == generation)
        else {
            return;
        };
        let event = maker_event(&state);
        record.state = Some(state);
        self.hub.publish_json(&json!({"maker": event}));
    }

    pub(super) fn maker_trouble(&self, generation: u64, text: Option<&str>) {
        let mut inner = self.lock();
        let Some(record) = inner.maker.as_mut().filter(|maker| maker.generation == generation)
        else {
            return;
        };
        if record.trouble.as_deref() != text {
            record.trouble = text.map(ToOwned::to_owned);
            self.hub.publish_json(&json!({"maker": {"event": "reach", "trouble": text}}));
        }
    }

    pub(super) fn maker_finished(&self, generation: u64, end: Option<&MakerEnd>) {
        match end {
            Some(end) => self.maker_failed(generation, end.code(), &end.to_string()),
            None => self.maker_failed(generation, "internal", "the maker ended unexpectedly"),
        }
    }

    pub(super) fn maker_failed(&self, generation: u64, code: &str, text: &str) {
        let mut inner = self.lock();
        let Some(record) =
            inner.maker.as_mut().filter(|maker| maker.generation == generation && !maker.over)
        else {
            return;
        };
        record.over = true;
        record.state = None;
        if code != "stopped" {
            inner.maker_error = Some((code.to_owned(), text.to_owned()));
        }
        let event = json!({"event": "finished", "reason": code, "text": text});
        self.hub.publish_json(&json!({"maker": event}));
    }

    /// The maker that runs now.
    pub(crate) fn maker(&self) -> Option<Arc<MakerState>> {
        self.lock().maker.as_ref().filter(|maker| !maker.over)?.state.clone()
    }

    /// Why takers cannot reach the maker that runs; or why the last one ended, unless a person stopped it.
    pub(crate) fn maker_error(&self) -> Option<String> {
        let inner = self.lock();
        match inner.maker.as_ref().filter(|maker| !maker.over) {
            Some(maker) => maker.trouble.clone(),
            None => inner.maker_error.as_ref().map(|(_, text)| text.clone()),
        }
    }

    /// `/taker/status`; `running`: whether the daemon's state is that of a taker.
    pub(crate) fn taker_status(&self, running: bool) -> TakerStatusJson {
        TakerStatusJson::new(self.lock().taker.as_ref(), running)
    }

    /// The coinjoin that was begun last, in a few words.
    pub(crate) fn taker_glance(&self) -> Option<TakerGlance> {
        let inner = self.lock();
        let record = inner.taker.as_ref().filter(|taker| taker.ended.is_none())?;
        let progress = record.progress.as_ref()?;
        let (answered, _) = counts(progress);
        Some(TakerGlance {
            phase: progress.phase.as_str(),
            asked: progress.makers.len(),
            answered,
            deadline: record.deadline,
        })
    }

    /// Forgets what belongs to a wallet that was locked.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        if inner.taker.as_ref().is_some_and(|taker| taker.ended.is_some()) {
            inner.taker = None;
        }
        inner.maker_error = None;
    }
}
