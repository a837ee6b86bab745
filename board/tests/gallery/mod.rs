//! Every screen, with what is longest, worst and rarest: the golden images and the contact sheet.
#![allow(clippy::unwrap_used, reason = "a picture that cannot be made ends its test")]

use joinery_board::Panel;
use joinery_board::screen::Frame;
use serde_json::{Value, json};

use crate::support::{Story, sample};

/// A name of 255 letters, as long as a file name can be.
fn long_name() -> Value {
    json!("Grandmother's Very Secret Savings for a Rainy Day, Part ".repeat(5).get(..255))
}

/// A sample with some fields changed.
fn changed(name: &str, changes: &[(&str, Value)]) -> Value {
    let mut value = sample(name);
    for (at, change) in changes {
        let (parent, field) = at.rsplit_once('/').unwrap_or(("", at));
        let parent =
            if parent.is_empty() { &mut value } else { value.pointer_mut(parent).unwrap() };
        parent[field] = change.clone();
    }
    value
}

fn shown(panel: Panel, value: &Value) -> Story {
    let mut story = Story::new(panel);
    story.up();
    story.connect();
    story.say_value(value);
    story.wait(1.0);
    story
}

/// The status of a box at rest, then this one: what is new about it is seen.
fn news(panel: Panel, value: &Value) -> Story {
    let mut story = Story::unlocked(panel);
    story.say_value(value);
    story.wait(0.5);
    story
}

