//! The data directory: private to the user, and one daemon at a time.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Access for the user alone.
const PRIVATE: u32 = 0o700;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DataDirError {
    /// It cannot be made or looked at.
    #[error("data directory {path} cannot be used: {error}")]
    Io {
        /// It, or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is not ours to tighten.
    #[error("data directory {path} belongs to another user (uid {owner})")]
    ForeignOwner {
        /// It.
        path: PathBuf,
        /// The owner.
        owner: u32,
    },
    /// A directory for everybody, such as /tmp itself.
    #[error("data directory {path} is shared by all users; choose a directory inside it")]
    Shared {
        /// It.
        path: PathBuf,
    },
    /// Another daemon runs there.
    #[error("another joineryd uses data directory {path}")]
    InUse {
        /// It.
        path: PathBuf,
    },
}

/// An existing directory that only its user can enter.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

/// Held while the daemon runs; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(crate) struct DataDirLock(#[expect(dead_code, reason = "held, not read")] File);

impl DataDir {
    /// Opens or makes the directory and closes it to other users.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |error| DataDirError::Io { path: path.to_owned(), error };
        DirBuilder::new().recursive(true).mode(PRIVATE).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let metadata = path.metadata().map_err(failed)?;
        let mode = metadata.mode();
        // Sticky and writable for all: /tmp and its like must stay as they are.
        if mode & 0o1002 == 0o1002 {
            return Err(DataDirError::Shared { path });
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(DataDirError::ForeignOwner { path, owner: metadata.uid() });
        }
        if mode & 0o077 != 0 {
            std::fs::set_permissions(&path, Permissions::from_mode(PRIVATE)).map_err(failed)?;
        }
        Ok(Self(path))
    }

    /// Makes sure that no other daemon runs here.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] when one does.
    pub(crate) fn lock(&self) -> Result<DataDirLock, DataDirError> {
        let path = self.0.join("joineryd.lock");
        let failed = |error| DataDirError::Io { path: path.clone(), error };
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(DataDirLock(file)),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: self.0.clone() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The directory itself, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// `wallets/`: the key files.
    pub(crate) fn wallets(&self) -> PathBuf {
        self.0.join("wallets")
    }

    /// `ssl/`: `key.pem` and `cert.pem`, where packagers of the reference daemon put theirs.
    pub(crate) fn ssl(&self) -> PathBuf {
        self.0.join("ssl")
    }

    /// `listening.json`: where the running daemon can be reached.
    pub(crate) fn listening(&self) -> PathBuf {
        self.0.join("listening.json")
    }
}

/// Makes a directory for the user alone, if it is not there yet.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_private_directory_and_closes_an_open_one() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        DataDir::open(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let directory = DataDir::open(&path).unwrap();
        assert_eq!(directory.path().metadata().unwrap().mode() & 0o777, PRIVATE);
    }

    #[test]
    fn refuses_a_directory_for_everybody() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(DataDir::open(parent.path()), Err(DataDirError::Shared { .. })));
    }

    #[test]
    fn lets_one_daemon_in_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        let held = directory.lock().unwrap();
        assert!(matches!(directory.lock(), Err(DataDirError::InUse { .. })));
        drop(held);
        directory.lock().unwrap();
    }
}
