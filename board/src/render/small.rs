//! 128 by 64, black and white: six lines of 21 letters, or a headline and four of them.

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::face::{BIG, Face, NARROW, TEXT, TINY};
use super::qr::Code;
use super::sheet::{Align, Place, Sheet};
use crate::link::{Maker, RequestId, Text, Tor};
use crate::screen::{
    Access, Frame, Home, Notice, Outcome, Progress, SMALL_GROUPS, Screen, Silence,
};
use crate::text::{amount, earned, groups, thousands, wrap};
use crate::words;

const WIDTH: u32 = 128;
const ON: Rgb565 = Rgb565::WHITE;
const OFF: Rgb565 = Rgb565::BLACK;
/// Text that must not be cut has all of these to fit in.
const ANY: &[Face] = &[TEXT, NARROW, TINY];
const HEAD: &[Face] = &[BIG, TEXT, NARROW, TINY];

// Tops of the lines below a headline.
const HEAD_Y: i32 = 11;
const LINE_1: i32 = 33;
const LINE_2: i32 = 43;
const LAST: i32 = 54;

pub(super) fn draw(frame: &Frame, sheet: &mut Sheet) {
    match &frame.screen {
        Screen::Starting { step, version } => {
            head(sheet, 4, "JOINERY");
            center(sheet, 32, step.as_str());
            let version = version
                .as_ref()
                .map_or_else(String::new, |version| format!("v{}", version.as_str()));
            left(sheet, LAST, &version);
        }
        Screen::Silent { silence } => silent(sheet, *silence),
        Screen::Locked { wallet, access, network } => {
            let tag = network.map_or("", |network| network.tag());
            two(sheet, 0, wallet.as_ref().map_or("", Text::as_str), tag);
            head(sheet, HEAD_Y, "LOCKED");
            center(sheet, LINE_1, access.hostname.as_ref().map_or("", Text::as_str));
            center(sheet, LINE_2, &words::address(access));
            foot(sheet, frame, &words::fingerprint(access));
        }
        Screen::Pairing { access, locked } => pairing(sheet, frame, access, *locked),
        Screen::Fingerprint { fingerprint } => {
            center(sheet, 0, "CERTIFICATE SHA-256");
            address_lines(sheet, 14, &groups(fingerprint.as_str()));
        }
        Screen::Unlock { wallet, from, resume, left_s, .. } => {
            head(sheet, 0, if *resume { "RESUME?" } else { "UNLOCK?" });
            center(sheet, 23, wallet.as_str());
            if *resume {
                center(sheet, 34, "as maker, no password");
            } else if let Some(from) = from {
                center(sheet, 34, &format!("from {}", from.as_str()));
            }
            center(
                sheet,
                LAST,
                &left_s
                    .map_or_else(|| "press: yes".into(), |left| format!("press within {left} s")),
            );
        }
        Screen::Send { .. } => send(sheet, &frame.screen),
        Screen::UnknownRequest { id, text } => unknown(sheet, id, text.as_ref()),
        Screen::Idle { home } => {
            home_top(sheet, home);
            head(sheet, HEAD_Y, "IDLE");
            let line = home.balance.map_or_else(
                || {
                    home.syncing.map_or_else(String::new, |percent| {
                        format!("catching up: {} %", percent.get())
                    })
                },
                amount,
            );
            center(sheet, LINE_1, &line);
            two(sheet, LINE_2, &block(home), server(home));
            let directories =
                home.directories.map_or_else(String::new, |count| format!("{count} dirs"));
            foot_two(sheet, frame, tor(home), &directories);
        }
        Screen::Maker { home, maker } => {
            home_top(sheet, home);
            head(sheet, HEAD_Y, "EARNING");
            if let Some(maker) = maker {
                two(sheet, LINE_1, &offers(maker), &makers(maker));
                let today = format!("today {}", earned(maker.earned_today_sat));
                left(sheet, LINE_2, &today);
            }
            let rounds = maker.as_ref().map_or_else(|| block(home), rounds);
            foot_two(sheet, frame, &rounds, tor(home));
        }
        Screen::Taker { home, phase, round } => {
            two(sheet, 0, wallet_name(home), phase.as_ref().map_or("", Text::as_str));
            head(sheet, HEAD_Y, "MIXING");
            if let Some(round) = round {
                progress(sheet, round);
            }
            foot_two(sheet, frame, &block(home), tor(home));
        }
        Screen::Transaction { direction, confirmations, amount: sats } => {
            head(sheet, 4, words::direction(*direction));
            if let Some(sats) = sats {
                center(sheet, 29, &amount(*sats));
            }
            center(sheet, LINE_2, &words::confirmations(*confirmations));
        }
        Screen::Warning { notice, index, count } => warning(sheet, notice, *index, *count),
        Screen::Hold { held, deaf } => hold(sheet, *held, *deaf),
        Screen::Outcome { outcome } => self::outcome(sheet, *outcome),
        Screen::SwitchingOff => {
            head(sheet, 4, "SWITCHING");
            head(sheet, 24, "OFF");
            center(sheet, LAST, "wait, then unplug");
        }
    }
}

