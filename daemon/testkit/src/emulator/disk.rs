//! A disk for an emulated machine that forgets what was not flushed when the power is cut.
//!
//! When an emulator is killed, all that its machine ever wrote is still in the host's memory: a program that forgets
//! `fsync` passes. This disk has a write cache of its own. What the machine writes stays there until it asks for a
//! flush (or marks a write as one that must be on the medium); [`Disk::cut`] then keeps and loses what is in the cache
//! as disks do: in no order, and in whole sectors.
//!
//! The emulator reaches it by NBD, the network block device protocol, over a Unix socket: the fixed newstyle
//! handshake, and reads, writes and flushes with simple replies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

/// What a disk writes whole or not at all, bytes.
pub const SECTOR: usize = 512;
/// Longest read or write that is taken, bytes: what the protocol lets a client assume.
const LONGEST: usize = 32 * 1024 * 1024;
/// Longest data of an option of the handshake, bytes.
const LONGEST_OPTION: usize = 4096;

/// Words of the protocol (its document `doc/proto.md` names them).
mod word {
    pub(super) const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
    pub(super) const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
    pub(super) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
    pub(super) const REQUEST: u32 = 0x2560_9513;
    pub(super) const SIMPLE_REPLY: u32 = 0x6744_6698;

    pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1;
    pub(super) const OPT_ABORT: u32 = 2;
    pub(super) const OPT_GO: u32 = 7;
    pub(super) const REP_ACK: u32 = 1;
    pub(super) const REP_INFO: u32 = 3;
    pub(super) const REP_ERR_UNSUP: u32 = (1 << 31) | 1;
    pub(super) const INFO_EXPORT: u16 = 0;

    /// There are flags; flushes are understood; so are writes that must be on the medium.
    pub(super) const TRANSMISSION_FLAGS: u16 = 1 | (1 << 2) | (1 << 3);
    pub(super) const CMD_READ: u16 = 0;
    pub(super) const CMD_WRITE: u16 = 1;
    pub(super) const CMD_DISC: u16 = 2;
    pub(super) const CMD_FLUSH: u16 = 3;
    pub(super) const CMD_FLAG_FUA: u16 = 1;
    pub(super) const EINVAL: u32 = 22;
    pub(super) const EIO: u32 = 5;
}

/// What happened to the write cache when the power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// Sectors that reached the medium all the same.
    pub kept: usize,
    /// Sectors that are gone.
    pub lost: usize,
}

/// A disk in a file, with a write cache that a power cut empties.
#[derive(Debug)]
pub struct Disk {
    medium: Arc<Mutex<Medium>>,
    socket: PathBuf,
}

/// The file and what is not in it yet.
#[derive(Debug)]
struct Medium {
    file: File,
    size: u64,
    /// By number of the sector: what was written last.
    cache: BTreeMap<u64, [u8; SECTOR]>,
    /// Counts power cuts, so that nothing of a machine that is gone is taken any more.
    life: u64,
    flushes: u64,
}

impl Disk {
    /// Serves the file `image`, whose size is a multiple of [`SECTOR`], on a new Unix socket at `socket`, until the
    /// program ends. One machine at a time uses it; the next one may come after [`Disk::cut`].
    ///
    /// # Errors
    /// When the file cannot be opened, has no whole sectors, or the socket cannot be made.
    pub fn serve(image: &Path, socket: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(image);
        let file = file.with_context(|| format!("cannot open {}", image.display()))?;
        let size = file.metadata()?.len();
        ensure!(size > 0 && size.is_multiple_of(SECTOR as u64), "{size} bytes are no disk");
        let cache = BTreeMap::new();
        let medium = Arc::new(Mutex::new(Medium { file, size, cache, life: 0, flushes: 0 }));
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let served = medium.clone();
        std::thread::Builder::new().name("disk".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A machine whose power is cut ends in the middle of anything.
                let _ = Connection::new(stream, served.clone()).serve();
            }
        })?;
        Ok(Self { medium, socket: socket.to_owned() })
    }

    /// Where the emulator finds it: the value of `-blockdev driver=nbd,server.type=unix,server.path=…`.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Cuts the power: asks for each sector in the cache whether it reached the medium, and forgets the others. What
    /// the old machine still says is not heard any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cut(&self, mut survives: impl FnMut() -> bool) -> Result<Cut> {
        let mut medium = lock(&self.medium);
        medium.life += 1;
        let mut cut = Cut::default();
        for (sector, bytes) in std::mem::take(&mut medium.cache) {
            if survives() {
                medium.file.write_all_at(&bytes, sector * SECTOR as u64)?;
                cut.kept += 1;
            } else {
                cut.lost += 1;
            }
        }
        Ok(cut)
    }

    /// Flushes that were asked for so far.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        lock(&self.medium).flushes
    }
}

