//! The merged chain data as one encrypted file, replaced as a whole (`design.md` "Storage" 3).
//!
//! ```text
//! file   = header chunk+
//! header = "JOINCHN1" id:16 check:16 sum:4                                       (44 bytes)
//! chunk  = size:u32 sealed:size                     (little endian; top bit of size: last chunk)
//! ```
//!
//! The plaintext is CBOR: number of the last change that is merged in, then [`ChainData`]. It is sealed in
//! chunks of 64 KiB bound to file id, position and whether it is the last, so it is written and read with
//! one chunk in memory, and neither a cut nor a mixture of two files passes.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::disk::{Disk, DiskFile, io_error, read_range, with_suffix};
use super::seal::{Keys, OVERHEAD};
use super::{ChainData, StoreError};

const MAGIC: &[u8; 8] = b"JOINCHN1";
const HEADER: usize = 44;
const CHUNK: usize = 64 << 10;
const LAST: u32 = 1 << 31;
const TREE: &str = "chain snapshot";

/// What a look at the file showed.
#[derive(Debug)]
pub(super) enum Loaded {
    /// No file.
    Missing,
    /// A valid file of another key.
    Foreign,
    /// It does not verify.
    Damaged,
    /// The data.
    Data {
        /// Number of the last change of the log that is contained.
        through: u64,
        /// The merged data.
        chain: Box<ChainData>,
        /// Size of the file, bytes.
        size: u64,
    },
}

/// Whose file it is, by its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// No file.
    Missing,
    /// Written with this key.
    Ours,
    /// Written with another key.
    Foreign,
    /// The header is damaged.
    Unknown,
}

/// Tells whose file it is.
pub(super) fn owner(disk: &dyn Disk, path: &Path, keys: &Keys) -> Result<Owner, StoreError> {
    let Some(file) = disk.open(path).map_err(io_error("open", path))? else {
        return Ok(Owner::Missing);
    };
    let header = read_range(file.as_ref(), 0, HEADER).map_err(io_error("read", path))?;
    Ok(owner_of(&header, keys))
}

fn owner_of(header: &[u8], keys: &Keys) -> Owner {
    let Some((body, sum)) = header.split_at_checked(HEADER - 4) else { return Owner::Unknown };
    if Sha256::digest(body)[..4] != *sum || !body.starts_with(MAGIC) {
        return Owner::Unknown;
    }
    let (fields, check) = body.split_at(24);
    if keys.hidden_matches("chain snapshot header", fields, check) {
        Owner::Ours
    } else {
        Owner::Foreign
    }
}

/// Reads the whole file.
pub(super) fn load(disk: &dyn Disk, path: &Path, keys: &Keys) -> Result<Loaded, StoreError> {
    let Some(file) = disk.open(path).map_err(io_error("open", path))? else {
        return Ok(Loaded::Missing);
    };
    let size = file.len().map_err(io_error("read", path))?;
    let header = read_range(file.as_ref(), 0, HEADER).map_err(io_error("read", path))?;
    match owner_of(&header, keys) {
        Owner::Ours => {}
        Owner::Foreign => return Ok(Loaded::Foreign),
        Owner::Missing | Owner::Unknown => return Ok(Loaded::Damaged),
    }
    let id = header.get(8..24).unwrap_or_default().to_vec();
    let mut reader = ChunkReader {
        file: file.as_ref(),
        keys,
        id,
        offset: HEADER as u64,
        index: 0,
        plain: Vec::new(),
        used: 0,
        finished: false,
    };
    let parsed = ciborium::from_reader::<u64, _>(&mut reader)
        .and_then(|through| Ok((through, ciborium::from_reader::<ChainData, _>(&mut reader)?)));
    let (through, chain) = match parsed {
        Ok(parsed) => parsed,
        Err(ciborium::de::Error::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(Loaded::Damaged),
                _ => Err(io_error("read", path)(error)),
            };
        }
        Err(_) => return Ok(Loaded::Damaged),
    };
    // The last chunk must have been seen, and nothing may follow.
    let mut rest = [0; 1];
    match reader.read(&mut rest) {
        Ok(0) if reader.offset == size => {
            Ok(Loaded::Data { through, chain: Box::new(chain), size })
        }
        Ok(_) => Ok(Loaded::Damaged),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Loaded::Damaged),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Writes the file beside the old one and puts it in its place; returns its size. After an error the old
