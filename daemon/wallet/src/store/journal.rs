//! The facts journal: an append-only encrypted file that is durable before anybody is answered
//! (`design.md` "Storage" 1).
//!
//! ```text
//! file   = header record*
//! header = "JOINJNL1" generation:u32 base:u64 folded:u32 check:16 sum:4          (44 bytes, little endian)
//! record = length:u32 generation:u32 number:u64 check:4 sealed:length            (20 + length bytes)
//! ```
//!
//! `sealed` is CBOR of a list of facts, one list per `record` call, bound to generation and number as
//! associated data: records cannot be changed, reordered, dropped in the middle or taken from an older
//! file without being noticed. Numbers never restart. A *rotated* file (written beside, synced, renamed)
//! starts with `folded` records that hold everything before it in compact form. `check` is a keyed MAC,
//! `sum` a plain hash: a header whose sum is right and whose check is wrong belongs to another key.
//!
//! Reading never changes the file. An incomplete last record is the trace of a crash before anybody was
//! answered and is cut. Anything else that does not verify is *damage*: every record that still verifies
//! is kept, and the caller hears of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::disk::{Disk, DiskFile, io_error, read_range, with_suffix};
use super::seal::{Keys, OVERHEAD};
use super::{Fact, Facts, StoreError};

const MAGIC: &[u8; 8] = b"JOINJNL1";
const HEADER: usize = 44;
const FRAME: usize = 20;
const TREE: &str = "journal";
/// Largest sealed record: an import of 100 000 coins or a transaction at the 400 kB relay limit fits.
pub(super) const MAX_RECORD: usize = 8 << 20;
/// Plaintext after which the compact form starts a new record.
const FOLD_RECORD: usize = 64 << 10;
/// Appended bytes below which rotating is not worth two fsyncs.
const ROTATE_AFTER: u64 = 256 << 10;

/// One verified record.
#[derive(Debug)]
pub(super) struct Record {
    /// Its number; the first record ever is 1.
    pub(super) number: u64,
    /// What it says, in order.
    pub(super) facts: Vec<Fact>,
}

/// How much of the journal could be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// No file.
    Missing,
    /// A valid file of another key.
    Foreign,
    /// Everything verified, up to an unfinished append at most.
    Sound,
    /// Something that was acknowledged may be missing.
    Damaged,
}

/// What a journal file holds.
#[derive(Debug)]
pub(super) struct Reading {
    /// Whether it is all there.
    pub(super) condition: Condition,
    /// Whether any part of it was written with this key.
    pub(super) authentic: bool,
    /// Verified records by ascending number.
    pub(super) records: Vec<Record>,
    generation: u32,
    next: u64,
    good_len: u64,
    folded_len: u64,
    file: Option<Box<dyn DiskFile>>,
}

impl Reading {
    /// Number of the last verified record; 0 when there is none.
    pub(super) fn last_number(&self) -> u64 {
        self.next - 1
    }
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    keys: Arc<Keys>,
    file: Box<dyn DiskFile>,
    generation: u32,
    next: u64,
    len: u64,
    folded_len: u64,
    /// The file may hold something that was refused, or its name may not be durable: rewrite it before
    /// the next append.
    suspect: bool,
}

/// Reads and verifies a journal without changing it.
pub(super) fn read(disk: &dyn Disk, path: &Path, keys: &Keys) -> Result<Reading, StoreError> {
    let mut reading = Reading {
        condition: Condition::Missing,
        authentic: false,
        records: Vec::new(),
        generation: 0,
        next: 1,
        good_len: 0,
        folded_len: 0,
        file: None,
    };
    let Some(file) = disk.open(path).map_err(io_error("open", path))? else {
        return Ok(reading);
    };
    reading.condition = Condition::Sound;
    scan(file.as_ref(), keys, &mut reading).map_err(|error| match error {
        ScanError::Io(source) => io_error("read", path)(source),
        ScanError::Newer => StoreError::Newer("facts journal"),
    })?;
    reading.file = Some(file);
    Ok(reading)
}

enum ScanError {
    Io(std::io::Error),
    Newer,
}

impl From<std::io::Error> for ScanError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

struct Frame {
    length: u32,
    generation: u32,
    number: u64,
}

