//! `walletinfo` (`spec/api.md` 7): all balances are text, BTC with eight decimals.

use std::sync::Arc;

use joinery_wallet::display::{self, Btc};
use serde::Serialize;

/// The account tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WalletInfo {
    wallet_name: &'static str,
    total_balance: String,
    available_balance: String,
    accounts: Vec<Account>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Account {
    account: String,
    account_balance: String,
    available_balance: String,
    branches: Vec<Branch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Branch {
    branch: String,
    balance: String,
    available_balance: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    hd_path: String,
    address: Arc<str>,
    amount: String,
    available_balance: String,
    status: String,
    label: Arc<str>,
    /// Would be a private key; never is.
    extradata: &'static str,
}

impl From<display::WalletInfo> for WalletInfo {
    fn from(info: display::WalletInfo) -> Self {
        Self {
            wallet_name: display::WALLET_NAME,
            total_balance: Btc(info.total).to_string(),
            available_balance: Btc(info.available).to_string(),
            accounts: info.accounts.into_iter().map(Account::from).collect(),
        }
    }
}

impl From<display::AccountInfo> for Account {
    fn from(account: display::AccountInfo) -> Self {
        Self {
            account: account.mixdepth.to_string(),
            account_balance: Btc(account.balance).to_string(),
            available_balance: Btc(account.available).to_string(),
            branches: account.branches.into_iter().map(Branch::from).collect(),
        }
    }
}

impl From<display::BranchInfo> for Branch {
    fn from(branch: display::BranchInfo) -> Self {
        Self {
            branch: branch.heading,
            balance: Btc(branch.balance).to_string(),
            available_balance: Btc(branch.available).to_string(),
            entries: branch.entries.into_iter().map(Entry::from).collect(),
        }
    }
}

impl From<display::EntryInfo> for Entry {
    fn from(entry: display::EntryInfo) -> Self {
        Self {
            hd_path: entry.path,
            address: entry.address,
            amount: Btc(entry.amount).to_string(),
            available_balance: Btc(entry.available).to_string(),
            status: entry.status,
            label: entry.label,
            extradata: "",
        }
    }
}
