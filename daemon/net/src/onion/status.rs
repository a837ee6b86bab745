//! How a channel does, for those who show it.

use joinery_roles::channel::{DirectoryState, DirectoryStatus, OnionChannel};

/// How a channel does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnionStatus {
    /// Each directory, in the order of the configuration.
    pub directories: Vec<DirectoryStatus>,
    /// Why the proxy (Tor) cannot be used; `None` when it could be used the last time, or was not needed yet.
    pub proxy_failure: Option<String>,
}

impl OnionStatus {
    pub(super) fn of(channel: &OnionChannel) -> Self {
        Self { directories: channel.directories().collect(), proxy_failure: None }
    }

    /// Whether anything can be sent: at least one directory is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.count_up() > 0
    }

    /// How many directories are up.
    #[must_use]
    pub fn count_up(&self) -> usize {
        self.directories.iter().filter(|directory| directory.state == DirectoryState::Up).count()
    }
}
