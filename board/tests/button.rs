//! The button at its edges: bounces, lengths, what was held from the start, clocks that jump.

use std::time::Duration;

use joinery_board::button::{Button, ButtonEvent, LOCK, SHUTDOWN, STUCK, TICK};
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A button, and a clock that calls it whenever it wants to be called.
struct Bench {
    button: Button,
    now: Duration,
    log: Vec<ButtonEvent>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { button: Button::new(ms(0)), now: ms(0), log: Vec::new() };
        bench.level(false);
        bench.wait(1000);
        bench
    }

    fn level(&mut self, pressed: bool) {
        self.log.extend(self.button.level(pressed, self.now));
    }

    fn wait(&mut self, length: u64) {
        let end = self.now + ms(length);
        while let Some(next) = self.button.next_tick(self.now).filter(|next| *next < end) {
            self.now = next.max(self.now + ms(1)).min(end);
            self.log.extend(self.button.tick(self.now));
        }
        self.now = end;
        self.log.extend(self.button.tick(self.now));
    }

    fn press(&mut self, length: u64) -> Vec<ButtonEvent> {
        self.level(true);
        self.wait(length);
        self.level(false);
        self.wait(500);
        std::mem::take(&mut self.log)
    }
}

fn down() -> ButtonEvent {
    ButtonEvent::Down { at: ms(1000) }
}

fn up(held: u64) -> ButtonEvent {
    ButtonEvent::Up { at: ms(1000 + held), held: ms(held) }
}

#[test]
fn a_bounce_of_29_ms_is_nothing_and_30_ms_is_a_press() {
    assert_eq!(Bench::new().press(29), []);
    assert_eq!(Bench::new().press(30), [down(), up(30)]);
}

#[test]
fn lengths_are_told_at_their_edges() {
    let (lock, shutdown) = (ButtonEvent::Lock, ButtonEvent::Shutdown);
    assert_eq!(Bench::new().press(1400), [down(), up(1400)]);
    assert_eq!(Bench::new().press(1600), [down(), up(1600)]);
    assert_eq!(Bench::new().press(2900), [down(), up(2900)]);
    assert_eq!(Bench::new().press(2999), [down(), up(2999)]);
    assert_eq!(Bench::new().press(3100), [down(), lock, up(3100)]);
    assert_eq!(Bench::new().press(9900), [down(), lock, up(9900)]);
    assert_eq!(Bench::new().press(10_100), [down(), lock, shutdown, up(10_100)]);
}

#[test]
fn bounces_at_both_ends_do_not_change_the_length() {
    let mut bench = Bench::new();
    for length in [1, 5, 9, 20] {
        bench.level(true);
        bench.wait(length);
        bench.level(false);
        bench.wait(length);
    }
    let from = bench.now;
    bench.level(true);
    bench.wait(700);
    let to = bench.now;
    for length in [1, 29, 3, 11] {
        bench.level(false);
        bench.wait(2);
        bench.level(true);
        bench.wait(length);
    }
    let last = bench.now;
    bench.level(false);
    bench.wait(300);
    assert_eq!(
        bench.log,
        [ButtonEvent::Down { at: from }, ButtonEvent::Up { at: last, held: last - from }]
    );
    assert!(last - to < ms(60));
}

#[test]
fn a_release_that_is_not_believed_yet_does_not_lock() {
    let mut bench = Bench::new();
    bench.level(true);
    bench.wait(2990);
    bench.level(false);
    bench.wait(200);
    assert_eq!(bench.log, [down(), up(2990)]);
}

#[test]
fn held_at_boot_does_nothing_and_is_told() {
    let mut bench = Bench { button: Button::new(ms(0)), now: ms(0), log: Vec::new() };
    bench.level(true);
    bench.wait(60_000);
    assert_eq!(bench.log, [ButtonEvent::Stuck]);
    bench.level(false);
    bench.wait(100);
    assert_eq!(bench.log, [ButtonEvent::Stuck, ButtonEvent::Freed]);
    bench.log.clear();
    let from = bench.now;
    let to = from + ms(80);
    assert_eq!(
        { bench.press(80) },
        [ButtonEvent::Down { at: from }, ButtonEvent::Up { at: to, held: ms(80) }]
    );
}

