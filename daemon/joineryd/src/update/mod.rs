//! `joineryd update …`: the root side of updates of the box (`docs/updates.md`).
//!
//! Verifying a bundle and writing it to a slot is RAUC's doing. What is decided here: which bundle is handed to RAUC (a
//! copy that nobody else can write to), that none is older than the system that runs, when a new system counts as good,
//! and what the daemon may tell of all this. The configuration of the daemon is not read: its user may write to it.

mod inbox;
mod rauc;
mod version;

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use joinery_api::{INSTALL, MAX_BUNDLE, REPORT, RESTART, UpdateOutcome, UpdateReport, UpdateState};
use rustix::fs::OFlags;

use crate::cli::Options;
use crate::config::UPDATE_DIR;
use crate::durable::sync_directory;
use crate::exit::{Exit, Failure, OrExit};
use crate::health;
use inbox::Inbox;
use version::Version;

/// Directory of the daemon in its data directory where bundles and requests are put.
pub(crate) const INBOX: &str = "update";

/// The data directory of the box.
const DATA: &str = "/var/lib/joinery";
/// Directory of the page that asks for the password of an encrypted volume.
const KEY_PAGE: &str = "/var/lib/joinery-key";
/// Where a system says which it is; `IMAGE_VERSION` counts.
const OS_RELEASE: &str = "/usr/lib/os-release";
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(2);

/// The machine as the root side sees it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Data directory of the daemon.
    data: PathBuf,
    /// Ours alone; the daemon may read the report in it.
    own: PathBuf,
    /// Version of the system that runs.
    version: String,
}

/// Why a bundle is not installed.
struct Refused {
    code: &'static str,
    reason: String,
    version: Option<String>,
}

impl Refused {
    fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), version: None }
    }
}

