//! The database: the only module that names sled (`design.md` "Storage" 2 to 5, `spec/wallet.md` 13.6).
//!
//! sled 0.34 needs care. Its `flush` writes but does not fsync, so [`Database::commit`] syncs the files
//! itself. Opening a torn database may panic, or even end or hang the process, so opening is guarded by
//! `catch_unwind`, a deadline and a count of attempts that never came back. Values stay at or below 4 KiB:
//! a leaf holds at most 16 of them, so no leaf grows into a blob file, which sled would not sync.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::StoreError;
use super::disk::{io_error, with_suffix};

/// Largest stored value, bytes.
pub(super) const MAX_VALUE: usize = 4096;
/// Page cache of sled, bytes (its default is 1 GiB).
const CACHE: u64 = 16 << 20;
/// Longest time an opening may take before the database counts as damaged.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// How long to wait until the threads of a database that was just closed let go of its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long closing waits for sled's threads.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// Openings in a row that ended the process before the database counts as damaged.
const OPENING_ATTEMPTS: usize = 2;
/// File that counts them.
const OPENING: &str = "opening";

/// Why a database did not open.
#[derive(Debug)]
pub(super) enum OpenFailure {
    /// The machine refused (full, read-only, no permission, locked): nothing is known about the data.
    Environment(StoreError),
    /// The data is damaged; the text is for the log.
    Damaged(String),
}

/// One change of a batch: a key and its new value, or its removal.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

/// An open database. Every call catches panics; after one the database refuses everything.
#[derive(Debug)]
pub(super) struct Database {
    db: Option<sled::Db>,
    dir: PathBuf,
    broken: bool,
}

impl Database {
    /// Opens or creates the database in `dir` (made with mode 0700).
    pub(super) fn open(dir: &Path) -> Result<Self, OpenFailure> {
        prepare_dir(dir).map_err(OpenFailure::Environment)?;
        let marker = dir.join(OPENING);
        // One byte per attempt.
        let mut attempts = fs::read(&marker).unwrap_or_default();
        if attempts.len() >= OPENING_ATTEMPTS {
            return Err(OpenFailure::Damaged("opening it ended the process repeatedly".into()));
        }
        attempts.push(b'.');
        fs::write(&marker, attempts)
            .map_err(io_error("write", &marker))
            .map_err(OpenFailure::Environment)?;
        let outcome = open_patiently(dir);
        let outcome = match outcome {
            Err(OpenFailure::Damaged(text)) => match probe(dir) {
                // sled turns a full or read-only disk into all kinds of failure.
                Err(error) => Err(OpenFailure::Environment(error)),
                Ok(()) => Err(OpenFailure::Damaged(text)),
            },
            other => other,
        };
        let removed = fs::remove_file(&marker);
        let db = outcome?;
        removed.map_err(io_error("remove", &marker)).map_err(OpenFailure::Environment)?;
        Ok(Self { db: Some(db), dir: dir.to_path_buf(), broken: false })
    }

    /// Whether nothing was ever stored.
    pub(super) fn is_empty(&mut self) -> Result<bool, StoreError> {
        self.guarded(|db| Ok(db.is_empty()))
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    /// Hands out all pairs whose key starts with `prefix`, in key order.
    pub(super) fn scan(
        &mut self,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), StoreError> {
        self.guarded(|db| {
            for pair in db.scan_prefix(prefix) {
                let (key, value) = pair?;
                each(&key, &value);
            }
            Ok(())
        })
    }

    /// Applies changes together: after a crash all of them are there or none.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.guarded(|db| {
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            db.apply_batch(batch)
        })
    }

    /// Makes everything applied so far durable.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.guarded(|db| db.flush().map(drop))?;
        let synced = sync_files(&self.dir);
        // After a failed fsync the kernel forgets what it could not write.
        self.broken |= synced.is_err();
        synced
    }

    fn guarded<T>(
        &mut self,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let db = match &self.db {
            Some(db) if !self.broken => db,
            _ => return Err(StoreError::Database("failed earlier; reopen the wallet".into())),
        };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.broken = true;
                Err(StoreError::Database(error.to_string()))
            }
            Err(panic) => {
                self.broken = true;
                Err(StoreError::Database(panic_text(panic.as_ref())))
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Waits for sled's flusher thread, for ever if that has panicked: hence on a thread of its own.
        if let Some(db) = self.db.take() {
            let closed = on_thread("wallet-db-close", CLOSE_PATIENCE, move || drop(db));
            if !matches!(closed, Ok(Some(()))) {
                tracing::warn!(dir = %self.dir.display(), "closing the wallet database does not end");
            }
        }
    }
}

fn prepare_dir(dir: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => File::open(super::disk::parent(dir))
            .and_then(|parent| parent.sync_all())
            .map_err(io_error("sync directory of", dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
                .map_err(io_error("set permissions of", dir))
        }
        Err(error) => Err(io_error("create", dir)(error)),
    }
}

fn open_patiently(dir: &Path) -> Result<sled::Db, OpenFailure> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .mode(sled::Mode::LowSpace)
            .use_compression(false);
        let opened = on_thread("wallet-db-open", OPEN_DEADLINE, move || {
            catch_unwind(AssertUnwindSafe(|| config.open()))
        })
        .map_err(|error| OpenFailure::Environment(io_error("start a thread for", dir)(error)))?;
        let error = match opened {
            None => return Err(OpenFailure::Damaged("opening it does not end".into())),
            Some(Err(panic)) => return Err(OpenFailure::Damaged(panic_text(panic.as_ref()))),
            Some(Ok(Ok(db))) => return Ok(db),
            Some(Ok(Err(error))) => error,
        };
        if is_locked(&error) {
            if started.elapsed() < LOCK_PATIENCE {
                // A database that was dropped a moment ago still has threads that hold the file.
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
                continue;
            }
            return Err(OpenFailure::Environment(StoreError::InUse { path: dir.to_path_buf() }));
        }
        return Err(match error {
            sled::Error::Io(source) if is_environment(source.kind()) => {
                OpenFailure::Environment(io_error("open", dir)(source))
            }
            other => OpenFailure::Damaged(other.to_string()),
        });
    }
}

fn is_locked(error: &sled::Error) -> bool {
    // sled gives no better sign.
    matches!(error, sled::Error::Io(e) if e.to_string().starts_with("could not acquire lock"))
}

const fn is_environment(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory
    )
}

/// Whether the directory takes a write of the size that sled makes when it opens.
fn probe(dir: &Path) -> Result<(), StoreError> {
    let path = with_suffix(dir, ".probe");
    let written = fs::write(&path, vec![1; 1 << 20])
        .and_then(|()| File::open(&path)?.sync_all())
        .map_err(io_error("write beside", dir));
    let _ = fs::remove_file(&path);
    written
}

/// Syncs blob files, the log and the directories.
fn sync_files(dir: &Path) -> Result<(), StoreError> {
    let sync = |path: &Path| match File::open(path) {
        Ok(file) => file.sync_all().map_err(io_error("sync", path)),
        // sled removes old snapshots and blobs by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("open", path)(error)),
    };
    let blobs = dir.join("blobs");
    for folder in [&blobs, dir] {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("list", folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(io_error("list", folder))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                sync(&entry.path())?;
            }
        }
        sync(folder)?;
    }
    Ok(())
}

/// Runs `work` on a thread and waits for its result that long; `None` when it did not come.
fn on_thread<T: Send + 'static>(
    name: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _ = sender.send(work());
        })
        .map(drop)?;
    Ok(receiver.recv_timeout(patience).ok())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("no text"))
}
