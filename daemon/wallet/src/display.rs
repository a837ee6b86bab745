//! What the wallet shows: the account tree of `walletinfo` and the list of coins
//! (`spec/wallet.md` 6, `spec/api.md` 7 and 8). Pure functions of a [`Snapshot`]; the API layer only
//! turns the structs into JSON. Pinned by `tests/vectors/display_example.json`.

use std::fmt;
use std::sync::Arc;

use bdk_wallet::bitcoin::{Amount, OutPoint};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::path::ScriptPlace;
use crate::snapshot::{AccountView, AddressView, BranchView, Coin, CoinKind, Snapshot};
use crate::types::{Branch, Mixdepth};

/// The constant `wallet_name` of `walletinfo`; not the file name.
pub const WALLET_NAME: &str = "JM wallet";

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const SECOND: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// The whole `walletinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletInfo {
    /// Every coin, also frozen, locked and unconfirmed ones.
    pub total: Amount,
    /// Sum of what the entries call available.
    pub available: Amount,
    /// Ascending by mixdepth.
    pub accounts: Vec<AccountInfo>,
}

/// One account of `walletinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountInfo {
    /// The mixdepth.
    pub mixdepth: Mixdepth,
    /// Sum of the branches.
    pub balance: Amount,
    /// Sum of the branches.
    pub available: Amount,
    /// External, internal, then as far as they exist timelocked, burn, imported.
    pub branches: Vec<BranchInfo>,
}

/// One branch of `walletinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchInfo {
    /// `TYPE TAB PATH TAB XPUB`.
    pub heading: String,
    /// Sum of the entries.
    pub balance: Amount,
    /// Sum of the entries.
    pub available: Amount,
    /// Ascending by index.
    pub entries: Vec<EntryInfo>,
}

/// One address of `walletinfo`. Its `extradata` is always empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Key path.
    pub path: String,
    /// Address text.
    pub address: Arc<str>,
    /// Status words and suffixes.
    pub status: String,
    /// User label or empty.
    pub label: Arc<str>,
    /// Sum of the coins.
    pub amount: Amount,
    /// Zero when the status contains `[LOCKED]` or `[FROZEN]`, else the amount (a quirk that clients
    /// of the reference rely on: one frozen coin hides the whole address).
    pub available: Amount,
}

/// One coin of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UtxoView {
    /// Displayed as `txid:vout`.
    pub outpoint: OutPoint,
    /// Address text.
    pub address: Arc<str>,
    /// Key path; of bonds with `:unixtime`.
    pub path: String,
    /// Label of the address or empty.
    pub label: Arc<str>,
    /// Value.
    pub value: Amount,
    /// PoDLE commitments used with it, at most the number of retries.
    pub tries: u8,
    /// Commitments left.
    pub tries_remaining: u8,
    /// Account.
    pub mixdepth: Mixdepth,
    /// 0 in the mempool.
    pub confirmations: u32,
    /// Frozen by a user or automatically.
    pub frozen: bool,
    /// `YYYY-MM-DD HH:MM:SS` UTC, bonds only.
    pub locktime: Option<String>,
}

/// An amount as the API writes it: BTC with eight decimals, computed from satoshi.
#[derive(Debug, Clone, Copy)]
pub struct Btc(pub Amount);

impl fmt::Display for Btc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sat = self.0.to_sat();
        write!(f, "{}.{:08}", sat / 100_000_000, sat % 100_000_000)
    }
}

fn utc(seconds: u32, format: &[BorrowedFormatItem<'_>]) -> String {
    OffsetDateTime::from_unix_timestamp(i64::from(seconds))
        .ok()
        .and_then(|time| time.format(format).ok())
        .expect("every u32 is a time between 1970 and 2106")
}

/// The display of a wallet. `now` in seconds since epoch, UTC.
#[must_use]
pub fn wallet_info(snapshot: &Snapshot, now: u64) -> WalletInfo {
    let view = View { snapshot, now };
    let accounts: Vec<AccountInfo> =
        snapshot.accounts.iter().map(|account| view.account(account)).collect();
    WalletInfo {
        total: accounts.iter().map(|account| account.balance).sum(),
        available: accounts.iter().map(|account| account.available).sum(),
        accounts,
    }
}

struct View<'a> {
    snapshot: &'a Snapshot,
    now: u64,
}

