//! Changing the password of a key file (`spec/api.md` Appendix C 20, `spec/wallet.md` 13.3).
//!
//! Only the key file is rewritten: the key of the stored data is in it and stays the same. The content is
//! taken from the file itself, so that nothing in it depends on what this process remembers.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::durable::Existing;
use super::opened::OpenedKeys;
use super::{DirectoryError, OpenError, WalletDirectory, WriteError};
use crate::file::kdf::PasswordCheck;
use crate::file::{FileError, native};
use crate::service::ServiceError;

/// Why the password was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangePasswordError {
    /// The current password is not this one.
    #[error("wrong password")]
    WrongPassword,
    /// A wallet without a password is not made.
    #[error("the new password is empty")]
    EmptyPassword,
    /// The wallet file is another program's and is kept as it is (`wallet.keep_legacy_keystore`): its
    /// password is that program's to change.
    #[error("the wallet file is another program's and is kept as it is")]
    KeptFile,
    /// The key file cannot be read, or is not the one that was opened.
    #[error(transparent)]
    Open(OpenError),
    /// The key derivation failed for want of memory.
    #[error(transparent)]
    File(FileError),
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Randomness,
    /// The file system refused; the old password stays.
    #[error(transparent)]
    Io(DirectoryError),
    /// The new password is the one now, but the file system could not promise to remember it: after a
    /// power cut it may be the old one again.
    #[error("the new password may be forgotten in a power cut")]
    NotDurable(#[source] DirectoryError),
    /// The wallet was locked meanwhile; nothing changed.
    #[error("the wallet is closed")]
    Closed,
}

impl From<ServiceError> for ChangePasswordError {
    fn from(_: ServiceError) -> Self {
        Self::Closed
    }
}

impl From<OpenError> for ChangePasswordError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::WrongPassword => Self::WrongPassword,
            OpenError::Unsupported(error) => Self::File(error),
            error => Self::Open(error),
        }
    }
}

/// An error, and the check of the password that counts now if it is not the old one.
pub(super) struct Failed {
    pub(super) check: Option<PasswordCheck>,
    pub(super) error: ChangePasswordError,
}

impl<E: Into<ChangePasswordError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { check: None, error: error.into() }
    }
}

/// Rewrites the key file of an opened wallet, whose lock the caller holds.
pub(super) fn change(
    directory: &WalletDirectory,
    keys: &OpenedKeys,
    current: &SecretString,
    new: &SecretString,
) -> Result<PasswordCheck, Failed> {
    if new.expose_secret().is_empty() {
        return Err(ChangePasswordError::EmptyPassword.into());
    }
    let name = keys.name();
    let file = Zeroizing::new(directory.read(name.as_str())?);
    let decoded = native::decode(&file, current.expose_secret().as_bytes());
    let native::Opened { content, dek, .. } = decoded.map_err(OpenError::from)?;
    // Somebody put another wallet there while this one was open.
    if content.entropy.as_slice() != keys.entropy() || *dek != *keys.dek() {
        return Err(OpenError::Damaged("its file was replaced by another one").into());
    }
    let (check, written) = directory
        .encode_native(&content, &dek, new)
        .map(|(bytes, check)| {
            let written = directory.put(name, name.as_str(), &bytes, Existing::Replace);
            (check, written.map_err(|error| (error, bytes)))
        })
        .map_err(|error| match error {
            WriteError::Randomness => ChangePasswordError::Randomness,
            WriteError::File(error) => ChangePasswordError::File(error),
            WriteError::Io(error) => ChangePasswordError::Io(error),
        })?;
    let Err((error, bytes)) = written else { return Ok(check) };
    // What has the name now decides: only the very last step can fail after the renaming.
    if directory.read(name.as_str()).is_ok_and(|found| found == bytes) {
        return Err(Failed { check: Some(check), error: ChangePasswordError::NotDurable(error) });
    }
    Err(ChangePasswordError::Io(error).into())
}
