//! Complaints about foreign nodes, at most one a minute for each cause: what strangers do must not fill
//! anybody's disk (defect 33).

use std::collections::BTreeMap;
use std::time::Duration;

use super::output::LogFact;
use crate::event::Source;

/// Time between two lines about the same cause.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a foreign node did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A line that is no envelope.
    MalformedLine,
    /// A message that names no sender, recipient or command.
    UnroutableMessage,
    /// A private message whose signature does not prove its sender.
    UnprovedSender,
    /// A direct connection spoke for another nick than its own.
    ForeignNick,
    /// More lines than the budget allows.
    TooManyLines,
    /// More signatures to verify than the budget allows.
    TooManySignatures,
    /// No room for another inbound connection.
    TooManyConnections,
    /// No handshake in time, or a bad one, on a direct connection.
    BadHandshake,
    /// Nick authentication out of place or malformed.
    BadNickAuth,
}

/// When what was last complained about.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    by_cause: BTreeMap<Cause, (Duration, u64)>,
}

impl Complaints {
    /// The line for the log, unless there was one for this cause within the last minute.
    pub(super) fn report(&mut self, cause: Cause, via: Source, now: Duration) -> Option<LogFact> {
        if let Some((last, unreported)) = self.by_cause.get_mut(&cause)
            && now.saturating_sub(*last) < INTERVAL
        {
            *unreported = unreported.saturating_add(1);
            return None;
        }
        let (_, unreported) = self.by_cause.insert(cause, (now, 0)).unwrap_or_default();
        Some(LogFact::Misbehaviour { cause, via, unreported })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DirectoryId;

    #[test]
    fn one_line_a_minute_for_each_cause() {
        let mut complaints = Complaints::default();
        let via = Source::Directory(DirectoryId(0));
        let at = Duration::from_secs;
        let mut report = |cause, now| complaints.report(cause, via, now);
        assert!(report(Cause::MalformedLine, at(0)).is_some());
        assert!((0..59).all(|second| report(Cause::MalformedLine, at(second)).is_none()));
        assert!(report(Cause::TooManyLines, at(1)).is_some());
        let Some(LogFact::Misbehaviour { unreported, .. }) = report(Cause::MalformedLine, at(60))
        else {
            panic!("a minute is over");
        };
        assert_eq!(unreported, 59);
    }
}