/// Names and frames, in the order of the contact sheet.
pub(crate) fn frames(panel: Panel) -> Vec<(String, Frame)> {
    let mut frames: Vec<(String, Frame)> = Vec::new();
    let mut add =
        |name: &str, story: &Story| frames.push((name.to_owned(), story.ui.frame(story.now)));

    add("starting-alone", &Story::new(panel));
    let mut story = Story::new(panel);
    story.wait(21.0);
    add("no-daemon", &story);
    for name in
        ["starting", "pairing", "locked", "unlock", "resume", "idle", "maker", "taker", "warnings"]
    {
        add(name, &shown(panel, &sample(name)));
    }
    add("pairing-url-only", &shown(panel, &changed("pairing", &[("pairing", Value::Null)])));
    add(
        "pairing-ipv6",
        &shown(
            panel,
            &changed(
                "pairing",
                &[
                    ("url", json!("https://[2001:db8:1234:5678:9abc:def0:1234:5678]:28183/")),
                    ("pairing", Value::Null),
                ],
            ),
        ),
    );
    add("locked-warning", &shown(panel, &changed("locked", &[("backend", json!("down"))])));
    add(
        "locked-no-address",
        &shown(panel, &changed("locked", &[("url", Value::Null), ("pairing", Value::Null)])),
    );

    let mut story = shown(panel, &sample("send"));
    add("send", &story);
    story.down();
    story.wait(1.0);
    add("send-hold-on-first", &story);
    story.up();
    story.wait(1.0);
    story.press(0.1);
    story.wait(1.0);
    add("send-last", &story);
    story.down();
    story.wait(1.0);
    add("send-keep-holding", &story);
    story.wait(0.8);
    add("send-let-go", &story);
    story.up();
    story.wait(0.1);
    add("approved", &story);

    for (name, value) in [
        ("coinjoin", sample("coinjoin")),
        ("coinjoin-sweep-unknown", changed("coinjoin", &[("/pending/amount_sat", Value::Null)])),
        (
            "send-longest",
            changed(
                "send",
                &[
                    ("/pending/amount_sat", json!(2_099_999_999_999_999_u64)),
                    ("/pending/fee_sat", Value::Null),
                    ("/pending/fee_max_sat", json!(2_099_999_999_999_999_u64)),
                    ("/pending/makers", json!(255)),
                    ("/pending/jar", json!(255)),
                    ("/pending/own", json!(true)),
                    ("/pending/sweep", json!(true)),
                    ("/pending/expires_s", json!(3600)),
                    (
                        "/pending/destination",
                        json!(format!(
                            "bcrt1p{}",
                            "w9q8z7y6x5".repeat(9).get(..84).unwrap_or_default()
                        )),
                    ),
                ],
            ),
        ),
    ] {
        let mut story = shown(panel, &value);
        add(name, &story);
        for page in 2..4 {
            if let joinery_board::screen::Screen::Send { page: at, pages, .. } =
                story.ui.frame(story.now).screen
                && at + 1 < pages
            {
                story.press(0.1);
                story.wait(1.0);
                add(&format!("{name}-{page}"), &story);
            }
        }
    }

    add("unknown-request", &shown(panel, &sample("unknown_request")));
    let mut story = shown(panel, &sample("send"));
    story.press(0.1);
    story.wait(0.2);
    story.press(0.1);
    add("refused", &story);
    let mut story = shown(panel, &changed("unlock", &[("/pending/expires_s", json!(2))]));
    story.wait(1.5);
    add("too-late", &story);
    let mut story = shown(panel, &sample("unlock"));
    story.say("locked");
    add("withdrawn", &story);

    add(
        "unlock-long",
        &shown(
            panel,
            &changed(
                "unlock",
                &[
                    ("/pending/text", long_name()),
                    ("/pending/from", json!("2001:db8:1234:5678:9abc:def0:1234:5678")),
                ],
            ),
        ),
    );
    for (name, text) in [
        ("unlock-letters", "Élodie Żółw Ÿ ñ ß"),
        ("unlock-cyrillic", "Кошелёк Ґанна"),
        ("unlock-greek", "Πορτοφόλι"),
        ("unlock-unknown-letters", "財布 💰 קופה"),
    ] {
        add(name, &shown(panel, &changed("unlock", &[("/pending/text", json!(text))])));
    }

    add(
        "idle-syncing",
        &shown(panel, &changed("idle", &[("sync", json!(87)), ("network", json!("signet"))])),
    );
    add(
        "idle-long",
        &shown(
            panel,
            &changed(
                "idle",
                &[
                    ("wallet", long_name()),
                    ("network", json!("testnet4")),
                    ("balance_sat", json!(2_099_999_999_999_999_u64)),
                    ("height", json!(u32::MAX)),
                    ("directories", json!(65535)),
                ],
            ),
        ),
    );
    add("idle-balance", &shown(panel, &sample("owner_wants_amounts")));
    add("idle-bare", &shown(panel, &changed("minimal", &[("locked", json!(false))])));
    add(
        "maker-long",
        &shown(
            panel,
            &changed(
                "maker",
                &[
                    ("wallet", long_name()),
                    ("network", json!("regtest")),
                    (
                        "maker",
                        json!({"offers": 65535, "makers": 65535, "earned_today_sat": -2_099_999_999_999_999_i64, "rounds_today": u32::MAX}),
                    ),
                ],
            ),
        ),
    );
    add(
        "maker-warning",
        &shown(panel, &changed("maker", &[("warnings", json!([{"kind": "hot", "celsius": 82}]))])),
    );
    add(
        "taker-long",
        &shown(
            panel,
            &changed(
                "taker",
                &[
                    ("wallet", long_name()),
                    ("phase", json!("waiting for sigs")),
                    (
                        "round",
                        json!({"asked": 65535, "answered": 65535, "deadline_s": 86_400, "of_s": 86_400}),
                    ),
                ],
            ),
        ),
    );
    add("transaction", &news(panel, &sample("transaction")));
    add(
        "transaction-amount",
        &news(
            panel,
            &changed(
                "transaction",
                &[
                    ("/transaction/amount_sat", json!(2_099_999_999_999_999_u64)),
                    ("/transaction/direction", json!("coinjoin")),
                ],
            ),
        ),
    );

    let mut story = shown(panel, &sample("warnings"));
    for index in 1..=9 {
        story.press(0.1);
        story.wait(0.6);
        add(&format!("warning-{index}"), &story);
    }
    let other = json!([{"kind": "new", "text": "WWWWWWWW WWWWWWWWWWWWWWWW WWWWWWWWWWWW WWWWWWWWWWW WWWWWWWWWWWWW"}]);
    let mut story = shown(panel, &changed("idle", &[("warnings", other)]));
    add("warning-own-words-banner", &story);
    story.press(0.1);
    add("warning-own-words", &story);
    let mut story = Story::new(panel);
    story.down();
    story.connect();
    story.say("idle");
    story.wait(2.0);
    add("button-stuck", &story);
    story.up();

    let mut story = Story::unlocked(panel);
    story.say("locked");
    story.press(0.1);
    story.wait(0.6);
    add(if panel == Panel::Small { "fingerprint" } else { "pairing-page" }, &story);
    if panel == Panel::Large {
        story.press(0.1);
        add("fingerprint", &story);
    }
    let mut story = Story::unlocked(panel);
    story.press(0.1);
    add("pairing-open", &story);

    let mut story = Story::unlocked(panel);
    story.down();
    for (seconds, name) in [(1.0, "hold-1"), (2.5, "hold-3"), (6.6, "hold-10")] {
        story.wait(seconds);
        add(name, &story);
    }
    story.up();
    story.wait(0.1);
    add("good-bye", &story);
    let mut story = Story::unlocked(panel);
    story.press(3.1);
    add("locking", &story);
    story.say("locked");
    add("locked-now", &story);
    let mut story = Story::unlocked(panel);
    story.press(3.1);
    story.wait(5.1);
    add("not-locked", &story);
    let mut story = Story::unlocked(panel);
    story.silence(6.0);
    add("silent", &story);
    story.disconnect();
    story.down();
    story.wait(1.0);
    add("hold-deaf", &story);
    let mut story = Story::unlocked(panel);
    story.line(br#"{"v":12,"type":"status"}"#);
    add("other-version", &story);
    for _ in 0..3 {
        story.line(b"{}");
    }
    let mut story = Story::unlocked(panel);
    for _ in 0..3 {
        story.line(b"{}");
    }
    add("nonsense", &story);
    add("switching-off", &shown(panel, &sample("switching_off")));
    let mut story = Story::unlocked(panel);
    story.wait(70.0);
    add("idle-dim", &story);
    frames
}
