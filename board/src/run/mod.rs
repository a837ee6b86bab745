//! The process: one thread that owns the model and everything that it moves, and small ones that wait for something
//! and tell it: the socket, the button, signals, the light.

mod client;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backend::{Display, Input, Inputs, OpenDisplay, Parts, Renew, Shot, spawn};
use crate::led::Pattern;
use crate::render::{Picture, picture};
use crate::screen::{Frame, Light};
use crate::ui::Ui;

pub(crate) use client::LinkEvent;

use client::Client;

/// What may wait to be seen by the main thread. The senders wait when it is full: a daemon that floods waits.
const QUEUE: usize = 4;
/// Two pictures are at least this far apart: more could not be seen, and a flood of changes must not cost more.
const PICTURE_EVERY: Duration = Duration::from_millis(50);
/// How often a display that is missing is looked for, and one that is there is asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a display that forgets is set up anew.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// What wakes the main thread.
#[derive(Debug)]
pub(crate) enum Event {
    Input(Input),
    Link(LinkEvent),
}

/// Runs until it is told to stop, by a signal or by the backend.
///
/// # Errors
/// When a thread cannot be started, or the button cannot be watched. A missing display or daemon is no error: the board
/// waits for it.
pub fn run(parts: Parts, socket: PathBuf) -> io::Result<()> {
    let (sender, events) = sync_channel(QUEUE);
    signals(sender.clone())?;
    if let Some(watch) = parts.button {
        // The first level must not wait for a queue that nobody reads yet; there is room for it.
        watch(Inputs(sender.clone()))?;
    }
    client::start(socket, sender)?;
    let mut board = Board::new(parts.display, parts.led);
    board.ready();
    board.follow(&events);
    board.end();
    Ok(())
}

fn signals(sender: SyncSender<Event>) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    spawn("signals", move || {
        for _ in signals.forever() {
            if sender.send(Event::Input(Input::Stop)).is_err() {
                break;
            }
        }
    })
}

/// The model, and what it moves.
struct Board {
    time: Time,
    ui: Ui,
    panel: Panel,
    led: Option<Box<dyn crate::backend::Led>>,
    pattern: Option<Pattern>,
    client: Option<Client>,
    complained: bool,
    pressed: bool,
    watchdog: bool,
}

/// The model's time: since the start, and never back. An edge of the button is stamped where it is seen, and may be
/// told after the model has been moved past it; the model would take that for a clock that jumps.
struct Time {
    start: Instant,
    last: Duration,
}

impl Time {
    fn new() -> Self {
        Self { start: Instant::now(), last: Duration::ZERO }
    }

    fn now(&mut self) -> Duration {
        self.of(Instant::now())
    }

    fn of(&mut self, at: Instant) -> Duration {
        self.last = self.last.max(at.saturating_duration_since(self.start));
        self.last
    }
}

/// The display, if there is one, and what is on it.
struct Panel {
    open: OpenDisplay,
    display: Option<Box<dyn Display>>,
    looked: Option<Instant>,
    renewed: Instant,
    missing: bool,
    frame: Option<Frame>,
    picture: Option<Picture>,
    drawn: Option<Instant>,
    /// A picture that waits for [`PICTURE_EVERY`].
    put_off: bool,
}

impl Board {
    fn new(open: OpenDisplay, led: Option<Box<dyn crate::backend::Led>>) -> Self {
        let panel = Panel {
            open,
            display: None,
            looked: None,
            renewed: Instant::now(),
            missing: false,
            frame: None,
            picture: None,
            drawn: None,
            put_off: false,
        };
        let watchdog = sd_notify::watchdog_enabled().is_some();
        Self {
            time: Time::new(),
            ui: Ui::new(Duration::ZERO),
            panel,
            led,
            pattern: None,
            client: None,
            complained: false,
            pressed: false,
            watchdog,
        }
    }

    /// Shows something before anything else is done.
    fn ready(&mut self) {
        self.step();
        tell_manager(&[sd_notify::NotifyState::Ready]);
    }

