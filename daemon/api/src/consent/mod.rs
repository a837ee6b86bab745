//! What needs a press of the button on the box: unlocking, and payments (`docs/board-link.md`, "pending").
//!
//! One request waits at a time. It has an id that was never used before, a deadline, and ends in exactly one verdict;
//! a press for another id, or after the end, approves nothing. Without a board that can show the request nothing waits:
//! it is refused at once. Nothing here knows the socket: the daemon's board bridge holds the [`Seat`].
//!
//! Besides there may be one standing request, which nobody but the daemon itself makes: to go on as a maker after a power
//! cut. It has no deadline, waits also while no board is there, and is shown whenever nothing else waits.

mod coinjoin;
mod quote;
mod refusal;
mod request;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use joinery_wallet::bitcoin::Amount;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(crate) use coinjoin::{KeptAddress, approve_then_run};
pub(crate) use quote::{quote, rates};
pub use refusal::Refusal;
pub use request::{Asked, Payment, PendingRequest};

/// What has to be approved at the box (`[board]` of the daemon's configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsentRules {
    /// Unlocking a wallet, also logging in again to the open one.
    pub unlock: bool,
    /// Payments and coinjoins.
    pub send: bool,
    /// Payments and coinjoins up to this amount need no press, each looked at by itself. Sweeps always need one.
    pub send_above: Amount,
    /// How long a request waits.
    pub patience: Duration,
}

impl Default for ConsentRules {
    /// Nothing has to be approved; who changes that has a minute for the press.
    fn default() -> Self {
        Self {
            unlock: false,
            send: false,
            send_above: Amount::ZERO,
            patience: Duration::from_secs(60),
        }
    }
}

/// A press for one request. Worth nothing any more once the button was held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) struct Approval {
    epoch: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Approved { epoch: u64 },
    Refused(Refusal),
}

#[derive(Debug)]
struct Waiting {
    request: Arc<PendingRequest>,
    verdict: watch::Sender<Option<Verdict>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether the connected board has a panel that works; `None` without a board.
    panel: Option<bool>,
    waiting: Option<Waiting>,
    standing: Option<Waiting>,
    /// Raised whenever the button was held.
    epoch: u64,
    /// The daemon ends: nothing waits any more.
    closed: bool,
}

/// The one request that may wait, and who may answer it.
#[derive(Debug)]
pub struct Consent {
    rules: ConsentRules,
    inner: Mutex<Inner>,
    view: watch::Sender<Option<Arc<PendingRequest>>>,
}

impl Consent {
    pub(crate) fn new(rules: ConsentRules) -> Arc<Self> {
        Arc::new(Self { rules, inner: Mutex::default(), view: watch::Sender::new(None) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that waits, now and from now on.
    #[must_use]
    pub fn pending(&self) -> watch::Receiver<Option<Arc<PendingRequest>>> {
        self.view.subscribe()
    }

    /// How many callers wait for the press: a repeated unlock joins the first.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.lock().waiting.as_ref().map_or(0, |waiting| waiting.verdict.receiver_count())
    }

    /// Takes the place of the board; `None` while another one has it. A board has no panel until it says so.
    #[must_use]
    pub fn seat(self: &Arc<Self>) -> Option<Seat> {
        let mut inner = self.lock();
        if inner.panel.is_some() {
            return None;
        }
        inner.panel = Some(false);
        Some(Seat { consent: Arc::clone(self) })
    }

    /// How long a request waits.
    pub(crate) const fn patience(&self) -> Duration {
        self.rules.patience
    }

    pub(crate) const fn needed_for_unlock(&self) -> bool {
        self.rules.unlock
    }

    /// Whether a payment must be approved; `None` is a sweep.
    pub(crate) fn needed_for_send(&self, amount: Option<Amount>) -> bool {
        self.rules.send && amount.is_none_or(|amount| amount > self.rules.send_above)
    }

    /// Whether a request could wait now: for callers that answer before they ask.
    pub(crate) fn check_free(&self) -> Result<(), Refusal> {
        let inner = self.lock();
        inner.able()?;
        if inner.waiting.is_some() { Err(Refusal::Busy) } else { Ok(()) }
    }

    /// Asks the person at the box and waits for the verdict. The same unlock from the same address joins the one that
    /// waits. When this future is dropped, the request is withdrawn, unless it has only joined.
    ///
    /// # Errors
    /// Every way in which it is not approved.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        asked: Asked,
        from: Option<IpAddr>,
    ) -> Result<Approval, Refusal> {
        let (mut verdict, ticket) = self.begin(asked, from)?;
        let deadline = ticket.as_ref().and_then(|ticket| ticket.deadline);
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                // Who has only joined hears it from the first.
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            decided = verdict.wait_for(Option::is_some) => decided.ok().and_then(|end| *end),
            () = expired => None,
        };
        // A press may have come between the deadline and here; what was decided first counts.
        let end = match (end, &ticket) {
            (None, Some(ticket)) => ticket.end(Refusal::TimedOut),
            (end, _) => end,
        };
        outcome(end)
    }