const fn place(y: i32, faces: &'static [Face]) -> Place<'static> {
    Place { x: 0, y, width: WIDTH, faces }
}

fn head(sheet: &mut Sheet, y: i32, text: &str) {
    sheet.text(place(y, HEAD), text, Align::Center, ON);
}

fn left(sheet: &mut Sheet, y: i32, text: &str) {
    sheet.text(place(y, ANY), text, Align::Left, ON);
}

fn center(sheet: &mut Sheet, y: i32, text: &str) {
    sheet.text(place(y, ANY), text, Align::Center, ON);
}

/// One text on the left, cut if it must be, and one on the right, whole.
fn two(sheet: &mut Sheet, y: i32, one: &str, other: &str) {
    two_in(sheet, y, one, other, ON);
}

fn two_in(sheet: &mut Sheet, y: i32, one: &str, other: &str, color: Rgb565) {
    let letters = u32::try_from(other.chars().count()).unwrap_or(0);
    let right = (letters * TEXT.width()).min(WIDTH / 2);
    let gap = if right == 0 { 0 } else { TEXT.width() };
    sheet.text(Place { x: 0, y, width: WIDTH - right - gap, faces: ANY }, one, Align::Left, color);
    let x = (WIDTH - right).cast_signed();
    sheet.text(Place { x, y, width: right, faces: ANY }, other, Align::Right, color);
}

/// The bottom line: the worst warning on white, or what else is there to say.
fn foot_two(sheet: &mut Sheet, frame: &Frame, one: &str, other: &str) {
    if let Some((worst, count)) = &frame.warning {
        sheet.fill(Rectangle::new(Point::new(0, LAST - 1), Size::new(WIDTH, 11)), ON);
        let more = if *count > 1 { format!("1/{count}") } else { String::new() };
        two_in(sheet, LAST, &worst.line(), &more, OFF);
    } else {
        two(sheet, LAST, one, other);
    }
}

fn foot(sheet: &mut Sheet, frame: &Frame, text: &str) {
    if frame.warning.is_some() {
        foot_two(sheet, frame, "", "");
    } else {
        center(sheet, LAST, text);
    }
}

fn wallet_name(home: &Home) -> &str {
    home.wallet.as_ref().map_or("", Text::as_str)
}

fn home_top(sheet: &mut Sheet, home: &Home) {
    two(sheet, 0, wallet_name(home), home.network.map_or("unlkd", |network| network.tag()));
}

fn block(home: &Home) -> String {
    home.height.map_or_else(String::new, |height| thousands(height.into()))
}

fn server(home: &Home) -> &'static str {
    home.server.map_or("", |up| if up { "server ok" } else { "no server" })
}

fn tor(home: &Home) -> &'static str {
    match home.tor {
        Some(Tor::Ok) => "tor ok",
        Some(Tor::Down) => "no tor",
        Some(Tor::Off) | None => "",
    }
}

fn offers(maker: &Maker) -> String {
    if maker.offers == 1 { "1 offer".into() } else { format!("{} offers", maker.offers) }
}

fn makers(maker: &Maker) -> String {
    maker.makers.map_or_else(String::new, |makers| format!("{makers} makers"))
}

fn rounds(maker: &Maker) -> String {
    if maker.rounds_today == 1 {
        "1 round".into()
    } else {
        format!("{} rounds", maker.rounds_today)
    }
}

fn progress(sheet: &mut Sheet, round: &Progress) {
    center(sheet, LINE_1, &format!("makers {} of {}", round.answered, round.asked));
    let bar = 80;
    sheet.bar(
        Rectangle::new(Point::new(0, LINE_2), Size::new(bar, 9)),
        round.left_s,
        round.of_s,
        ON,
    );
    let place = Place { x: bar.cast_signed() + 4, y: LINE_2, width: WIDTH - bar - 4, faces: ANY };
    sheet.text(place, &format!("{} s", round.left_s), Align::Right, ON);
}

fn pairing(sheet: &mut Sheet, frame: &Frame, access: &Access, locked: bool) {
    let state = if locked { "LOCKED" } else { "OPEN" };
    let host = access.hostname.as_ref().map_or("", Text::as_str);
    // The small panel has no room for the phone's URI; its QR code is that of the address.
    let address_only = Access { pairing: None, ..access.clone() };
    let Some(code) = Code::of(&address_only, 64, 2) else {
        two(sheet, 0, host, state);
        for (line, y) in wrap(&words::address(access), 21, 4).iter().zip([12, 22, 32, 42]) {
            left(sheet, y, line);
        }
        foot(sheet, frame, &words::fingerprint(access));
        return;
    };
    code.draw(sheet, Rectangle::new(Point::zero(), Size::new_equal(64)));
    let x = 66;
    let mut line = |y: i32, text: &str, color: Rgb565| {
        sheet.text(
            Place { x, y, width: WIDTH - x.cast_unsigned(), faces: ANY },
            text,
            Align::Left,
            color,
        );
    };
    line(0, host, ON);
    for (part, y) in words::address_parts(access).iter().zip([11, 21, 31]) {
        line(y, part, ON);
    }
    line(43, state, ON);
    if let Some((worst, _)) = &frame.warning {
        sheet.fill(Rectangle::new(Point::new(65, LAST - 1), Size::new(63, 11)), ON);
        sheet.text(
            Place { x, y: LAST, width: WIDTH - 66, faces: ANY },
            &worst.word(),
            Align::Left,
            OFF,
        );
    } else {
        line(LAST, &words::fingerprint(access), ON);
    }
}

