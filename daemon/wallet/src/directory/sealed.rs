//! The key of a wallet file as the machine itself keeps it, so that the wallet can be opened without its password
//! after a power cut (`[board] resume`).
//!
//! `.NAME.jmdat.resume`, at most one in a directory:
//! ```text
//! 0   8   magic "JOINRSM1"
//! 8  24   nonce
//! 32 ..   XChaCha20-Poly1305 ciphertext and tag; magic and wallet name are associated data
//! ```
//! The plaintext is the 32-byte key that the password was made into, and a note of the caller. The key of the cipher is
//! derived from 32 bytes that are handed in and are never in this directory: without them the file is worthless, with
//! them it is as good as the password. A wallet file that got another password, or was replaced, does not open with it.

use std::fmt;
use std::io;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::durable::{self, Existing};
use super::opened::Home;
use super::{
    DirectoryError, OpenError, OpenedKeys, WalletDirectory, WalletName, io_error, random,
    seed_error,
};
use crate::file::native;

const MAGIC: &[u8; 8] = b"JOINRSM1";
const NONCE_LEN: usize = 24;
const KEY_LEN: usize = 32;
/// Longest note, bytes.
pub const MAX_NOTE: usize = 4096;
/// Longest file: magic, nonce, key, note and tag.
const MAX_LEN: u64 = (8 + NONCE_LEN + KEY_LEN + MAX_NOTE + 16) as u64;
/// Ends of the names of such files, and of unfinished ones.
const SUFFIXES: [&str; 2] = [".resume", ".resume-tmp"];

/// What a machine keeps to itself, for sealing. Erased on drop.
pub struct SealingKey(Zeroizing<[u8; KEY_LEN]>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// Derives it from 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let hkdf = Hkdf::<Sha256>::new(None, secret);
        hkdf.expand(b"joinery resume file", key.as_mut()).expect("32 bytes is a valid length");
        Self(key)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// Why the key of a wallet was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The wallet file is another program's and is kept as it is: it opens with its password only.
    #[error("the wallet file is another program's and is kept as it is")]
    KeptFile,
    /// The note is longer than [`MAX_NOTE`].
    #[error("note of {0} bytes is too long")]
    NoteTooLong(usize),
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Randomness,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] DirectoryError),
    /// The wallet was locked meanwhile.
    #[error("the wallet is closed")]
    Closed,
}

impl From<crate::service::ServiceError> for SealError {
    fn from(_: crate::service::ServiceError) -> Self {
        Self::Closed
    }
}

/// A wallet that can be opened without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The wallet.
    pub name: WalletName,
    /// What was given to [`OpenedKeys::seal`].
    pub note: Vec<u8>,
}

fn associated_data(name: &WalletName) -> Vec<u8> {
    [MAGIC, name.as_str().as_bytes()].concat()
}

/// The key and the note of a file; `None` when it was not made with this key for this wallet, or is damaged.
fn unseal(
    key: &SealingKey,
    name: &WalletName,
    file: &[u8],
) -> Option<(Zeroizing<[u8; KEY_LEN]>, Vec<u8>)> {
    let (nonce, body) = file.strip_prefix(MAGIC)?.split_at_checked(NONCE_LEN)?;
    let payload = Payload { msg: body, aad: &associated_data(name) };
    let plain = Zeroizing::new(key.cipher().decrypt(XNonce::from_slice(nonce), payload).ok()?);
    let (file_key, note) = plain.split_first_chunk::<KEY_LEN>()?;
    Some((Zeroizing::new(*file_key), note.to_vec()))
}

