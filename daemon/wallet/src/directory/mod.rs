//! The directory of wallet files: create, recover, open, list (`spec/wallet.md` 3, 4.5, 13.3;
//! `spec/api.md` 6.4 to 6.7).
//!
//! Every call blocks, some for seconds: the key derivation is meant to be slow. Files are durable before
//! a call returns. Files beside `NAME.jmdat`: `.NAME.jmdat.flock` (lock), `.NAME.jmdat.tmp` (while
//! writing), `.NAME.jmdat.db`, `.journal` and `.chain` (the store), `NAME.jmdat.imported-TIME` (another
//! program's file before it was converted), `NAME.jmdat.key` (our part when that file is kept),
//! `.NAME.jmdat.resume` (the file's key as the machine keeps it while a maker is to come back by itself).

mod durable;
mod export;
mod lock;
mod name;
mod opened;
mod password;
mod sealed;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::durable::Existing;
pub use self::export::ExportError;
use self::lock::NameLock;
pub use self::name::{WalletName, WalletNameError};
use self::opened::Home;
pub use self::opened::OpenedKeys;
pub use self::password::ChangePasswordError;
pub use self::sealed::{MAX_NOTE, SealError, Sealed, SealingKey};
use crate::file::{
    Content, FileError, Format, KdfParams, MAX_FILE_LEN, StoredNetwork, jmdat, native, ng,
};
use crate::keys::{ImportedKeys, KeyError};
use crate::mnemonic::{self, PhraseError};
use crate::store::StorePaths;
use crate::types::{DEFAULT_MAX_MIXDEPTH, Network, WalletType};

/// Longest BIP39 extension of a new wallet, bytes.
pub const MAX_EXTENSION_LEN: usize = 1024;

/// The file system or the machine failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct DirectoryError {
    /// What was attempted.
    pub action: &'static str,
    /// File or directory.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Why a wallet was not created or recovered. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Something of that name exists; it is not touched.
    #[error("a file with this name exists")]
    AlreadyExists,
    /// Another process, or this one, works with a wallet of that name.
    #[error("the wallet name is in use")]
    InUse,
    /// The recovery phrase is not valid.
    #[error(transparent)]
    BadPhrase(#[from] PhraseError),
    /// The extension is longer than [`MAX_EXTENSION_LEN`].
    #[error("mnemonic extension is longer than {MAX_EXTENSION_LEN} bytes")]
    ExtensionTooLong,
    /// A wallet without a password is not made.
    #[error("the password is empty")]
    EmptyPassword,
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Randomness,
    /// The key derivation failed for want of memory.
    #[error(transparent)]
    File(FileError),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] DirectoryError),
}

/// Why a wallet was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No file of that name.
    #[error("wallet file does not exist")]
    NotFound,
    /// Another process, or this one, has it open.
    #[error("the wallet is in use")]
    InUse,
    /// Not a regular file, or not one with wallet content.
    #[error("not a wallet file")]
    NotAWallet,
    /// It belongs to another chain.
    #[error("the wallet belongs to network {found}, the daemon runs on {expected}")]
    WrongNetwork {
        /// As stored in the file.
        found: &'static str,
        /// As configured.
        expected: Network,
    },
    /// The password does not open it.
    #[error("wrong password")]
    WrongPassword,
    /// A wallet of a kind or version that cannot be opened here, or a file that demands too much.
    #[error(transparent)]
    Unsupported(FileError),
    /// A wallet file that is not whole.
    #[error("wallet file is damaged: {0}")]
    Damaged(&'static str),
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Randomness,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] DirectoryError),
}

impl From<FileError> for OpenError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::NotAWallet => Self::NotAWallet,
            FileError::WrongPassword => Self::WrongPassword,
            FileError::Damaged(what) => Self::Damaged(what),
            other => Self::Unsupported(other),
        }
    }
}

/// Random bytes failed, or everything else that creating and opening share.
enum WriteError {
    Randomness,
    File(FileError),
    Io(DirectoryError),
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Randomness => Self::Randomness,
            WriteError::File(error) => error.into(),
            WriteError::Io(error) => Self::Io(error),
        }
    }
}