impl Machine {
    /// With the directories of the command line, or those of the box.
    ///
    /// # Errors
    /// On a system that does not say its version: it is not one of ours.
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let release = std::fs::read_to_string(OS_RELEASE).unwrap_or_default();
        let version = image_version(&release).context(
            "this system is no image of Joinery (no IMAGE_VERSION in os-release): update it by its packages",
        )?;
        Ok(Self {
            data: options.data_dir.clone().unwrap_or_else(|| DATA.into()),
            own: options.update_dir.clone().unwrap_or_else(|| UPDATE_DIR.into()),
            version,
        })
    }

    /// Installs a bundle that somebody on the box has named.
    ///
    /// # Errors
    /// When it is not installed; the report has the reason, too.
    pub(crate) fn install_file(&self, file: &Path, force: bool) -> Result<String, Failure> {
        let _alone = self.alone()?;
        let mut report = self.report().or_exit(Exit::Unavailable)?;
        let outcome = self
            .copy(|copy| {
                let bundle = File::open(file)?;
                if bundle.metadata()?.len() > MAX_BUNDLE {
                    return Err(io::Error::other("it is larger than 512 MiB"));
                }
                io::copy(&mut &bundle, copy).map(drop)
            })
            .and_then(|copy| self.install(&mut report, &copy, force));
        self.finish(report, outcome)
    }

    /// Does what the daemon asked for.
    ///
    /// # Errors
    /// When that failed; the report has the reason, too.
    pub(crate) fn requested(&self) -> Result<String, Failure> {
        let _alone = self.alone()?;
        let mut report = self.report().or_exit(Exit::Unavailable)?;
        let inbox =
            Inbox::open(&self.data, INBOX).context("the inbox").or_exit(Exit::DataDirectory)?;
        let Some(inbox) = inbox else { return Ok("nothing was asked for\n".to_owned()) };
        let taken = |name| inbox.take(name).context(name).or_exit(Exit::DataDirectory);
        // Requests go first, so that what fails is not tried again and again.
        let (install, restart) = (taken(INSTALL)?, taken(RESTART)?);
        if install {
            let outcome = self
                .copy(|copy| inbox.take_bundle(copy))
                .and_then(|copy| self.install(&mut report, &copy, false));
            return self.finish(report, outcome);
        }
        if restart && report.state == UpdateState::RestartNeeded {
            reboot()?;
            return Ok("restarting\n".to_owned());
        }
        Ok("nothing was asked for\n".to_owned())
    }

    /// After a start: decides about the system that runs.
    ///
    /// # Errors
    /// When the new system is not healthy: the box is restarting then.
    pub(crate) fn confirm(&self, patience: Duration) -> Result<String, Failure> {
        let mut report = self.report().or_exit(Exit::Unavailable)?;
        let good = || rauc::mark_good().map_err(|error| anyhow!(error)).or_exit(Exit::Unavailable);
        let started_anew = report.boot_id != boot_id();
        let on_trial = report.next_slot.as_deref() == Some(&*report.slot);
        match report.state {
            UpdateState::Idle => {
                // A slot that was found good once stays good: a wrong setting must not send the box to an old system.
                good()?;
                self.write(&report).or_exit(Exit::DataDirectory)?;
                return Ok(format!("version {} in slot {}\n", report.version, report.slot));
            }
            _ if !started_anew => return Ok("an update waits for a restart\n".to_owned()),
            _ => {}
        }
        let next = report.next_version.clone();
        if on_trial {
            if let Err(error) = self.wait_for_health(patience) {
                // The boot loader counts the tries; the third that fails brings the old slot back.
                reboot()?;
                let text = "the daemon of the new system is not healthy; restarting";
                return Err(Failure::new(Exit::Unavailable, anyhow!(error).context(text)));
            }
            good()?;
            let reason = "the new system runs and its daemon answers";
            self.end(&mut report, true, "updated", reason.to_owned(), next);
        } else {
            good()?;
            let (code, reason) = if report.state == UpdateState::Installing {
                ("interrupted", "the power went while it was written; nothing has changed")
            } else {
                (
                    "fell_back",
                    "the new system did not become healthy in three tries; the old one runs",
                )
            };
            self.end(&mut report, false, code, reason.to_owned(), next);
        }
        self.write(&report).or_exit(Exit::DataDirectory)?;
        let said = report.last.map(|last| format!("{}: {}\n", last.code, last.reason));
        Ok(said.unwrap_or_default())
    }

    /// One installation at a time; the kernel lets go of the lock however the process ends.
    fn alone(&self) -> Result<File, Failure> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.own)
            .or_exit(Exit::DataDirectory)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.own.join("lock")).or_exit(Exit::DataDirectory)?;
        file.try_lock().context("another update is under way").or_exit(Exit::Busy)?;
        Ok(file)
    }

    /// Waits for the daemon. When it cannot run because the volume is closed (`joineryd key-page`), and nobody has typed the
    /// password until the time is over, the page that asks for it is what counts: the box is not to give up a system because
    /// its owner is away. When somebody has, the daemon has the whole time from then on.
    fn wait_for_health(&self, patience: Duration) -> Result<(), String> {
        let whole = Instant::now() + patience;
        let mut end = whole;
        loop {
            let problem = match answering(&self.data) {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if answering(Path::new(KEY_PAGE)).is_ok() {
                if Instant::now() >= whole {
                    return Ok(());
                }
                end = Instant::now() + patience;
            }
            if Instant::now() >= end {
                return Err(problem);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The report, brought to what runs now.
    fn report(&self) -> anyhow::Result<UpdateReport> {
        let slots = rauc::slots().map_err(|error| anyhow!(error))?;
        let mut report = UpdateReport::read(&self.own).unwrap_or_default();
        report.version.clone_from(&self.version);
        report.slot = slots.booted;
        Ok(report)
    }

    /// Makes a copy of a bundle in a directory that only we can write to.
    fn copy(&self, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<Copied, Refused> {
        let failed = |error: io::Error| {
            Refused::new("bundle_unreadable", format!("the bundle cannot be taken: {error}"))
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.own).map_err(failed)?;
        let path = self.own.join("bundle.raucb");
        // Left by a run that was cut off.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(flags);
        let mut file = options.open(&path).map_err(failed)?;
        let copied = Copied(path);
        fill(&mut file).map_err(failed)?;
        Ok(copied)
    }

    /// Verifies and installs a copy.
    fn install(
        &self,
        report: &mut UpdateReport,
        bundle: &Copied,
        force: bool,
    ) -> Result<String, Refused> {
        let manifest =
            rauc::info(&bundle.0).map_err(|reason| Refused::new("bundle_invalid", reason))?;
        let version = manifest.version;
        let refused = |code, reason| Refused { code, reason, version: Some(version.clone()) };
        if !force {
            self.not_older(&version).map_err(|(code, reason)| refused(code, reason))?;
        }
        let slots = rauc::slots().map_err(|reason| refused("install_failed", reason))?;
        // Before a byte is written: whatever happens from here on, the next start knows of it.
        report.state = UpdateState::Installing;
        report.next_version = Some(version.clone());
        report.next_slot = Some(slots.other);
        report.boot_id = boot_id();
        self.write(report).map_err(|error| refused("storage_failed", error.to_string()))?;
        rauc::install(&bundle.0).map_err(|reason| refused("install_failed", reason))?;
        report.state = UpdateState::RestartNeeded;
        Ok(format!("version {version} is installed and used from the next start on\n"))
    }

    fn not_older(&self, version: &str) -> Result<(), (&'static str, String)> {
        let parse = |text: &str| {
            let unreadable = |error| ("version_unreadable", format!("{text:?} is {error}"));
            text.parse::<Version>().map_err(unreadable)
        };
        let (new, running) = (parse(version)?, parse(&self.version)?);
        if new < running {
            let reason = format!("version {version} is older than {}, which runs", self.version);
            return Err(("downgrade_refused", reason));
        }
        Ok(())
    }

    /// Writes the report of an installation that is over.
    fn finish(
        &self,
        mut report: UpdateReport,
        outcome: Result<String, Refused>,
    ) -> Result<String, Failure> {
        let said = outcome.map_err(|refused| {
            let cause = anyhow!("{}: {}", refused.code, refused.reason);
            self.end(&mut report, false, refused.code, refused.reason, refused.version);
            Failure::new(Exit::Unavailable, cause)
        });
        self.write(&report).context("the report").or_exit(Exit::DataDirectory)?;
        said
    }

    fn end(
        &self,
        report: &mut UpdateReport,
        ok: bool,
        code: &str,
        reason: String,
        version: Option<String>,
    ) {
        // A bundle that was refused before anything was written changes nothing about one that waits for a restart.
        if report.state != UpdateState::RestartNeeded || report.boot_id != boot_id() {
            report.state = UpdateState::Idle;
            report.next_version = None;
            report.next_slot = None;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = now.map_or(0, |now| now.as_secs());
        report.last = Some(UpdateOutcome { ok, code: code.to_owned(), reason, version, at });
    }

    /// Writes the report, readable by everybody, so that a power cut leaves the old or the new one.
    fn write(&self, report: &UpdateReport) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.own)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.own)?;
        file.write_all(&serde_json::to_vec(report)?)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(self.own.join(REPORT)).map_err(|error| error.error)?;
        sync_directory(&self.own)
    }
}

/// A copy of a bundle; removed when it is no longer needed.
struct Copied(PathBuf);

impl Drop for Copied {
    fn drop(&mut self) {
        // What cannot be removed now is removed before the next copy.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether our own version answers for this directory.
fn answering(directory: &Path) -> Result<(), String> {
    match health::check(directory) {
        Ok(healthy) if healthy.version == env!("CARGO_PKG_VERSION") => Ok(()),
        Ok(healthy) => Err(format!("version {} answers", healthy.version)),
        Err(error) => Err(error.to_string()),
    }
}

/// `IMAGE_VERSION` of an os-release file.
fn image_version(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    Some(value.trim_matches('"').to_owned()).filter(|version| !version.is_empty())
}

/// The kernel's name for this run of the machine.
fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

fn reboot() -> Result<(), Failure> {
    let status = Command::new("systemctl").args(["--no-block", "reboot"]).status();
    match status.context("systemctl cannot be run").or_exit(Exit::Unavailable)? {
        status if status.success() => Ok(()),
        status => Err(Failure::new(Exit::Unavailable, anyhow!("systemctl reboot: {status}"))),
    }
}
