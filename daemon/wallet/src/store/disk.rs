//! The few file operations that the journal and the snapshot file need, behind a trait so that tests can
//! cut the power at each of them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::StoreError;

/// An open file; positions are explicit.
pub(super) trait DiskFile: Debug + Send {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `buf.len()` bytes; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`. After an error any part of it may have been written.
    fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file system.
pub(super) trait Disk: Debug + Send + Sync {
    /// Opens for reading and writing; `None` when there is no such file.
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>>;
    /// Creates or empties a file, readable by the owner only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the same content available under a second name.
    fn keep_copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Whether anything has this name.
    fn exists(&self, path: &Path) -> bool;
    /// Makes names in the directory that holds `path` durable.
    fn sync_parent(&self, path: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug)]
pub(super) struct RealDisk;

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync: covers the length, leaves out the times.
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn keep_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        // FAT has no hard links.
        fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        File::open(parent(path))?.sync_all()
    }
}

/// Writes `temporary` and puts it in the place of `target`: after a crash at any moment one of both
/// contents is whole under the name, and after success it is the new one. Both are in one directory.
///
/// # Errors
/// The file system refused. The old content still has the name, unless the last step failed: making the
/// new name durable.
pub(super) fn replace(
    disk: &dyn Disk,
    temporary: &Path,
    target: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = disk.create(temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(temporary, target)?;
    disk.sync_parent(target)
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Reads exactly `len` bytes, or fewer at the end of the file.
pub(super) fn read_range(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut out[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(filled);
    Ok(out)
}

/// `path` with a suffix appended to its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A free name for something damaged: `PATH.corrupt-SECONDS`, with a counter if that is taken.
pub(super) fn corrupt_name(disk: &dyn Disk, path: &Path) -> PathBuf {
    // A clock before 1970 gives 0; the counter keeps names apart.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let first = with_suffix(path, &format!(".corrupt-{seconds}"));
    if !disk.exists(&first) {
        return first;
    }
    (1u32..)
        .map(|n| with_suffix(path, &format!(".corrupt-{seconds}-{n}")))
        .find(|name| !disk.exists(name))
        .expect("a directory cannot hold four billion names")
}

/// Turns an I/O error into a [`StoreError`] that names action and file.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Io { action, path, source }
}