    /// Asks the person at the box for as long as it takes, whenever nothing else waits. When this future is dropped, the
    /// request is withdrawn.
    ///
    /// # Errors
    /// [`Refusal::Refused`] by a hold, [`Refusal::Withdrawn`] when the daemon ends, [`Refusal::Busy`] when another one
    /// stands.
    pub(crate) async fn ask_standing(self: &Arc<Self>, asked: Asked) -> Result<Approval, Refusal> {
        let (mut verdict, _ticket) = {
            let mut inner = self.lock();
            if inner.closed {
                return Err(Refusal::Withdrawn);
            }
            if inner.standing.is_some() {
                return Err(Refusal::Busy);
            }
            let (waiting, receiver, ticket) = self.waiting(asked, None, None);
            inner.standing = Some(waiting);
            self.show(&inner);
            (receiver, ticket)
        };
        outcome(verdict.wait_for(Option::is_some).await.ok().and_then(|end| *end))
    }

    /// Refuses what was approved before the button was held.
    pub(crate) fn still_good(&self, approval: &Approval) -> Result<(), Refusal> {
        if self.lock().epoch == approval.epoch { Ok(()) } else { Err(Refusal::Refused) }
    }

    #[allow(clippy::type_complexity, reason = "used once")]
    fn begin(
        self: &Arc<Self>,
        asked: Asked,
        from: Option<IpAddr>,
    ) -> Result<(watch::Receiver<Option<Verdict>>, Option<Ticket>), Refusal> {
        let mut inner = self.lock();
        inner.able()?;
        if let Some(waiting) = &inner.waiting {
            let first = &waiting.request;
            let same = first.asked == asked && first.from == from;
            // Payments are joined where their answer is kept, by the name of the request.
            return if same && matches!(asked, Asked::Unlock { .. }) {
                Ok((waiting.verdict.subscribe(), None))
            } else {
                Err(Refusal::Busy)
            };
        }
        let deadline = Instant::now() + self.rules.patience;
        let (waiting, receiver, ticket) = self.waiting(asked, from, Some(deadline));
        inner.waiting = Some(waiting);
        self.show(&inner);
        Ok((receiver, Some(ticket)))
    }

    /// A new request.
    fn waiting(
        self: &Arc<Self>,
        asked: Asked,
        from: Option<IpAddr>,
        deadline: Option<Instant>,
    ) -> (Waiting, watch::Receiver<Option<Verdict>>, Ticket) {
        let id = format!("{}-{:032x}", asked.kind(), rand::random::<u128>());
        let request = Arc::new(PendingRequest { id: id.clone(), asked, from, deadline });
        let verdict = watch::Sender::new(None);
        let receiver = verdict.subscribe();
        let ticket = Ticket { consent: Arc::clone(self), id, deadline };
        (Waiting { request, verdict }, receiver, ticket)
    }

    /// Lets the board show what waits.
    fn show(&self, inner: &Inner) {
        let shown = inner.shown().map(|waiting| Arc::clone(&waiting.request));
        self.view.send_if_modified(|view| {
            let changed = *view != shown;
            *view = shown;
            changed
        });
    }

    /// Ends the request that waits if it is this one and nothing has ended it before.
    fn decide(&self, inner: &mut Inner, fits: impl FnOnce(&PendingRequest) -> bool, end: Verdict) {
        if let Some(waiting) = inner.waiting.take_if(|waiting| fits(&waiting.request)) {
            waiting.verdict.send_replace(Some(end));
            self.show(inner);
        }
    }

    /// The same for the standing request.
    fn decide_standing(
        &self,
        inner: &mut Inner,
        fits: impl FnOnce(&PendingRequest) -> bool,
        end: Verdict,
    ) {
        if let Some(standing) = inner.standing.take_if(|standing| fits(&standing.request)) {
            standing.verdict.send_replace(Some(end));
            self.show(inner);
        }
    }