fn scan(file: &dyn DiskFile, keys: &Keys, reading: &mut Reading) -> Result<(), ScanError> {
    let end = file.len()?;
    let header = read_range(file, 0, HEADER)?;
    let mut generation = None;
    let mut folded = 0;
    let mut at = 0;
    match parse_header(&header, keys) {
        HeaderState::Good { generation: g, base, folded: f } => {
            generation = Some(g);
            folded = u64::from(f);
            reading.authentic = true;
            reading.generation = g;
            reading.next = base;
            at = HEADER as u64;
        }
        HeaderState::Foreign => {
            reading.condition = Condition::Foreign;
            return Ok(());
        }
        HeaderState::Newer => return Err(ScanError::Newer),
        HeaderState::Bad => reading.condition = Condition::Damaged,
    }
    let base = reading.next;
    reading.good_len = at;
    reading.folded_len = at;
    while at < end {
        let raw = read_range(file, at, FRAME)?;
        let frame = match parse_frame(&raw, keys) {
            Some(frame) if generation.is_none_or(|g| g == frame.generation) => frame,
            _ if raw.len() < FRAME || rest_is_zero(file, at, end)? => break, // torn append
            _ => {
                reading.condition = Condition::Damaged;
                match next_frame(file, at + 1, end, keys, generation)? {
                    Some(found) => at = found,
                    None => break,
                }
                continue;
            }
        };
        let body_at = at + FRAME as u64;
        if end - body_at < u64::from(frame.length) {
            break; // torn append: its own length was written, its body was not
        }
        at = body_at + u64::from(frame.length);
        let sealed = read_range(file, body_at, frame.length as usize)?;
        let place = place(frame.generation, frame.number);
        let Some(plain) = keys.open(TREE, &place, &sealed) else {
            reading.condition = Condition::Damaged;
            continue;
        };
        reading.authentic = true;
        generation = Some(frame.generation);
        reading.generation = frame.generation;
        if frame.number != reading.next {
            reading.condition = Condition::Damaged;
            if frame.number < reading.next {
                continue;
            }
        }
        let facts = ciborium::from_reader(plain.as_slice()).map_err(|_| ScanError::Newer)?;
        reading.records.push(Record { number: frame.number, facts });
        reading.next = frame.number + 1;
        reading.good_len = at;
        if frame.number < base.saturating_add(folded) {
            reading.folded_len = at;
        }
    }
    // The compact part was synced before the file got its name: it cannot be torn.
    if reading.next < base.saturating_add(folded) {
        reading.condition = Condition::Damaged;
    }
    Ok(())
}

enum HeaderState {
    Good { generation: u32, base: u64, folded: u32 },
    Foreign,
    Newer,
    Bad,
}

fn header_bytes(generation: u32, base: u64, folded: u32, keys: &Keys) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&folded.to_le_bytes());
    let check = keys.hide("journal header", &out);
    out.extend_from_slice(&check);
    let sum = Sha256::digest(&out);
    out.extend_from_slice(&sum[..4]);
    out
}

fn parse_header(raw: &[u8], keys: &Keys) -> HeaderState {
    let Some((body, sum)) = raw.split_at_checked(HEADER - 4) else { return HeaderState::Bad };
    if Sha256::digest(body)[..4] != *sum {
        return HeaderState::Bad;
    }
    if !body.starts_with(MAGIC) {
        return HeaderState::Newer;
    }
    let (fields, check) = body.split_at(24);
    if !keys.hidden_matches("journal header", fields, check) {
        return HeaderState::Foreign;
    }
    match (le_u32(fields, 8), le_u64(fields, 12), le_u32(fields, 20)) {
        (Some(generation), Some(base), Some(folded)) if base > 0 => {
            HeaderState::Good { generation, base, folded }
        }
        _ => HeaderState::Bad,
    }
}

fn place(generation: u32, number: u64) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&generation.to_be_bytes());
    out[4..].copy_from_slice(&number.to_be_bytes());
    out
}

fn frame_bytes(length: u32, generation: u32, number: u64, keys: &Keys) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME + length as usize);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    let check = keys.hide("journal frame", &out);
    out.extend_from_slice(&check[..4]);
    out
}

