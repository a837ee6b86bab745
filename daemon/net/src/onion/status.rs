//! How a channel does, for those who show it.

use joinery_roles::channel::{DirectoryState, DirectoryStatus, OnionChannel};

use super::ServiceState;

/// How a channel does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnionStatus {
    /// Each directory, in the order of the configuration.
    pub directories: Vec<DirectoryStatus>,
    /// Why the proxy (Tor) cannot be used; `None` when it could be used the last time, or was not needed yet.
    pub proxy_failure: Option<String>,
    /// Whether peers can reach us.
    pub service: ServiceState,
}

impl OnionStatus {
    pub(super) fn of(channel: &OnionChannel, service: ServiceState) -> Self {
        Self { directories: channel.directories().collect(), proxy_failure: None, service }
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
