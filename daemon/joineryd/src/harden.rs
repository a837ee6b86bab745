//! What the process gives up about itself before it holds any secret.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Makes every new file private to the user, forbids core dumps and attaching debuggers.
///
/// Both ways to a core dump are closed: the limit holds also for programs that this one might start, and a
/// process that is not dumpable writes none even through a kernel pipe handler, which ignores the limit.
///
/// # Errors
/// When the kernel refuses; the daemon does not run without it.
pub(crate) fn harden() -> std::io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

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
