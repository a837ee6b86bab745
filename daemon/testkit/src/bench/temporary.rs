//! Directories of benches, including those whose owner was killed before it could clean up.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "joinery-bench-";
/// Locked for as long as the owner lives; the kernel unlocks it however the owner ends.
const OWNER: &str = "owner";

/// A temporary directory that is removed when dropped, or by the next bench after its owner was killed.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: TempDir,
    _owner: File,
}

impl Temporary {
    pub(super) fn new() -> Result<Self> {
        sweep(&std::env::temp_dir());
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        // Locked before it gets its name, so that nobody ever sees it unlocked.
        let unnamed = directory.path().join(".owner");
        let owner = File::create(&unnamed)?;
        flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
        std::fs::rename(&unnamed, directory.path().join(OWNER))?;
        Ok(Self { directory, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes directories without a living owner. Failing to is harmless: they cost disk space only, and may
/// belong to another user.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(owner) = File::open(entry.path().join(OWNER)) else { continue };
        if flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_spares_the_living_and_removes_the_dead() {
        let living = Temporary::new().unwrap();
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        let unrelated = parent.path().join("unrelated");
        for directory in [&dead, &unrelated] {
            std::fs::create_dir(directory).unwrap();
            File::create(directory.join(OWNER)).unwrap();
        }
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(unrelated.exists());
        sweep(living.path().parent().unwrap());
        assert!(living.path().exists());
    }
}
