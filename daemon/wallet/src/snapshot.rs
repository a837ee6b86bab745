//! The immutable view of a wallet that every reader uses (`spec/wallet.md` 13.2, 14).
//!
//! The wallet task builds a new [`Snapshot`] after each change and swaps it in; readers never wait for
//! the task, the store or the network.

use std::sync::Arc;

use bdk_wallet::bitcoin::{Address, Amount, OutPoint, ScriptBuf, bip32::Fingerprint};

use crate::chain::ChainTip;
use crate::path::ScriptPlace;
use crate::round::Round;
use crate::types::{Branch, Keychain, Mixdepth, Network, WalletType};

/// What a coin is to its history (`spec/wallet.md` 6.2, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CoinKind {
    /// Equal amount output of a coinjoin.
    CoinjoinOutput,
    /// Another output of a coinjoin.
    CoinjoinChange,
    /// On the internal branch, not from a coinjoin.
    Change,
    /// Anything else.
    Deposit,
}

/// One unspent output of the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Value.
    pub value: Amount,
    /// scriptPubKey.
    pub script: ScriptBuf,
    /// Where its key comes from.
    pub place: ScriptPlace,
    /// Height of the confirming block; `None` while in the mempool.
    pub height: Option<u32>,
    /// Role in its transaction.
    pub kind: CoinKind,
    /// Frozen by the user or automatically.
    pub frozen: bool,
    /// Held by a running operation (a send being built, a coinjoin).
    pub locked: bool,
    /// Lock time of a bond, seconds since epoch.
    pub locktime: Option<u32>,
    /// NUMS indexes of the PoDLE commitments that were used with this coin, ascending.
    pub commitments_used: Vec<u8>,
}

impl Coin {
    /// Confirmations at a tip: 0 in the mempool, else `tip - height + 1`.
    #[must_use]
    pub fn confirmations(&self, tip: Option<u32>) -> u32 {
        match (self.height, tip) {
            (Some(height), Some(tip)) if tip >= height => tip - height + 1,
            // A coin in a block that is above the tip we know has at least that one confirmation.
            (Some(_), _) => 1,
            (None, _) => 0,
        }
    }

    /// The account.
    #[must_use]
    pub const fn mixdepth(&self) -> Mixdepth {
        self.place.mixdepth()
    }

    /// PoDLE tries that are spent: indexes are used in order, so one more than the highest used one
    /// (`spec/roles.md` 3.7).
    #[must_use]
    pub fn tries(&self) -> u8 {
        self.commitments_used.last().map_or(0, |index| index.saturating_add(1))
    }
}

/// One script of the wallet as the display needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressView {
    /// Where its key comes from.
    pub place: ScriptPlace,
    /// The address text.
    pub address: Arc<str>,
    /// User label, empty if none.
    pub label: Arc<str>,
    /// Indexes into [`Snapshot::coins`] of the coins on this address.
    pub coins: Vec<usize>,
}

/// One ranged branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchView {
    /// Mixdepth and branch.
    pub keychain: Keychain,
    /// Extended public key of the branch, `xpub…` or `tpub…`.
    pub xpub: Arc<str>,
    /// Count of addresses ever handed out or seen used.
    pub next_unused: u32,
    /// Addresses with coins, and on the external branch the `gap_limit` new ones from `next_unused`,
    /// ascending by index.
    pub addresses: Vec<AddressView>,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// The mixdepth.
    pub mixdepth: Mixdepth,
    /// External and internal branch.
    pub branches: Vec<BranchView>,
    /// Timelocked scripts with coins and their branch xpub (mixdepth 0 of `sw-fb` only).
    pub bonds: Option<(Arc<str>, Vec<AddressView>)>,
    /// Branch xpub of the burn branch (mixdepth 0 of `sw-fb` only).
    pub burn_xpub: Option<Arc<str>>,
    /// Imported keys of this account.
    pub imported: Vec<AddressView>,
}

/// How far the wallet is with the chain.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SyncView {
    /// A complete sync has been made at some time and is stored.
    pub ever_complete: bool,
    /// A complete sync has been made since the wallet was opened.
    pub complete: bool,
    /// Progress 0..1 of the first sync or of a rescan; `None` when neither runs.
    pub scanning: Option<f64>,
    /// The last scan ended with an error.
    pub failed: bool,
}

/// The wallet at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub revision: u64,
    /// The chain.
    pub network: Network,
    /// The kind of wallet.
    pub wallet_type: WalletType,
    /// BIP32 master fingerprint.
    pub fingerprint: Fingerprint,
    /// Best block known to the wallet.
    pub tip: Option<ChainTip>,
    /// Sync state.
    pub sync: SyncView,
    /// Gap limit captured when the wallet was opened.
    pub gap_limit: u32,
    /// Unspent outputs, ascending by mixdepth, then by place and outpoint.
    pub coins: Vec<Coin>,
    /// Accounts, ascending.
    pub accounts: Vec<AccountView>,
    /// Coinjoin rounds, ascending by number: all that are not over, and the newest
    /// [`MAX_KEPT_ROUNDS`](crate::round::MAX_KEPT_ROUNDS) that are.
    pub rounds: Arc<Vec<Arc<Round>>>,
}

impl Snapshot {
    /// Height of the best known block.
    #[must_use]
    pub fn height(&self) -> Option<u32> {
        self.tip.map(|tip| tip.height)
    }

    /// Highest mixdepth of the wallet.
    #[must_use]
    pub fn max_mixdepth(&self) -> Mixdepth {
        self.accounts.last().map_or(Mixdepth(0), |account| account.mixdepth)
    }

    /// Whether an address is one of those that the wallet shows: with coins, or new ones.
    #[must_use]
    pub fn owns(&self, address: &Address) -> bool {
        let text = address.to_string();
        let shown = |views: &[AddressView]| views.iter().any(|view| *view.address == *text);
        self.accounts.iter().any(|account| {
            account.branches.iter().any(|branch| shown(&branch.addresses))
                || account.bonds.as_ref().is_some_and(|(_, views)| shown(views))
                || shown(&account.imported)
        })
    }

    /// The branch of a keychain.
    #[must_use]
    pub fn branch(&self, mixdepth: Mixdepth, branch: Branch) -> Option<&BranchView> {
        self.accounts
            .iter()
            .find(|account| account.mixdepth == mixdepth)?
            .branches
            .iter()
            .find(|view| view.keychain.branch == branch)
    }
}
