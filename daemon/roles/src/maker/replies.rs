//! Answers to `!orderbook`: how often (`spec/roles.md` 4.3, `spec/protocol.md` 13.2).
//!
//! A public request proves nothing about who sent it, so what is counted against a nick is counted for each way
//! on which the request came: somebody who asks in another's name silences us on that way only. The same
//! request over several directories is answered once and is no violation.

use std::time::Duration;

use joinery_proto::nick::Nick;

use super::desk::Bounded;
use crate::budget::Budget;
use crate::event::{LinkId, Source};

/// Shortest time between two answers to one asker.
const INTERVAL: Duration = Duration::from_secs(10);
/// Answers to all together, a second. Each costs a bond signature.
const GLOBAL_RATE: f64 = 5.0;
/// Answers at once.
const GLOBAL_BURST: u32 = 20;
/// After so many violations, silence for so long. Checked from the end.
const SILENCE: [(u32, Duration); 3] = [
    (10, Duration::from_secs(60)),
    (50, Duration::from_secs(300)),
    (100, Duration::from_secs(3_600)),
];
/// Violations are forgotten after a time without any.
const FORGIVEN: Duration = Duration::from_secs(3_600);
/// Most askers that are remembered.
const MAX_ASKERS: usize = 4_096;

/// Who asks: on a direct connection the connection, because nicks are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Link(LinkId),
    Heard(Nick, Source),
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    asked: Option<Duration>,
    violations: u32,
    violated: Duration,
    silent_until: Duration,
}

/// Rate limits of answers.
#[derive(Debug)]
pub(super) struct ReplyLimits {
    global: Budget,
    askers: Bounded<Asker, Record>,
    answered: Bounded<Nick, Duration>,
}

impl ReplyLimits {
    pub(super) fn new() -> Self {
        Self {
            global: Budget::new(GLOBAL_RATE, GLOBAL_BURST),
            askers: Bounded::new(MAX_ASKERS),
            answered: Bounded::new(MAX_ASKERS),
        }
    }

    /// Whether a request is answered.
    pub(super) fn allow(&mut self, nick: Nick, via: Source, now: Duration) -> bool {
        let asker = match via {
            Source::Direct(link) => Asker::Link(link),
            Source::Directory(_) | Source::Irc(_) => Asker::Heard(nick, via),
        };
        if self.askers.get(&asker).is_none() {
            self.askers.insert(asker, Record::default());
        }
        let Some(record) = self.askers.get_mut(&asker) else { return false };
        let early = record.asked.is_some_and(|asked| now < asked.saturating_add(INTERVAL));
        if early || now < record.silent_until {
            if now > record.violated.saturating_add(FORGIVEN) {
                record.violations = 0;
            }
            record.violated = now;
            record.violations = record.violations.saturating_add(1);
            let penalty = SILENCE.iter().rev().find(|(count, _)| record.violations >= *count);
            let silent = penalty.map_or(Duration::ZERO, |(_, time)| now.saturating_add(*time));
            record.silent_until = record.silent_until.max(silent);
            return false;
        }
        record.asked = Some(now);
        let answered = self.answered.get(&nick);
        if answered.is_some_and(|at| now < at.saturating_add(INTERVAL)) || !self.global.take(now) {
            return false;
        }
        self.answered.insert(nick, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DirectoryId;

    fn nick(number: u32) -> Nick {
        // Base58 has no zero.
        let text: String =
            format!("{number:06}").chars().map(|c| if c == '0' { 'z' } else { c }).collect();
        format!("J5{text}OOOOOOOO").parse().unwrap()
    }

    const DIRECTORY: Source = Source::Directory(DirectoryId(0));

    #[test]
    fn one_answer_in_ten_seconds_then_growing_silence() {
        let mut limits = ReplyLimits::new();
        let at = Duration::from_secs;
        let mut ask = |seconds| limits.allow(nick(1), DIRECTORY, at(seconds));
        assert!(ask(0));
        assert!(!ask(9));
        assert!(ask(10));
        // Nine more violations: ten in all.
        assert!((0..9).all(|_| !ask(11)));
        assert!(!ask(70), "silent for a minute after ten violations; this was the eleventh");
        assert!(!ask(129), "asking in the silence starts it again");
        assert!(ask(189));
        assert!((0..38).all(|_| !ask(190)));
        assert!(!ask(489), "fifty violations, five minutes");
        assert!((0..49).all(|_| !ask(490)));
        assert!(!ask(4_089), "a hundred, an hour");
        assert!(ask(7_690));
    }

    #[test]
    fn copies_over_several_directories_are_one_request() {
        let mut limits = ReplyLimits::new();
        let via = |id| Source::Directory(DirectoryId(id));
        assert!(limits.allow(nick(1), via(0), Duration::ZERO));
        assert!((1..6).all(|id| !limits.allow(nick(1), via(id), Duration::ZERO)));
        // Sixty rounds of that are no violation.
        for round in 1..60_u64 {
            let now = Duration::from_secs(round * 10);
            let answers = (0..6).filter(|id| limits.allow(nick(1), via(*id), now)).count();
            assert_eq!(answers, 1, "round {round}");
        }
    }

    #[test]
    fn direct_connections_count_whatever_nicks_they_name() {
        let mut limits = ReplyLimits::new();
        let link = Source::Direct(LinkId(7));
        assert!(limits.allow(nick(1), link, Duration::ZERO));
        assert!((2..100).all(|n| !limits.allow(nick(n), link, Duration::ZERO)));
        assert!(limits.allow(nick(1), Source::Direct(LinkId(8)), Duration::from_secs(11)));
    }

    #[test]
    fn a_flood_of_nicks_is_bounded_in_answers_and_memory() {
        let mut limits = ReplyLimits::new();
        let mut answers = 0_u32;
        for number in 0..20_000_u32 {
            let now = Duration::from_millis(u64::from(number));
            answers += u32::from(limits.allow(nick(number), DIRECTORY, now));
        }
        // Twenty seconds at five a second, and the burst.
        assert!(answers <= 120, "{answers}");
        assert!(limits.askers.len() <= MAX_ASKERS && limits.answered.len() <= MAX_ASKERS);
    }
}
