//! Used PoDLE commitments on the disk (`spec/roles.md` 4.4, 4.5, 9, 10): one for all wallets of a data directory, because
//! a commitment that one of them answered must not be answered by another.
//!
//! `cmtdata/commitmentlist` holds those that we answered with our coins, one line of 64 hex digits each, durable before
//! the coins are told. It is the reference's file: one that it left behind is read as it is. `cmtdata/commitmentlist.heard`
//! holds what strangers published, written lazily and bounded: the oldest go first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use joinery_proto::blacklist::{CommitmentBlacklist, MAX_FOREIGN};
use joinery_proto::podle::Commitment;

use crate::store::replace_file;
use crate::types::Network;

/// A line: 64 digits and its end.
const LINE: u64 = 65;
/// Lines of strangers that are appended before the file is cut to [`MAX_FOREIGN`] again.
const SLACK: u64 = 100_000;
/// Largest file that is read, bytes: two million commitments.
const MAX_FILE: u64 = 2_000_000 * LINE;

/// The two lists of a data directory.
#[derive(Debug)]
pub struct Commitments {
    own: PathBuf,
    heard: PathBuf,
    turn: Mutex<()>,
}

impl Commitments {
    /// The lists of a network in a data directory; the files are made when something is to be written.
    ///
    /// # Errors
    /// When the directory `cmtdata` cannot be made.
    pub fn open(data_dir: &Path, network: Network) -> io::Result<Self> {
        let directory = data_dir.join("cmtdata");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let name = match network {
            Network::Mainnet => "commitmentlist".to_owned(),
            other => format!("{other}_commitmentlist"),
        };
        let own = directory.join(&name);
        Ok(Self { own, heard: directory.join(format!("{name}.heard")), turn: Mutex::default() })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a commitment as used by us. Durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written: then nothing may be told for it.
    pub fn burn(&self, commitment: Commitment) -> io::Result<()> {
        let _turn = self.turn();
        let fresh = !self.own.exists();
        let file = append(&self.own, commitment)?;
        file.sync_data()?;
        if fresh && let Some(directory) = self.own.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// Notes a commitment that somebody published. It may be lost in a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, commitment: Commitment) -> io::Result<()> {
        let _turn = self.turn();
        let mut file = append(&self.heard, commitment)?;
        let most = u64::try_from(MAX_FOREIGN).unwrap_or(u64::MAX).saturating_add(SLACK);
        if file.seek(SeekFrom::End(0))? > most.saturating_mul(LINE) {
            self.cut()?;
        }
        Ok(())
    }

    /// Keeps the newest of what strangers published.
    fn cut(&self) -> io::Result<()> {
        let known = read(&self.heard)?;
        let kept = known.get(known.len().saturating_sub(MAX_FOREIGN)..).unwrap_or_default();
        let mut text = String::new();
        for commitment in kept {
            text.push_str(&commitment.to_string());
            text.push('\n');
        }
        replace_file(&self.heard.with_extension("new"), &self.heard, text.as_bytes())
    }

    /// Everything that was used, for a maker that starts. Reads both files; lines that are no commitment are passed over.
    ///
    /// # Errors
    /// When a file is there and cannot be read: a maker without its list would answer a commitment twice.
    pub fn blacklist(&self) -> io::Result<CommitmentBlacklist> {
        let _turn = self.turn();
        let mut blacklist = CommitmentBlacklist::default();
        for commitment in read(&self.own)? {
            blacklist.use_up(commitment);
        }
        for commitment in read(&self.heard)? {
            blacklist.seen(commitment);
        }
        Ok(blacklist)
    }
}

/// Appends a line; before it the end of a line that a power cut tore off.
fn append(path: &Path, commitment: Commitment) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut line = String::new();
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.push('\n');
        }
    }
    line.push_str(&commitment.to_string());
    line.push('\n');
    file.write_all(line.as_bytes())?;
    Ok(file)
}

/// The commitments of a file, in order; none where there is no file. Of one that is too large the newest.
fn read(path: &Path) -> io::Result<Vec<Commitment>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_FILE)))?;
    let mut known = Vec::new();
    for line in BufReader::new(file.take(MAX_FILE)).split(b'\n') {
        let line = line?;
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
        if let Ok(commitment) = Commitment::from_hex(text) {
            known.push(commitment);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn commitment(number: u8) -> Commitment {
        Commitment::from_bytes([number; 32])
    }

    #[test]
    fn used_commitments_are_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Commitments::open(dir.path(), Network::Mainnet).unwrap();
        open().burn(commitment(1)).unwrap();
        open().remember(commitment(2)).unwrap();
        let blacklist = open().blacklist().unwrap();
        assert!(blacklist.refuses(&commitment(1)) && blacklist.refuses(&commitment(2)));
        assert!(!blacklist.refuses(&commitment(3)));
        let path = dir.path().join("cmtdata/commitmentlist");
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", "01".repeat(32)));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Another chain has its own.
        let regtest = Commitments::open(dir.path(), Network::Regtest).unwrap();
        assert!(!regtest.blacklist().unwrap().refuses(&commitment(1)));
    }

    #[test]
    fn torn_and_foreign_lines_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let commitments = Commitments::open(dir.path(), Network::Mainnet).unwrap();
        let path = dir.path().join("cmtdata/commitmentlist");
        let text =
            format!("{}\r\n\nnonsense\n{}\n{}", "AB".repeat(32), "02".repeat(32), "03".repeat(20));
        fs::write(&path, text).unwrap();
        commitments.burn(commitment(4)).unwrap();
        let blacklist = commitments.blacklist().unwrap();
        for number in [0xab, 2, 4] {
            assert!(blacklist.refuses(&commitment(number)), "{number}");
        }
        assert!(!blacklist.refuses(&commitment(3)));
        assert!(fs::read_to_string(&path).unwrap().ends_with(&format!("\n{}\n", "04".repeat(32))));
    }

    #[test]
    fn an_unreadable_list_is_no_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        let commitments = Commitments::open(dir.path(), Network::Mainnet).unwrap();
        fs::create_dir(dir.path().join("cmtdata/commitmentlist")).unwrap();
        assert!(commitments.blacklist().is_err());
        assert!(commitments.burn(commitment(1)).is_err());
    }
}
