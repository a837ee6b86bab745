//! Why a connection ends, and why a call fails.

use joinery_wallet::chain::ChainError;

use crate::text::printable;

/// What ends a connection. Its text is shown to people and is bounded and printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LinkError {
    /// It never stood.
    #[error("{0}")]
    Connect(String),
    /// The other end closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The operating system reported an error.
    #[error("the connection broke: {0}")]
    Io(String),
    /// No answer to something that the connection is useless without.
    #[error("the server did not answer {method} in time")]
    TimedOut { method: &'static str },
    /// A line longer than any answer we asked for.
    #[error("the server sent a line of more than {limit} bytes")]
    LineTooLong { limit: usize },
    /// Answers or notifications beyond all measure.
    #[error("the server sends more than can be kept")]
    Flood,
    /// Not the Electrum protocol.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(&'static str),
    /// An error in answer to something that the connection is useless without.
    #[error("the server refused {method}: {text}")]
    Refused { method: &'static str, text: String },
    /// Something that cannot be true.
    #[error("the server gave an answer that cannot be true: {0}")]
    Lie(String),
    /// A server of another chain.
    #[error("the server is on another network: expected {expected}, its genesis block is {found}")]
    WrongNetwork { expected: &'static str, found: String },
    /// The daemon ends.
    #[error("the connection was closed on our side")]
    Stopped,
}

impl LinkError {
    /// Whether trying again soon is pointless or rude: the server is wrong rather than away.
    pub(crate) const fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            Self::LineTooLong { .. }
                | Self::Flood
                | Self::Protocol(_)
                | Self::Lie(_)
                | Self::WrongNetwork { .. }
        )
    }

    pub(crate) fn lie(what: impl Into<String>) -> Self {
        Self::Lie(printable(&what.into()))
    }
}

impl From<LinkError> for ChainError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::TimedOut { .. } => Self::TimedOut,
            LinkError::Refused { text, .. } => Self::Server { text },
            LinkError::Lie(what) => Self::Lie { what },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

/// An error that the server sent in answer to a call. The text is printable and bounded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ServerError {
    pub(crate) text: String,
}

impl ServerError {
    /// Whether the server means that we asked for too much at once (`spec/wallet.md` 13.5).
    pub(crate) fn is_overload(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        ["too large", "excessive", "busy", "too many", "limit"]
            .iter()
            .any(|word| text.contains(word))
    }

    /// Whether the server means that it has no time for anybody, or for us: nothing that was asked for is to blame.
    fn is_busy(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        ["busy", "excessive", "too many requests", "overloaded", "try again"]
            .iter()
            .any(|word| text.contains(word))
    }
}

/// Why a single call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("no answer in time")]
    TimedOut,
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl CallError {
    /// For calls that a connection is useless without.
    pub(crate) fn into_link(self, method: &'static str) -> LinkError {
        match self {
            Self::Server(error) => LinkError::Refused { method, text: error.text },
            Self::TimedOut => LinkError::TimedOut { method },
            Self::Link(error) => error,
        }
    }
}

impl From<CallError> for ChainError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Server(error) if error.is_busy() => Self::Unavailable { reason: error.text },
            CallError::Server(error) => Self::Server { text: error.text },
            CallError::TimedOut => Self::TimedOut,
            CallError::Link(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_server_says_nothing_of_what_was_asked() {
        let answered =
            |text: &str| ChainError::from(CallError::from(ServerError { text: text.to_owned() }));
        for text in
            ["Server busy - request timed out", "excessive resource usage", "Try again later"]
        {
            assert!(matches!(answered(text), ChainError::Unavailable { .. }), "{text}");
        }
        for text in ["history too large", "internal error", "response too large (at least 1 MB)"] {
            assert!(matches!(answered(text), ChainError::Server { .. }), "{text}");
        }
    }
}
