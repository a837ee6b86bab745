//! Key files: ours (`JOINWLT1`) and those of the reference wallet and of joinmarket-ng
//! (`spec/wallet.md` 4 and 13.3, vectors `jmdat_files.json` and `ng_wallet_file.json`).
//!
//! Everything here works on bytes in memory; [`crate::directory`] owns the files. All foreign bytes are
//! bounded before they are used, and no input makes a parser panic.

mod bencode;
pub(crate) mod jmdat;
pub(crate) mod jmdat_export;
pub(crate) mod kdf;
pub(crate) mod native;
pub(crate) mod ng;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bdk_wallet::bitcoin::OutPoint;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::kdf::KdfParams;
use crate::keys::ImportedKeys;
use crate::types::{Network, WalletType};

/// Largest key file that is read, bytes. A legacy file with a full address cache has about 1 MB.
pub const MAX_FILE_LEN: u64 = 16 * 1024 * 1024;

/// Highest mixdepth that is taken over from a file; each one costs two watched branches.
pub(crate) const MAX_MIXDEPTH: u8 = 99;

/// Highest index that is taken over from a file: no wallet has handed out a million addresses of one
/// branch, and every address below the index must be derived and watched.
pub(crate) const MAX_INDEX: u32 = 1_000_000;

/// Why the content of a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// No known container.
    #[error("not a wallet file")]
    NotAWallet,
    /// The password does not open it.
    #[error("wrong password")]
    WrongPassword,
    /// It is a wallet file, but not a whole one.
    #[error("wallet file is damaged: {0}")]
    Damaged(&'static str),
    /// A wallet of a kind that cannot be opened here.
    #[error("wallets of type {0} are not supported")]
    UnsupportedType(String),
    /// Written by a newer program.
    #[error("wallet file has version {0}, which this program does not know")]
    UnsupportedVersion(u8),
    /// The file demands a key derivation that would exhaust the machine.
    #[error("wallet file demands a key derivation beyond the limits of this program")]
    ExcessiveKdf,
    /// There is not enough memory for the key derivation.
    #[error("not enough memory for the key derivation of {kib} KiB")]
    OutOfMemory {
        /// What it needs.
        kib: u32,
    },
}

/// The format of a key file, by its first bytes (`spec/wallet.md` 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `JOINWLT1`.
    Native,
    /// `JMENCWLT` or `JMWALLET`.
    Jmdat,
    /// `JMNG`, or its older form without magic.
    Ng,
}

impl Format {
    /// Tells the format by the first bytes; what has no magic can only be the old joinmarket-ng form.
    #[must_use]
    pub fn sniff(bytes: &[u8]) -> Self {
        if bytes.starts_with(native::MAGIC) {
            Self::Native
        } else if bytes.starts_with(jmdat::MAGIC_ENCRYPTED) || bytes.starts_with(jmdat::MAGIC_CLEAR)
        {
            Self::Jmdat
        } else {
            Self::Ng
        }
    }
}

/// The chain that a file belongs to, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredNetwork {
    /// Exactly this one.
    Exactly(Network),
    /// `testnet` of the reference: any test network except signet, which has a name of its own.
    AnyTest,
    /// Not stored.
    Unknown,
}

impl StoredNetwork {
    pub(crate) fn allows(self, network: Network) -> bool {
        match self {
            Self::Exactly(stored) => stored == network,
            Self::AnyTest => {
                matches!(network, Network::Testnet | Network::Testnet4 | Network::Regtest)
            }
            Self::Unknown => true,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exactly(network) => network.name(),
            Self::AnyTest => "testnet",
            Self::Unknown => "unknown",
        }
    }
}

/// What a key file holds, whatever its format. Secrets are erased on drop.
pub(crate) struct Content {
    pub(crate) network: StoredNetwork,
    pub(crate) wallet_type: WalletType,
    /// BIP39 entropy, 16 to 32 bytes.
    pub(crate) entropy: Zeroizing<Vec<u8>>,
    pub(crate) extension: Option<Zeroizing<String>>,
    /// Seconds since epoch; 0 when unknown.
    pub(crate) created: u64,
    pub(crate) birth_height: Option<u32>,
    pub(crate) max_mixdepth: u8,
    pub(crate) imported: ImportedKeys,
    pub(crate) legacy: Option<LegacyFacts>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("network", &self.network)
            .field("wallet_type", &self.wallet_type)
            .finish_non_exhaustive()
    }
}

/// What another program's wallet file knew and the chain does not (`spec/wallet.md` 4.5).
///
/// It is kept in the native key file, so that it can be taken over again after any crash: whoever opens
/// the store records it once and remembers that in [`crate::store::Fact::Imported`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyFacts {
    /// Next index to hand out by (mixdepth, branch 0 or 1).
    pub next_unused: BTreeMap<(u8, u8), u32>,
    /// Freeze flags by coin, also explicit "not frozen".
    pub frozen: BTreeMap<OutPoint, bool>,
    /// Labels by address text.
    pub labels: BTreeMap<String, String>,
    /// Timenumbers of bonds that held coins.
    pub bonds: BTreeSet<u16>,
}

impl LegacyFacts {
    /// Whether there is nothing to take over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
