//! The income statement: `logs/yigen-statement.csv` (`spec/roles.md` 4.9), one row for each coinjoin of ours as a maker
//! that a block holds, whenever that is, and one for each start of a maker.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use joinery_api::AppState;
use joinery_roles::maker::statement::{HEADER, connected, earned};
use joinery_wallet::round::{Round, RoundEvent, RoundRole};
use joinery_wallet::service::{RoundError, WalletHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::durable;

/// How often it is looked for rounds that are to be accounted for.
const LOOK: Duration = Duration::from_secs(2);
/// How much of the end of the file is searched for a row that a power cut left unmarked, bytes.
const TAIL: u64 = 64 << 10;

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    path: Arc<Path>,
}

impl Statement {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: path.into() }
    }

    /// A maker starts, at seconds since epoch.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) async fn connected(&self, now: u64) -> io::Result<()> {
        let path = Arc::clone(&self.path);
        blocking(move || append(&path, &connected(now), false)).await
    }

    /// Writes the row of a round, once.
    async fn account(&self, round: &Round) -> io::Result<()> {
        let Some((_, confirmed)) = round.confirmed else { return Ok(()) };
        let text = earned(&round.sums, round.seen.map(|(_, time)| time), confirmed);
        let path = Arc::clone(&self.path);
        blocking(move || append(&path, &text, true)).await
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Appends a line with its end, durably, after the header. `once`: not if it is among the last ones already.
fn append(path: &Path, line: &str, once: bool) -> io::Result<()> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut text = String::new();
    if length == 0 {
        text.push_str(HEADER);
    } else {
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(TAIL).read_to_end(&mut tail)?;
        if once
            && tail.split(|byte| *byte == b'\n').any(|known| known == line.trim_end().as_bytes())
        {
            return Ok(());
        }
        // A line that a power cut left without its end.
        if tail.last() != Some(&b'\n') {
            text.push('\n');
        }
    }
    text.push_str(line);
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    if length == 0
        && let Some(directory) = path.parent()
    {
        durable::sync_directory(directory)?;
    }
    Ok(())
}

/// Writes a row for each round that is due, whether a maker runs or not.
#[derive(Debug)]
pub(crate) struct Bookkeeper {
    statement: Statement,
}

impl Bookkeeper {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { statement: Statement::new(path) }
    }

    /// Runs until `stop` is cancelled.
    ///
    /// # Errors
    /// Never; for the supervisor.
    pub(crate) async fn run(self, app: Arc<AppState>, stop: CancellationToken) -> io::Result<()> {
        // A disk that refuses is complained of once.
        let mut complained = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(LOOK) => {}
            }
            let Some(wallet) = app.wallet() else { continue };
            let failed = self.look(&wallet).await.err();
            if let Some(error) = failed.as_ref().filter(|_| !complained) {
                tracing::warn!(%error, "the income statement cannot be written");
            }
            complained = failed.is_some();
        }
    }

    async fn look(&self, wallet: &WalletHandle) -> anyhow::Result<()> {
        for round in wallet.rounds().iter() {
            let due = round.begin.role == RoundRole::Maker && !round.accounted;
            if !due || round.confirmed.is_none() {
                continue;
            }
            self.statement.account(round).await?;
            match wallet.record_round(round.id, RoundEvent::Accounted).await {
                Ok(()) | Err(RoundError::Closed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn rows_are_appended_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("yigen-statement.csv");
        append(&path, "one\n", true).unwrap();
        append(&path, "one\n", true).unwrap();
        append(&path, "two\n", false).unwrap();
        append(&path, "two\n", false).unwrap();
        assert_eq!(lines(&path), [HEADER.trim_end(), "one", "two", "two"]);
        // A power cut in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"thr").unwrap();
        append(&path, "three\n", true).unwrap();
        assert_eq!(lines(&path)[4..], ["thr", "three"]);
    }
}
