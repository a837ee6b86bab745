//! The words of the screens that both panels share.

use crate::link::{Amount, Direction, Payment, Text};
use crate::screen::{Access, Outcome, Silence};

/// Address of the browser wallet without scheme and path.
pub(crate) fn address(access: &Access) -> String {
    let url = access.url.as_ref().map_or("", Text::as_str);
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

/// The same for a narrow column: an IPv4 address in its halves and the port, else pieces of twelve letters.
pub(crate) fn address_parts(access: &Access) -> Vec<String> {
    let address = address(access);
    let (host, port) = address.rsplit_once(':').unwrap_or((address.as_str(), ""));
    let numbers: Vec<&str> = host.split('.').collect();
    let is_ipv4 = numbers.len() == 4 && numbers.iter().all(|number| number.parse::<u8>().is_ok());
    let [a, b, c, d] = numbers[..] else { return crate::text::wrap(&address, 12, 3) };
    if !is_ipv4 {
        return crate::text::wrap(&address, 12, 3);
    }
    let mut parts = vec![format!("{a}.{b}."), format!("{c}.{d}")];
    if !port.is_empty() {
        parts.push(format!(":{port}"));
    }
    parts
}

/// The first digits of the certificate's fingerprint, as a browser shows them.
pub(crate) fn fingerprint(access: &Access) -> String {
    let Some(fingerprint) = &access.fingerprint else { return String::new() };
    let groups = crate::text::groups(fingerprint.as_str());
    groups.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// What a transaction did.
pub(crate) const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "RECEIVED",
        Direction::Out => "SENT",
        Direction::Coinjoin => "MIXED",
    }
}

pub(crate) fn confirmations(count: u32) -> String {
    match count {
        0 => "not in a block yet".into(),
        1 => "1 confirmation".into(),
        count => format!("{count} confirms"),
    }
}

/// Which jar pays, and whether all of it.
pub(crate) fn jar(payment: &Payment) -> String {
    match (payment.amount, payment.jar) {
        (Amount::Sweep(_), Some(jar)) => format!("all of jar {jar}"),
        (Amount::Sweep(_), None) => "all of a jar".into(),
        (Amount::Exact(_), Some(jar)) => format!("from jar {jar}"),
        (Amount::Exact(_), None) => String::new(),
    }
}

/// With how many a coinjoin is made.
pub(crate) fn makers(payment: &Payment) -> String {
    match payment.makers {
        None => String::new(),
        Some(1) => "1 maker".into(),
        Some(count) => format!("{count} makers"),
    }
}

/// Tenths of a second that approve a payment.
pub(crate) const fn enough(held: u16) -> bool {
    held >= 15
}

/// Headline and explanation.
pub(crate) fn silence(silence: Silence) -> (&'static str, String) {
    match silence {
        Silence::NoDaemon => ("STOPPED", "The wallet program is not running.".into()),
        Silence::Quiet { seconds } => {
            let time = match seconds {
                0..120 => format!("{seconds} s"),
                120..7200 => format!("{} min", seconds / 60),
                _ => format!("{} h", seconds / 3600),
            };
            ("NO ANSWER", format!("The wallet program is silent for {time}."))
        }
        Silence::OtherVersion { found } => {
            ("UPDATE", format!("Wallet speaks v{found}, display v{}.", crate::link::VERSION))
        }
        Silence::Nonsense => ("UPDATE", "Wallet and display do not understand each other.".into()),
    }
}

/// Headline and explanation while the button is held.
pub(crate) fn hold(held: u16, deaf: bool) -> (&'static str, String) {
    let left = |to: u16| to.saturating_sub(held).div_ceil(10);
    match held {
        _ if deaf => ("NOT HEARD", "nothing is running".into()),
        0..30 => ("LOCK", format!("hold {} s more", left(30))),
        30..100 => ("LOCKING", format!("off: hold {} s more", left(100))),
        _ => ("OFF", "let go".into()),
    }
}

/// Headline and explanation.
pub(crate) const fn outcome(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Approved => ("APPROVED", ""),
        Outcome::Refused => ("REFUSED", "nothing is done"),
        Outcome::TooLate => ("TOO LATE", "ask again"),
        Outcome::Gone => ("WITHDRAWN", "nothing is done"),
        Outcome::Locking => ("LOCKING", ""),
        Outcome::Locked => ("LOCKED", "all roles stopped"),
        Outcome::NotLocked => ("NOT LOCKED", "no answer"),
        Outcome::SwitchingOff => ("GOOD BYE", "switching off"),
        Outcome::StillOn => ("STILL ON", "no answer"),
    }
}
