//! Small domain types that the whole crate shares.

use std::fmt;

use bdk_wallet::bitcoin;

/// Highest mixdepth of a wallet made by the API: five mixdepths, 0 to 4 (`spec/wallet.md` 1).
pub const DEFAULT_MAX_MIXDEPTH: u8 = 4;

/// An isolated account of the wallet. Coins of two mixdepths are never inputs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mixdepth(pub u8);

impl fmt::Display for Mixdepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A branch of a mixdepth that hands out ordinary addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// Branch 0: deposits.
    External,
    /// Branch 1: change and coinjoin outputs.
    Internal,
}

impl Branch {
    /// The BIP32 level: 0 or 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::External => 0,
            Self::Internal => 1,
        }
    }
}

/// One ranged script sequence of the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keychain {
    /// The account.
    pub mixdepth: Mixdepth,
    /// External or internal.
    pub branch: Branch,
}

/// The kind of wallet, as stored in wallet files (`spec/wallet.md` 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletType {
    /// Id 1, API name `sw-legacy`: P2SH-P2WPKH, BIP49.
    NestedSegwit,
    /// Id 2, API name `sw`: P2WPKH, BIP84.
    NativeSegwit,
    /// Id 5, API name `sw-fb`: as id 2, plus timelocked scripts in mixdepth 0.
    FidelityBond,
}

impl WalletType {
    /// The numeric id of wallet files.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::NestedSegwit => 1,
            Self::NativeSegwit => 2,
            Self::FidelityBond => 5,
        }
    }

    /// The type of a numeric id, if it is one that can be opened.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::NestedSegwit),
            2 => Some(Self::NativeSegwit),
            5 => Some(Self::FidelityBond),
            _ => None,
        }
    }

    /// The name used by the API: `sw-legacy`, `sw` or `sw-fb`.
    #[must_use]
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::NestedSegwit => "sw-legacy",
            Self::NativeSegwit => "sw",
            Self::FidelityBond => "sw-fb",
        }
    }

    /// The type of an API name.
    #[must_use]
    pub fn from_api_name(name: &str) -> Option<Self> {
        match name {
            "sw-legacy" => Some(Self::NestedSegwit),
            "sw" => Some(Self::NativeSegwit),
            "sw-fb" => Some(Self::FidelityBond),
            _ => None,
        }
    }

    /// BIP43 purpose: 49 for nested, 84 for native wallets.
    #[must_use]
    pub const fn purpose(self) -> u32 {
        match self {
            Self::NestedSegwit => 49,
            Self::NativeSegwit | Self::FidelityBond => 84,
        }
    }
}

/// The chain the daemon runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// Bitcoin.
    Mainnet,
    /// The third public test network; only wallet files name it.
    Testnet,
    /// BIP94 test network.
    Testnet4,
    /// BIP325 default signet.
    Signet,
    /// A private chain.
    Regtest,
}

impl Network {
    /// Name in configuration, native wallet files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The network of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "mainnet" => Some(Self::Mainnet),
            "testnet" => Some(Self::Testnet),
            "testnet4" => Some(Self::Testnet4),
            "signet" => Some(Self::Signet),
            "regtest" => Some(Self::Regtest),
            _ => None,
        }
    }

    /// BIP44 coin type: 0 on mainnet, 1 elsewhere.
    #[must_use]
    pub const fn coin_type(self) -> u32 {
        match self {
            Self::Mainnet => 0,
            _ => 1,
        }
    }

    /// The matching rust-bitcoin network (addresses, genesis).
    #[must_use]
    pub const fn bitcoin(self) -> bitcoin::Network {
        match self {
            Self::Mainnet => bitcoin::Network::Bitcoin,
            Self::Testnet => bitcoin::Network::Testnet,
            Self::Testnet4 => bitcoin::Network::Testnet4,
            Self::Signet => bitcoin::Network::Signet,
            Self::Regtest => bitcoin::Network::Regtest,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
