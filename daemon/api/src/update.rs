//! Updates of the box: the inbox in which an uploaded bundle waits, and what the root side of the update reports.
//!
//! The daemon has no right to install anything. It puts the bundle and an empty request file under fixed names into its
//! own directory; a unit that runs as root copies the bundle out of its reach, verifies the signature, refuses
//! downgrades, installs, and writes [`UpdateReport`] where the daemon can only read (`docs/updates.md`). Nothing that is
//! said here can make that side do more than verify and install one bundle.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::ApiError;

/// Largest bundle that is taken, bytes: what a root slot of the image holds.
pub const MAX_BUNDLE: u64 = 512 * 1024 * 1024;
/// Space that stays free for wallets, bytes.
const RESERVE: u64 = 64 * 1024 * 1024;
/// Name of the waiting bundle in the inbox.
pub const BUNDLE: &str = "bundle.raucb";
/// Name of the file that asks for the bundle to be installed.
pub const INSTALL: &str = "install";
/// Name of the file that asks for a restart into an installed update.
pub const RESTART: &str = "restart";
/// Name of the report in its directory.
pub const REPORT: &str = "status.json";

/// What is there of a bundle that still arrives.
const PART: &str = "bundle.part";
/// Largest report that is read, bytes.
const MAX_REPORT: u64 = 64 * 1024;

/// Where the two sides of an update meet.
#[derive(Debug, Clone)]
pub struct UpdatePaths {
    /// Directory of the daemon; made when it is first needed.
    pub inbox: PathBuf,
    /// Directory of the root side. Without a report in it this machine is not updated by bundles.
    pub reports: PathBuf,
}

/// What the root side does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UpdateState {
    /// Nothing.
    #[default]
    Idle,
    /// A bundle is verified and written to the other slot.
    Installing,
    /// The other slot has a system that has not been started yet.
    RestartNeeded,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateOutcome {
    /// The new system runs and was found healthy.
    pub ok: bool,
    /// `updated`, or why not, in one word.
    pub code: String,
    /// The same for people.
    pub reason: String,
    /// Version of the bundle, if it was readable.
    pub version: Option<String>,
    /// Seconds since epoch by the clock of the box.
    pub at: u64,
}

/// What the root side says: `status.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// Version of the system that runs.
    pub version: String,
    /// The slot it runs from, `A` or `B`.
    pub slot: String,
    /// What goes on.
    #[serde(default)]
    pub state: UpdateState,
    /// Version that is or was written to the other slot.
    #[serde(default)]
    pub next_version: Option<String>,
    /// That slot.
    #[serde(default)]
    pub next_slot: Option<String>,
    /// The kernel's name for the run in which it was written.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// The last update that came to an end.
    #[serde(default)]
    pub last: Option<UpdateOutcome>,
}

impl UpdateReport {
    /// Reads the report of a directory; `None` when there is none that can be read.
    #[must_use]
    pub fn read(directory: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(directory.join(REPORT)).ok()?;
        file.take(MAX_REPORT).read_to_end(&mut bytes).ok()?;
        let parsed = serde_json::from_slice(&bytes);
        if let Err(error) = &parsed {
            tracing::warn!(%error, "the report on updates is damaged");
        }
        parsed.ok()
    }
}

/// A part of an upload.
#[derive(Debug)]
pub(crate) enum Part {
    /// Its next bytes.
    Bytes(Bytes),
    /// It is whole. An upload that ends without this was cut off.
    End,
}

/// The inbox, one upload at a time.
#[derive(Debug)]
pub(crate) struct Updates {
    paths: UpdatePaths,
    turn: Arc<Mutex<()>>,
}

