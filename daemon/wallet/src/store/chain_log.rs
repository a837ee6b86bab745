//! The log of chain data changes and the status hashes, in the database.
//!
//! Changes are numbered without gaps; the snapshot file holds all up to some number. A status carries the
//! number of the change it was stored with and counts only when the data up to there is complete: a
//! status without its data would keep the wallet from ever fetching that data again.

use bdk_wallet::bitcoin::ScriptBuf;
use bdk_wallet::chain::Merge;

use super::fact_table::{PIECE, Pieces, put_pieces, seal};
use super::seal::Keys;
use super::sled_store::{Change, Database};
use super::{ChainData, Statuses, StoreError};
use crate::chain::StatusHash;

const LOG: &str = "chain log";
const LOG_PREFIX: u8 = b'l';
const STATUS: &str = "status";
const STATUS_PREFIX: u8 = b's';
/// Pieces in one batch: 1 MiB.
const BATCH: usize = 256;
/// Changes in the log that make compaction pay (`spec/wallet.md` 13.4).
const COMPACT_CHANGES: u64 = 1000;
/// Bytes in the log that make it pay.
const COMPACT_BYTES: u64 = 4 << 20;

/// Where the log stands.
#[derive(Debug)]
pub(super) struct ChainLog {
    /// Last change that the snapshot file holds.
    through: u64,
    /// Number of the next change.
    next: u64,
    /// First number that may be in the database.
    bytes: u64,
    snapshot_size: u64,
}

/// Adds a change.
pub(super) fn merge(data: &mut ChainData, change: ChainData) {
    data.chain.merge(change.chain);
    data.graph.merge(change.graph);
    data.pruned.extend(change.pruned);
}

fn log_base(number: u64) -> Vec<u8> {
    let mut base = vec![LOG_PREFIX];
    base.extend_from_slice(&number.to_be_bytes());
    base
}

fn status_key(keys: &Keys, script: &ScriptBuf) -> Vec<u8> {
    let mut key = vec![STATUS_PREFIX];
    key.extend_from_slice(&keys.hide(STATUS, script.as_bytes()));
    key
}

impl ChainLog {
    /// Merges the log onto the snapshot (`through` 0: there is none) and removes from the database what
    /// can no longer count. The flag tells whether anything was missing.
    pub(super) fn load(
        db: &mut Database,
        keys: &Keys,
        through: u64,
        snapshot_size: u64,
        data: &mut ChainData,
    ) -> Result<(Self, Statuses, bool), StoreError> {
        let mut log = Self { through, next: through + 1, bytes: 0, snapshot_size };
        let mut stale = Vec::new();
        let mut pieces = Pieces::default();
        let mut expected = through + 1;
        db.scan(&[LOG_PREFIX], |key, sealed| {
            let number = key.get(1..9).and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes);
            // The scan is in order: everything after the first gap is stale.
            let wanted = number.is_some_and(|number| number > through && number <= expected);
            if !wanted {
                stale.push((key.to_vec(), None));
                return;
            }
            log.bytes += sealed.len() as u64;
            if let Some((_, plain)) = pieces.feed(keys, LOG, key, sealed)
                && number == Some(expected)
                && let Ok(change) = ciborium::from_reader::<ChainData, _>(plain.as_slice())
            {
                merge(data, change);
                expected += 1;
            }
        })?;
        // A last change without its end, from a crash between two batches.
        let unfinished = log_base(expected);
        db.scan(&unfinished, |key, _| stale.push((key.to_vec(), None)))?;
        log.next = expected;

        let mut statuses = Statuses::new();
        let mut incomplete = false;
        db.scan(&[STATUS_PREFIX], |key, sealed| {
            let opened = keys.open(STATUS, key, sealed);
            match opened.as_deref().and_then(parse_status) {
                Some((number, script, hash)) if number < expected => {
                    statuses.insert(script, hash);
                }
                _ => {
                    incomplete = true;
                    stale.push((key.to_vec(), None));
                }
            }
        })?;
        incomplete |= stale.iter().any(|(key, _)| {
            let number = key.get(1..9).and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes);
            key.first() == Some(&LOG_PREFIX) && number.is_some_and(|number| number > expected)
        });
        for changes in stale.chunks(1000) {
            db.apply(changes.to_vec())?;
        }
        Ok((log, statuses, incomplete))
    }

    /// Appends one change and the statuses that it makes true.
    pub(super) fn append(
        &mut self,
        db: &mut Database,
        keys: &Keys,
        change: &ChainData,
        statuses: &[(ScriptBuf, Option<StatusHash>)],
    ) -> Result<(), StoreError> {
        let mut plain = Vec::new();
        ciborium::into_writer(change, &mut plain)
            .map_err(|error| StoreError::Database(error.to_string()))?;
        // Big changes go in several batches. Only the last one has the piece marked as last, and the
        // statuses come with it or after it.
        let mut changes = Vec::new();
        put_pieces(keys, LOG, &log_base(self.next), &plain, &mut changes)?;
        self.bytes += (plain.len() + changes.len() * (super::seal::OVERHEAD + 1)) as u64;
        debug_assert_eq!(changes.len(), plain.len().div_ceil(PIECE).max(1));
        while changes.len() > BATCH {
            let rest = changes.split_off(BATCH);
            db.apply(std::mem::replace(&mut changes, rest))?;
        }
        for (script, status) in statuses {
            changes.push(status_change(keys, self.next, script, status.as_ref())?);
            if changes.len() > 4 * BATCH {
                db.apply(std::mem::take(&mut changes))?;
            }
        }
        db.apply(changes)?;
        self.next += 1;
        Ok(())
    }

    /// Number of the last appended change.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Whether merging everything into the snapshot file pays.
    pub(super) fn wants_compaction(&self) -> bool {
        self.last() - self.through > COMPACT_CHANGES
            || self.bytes > COMPACT_BYTES.max(self.snapshot_size / 2)
    }

    /// The snapshot file now holds everything: empties the log.
    pub(super) fn compacted(
        &mut self,
        db: &mut Database,
        snapshot_size: u64,
    ) -> Result<(), StoreError> {
        self.through = self.last();
        self.bytes = 0;
        self.snapshot_size = snapshot_size;
        let mut stale: Vec<Change> = Vec::new();
        db.scan(&[LOG_PREFIX], |key, _| stale.push((key.to_vec(), None)))?;
        for changes in stale.chunks(1000) {
            db.apply(changes.to_vec())?;
        }
        Ok(())
    }
}

fn status_change(
    keys: &Keys,
    number: u64,
    script: &ScriptBuf,
    status: Option<&StatusHash>,
) -> Result<Change, StoreError> {
    let key = status_key(keys, script);
    let Some(hash) = status else { return Ok((key, None)) };
    let mut plain = number.to_be_bytes().to_vec();
    plain.extend_from_slice(hash);
    plain.extend_from_slice(script.as_bytes());
    let sealed = seal(keys, STATUS, &key, &plain)?;
    Ok((key, Some(sealed)))
}

fn parse_status(plain: &[u8]) -> Option<(u64, ScriptBuf, StatusHash)> {
    let (number, rest) = plain.split_first_chunk::<8>()?;
    let (hash, script) = rest.split_first_chunk::<32>()?;
    Some((u64::from_be_bytes(*number), ScriptBuf::from_bytes(script.to_vec()), *hash))
}
