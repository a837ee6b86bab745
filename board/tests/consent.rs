//! The rule that the box exists for, against any course of events: what is approved is what was shown, in full, on a
//! panel that works, for this request. A second, dumber observer watches the model from outside and checks each approval.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use joinery_board::Panel;
use joinery_board::button::{APPROVE, DEBOUNCE, LOCK};
use joinery_board::link::{Message, Sats, parse};
use joinery_board::render::texts;
use joinery_board::screen::{Frame, Light, Screen};
use joinery_board::text::amount;
use joinery_board::ui::{QUIET_AFTER, SEEN_AFTER, Ui};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::sample;

#[derive(Debug, Clone)]
enum Event {
    /// The daemon sends a snapshot with this request, or without any.
    Say(usize),
    /// The daemon sends what cannot be understood.
    Nonsense,
    Connect,
    Disconnect,
    /// The panel is lost, or another one is found.
    Panel(Option<Panel>),
    Press(u64),
    Down,
    Up,
    Wait(u64),
    /// Time passes in which nobody is called.
    Jump(u64),
    /// Pictures reach the panel from now on, or do not.
    Draw(bool),
}

/// Requests that are easily taken for each other.
fn snapshots() -> Vec<Value> {
    let mut other_id = sample("send");
    other_id["pending"]["id"] = json!("send-02");
    let mut other_amount = sample("send");
    other_amount["pending"]["amount_sat"] = json!(25_000_001);
    let mut long = sample("send");
    long["pending"]["destination"] = json!("b".repeat(90));
    let mut short = sample("unlock");
    short["pending"]["expires_s"] = json!(1);
    let mut other_unlock = sample("unlock");
    other_unlock["pending"]["text"] = json!("Satoshl");
    vec![
        sample("locked"),
        sample("idle"),
        sample("unlock"),
        short,
        other_unlock,
        sample("resume"),
        sample("send"),
        other_id,
        other_amount,
        long,
        sample("coinjoin"),
        sample("unknown_request"),
        sample("switching_off"),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..snapshots().len()).prop_map(Event::Say),
        1 => Just(Event::Nonsense),
        2 => Just(Event::Connect),
        1 => Just(Event::Disconnect),
        1 => prop::sample::select(vec![None, Some(Panel::Small), Some(Panel::Large)]).prop_map(Event::Panel),
        6 => prop::sample::select(vec![20, 100, 900, 1400, 1600, 2900, 3100]).prop_map(Event::Press),
        1 => Just(Event::Down),
        2 => Just(Event::Up),
        6 => prop::sample::select(vec![50, 300, 450, 700, 1500, 5500]).prop_map(Event::Wait),
        1 => (500_u64..3000).prop_map(Event::Jump),
        1 => any::<bool>().prop_map(Event::Draw),
    ]
}

/// A history that often gets as far as an approval: without it, random events rarely do.
fn any_history() -> impl Strategy<Value = Vec<Event>> {
    // In half of them the daemon changes its mind before the last press.
    let requests = 2..snapshots().len();
    let approving = (requests.clone(), prop::option::of(requests), 1..4_usize).prop_map(
        |(which, other, pages)| {
            let mut events = vec![
                Event::Connect,
                Event::Panel(Some(Panel::Small)),
                Event::Draw(true),
                Event::Say(which),
            ];
            events.push(Event::Wait(600));
            for _ in 1..pages {
                events.extend([Event::Press(100), Event::Wait(600)]);
            }
            events.extend(other.map(Event::Say));
            events.push(Event::Wait(600));
            events.push(Event::Press(1600));
            events
        },
    );
    (
        approving,
        prop::collection::vec((any::<prop::sample::Index>(), any_event()), 0..8),
        prop::collection::vec(any_event(), 0..40),
    )
        .prop_map(|(mut events, inserted, more)| {
            for (at, event) in inserted {
                let at = at.index(events.len() + 1);
                events.insert(at, event);
            }
            events.extend(more);
            events
        })
}

