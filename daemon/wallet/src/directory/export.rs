//! A copy of a wallet for other JoinMarket programs (`spec/wallet.md` 13.3).

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::durable::{self, Existing};
use super::{DirectoryError, OpenError, WalletDirectory, WalletName, WriteError, io_error, random};
use crate::file::{FileError, Format, jmdat_export};
use crate::service::{ServiceError, export_of};
use crate::store::{self, StoreError};

/// Why a wallet was not exported. No file was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The target exists; it is not touched.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// The target has no file name.
    #[error("{} is not a file name", .0.display())]
    BadTarget(PathBuf),
    /// The wallet file is another program's, and was never unlocked here: it can be copied as it is.
    #[error("the wallet file is another program's and was never unlocked here: copy it as it is")]
    NeverOpened,
    /// The wallet cannot be opened; [`OpenError::InUse`] also while a daemon has it unlocked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its stored data cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its stored data does not fit its keys.
    #[error(transparent)]
    Wallet(#[from] ServiceError),
    /// The key derivation failed.
    #[error(transparent)]
    File(FileError),
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Randomness,
    /// The target cannot be written.
    #[error(transparent)]
    Io(#[from] DirectoryError),
}

impl From<WriteError> for ExportError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Randomness => Self::Randomness,
            WriteError::File(error) => Self::File(error),
            WriteError::Io(error) => Self::Io(error),
        }
    }
}

impl WalletDirectory {
    /// Writes a wallet that is not unlocked anywhere as an encrypted `.jmdat` of the reference, under
    /// the same password: seed and extension, network, indexes, coins, freeze flags, labels, imported
    /// keys. Used commitments and payments under way have no place in that format.
    ///
    /// The file is new, durable when this returns, and readable by the user alone. The wallet itself
    /// stays as it is. Blocking: two key derivations.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn export(
        &self,
        name: &WalletName,
        password: &SecretString,
        target: &Path,
    ) -> Result<(), ExportError> {
        let Some(file_name) = target.file_name() else {
            return Err(ExportError::BadTarget(target.to_owned()));
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Whatever it is; asked again, without a gap, when the file gets its name.
        if fs::symlink_metadata(target).is_ok() {
            return Err(ExportError::Exists(target.to_owned()));
        }
        let kept = fs::symlink_metadata(self.path.join(name.beside("key"))).is_ok();
        if !kept && Format::sniff(&self.read(name.as_str())?) != Format::Native {
            return Err(ExportError::NeverOpened);
        }
        // Reading must not convert anything.
        let keys = self.clone().keep_legacy(true).open(name, password)?;
        let mut store = store::open(keys.store_paths().clone(), keys.dek())?;
        let export = export_of(&keys, store.as_mut())?;
        let random = jmdat_export::Randomness { salt: random()?, iv: random()? };
        let file = jmdat_export::encode(&export, password.expose_secret().as_bytes(), &random)
            .map_err(ExportError::File)?;
        // Somebody else's directory: a name that nobody has.
        let temporary = format!(".joinery-export-{}.tmp", hex::encode(self::random::<16>()?));
        durable::write(parent, &temporary, file_name, &file, Existing::Keep).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                ExportError::Exists(target.to_owned())
            } else {
                ExportError::Io(io_error("write", target)(error))
            }
        })
    }
}
