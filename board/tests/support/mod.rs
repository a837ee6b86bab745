//! A box on a bench: a daemon that goes on saying the last thing, a panel that shows each picture, a hand.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![allow(dead_code, reason = "each test binary uses another part")]

use std::time::Duration;

use joinery_board::Panel;
use joinery_board::link::{Message, parse};
use joinery_board::screen::{Frame, Light, Screen};
use joinery_board::ui::Ui;
use serde_json::Value;

/// A sample of the link, as JSON.
pub(crate) fn sample(name: &str) -> Value {
    let path = format!("{}/tests/link/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// The daemon repeats itself this often, as it does when nothing changes.
const REPEAT: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);

pub(crate) struct Story {
    pub(crate) ui: Ui,
    pub(crate) now: Duration,
    last: Option<(Value, Duration)>,
    connected: bool,
    panel: bool,
    frame: Option<Frame>,
    summary: (String, String, String, String),
    log: Vec<String>,
}

impl Story {
    pub(crate) fn new(panel: Panel) -> Self {
        let start = Duration::from_secs(1);
        let mut ui = Ui::new(start);
        ui.panel(Some(panel), start);
        let summary =
            (String::new(), "warning none".to_owned(), "light full".to_owned(), String::new());
        let mut story = Self {
            ui,
            now: start,
            last: None,
            connected: false,
            panel: true,
            frame: None,
            summary,
            log: Vec::new(),
        };
        story.look();
        story
    }

    fn with(panel: Panel, name: &str) -> Self {
        let mut story = Self::new(panel);
        story.ui.level(false, story.now);
        story.connect();
        story.say(name);
        story.wait(1.0);
        story.clear();
        story
    }

    pub(crate) fn locked(panel: Panel) -> Self {
        Self::with(panel, "locked")
    }

    pub(crate) fn unlocked(panel: Panel) -> Self {
        Self::with(panel, "idle")
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.ui.connected(self.now);
        self.look();
    }

    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        self.last = None;
        self.ui.disconnected(self.now);
        self.look();
    }

    pub(crate) fn say(&mut self, name: &str) {
        self.say_value(&sample(name));
    }

    pub(crate) fn say_value(&mut self, value: &Value) {
        self.last = Some((value.clone(), self.now));
        self.line(value.to_string().as_bytes());
    }

    pub(crate) fn line(&mut self, line: &[u8]) {
        self.ui.heard(parse(line), self.now);
        self.look();
    }

    pub(crate) fn lose_panel(&mut self) {
        self.panel = false;
        self.ui.panel(None, self.now);
        self.frame = None;
        self.summary.0.clear();
        self.look();
    }

    pub(crate) fn find_panel(&mut self, panel: Panel) {
        self.panel = true;
        self.ui.panel(Some(panel), self.now);
        self.look();
    }

    pub(crate) fn down(&mut self) {
        self.ui.level(true, self.now);
        self.look();
    }

    pub(crate) fn up(&mut self) {
        self.ui.level(false, self.now);
        self.look();
    }

    pub(crate) fn press(&mut self, seconds: f64) {
        self.down();
        self.wait(seconds);
        self.up();
        self.wait(0.05);
    }

    /// Time passes, and the daemon repeats the last thing it said.
    pub(crate) fn wait(&mut self, seconds: f64) {
        self.pass(seconds, true);
    }

    /// Time passes, and the daemon says nothing.
    pub(crate) fn silence(&mut self, seconds: f64) {
        self.pass(seconds, false);
    }

    /// Time passes of which the board knows nothing.
    pub(crate) fn jump(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn pass(&mut self, seconds: f64, repeating: bool) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now = (self.now + STEP).min(end);
            if repeating
                && let Some((value, at)) = &mut self.last
                && self.now >= *at + REPEAT
            {
                let passed = (self.now - *at).as_secs();
                *at = self.now;
                if let Some(left) = value.pointer_mut("/pending/expires_s") {
                    *left = left
                        .as_u64()
                        .map_or(Value::Null, |left| left.saturating_sub(passed).into());
                }
                let line = value.to_string();
                self.ui.heard(parse(line.as_bytes()), self.now);
            }
            self.ui.tick(self.now);
            self.look();
        }
    }

    /// Draws what is to be seen if it is something new, and notes what a person would notice.
    fn look(&mut self) {
        while let Some(message) = self.ui.message() {
            self.log.push(match message {
                Message::Hello { panel } => {
                    format!("sent hello {}", panel.map_or("none", Panel::name))
                }
                Message::Press { pending } => format!("sent press {}", pending.as_str()),
                Message::Refuse { pending } => format!("sent refuse {}", pending.as_str()),
                Message::Hold { pending: Some(pending) } => {
                    format!("sent hold {}", pending.as_str())
                }
                Message::Hold { pending: None } => "sent hold".to_owned(),
                Message::Shutdown => "sent shutdown".to_owned(),
            });
        }
        let frame = self.ui.frame(self.now);
        let shows = self.panel && self.frame.as_ref() != Some(&frame);
        if shows {
            self.ui.shown(&frame, self.now);
            let word = describe(&frame.screen);
            note(&mut self.log, &mut self.summary.0, word);
            // A stuck button is the only warning that comes without a status.
            let stuck = frame.warning.as_ref().map(|(worst, _)| worst.line());
            if stuck.as_deref() == Some("button is stuck") || self.summary.1 != "warning none" {
                note(
                    &mut self.log,
                    &mut self.summary.1,
                    format!("warning {}", stuck.as_deref().unwrap_or("none")),
                );
            }
            let light = match frame.light {
                Light::Full => "light full",
                Light::Dim => "light dim",
                Light::Off => "light off",
            };
            note(&mut self.log, &mut self.summary.2, light.to_owned());
            self.frame = Some(frame);
        }
        let led = format!("led {}", self.ui.led(self.now).name());
        note(&mut self.log, &mut self.summary.3, led);
    }

    /// Forgets what has happened so far.
    pub(crate) fn clear(&mut self) {
        self.log.clear();
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[&str]) {
        let log = std::mem::take(&mut self.log);
        assert!(
            log == expected,
            "happened:\n{}\nexpected:\n{}",
            log.join("\n"),
            expected.join("\n")
        );
    }
}

fn note(log: &mut Vec<String>, last: &mut String, line: String) {
    if *last != line {
        log.push(line.clone());
        *last = line;
    }
}

/// What a person would tell apart.
fn describe(screen: &Screen) -> String {
    let name = screen.name();
    match screen {
        Screen::Send { page, pages, ready, held, .. } => {
            let state = if held.is_some() {
                " held"
            } else if *ready {
                " ready"
            } else {
                ""
            };
            format!("screen {name} {}/{pages}{state}", page + 1)
        }
        Screen::Warning { index, count, .. } => format!("screen {name} {}/{count}", index + 1),
        Screen::Silent { silence } => format!("screen {name} {silence:?}"),
        Screen::Outcome { outcome } => format!("screen {name} {outcome:?}"),
        _ => format!("screen {name}"),
    }
}
