//! Writing files so that a power cut leaves the old file or the new one, and nobody else can read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags};

/// What to do when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Put the new file in its place.
    Replace,
}

/// Makes earlier creations, renames and removals in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes `directory/target` through the temporary file `directory/temporary`, mode 0600.
///
/// The caller holds the lock of the wallet, so a temporary file that exists is a leftover.
pub(super) fn write(
    directory: &Path,
    temporary: &str,
    target: impl AsRef<Path>,
    bytes: &[u8],
    existing: Existing,
) -> io::Result<()> {
    let temporary = directory.join(temporary);
    let target = directory.join(target.as_ref());
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let result = match existing {
        Existing::Replace => return replace(&temporary, &target, bytes),
        Existing::Keep => (|| {
            // `create_new` never follows a link.
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            rename_if_free(&temporary, &target)
        })(),
    };
    if result.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    sync_directory(directory)
}

fn replace(temporary: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let result = crate::store::replace_file(temporary, target, bytes);
    if result.is_err() {
        // The error that matters is the first one; after the renaming there is nothing to remove.
        let _ = fs::remove_file(temporary);
    }
    result
}

/// Renames unless the target exists.
pub(super) fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without this flag: the lock of the wallet keeps our own processes apart.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        result => Ok(result?),
    }
}

/// Reads a regular file up to a limit; `None` when it is longer. A link, pipe or device is not opened.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
