//! Complaints about foreign nodes, at most one a minute for each cause: what strangers do must not fill
//! anybody's disk (defect 33).

use std::collections::BTreeMap;
use std::time::Duration;

/// Time between two lines about the same cause.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a foreign node did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A line that is no message.
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
pub(crate) struct Complaints {
    by_cause: BTreeMap<Cause, (Duration, u64)>,
}

impl Complaints {
    /// Whether there is to be a line for the log: not if there was one for this cause within the last minute.
    /// Returns how often it happened since then without a line.
    pub(crate) fn report(&mut self, cause: Cause, now: Duration) -> Option<u64> {
        if let Some((last, unreported)) = self.by_cause.get_mut(&cause)
            && now.saturating_sub(*last) < INTERVAL
        {
            *unreported = unreported.saturating_add(1);
            return None;
        }
        let (_, unreported) = self.by_cause.insert(cause, (now, 0)).unwrap_or_default();
        Some(unreported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each_cause() {
        let mut complaints = Complaints::default();
        let at = Duration::from_secs;
        let mut report = |cause, now| complaints.report(cause, now);
        assert!(report(Cause::MalformedLine, at(0)).is_some());
        assert!((0..59).all(|second| report(Cause::MalformedLine, at(second)).is_none()));
        assert!(report(Cause::TooManyLines, at(1)).is_some());
        assert_eq!(report(Cause::MalformedLine, at(60)), Some(59));
    }
}