    /// The button was held: what waits is refused, and what was approved but not done yet is not done any more.
    pub(crate) fn hold(&self) {
        let mut inner = self.lock();
        inner.epoch += 1;
        self.decide(&mut inner, |_| true, Verdict::Refused(Refusal::Refused));
        self.decide_standing(&mut inner, |_| true, Verdict::Refused(Refusal::Refused));
    }

    /// The open wallet is taken out: its payment that waits is not made.
    pub(crate) fn wallet_closed(&self) {
        let payment = |request: &PendingRequest| matches!(request.asked, Asked::Send(_));
        self.decide(&mut self.lock(), payment, Verdict::Refused(Refusal::Withdrawn));
    }

    /// The daemon ends.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.decide(&mut inner, |_| true, Verdict::Refused(Refusal::Withdrawn));
        self.decide_standing(&mut inner, |_| true, Verdict::Refused(Refusal::Withdrawn));
    }
}

fn outcome(end: Option<Verdict>) -> Result<Approval, Refusal> {
    match end {
        Some(Verdict::Approved { epoch }) => Ok(Approval { epoch }),
        Some(Verdict::Refused(refusal)) => Err(refusal),
        None => Err(Refusal::Withdrawn),
    }
}

impl Inner {
    /// What a board shows: one request at a time.
    const fn shown(&self) -> Option<&Waiting> {
        match &self.waiting {
            Some(waiting) => Some(waiting),
            None => self.standing.as_ref(),
        }
    }

    fn find(&self, fits: impl Fn(&PendingRequest) -> bool) -> Option<&Waiting> {
        let mut all = self.waiting.iter().chain(&self.standing);
        all.find(|waiting| fits(&waiting.request))
    }

    /// Whether the box could show a request now.
    const fn able(&self) -> Result<(), Refusal> {
        match self.panel {
            _ if self.closed => Err(Refusal::Withdrawn),
            None => Err(Refusal::NoBoard),
            Some(false) => Err(Refusal::NoPanel),
            Some(true) => Ok(()),
        }
    }
}

/// Whoever asked first. When it goes away nobody waits for the press any more.
#[derive(Debug)]
struct Ticket {
    consent: Arc<Consent>,
    id: String,
    deadline: Option<Instant>,
}

impl Ticket {
    /// Ends the request unless it has ended; how it ended.
    fn end(&self, refusal: Refusal) -> Option<Verdict> {
        let mut inner = self.consent.lock();
        let (end, ours) =
            (Verdict::Refused(refusal), |request: &PendingRequest| request.id == self.id);
        let mut receiver = inner.find(ours)?.verdict.subscribe();
        self.consent.decide(&mut inner, ours, end);
        self.consent.decide_standing(&mut inner, ours, end);
        *receiver.borrow_and_update()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.end(Refusal::Withdrawn);
    }
}

/// The place of the one board: who holds it can answer for the person at the box. When it is given up, what waits is
/// refused.
#[derive(Debug)]
#[must_use]
pub struct Seat {
    consent: Arc<Consent>,
}

impl Seat {
    /// Whether the board has a panel that works. Without one nothing can be approved, and what waits is refused.
    pub fn panel(&self, works: bool) {
        let mut inner = self.consent.lock();
        inner.panel = Some(works);
        if !works {
            self.consent.decide(&mut inner, |_| true, Verdict::Refused(Refusal::NoPanel));
        }
    }

    /// Approves the request of this id; false when it is not the one that waits or its time is over.
    pub fn approve(&self, id: &str) -> bool {
        let mut inner = self.consent.lock();
        let now = Instant::now();
        let able = inner.panel == Some(true);
        let fits = |request: &PendingRequest| able && request.id == id && request.is_in_time(now);
        // Not the standing one while another is on the panel.
        let found = inner.shown().is_some_and(|waiting| fits(&waiting.request));
        if found {
            let end = Verdict::Approved { epoch: inner.epoch };
            self.consent.decide(&mut inner, fits, end);
            self.consent.decide_standing(&mut inner, fits, end);
        }
        found
    }

    /// Refuses the request of this id; false when it is not the one that waits.
    pub fn refuse(&self, id: &str) -> bool {
        let mut inner = self.consent.lock();
        let this = |request: &PendingRequest| request.id == id;
        let found = inner.shown().is_some_and(|waiting| this(&waiting.request));
        if found {
            let refused = Verdict::Refused(Refusal::Refused);
            self.consent.decide(&mut inner, this, refused);
            self.consent.decide_standing(&mut inner, this, refused);
        }
        found
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.consent.lock();
        inner.panel = None;
        self.consent.decide(&mut inner, |_| true, Verdict::Refused(Refusal::NoBoard));
    }
}

#[cfg(test)]
mod tests;