/// Groups of four, four on a line.
fn address_lines(sheet: &mut Sheet, top: i32, groups: &[String]) {
    let step = 4 * TEXT.width() + 8;
    for (row, line) in groups.chunks(4).enumerate() {
        let y = top + i32::try_from(row).unwrap_or(0) * 10;
        for (column, group) in line.iter().enumerate() {
            let x = 4 + (u32::try_from(column).unwrap_or(0) * step).cast_signed();
            sheet.text(
                Place { x, y, width: 4 * TEXT.width(), faces: &[TEXT] },
                group,
                Align::Left,
                ON,
            );
        }
    }
}

fn send(sheet: &mut Sheet, screen: &Screen) {
    let Screen::Send { payment, page, pages, ready, left_s, held, .. } = screen else { return };
    let left = left_s.map_or_else(String::new, |left| format!("{left} s  "));
    let number = format!("{left}{}/{pages}", page + 1);
    if *page == 0 {
        two(sheet, 0, if payment.makers.is_some() { "COINJOIN" } else { "SEND" }, &number);
        head(sheet, HEAD_Y, &payment.amount_text());
        center(sheet, 32, &payment.fee_text());
        two(sheet, LINE_2, &words::jar(payment), &words::makers(payment));
    } else {
        two(sheet, 0, if payment.own { "TO OWN WALLET" } else { "TO" }, &number);
        let all = groups(payment.destination.as_str());
        let shown: Vec<String> =
            all.into_iter().skip((page - 1) * SMALL_GROUPS).take(SMALL_GROUPS).collect();
        address_lines(sheet, 11, &shown);
    }
    match held {
        Some(held) => {
            let enough = words::enough(*held);
            sheet.bar(
                Rectangle::new(Point::new(0, LAST - 1), Size::new(50, 10)),
                (*held).into(),
                15,
                ON,
            );
            let text = if enough { "let go: send" } else { "keep holding" };
            sheet.text(
                Place { x: 54, y: LAST, width: WIDTH - 54, faces: ANY },
                text,
                Align::Left,
                ON,
            );
        }
        None if *ready => two(sheet, LAST, "hold 1.5 s: send", ""),
        None => two(sheet, LAST, "press: more", "twice: no"),
    }
}

fn unknown(sheet: &mut Sheet, id: &RequestId, text: Option<&Text<255>>) {
    center(sheet, 0, "UNKNOWN REQUEST");
    let text = text.map_or(id.as_str(), Text::as_str);
    for (line, y) in wrap(text, 21, 2).iter().zip([13, 23]) {
        left(sheet, y, line);
    }
    left(sheet, 38, "update the box");
    left(sheet, LAST, "two presses: refuse");
}

fn silent(sheet: &mut Sheet, silence: Silence) {
    let (headline, lines) = words::silence(silence);
    head(sheet, 4, headline);
    for (line, y) in wrap(&lines, 21, 3).iter().zip([30, 40, 50]) {
        center(sheet, y, line);
    }
}

fn warning(sheet: &mut Sheet, notice: &Notice, index: usize, count: usize) {
    sheet.fill(Rectangle::new(Point::zero(), Size::new(WIDTH, 11)), ON);
    two_in(sheet, 1, "WARNING", &format!("{}/{count}", index + 1), OFF);
    let (what, remedy) = notice.advice();
    let what = wrap(&what, 21, 3);
    let remedy = wrap(&remedy, 21, 5 - what.len());
    for (line, y) in what.iter().chain(&remedy).zip([13, 23, 33, 43, 53]) {
        left(sheet, y, line);
    }
}

fn hold(sheet: &mut Sheet, held: u16, deaf: bool) {
    let (headline, line) = words::hold(held, deaf);
    head(sheet, 2, headline);
    center(sheet, 26, &line);
    sheet.bar(Rectangle::new(Point::new(4, 42), Size::new(120, 12)), held.into(), 100, ON);
    // Three of ten seconds.
    sheet.fill(Rectangle::new(Point::new(4 + 36, 38), Size::new(1, 20)), ON);
}

fn outcome(sheet: &mut Sheet, outcome: Outcome) {
    let (headline, line) = words::outcome(outcome);
    head(sheet, 12, headline);
    center(sheet, 40, line);
}
