//! The model: what the daemon says, what the button does and the time go in; the picture, the light's pattern and what
//! is told to the daemon come out. No clock, no socket, no panel.
//!
//! The rule it exists for: a request is approved only by a press that began while the request was to be seen, in full,
//! on a panel that works, and that names this request. [`Ui::shown`] is how the panel says that a picture is really on
//! it; whatever was not shown cannot be approved.

mod pages;
mod request;

use std::time::Duration;

use crate::Panel;
use crate::button::{APPROVE, Button, ButtonEvent};
use crate::led::Pattern;
use crate::link::{CoinjoinState, LinkError, Message, Status, Text};
use crate::screen::{Frame, Light, Notice, Outcome, Screen, Silence};

pub use request::{SEEN_AFTER, TWICE_WITHIN};

use pages::Page;
use request::Request;

/// Without a line of the daemon for this long the screen says so.
pub const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The panel is dimmed after this long without anyone.
pub const DIM_AFTER: Duration = Duration::from_secs(60);
/// The panel goes dark after this long without anyone.
pub const OFF_AFTER: Duration = Duration::from_secs(600);
/// Another page than the home screen is left by itself after this long.
pub const PAGE_FOR: Duration = Duration::from_secs(60);
/// How long a transaction is shown.
pub const TRANSACTION_FOR: Duration = Duration::from_secs(20);
/// How long it is shown what became of a press.
pub const OUTCOME_FOR: Duration = Duration::from_secs(3);
/// How long the daemon may take to do what a hold means before the screen says that it did not.
pub const HOLD_PATIENCE: Duration = Duration::from_secs(5);
/// A board that has never heard the daemon waits this long before it calls it missing.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
/// A longer press is the begin of a hold; it shows how far it has come, and letting go early means nothing.
pub const SHORT: Duration = Duration::from_millis(800);
/// Lines in a row that cannot be understood before nothing else of the daemon is believed.
const NONSENSE_LINES: u32 = 3;

/// The state of the box's face.
#[derive(Debug)]
pub struct Ui {
    started: Duration,
    button: Button,
    panel: Option<Panel>,
    connected: bool,
    heard: Option<Duration>,
    status: Option<(Status, Duration)>,
    /// Lines in a row that were not understood, and what the last one was.
    nonsense: u32,
    other_version: Option<u32>,
    request: Option<Request>,
    page: Page,
    page_since: Duration,
    /// Last sign of a person, or of something that a person should see.
    woken: Duration,
    outcome: Option<(Outcome, Duration)>,
    /// What a hold asked for, until the daemon has done it.
    holding: Option<(Outcome, Duration)>,
    transaction: Option<(String, Duration)>,
    stuck: bool,
    /// The press under way: when it went down, and whether it only wakes the panel.
    down: Option<(Duration, bool)>,
    worst: Option<u8>,
    messages: Vec<Message>,
}