impl OpenedKeys {
    /// Lets the machine open this wallet without its password, until [`WalletDirectory::forget_sealed`]. No other wallet
    /// of the directory can be opened so afterwards. The note is kept with it, as secret as the key. Durable when this
    /// returns. Blocking.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, key: &SealingKey, note: &[u8]) -> Result<(), SealError> {
        if !self.home.native {
            return Err(SealError::KeptFile);
        }
        if note.len() > MAX_NOTE {
            return Err(SealError::NoteTooLong(note.len()));
        }
        let nonce = random::<NONCE_LEN>().map_err(|_| SealError::Randomness)?;
        let check = self.check.load_full();
        let mut plain = Zeroizing::new(Vec::with_capacity(KEY_LEN + note.len()));
        plain.extend_from_slice(check.key());
        plain.extend_from_slice(note);
        let payload = Payload { msg: &plain, aad: &associated_data(self.name()) };
        let sealed = key.cipher().encrypt(XNonce::from_slice(&nonce), payload);
        // Fails for more than 256 GiB.
        let sealed = sealed.map_err(|_| SealError::NoteTooLong(note.len()))?;
        let file = [MAGIC.as_slice(), &nonce, &sealed].concat();
        let directory = &self.home.directory;
        let target = self.name().hidden("resume");
        // Of two wallets that could be opened none would be the one that is meant.
        directory.forget_sealed_but(Some(&target))?;
        // Its own temporary file: the other one is for whoever changes the password at this moment.
        let temporary = self.name().hidden("resume-tmp");
        durable::write(&directory.path, &temporary, &target, &file, Existing::Replace)
            .map_err(io_error("write", &directory.path.join(&target)))?;
        Ok(())
    }
}

impl WalletDirectory {
    /// The wallet that can be opened without its password, if there is one. Blocking.
    #[must_use]
    pub fn sealed(&self, key: &SealingKey) -> Option<Sealed> {
        self.list().into_iter().find_map(|name| {
            let name: WalletName = name.parse().ok()?;
            let (_, note) = unseal(key, &name, &self.read_sealed(&name)?)?;
            Some(Sealed { name, note })
        })
    }

    fn read_sealed(&self, name: &WalletName) -> Option<Vec<u8>> {
        durable::read(&self.path.join(name.hidden("resume")), MAX_LEN).ok().flatten()
    }

    /// Opens a wallet without its password. Whether it is then used as the owner wants is the caller's to see to: see
    /// [`crate::service::SessionMode::MakerOnly`]. Blocking.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::WrongPassword`] when nothing is sealed for it with this key, or its password was
    /// changed since.
    pub fn open_sealed(
        &self,
        name: &WalletName,
        key: &SealingKey,
    ) -> Result<OpenedKeys, OpenError> {
        let lock = self.lock(name)?.ok_or(OpenError::InUse)?;
        let file = Zeroizing::new(self.read(name.as_str())?);
        let sealed = self.read_sealed(name).ok_or(OpenError::WrongPassword)?;
        let (file_key, _) = unseal(key, name, &sealed).ok_or(OpenError::WrongPassword)?;
        let opened = native::decode_with_key(&file, file_key)?;
        self.check_network(&opened.content)?;
        let native::Opened { content, dek, check } = opened;
        let home = Home { directory: self.clone(), native: true };
        OpenedKeys::new(name.clone(), content, self.network, dek, check, home, lock)
            .map_err(|error| seed_error(error).into())
    }

    /// No wallet can be opened without its password any more. Durable when this returns; does nothing when there is
    /// none. Blocking.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget_sealed(&self) -> Result<(), DirectoryError> {
        self.forget_sealed_but(None)
    }

    fn forget_sealed_but(&self, kept: Option<&str>) -> Result<(), DirectoryError> {
        let entries = std::fs::read_dir(&self.path).map_err(io_error("read", &self.path))?;
        let mut removed = false;
        for entry in entries {
            let entry = entry.map_err(io_error("read", &self.path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.starts_with('.') && SUFFIXES.iter().any(|end| name.ends_with(end));
            if !ours || Some(name) == kept {
                continue;
            }
            match std::fs::remove_file(entry.path()) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("remove", &entry.path())(error)),
            }
        }
        if removed {
            durable::sync_directory(&self.path).map_err(io_error("sync", &self.path))?;
        }
        Ok(())
    }
}
