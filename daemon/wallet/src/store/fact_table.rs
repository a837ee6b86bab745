//! The second copy of the facts, in the database: one entry per subject with the number of the journal
//! record that it came from. Read only when the journal lost something; then the newer of the two counts.
//!
//! Also the split of any value into pieces that sled keeps out of blob files.

use std::collections::BTreeMap;

use super::fold::{entries, subject};
use super::journal::Record;
use super::seal::{Keys, OVERHEAD};
use super::sled_store::{Change, Database, MAX_VALUE};
use super::{Fact, StoreError};
use crate::round::RoundId;

const TREE: &str = "facts";
const PREFIX: u8 = b'f';
const META: &str = "meta";
/// Number of the last journal record that was applied.
const HEAD: &[u8] = b"mfacts";
/// Tells whose database it is.
const IDENTITY: &[u8] = b"midentity";
/// Plaintext bytes of one piece: the value less the overhead of sealing and one byte for "last".
pub(super) const PIECE: usize = MAX_VALUE - OVERHEAD - 1;
/// Changes in one batch.
const BATCH: usize = 1000;

/// Whose database this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing was ever stored.
    Fresh,
    /// Made with these keys.
    Ours,
    /// Made with other keys.
    Foreign,
    /// Holds data but not its identity.
    Unknown,
}

/// Tells whose database this is.
pub(super) fn identity(db: &mut Database, keys: &Keys) -> Result<Identity, StoreError> {
    Ok(match db.get(IDENTITY)? {
        Some(sealed) if keys.open(META, IDENTITY, &sealed).is_some() => Identity::Ours,
        Some(_) => Identity::Foreign,
        None if db.is_empty()? => Identity::Fresh,
        None => Identity::Unknown,
    })
}

/// Marks a fresh database as ours, durably.
pub(super) fn claim(db: &mut Database, keys: &Keys) -> Result<(), StoreError> {
    db.apply(vec![(IDENTITY.to_vec(), Some(seal(keys, META, IDENTITY, b"joinery")?))])?;
    db.commit()
}

/// Seals one value.
pub(super) fn seal(
    keys: &Keys,
    tree: &str,
    key: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, StoreError> {
    keys.seal(tree, key, plain).map_err(|error| StoreError::Database(error.to_string()))
}

/// Appends the changes that store `plain` under `base` followed by piece numbers.
pub(super) fn put_pieces(
    keys: &Keys,
    tree: &str,
    base: &[u8],
    plain: &[u8],
    out: &mut Vec<Change>,
) -> Result<(), StoreError> {
    // An empty value still has one piece.
    let count = plain.len().div_ceil(PIECE).max(1);
    for index in 0..count {
        let piece = plain.get(index * PIECE..plain.len().min((index + 1) * PIECE));
        let mut body = vec![u8::from(index + 1 == count)];
        body.extend_from_slice(piece.unwrap_or_default());
        let number = u32::try_from(index)
            .map_err(|_| StoreError::TooLarge { size: plain.len(), limit: u32::MAX as usize })?;
        let key = [base, &number.to_be_bytes()].concat();
        let sealed = seal(keys, tree, &key, &body)?;
        out.push((key, Some(sealed)));
    }
    Ok(())
}

/// Puts pieces together again, fed in key order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    base: Vec<u8>,
    next: u32,
    plain: Vec<u8>,
    usable: bool,
}

impl Pieces {
    /// Takes one pair; returns base key and value when it completes one. Pieces that are missing or do
    /// not verify make their value disappear.
    pub(super) fn feed(
        &mut self,
        keys: &Keys,
        tree: &str,
        key: &[u8],
        sealed: &[u8],
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let (base, number) = key.split_at_checked(key.len().checked_sub(4)?)?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        if number == 0 {
            *self = Self { base: base.to_vec(), next: 0, plain: Vec::new(), usable: true };
        }
        if !self.usable || self.base != base || self.next != number {
            self.usable = false;
            return None;
        }
        let opened = keys.open(tree, key, sealed);
        let Some((last, body)) = opened.as_deref().and_then(<[u8]>::split_first) else {
            self.usable = false;
            return None;
        };
        self.next += 1;
        self.plain.extend_from_slice(body);
        if *last == 0 {
            return None;
        }
        // What follows under this base is left over from a longer value.
        self.usable = false;
        Some((std::mem::take(&mut self.base), std::mem::take(&mut self.plain)))
    }
}