impl Ui {
    /// A board that begins at `now` and knows nothing yet.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self {
            started: now,
            button: Button::new(now),
            panel: None,
            connected: false,
            heard: None,
            status: None,
            nonsense: 0,
            other_version: None,
            request: None,
            page: Page::Home,
            page_since: now,
            woken: now,
            outcome: None,
            holding: None,
            transaction: None,
            stuck: false,
            down: None,
            worst: None,
            messages: Vec::new(),
        }
    }

    /// A panel works from now on, or none does any more. What was shown on another one counts for nothing.
    pub fn panel(&mut self, panel: Option<Panel>, now: Duration) {
        if self.panel != panel {
            self.panel = panel;
            self.forget_shown(now);
            self.wake(now);
            if self.connected {
                self.messages.push(Message::Hello { panel });
            }
        }
    }

    /// The daemon's socket is connected.
    pub fn connected(&mut self, now: Duration) {
        self.connected = true;
        self.heard = Some(now);
        self.nonsense = 0;
        self.other_version = None;
        self.messages.clear();
        self.messages.push(Message::Hello { panel: self.panel });
    }

    /// The daemon's socket is closed. Nothing that it asked for is remembered.
    pub fn disconnected(&mut self, now: Duration) {
        if std::mem::take(&mut self.connected) {
            self.wake(now);
        }
        self.request = None;
        self.messages.clear();
        // Switching off ends the daemon before the board: that screen stays.
        if !self.status.as_ref().is_some_and(|(status, _)| status.switching_off) {
            self.status = None;
        }
    }

    /// The daemon said something.
    pub fn heard(&mut self, line: Result<Option<Status>, LinkError>, now: Duration) {
        if !self.connected {
            return;
        }
        match line {
            Ok(Some(status)) => {
                self.heard = Some(now);
                self.nonsense = 0;
                self.other_version = None;
                self.status(status, now);
            }
            Ok(None) => {}
            Err(error) => {
                self.nonsense = self.nonsense.saturating_add(1);
                if let LinkError::Version { found } = error {
                    self.other_version = Some(found);
                }
                // The last snapshot is not the present one any more: what waits may be gone.
                self.request = None;
                if self.nonsense == NONSENSE_LINES {
                    self.wake(now);
                }
            }
        }
    }

    /// The button's level is this from now on.
    pub fn level(&mut self, pressed: bool, now: Duration) {
        let events = self.button.level(pressed, now);
        self.pressed(&events, now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        let events = self.button.tick(now);
        self.pressed(&events, now);
        if self.page != Page::Home && now.saturating_sub(self.page_since) >= PAGE_FOR {
            self.page = Page::Home;
        }
        if self.request.as_ref().is_some_and(|request| request.expired(now))
            && self.request.take().is_some_and(|request| request.is_open())
        {
            self.tell(Outcome::TooLate, now);
        }
        if let Some((asked, since)) = self.holding
            && now.saturating_sub(since) >= HOLD_PATIENCE
        {
            self.holding = None;
            let failed =
                if asked == Outcome::SwitchingOff { Outcome::StillOn } else { Outcome::NotLocked };
            self.tell(failed, now);
        }
    }

    /// The panel shows this picture now: it was written to it without an error.
    pub fn shown(&mut self, frame: &Frame, now: Duration) {
        let light = frame.light;
        if let Some(request) = &mut self.request {
            request.shown(&frame.screen, light, now);
        }
    }

    /// The oldest message for the daemon that was not taken yet.
    pub fn message(&mut self) -> Option<Message> {
        if self.messages.is_empty() { None } else { Some(self.messages.remove(0)) }
    }

    /// What is to be seen.
    #[must_use]
    pub fn frame(&self, now: Duration) -> Frame {
        let screen = self.screen(now);
        let notices = self.notices(now);
        let warning = notices.first().map(|worst| (worst.clone(), notices.len()));
        Frame { screen, warning, light: self.light(now) }
    }

    /// What the light shows.
    #[must_use]
    pub fn led(&self, now: Duration) -> Pattern {
        if self.switching_off() {
            return Pattern::Off;
        }
        let Some(status) = self.status_now(now) else {
            let silent = self.silence(now).is_some();
            return if silent { Pattern::FastBlink } else { Pattern::Off };
        };
        if self.request.as_ref().is_some_and(Request::is_open) {
            Pattern::DoubleBlink
        } else if self.notices(now).first().is_some_and(Notice::is_error) {
            Pattern::FastBlink
        } else if status.locked {
            Pattern::Off
        } else {
            match status.coinjoin_state {
                CoinjoinState::Idle => Pattern::Steady,
                CoinjoinState::Maker => Pattern::SlowBreath,
                CoinjoinState::Taker => Pattern::QuickBreath,
            }
        }
    }

    /// When [`Ui::tick`] should be called at the latest, if nothing else happens.
    #[must_use]
    pub fn next_tick(&self, now: Duration) -> Duration {
        let second = now + Duration::from_secs(1);
        self.button.next_tick(now).map_or(second, |next| next.min(second)).max(now)
    }

    fn status(&mut self, status: Status, now: Duration) {
        let panel = self.panel;
        let known = self.request.take();
        let open = known.as_ref().filter(|known| known.is_open()).map(|known| known.id().clone());
        let late = known.as_ref().is_some_and(|known| known.expired(now + Duration::from_secs(1)));
        let known_id = known.as_ref().map(|known| known.id().clone());
        self.request = status
            .pending
            .as_ref()
            .filter(|pending| pending.expires_s != Some(0))
            .map(|pending| Request::follow(known, pending, panel, now));
        match self.request.as_ref().map(Request::id) {
            Some(id) if Some(id) != known_id.as_ref() => {
                self.outcome = None;
                self.wake(now);
            }
            None if open.is_some() => {
                self.tell(if late { Outcome::TooLate } else { Outcome::Gone }, now);
            }
            _ => {}
        }
        if let Some((asked, _)) = self.holding {
            match asked {
                Outcome::Locking if status.locked => {
                    self.holding = None;
                    self.tell(Outcome::Locked, now);
                }
                _ if status.switching_off => self.holding = None,
                _ => {}
            }
        }
        let key = status.transaction.as_ref().map(|seen| {
            let stage = if seen.confirmations == 0 { "new" } else { "confirmed" };
            format!("{stage} {}", seen.txid.as_str())
        });
        let first = self.status.is_none();
        if let Some(key) = key
            && self.transaction.as_ref().is_none_or(|(old, _)| *old != key)
        {
            // The first snapshot tells of something that may be days old, and a confirmation of what was shown.
            let news = !first && key.starts_with("new");
            let until = if news { now + TRANSACTION_FOR } else { now };
            if news {
                self.wake(now);
            }
            self.transaction = Some((key, until));
        }
        self.status = Some((status, now));
        let worst = self.notices(now).first().map(Notice::rank);
        if worst.is_some_and(|rank| self.worst.is_none_or(|old| rank < old)) {
            self.wake(now);
        }
        self.worst = worst;
    }

    fn pressed(&mut self, events: &[ButtonEvent], now: Duration) {
        for event in events {
            match *event {
                ButtonEvent::Down { at } => {
                    let dark = self.light(at) == Light::Off;
                    self.down = Some((at, dark));
                    if let Some(request) = &mut self.request {
                        request.down(at);
                    }
                    self.wake(now);
                }
                ButtonEvent::Up { at, held } => {
                    let down = self.down.take();
                    self.wake(now);
                    if let Some((_, dark)) = down {
                        self.released(at, held, dark, now);
                    }
                }
                ButtonEvent::Lock => self.lock(now),
                ButtonEvent::Shutdown => self.shutdown(now),
                ButtonEvent::Void => {
                    self.down = None;
                    if let Some(request) = &mut self.request {
                        request.void();
                    }
                }
                ButtonEvent::Stuck => {
                    self.stuck = true;
                    self.wake(now);
                }
                ButtonEvent::Freed => self.stuck = false,
            }
        }
    }

    fn released(&mut self, at: Duration, held: Duration, dark: bool, now: Duration) {
        if held >= crate::button::LOCK {
            return;
        }
        let usable = self.status_now(now).is_some() && self.panel.is_some();
        if let Some(request) = &mut self.request
            && request.is_open()
        {
            if !usable || dark {
                request.void();
                return;
            }
            match request.released(at, held) {
                request::Answer::None => {}
                request::Answer::Approve => {
                    let pending = request.id().clone();
                    self.messages.push(Message::Press { pending });
                    self.tell(Outcome::Approved, now);
                }
                request::Answer::Refuse => {
                    let pending = request.id().clone();
                    self.messages.push(Message::Refuse { pending });
                    self.tell(Outcome::Refused, now);
                }
            }
            return;
        }
        if held >= SHORT || dark {
            return;
        }
        if self.outcome.take().is_some() {
            return;
        }
        if let Some((_, until)) = &mut self.transaction
            && *until > now
        {
            *until = now;
            return;
        }
        self.next_page(now);
    }

    fn lock(&mut self, now: Duration) {
        let pending = self.request.as_mut().map(|request| {
            request.close();
            request.id().clone()
        });
        if self.connected {
            self.messages.push(Message::Hold { pending });
            self.outcome = None;
            self.holding = Some((Outcome::Locking, now));
        } else {
            self.tell(Outcome::NotLocked, now);
        }
    }

    fn shutdown(&mut self, now: Duration) {
        if self.connected {
            self.messages.push(Message::Shutdown);
            self.outcome = None;
            self.holding = Some((Outcome::SwitchingOff, now));
        } else {
            self.tell(Outcome::StillOn, now);
        }
    }

    fn tell(&mut self, outcome: Outcome, now: Duration) {
        self.outcome = Some((outcome, now + OUTCOME_FOR));
        self.wake(now);
    }

    fn forget_shown(&mut self, now: Duration) {
        if let (Some(request), Some((status, _))) = (&mut self.request, &self.status)
            && let Some(pending) = &status.pending
        {
            *request = Request::follow(None, pending, self.panel, now).expiring_with(request);
        }
    }

    const fn wake(&mut self, now: Duration) {
        self.woken = now;
    }

    fn light(&self, now: Duration) -> Light {
        let idle = now.saturating_sub(self.woken);
        if self.request.as_ref().is_some_and(Request::is_open) || self.switching_off() {
            Light::Full
        } else if idle >= OFF_AFTER {
            Light::Off
        } else if idle >= DIM_AFTER {
            Light::Dim
        } else {
            Light::Full
        }
    }

    fn switching_off(&self) -> bool {
        self.status.as_ref().is_some_and(|(status, _)| status.switching_off)
    }

    /// The status, if it is the present one.
    fn status_now(&self, now: Duration) -> Option<&Status> {
        if !self.connected || self.nonsense >= NONSENSE_LINES || self.other_version.is_some() {
            return None;
        }
        if self.heard.is_none_or(|heard| now.saturating_sub(heard) >= QUIET_AFTER) {
            return None;
        }
        self.status.as_ref().map(|(status, _)| status)
    }

    fn silence(&self, now: Duration) -> Option<Silence> {
        if self.connected
            && let Some(found) = self.other_version
        {
            Some(Silence::OtherVersion { found })
        } else if self.connected && self.nonsense >= NONSENSE_LINES {
            Some(Silence::Nonsense)
        } else if !self.connected {
            let patient = self.heard.is_none() && now.saturating_sub(self.started) < START_PATIENCE;
            (!patient).then_some(Silence::NoDaemon)
        } else {
            let quiet = now.saturating_sub(self.heard.unwrap_or(now));
            // A new picture each five seconds is news enough.
            (quiet >= QUIET_AFTER).then(|| Silence::Quiet { seconds: quiet.as_secs() / 5 * 5 })
        }
    }

    fn screen(&self, now: Duration) -> Screen {
        if self.switching_off() {
            return Screen::SwitchingOff;
        }
        let held = self.button.held(now).filter(|held| *held >= SHORT);
        let tenths = |held: Duration| u16::try_from(held.as_millis() / 100).unwrap_or(u16::MAX);
        let silence = self.silence(now);
        let open = self.request.as_ref().filter(|request| request.is_open() && silence.is_none());
        if let Some(held) = held {
            // A payment shows the first half of a hold itself.
            let part = open.filter(|request| request.awaits_hold() && held < crate::button::LOCK);
            return match part {
                Some(request) => request.screen(now, Some(tenths(held))),
                None => Screen::Hold { held: tenths(held), deaf: !self.connected },
            };
        }
        if let Some((outcome, until)) = self.outcome
            && until > now
        {
            return Screen::Outcome { outcome };
        }
        if let Some((outcome, _)) = self.holding {
            return Screen::Outcome { outcome };
        }
        if let Some(silence) = silence {
            return Screen::Silent { silence };
        }
        if let Some(request) = open {
            return request.screen(now, None);
        }
        match self.status_now(now) {
            Some(status) => self.home(status, now),
            None => Screen::Starting { step: starting(), version: None },
        }
    }

    /// What is wrong, the worst first.
    fn notices(&self, now: Duration) -> Vec<Notice> {
        let mut notices = self.status_now(now).map(pages::warnings).unwrap_or_default();
        if self.stuck {
            notices.push(Notice::ButtonStuck);
        }
        if self.nonsense > 0 && self.nonsense < NONSENSE_LINES {
            notices.push(Notice::Nonsense);
        }
        notices.sort_by_key(Notice::rank);
        notices
    }
}

fn starting() -> Text<64> {
    Text::try_from("waiting for the wallet".to_owned()).unwrap_or_default()
}

/// Whether a hold of this length, let go now, approves.
pub(crate) fn approves(held: Duration) -> bool {
    (APPROVE..crate::button::LOCK).contains(&held)
}
