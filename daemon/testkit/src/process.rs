//! Child processes that cannot outlive the program that started them.
//!
//! Three nets, because a test ends in more than one way: dropping a [`Supervised`] kills and reaps it, also
//! while a panic unwinds; and when the whole program is killed, the kernel kills the children
//! (`PR_SET_PDEATHSIG`, set by `setpriv` of util-linux, which then becomes the child itself, so that the
//! process id is the child's own).

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

/// A running child with its output in a log file.
#[derive(Debug)]
pub struct Supervised {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Supervised {
    /// Starts `program`, appending its stdout and stderr to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or `setpriv` cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "SIGKILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(command).with_context(|| format!("cannot start {name} with setpriv"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Refuses with the end of the log when the child has ended by itself.
    ///
    /// # Errors
    /// When it is not running any more.
    pub fn require_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended ({status}); its log ends with\n{}", self.name, self.log_tail())
            }
        }
    }

    /// Sends a signal; one that comes after the end is ignored.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Not reaped yet (or just now, and then not signalled): the id cannot belong to somebody else.
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), signal)?;
        }
        Ok(())
    }

    /// Asks it to end with SIGTERM, kills it when it has not ended by `deadline`.
    ///
    /// # Errors
    /// When signals cannot be sent. An unpunctual child is killed without an error.
    pub fn terminate(&mut self, deadline: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        // A stopped process does not hear SIGTERM before it goes on.
        self.signal(Signal::CONT)?;
        if !wait_until(deadline, || self.child.try_wait().is_ok_and(|status| status.is_some())) {
            self.kill()?;
        }
        Ok(())
    }

    /// Kills it at once and reaps it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last 30 lines of the log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Already ended is fine, and there is nobody to tell about anything else.
        let _ = self.kill();
    }
}

/// The last lines of a log file, empty when it cannot be read.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

/// A command and where to send what became of it.
type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` from a thread that lives as long as the program.
///
/// The kernel's parent-death signal is about the *thread* that forked: children started by a test's own
/// thread would be killed when that test ends, although another test may share them.
fn spawn(command: Command) -> Result<Child> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        let builder = std::thread::Builder::new().name("bench-starter".into());
        let running = builder.spawn(move || {
            while let Ok((mut command, answer)) = inbox.recv() {
                // The one who asked waits for the answer; when it is gone, dropping the child is all there is to do.
                let _ = answer.send(command.spawn());
            }
        });
        // Without a thread the inbox is gone and the send below reports it.
        drop(running);
        orders
    });
    let (answer, result) = channel();
    starter.send((command, answer)).ok().context("the starter thread is gone")?;
    Ok(result.recv().context("the starter thread is gone")??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::PATIENCE;

    fn alive(id: u32) -> bool {
        // A zombie still has a directory; its state letter says so.
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn dies_when_dropped_during_a_panic() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut id = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let child =
                Supervised::start("sleep", Path::new("sleep"), ["1000"], log.path()).unwrap();
            id = child.id();
            assert!(alive(id));
            std::panic::resume_unwind(Box::new("planned"));
        }));
        assert!(outcome.is_err());
        assert!(!alive(id));
    }

    #[test]
    fn outlives_the_thread_that_started_it() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let path = log.path().to_owned();
        let mut child = std::thread::spawn(move || {
            Supervised::start("sleep", Path::new("sleep"), ["1000"], &path).unwrap()
        })
        .join()
        .unwrap();
        child.require_running().unwrap();
        child.terminate(PATIENCE).unwrap();
        assert!(child.ended().unwrap().is_some());
    }

    #[test]
    fn reports_the_log_of_a_child_that_ended() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child =
            Supervised::start("sh", Path::new("sh"), ["-c", "echo cause; exit 3"], log.path())
                .unwrap();
        assert!(wait_until(PATIENCE, || child.ended().unwrap().is_some()));
        let error = child.require_running().unwrap_err().to_string();
        assert!(error.contains("cause") && error.contains('3'), "{error}");
    }
}
