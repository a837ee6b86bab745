//! Stories: what happens to the box, and what is seen on it, how its light blinks and what the daemon is told.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use joinery_board::Panel;
use serde_json::json;
use support::Story;

#[test]
fn boot_pair_unlock_mix_lock() {
    let mut story = Story::new(Panel::Small);
    story.up();
    story.wait(1.0);
    story.connect();
    story.say("starting");
    story.wait(1.0);
    story.say("pairing");
    story.wait(1.0);
    story.say("unlock");
    story.wait(2.0);
    story.press(0.2);
    story.say("idle");
    story.wait(4.0);
    story.say("taker");
    story.wait(1.0);
    story.press(3.1);
    story.say("locked");
    story.wait(4.0);
    story.expect(&[
        "screen starting",
        "led off",
        "sent hello 128x64",
        "screen pairing",
        "screen unlock",
        "led double-blink",
        "sent press unlock-7f3a",
        "screen outcome Approved",
        "led off",
        "led steady",
        "screen idle",
        "screen taker",
        "led quick-breath",
        "screen hold",
        "sent hold",
        "screen outcome Locking",
        "screen outcome Locked",
        "led off",
        "screen pairing",
    ]);
}

#[test]
fn a_payment_is_approved_by_holding_on_its_last_page() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("send");
    story.wait(1.0);
    story.press(1.6); // page 1: means nothing
    story.wait(1.0);
    story.press(0.1);
    story.wait(1.0);
    story.press(1.4); // too short
    story.wait(1.0);
    story.press(1.6);
    story.wait(1.0);
    story.expect(&[
        "screen send 1/2",
        "led double-blink",
        "screen hold",
        "screen send 1/2",
        "screen send 2/2 ready",
        "screen send 2/2 held",
        "screen send 2/2 ready",
        "screen send 2/2 held",
        "sent press send-01",
        "screen outcome Approved",
        "led steady",
    ]);
}

#[test]
fn a_large_panel_shows_a_payment_on_one_page() {
    let mut story = Story::unlocked(Panel::Large);
    story.say("coinjoin");
    story.wait(1.0);
    story.press(2.9);
    story.expect(&[
        "screen send 1/1 ready",
        "led double-blink",
        "screen send 1/1 held",
        "sent press coinjoin-02",
        "screen outcome Approved",
        "led quick-breath",
    ]);
}

#[test]
fn two_quick_presses_refuse_a_payment_and_slow_ones_leaf() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("send");
    story.wait(1.0);
    for _ in 0..2 {
        story.press(0.1);
        story.wait(1.0);
    }
    story.press(0.1);
    story.wait(0.2);
    story.press(0.1);
    story.wait(0.5);
    story.expect(&[
        "screen send 1/2",
        "led double-blink",
        "screen send 2/2 ready",
        "screen send 1/2",
        "screen send 2/2 ready",
        "sent refuse send-01",
        "screen outcome Refused",
        "led steady",
    ]);
}

#[test]
fn a_long_hold_refuses_a_payment_and_locks() {
    let mut story = Story::unlocked(Panel::Large);
    story.say("send");
    story.wait(1.0);
    story.press(3.1);
    story.expect(&[
        "screen send 1/1 ready",
        "led double-blink",
        "screen send 1/1 held",
        "sent hold send-01",
        "screen hold",
        "led steady",
        "screen outcome Locking",
    ]);
}

#[test]
fn holding_for_ten_seconds_switches_off() {
    let mut story = Story::unlocked(Panel::Small);
    story.press(9.9);
    story.say("locked");
    story.wait(4.0);
    story.clear();
    story.press(10.1);
    story.say("switching_off");
    story.wait(1.0);
    story.disconnect();
    story.wait(30.0);
    story.expect(&[
        "screen hold",
        "sent hold",
        "sent shutdown",
        "screen outcome SwitchingOff",
        "screen switching-off",
    ]);
}

#[test]
fn a_daemon_that_does_not_lock_is_told_on() {
    let mut story = Story::unlocked(Panel::Small);
    story.press(3.1);
    for _ in 0..6 {
        story.say("idle");
        story.wait(1.0);
    }
    story.expect(&[
        "screen hold",
        "sent hold",
        "screen outcome Locking",
        "screen outcome NotLocked",
    ]);
}

