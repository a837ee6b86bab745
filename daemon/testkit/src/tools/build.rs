//! Running a build step: everything it says goes to a log, a line of it now and then to stderr.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// At most one line of progress in this time.
const QUIET: Duration = Duration::from_secs(5);
/// Lines of the log that an error repeats.
const TAIL: usize = 25;
/// Longest piece of a line that is repeated as progress.
const WIDTH: usize = 100;

/// Tells the person at the terminal something; stdout belongs to the answers of the command.
pub(crate) fn say(text: &str) {
    // Nothing can be done about a closed stderr, and the work goes on without it.
    let _ = writeln!(std::io::stderr(), "regtest: {text}");
}

/// Runs `command` to its end with its output in `log`.
///
/// # Errors
/// When it cannot be started or ends unsuccessfully; the message carries the last lines it printed.
pub(super) fn run(title: &str, command: &Command, log: &mut File) -> Result<()> {
    say(title);
    writeln!(log, "== {title}: {command:?}")?;
    let (reader, writer) = std::io::pipe()?;
    let mut supervised = dying_with_us(command);
    let mut child = supervised
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    // It keeps copies of the writing end; with them the loop below would never see the end.
    drop(supervised);
    let mut tail: VecDeque<String> = VecDeque::with_capacity(TAIL);
    let mut spoke = Instant::now();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(log, "{line}")?;
        if spoke.elapsed() >= QUIET && !line.is_empty() {
            say(&format!("  {}", line.trim_start().chars().take(WIDTH).collect::<String>()));
            spoke = Instant::now();
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait()?;
    if !status.success() {
        let lines: Vec<String> = tail.into();
        bail!("{title}: {status}; its last lines were\n{}", lines.join("\n"));
    }
    Ok(())
}

/// The same command, ended by the kernel when this program is: two builds in one directory spoil it, and the
/// build lock goes away with its holder. The caller must wait for it in the thread that starts it.
fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "SIGTERM", "--"]).arg(command.get_program());
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// A `cargo` that is not disturbed by the one that may be running this program.
pub(super) fn cargo(directory: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(directory);
    for variable in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(variable);
    }
    cargo
}

/// Puts `built` at `destination` without its debugging symbols, by rename, so that a half-written program is
/// never seen under the final name.
pub(super) fn install(built: &Path, destination: &Path) -> Result<()> {
    let directory = destination.parent().context("a program lives in a directory")?;
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".new.{}", std::process::id()));
    std::fs::copy(built, &temporary)
        .with_context(|| format!("the build left no {}", built.display()))?;
    let stripped = Command::new("strip").arg(&temporary).status();
    if !stripped.is_ok_and(|status| status.success()) {
        say("strip did not work; keeping the program with its symbols");
        std::fs::copy(built, &temporary)?;
    }
    File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, destination)?;
    Ok(())
}