    fn follow(&mut self, events: &Receiver<Event>) {
        loop {
            let now = self.time.now();
            let wait = self.ui.next_tick(now).saturating_sub(now).max(Duration::from_millis(1));
            match events.recv_timeout(self.panel.wait(wait)) {
                Ok(Event::Input(Input::Stop)) => return,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                // The senders live as long as the process.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.step();
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.time.now();
        match event {
            Event::Input(Input::Level { pressed, at }) => {
                if std::mem::replace(&mut self.pressed, pressed) != pressed {
                    tracing::debug!(pressed, "button");
                }
                let at = self.time.of(at);
                self.ui.level(pressed, at);
            }
            Event::Input(Input::Stop) => {}
            Event::Link(LinkEvent::Connected(client)) => {
                tracing::info!("connected to the daemon");
                self.client = Some(client);
                self.ui.connected(now);
            }
            Event::Link(LinkEvent::Line(line)) => {
                match &*line {
                    Ok(_) => self.complained = false,
                    // Once: a daemon that speaks nonsense must not fill the log.
                    Err(error) if !std::mem::replace(&mut self.complained, true) => {
                        tracing::warn!(%error, "from the daemon");
                    }
                    Err(_) => {}
                }
                self.ui.heard(*line, now);
            }
            Event::Link(LinkEvent::Closed) => {
                if self.client.take().is_some() {
                    tracing::warn!("the daemon has closed the connection");
                }
                self.ui.disconnected(now);
            }
        }
    }

    /// Brings the outside up to what the model says.
    fn step(&mut self) {
        let now = self.time.now();
        self.ui.tick(now);
        if let Some(panel) = self.panel.look() {
            self.ui.panel(panel, now);
        }
        let pattern = self.ui.led(now);
        if self.pattern != Some(pattern)
            && let Some(led) = &mut self.led
        {
            led.show(pattern);
        }
        self.pattern = Some(pattern);
        match self.panel.draw(self.ui.frame(now)) {
            Drawn::Shown => {
                if let Some(frame) = &self.panel.frame {
                    self.ui.shown(frame, self.time.now());
                }
            }
            Drawn::Lost => self.ui.panel(None, now),
            Drawn::Later => {}
        }
        while let Some(message) = self.ui.message() {
            let Some(client) = &mut self.client else { continue };
            tracing::debug!(?message, "to the daemon");
            if let Err(error) = client.send(&message) {
                tracing::warn!(%error, "the daemon does not take what the board says");
                self.client = None;
            }
        }
        if self.watchdog {
            tell_manager(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// Leaves nothing behind that looks alive: the last screen of a machine that is being switched off stays, every
    /// other one goes dark.
    fn end(mut self) {
        tell_manager(&[sd_notify::NotifyState::Stopping]);
        if let Some(led) = &mut self.led {
            led.show(Pattern::Off);
        }
        let mut frame = self.ui.frame(self.time.now());
        if frame.screen != crate::screen::Screen::SwitchingOff {
            frame.light = Light::Off;
        }
        self.panel.drawn = None;
        self.panel.draw(frame);
    }
}

/// What became of a frame.
enum Drawn {
    /// It is on the panel, or was already.
    Shown,
    /// The panel is gone.
    Lost,
    /// There is no panel, or it is too early for another picture.
    Later,
}

impl Panel {
    /// No longer than until the next look or the next picture that was put off.
    fn wait(&self, wait: Duration) -> Duration {
        let due =
            |at: Option<Instant>, every: Duration| at.map(|at| every.saturating_sub(at.elapsed()));
        let wait = due(self.looked, LOOK_EVERY).map_or(wait, |left| wait.min(left));
        let drawn = self.drawn.filter(|_| self.put_off);
        let wait = due(drawn, PICTURE_EVERY).map_or(wait, |left| wait.min(left));
        wait.max(Duration::from_millis(1))
    }

    /// Looks for the display, or asks it whether it is there, when it is time; says what has changed.
    fn look(&mut self) -> Option<Option<crate::Panel>> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        let lit = self.frame.as_ref().is_none_or(|frame| frame.light != Light::Off);
        if let Some(display) = &mut self.display {
            let renew =
                display.renew() == Renew::Minutely && lit && self.renewed.elapsed() >= RENEW_EVERY;
            if !renew {
                return match display.check() {
                    Ok(()) => None,
                    Err(error) => {
                        self.lose(&error);
                        Some(None)
                    }
                };
            }
        }
        let was = self.display.is_some();
        // The old one must be let go first: it holds the bus and its lines.
        self.display = None;
        match (self.open)() {
            Ok(display) => {
                let panel = display.panel();
                if !was {
                    tracing::info!(panel = panel.name(), "the display is there");
                }
                self.missing = false;
                self.renewed = Instant::now();
                self.display = Some(display);
                self.picture = None;
                self.drawn = None;
                // Set up anew it shows the same as before, and what was seen on it was seen.
                (!was).then_some(Some(panel))
            }
            Err(error) => {
                self.lose(&error);
                was.then_some(None)
            }
        }
    }

    fn lose(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.missing, true) {
            tracing::warn!(%error, "no display; looking for it every {} s", LOOK_EVERY.as_secs());
        }
        self.display = None;
        self.frame = None;
        self.picture = None;
    }

    fn draw(&mut self, frame: Frame) -> Drawn {
        self.put_off = false;
        let was_dark = self.frame.as_ref().is_some_and(|frame| frame.light == Light::Off);
        let wakes = was_dark && frame.light != Light::Off;
        if wakes && self.display.as_ref().is_some_and(|display| display.renew() == Renew::OnWake) {
            self.display = None;
            match (self.open)() {
                Ok(display) => {
                    self.display = Some(display);
                    self.picture = None;
                }
                Err(error) => {
                    self.lose(&error);
                    return Drawn::Lost;
                }
            }
        }
        let Some(display) = &mut self.display else { return Drawn::Later };
        let same = self.frame.as_ref() == Some(&frame);
        if same && self.picture.is_some() {
            return Drawn::Shown;
        }
        if self.drawn.is_some_and(|at| at.elapsed() < PICTURE_EVERY) {
            self.put_off = true;
            return Drawn::Later;
        }
        let picture = picture(&frame, display.panel());
        let light = self.frame.as_ref().map(|frame| frame.light);
        if self.picture.as_ref() != Some(&picture) || light != Some(frame.light) {
            if let Err(error) = display.show(Shot { picture: &picture, frame: &frame }) {
                self.lose(&error);
                return Drawn::Lost;
            }
            self.drawn = Some(Instant::now());
            self.picture = Some(picture);
        }
        self.frame = Some(frame);
        Drawn::Shown
    }
}

fn tell_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen with gpio-sim: the button's level was told a moment after the model had been moved past it, and the hold
    /// was void.
    #[test]
    fn an_edge_that_is_told_late_is_no_clock_that_jumps() {
        let mut time = Time::new();
        let edge = Instant::now();
        let moved = time.now();
        assert_eq!(time.of(edge), moved);
        assert!(time.now() >= moved);
    }
}
