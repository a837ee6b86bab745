//! What is seen: each screen at both sizes as it was reviewed by eye; text stays on the panel and is whole; codes can
//! be scanned; colours can be read.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod gallery;
mod support;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use embedded_graphics::pixelcolor::{Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use joinery_board::Panel;
use joinery_board::link::{Status, parse};
use joinery_board::render::{Picture, Placed, palette, picture, texts};
use joinery_board::screen::{Frame, Screen};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Story, sample};

const PANELS: [(Panel, &str); 2] = [(Panel::Small, "small"), (Panel::Large, "large")];

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

fn read(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::fs::read(path)
        .unwrap_or_else(|error| panic!("{}: {error}; make screens", path.display()));
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width, info.height, pixels)
}

#[test]
fn screens_are_as_they_were_reviewed() {
    for (panel, folder) in PANELS {
        let frames = gallery::frames(panel);
        let mut changed = Vec::new();
        for (name, frame) in &frames {
            let picture = picture(frame, panel);
            let (width, height, pixels) = read(&golden(folder).join(format!("{name}.png")));
            assert_eq!((width, height), panel.size());
            if picture.to_rgb() != pixels {
                changed.push(name.as_str());
            }
        }
        assert!(
            changed.is_empty(),
            "{folder}: {changed:?} look different: run `make screens` and look at them"
        );
        let names: BTreeSet<String> =
            frames.iter().map(|(name, _)| format!("{name}.png")).collect();
        assert_eq!(names.len(), frames.len(), "a name is used twice");
        let files: BTreeSet<String> = golden(folder)
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, files, "{folder}: images without a screen, or screens without an image");
    }
}

/// Every screen is in the gallery.
#[test]
fn no_screen_is_missing() {
    for (panel, _) in PANELS {
        let shown: BTreeSet<&str> =
            gallery::frames(panel).iter().map(|(_, frame)| frame.screen.name()).collect();
        for name in [
            "starting",
            "silent",
            "locked",
            "pairing",
            "fingerprint",
            "unlock",
            "send",
            "unknown-request",
            "idle",
            "maker",
            "taker",
            "transaction",
            "warning",
            "hold",
            "outcome",
            "switching-off",
        ] {
            assert!(shown.contains(name), "{panel:?} {name}");
        }
    }
}

/// Texts are on the panel, do not overlap, and what must be whole is whole.
fn check(frame: &Frame, panel: Panel) -> Result<(), TestCaseError> {
    let texts = texts(frame, panel);
    let (width, height) = panel.size();
    for (index, one) in texts.iter().enumerate() {
        let end = one.area.top_left + one.area.size;
        let inside = one.area.top_left.x >= 0
            && one.area.top_left.y >= 0
            && end.x <= width.cast_signed()
            && end.y <= height.cast_signed();
        prop_assert!(inside, "{one:?} is not on the panel");
        for other in texts.iter().skip(index + 1) {
            prop_assert!(
                one.area.intersection(&other.area).is_zero_sized(),
                "{one:?} and {other:?} overlap"
            );
        }
    }
    let all = joined(&texts);
    if let Screen::Send { payment, page, pages, .. } = &frame.screen {
        if *page == 0 {
            prop_assert!(all.contains(&squeezed(&payment.amount_text())), "amount in {all}");
            prop_assert!(all.contains(&squeezed(&payment.fee_text())), "fee in {all}");
        }
        if *pages == 1 {
            prop_assert!(all.contains(payment.destination.as_str()), "destination in {all}");
        }
    }
    Ok(())
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|letter| *letter != ' ').collect()
}

fn joined(texts: &[Placed]) -> String {
    squeezed(&texts.iter().map(|placed| placed.text.as_str()).collect::<String>())
}

#[test]
fn texts_of_the_gallery_fit() {
    for (panel, _) in PANELS {
        for (name, frame) in gallery::frames(panel) {
            check(&frame, panel).unwrap_or_else(|error| panic!("{panel:?} {name}: {error}"));
        }
    }
}