/// file, if any, still has the name and is whole.
pub(super) fn write(
    disk: &dyn Disk,
    path: &Path,
    keys: &Keys,
    through: u64,
    chain: &ChainData,
) -> Result<u64, StoreError> {
    let temp = with_suffix(path, ".tmp");
    let mut file = disk.create(&temp).map_err(io_error("create", &temp))?;
    let size =
        write_chunks(file.as_mut(), keys, through, chain).map_err(io_error("write", &temp))?;
    file.sync().map_err(io_error("sync", &temp))?;
    disk.rename(&temp, path).map_err(io_error("rename", &temp))?;
    disk.sync_parent(path).map_err(io_error("sync directory of", path))?;
    Ok(size)
}

fn write_chunks(
    file: &mut dyn DiskFile,
    keys: &Keys,
    through: u64,
    chain: &ChainData,
) -> io::Result<u64> {
    let mut header = MAGIC.to_vec();
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    header.extend_from_slice(&id);
    let check = keys.hide("chain snapshot header", &header);
    header.extend_from_slice(&check);
    let sum = Sha256::digest(&header);
    header.extend_from_slice(&sum[..4]);
    file.write_all_at(&header, 0)?;

    let mut writer = ChunkWriter {
        file,
        keys,
        id,
        offset: HEADER as u64,
        index: 0,
        plain: Vec::with_capacity(CHUNK),
    };
    let encoded = ciborium::into_writer(&through, &mut writer)
        .and_then(|()| ciborium::into_writer(chain, &mut writer));
    match encoded {
        Ok(()) => writer.finish(),
        Err(ciborium::ser::Error::Io(error)) => Err(error),
        Err(ciborium::ser::Error::Value(text)) => Err(io::Error::other(text)),
    }
}

fn place(id: &[u8], index: u64, last: bool) -> Vec<u8> {
    let mut out = id.to_vec();
    out.extend_from_slice(&index.to_be_bytes());
    out.push(u8::from(last));
    out
}

struct ChunkWriter<'a> {
    file: &'a mut dyn DiskFile,
    keys: &'a Keys,
    id: [u8; 16],
    offset: u64,
    index: u64,
    plain: Vec<u8>,
}

impl ChunkWriter<'_> {
    fn put(&mut self, last: bool) -> io::Result<()> {
        let sealed = self.keys.seal(TREE, &place(&self.id, self.index, last), &self.plain)?;
        let size = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        let mut chunk = Vec::with_capacity(4 + sealed.len());
        chunk.extend_from_slice(&(if last { size | LAST } else { size }).to_le_bytes());
        chunk.extend_from_slice(&sealed);
        self.file.write_all_at(&chunk, self.offset)?;
        self.offset += chunk.len() as u64;
        self.index += 1;
        self.plain.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.put(true)?;
        Ok(self.offset)
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.plain.len() == CHUNK {
            self.put(false)?;
        }
        let n = buf.len().min(CHUNK - self.plain.len());
        self.plain.extend_from_slice(buf.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ChunkReader<'a> {
    file: &'a dyn DiskFile,
    keys: &'a Keys,
    id: Vec<u8>,
    offset: u64,
    index: u64,
    plain: Vec<u8>,
    used: usize,
    finished: bool,
}

impl ChunkReader<'_> {
    fn next_chunk(&mut self) -> io::Result<()> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let raw = read_range(self.file, self.offset, 4)?;
        let size = u32::from_le_bytes(raw.try_into().map_err(|_| bad())?);
        let last = size & LAST != 0;
        let size = (size & !LAST) as usize;
        if !(OVERHEAD..=CHUNK + OVERHEAD).contains(&size) {
            return Err(bad());
        }
        let sealed = read_range(self.file, self.offset + 4, size)?;
        self.plain =
            self.keys.open(TREE, &place(&self.id, self.index, last), &sealed).ok_or_else(bad)?;
        self.used = 0;
        self.offset += 4 + size as u64;
        self.index += 1;
        self.finished = last;
        Ok(())
    }
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.used == self.plain.len() {
            if self.finished {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let rest = self.plain.get(self.used..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        self.used += n;
        Ok(n)
    }
}
