//! 240 by 240, colours: a ring and a word in the colour of the state, and details in letters that can be read from a
//! chair.

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::face::{AMOUNT, BIG, Face, HEADLINE, LABEL, NARROW, NOTE, STATE, TEXT};
use super::palette::{AMBER, BLACK, BLUE, GREEN, GREY, RED, WHITE};
use super::qr::Code;
use super::sheet::{Align, Place, Sheet};
use crate::link::{Maker, Text, Tor};
use crate::screen::{Access, Frame, Home, Notice, Outcome, Progress, Screen, Silence};
use crate::text::{amount, earned, groups, thousands, wrap};
use crate::words;

const SIDE: u32 = 240;
/// Between the panel's edge and text.
const MARGIN: u32 = 10;
const INNER: u32 = SIDE - 2 * MARGIN;
const RING: u32 = 4;

const STATES: &[Face] = &[STATE, HEADLINE, AMOUNT, BIG];
const AMOUNTS: &[Face] = &[AMOUNT, BIG, LABEL];
const HEADLINES: &[Face] = &[HEADLINE, AMOUNT, BIG, LABEL];
const LINES: &[Face] = &[BIG, LABEL, NOTE];
const LABELS: &[Face] = &[LABEL, NOTE, NARROW];
const NOTES: &[Face] = &[NOTE, TEXT, NARROW];

// Tops of lines below the word that says the state.
const STATE_Y: i32 = 40;
const LINE: [i32; 4] = [108, 132, 156, 180];
const FOOT: i32 = 210;

pub(super) fn draw(frame: &Frame, sheet: &mut Sheet) {
    match &frame.screen {
        Screen::Starting { step, version } => {
            state(sheet, "JOINERY", BLUE);
            line(sheet, 1, step.as_str(), WHITE);
            let version = version
                .as_ref()
                .map_or_else(String::new, |version| format!("v{}", version.as_str()));
            foot(sheet, &version);
        }
        Screen::Silent { silence } => silent(sheet, *silence),
        Screen::Locked { wallet, access, network } => {
            let tag = network.map_or("", |network| network.tag());
            top(sheet, wallet.as_ref().map_or("", Text::as_str), tag);
            state(sheet, "LOCKED", GREY);
            line(sheet, 0, access.hostname.as_ref().map_or("", Text::as_str), WHITE);
            line(sheet, 1, &words::address(access), WHITE);
            line(sheet, 2, &words::fingerprint(access), GREY);
            banner(sheet, frame, "press: pair a phone");
        }
        Screen::Pairing { access, locked } => pairing(sheet, frame, access, *locked),
        Screen::Fingerprint { fingerprint } => {
            headline(sheet, 10, "CERTIFICATE", WHITE);
            center(sheet, 52, LABELS, "SHA-256 fingerprint", GREY);
            address(sheet, 82, &groups(fingerprint.as_str()));
            foot(sheet, "compare it with your browser's");
            ring(sheet, GREY, RING);
        }
        Screen::Unlock { wallet, from, resume, left_s, .. } => {
            asking(sheet, *left_s);
            state_word(sheet, 22, if *resume { "RESUME?" } else { "UNLOCK?" }, WHITE);
            for (text, y) in wrap(wallet.as_str(), BIG.columns(INNER), 2).iter().zip([98, 120]) {
                center(sheet, y, LINES, text, WHITE);
            }
            let from =
                from.as_ref().map_or_else(String::new, |from| format!("from {}", from.as_str()));
            center(sheet, 152, LINES, if *resume { "as maker, no password" } else { &from }, GREY);
            let left =
                left_s.map_or_else(|| "press: yes".into(), |left| format!("press within {left} s"));
            center(sheet, 184, LINES, &left, WHITE);
            foot(sheet, "hold 3 s: refuse and lock");
        }
        Screen::Send { .. } => send(sheet, &frame.screen),
        Screen::UnknownRequest { id, text } => {
            asking(sheet, None);
            headline(sheet, 16, "UNKNOWN", WHITE);
            headline(sheet, 56, "REQUEST", WHITE);
            let text = text.as_ref().map_or(id.as_str(), Text::as_str);
            for (text, y) in wrap(text, BIG.columns(INNER), 3).iter().zip([104, 126, 148]) {
                center(sheet, y, LINES, text, WHITE);
            }
            center(sheet, 180, LINES, "update the box", GREY);
            foot(sheet, "two presses: refuse");
        }
        Screen::Idle { home } => {
            home_top(sheet, home);
            state(sheet, "IDLE", BLUE);
            if let Some(balance) = home.balance {
                line(sheet, 0, &amount(balance), WHITE);
            }
            if let Some(percent) = home.syncing {
                line(sheet, 1, &format!("catching up: {} %", percent.get()), WHITE);
            }
            chain(sheet, 2, home);
            banner(sheet, frame, &network_line(home));
        }
        Screen::Maker { home, maker } => {
            home_top(sheet, home);
            state(sheet, "EARNING", GREEN);
            if let Some(maker) = maker {
                earning(sheet, maker);
            }
            chain(sheet, 3, home);
            banner(sheet, frame, &network_line(home));
        }
        Screen::Taker { home, phase, round } => {
            home_top(sheet, home);
            state(sheet, "MIXING", AMBER);
            line(sheet, 0, phase.as_ref().map_or("", Text::as_str), AMBER);
            if let Some(round) = round {
                progress(sheet, round);
            }
            banner(sheet, frame, &network_line(home));
        }
        Screen::Transaction { direction, confirmations, amount: sats } => {
            state(sheet, words::direction(*direction), BLUE);
            if let Some(sats) = sats {
                line(sheet, 0, &amount(*sats), WHITE);
            }
            line(sheet, 1, &words::confirmations(*confirmations), WHITE);
        }
        Screen::Warning { notice, index, count } => warning(sheet, notice, *index, *count),
        Screen::Hold { held, deaf } => {
            let (headline, text) = words::hold(*held, *deaf);
            state(sheet, headline, if *held < 30 { WHITE } else { GREY });
            line(sheet, 0, &text, WHITE);
            let bar = Rectangle::new(Point::new(20, 150), Size::new(200, 24));
            sheet.bar(bar, (*held).into(), 100, WHITE);
            // Three of ten seconds.
            sheet.fill(Rectangle::new(Point::new(20 + 60, 142), Size::new(2, 40)), WHITE);
            let marks = Place { x: 20 + 60 - 16, y: 186, width: 40, faces: LABELS };
            sheet.text(marks, "lock", Align::Left, GREY);
            let marks = Place { x: 190, y: 186, width: 30, faces: LABELS };
            sheet.text(marks, "off", Align::Right, GREY);
        }
        Screen::Outcome { outcome } => self::outcome(sheet, *outcome),
        Screen::SwitchingOff => {
            headline(sheet, 60, "SWITCHING", GREY);
            headline(sheet, 100, "OFF", GREY);
            line(sheet, 3, "wait, then unplug", WHITE);
            ring(sheet, GREY, RING);
        }
    }
}

