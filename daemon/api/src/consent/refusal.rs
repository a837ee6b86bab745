//! Why something was not approved at the box: a stable code and a sentence for each.

/// Why a request was not approved. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No board is connected.
    #[error(
        "This has to be approved at the box, but its display and button are not connected. Nothing was done."
    )]
    NoBoard,
    /// The board has no panel that works.
    #[error("This has to be approved at the box, but its display does not work. Nothing was done.")]
    NoPanel,
    /// Another request waits.
    #[error("Another request waits for the button of the box. Try again in a minute.")]
    Busy,
    /// The person at the box refused, or locked the wallet.
    #[error("Refused at the box.")]
    Refused,
    /// Nobody pressed in time.
    #[error("Nobody approved this at the box in time. Nothing was done.")]
    TimedOut,
    /// The wallet was locked, or the daemon ends.
    #[error("The wallet was locked before this was approved at the box. Nothing was done.")]
    Withdrawn,
}

impl Refusal {
    /// The stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoBoard => "approval_no_board",
            Self::NoPanel => "approval_no_panel",
            Self::Busy => "approval_busy",
            Self::Refused => "approval_refused",
            Self::TimedOut => "approval_timed_out",
            Self::Withdrawn => "approval_withdrawn",
        }
    }
}