/// What the observer knows about the request that is being asked about.
struct Asked {
    /// All but the time that is left.
    content: Value,
    /// Pages that were on the panel since it came.
    pages: BTreeSet<usize>,
}

struct Observer {
    ui: Ui,
    now: Duration,
    connected: bool,
    drawing: bool,
    panel: Option<Panel>,
    heard: Duration,
    asked: Option<Asked>,
    /// The frame on the panel, and since when that page of that request has been there.
    on_panel: Option<(Frame, Duration)>,
    /// When the level last went up, and what had been on the panel for how long.
    down: Option<(Duration, Option<(Screen, Duration)>)>,
    level: bool,
    approved: usize,
}

impl Observer {
    fn new() -> Self {
        let mut ui = Ui::new(Duration::ZERO);
        ui.level(false, Duration::ZERO);
        Self {
            ui,
            now: Duration::ZERO,
            connected: false,
            drawing: true,
            panel: None,
            heard: Duration::ZERO,
            asked: None,
            on_panel: None,
            down: None,
            level: false,
            approved: 0,
        }
    }

    fn apply(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Say(which) => {
                let value = snapshots().swap_remove(*which);
                if self.connected {
                    self.heard = self.now;
                    let mut content = value["pending"].clone();
                    if let Some(content) = content.as_object_mut() {
                        content.remove("expires_s");
                    }
                    if content.is_null() {
                        self.asked = None;
                    } else if self.asked.as_ref().is_none_or(|asked| asked.content != content) {
                        self.asked = Some(Asked { content, pages: BTreeSet::new() });
                    }
                }
                self.ui.heard(parse(value.to_string().as_bytes()), self.now);
            }
            Event::Nonsense => {
                self.asked = None;
                self.ui.heard(parse(b"{"), self.now);
            }
            Event::Connect => {
                if !self.connected {
                    self.connected = true;
                    self.heard = self.now;
                    self.ui.connected(self.now);
                }
            }
            Event::Disconnect => {
                self.connected = false;
                self.asked = None;
                self.ui.disconnected(self.now);
            }
            Event::Panel(panel) => {
                if self.panel != *panel {
                    self.on_panel = None;
                    if let Some(asked) = &mut self.asked {
                        asked.pages.clear();
                    }
                }
                self.panel = *panel;
                self.ui.panel(*panel, self.now);
            }
            Event::Press(length) => {
                self.set(true)?;
                self.wait(*length)?;
                self.set(false)?;
                self.wait(60)?;
            }
            Event::Down => self.set(true)?,
            Event::Up => self.set(false)?,
            Event::Wait(length) => self.wait(*length)?,
            Event::Jump(length) => self.now += Duration::from_millis(*length),
            Event::Draw(drawing) => self.drawing = *drawing,
        }
        self.look()
    }

    fn set(&mut self, level: bool) -> Result<(), TestCaseError> {
        if level && !self.level {
            let seen = self.on_panel.as_ref().map(|(frame, since)| (frame.screen.clone(), *since));
            self.down = Some((self.now, seen));
        }
        self.level = level;
        self.ui.level(level, self.now);
        self.look()
    }

    fn wait(&mut self, length: u64) -> Result<(), TestCaseError> {
        for _ in 0..length / 10 {
            self.now += Duration::from_millis(10);
            self.ui.tick(self.now);
            self.look()?;
        }
        Ok(())
    }

    /// Draws, and checks every approval.
    fn look(&mut self) -> Result<(), TestCaseError> {
        while let Some(message) = self.ui.message() {
            if let Message::Press { pending } = message {
                self.check(pending.as_str())?;
            }
        }
        let Some(panel) = self.panel.filter(|_| self.drawing) else { return Ok(()) };
        let frame = self.ui.frame(self.now);
        let same =
            self.on_panel.as_ref().is_some_and(|(old, _)| page(&old.screen) == page(&frame.screen));
        if frame.light != Light::Off
            && let Some(asked) = &mut self.asked
            && let Some((id, number)) = page(&frame.screen)
            && asked.content["id"] == id.as_str()
            && !asked.pages.contains(&number)
            && whole(&frame, panel, &asked.content)
        {
            asked.pages.insert(number);
        }
        self.ui.shown(&frame, self.now);
        let since = self.on_panel.take().filter(|_| same).map_or(self.now, |(_, since)| since);
        self.on_panel = Some((frame, since));
        Ok(())
    }

    fn check(&mut self, id: &str) -> Result<(), TestCaseError> {
        self.approved += 1;
        prop_assert!(self.connected && self.panel.is_some(), "nobody could see or hear it");
        prop_assert!(self.now - self.heard < QUIET_AFTER, "the daemon was silent");
        let asked = self.asked.as_ref();
        prop_assert!(asked.is_some_and(|asked| asked.content["id"] == id), "another request waits");
        let asked = asked.unwrap();
        let (down, seen) = self.down.clone().unwrap();
        let Some((screen, since)) = seen else {
            return Err(TestCaseError::fail("nothing was on the panel"));
        };
        prop_assert!(
            down >= since + SEEN_AFTER,
            "not seen for long enough: {:?}",
            down.saturating_sub(since)
        );
        prop_assert_eq!(screen.request().map(|id| id.as_str()), Some(id));
        let held = self.now - down;
        match screen {
            Screen::Unlock { .. } => prop_assert!(held < LOCK + 2 * DEBOUNCE),
            Screen::Send { page, pages, .. } => {
                prop_assert_eq!(page + 1, pages, "not the last page");
                prop_assert!(
                    asked.pages.iter().copied().eq(0..pages),
                    "only pages {:?} of {pages}",
                    asked.pages
                );
                prop_assert!(held >= APPROVE && held < LOCK + 2 * DEBOUNCE, "held for {held:?}");
            }
            other => return Err(TestCaseError::fail(format!("approved on {}", other.name()))),
        }
        Ok(())
    }
}

