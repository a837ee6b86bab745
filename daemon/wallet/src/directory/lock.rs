//! One process, and one handle in it, per wallet name (`spec/wallet.md` 4.4 and 13.3).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::Pid;
use tracing::warn;

use super::durable;

/// Longest lock file of another program that is looked at, bytes.
const MAX_LOCK_LEN: u64 = 64;

/// The held lock. It ends with the process, however that ends, so it is never stale.
#[derive(Debug)]
pub(super) struct NameLock {
    /// Closing the file releases the lock.
    _file: File,
}

impl NameLock {
    /// Takes the lock without waiting; `None` when somebody else holds it, this process included.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // The file stays: removing it would let two processes lock two files of one name.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the reference wallet has the file open, by its lock file `.NAME.lock`.
///
/// That file holds a process number and stays behind after a crash. It counts only while a process
/// lives that has this number and is not younger than the file.
pub(super) fn held_by_reference(path: &Path) -> io::Result<Option<u32>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = if metadata.is_file() { durable::read(path, MAX_LOCK_LEN)? } else { None };
    let pid = bytes
        .as_deref()
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.trim().parse::<i32>().ok())
        .filter(|pid| *pid > 0);
    let Some(pid) = pid else {
        warn!(path = %path.display(), "lock file names no process and is ignored");
        return Ok(None);
    };
    // We never write such a file, so one with our number was left by an earlier process.
    let own = i64::from(std::process::id()) == i64::from(pid);
    let reused = metadata.modified().is_ok_and(|written| started_after(pid, written));
    if own || reused || !is_alive(pid) {
        warn!(path = %path.display(), pid, "stale lock file of another program is ignored");
        return Ok(None);
    }
    Ok(u32::try_from(pid).ok())
}

fn is_alive(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    // Without the right to send it a signal it is alive all the same.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether a process is known to have started after a moment: then its number was given out again.
fn started_after(pid: i32, moment: SystemTime) -> bool {
    // Ticks of process times in /proc are 1/100 s on every Linux; slack covers rounding and clocks that
    // were set after boot.
    const TICKS_PER_SECOND: u64 = 100;
    const SLACK: Duration = Duration::from_secs(60);
    let started = || -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything; field 22 counts from the last one.
        let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot: u64 = boot.trim().parse().ok()?;
        Some(Duration::from_secs(boot.checked_add(ticks / TICKS_PER_SECOND)?))
    };
    match (started(), moment.duration_since(UNIX_EPOCH)) {
        (Some(started), Ok(moment)) => started > moment + SLACK,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_handle_in_the_same_process_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(".w.jmdat.flock");
        let first = NameLock::take(&path).expect("lock file").expect("free");
        assert!(NameLock::take(&path).expect("lock file").is_none());
        drop(first);
        assert!(NameLock::take(&path).expect("lock file").is_some());
    }

    #[test]
    fn lock_files_of_the_reference_count_only_while_their_process_lives() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(".w.jmdat.lock");
        assert_eq!(held_by_reference(&path).expect("readable"), None);

        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep");
        fs::write(&path, child.id().to_string()).expect("written");
        assert_eq!(held_by_reference(&path).expect("readable"), Some(child.id()));
        // The same number, but the file is older than the process: the number was given out again.
        let file = File::options().write(true).open(&path).expect("own file");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).expect("own file");
        assert_eq!(held_by_reference(&path).expect("readable"), None);
        fs::write(&path, child.id().to_string()).expect("written");
        child.kill().expect("own child");
        child.wait().expect("own child");
        assert_eq!(held_by_reference(&path).expect("readable"), None);

        for garbage in ["", "not a number", "-1", "0", "99999999999999999999", &"1".repeat(100)] {
            fs::write(&path, garbage).expect("written");
            assert_eq!(held_by_reference(&path).expect("readable"), None, "{garbage}");
        }
        fs::write(&path, std::process::id().to_string()).expect("written");
        assert_eq!(held_by_reference(&path).expect("readable"), None, "our own number");
    }
}