#[test]
fn a_hold_that_nobody_hears_is_not_kept_for_later() {
    let mut story = Story::unlocked(Panel::Small);
    story.disconnect();
    story.press(10.1);
    story.wait(4.0);
    story.connect();
    story.expect(&[
        "screen silent NoDaemon",
        "led fast-blink",
        "screen hold",
        "screen outcome StillOn",
        "screen silent NoDaemon",
        "sent hello 128x64",
        "screen starting",
        "led off",
    ]);
}

#[test]
fn a_press_on_its_way_when_the_request_appears_means_nothing() {
    let mut story = Story::locked(Panel::Small);
    story.wait(0.2);
    story.down();
    story.wait(0.1);
    story.say("unlock");
    story.wait(0.1);
    story.up();
    story.wait(0.2);
    story.press(0.1); // 0.35 s after it appeared: still on its way
    story.wait(1.0);
    story.press(0.1);
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "sent press unlock-7f3a",
        "screen outcome Approved",
        "led off",
    ]);
}

#[test]
fn a_request_that_changes_must_be_seen_again() {
    let mut story = Story::unlocked(Panel::Large);
    story.say("send");
    story.wait(1.0);
    story.down();
    story.wait(1.0);
    // The same id, another destination, in the middle of the hold.
    let mut other = support::sample("send");
    other["pending"]["destination"] =
        json!("bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3");
    story.say_value(&other);
    story.wait(1.0);
    story.up();
    story.wait(2.0);
    story.press(1.6);
    story.expect(&[
        "screen send 1/1 ready",
        "led double-blink",
        "screen send 1/1 held",
        "screen send 1/1 ready",
        "screen send 1/1 held",
        "sent press send-01",
        "screen outcome Approved",
        "led steady",
    ]);
}

#[test]
fn a_late_press_approves_nothing() {
    let mut story = Story::locked(Panel::Small);
    let mut soon = support::sample("unlock");
    soon["pending"]["expires_s"] = json!(2);
    story.say_value(&soon);
    story.wait(2.5);
    story.press(0.1);
    story.say("locked");
    story.wait(4.0);
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "screen outcome TooLate",
        "led off",
        "screen pairing",
    ]);
}

#[test]
fn a_request_that_is_gone_is_told() {
    let mut story = Story::locked(Panel::Small);
    story.say("unlock");
    story.wait(1.0);
    story.down();
    story.wait(0.1);
    story.say("locked");
    story.wait(0.1);
    story.up();
    story.wait(1.0);
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "screen outcome Gone",
        "led off",
        "screen pairing",
    ]);
}

#[test]
fn nothing_is_approved_without_a_panel() {
    let mut story = Story::unlocked(Panel::Large);
    story.lose_panel();
    story.say("send");
    story.wait(1.0);
    story.press(1.6);
    story.wait(1.0);
    story.find_panel(Panel::Large);
    story.press(1.6); // not seen for long enough yet
    story.wait(1.0);
    story.press(1.6);
    story.expect(&[
        "sent hello none",
        "led double-blink",
        "sent hello 240x240",
        "screen send 1/1 ready",
        "screen send 1/1 held",
        "screen send 1/1 ready",
        "screen send 1/1 held",
        "sent press send-01",
        "screen outcome Approved",
        "led steady",
    ]);
}

#[test]
fn a_panel_that_is_lost_and_found_starts_the_payment_anew() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("send");
    story.wait(1.0);
    story.press(0.1);
    story.wait(1.0);
    story.lose_panel();
    story.find_panel(Panel::Small);
    story.wait(1.0);
    story.press(1.6);
    story.wait(0.1);
    story.expect(&[
        "screen send 1/2",
        "led double-blink",
        "screen send 2/2 ready",
        "sent hello none",
        "sent hello 128x64",
        "screen send 1/2",
        "screen hold",
        "screen send 1/2",
    ]);
}

#[test]
fn a_request_of_another_kind_can_only_be_refused() {
    let mut story = Story::locked(Panel::Small);
    story.say("unknown_request");
    story.wait(1.0);
    story.press(0.1);
    story.wait(1.0);
    story.press(1.6);
    story.wait(1.0);
    story.press(0.1);
    story.wait(0.2);
    story.press(0.1);
    story.expect(&[
        "screen unknown-request",
        "led double-blink",
        "screen hold",
        "screen unknown-request",
        "sent refuse x-1",
        "screen outcome Refused",
        "led off",
    ]);
}

#[test]
fn a_silent_daemon_is_told_on_and_approves_nothing() {
    let mut story = Story::locked(Panel::Small);
    story.say("unlock");
    story.silence(6.0);
    story.down();
    story.silence(0.1);
    story.up();
    story.silence(5.0);
    story.say("locked");
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "screen silent Quiet { seconds: 5 }",
        "led fast-blink",
        "screen silent Quiet { seconds: 10 }",
        "screen outcome Gone",
        "led off",
    ]);
}