/// Which page of which request a screen is.
fn page(screen: &Screen) -> Option<(String, usize)> {
    let number = if let Screen::Send { page, .. } = screen { *page } else { 0 };
    screen.request().map(|id| (id.as_str().to_owned(), number))
}

/// Whether the page shows what it must of this request, whatever the model believes.
fn whole(frame: &Frame, panel: Panel, content: &Value) -> bool {
    let all: String =
        texts(frame, panel).iter().map(|placed| placed.text.replace(' ', "")).collect();
    match &frame.screen {
        Screen::Send { page: 0, pages, .. } => {
            let amount =
                content["amount_sat"].as_u64().map(|sat| amount(Sats::try_from(sat).unwrap()));
            all.contains(&amount.unwrap().replace(' ', ""))
                && (*pages > 1 || all.contains(content["destination"].as_str().unwrap()))
        }
        Screen::Send { page, .. } => {
            let destination = content["destination"].as_str().unwrap();
            let part: String = destination.chars().skip((page - 1) * 64).take(64).collect();
            all.contains(&part)
        }
        Screen::Unlock { .. } => all.contains(content["text"].as_str().unwrap()),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_approved_is_what_was_shown(history in any_history()) {
        let mut observer = Observer::new();
        for event in &history {
            observer.apply(event)?;
        }
    }
}

/// The property above is worth nothing if nothing is ever approved in it.
#[test]
fn histories_do_approve() {
    let plain = |which: usize, pages: usize, length: u64| {
        let mut observer = Observer::new();
        let mut events = vec![
            Event::Connect,
            Event::Panel(Some(Panel::Small)),
            Event::Say(which),
            Event::Wait(600),
        ];
        for _ in 1..pages {
            events.extend([Event::Press(100), Event::Wait(600)]);
        }
        events.push(Event::Press(length));
        for event in &events {
            observer.apply(event).unwrap();
        }
        observer.approved
    };
    assert_eq!(plain(2, 1, 100), 1);
    assert_eq!(plain(6, 2, 1600), 1);
    assert_eq!(plain(9, 3, 1600), 1);
    assert_eq!(plain(6, 1, 1600), 0, "on the first page");
    assert_eq!(plain(9, 2, 1600), 0, "on the second of three");
}
