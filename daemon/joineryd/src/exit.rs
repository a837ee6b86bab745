//! How the process ends when it cannot go on: a code for programs and one sentence for people.

use std::fmt;
use std::process::ExitCode;

/// Exit codes, after `sysexits.h` so that service managers and scripts can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 64: the command line cannot be understood.
    Usage = 64,
    /// 69: something the daemon needs is not there, e.g. its port is taken.
    Unavailable = 69,
    /// 70: a task of the daemon died; a restart may help.
    Software = 70,
    /// 73: the data directory or a file in it cannot be made or read.
    DataDirectory = 73,
    /// 75: another daemon uses the data directory; trying again later may help.
    Busy = 75,
    /// 77: the password is wrong.
    NoPermission = 77,
    /// 78: the configuration is wrong; a restart does not help.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants above are all below 256.
        Self::from(exit as u8)
    }
}

/// Why the process ends.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For programs.
    pub(crate) exit: Exit,
    /// For people: printed with its causes on one line.
    pub(crate) cause: anyhow::Error,
}

impl Failure {
    /// A failure with its reason.
    pub(crate) fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> Self {
        Self { exit, cause: cause.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

/// Attaches an exit code to an error.
pub(crate) trait OrExit<T> {
    /// Turns the error into a [`Failure`] with this code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}