fn parse_frame(raw: &[u8], keys: &Keys) -> Option<Frame> {
    let fields = raw.get(..16)?;
    let check = raw.get(16..FRAME)?;
    let length = le_u32(fields, 0)?;
    if !(OVERHEAD..=MAX_RECORD).contains(&(length as usize)) {
        return None;
    }
    if keys.hide("journal frame", fields)[..4] != *check {
        return None;
    }
    let number = le_u64(fields, 8).filter(|&n| n > 0 && n < u64::MAX)?;
    Some(Frame { length, generation: le_u32(fields, 4)?, number })
}

/// Position of the next byte from which a frame header verifies.
fn next_frame(
    file: &dyn DiskFile,
    from: u64,
    end: u64,
    keys: &Keys,
    generation: Option<u32>,
) -> Result<Option<u64>, std::io::Error> {
    const WINDOW: usize = 64 << 10;
    let mut at = from;
    while at < end {
        let window = read_range(file, at, WINDOW + FRAME - 1)?;
        for (offset, raw) in window.windows(FRAME).enumerate() {
            // Compared first because it is cheap; the MAC decides.
            if generation.is_some_and(|g| le_u32(raw, 4) != Some(g)) {
                continue;
            }
            if parse_frame(raw, keys).is_some() {
                return Ok(Some(at + offset as u64));
            }
        }
        at += WINDOW as u64;
    }
    Ok(None)
}

/// A file system may show the new length of an append whose bytes were never written.
fn rest_is_zero(file: &dyn DiskFile, mut at: u64, end: u64) -> Result<bool, std::io::Error> {
    if end - at > (MAX_RECORD + FRAME) as u64 {
        return Ok(false);
    }
    while at < end {
        let chunk = read_range(file, at, 64 << 10)?;
        if chunk.is_empty() || chunk.iter().any(|&b| b != 0) {
            return Ok(chunk.is_empty());
        }
        at += chunk.len() as u64;
    }
    Ok(true)
}

fn le_u32(raw: &[u8], at: usize) -> Option<u32> {
    raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

fn le_u64(raw: &[u8], at: usize) -> Option<u64> {
    raw.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
}

fn encode(facts: &[Fact]) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(facts, &mut out).expect("writing to memory; every fact has a CBOR form");
    out
}

fn seal_record(
    keys: &Keys,
    generation: u32,
    number: u64,
    plain: &[u8],
    path: &Path,
) -> Result<Vec<u8>, StoreError> {
    let size = plain.len() + OVERHEAD;
    let too_large = StoreError::TooLarge { size, limit: MAX_RECORD };
    if size > MAX_RECORD {
        return Err(too_large);
    }
    let length = u32::try_from(size).map_err(|_| too_large)?;
    let sealed = keys
        .seal(TREE, &place(generation, number), plain)
        .map_err(|error| io_error("encrypt for", path)(error.into()))?;
    let mut out = frame_bytes(length, generation, number, keys);
    out.extend_from_slice(&sealed);
    Ok(out)
}

