//! The keys of a wallet while it is open.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::WalletDirectory;
use super::lock::NameLock;
use super::name::WalletName;
use super::password::{self, ChangePasswordError};
use crate::file::kdf::PasswordCheck;
use crate::file::{Content, LegacyFacts};
use crate::keys::{KeyError, MasterKey};
use crate::mnemonic;
use crate::store::StorePaths;
use crate::types::{Network, WalletType};

/// Where the key file is.
pub(super) struct Home {
    pub(super) directory: WalletDirectory,
    /// It is in our own format; otherwise another program's file is kept as it is, beside a `.key` of
    /// ours.
    pub(super) native: bool,
}

/// An opened key file. Its secrets are erased and its lock is released on drop.
pub struct OpenedKeys {
    name: WalletName,
    master: MasterKey,
    entropy: Zeroizing<Vec<u8>>,
    phrase: SecretString,
    extension: Option<Zeroizing<String>>,
    created: u64,
    birth_height: Option<u32>,
    max_mixdepth: u8,
    dek: Zeroizing<[u8; 32]>,
    pub(super) check: ArcSwap<PasswordCheck>,
    legacy: Option<LegacyFacts>,
    paths: StorePaths,
    pub(super) home: Home,
    /// Held while the file is rewritten.
    changing: Mutex<()>,
    /// Last: everything else is gone when the next one gets the lock.
    _lock: NameLock,
}

impl fmt::Debug for OpenedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedKeys")
            .field("name", &self.name)
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}

impl OpenedKeys {
    pub(super) fn new(
        name: WalletName,
        content: Content,
        network: Network,
        dek: Zeroizing<[u8; 32]>,
        check: PasswordCheck,
        home: Home,
        lock: NameLock,
    ) -> Result<Self, KeyError> {
        let master = MasterKey::from_entropy(
            &content.entropy,
            content.extension.as_ref().map(|text| text.as_str()),
            content.wallet_type,
            network,
            content.imported,
        )?;
        let paths = home.directory.store_paths(&name);
        Ok(Self {
            name,
            master,
            phrase: mnemonic::phrase_of_entropy(&content.entropy)?,
            entropy: content.entropy,
            extension: content.extension,
            created: content.created,
            birth_height: content.birth_height,
            max_mixdepth: content.max_mixdepth,
            dek,
            check: ArcSwap::from_pointee(check),
            legacy: content.legacy.filter(|legacy| !legacy.is_empty()),
            paths,
            home,
            changing: Mutex::new(()),
            _lock: lock,
        })
    }

    /// File name of the wallet.
    #[must_use]
    pub const fn name(&self) -> &WalletName {
        &self.name
    }

    /// The private keys.
    #[must_use]
    pub const fn master(&self) -> &MasterKey {
        &self.master
    }

    /// The kind of wallet.
    #[must_use]
    pub const fn wallet_type(&self) -> WalletType {
        self.master.wallet_type()
    }

    /// The chain.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.master.network()
    }

    /// Highest mixdepth of the file: all of them are watched.
    #[must_use]
    pub const fn max_mixdepth(&self) -> u8 {
        self.max_mixdepth
    }

    /// When the wallet was made, seconds since epoch; 0 when unknown.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.created
    }

    /// Block height below which the wallet cannot have coins, if known.
    #[must_use]
    pub const fn birth_height(&self) -> Option<u32> {
        self.birth_height
    }

    /// Key of the wallet's stored data, 32 bytes.
    #[must_use]
    pub fn dek(&self) -> &[u8; 32] {
        &self.dek
    }

    /// BIP39 entropy, 16 to 32 bytes.
    #[must_use]
    pub fn entropy(&self) -> &[u8] {
        &self.entropy
    }

    /// The recovery words, separated by single spaces.
    #[must_use]
    pub fn phrase(&self) -> SecretString {
        self.phrase.clone()
    }

    /// The BIP39 extension, if the wallet has one. Secret.
    #[must_use]
    pub fn extension(&self) -> Option<&str> {
        self.extension.as_ref().map(|text| text.as_str())
    }

    /// Whether this is the password of the wallet. Costs one key derivation (blocking, up to seconds);
    /// the comparison takes constant time. False also when there is no memory for the derivation.
    #[must_use]
    pub fn verify_password(&self, password: &SecretString) -> bool {
        match self.check.load_full().verify(password.expose_secret().as_bytes()) {
            Ok(matches) => matches,
            Err(error) => {
                tracing::error!(%error, "password cannot be checked");
                false
            }
        }
    }

    /// Gives the key file another password. Durable when this returns; a crash at any moment leaves a file
    /// that opens with the old or with the new one. Nothing else of the wallet changes. Blocking: two key
    /// derivations.
    ///
    /// # Errors
    /// See [`ChangePasswordError`]; unless it says otherwise the old password still is the one.
    pub fn change_password(
        &self,
        current: &SecretString,
        new: &SecretString,
    ) -> Result<(), ChangePasswordError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.home.native {
            return Err(ChangePasswordError::KeptFile);
        }
        let changed = password::change(&self.home.directory, self, current, new);
        let (check, outcome) = match changed {
            Ok(check) => (check, Ok(())),
            Err(password::Failed { check: Some(check), error }) => (check, Err(error)),
            Err(password::Failed { check: None, error }) => return Err(error),
        };
        self.check.store(Arc::new(check));
        outcome
    }

    /// What another program's wallet file knew. Whoever opens the store records it once, and remembers
    /// that in [`crate::store::Fact::Imported`]; it is returned again at every opening.
    #[must_use]
    pub const fn legacy(&self) -> Option<&LegacyFacts> {
        self.legacy.as_ref()
    }

    /// Where the wallet's store lives.
    #[must_use]
    pub const fn store_paths(&self) -> &StorePaths {
        &self.paths
    }
}