impl View<'_> {
    fn root(&self) -> String {
        format!("m/{}'/{}'", self.snapshot.wallet_type.purpose(), self.snapshot.network.coin_type())
    }

    fn account(&self, account: &AccountView) -> AccountInfo {
        let mixdepth = account.mixdepth;
        let root = self.root();
        let mut branches: Vec<BranchInfo> =
            account.branches.iter().map(|branch| self.ranged(branch)).collect();
        if let Some((xpub, addresses)) = &account.bonds {
            let heading = format!("internal addresses\t{root}/{mixdepth}'/2\t{xpub}");
            let entries = addresses.iter().filter(|view| !view.coins.is_empty());
            branches.push(branch_info(heading, entries.map(|view| self.bond(view)).collect()));
        }
        if let Some(xpub) = &account.burn_xpub {
            let heading = format!("internal addresses\t{root}/{mixdepth}'/3\t{xpub}");
            branches.push(branch_info(heading, Vec::new()));
        }
        if !account.imported.is_empty() {
            let entries = account.imported.iter().map(|view| {
                let word = if view.coins.is_empty() { "empty" } else { "used" };
                self.entry(view, word.to_owned())
            });
            branches.push(branch_info("Imported keys\tm/0\t".to_owned(), entries.collect()));
        }
        AccountInfo {
            mixdepth,
            balance: branches.iter().map(|branch| branch.balance).sum(),
            available: branches.iter().map(|branch| branch.available).sum(),
            branches,
        }
    }

    fn ranged(&self, branch: &BranchView) -> BranchInfo {
        let (root, mixdepth) = (self.root(), branch.keychain.mixdepth);
        let heading = match branch.keychain.branch {
            Branch::External => {
                format!("external addresses\t{root}/{mixdepth}'/0\t{}", branch.xpub)
            }
            // The reference shows no key here; the TAB stays.
            Branch::Internal => format!("internal addresses\t{root}/{mixdepth}'/1\t"),
        };
        let mut entries = Vec::with_capacity(branch.addresses.len());
        for view in &branch.addresses {
            let ScriptPlace::Ranged { index, .. } = view.place else { continue };
            let word = match view.coins.as_slice() {
                [] if index < branch.next_unused => continue,
                [] if branch.keychain.branch == Branch::Internal => continue,
                [] => "new",
                [coin] => self.coin(*coin).map_or("used", |coin| word(coin.kind)),
                _ => "reused",
            };
            entries.push(self.entry(view, word.to_owned()));
        }
        branch_info(heading, entries)
    }

    fn bond(&self, view: &AddressView) -> EntryInfo {
        let locktime = view.coins.iter().find_map(|coin| self.coin(*coin)?.locktime).unwrap_or(0);
        let state = if self.now < u64::from(locktime) { "[LOCKED]" } else { "[UNLOCKED]" };
        self.entry(view, format!("{} {state}", utc(locktime, DAY)))
    }

    fn coin(&self, index: usize) -> Option<&Coin> {
        self.snapshot.coins.get(index)
    }

    fn entry(&self, view: &AddressView, mut status: String) -> EntryInfo {
        let coins = || view.coins.iter().filter_map(|coin| self.coin(*coin));
        if coins().any(|coin| coin.frozen) {
            status.push_str(" [FROZEN]");
        }
        if coins().any(|coin| coin.height.is_none()) {
            status.push_str(" [PENDING]");
        }
        let amount: Amount = coins().map(|coin| coin.value).sum();
        let hidden = status.contains("[LOCKED]") || status.contains("[FROZEN]");
        EntryInfo {
            path: path(self.snapshot, &view.place),
            address: view.address.clone(),
            status,
            label: view.label.clone(),
            amount,
            available: if hidden { Amount::ZERO } else { amount },
        }
    }
}

const fn word(kind: CoinKind) -> &'static str {
    match kind {
        CoinKind::CoinjoinOutput => "cj-out",
        CoinKind::CoinjoinChange => "change-out",
        CoinKind::Change => "non-cj-change",
        CoinKind::Deposit => "deposit",
    }
}

fn path(snapshot: &Snapshot, place: &ScriptPlace) -> String {
    place.display(snapshot.wallet_type.purpose(), snapshot.network.coin_type())
}

fn branch_info(heading: String, entries: Vec<EntryInfo>) -> BranchInfo {
    BranchInfo {
        heading,
        balance: entries.iter().map(|entry| entry.amount).sum(),
        available: entries.iter().map(|entry| entry.available).sum(),
        entries,
    }
}

/// All coins of a wallet, ascending by mixdepth. `retries`: `taker_utxo_retries`, the number of
/// commitments that each coin is good for.
#[must_use]
pub fn utxo_list(snapshot: &Snapshot, retries: u8) -> Vec<UtxoView> {
    let mut views: Vec<Option<&AddressView>> = vec![None; snapshot.coins.len()];
    for account in &snapshot.accounts {
        let ranged = account.branches.iter().flat_map(|branch| &branch.addresses);
        let bonds = account.bonds.iter().flat_map(|(_, addresses)| addresses);
        for view in ranged.chain(bonds).chain(&account.imported) {
            for coin in &view.coins {
                if let Some(slot) = views.get_mut(*coin) {
                    *slot = Some(view);
                }
            }
        }
    }
    let tip = snapshot.height();
    snapshot
        .coins
        .iter()
        .zip(views)
        .filter_map(|(coin, view)| {
            // Every coin has a view: the snapshot is built from the coins.
            let view = view?;
            let tries = coin.tries().min(retries);
            Some(UtxoView {
                outpoint: coin.outpoint,
                address: view.address.clone(),
                path: path(snapshot, &coin.place),
                label: view.label.clone(),
                value: coin.value,
                tries,
                tries_remaining: retries - tries,
                mixdepth: coin.mixdepth(),
                confirmations: coin.confirmations(tip),
                frozen: coin.frozen,
                locktime: coin.locktime.map(|time| utc(time, SECOND)),
            })
        })
        .collect()
}
