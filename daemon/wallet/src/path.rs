//! Where a script of the wallet comes from, and how that is written (`spec/wallet.md` 2).

use std::fmt;

use crate::types::{Branch, Keychain, Mixdepth};

/// The place of one script in the wallet, without purpose and coin type (the wallet knows those).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptPlace {
    /// `m/P'/C'/MIXDEPTH'/BRANCH/INDEX`.
    Ranged {
        /// Mixdepth and branch.
        keychain: Keychain,
        /// BIP32 child index.
        index: u32,
    },
    /// `m/84'/C'/0'/2/TIMENUMBER:LOCKTIME`, only in mixdepth 0 of `sw-fb` wallets.
    Bond {
        /// Month index since January 2020, 0 to 959.
        timenumber: u16,
    },
    /// `imported/MIXDEPTH/INDEX`.
    Imported {
        /// The account it was imported into.
        mixdepth: Mixdepth,
        /// Position in the list of imported keys of that account.
        index: u32,
    },
}

impl ScriptPlace {
    /// The account whose coins may be spent together with this one.
    #[must_use]
    pub const fn mixdepth(&self) -> Mixdepth {
        match self {
            Self::Ranged { keychain, .. } => keychain.mixdepth,
            Self::Bond { .. } => Mixdepth(0),
            Self::Imported { mixdepth, .. } => *mixdepth,
        }
    }

    /// Whether this is a timelocked (fidelity bond) script.
    #[must_use]
    pub const fn is_bond(&self) -> bool {
        matches!(self, Self::Bond { .. })
    }

    /// The branch, for ranged scripts.
    #[must_use]
    pub const fn branch(&self) -> Option<Branch> {
        match self {
            Self::Ranged { keychain, .. } => Some(keychain.branch),
            _ => None,
        }
    }

    /// The path as shown to users, e.g. `m/84'/1'/0'/0/3`, `m/84'/0'/0'/2/100:1840752000` or
    /// `imported/2/0`.
    #[must_use]
    pub fn display(&self, purpose: u32, coin_type: u32) -> String {
        match self {
            Self::Ranged { keychain, index } => format!(
                "m/{purpose}'/{coin_type}'/{}'/{}/{index}",
                keychain.mixdepth,
                keychain.branch.number()
            ),
            Self::Bond { timenumber } => {
                let locktime = joinery_proto::fidelity_bond::locktime_of_month(*timenumber);
                format!("m/{purpose}'/{coin_type}'/0'/2/{timenumber}:{locktime}")
            }
            Self::Imported { mixdepth, index } => format!("imported/{mixdepth}/{index}"),
        }
    }
}

impl fmt::Display for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mixdepth, self.branch.number())
    }
}