/// An independent reader finds in the code what was put into it.
fn scan(picture: &Picture) -> Vec<String> {
    let (width, height) = picture.panel().size();
    let (width, height) = (usize::try_from(width).unwrap(), usize::try_from(height).unwrap());
    // A camera sees the panel larger than it is, with its dark frame round it.
    let (scale, edge) = (4, 40);
    let size = (width * scale + 2 * edge, height * scale + 2 * edge);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(size.0, size.1, |x, y| {
        let at = |pixel: usize| {
            pixel.checked_sub(edge).map_or(-1, |inside| i32::try_from(inside / scale).unwrap())
        };
        picture.pixel(Point::new(at(x), at(y))).map_or(0, |color| Rgb888::from(color).g())
    });
    image
        .detect_grids()
        .iter()
        .filter_map(|grid| grid.decode().ok())
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn every_code_can_be_scanned() {
    for (panel, folder) in PANELS {
        let mut scanned = 0;
        for (name, frame) in gallery::frames(panel) {
            let Screen::Pairing { access, .. } = &frame.screen else { continue };
            let found = scan(&picture(&frame, panel));
            let url = access.url.as_ref().unwrap().as_str();
            let uri = access.pairing.as_ref().map(|uri| uri.as_str());
            match (panel, uri) {
                (Panel::Large, Some(uri)) => assert_eq!(found, [uri], "{folder} {name}"),
                (Panel::Small, _) if url.contains('[') => {
                    assert!(found.is_empty(), "too long for the small panel");
                    continue;
                }
                _ => {
                    let [found] = &found[..] else { panic!("{folder} {name}: {found:?}") };
                    let (address, digits) = found.split_once('#').unwrap();
                    assert!(address.eq_ignore_ascii_case(url), "{folder} {name}: {found}");
                    assert!(digits.len() >= 8, "{folder} {name}: {digits}");
                    assert!(access.fingerprint.as_ref().unwrap().as_str().starts_with(digits));
                }
            }
            scanned += 1;
        }
        assert!(scanned >= 3, "{folder}");
    }
}

/// Relative luminance by WCAG 2.
fn luminance(color: Rgb565) -> f64 {
    let color = Rgb888::from(color);
    let part = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(color.r()) + 0.7152 * part(color.g()) + 0.0722 * part(color.b())
}

#[test]
fn colours_can_be_read() {
    let contrast = |one: Rgb565, other: Rgb565| {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    };
    for color in
        [palette::GREY, palette::BLUE, palette::GREEN, palette::AMBER, palette::WHITE, palette::RED]
    {
        assert!(contrast(color, palette::BACKGROUND) >= 7.0, "{color:?}");
    }
    assert!(contrast(palette::BLACK, palette::RED) >= 7.0);
}

#[test]
fn a_dark_panel_is_dark() {
    for (panel, _) in PANELS {
        let mut story = Story::unlocked(panel);
        story.wait(605.0);
        let picture = picture(&story.ui.frame(story.now), panel);
        let first = picture.pixel(Point::zero());
        assert!(picture.rows().flatten().all(|pixel| Some(*pixel) == first));
    }
}

#[test]
fn letters_of_many_languages_are_drawn_and_others_are_boxes() {
    let drawn = |text: &str| {
        let mut status = sample("unlock");
        status["pending"]["text"] = json!(text);
        let mut story = Story::new(Panel::Small);
        story.connect();
        story.say_value(&status);
        picture(&story.ui.frame(story.now), Panel::Small)
    };
    let unknown = drawn("財");
    for letter in "AzéŻőßñØЖяЩЄΩώğıŞāēšž€".chars() {
        assert_ne!(drawn(&letter.to_string()), unknown, "{letter}");
    }
    assert_eq!(drawn("💰"), unknown);
}

/// A name of any letters, among them those that fonts have and those that none has.
fn any_name(most: usize) -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        4 => prop::char::range(' ', '~'),
        2 => prop::char::range('\u{a0}', '\u{24f}'),
        1 => prop::char::range('\u{370}', '\u{4ff}'),
        1 => prop::char::range('\u{5d0}', '\u{6ff}'),
        1 => prop::char::range('\u{3040}', '\u{30ff}'),
        1 => prop::char::range('\u{1f300}', '\u{1f6ff}'),
    ];
    prop::collection::vec(letter, 0..most).prop_map(String::from_iter)
}

fn any_sats() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000_000_u64, 0..=2_100_000_000_000_000_u64, Just(2_100_000_000_000_000_u64)]
}