impl From<WriteError> for CreateError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Randomness => Self::Randomness,
            WriteError::File(error) => Self::File(error),
            WriteError::Io(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                Self::AlreadyExists
            }
            WriteError::Io(error) => Self::Io(error),
        }
    }
}

/// `<data directory>/wallets`.
#[derive(Debug, Clone)]
pub struct WalletDirectory {
    path: PathBuf,
    network: Network,
    kdf: KdfParams,
    keep_legacy: bool,
}

fn random<const N: usize>() -> Result<[u8; N], WriteError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| WriteError::Randomness)?;
    Ok(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError { action, path, source }
}

impl WalletDirectory {
    /// Uses a directory, which is made with mode 0700 if it is missing. `kdf` is the cost of new files.
    ///
    /// # Errors
    /// The directory cannot be made, or something else has its name.
    pub fn new(path: PathBuf, network: Network, kdf: KdfParams) -> Result<Self, DirectoryError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io_error("create directory", &path))?;
        let metadata = fs::metadata(&path).map_err(io_error("read", &path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            // Made by another program or by hand; the names of wallets are nobody else's business.
            if let Err(error) = fs::set_permissions(&path, fs::Permissions::from_mode(0o700)) {
                warn!(path = %path.display(), %error, "wallet directory is accessible to others");
            }
        }
        Ok(Self { path, network, kdf, keep_legacy: false })
    }

    /// Whether another program's wallet file stays as it is when it is opened, instead of being
    /// converted at the first unlock (`wallet.keep_legacy_keystore`).
    #[must_use]
    pub fn keep_legacy(mut self, keep: bool) -> Self {
        self.keep_legacy = keep;
        self
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The chain whose wallets are opened.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// File names of the wallets, sorted bytewise: regular files whose name is a [`WalletName`].
    /// Directories, links and unfinished files are not listed. Empty when the directory is unreadable.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.parse::<WalletName>().is_ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Makes a wallet with a new seed of 12 words from the operating system's randomness.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn create(
        &self,
        name: &WalletName,
        password: &SecretString,
        wallet_type: WalletType,
        extension: Option<&str>,
    ) -> Result<OpenedKeys, CreateError> {
        let entropy = Zeroizing::new(random::<{ mnemonic::NEW_ENTROPY_LEN }>()?);
        let entropy = Zeroizing::new(entropy.to_vec());
        self.make(name, password, wallet_type, entropy, extension, now())
    }

    /// Makes a wallet from a recovery phrase of 12 to 24 words.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn recover(
        &self,
        name: &WalletName,
        password: &SecretString,
        wallet_type: WalletType,
        phrase: &str,
        extension: Option<&str>,
    ) -> Result<OpenedKeys, CreateError> {
        let entropy = mnemonic::entropy_of_phrase(phrase)?;
        // When the seed was made is unknown; the chain tells.
        self.make(name, password, wallet_type, entropy, extension, 0)
    }

    fn make(
        &self,
        name: &WalletName,
        password: &SecretString,
        wallet_type: WalletType,
        entropy: Zeroizing<Vec<u8>>,
        extension: Option<&str>,
        created: u64,
    ) -> Result<OpenedKeys, CreateError> {
        if password.expose_secret().is_empty() {
            return Err(CreateError::EmptyPassword);
        }
        let extension = extension.filter(|text| !text.is_empty());
        if extension.is_some_and(|text| text.len() > MAX_EXTENSION_LEN) {
            return Err(CreateError::ExtensionTooLong);
        }
        let target = self.path.join(name.as_str());
        // Whatever it is, also a directory or a link that leads nowhere.
        let exists = || fs::symlink_metadata(&target).is_ok();
        if exists() {
            return Err(CreateError::AlreadyExists);
        }
        let lock = self.lock(name)?.ok_or(CreateError::InUse)?;
        if exists() {
            return Err(CreateError::AlreadyExists);
        }
        let content = Content {
            network: StoredNetwork::Exactly(self.network),
            wallet_type,
            entropy,
            extension: extension.map(|text| Zeroizing::new(text.to_owned())),
            created,
            birth_height: None,
            max_mixdepth: DEFAULT_MAX_MIXDEPTH,
            imported: ImportedKeys::default(),
            legacy: None,
        };
        self.move_leftovers_aside(name)?;
        let dek = Zeroizing::new(random::<32>()?);
        let check =
            self.write_native(name, &content, &dek, password, name.as_str(), Existing::Keep)?;
        let home = Home { directory: self.clone(), native: true };
        OpenedKeys::new(name.clone(), content, self.network, dek, check, home, lock)
            .map_err(|error| CreateError::File(seed_error(error)))
    }

    /// Opens a wallet. A file of another program is converted at its first opening, after a copy of it
    /// was made (`spec/wallet.md` 4.5), unless such files are to be kept.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &self,
        name: &WalletName,
        password: &SecretString,
    ) -> Result<OpenedKeys, OpenError> {
        let target = self.path.join(name.as_str());
        // Before the lock, so that made-up names leave no lock files behind.
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(OpenError::NotAWallet),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NotFound);
            }
            Err(error) => return Err(io_error("read", &target)(error).into()),
        }
        let lock = self.lock(name)?.ok_or(OpenError::InUse)?;
        let file = Zeroizing::new(self.read(name.as_str())?);
        if password.expose_secret().is_empty() {
            return Err(OpenError::WrongPassword);
        }
        let secret = password.expose_secret().as_bytes();
        let format = Format::sniff(&file);
        let native = format == Format::Native || !self.keep_legacy;
        let opened = match format {
            Format::Native => native::decode(&file, secret)?,
            other => {
                let content = match other {
                    Format::Jmdat => jmdat::decode(&file, secret)?,
                    _ => ng::decode(&file, secret)?,
                };
                self.check_network(&content)?;
                self.adopt(name, content, &file, password)?
            }
        };
        self.check_network(&opened.content)?;
        let native::Opened { content, dek, check } = opened;
        let home = Home { directory: self.clone(), native };
        OpenedKeys::new(name.clone(), content, self.network, dek, check, home, lock)
            .map_err(|error| seed_error(error).into())
    }

    fn check_network(&self, content: &Content) -> Result<(), OpenError> {
        if content.network.allows(self.network) {
            return Ok(());
        }
        Err(OpenError::WrongNetwork { found: content.network.name(), expected: self.network })
    }

    /// Gives another program's wallet a native key file.
    fn adopt(
        &self,
        name: &WalletName,
        content: Content,
        file: &[u8],
        password: &SecretString,
    ) -> Result<native::Opened, OpenError> {
        let mut dek = Zeroizing::new(random::<32>()?);
        if self.keep_legacy {
            let key_name = name.beside("key");
            return match fs::symlink_metadata(self.path.join(&key_name)) {
                Ok(_) => {
                    let key_file = Zeroizing::new(self.read(&key_name)?);
                    let own = native::decode(&key_file, password.expose_secret().as_bytes())?;
                    if own.content.entropy != content.entropy {
                        return Err(OpenError::Damaged("its .key file belongs to another seed"));
                    }
                    Ok(native::Opened { content, dek: own.dek, check: own.check })
                }
                Err(_) => {
                    let check = self.write_native(
                        name,
                        &content,
                        &dek,
                        password,
                        &key_name,
                        Existing::Keep,
                    )?;
                    Ok(native::Opened { content, dek, check })
                }
            };
        }
        // A wallet that was kept before has a data key already: its store must stay readable.
        let key_name = name.beside("key");
        if fs::symlink_metadata(self.path.join(&key_name)).is_ok() {
            let key_file = Zeroizing::new(self.read(&key_name)?);
            let own = native::decode(&key_file, password.expose_secret().as_bytes())?;
            if own.content.entropy == content.entropy {
                dek = own.dek;
            }
        } else {
            self.move_leftovers_aside(name)?;
        }
        let copy = name.beside(&format!("imported-{}", now()));
        let temporary = name.hidden("tmp");
        match durable::write(&self.path, &temporary, &copy, file, Existing::Keep) {
            // A second attempt within one second after a crash: the copy is already there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.read(&copy)? != file {
                    let path = self.path.join(&copy);
                    return Err(io_error("copy the old wallet file to", &path)(error).into());
                }
            }
            result => result.map_err(io_error("write", &self.path.join(&copy)))?,
        }
        let check =
            self.write_native(name, &content, &dek, password, name.as_str(), Existing::Replace)?;
        info!(wallet = %name, %copy, "wallet file of another program was converted");
        Ok(native::Opened { content, dek, check })
    }

    fn write_native(
        &self,
        name: &WalletName,
        content: &Content,
        dek: &[u8; 32],
        password: &SecretString,
        target: &str,
        existing: Existing,
    ) -> Result<crate::file::kdf::PasswordCheck, WriteError> {
        let (file, check) = self.encode_native(content, dek, password)?;
        self.put(name, target, &file, existing).map_err(WriteError::Io)?;
        Ok(check)
    }

    /// Encrypts a native key file with fresh salt and nonce.
    fn encode_native(
        &self,
        content: &Content,
        dek: &[u8; 32],
        password: &SecretString,
    ) -> Result<(Vec<u8>, crate::file::kdf::PasswordCheck), WriteError> {
        let random = native::Randomness { salt: random()?, nonce: random()? };
        let secret = password.expose_secret().as_bytes();
        native::encode(content, self.network, dek, secret, self.kdf, &random)
            .map_err(WriteError::File)
    }

    /// Writes a file of the wallet through its temporary file.
    fn put(
        &self,
        name: &WalletName,
        target: &str,
        bytes: &[u8],
        existing: Existing,
    ) -> Result<(), DirectoryError> {
        durable::write(&self.path, &name.hidden("tmp"), target, bytes, existing)
            .map_err(io_error("write", &self.path.join(target)))
    }

    fn read(&self, file_name: &str) -> Result<Vec<u8>, OpenError> {
        let path = self.path.join(file_name);
        match durable::read(&path, MAX_FILE_LEN) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(OpenError::NotAWallet),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::NotFound),
            Err(error) => Err(io_error("read", &path)(error).into()),
        }
    }

    /// Takes the lock of a name; `None` when it is held, also by the reference wallet.
    fn lock(&self, name: &WalletName) -> Result<Option<NameLock>, DirectoryError> {
        let path = self.path.join(name.hidden("flock"));
        let Some(lock) = NameLock::take(&path).map_err(io_error("lock", &path))? else {
            return Ok(None);
        };
        // The reference's own rule for the name, which has no limit for long names.
        let theirs = self.path.join(format!(".{name}.lock"));
        match lock::held_by_reference(&theirs) {
            Ok(None) => Ok(Some(lock)),
            Ok(Some(pid)) => {
                warn!(wallet = %name, pid, "another program has the wallet open");
                Ok(None)
            }
            // A name that is too long for a lock file has none.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => Ok(Some(lock)),
            Err(error) => Err(io_error("read", &theirs)(error)),
        }
    }

    fn store_paths(&self, name: &WalletName) -> StorePaths {
        StorePaths {
            db: self.path.join(name.hidden("db")),
            journal: self.path.join(name.hidden("journal")),
            snapshot: self.path.join(name.hidden("chain")),
        }
    }

    /// Moves the store of a removed wallet of this name away: a new wallet has another data key and must
    /// neither read nor overwrite it.
    fn move_leftovers_aside(&self, name: &WalletName) -> Result<(), DirectoryError> {
        let time = now();
        let mut moved = false;
        for suffix in ["db", "journal", "chain"] {
            let from = self.path.join(name.hidden(suffix));
            if fs::symlink_metadata(&from).is_err() {
                continue;
            }
            // The first free number; two wallets may be removed within one second.
            for attempt in 0..1000_u32 {
                let to = self.path.join(name.hidden(&format!("{suffix}.old-{time}-{attempt}")));
                match durable::rename_if_free(&from, &to) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    result => {
                        result.map_err(io_error("move aside", &from))?;
                        moved = true;
                        break;
                    }
                }
            }
        }
        if moved {
            warn!(wallet = %name, "stored data of an earlier wallet of this name was moved aside");
            durable::sync_directory(&self.path).map_err(io_error("sync", &self.path))?;
        }
        Ok(())
    }
}

/// Keys fail only for an entropy of impossible length.
fn seed_error(error: KeyError) -> FileError {
    debug_assert!(matches!(error, KeyError::Phrase(_)));
    FileError::Damaged("length of the entropy")
}