impl Journal {
    /// Continues the file that was read: cuts a torn tail and makes sure that what was read is durable.
    /// Call it only for a sound reading.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        path: &Path,
        keys: Arc<Keys>,
        reading: &mut Reading,
    ) -> Result<Self, StoreError> {
        let Some(mut file) = reading.file.take() else {
            return Self::create(disk, path, keys, 0, 1, &Facts::default());
        };
        let len = file.len().map_err(io_error("read", path))?;
        if len > reading.good_len {
            tracing::info!(bytes = len - reading.good_len, "cut an unfinished journal record");
            file.set_len(reading.good_len).map_err(io_error("cut", path))?;
        }
        // A process that was killed may have left bytes and names that only memory knows.
        file.sync().map_err(io_error("sync", path))?;
        disk.sync_parent(path).map_err(io_error("sync directory of", path))?;
        Ok(Self {
            disk,
            path: path.to_path_buf(),
            keys,
            file,
            generation: reading.generation,
            next: reading.next,
            len: reading.good_len,
            folded_len: reading.folded_len,
            suspect: false,
        })
    }

    /// Writes a new file that holds `facts`, in place of what has the name now.
    pub(super) fn replace(
        disk: Arc<dyn Disk>,
        path: &Path,
        keys: Arc<Keys>,
        reading: &Reading,
        next: u64,
        facts: &Facts,
    ) -> Result<Self, StoreError> {
        Self::create(disk, path, keys, reading.generation, next, facts)
    }

    fn create(
        disk: Arc<dyn Disk>,
        path: &Path,
        keys: Arc<Keys>,
        generation: u32,
        next: u64,
        facts: &Facts,
    ) -> Result<Self, StoreError> {
        let temp = with_suffix(path, ".tmp");
        let file = disk.create(&temp).map_err(io_error("create", &temp))?;
        let mut journal = Self {
            disk,
            path: path.to_path_buf(),
            keys,
            file,
            generation,
            next,
            len: 0,
            folded_len: 0,
            suspect: true,
        };
        journal.rotate(facts)?;
        Ok(journal)
    }

    /// Number of the last record; 0 when there is none.
    pub(super) fn last_number(&self) -> u64 {
        self.next - 1
    }

    /// Appends one record and makes it durable. `folded` is everything recorded before.
    ///
    /// After an error the record counts as not written, and the journal goes on: a failed append is cut
    /// off again; when the cut or the sync failed, what the disk holds is unknown (after a failed fsync
    /// the kernel forgets the pages), so the next append first rewrites the whole file.
    pub(super) fn append(&mut self, facts: &[Fact], folded: &Facts) -> Result<(), StoreError> {
        let plain = encode(facts);
        if self.suspect {
            self.rotate(folded)?;
        }
        let record = seal_record(&self.keys, self.generation, self.next, &plain, &self.path)?;
        let written = self.file.write_all_at(&record, self.len);
        if let Err(error) = written {
            self.suspect = self.file.set_len(self.len).is_err();
            return Err(io_error("write", &self.path)(error));
        }
        if let Err(error) = self.file.sync() {
            self.suspect = true;
            // Best effort: keeps a reopened wallet from seeing what was refused.
            let _ = self.file.set_len(self.len);
            return Err(io_error("sync", &self.path)(error));
        }
        self.len += record.len() as u64;
        self.next += 1;
        Ok(())
    }

    /// Whether the compact form is much shorter than the file.
    pub(super) fn wants_rotation(&self) -> bool {
        self.suspect || self.len - self.folded_len > ROTATE_AFTER.max(self.folded_len)
    }

    /// Replaces the file by the compact form of `folded`. After an error the old file is still whole.
    pub(super) fn rotate(&mut self, folded: &Facts) -> Result<(), StoreError> {
        let generation = self.generation.wrapping_add(1);
        let lists = compact(folded);
        let folded_count = u32::try_from(lists.len())
            .map_err(|_| StoreError::TooLarge { size: lists.len(), limit: u32::MAX as usize })?;
        let temp = with_suffix(&self.path, ".tmp");
        let mut file = self.disk.create(&temp).map_err(io_error("create", &temp))?;
        let header = header_bytes(generation, self.next, folded_count, &self.keys);
        file.write_all_at(&header, 0).map_err(io_error("write", &temp))?;
        let mut len = header.len() as u64;
        let mut next = self.next;
        for plain in &lists {
            let record = seal_record(&self.keys, generation, next, plain, &temp)?;
            file.write_all_at(&record, len).map_err(io_error("write", &temp))?;
            len += record.len() as u64;
            next += 1;
        }
        file.sync().map_err(io_error("sync", &temp))?;
        self.disk.rename(&temp, &self.path).map_err(io_error("rename", &temp))?;
        self.file = file;
        self.generation = generation;
        self.next = next;
        self.len = len;
        self.folded_len = len;
        // Until the name is durable a power cut brings the old file back, without what is appended to
        // this one.
        self.suspect = true;
        self.disk.sync_parent(&self.path).map_err(io_error("sync directory of", &self.path))?;
        self.suspect = false;
        Ok(())
    }
}

/// The compact form as CBOR lists of about [`FOLD_RECORD`] bytes.
fn compact(facts: &Facts) -> Vec<Vec<u8>> {
    let mut lists = Vec::new();
    let mut list = Vec::new();
    let mut size = 0;
    for fact in facts.unfold() {
        size += encode(std::slice::from_ref(&fact)).len();
        list.push(fact);
        if size >= FOLD_RECORD {
            lists.push(encode(&list));
            list.clear();
            size = 0;
        }
    }
    if !list.is_empty() {
        lists.push(encode(&list));
    }
    lists
}