fn ring(sheet: &mut Sheet, color: Rgb565, width: u32) {
    sheet.outline(Rectangle::new(Point::zero(), Size::new_equal(SIDE)), width, color);
}

/// The ring of a request: it is thick in every other second, to be noticed.
fn asking(sheet: &mut Sheet, left_s: Option<u32>) {
    let thick = left_s.is_some_and(|left| left % 2 == 1);
    ring(sheet, WHITE, if thick { 2 * RING } else { RING });
}

fn center(sheet: &mut Sheet, y: i32, faces: &[Face], text: &str, color: Rgb565) {
    let x = MARGIN.cast_signed();
    sheet.text(Place { x, y, width: INNER, faces }, text, Align::Center, color);
}

fn headline(sheet: &mut Sheet, y: i32, text: &str, color: Rgb565) {
    center(sheet, y, HEADLINES, text, color);
}

fn state_word(sheet: &mut Sheet, y: i32, text: &str, color: Rgb565) {
    center(sheet, y, STATES, text, color);
}

/// The word and the ring.
fn state(sheet: &mut Sheet, text: &str, color: Rgb565) {
    ring(sheet, color, RING);
    state_word(sheet, STATE_Y, text, color);
}

fn line(sheet: &mut Sheet, number: usize, text: &str, color: Rgb565) {
    if let Some(y) = LINE.get(number) {
        center(sheet, *y, LINES, text, color);
    }
}

fn foot(sheet: &mut Sheet, text: &str) {
    center(sheet, FOOT, LABELS, text, GREY);
}

