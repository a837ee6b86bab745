//! The key for going on after a power cut, made by the script of our unit and opened by the system's own program, as the
//! service manager does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A machine's sealed key, and the directory that its service manager gives to the daemon.
#[derive(Debug)]
pub struct SealedKey {
    directory: TempDir,
}

impl SealedKey {
    /// A machine on which the unit has run.
    pub fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["state", "given"] {
            std::fs::create_dir(machine.directory.path().join(name)).unwrap();
        }
        machine.run_unit();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the unit runs at each start.
    fn run_unit(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let status = Command::new(root.join("systemd/resume-key"))
            .env("SYSTEMD_CREDENTIAL_SECRET", self.path("secret"))
            .env("STATE_DIRECTORY", self.path("state"))
            .status();
        assert!(status.unwrap().success(), "the key is made; needs systemd-creds of systemd");
        let sealed = self.path("state").join("joinery.resume");
        let status = Command::new("systemd-creds")
            .args(["decrypt", "--name=joinery.resume"])
            .arg(sealed)
            .arg(self.given().join("joinery.resume"))
            .env("SYSTEMD_CREDENTIAL_SECRET", self.path("secret"))
            .status();
        assert!(status.unwrap().success(), "the key opens on its machine");
    }

    /// The card is put into another machine: its key does not open there, and the unit makes another one.
    pub fn move_to_another_machine(&self) {
        std::fs::remove_file(self.path("secret")).unwrap();
        self.run_unit();
    }

    /// For `CREDENTIALS_DIRECTORY`.
    pub fn given(&self) -> PathBuf {
        self.path("given")
    }
}
