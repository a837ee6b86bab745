//! The daemon's inbox, seen by root: every name in it may have been put there by somebody who has taken the daemon over.
//!
//! Only two names are looked for, nothing is read from them but the bundle's bytes, no link is followed, and what is
//! verified and installed is a copy that the daemon cannot write to, not even through a file that it has open.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use joinery_api::{BUNDLE, MAX_BUNDLE};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, unlinkat};

/// The inbox, if it is there.
#[derive(Debug)]
pub(super) struct Inbox(OwnedFd);

impl Inbox {
    /// Opens the directory `name` of the data directory. `None` when there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn open(data: &Path, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, data, flags, Mode::empty())
            .and_then(|data| openat(&data, name, flags, Mode::empty()));
        match opened {
            Ok(directory) => Ok(Some(Self(directory))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a request; whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed: it would be acted on again and again.
    pub(super) fn take(&self, name: &str) -> io::Result<bool> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies the bundle to a new file and removes it from the inbox.
    ///
    /// # Errors
    /// When it is no ordinary file, too large, or cannot be copied.
    pub(super) fn take_bundle(&self, copy: &mut File) -> io::Result<()> {
        // Not blocking: a pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let bundle = openat(&self.0, BUNDLE, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&bundle)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no ordinary file"));
        }
        // The size is what is read, whatever it was a moment ago.
        let mut bytes = File::from(bundle).take(MAX_BUNDLE + 1);
        if io::copy(&mut bytes, copy)? > MAX_BUNDLE {
            return Err(io::Error::other("it is larger than 512 MiB"));
        }
        copy.sync_all()?;
        self.take(BUNDLE).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn inbox() -> (tempfile::TempDir, Inbox) {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("update")).unwrap();
        let inbox = Inbox::open(data.path(), "update").unwrap().unwrap();
        (data, inbox)
    }

    #[test]
    fn a_bundle_is_copied_and_taken_away() {
        let (data, inbox) = inbox();
        let bundle = data.path().join("update").join(BUNDLE);
        std::fs::write(&bundle, b"bytes").unwrap();
        let mut copy = tempfile::NamedTempFile::new().unwrap();
        inbox.take_bundle(copy.as_file_mut()).unwrap();
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"bytes");
        assert!(!bundle.exists());
    }

    #[test]
    fn links_pipes_and_directories_are_refused_and_nothing_is_read_through_them() {
        let (data, inbox) = inbox();
        let bundle = data.path().join("update").join(BUNDLE);
        let secret = data.path().join("secret");
        std::fs::write(&secret, b"secret").unwrap();
        let refused = |what: &str| {
            let mut copy = tempfile::NamedTempFile::new().unwrap();
            assert!(inbox.take_bundle(copy.as_file_mut()).is_err(), "{what}");
            assert_eq!(copy.as_file().metadata().unwrap().len(), 0, "{what}");
        };
        refused("nothing");
        symlink(&secret, &bundle).unwrap();
        refused("a link");
        std::fs::remove_file(&bundle).unwrap();
        rustix::fs::mknodat(CWD, &bundle, FileType::Fifo, Mode::RWXU, 0).unwrap();
        refused("a pipe");
        std::fs::remove_file(&bundle).unwrap();
        std::fs::create_dir(&bundle).unwrap();
        refused("a directory");
    }

    #[test]
    fn an_inbox_that_is_a_link_is_refused() {
        let data = tempfile::tempdir().unwrap();
        assert!(Inbox::open(data.path(), "update").unwrap().is_none());
        symlink("/etc", data.path().join("update")).unwrap();
        assert!(Inbox::open(data.path(), "update").is_err());
    }

    #[test]
    fn a_request_is_taken_once_and_never_what_it_points_to() {
        let (data, inbox) = inbox();
        let secret = data.path().join("secret");
        std::fs::write(&secret, b"secret").unwrap();
        symlink(&secret, data.path().join("update/install")).unwrap();
        assert!(inbox.take("install").unwrap());
        assert!(!inbox.take("install").unwrap());
        assert!(secret.exists());
    }
}
