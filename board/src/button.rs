//! The button: level and time in, presses and holds out. Debounced; what is held from the start, held too long or
//! held through a gap in time means nothing.

use std::time::Duration;

/// A level must last this long to count, so a bounce of 29 ms is none. Mechanical buttons bounce for 1 to 20 ms.
pub const DEBOUNCE: Duration = Duration::from_millis(30);
/// Holding this long and letting go approves a payment.
pub const APPROVE: Duration = Duration::from_millis(1500);
/// Holding this long locks.
pub const LOCK: Duration = Duration::from_secs(3);
/// Holding this long switches the machine off.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// Nobody holds a button this long: it is stuck, or something lies on it.
pub const STUCK: Duration = Duration::from_secs(20);
/// While the button is down the machine wants to be called this often.
pub const TICK: Duration = Duration::from_millis(100);
/// When it was not called for this long while the button was down, or time went backwards, nobody can tell how long
/// it was really held: the hold is void. A process that was stopped, a machine that slept.
pub const MAX_GAP: Duration = Duration::from_secs(1);

/// What the button did. Times are of the first edge, not of the moment at which it was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ButtonEvent {
    /// It went down at this time.
    Down {
        /// When.
        at: Duration,
    },
    /// It has been down for [`LOCK`], and still is.
    Lock,
    /// It has been down for [`SHUTDOWN`], and still is.
    Shutdown,
    /// It was let go.
    Up {
        /// When.
        at: Duration,
        /// How long it was down.
        held: Duration,
    },
    /// What was begun does not count any more; nothing follows until the next `Down`, except `Stuck` and `Freed`.
    Void,
    /// It is down for no reason: since the start, or for longer than [`STUCK`].
    Stuck,
    /// It was stuck and is free again.
    Freed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Down since, and how many of [`LOCK`] and [`SHUTDOWN`] were told.
    Down {
        since: Duration,
        told: u8,
    },
    /// Down, but not to be believed.
    Void {
        since: Duration,
    },
    Stuck,
}

/// The machine. `now` is any clock that only goes forward; the machine survives one that does not.
#[derive(Debug)]
pub struct Button {
    state: State,
    /// Last level, and since when.
    raw: (bool, Duration),
    seen: Duration,
    first: bool,
    out: Vec<ButtonEvent>,
}

impl Button {
    /// A button whose level is not known yet.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self { state: State::Up, raw: (false, now), seen: now, first: true, out: Vec::new() }
    }

    /// Takes the level (`true` is pressed) as it is from `now` on, and returns what happened.
    pub fn level(&mut self, pressed: bool, now: Duration) -> Vec<ButtonEvent> {
        self.advance(now);
        if self.raw.0 != pressed {
            self.raw = (pressed, now);
        }
        if std::mem::take(&mut self.first) && pressed {
            // Pressed when the process began: whoever put the box there may have put something on it.
            self.state = State::Void { since: now };
        }
        std::mem::take(&mut self.out)
    }

    /// Lets time pass, and returns what happened.
    pub fn tick(&mut self, now: Duration) -> Vec<ButtonEvent> {
        self.advance(now);
        std::mem::take(&mut self.out)
    }

    /// How long the button has been held, while that means something.
    #[must_use]
    pub fn held(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Down { since, .. } => Some(now.saturating_sub(since)),
            _ => None,
        }
    }

    /// When [`Button::tick`] should be called at the latest; `None` while nothing is going on.
    #[must_use]
    pub fn next_tick(&self, now: Duration) -> Option<Duration> {
        let settling = self.raw.0 == matches!(self.state, State::Up);
        if settling {
            return Some(self.raw.1 + DEBOUNCE);
        }
        match self.state {
            State::Up | State::Stuck => None,
            State::Down { .. } | State::Void { .. } => Some(now + TICK),
        }
    }

    fn advance(&mut self, now: Duration) {
        let gap = now.checked_sub(self.seen);
        self.seen = now;
        if gap.is_none_or(|gap| gap > MAX_GAP) {
            self.jumped(now);
        }
        let (pressed, since) = self.raw;
        // What the level was when it last was steady, and until when.
        let steady = now.saturating_sub(since) >= DEBOUNCE;
        let until = if steady && pressed == matches!(self.state, State::Up) { since } else { now };
        match (self.state, pressed) {
            (State::Up, true) if steady => {
                self.state = State::Down { since, told: 0 };
                self.out.push(ButtonEvent::Down { at: since });
                self.holds(now);
            }
            (State::Up, _) => {}
            (State::Down { since: down, .. }, false) if steady => {
                self.holds(until);
                self.state = State::Up;
                let held = until.saturating_sub(down);
                self.out.push(ButtonEvent::Up { at: until, held });
            }
            // While a release is not believed yet, the hold is no longer than up to it.
            (State::Down { .. }, false) => self.holds(since),
            (State::Down { .. }, true) => self.holds(now),
            (State::Void { .. }, false) if steady => self.state = State::Up,
            (State::Void { since: void }, _) => {
                if now.saturating_sub(void) >= MAX_GAP {
                    self.stuck();
                }
            }
            (State::Stuck, false) if steady => {
                self.state = State::Up;
                self.out.push(ButtonEvent::Freed);
            }
            (State::Stuck, _) => {}
        }
    }

    fn holds(&mut self, until: Duration) {
        let State::Down { since, told } = &mut self.state else { return };
        let held = until.saturating_sub(*since);
        for (number, length, event) in
            [(1, LOCK, ButtonEvent::Lock), (2, SHUTDOWN, ButtonEvent::Shutdown)]
        {
            if *told < number && held >= length {
                *told = number;
                self.out.push(event);
            }
        }
        if held >= STUCK {
            self.out.push(ButtonEvent::Void);
            self.stuck();
        }
    }

    fn stuck(&mut self) {
        self.state = State::Stuck;
        self.out.push(ButtonEvent::Stuck);
    }

    fn jumped(&mut self, now: Duration) {
        // An edge in the unknown time is as good as one now.
        self.raw.1 = self.raw.1.min(now);
        match self.state {
            State::Down { .. } => {
                self.state = State::Void { since: now };
                self.out.push(ButtonEvent::Void);
            }
            State::Void { .. } => self.state = State::Void { since: now },
            // Went down before the gap and was not believed yet.
            State::Up if self.raw.0 => self.state = State::Void { since: now },
            State::Up | State::Stuck => {}
        }
    }
}