#[test]
fn stuck_is_told_once_and_its_release_is_no_press() {
    let events = Bench::new().press(60_000);
    assert_eq!(
        events,
        [
            down(),
            ButtonEvent::Lock,
            ButtonEvent::Shutdown,
            ButtonEvent::Void,
            ButtonEvent::Stuck,
            ButtonEvent::Freed
        ]
    );
}

#[test]
fn a_gap_in_time_voids_the_hold() {
    // The process was stopped for an hour with a finger on the button.
    let mut bench = Bench::new();
    bench.level(true);
    bench.wait(500);
    bench.now += ms(3_600_000);
    bench.level(false);
    bench.wait(500);
    assert_eq!(bench.log, [down(), ButtonEvent::Void]);
    bench.log.clear();
    assert_eq!(bench.press(100).len(), 2, "and the next press counts");
}

#[test]
fn a_press_that_went_down_just_before_a_gap_is_void() {
    let mut bench = Bench::new();
    bench.level(true);
    bench.now += ms(5000);
    bench.log.extend(bench.button.tick(bench.now));
    bench.wait(200);
    bench.level(false);
    bench.wait(500);
    assert_eq!(bench.log, []);
}

#[test]
fn a_clock_that_goes_back_voids_the_hold() {
    let mut bench = Bench::new();
    bench.wait(10_000);
    bench.level(true);
    bench.wait(2000);
    bench.now = ms(4000);
    bench.log.extend(bench.button.tick(bench.now));
    bench.wait(500);
    bench.level(false);
    bench.wait(500);
    assert!(matches!(bench.log[..], [ButtonEvent::Down { .. }, ButtonEvent::Void]));
    bench.log.clear();
    assert_eq!(bench.press(100).len(), 2);
}

#[test]
fn nothing_going_on_wants_no_call() {
    let bench = Bench::new();
    assert_eq!(bench.button.next_tick(bench.now), None);
}

proptest! {
    /// Whatever the level and the clock do: an `Up` follows its `Down`, a lock was held for three seconds that the
    /// machine has seen, and a button that was let go is soon at rest.
    #[test]
    fn keeps_its_word_for_any_course(
        steps in prop::collection::vec((any::<bool>(), 0_u64..4000, any::<bool>()), 1..200),
        back in prop::collection::vec(0_u64..100_000, 0..4),
    ) {
        let mut bench = Bench::new();
        for (index, (pressed, length, ticking)) in steps.iter().enumerate() {
            bench.level(*pressed);
            if *ticking {
                bench.wait(*length);
            } else {
                bench.now += ms(*length);
            }
            if let Some(to) = back.get(index) {
                bench.now = ms(*to);
            }
        }
        bench.level(false);
        bench.wait(2000);
        prop_assert_eq!(bench.button.next_tick(bench.now), None);
        let mut since: Option<(Duration, u8)> = None;
        for event in &bench.log {
            match (*event, since) {
                (ButtonEvent::Down { at }, None) => since = Some((at, 0)),
                (ButtonEvent::Lock, Some((at, 0))) => since = Some((at, 1)),
                (ButtonEvent::Shutdown, Some((at, 1))) => since = Some((at, 2)),
                (ButtonEvent::Up { at: to, held }, Some((at, told))) => {
                    prop_assert_eq!(to - at, held);
                    prop_assert_eq!(told >= 1, held >= LOCK);
                    prop_assert_eq!(told >= 2, held >= SHUTDOWN);
                    prop_assert!(held < STUCK + TICK);
                    since = None;
                }
                (ButtonEvent::Void, Some(_)) => since = None,
                (ButtonEvent::Stuck | ButtonEvent::Freed, None) => {}
                (event, since) => prop_assert!(false, "{event:?} after {since:?}"),
            }
        }
        prop_assert!(since.is_none());
    }
}
