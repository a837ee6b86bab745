//! The store of the daemon: journal, database and snapshot file put together.
//!
//! The journal decides what the facts are; the database holds a second copy of them, the log of chain
//! changes and the statuses; the snapshot file holds the merged chain data. Each of the three may be lost
//! or damaged without losing what the others hold. Nothing damaged is deleted: it is renamed to
//! `.corrupt-SECONDS`. One advisory lock (released by the kernel when the process ends in any way) keeps
//! a second opener out.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bdk_wallet::bitcoin::ScriptBuf;
use rustix::fs::{FlockOperation, flock};

use super::chain_log::ChainLog;
use super::disk::{Disk, RealDisk, corrupt_name, io_error, with_suffix};
use super::fact_table::{self, Identity};
use super::journal::{self, Condition, Journal};
use super::seal::Keys;
use super::sled_store::{Database, OpenFailure};
use super::snapshot_file::{self, Loaded, Owner};
use super::{ChainData, Fact, Facts, Statuses, Store, StoreError, StorePaths};
use crate::chain::StatusHash;

/// Rounds that are over and wait to be forgotten: more make it worth to write the journal anew. Each takes some 9 kB of
/// memory, here and in the database.
const OLD_ROUNDS: usize = 50;

/// Facts that are noted and wait for a disk that takes nothing: more are written by the next rotation, in as many records
/// as it takes. They must fit into one record otherwise.
const MANY_NOTED: usize = 1_000;

/// Opens the store of one wallet, creating what does not exist.
///
/// `dek` is the data key from the wallet file. Blocks for file I/O; a wallet with 20 000 transactions
/// takes some hundred milliseconds of a desktop core.
///
/// # Errors
/// * [`StoreError::InUse`]: another process, or another open wallet of this one, has the files.
/// * [`StoreError::WrongKey`], [`StoreError::Newer`]: intact files that are not for us; nothing changed.
/// * [`StoreError::Io`]: the file system refused (full, read-only); nothing was given up.
///
/// Damaged files are no error: they are set aside and what they held is rebuilt; then
/// [`Store::recovered_from_loss`] is true.
#[allow(clippy::needless_pass_by_value, reason = "the contract between the crates")]
pub fn open(paths: StorePaths, dek: &[u8; 32]) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(DurableStore::open(&paths, dek, Arc::new(RealDisk))?))
}