fn lock(medium: &Mutex<Medium>) -> std::sync::MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a request is refused: a number of the protocol.
type Refusal = u32;

impl Medium {
    /// The numbers of the sectors of a stretch.
    fn sectors(&self, offset: u64, length: usize) -> Result<std::ops::Range<u64>, Refusal> {
        let sector = SECTOR as u64;
        let whole = offset.is_multiple_of(sector) && length.is_multiple_of(SECTOR);
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        match end {
            Some(end) if whole => Ok(offset / sector..end / sector),
            _ => Err(word::EINVAL),
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
        let sectors = self.sectors(offset, bytes.len())?;
        self.file.read_exact_at(bytes, offset).map_err(|_| word::EIO)?;
        let first = sectors.start;
        for (number, cached) in self.cache.range(sectors) {
            let place = usize::try_from(number - first).map_err(|_| word::EINVAL)? * SECTOR;
            bytes.get_mut(place..place + SECTOR).ok_or(word::EINVAL)?.copy_from_slice(cached);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8], through: bool) -> Result<(), Refusal> {
        let sectors = self.sectors(offset, bytes.len())?;
        let (whole, _) = bytes.as_chunks::<SECTOR>();
        for (number, sector) in sectors.zip(whole) {
            if through {
                self.cache.remove(&number);
            } else {
                self.cache.insert(number, *sector);
            }
        }
        if through {
            self.file.write_all_at(bytes, offset).map_err(|_| word::EIO)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        self.flushes += 1;
        for (number, bytes) in &self.cache {
            self.file.write_all_at(bytes, number * SECTOR as u64).map_err(|_| word::EIO)?;
        }
        self.cache.clear();
        Ok(())
    }
}

/// One machine.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    medium: Arc<Mutex<Medium>>,
    life: u64,
}

impl Connection {
    fn new(stream: UnixStream, medium: Arc<Mutex<Medium>>) -> Self {
        let life = lock(&medium).life;
        Self { stream, medium, life }
    }

    fn serve(mut self) -> Result<()> {
        self.shake_hands()?;
        while self.answer_request()? {}
        Ok(())
    }

    fn shake_hands(&mut self) -> Result<()> {
        self.stream.write_all(&word::NBDMAGIC.to_be_bytes())?;
        self.stream.write_all(&word::IHAVEOPT.to_be_bytes())?;
        self.stream.write_all(&word::FLAG_FIXED_NEWSTYLE.to_be_bytes())?;
        let _flags = self.u32()?;
        loop {
            ensure!(self.u64()? == word::IHAVEOPT, "not an option");
            let (option, length) = (self.u32()?, self.u32()?);
            // Names and wishes: there is one disk, and it is as it is.
            self.bytes(length, LONGEST_OPTION)?;
            match option {
                word::OPT_GO => {
                    let mut export = word::INFO_EXPORT.to_be_bytes().to_vec();
                    export.extend(lock(&self.medium).size.to_be_bytes());
                    export.extend(word::TRANSMISSION_FLAGS.to_be_bytes());
                    self.reply_to_option(option, word::REP_INFO, &export)?;
                    return self.reply_to_option(option, word::REP_ACK, &[]);
                }
                word::OPT_ABORT => {
                    self.reply_to_option(option, word::REP_ACK, &[])?;
                    bail!("the machine does not want this disk");
                }
                _ => self.reply_to_option(option, word::REP_ERR_UNSUP, &[])?,
            }
        }
    }