/// A status with every field at any of its values.
fn any_status() -> impl Strategy<Value = Value> {
    let texts = (
        any_name(255),
        any_name(64),
        any_name(255),
        any_name(16),
        any_name(64),
        any_name(255),
        any_name(64),
    );
    let numbers =
        (any::<u32>(), any::<u16>(), 0..=100_u8, any_sats(), any_sats(), any_sats(), any::<u8>());
    let round = (any::<u16>(), any::<u16>(), 0..=86_400_u32, 0..=86_400_u32, any::<u32>());
    let which = (0..3_u8, any::<bool>(), 0..5_u8, any::<u32>(), 0..=3600_u16, "[0-9a-z]{14,90}");
    let warnings = prop::collection::vec((0..9_u8, any::<u8>()), 0..6);
    (texts, numbers, round, which, warnings).prop_map(|(texts, numbers, round, which, warnings)| {
        let (wallet, host, url, phase, from, asked_for, own_words) = texts;
        let (height, directories, percent, balance, amount, fee, small) = numbers;
        let (asked, answered, left, of, rounds) = round;
        let (state, locked, pending, bits, expires, destination) = which;
        let bit = |index: u32| bits >> index & 1 == 1;
        let signed = i64::try_from(amount).unwrap() * if bit(0) { -1 } else { 1 };
        let kinds = ["no_server", "clock", "disk", "hot", "undervoltage", "tor", "public_server", "foreign_server"];
        let warnings: Vec<Value> = warnings
            .iter()
            .map(|(kind, value)| {
                let kind = kinds.get(usize::from(*kind)).copied().unwrap_or("other");
                json!({"kind": kind, "percent": value % 101, "celsius": value, "text": own_words})
            })
            .collect();
        let pending = match pending {
            0 => json!({"id": "a", "kind": "unlock", "text": format!("x{asked_for}").chars().take(255).collect::<String>(), "from": from, "expires_s": expires}),
            1 => json!({"id": "a", "kind": "other", "text": asked_for}),
            2 => json!({
                "id": "a", "kind": "send", "sweep": bit(1), "amount_sat": amount.max(1), "destination": destination,
                "own": bit(2), "makers": if bit(3) { json!(small) } else { Value::Null }, "jar": small,
                (if bit(4) { "fee_sat" } else { "fee_max_sat" }): fee, "expires_s": expires,
            }),
            _ => Value::Null,
        };
        json!({
            "v": 1, "type": "status", "locked": locked, "coinjoin_state": state, "wallet": wallet, "phase": phase,
            "version": from.chars().take(32).collect::<String>(),
            "starting": if bits % 16 == 5 { json!(host) } else { Value::Null },
            "paired": bit(6), "hostname": host, "fingerprint": "ab".repeat(32),
            "url": if bit(7) { json!(url) } else { json!(format!("https://192.168.178.123:{directories}/")) },
            "round": {"asked": asked, "answered": answered, "deadline_s": left, "of_s": of},
            "maker": {"offers": asked, "makers": if bit(8) { json!(answered) } else { Value::Null },
                      "earned_today_sat": signed, "rounds_today": rounds},
            "sync": percent, "backend": if bit(9) { "ok" } else { "down" }, "tor": if bit(10) { "ok" } else { "down" },
            "directories": directories, "height": height, "network": if bit(11) { "testnet4" } else { "mainnet" },
            "warnings": warnings, "balance_sat": if bit(12) { json!(balance) } else { Value::Null },
            "transaction": {"txid": "cd".repeat(32), "direction": (if bit(13) { "in" } else { "coinjoin" }),
                            "confirmations": if bit(14) { 0 } else { rounds }, "amount_sat": amount},
            "pending": pending,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever names, numbers and letters there are: after any presses every text fits, on both panels.
    #[test]
    fn texts_fit_whatever_they_say(status in any_status(), presses in prop::collection::vec(0.05..4.0_f64, 0..6)) {
        for (panel, _) in PANELS {
            let mut story = Story::unlocked(panel);
            let read: Option<Status> = parse(status.to_string().as_bytes()).unwrap();
            prop_assert!(read.is_some());
            story.say_value(&status);
            story.wait(0.5);
            check(&story.ui.frame(story.now), panel)?;
            for press in &presses {
                story.down();
                story.wait(*press);
                check(&story.ui.frame(story.now), panel)?;
                story.up();
                story.wait(0.6);
                let frame = story.ui.frame(story.now);
                check(&frame, panel)?;
                let _ = picture(&frame, panel);
            }
        }
    }

    /// All pages of a payment together show the whole address, in order, once.
    #[test]
    fn an_address_is_whole(destination in "[0-9a-zA-Z]{14,90}") {
        let mut status = sample("send");
        status["pending"]["destination"] = json!(destination);
        for (panel, _) in PANELS {
            let mut story = Story::unlocked(panel);
            story.say_value(&status);
            let mut all = String::new();
            loop {
                story.wait(0.6);
                let frame = story.ui.frame(story.now);
                let Screen::Send { page, pages, .. } = &frame.screen else { panic!("{frame:?}") };
                let groups: Vec<Placed> = texts(&frame, panel);
                let shown = joined(&groups);
                // The address's groups are the only texts of four letters beside each other in its order.
                let rest: String = destination.chars().skip(all.len()).collect();
                let part: String = (1..=rest.len()).rev().map(|count| rest[..count].to_owned())
                    .find(|part| shown.contains(part.as_str())).unwrap_or_default();
                if *page > 0 || *pages == 1 {
                    all.push_str(&part);
                }
                if page + 1 == *pages {
                    break;
                }
                story.press(0.1);
            }
            prop_assert_eq!(&all, &destination);
        }
    }
}