/// Number of the last journal record whose facts are in the database; 0 when there is none.
pub(super) fn head(db: &mut Database, keys: &Keys) -> Result<u64, StoreError> {
    let sealed = db.get(HEAD)?;
    Ok(sealed
        .and_then(|sealed| keys.open(META, HEAD, &sealed))
        .and_then(|plain| plain.try_into().ok())
        .map_or(0, u64::from_be_bytes))
}

/// Stores the facts of journal record `number`.
pub(super) fn put<'a>(
    db: &mut Database,
    keys: &Keys,
    number: u64,
    facts: impl IntoIterator<Item = &'a Fact>,
) -> Result<(), StoreError> {
    let mut changes = Vec::new();
    for entry in facts.into_iter().flat_map(entries) {
        let mut base = vec![PREFIX];
        base.extend_from_slice(&keys.hide(TREE, &subject(&entry)));
        let mut plain = Vec::new();
        ciborium::into_writer(&(number, &entry), &mut plain)
            .expect("writing to memory; every fact has a CBOR form");
        put_pieces(keys, TREE, &base, &plain, &mut changes)?;
        if changes.len() >= BATCH {
            db.apply(std::mem::take(&mut changes))?;
        }
    }
    let head = seal(keys, META, HEAD, &number.to_be_bytes())?;
    changes.push((HEAD.to_vec(), Some(head)));
    db.apply(changes)
}

/// All entries that can still be read, with their record numbers.
pub(super) fn all(db: &mut Database, keys: &Keys) -> Result<Vec<(u64, Fact)>, StoreError> {
    let mut out = Vec::new();
    let mut pieces = Pieces::default();
    db.scan(&[PREFIX], |key, sealed| {
        if let Some((_, plain)) = pieces.feed(keys, TREE, key, sealed) {
            out.extend(ciborium::from_reader::<(u64, Fact), _>(plain.as_slice()));
        }
    })?;
    Ok(out)
}

/// Removes the entries of all rounds but those that are still known, all or none.
pub(super) fn forget(
    db: &mut Database,
    keys: &Keys,
    known: impl Fn(RoundId) -> bool,
) -> Result<(), StoreError> {
    let mut changes: Vec<Change> = Vec::new();
    let mut pieces = Pieces::default();
    // Keys of the value that is being read, and whether it goes.
    let (mut base, mut of_base, mut goes) = (Vec::new(), Vec::new(), false);
    db.scan(&[PREFIX], |key, sealed| {
        let this = key.split_last_chunk::<4>().map_or(key, |(base, _)| base);
        if this != base {
            let done = std::mem::take(&mut of_base).into_iter().filter(|_| goes);
            changes.extend(done.map(|key| (key, None)));
            (base, goes) = (this.to_vec(), false);
        }
        of_base.push(key.to_vec());
        let value = pieces.feed(keys, TREE, key, sealed);
        let entry = value
            .and_then(|(_, plain)| ciborium::from_reader::<(u64, Fact), _>(plain.as_slice()).ok());
        if let Some((_, Fact::Round { round, .. })) = entry {
            goes = !known(RoundId(round));
        }
    })?;
    changes.extend(of_base.into_iter().filter(|_| goes).map(|key| (key, None)));
    if changes.is_empty() { Ok(()) } else { db.apply(changes) }
}

/// Joins what is left of the journal with the entries of the database: for each subject the one from
/// the higher record number, in the order of those numbers.
///
/// The database does not know the order of entries that were stored together: they are taken in the order of their
/// subjects.
pub(super) fn join(records: Vec<Record>, mut table: Vec<(u64, Fact)>) -> Vec<Fact> {
    let mut newest: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut ordered: Vec<(u64, Fact)> = Vec::new();
    for record in records {
        for fact in record.facts {
            for entry in entries(&fact) {
                newest.insert(subject(&entry), record.number);
            }
            ordered.push((record.number, fact));
        }
    }
    table.sort_by_cached_key(|(_, entry)| subject(entry));
    for (number, entry) in table {
        if newest.get(&subject(&entry)).is_none_or(|&known| number > known) {
            ordered.push((number, entry));
        }
    }
    // Stable: facts of one record keep their order.
    ordered.sort_by_key(|(number, _)| *number);
    ordered.into_iter().map(|(_, fact)| fact).collect()
}
