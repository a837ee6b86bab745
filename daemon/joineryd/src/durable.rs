//! Writing small files so that a power cut leaves the old or the new one, never half of one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::Builder;

/// Writes `bytes` to `path`, readable by the user alone: temporary file in the same directory, fsync,
/// rename, fsync of the directory. Replaces what was there.
///
/// # Errors
/// When one of these steps fails; `path` is unchanged then.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path)?;
    // Files of this crate have mode 0600 whatever the umask.
    let mut file = Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Largest small file that is read, bytes.
const MAX_FILE: u64 = 4 << 20;

/// Reads what [`write_json`] wrote; `None` for a file that is missing, damaged or too large.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    let parsed = serde_json::from_slice(&bytes);
    if let Err(error) = &parsed {
        tracing::warn!(path = %path.display(), %error, "file is damaged and counts as empty");
    }
    parsed.ok()
}

/// Writes a value as JSON, as [`write()`] does.
///
/// # Errors
/// As [`write()`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

/// Makes a rename or a new name in `directory` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn directory_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_else_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