#[test]
fn nonsense_is_told_on_and_drops_what_waits() {
    let mut story = Story::locked(Panel::Small);
    story.say("unlock");
    story.wait(1.0);
    for _ in 0..3 {
        story.line(b"{\"v\":1,\"type\":\"status\"}");
        story.silence(0.5);
    }
    story.line(b"{\"v\":2,\"type\":\"status\"}");
    story.say("locked");
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "screen pairing",
        "led off",
        "screen silent Nonsense",
        "led fast-blink",
        "screen silent OtherVersion { found: 2 }",
        "screen pairing",
        "led off",
    ]);
}

#[test]
fn the_panel_dims_goes_dark_and_a_press_only_wakes_it() {
    let mut story = Story::locked(Panel::Large);
    story.wait(605.0);
    story.press(0.1);
    story.wait(1.0);
    story.press(0.1);
    story.wait(0.1);
    story.expect(&["light dim", "light off", "light full", "screen pairing"]);
}

#[test]
fn a_request_wakes_the_panel() {
    let mut story = Story::locked(Panel::Large);
    story.wait(605.0);
    story.clear();
    story.say("unlock");
    story.wait(1.0);
    story.press(0.1);
    story.expect(&[
        "screen unlock",
        "light full",
        "led double-blink",
        "sent press unlock-7f3a",
        "screen outcome Approved",
        "led off",
    ]);
}

#[test]
fn pages_are_leafed_through_and_left_alone_they_close() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("warnings");
    for _ in 0..12 {
        story.wait(1.0);
        story.press(0.1);
    }
    story.wait(61.0);
    story.expect(&[
        "led fast-blink",
        "screen warning 1/9",
        "screen warning 2/9",
        "screen warning 3/9",
        "screen warning 4/9",
        "screen warning 5/9",
        "screen warning 6/9",
        "screen warning 7/9",
        "screen warning 8/9",
        "screen warning 9/9",
        "screen pairing",
        "screen fingerprint",
        "screen idle",
        "light dim",
    ]);
}

#[test]
fn a_new_transaction_is_shown_once() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("transaction");
    story.wait(5.0);
    story.say("transaction");
    story.wait(20.0);
    let mut confirmed = support::sample("transaction");
    confirmed["transaction"]["confirmations"] = json!(1);
    story.say_value(&confirmed);
    story.wait(1.0);
    story.expect(&["screen transaction", "screen idle"]);
}

#[test]
fn an_old_transaction_is_no_news_after_a_restart() {
    let mut story = Story::new(Panel::Small);
    story.connect();
    story.say("transaction");
    story.expect(&["screen starting", "led off", "sent hello 128x64", "screen idle", "led steady"]);
}

#[test]
fn a_stuck_button_is_shown_and_does_nothing() {
    let mut story = Story::new(Panel::Small);
    story.down();
    story.connect();
    story.say("idle");
    story.wait(30.0);
    story.up();
    story.wait(0.5);
    story.expect(&[
        "screen starting",
        "led off",
        "sent hello 128x64",
        "screen idle",
        "led steady",
        "warning button is stuck",
        "led fast-blink",
        "warning none",
        "led steady",
    ]);
}

#[test]
fn a_clock_jump_in_a_hold_approves_nothing() {
    let mut story = Story::unlocked(Panel::Large);
    story.say("send");
    story.wait(1.0);
    story.down();
    story.wait(0.5);
    story.jump(1.5);
    story.up();
    story.wait(0.5);
    story.expect(&["screen send 1/1 ready", "led double-blink"]);
}

#[test]
fn no_daemon_at_all() {
    let mut story = Story::new(Panel::Small);
    story.wait(21.0);
    story.expect(&["screen starting", "led off", "screen silent NoDaemon", "led fast-blink"]);
}

#[test]
fn maker_breathes() {
    let mut story = Story::unlocked(Panel::Small);
    story.say("maker");
    story.wait(1.0);
    story.expect(&["screen maker", "led slow-breath"]);
}

#[test]
fn one_press_resumes_the_maker() {
    let mut story = Story::locked(Panel::Small);
    story.say("resume");
    story.wait(1000.0);
    story.press(0.1);
    story.expect(&[
        "screen unlock",
        "led double-blink",
        "sent press resume-1",
        "screen outcome Approved",
        "led off",
    ]);
}