/// Why an upload was not kept.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client did not send all of it.
    CutOff,
    /// The disk.
    Io(io::Error),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Updates {
    /// Over an inbox in which what an earlier run left half done is removed.
    pub(crate) fn new(paths: UpdatePaths) -> Self {
        let part = paths.inbox.join(PART);
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %part.display(), "cannot be removed");
            }
            _ => {}
        }
        Self { paths, turn: Arc::default() }
    }

    /// The root side's report.
    ///
    /// # Errors
    /// 409 on a machine without one.
    pub(crate) fn report(&self) -> Result<UpdateReport, ApiError> {
        UpdateReport::read(&self.paths.reports).ok_or(ApiError::UPDATE_NOT_SUPPORTED)
    }

    /// Whether a bundle arrives at this moment.
    pub(crate) fn uploading(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Whether the root side has not yet taken what was asked for.
    pub(crate) fn waiting(&self) -> bool {
        self.paths.inbox.join(INSTALL).symlink_metadata().is_ok()
    }

    /// Begins an upload of so many bytes: alone, and with space for it.
    ///
    /// # Errors
    /// 409 when it is not the moment, 413 when it is too large, 500 when the disk is too full.
    pub(crate) fn begin(&self, bytes: u64) -> Result<OwnedMutexGuard<()>, ApiError> {
        let busy = || ApiError::UPDATE_IN_PROGRESS;
        let turn = Arc::clone(&self.turn).try_lock_owned().map_err(|_| busy())?;
        if self.waiting() || self.report()?.state == UpdateState::Installing {
            return Err(busy());
        }
        if bytes > MAX_BUNDLE {
            return Err(ApiError::BodyTooLarge);
        }
        let inbox = &self.paths.inbox;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(inbox);
        let space = made.and_then(|()| rustix::fs::statvfs(inbox).map_err(io::Error::from));
        let space = space.map_err(|error| Self::failed(&error))?;
        // The bundle and the copy that root makes of it.
        let needed = bytes.saturating_mul(2).saturating_add(RESERVE);
        if space.f_bavail.saturating_mul(space.f_frsize) < needed {
            return Err(ApiError::Storage("storage_full"));
        }
        Ok(turn)
    }

    /// Writes what arrives, then asks the root side to install it. Blocks; nothing is left when it fails.
    ///
    /// # Errors
    /// [`UploadError`].
    pub(crate) fn receive(
        &self,
        expected: u64,
        parts: &mut Receiver<Part>,
    ) -> Result<(), UploadError> {
        let part = self.paths.inbox.join(PART);
        let outcome = self.store(&part, expected, parts);
        if outcome.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&part);
        }
        outcome
    }

    fn store(
        &self,
        part: &Path,
        expected: u64,
        parts: &mut Receiver<Part>,
    ) -> Result<(), UploadError> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(part)?;
        let mut written: u64 = 0;
        let whole = loop {
            match parts.blocking_recv() {
                Some(Part::Bytes(bytes)) => {
                    file.write_all(&bytes)?;
                    written = written.saturating_add(bytes.len() as u64);
                }
                Some(Part::End) => break written == expected,
                None => break false,
            }
        };
        if !whole {
            return Err(UploadError::CutOff);
        }
        file.sync_all()?;
        drop(file);
        std::fs::rename(part, self.paths.inbox.join(BUNDLE))?;
        self.ask(INSTALL)?;
        Ok(())
    }

    /// Makes a request file; it has nothing in it, its name says all.
    fn ask(&self, name: &str) -> io::Result<()> {
        let inbox = &self.paths.inbox;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(inbox.join(name))?;
        File::open(inbox)?.sync_all()
    }

    /// Asks for a restart into an installed update.
    ///
    /// # Errors
    /// 409 when there is none, 500 when the disk fails.
    pub(crate) fn restart(&self) -> Result<(), ApiError> {
        if self.report()?.state != UpdateState::RestartNeeded {
            return Err(ApiError::UPDATE_NOT_INSTALLED);
        }
        self.ask(RESTART).map_err(|error| Self::failed(&error))
    }

    /// The answer to a disk that fails. Logs the error.
    pub(crate) fn failed(error: &io::Error) -> ApiError {
        use io::ErrorKind as K;
        tracing::error!(%error, "an update cannot be stored");
        match error.kind() {
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
                ApiError::Storage("storage_full")
            }
            _ => ApiError::Internal("update_storage"),
        }
    }
}
