//! One request of the daemon and what the person at the box has seen of it.

use std::time::Duration;

use super::{SHORT, approves};
use crate::Panel;
use crate::link::{Ask, Pending, RequestId};
use crate::screen::{Light, Screen, send_pages};

/// A request must have been on the panel for this long before a press that begins then can mean it: a finger that was
/// on its way when the picture changed meant something else.
pub const SEEN_AFTER: Duration = Duration::from_millis(400);
/// Two presses of which the second begins this soon after the first refuse a payment.
pub const TWICE_WITHIN: Duration = Duration::from_millis(500);

/// What a release of the button says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing, or another page.
    None,
    /// Approved.
    Approve,
    /// Refused.
    Refuse,
}

/// A request, as long as the daemon goes on naming it.
#[derive(Debug)]
pub(super) struct Request {
    id: RequestId,
    ask: Ask,
    expires: Option<Duration>,
    pages: usize,
    page: usize,
    /// Since when each page has been seen without a break; `None` is never. Past pages stay seen.
    seen: Vec<Option<Duration>>,
    /// The present page is on the panel since.
    visible: Option<Duration>,
    /// The press under way began at this time on a page that had been visible for long enough.
    down: Option<Duration>,
    /// The last short press ended at this time.
    last_up: Option<Duration>,
    closed: bool,
}

impl Request {
    /// The request of this snapshot: the one that is known already, or a new one. Another id, or other contents under
    /// the same id, is another request.
    pub(super) fn follow(
        known: Option<Self>,
        pending: &Pending,
        panel: Option<Panel>,
        now: Duration,
    ) -> Self {
        let expires = pending.expires_s.map(|left| now + Duration::from_secs(left.into()));
        if let Some(mut known) = known
            && known.id == pending.id
            && known.ask == pending.ask
        {
            known.expires = expires;
            return known;
        }
        let pages = match (&pending.ask, panel) {
            (Ask::Send(payment), Some(panel)) => send_pages(panel, &payment.destination),
            _ => 1,
        };
        Self {
            id: pending.id.clone(),
            ask: pending.ask.clone(),
            expires,
            pages,
            page: 0,
            seen: vec![None; pages],
            visible: None,
            down: None,
            last_up: None,
            closed: false,
        }
    }

    /// The same request on another panel: its deadline stays, and so does an answer.
    pub(super) fn expiring_with(mut self, other: &Self) -> Self {
        self.expires = other.expires;
        self.closed = other.closed;
        self
    }

    pub(super) const fn id(&self) -> &RequestId {
        &self.id
    }

    /// It waits for an answer still.
    pub(super) const fn is_open(&self) -> bool {
        !self.closed
    }

    /// It is answered, or refused by other means.
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Holding the button would approve it now.
    pub(super) fn awaits_hold(&self) -> bool {
        matches!(self.ask, Ask::Send(_)) && self.ready()
    }

    /// The panel shows this screen since `now`, or still.
    pub(super) fn shown(&mut self, screen: &Screen, light: Light, now: Duration) {
        let mine = screen.request() == Some(&self.id)
            && light != Light::Off
            && match screen {
                Screen::Send { page, payment, .. } => {
                    *page == self.page && matches!(&self.ask, Ask::Send(asked) if asked == payment)
                }
                _ => true,
            };
        if !mine {
            self.visible = None;
        } else if self.visible.is_none() {
            self.visible = Some(now);
            if let Some(seen) = self.seen.get_mut(self.page) {
                seen.get_or_insert(now);
            }
        }
    }

    pub(super) fn down(&mut self, at: Duration) {
        let seen = self.visible.is_some_and(|since| at >= since + SEEN_AFTER);
        self.down = seen.then_some(at);
    }

    pub(super) const fn void(&mut self) {
        self.down = None;
        self.last_up = None;
    }

    /// The button was let go. The press counts if it began while the present page was to be seen.
    pub(super) fn released(&mut self, at: Duration, held: Duration) -> Answer {
        let began = at.saturating_sub(held);
        let counted = self.down.take().is_some();
        let second =
            self.last_up.take().is_some_and(|last| began.saturating_sub(last) <= TWICE_WITHIN);
        let short = held < SHORT;
        match self.ask {
            Ask::Unlock { .. } | Ask::Resume { .. } if counted => self.answer(Answer::Approve),
            Ask::Unlock { .. } | Ask::Resume { .. } => Answer::None,
            // Refusing is always allowed: the first of the two presses may have turned the page.
            Ask::Send(_) | Ask::Unknown { .. } if short && second => self.answer(Answer::Refuse),
            Ask::Send(_) if counted && approves(held) && self.ready() => {
                self.answer(Answer::Approve)
            }
            Ask::Send(_) if counted && short => {
                self.last_up = Some(at);
                if self.pages > 1 {
                    self.page = (self.page + 1) % self.pages;
                    self.visible = None;
                }
                Answer::None
            }
            Ask::Unknown { .. } if counted && short => {
                self.last_up = Some(at);
                Answer::None
            }
            Ask::Send(_) | Ask::Unknown { .. } => Answer::None,
        }
    }

    /// The last page is there and all others have been seen.
    fn ready(&self) -> bool {
        self.page + 1 == self.pages && self.seen.iter().take(self.page).all(Option::is_some)
    }

    const fn answer(&mut self, answer: Answer) -> Answer {
        self.closed = true;
        answer
    }

    /// What is to be seen of it.
    pub(super) fn screen(&self, now: Duration, held: Option<u16>) -> Screen {
        let left_s = self.expires.map(|expires| {
            let left = expires.saturating_sub(now).as_millis().div_ceil(1000);
            u32::try_from(left).unwrap_or(u32::MAX)
        });
        let id = self.id.clone();
        match &self.ask {
            Ask::Unlock { wallet, from } => Screen::Unlock {
                id,
                wallet: wallet.clone(),
                from: from.clone(),
                resume: false,
                left_s,
            },
            Ask::Resume { wallet } => {
                Screen::Unlock { id, wallet: wallet.clone(), from: None, resume: true, left_s }
            }
            Ask::Send(payment) => Screen::Send {
                id,
                payment: payment.clone(),
                page: self.page,
                pages: self.pages,
                ready: self.ready(),
                left_s,
                held,
            },
            Ask::Unknown { text } => Screen::UnknownRequest { id, text: text.clone() },
        }
    }
}