    fn reply_to_option(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<()> {
        let mut reply = word::OPTION_REPLY.to_be_bytes().to_vec();
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend(u32::try_from(data.len())?.to_be_bytes());
        reply.extend(data);
        Ok(self.stream.write_all(&reply)?)
    }

    /// Whether there may be another one.
    fn answer_request(&mut self) -> Result<bool> {
        ensure!(self.u32()? == word::REQUEST, "not a request");
        let (flags, command) = (self.u16()?, self.u16()?);
        let (cookie, offset, length) = (self.u64()?, self.u64()?, self.u32()?);
        let mut read = Vec::new();
        let outcome = match command {
            word::CMD_READ => {
                ensure!(length as usize <= LONGEST, "a read of {length} bytes");
                read.resize(length as usize, 0);
                self.alive()?.read(offset, &mut read)
            }
            word::CMD_WRITE => {
                let bytes = self.bytes(length, LONGEST)?;
                let through = flags & word::CMD_FLAG_FUA != 0;
                self.alive()?.write(offset, &bytes, through)
            }
            word::CMD_FLUSH => self.alive()?.flush(),
            word::CMD_DISC => return Ok(false),
            _ => Err(word::EINVAL),
        };
        let mut reply = word::SIMPLE_REPLY.to_be_bytes().to_vec();
        reply.extend(outcome.err().unwrap_or(0).to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        if outcome.is_ok() {
            reply.extend(read);
        }
        self.stream.write_all(&reply)?;
        Ok(true)
    }

    /// The medium, for as long as this machine has power.
    fn alive(&self) -> Result<std::sync::MutexGuard<'_, Medium>> {
        let medium = lock(&self.medium);
        ensure!(medium.life == self.life, "the power was cut");
        Ok(medium)
    }

    fn bytes(&mut self, length: u32, longest: usize) -> Result<Vec<u8>> {
        let length = length as usize;
        ensure!(length <= longest, "{length} bytes at once");
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least of a client.
    struct Client(UnixStream);

    impl Client {
        fn connect(disk: &Disk) -> Self {
            let mut client = Self(UnixStream::connect(disk.socket()).unwrap());
            assert_eq!(client.take::<18>()[..8], word::NBDMAGIC.to_be_bytes());
            client.give(&[&1_u32.to_be_bytes()]);
            // An option that is not known, then the export without a name and without wishes.
            for (option, data) in [(8, &[][..]), (word::OPT_GO, &[0; 6])] {
                let length = u32::try_from(data.len()).unwrap().to_be_bytes();
                client.give(&[&word::IHAVEOPT.to_be_bytes(), &option.to_be_bytes(), &length, data]);
            }
            assert_eq!(client.reply_to_option(), (word::REP_ERR_UNSUP, Vec::new()));
            let (kind, export) = client.reply_to_option();
            assert_eq!((kind, export.len()), (word::REP_INFO, 12));
            assert_eq!(client.reply_to_option(), (word::REP_ACK, Vec::new()));
            client
        }

        fn give(&mut self, parts: &[&[u8]]) {
            self.0.write_all(&parts.concat()).unwrap();
        }

        fn take<const N: usize>(&mut self) -> [u8; N] {
            let mut bytes = [0; N];
            self.0.read_exact(&mut bytes).unwrap();
            bytes
        }

        fn reply_to_option(&mut self) -> (u32, Vec<u8>) {
            let head = self.take::<20>();
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let mut data = vec![0; number(16) as usize];
            self.0.read_exact(&mut data).unwrap();
            (number(12), data)
        }

        /// Sends a request; gives the number of its error.
        fn ask(
            &mut self,
            flags: u16,
            command: u16,
            offset: u64,
            length: usize,
            data: &[u8],
        ) -> u32 {
            let length = u32::try_from(length).unwrap().to_be_bytes();
            self.give(&[
                &word::REQUEST.to_be_bytes(),
                &flags.to_be_bytes(),
                &command.to_be_bytes(),
                b"a cookie",
                &offset.to_be_bytes(),
                &length,
                data,
            ]);
            let reply = self.take::<16>();
            assert_eq!(reply[..4], word::SIMPLE_REPLY.to_be_bytes());
            assert_eq!(&reply[8..], b"a cookie");
            u32::from_be_bytes(reply[4..8].try_into().unwrap())
        }

        fn write(&mut self, sector: u64, with: u8, flags: u16) {
            let (offset, data) = (sector * SECTOR as u64, [with; SECTOR]);
            assert_eq!(self.ask(flags, word::CMD_WRITE, offset, SECTOR, &data), 0);
        }

        fn flush(&mut self) {
            assert_eq!(self.ask(0, word::CMD_FLUSH, 0, 0, &[]), 0);
        }

        /// The first byte of each of the first sectors.
        fn sectors(&mut self, count: usize) -> Vec<u8> {
            assert_eq!(self.ask(0, word::CMD_READ, 0, count * SECTOR, &[]), 0);
            let mut bytes = vec![0; count * SECTOR];
            self.0.read_exact(&mut bytes).unwrap();
            bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
        }
    }

    fn disk(sectors: u64) -> (tempfile::TempDir, Disk) {
        let home = tempfile::tempdir().unwrap();
        let image = home.path().join("image");
        File::create(&image).unwrap().set_len(sectors * SECTOR as u64).unwrap();
        let disk = Disk::serve(&image, &home.path().join("socket")).unwrap();
        (home, disk)
    }

    #[test]
    fn a_cut_loses_what_was_not_flushed_and_nothing_else() {
        let (_home, disk) = disk(8);
        let mut client = Client::connect(&disk);
        client.write(0, 1, 0);
        client.write(1, 1, 0);
        client.flush();
        client.write(1, 2, 0);
        client.write(2, 2, 0);
        client.write(3, 3, word::CMD_FLAG_FUA);
        client.write(4, 4, 0);
        assert_eq!(client.sectors(5), [1, 2, 2, 3, 4], "the machine itself sees all of it");
        // The sector with the highest number is the one that got through.
        let mut asked = 0;
        let cut = disk.cut(|| {
            asked += 1;
            asked == 3
        });
        assert_eq!(cut.unwrap(), Cut { kept: 1, lost: 2 });
        assert_eq!(disk.flushes(), 1);
        drop(client);
        assert_eq!(Client::connect(&disk).sectors(5), [1, 1, 0, 3, 4]);
    }

    #[test]
    fn writes_after_the_cut_are_not_heard() {
        let (_home, disk) = disk(2);
        let mut client = Client::connect(&disk);
        client.write(0, 1, word::CMD_FLAG_FUA);
        disk.cut(|| true).unwrap();
        let request = [
            &word::REQUEST.to_be_bytes()[..],
            &word::CMD_FLAG_FUA.to_be_bytes(),
            &word::CMD_WRITE.to_be_bytes(),
            &[0; 16],
            &u32::try_from(SECTOR).unwrap().to_be_bytes(),
            &[9; SECTOR],
        ];
        client.give(&request);
        let mut end = Vec::new();
        // The connection ends, with or without an error.
        let _ = client.0.read_to_end(&mut end);
        assert!(end.is_empty());
        drop(client);
        assert_eq!(Client::connect(&disk).sectors(1), [1]);
    }

    #[test]
    fn stretches_that_are_not_on_the_disk_are_refused() {
        let (_home, disk) = disk(2);
        let mut client = Client::connect(&disk);
        for (offset, length) in [(0, 3 * SECTOR), (1, SECTOR), (0, 100), (u64::MAX - 511, SECTOR)] {
            let refused = client.ask(0, word::CMD_READ, offset, length, &[]);
            assert_eq!(refused, word::EINVAL, "{offset} {length}");
        }
        assert_eq!(client.ask(0, 4, 0, SECTOR, &[]), word::EINVAL, "a trim");
        client.write(1, 7, 0);
        assert_eq!(client.sectors(2), [0, 7]);
    }
}