/// The worst warning on a field of its colour, or what else there is to say.
fn banner(sheet: &mut Sheet, frame: &Frame, text: &str) {
    let Some((worst, count)) = &frame.warning else { return foot(sheet, text) };
    let inside = SIDE - 2 * RING;
    let corner = Point::new(RING.cast_signed(), FOOT - 8);
    sheet.fill(Rectangle::new(corner, Size::new(inside, 34)), RED);
    let more = if *count > 1 { format!("1/{count}") } else { String::new() };
    let right = u32::try_from(more.len()).unwrap_or(0) * NOTE.width();
    let gap = if right == 0 { 0 } else { 4 };
    let place = Place { x: 7, y: FOOT + 2, width: inside - 6 - right - gap, faces: LABELS };
    sheet.text(place, &worst.banner(), Align::Left, BLACK);
    let place =
        Place { x: (SIDE - 7 - right).cast_signed(), y: FOOT + 2, width: right, faces: NOTES };
    sheet.text(place, &more, Align::Right, BLACK);
}

/// A name on the left, cut if it must be, and a short word on the right.
fn top(sheet: &mut Sheet, one: &str, other: &str) {
    let right = u32::try_from(other.chars().count()).unwrap_or(0) * BIG.width();
    let gap = if right == 0 { 0 } else { BIG.width() };
    let x = MARGIN.cast_signed();
    sheet.text(
        Place { x, y: 12, width: INNER - right - gap, faces: LINES },
        one,
        Align::Left,
        WHITE,
    );
    let x = (SIDE - MARGIN - right).cast_signed();
    sheet.text(Place { x, y: 12, width: right, faces: LINES }, other, Align::Right, GREY);
}

fn home_top(sheet: &mut Sheet, home: &Home) {
    let name = home.wallet.as_ref().map_or("", Text::as_str);
    top(sheet, name, home.network.map_or("open", |network| network.tag()));
}

fn chain(sheet: &mut Sheet, number: usize, home: &Home) {
    let height = home
        .height
        .map_or_else(String::new, |height| format!("block {}", thousands(height.into())));
    line(sheet, number, &height, GREY);
}

/// Server, Tor and directories in one line.
fn network_line(home: &Home) -> String {
    let mut parts = Vec::new();
    if let Some(up) = home.server {
        parts.push(if up { "server ok".to_owned() } else { "no server".to_owned() });
    }
    match home.tor {
        Some(Tor::Ok) => parts.push("Tor ok".to_owned()),
        Some(Tor::Down) => parts.push("no Tor".to_owned()),
        Some(Tor::Off) | None => {}
    }
    if let Some(count) = home.directories {
        parts.push(format!("{count} dirs"));
    }
    parts.join(" · ")
}

fn earning(sheet: &mut Sheet, maker: &Maker) {
    let offers =
        if maker.offers == 1 { "1 offer".to_owned() } else { format!("{} offers", maker.offers) };
    let market = maker.makers.map_or_else(String::new, |makers| format!(" · {makers} makers"));
    line(sheet, 0, &format!("{offers}{market}"), WHITE);
    line(sheet, 1, &format!("today {}", earned(maker.earned_today_sat)), GREEN);
    let rounds = if maker.rounds_today == 1 {
        "1 round".into()
    } else {
        format!("{} rounds", maker.rounds_today)
    };
    line(sheet, 2, &rounds, WHITE);
}

fn progress(sheet: &mut Sheet, round: &Progress) {
    line(sheet, 1, &format!("makers {} of {}", round.answered, round.asked), WHITE);
    let bar = Rectangle::new(Point::new(20, 160), Size::new(200, 14));
    sheet.bar(bar, round.left_s, round.of_s, AMBER);
    line(sheet, 3, &format!("ends in {} s", round.left_s), WHITE);
}

fn pairing(sheet: &mut Sheet, frame: &Frame, access: &Access, locked: bool) {
    const ROOM: u32 = 194;
    let corner = Point::new((SIDE - ROOM).cast_signed() / 2, 2);
    match Code::of(access, ROOM, 4) {
        Some(code) => code.draw(sheet, Rectangle::new(corner, Size::new_equal(ROOM))),
        None => headline(sheet, 80, "NO ADDRESS", GREY),
    }
    let mut text = |y: i32, text: &str, color: Rgb565| {
        sheet.text(Place { x: 2, y, width: SIDE - 4, faces: LABELS }, text, Align::Center, color);
    };
    text(198, access.hostname.as_ref().map_or("", Text::as_str), WHITE);
    text(212, &words::address(access), WHITE);
    match &frame.warning {
        Some((worst, _)) => {
            sheet.fill(Rectangle::new(Point::new(0, 226), Size::new(SIDE, 14)), RED);
            let place = Place { x: 2, y: 227, width: SIDE - 4, faces: LABELS };
            sheet.text(place, &worst.banner(), Align::Center, BLACK);
        }
        None => text(
            226,
            &format!("{}  {}", words::fingerprint(access), if locked { "locked" } else { "open" }),
            GREY,
        ),
    }
}

