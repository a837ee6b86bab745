//! What the process gives up about itself before it holds any secret.

use std::io;

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Makes every new file private to the user, forbids core dumps and attaching debuggers.
///
/// Both ways to a core dump are closed: the limit holds also for programs that this one might start, and a
/// process that is not dumpable writes none even through a kernel pipe handler, which ignores the limit.
///
/// # Errors
/// When the kernel refuses; the daemon does not run without it.
pub(crate) fn harden() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Keeps the memory of the process out of swap space: keys and passwords pass through stacks, buffers and
/// the heap, so single pages would not be enough. Pages are locked when they are first used; nothing is
/// made resident that would not be.
///
/// Only without a limit on locked memory: with one, the kernel refuses new memory as soon as the limit is
/// reached, and the process would end in the middle of its work. No limit comes from the service manager
/// (`LimitMEMLOCK=infinity`) or from a privilege; a process without either goes on as it is.
///
/// # Errors
/// When memory cannot be locked. The daemon goes on and says so once.
pub(crate) fn keep_out_of_swap() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_some() {
        // As far as we may: to the hard limit, or past it with the privilege for that.
        let unlimited = Rlimit { current: None, maximum: None };
        if setrlimit(Resource::Memlock, unlimited).is_err() {
            let (soft, hard) = (limit.current.unwrap_or(0), limit.maximum);
            return Err(io::Error::other(match hard {
                None => format!("the limit on locked memory is {soft} bytes and cannot be raised"),
                Some(hard) => format!("the limit on locked memory is {hard} bytes"),
            }));
        }
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    /// Bytes of this process's memory in one line of its status.
    fn status(name: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn locks_memory_without_making_it_resident_or_says_why_not() {
        let before = status("VmRSS:");
        match keep_out_of_swap() {
            Ok(()) => {
                // Address space, not memory: a gigabyte of it may be taken without using any.
                let space = Vec::<u8>::with_capacity(1 << 30);
                assert!(space.capacity() >= 1 << 30);
                assert!(status("VmLck:") >= 1 << 30, "new memory is locked too");
                assert!(status("VmRSS:") < before + (64 << 20), "but not made resident");
            }
            Err(error) => {
                assert!(error.to_string().contains("limit on locked memory"), "{error}");
                assert_eq!(status("VmLck:"), 0);
                // And memory can still be had, as much as before.
                assert!(Vec::<u8>::with_capacity(1 << 30).capacity() >= 1 << 30);
            }
        }
    }

    #[test]
    fn closes_new_files_core_dumps_and_debuggers() {
        harden().unwrap();
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