/// Renames whatever files a store left at these paths to `.corrupt-SECONDS`: for a new wallet that gets
/// the name of one whose key file is gone.
///
/// # Errors
/// [`StoreError::InUse`] when a store is open there; [`StoreError::Io`] when renaming fails.
pub fn set_aside(paths: &StorePaths) -> Result<(), StoreError> {
    let _lock = lock(paths)?;
    for path in [&paths.db, &paths.journal, &paths.snapshot] {
        if RealDisk.exists(path) {
            rename_aside(&RealDisk, path)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct DurableStore {
    paths: StorePaths,
    disk: Arc<dyn Disk>,
    keys: Arc<Keys>,
    facts: Facts,
    /// Part of `facts`, and in neither file yet.
    noted: Vec<Fact>,
    journal: Journal,
    db: Database,
    /// Present after the chain data was loaded.
    log: Option<ChainLog>,
    // Last, so that it is released after everything else is closed.
    _lock: File,
}

fn lock(paths: &StorePaths) -> Result<File, StoreError> {
    let path = with_suffix(&paths.journal, ".lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path }),
        Err(error) => Err(io_error("lock", &path)(error.into())),
    }
}

fn rename_aside(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let aside = corrupt_name(disk, path);
    tracing::warn!(from = %path.display(), to = %aside.display(), "set wallet data aside");
    disk.rename(path, &aside).map_err(io_error("set aside", path))?;
    disk.sync_parent(path).map_err(io_error("sync directory of", path))
}

/// The database after everything unusable was set aside.
struct OpenedDb {
    db: Database,
    /// It holds nothing yet, not even its identity.
    fresh: bool,
    /// Something was set aside.
    replaced: bool,
}

fn open_db(path: &Path, keys: &Keys, key_proven: bool) -> Result<OpenedDb, StoreError> {
    let mut replaced = false;
    // Each round either returns or sets the directory aside, after which it is empty.
    for _ in 0..2 {
        let reason = match Database::open(path) {
            Ok(mut db) => match fact_table::identity(&mut db, keys) {
                Ok(Identity::Ours) => return Ok(OpenedDb { db, fresh: false, replaced }),
                Ok(Identity::Fresh) => return Ok(OpenedDb { db, fresh: true, replaced }),
                Ok(Identity::Foreign) if !key_proven => {
                    return Err(StoreError::WrongKey { path: path.to_path_buf() });
                }
                Ok(Identity::Foreign) => "it belongs to another wallet".to_owned(),
                Ok(Identity::Unknown) => "its identity is missing".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(OpenFailure::Environment(error)) => return Err(error),
            Err(OpenFailure::Damaged(reason)) => reason,
        };
        tracing::warn!(%reason, "the wallet database is damaged; it will be rebuilt");
        rename_aside(&RealDisk, path)?;
        replaced = true;
    }
    Err(StoreError::Database("a new database does not open".into()))
}

impl DurableStore {
    pub(super) fn open(
        paths: &StorePaths,
        dek: &[u8; 32],
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let lock = lock(paths)?;
        let keys = Arc::new(Keys::derive(dek));
        let mut reading = journal::read(disk.as_ref(), &paths.journal, &keys)?;
        if reading.condition == Condition::Foreign {
            return Err(StoreError::WrongKey { path: paths.journal.clone() });
        }
        let snapshot = snapshot_file::owner(disk.as_ref(), &paths.snapshot, &keys)?;
        let key_proven = reading.authentic || snapshot == Owner::Ours;
        if snapshot == Owner::Foreign && !key_proven {
            return Err(StoreError::WrongKey { path: paths.snapshot.clone() });
        }
        if reading.condition == Condition::Missing
            && snapshot == Owner::Missing
            && !RealDisk.exists(&paths.db)
        {
            // A new wallet. The journal comes first: from now on a missing journal is a lost one.
            let keys = Arc::clone(&keys);
            Journal::resume(Arc::clone(&disk), &paths.journal, keys, &mut reading)?;
            reading = journal::read(disk.as_ref(), &paths.journal, &Keys::derive(dek))?;
        }
        let OpenedDb { mut db, fresh, replaced } = open_db(&paths.db, &keys, key_proven)?;
        let head = fact_table::head(&mut db, &keys)?;

        let last = reading.last_number();
        let journal_lost = match reading.condition {
            Condition::Sound => head > last,
            Condition::Missing | Condition::Damaged | Condition::Foreign => true,
        };
        let lost = journal_lost || replaced || (fresh && last > 0);
        let mut facts = Facts::default();
        let mut to_table = Vec::new();
        let mut journal = if journal_lost {
            tracing::warn!(last, head, "the facts journal is damaged; rebuilt from what is left");
            let table = fact_table::all(&mut db, &keys)?;
            let records = std::mem::take(&mut reading.records);
            fact_table::join(records, table).iter().for_each(|fact| facts.apply(fact));
            facts.apply(&Fact::StateLost);
            if reading.condition != Condition::Missing {
                let aside = corrupt_name(disk.as_ref(), &paths.journal);
                disk.keep_copy(&paths.journal, &aside)
                    .map_err(io_error("copy aside", &paths.journal))?;
            }
            let next = last.max(head) + 1;
            let keys = Arc::clone(&keys);
            Journal::replace(Arc::clone(&disk), &paths.journal, keys, &reading, next, &facts)?
        } else {
            for record in std::mem::take(&mut reading.records) {
                record.facts.iter().for_each(|fact| facts.apply(fact));
                if record.number > head {
                    to_table.push(record);
                }
            }
            let keys = Arc::clone(&keys);
            let disk = Arc::clone(&disk);
            Journal::resume(disk, &paths.journal, keys, &mut reading)?
        };
        if lost && !facts.state_lost {
            journal.append(&[Fact::StateLost], &facts)?;
            facts.apply(&Fact::StateLost);
        }
        if lost {
            fact_table::put(&mut db, &keys, journal.last_number(), &facts.unfold())?;
        } else {
            for record in to_table {
                fact_table::put(&mut db, &keys, record.number, &record.facts)?;
            }
        }
        if fresh {
            // After the loss is in the journal: until then the database counts as new.
            fact_table::claim(&mut db, &keys)?;
        } else if lost {
            db.commit()?;
        }
        let (paths, keys) = (paths.clone(), Arc::clone(&keys));
        Ok(Self {
            paths,
            disk,
            keys,
            facts,
            noted: Vec::new(),
            journal,
            db,
            log: None,
            _lock: lock,
        })
    }

    /// Whether the journal is much longer than it must be, or many rounds are to be forgotten with the next rotation, or too
    /// much waits to be written.
    fn wants_rotation(&self) -> bool {
        self.journal.wants_rotation()
            || self.noted.len() > MANY_NOTED
            || self.facts.old_rounds().count() > OLD_ROUNDS
    }

    /// Makes facts durable together with what is noted.
    fn write(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        let noted = self.noted.len();
        // Where the journal is written anew first, that has what is noted, too: folded in twice it is the same.
        self.noted.extend_from_slice(facts);
        if let Err(error) = self.journal.append(&self.noted, &self.facts) {
            self.noted.truncate(noted);
            return Err(error);
        }
        facts.iter().for_each(|fact| self.facts.apply(fact));
        let written = std::mem::take(&mut self.noted);
        // From here on the facts are durable and the answer is yes. A database that fails is noticed by
        // its next user, and the next opening brings it up to date.
        let number = self.journal.last_number();
        if let Err(error) = fact_table::put(&mut self.db, &self.keys, number, &written) {
            tracing::warn!(%error, "facts are in the journal only");
        }
        Ok(())
    }

    fn log(&mut self) -> Result<(&mut ChainLog, &mut Database), StoreError> {
        if self.log.is_none() {
            self.load_chain()?;
        }
        match &mut self.log {
            Some(log) => Ok((log, &mut self.db)),
            None => Err(StoreError::Database("chain data is not loaded".into())),
        }
    }
}

impl Store for DurableStore {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn record(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        self.write(facts)
    }

    fn note(&mut self, facts: &[Fact]) {
        facts.iter().for_each(|fact| self.facts.apply(fact));
        self.noted.extend_from_slice(facts);
    }

    fn load_chain(&mut self) -> Result<(ChainData, Statuses), StoreError> {
        let disk = self.disk.as_ref();
        let (through, mut data, size) =
            match snapshot_file::load(disk, &self.paths.snapshot, &self.keys)? {
                Loaded::Missing => (0, ChainData::default(), 0),
                Loaded::Data { through, chain, size } => (through, *chain, size),
                Loaded::Foreign | Loaded::Damaged => {
                    rename_aside(disk, &self.paths.snapshot)?;
                    (0, ChainData::default(), 0)
                }
            };
        let (log, statuses, incomplete) =
            ChainLog::load(&mut self.db, &self.keys, through, size, &mut data)?;
        if incomplete {
            tracing::warn!("stored chain data is incomplete; the rest will be fetched again");
        }
        self.log = Some(log);
        Ok((data, statuses))
    }

    fn append_chain(
        &mut self,
        change: &ChainData,
        statuses: &[(ScriptBuf, Option<StatusHash>)],
    ) -> Result<(), StoreError> {
        let keys = Arc::clone(&self.keys);
        let (log, db) = self.log()?;
        log.append(db, &keys, change, statuses)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.db.commit()
    }

    fn wants_compaction(&self) -> bool {
        self.log.as_ref().is_some_and(ChainLog::wants_compaction) || self.wants_rotation()
    }

    fn compact(&mut self, merged: &ChainData) -> Result<(), StoreError> {
        let through = self.log()?.0.last();
        let disk = Arc::clone(&self.disk);
        let path = self.paths.snapshot.clone();
        let size = snapshot_file::write(disk.as_ref(), &path, &self.keys, through, merged)?;
        let (log, db) = self.log()?;
        log.compacted(db, size)?;
        self.db.commit()?;
        if self.wants_rotation() {
            let forgotten = self.facts.forget_rounds();
            self.journal.rotate(&self.facts)?;
            let number = self.journal.last_number();
            let written = std::mem::take(&mut self.noted);
            fact_table::put(&mut self.db, &self.keys, number, &written)?;
            if forgotten > 0 {
                let rounds = &self.facts.rounds;
                fact_table::forget(&mut self.db, &self.keys, |id| rounds.contains_key(&id))?;
            }
        }
        Ok(())
    }

    fn recovered_from_loss(&self) -> bool {
        self.facts.state_lost
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        // Nobody was told of it, so that only the list of rounds would miss it.
        if !self.noted.is_empty()
            && let Err(error) = self.write(&[])
        {
            tracing::debug!(%error, "what was noted last is lost");
        }
        // What was appended last would only be fetched again; so a failure is worth no more than a line.
        if let Err(error) = self.db.commit() {
            tracing::debug!(%error, "the wallet database was closed without a last commit");
        }
    }
}