/// Groups of four: four large ones on a line, or six smaller ones when there are too many of them.
fn address(sheet: &mut Sheet, top: i32, groups: &[String]) {
    let (face, in_row, gap, pitch) =
        if groups.len() <= 16 { (BIG, 4, 15, 21) } else { (LABEL, 6, 5, 17) };
    let width = 4 * face.width();
    let row_width = width * in_row + gap * (in_row - 1);
    let x = (SIDE - row_width).cast_signed() / 2;
    for (row, line) in groups.chunks(usize::try_from(in_row).unwrap_or(1)).enumerate() {
        let y = top + i32::try_from(row).unwrap_or(0) * pitch;
        for (column, group) in line.iter().enumerate() {
            let column = u32::try_from(column).unwrap_or(0);
            // Every other group in another tone: the eye keeps its place.
            let color = if column % 2 == 0 { WHITE } else { AMBER };
            let x = x + (column * (width + gap)).cast_signed();
            sheet.text(Place { x, y, width, faces: &[face] }, group, Align::Left, color);
        }
    }
}

fn send(sheet: &mut Sheet, screen: &Screen) {
    let Screen::Send { payment, left_s, held, .. } = screen else { return };
    asking(sheet, *left_s);
    let left = left_s.map_or_else(String::new, |left| format!("{left} s"));
    let title = if payment.makers.is_some() { "COINJOIN?" } else { "SEND?" };
    let place = Place { x: 12, y: 8, width: 166, faces: HEADLINES };
    sheet.text(place, title, Align::Left, WHITE);
    sheet.text(Place { x: 178, y: 18, width: 50, faces: LINES }, &left, Align::Right, GREY);
    center(sheet, 48, AMOUNTS, &payment.amount_text(), WHITE);
    center(sheet, 84, LINES, &payment.fee_text(), WHITE);
    let own = if payment.own { "to self" } else { "" };
    let parts = [words::jar(payment), words::makers(payment), own.to_owned()];
    let parts: Vec<&str> =
        parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    center(sheet, 106, NOTES, &parts.join(" · "), GREY);
    address(sheet, 125, &groups(payment.destination.as_str()));
    if let Some(held) = held {
        sheet.bar(
            Rectangle::new(Point::new(14, 211), Size::new(90, 16)),
            (*held).into(),
            15,
            WHITE,
        );
        let text = if words::enough(*held) { "let go: send" } else { "keep holding" };
        sheet.text(Place { x: 112, y: 213, width: 116, faces: LABELS }, text, Align::Left, WHITE);
    } else {
        center(sheet, 213, NOTES, "hold 1.5 s: send  two presses: no", WHITE);
    }
}

fn silent(sheet: &mut Sheet, silence: Silence) {
    let (text, lines) = words::silence(silence);
    ring(sheet, RED, RING);
    headline(sheet, STATE_Y, text, RED);
    for (text, number) in wrap(&lines, BIG.columns(INNER), 3).iter().zip(0..) {
        line(sheet, number, text, WHITE);
    }
}

fn warning(sheet: &mut Sheet, notice: &Notice, index: usize, count: usize) {
    ring(sheet, RED, RING);
    sheet.fill(Rectangle::new(Point::zero(), Size::new(SIDE, 52)), RED);
    let place = Place { x: 12, y: 6, width: 150, faces: HEADLINES };
    sheet.text(place, "WARNING", Align::Left, BLACK);
    let number = format!("{}/{count}", index + 1);
    sheet.text(Place { x: 168, y: 16, width: 60, faces: LINES }, &number, Align::Right, BLACK);
    let (what, remedy) = notice.advice();
    let what = wrap(&what, BIG.columns(INNER), 3);
    for (text, y) in what.iter().zip([70, 94, 118]) {
        center(sheet, y, LINES, text, WHITE);
    }
    for (text, y) in wrap(&remedy, BIG.columns(INNER), 3).iter().zip([154, 178, 202]) {
        center(sheet, y, LINES, text, AMBER);
    }
}

fn outcome(sheet: &mut Sheet, outcome: Outcome) {
    let (text, explanation) = words::outcome(outcome);
    let color = match outcome {
        Outcome::Approved => GREEN,
        Outcome::TooLate | Outcome::Gone | Outcome::NotLocked | Outcome::StillOn => AMBER,
        Outcome::Refused | Outcome::Locking | Outcome::Locked | Outcome::SwitchingOff => GREY,
    };
    ring(sheet, color, RING);
    state_word(sheet, 76, text, color);
    center(sheet, 146, LINES, explanation, WHITE);
}
