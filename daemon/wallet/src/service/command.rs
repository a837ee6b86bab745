//! What other tasks ask of the wallet task.

use std::sync::Arc;

use bdk_wallet::bitcoin::{Address, OutPoint, Transaction, Txid};
use secrecy::SecretString;
use tokio::sync::oneshot;

use super::{SendError, SendRequest, ServiceError};
use crate::directory::ChangePasswordError;
use crate::types::{Branch, Mixdepth};

/// Where an answer goes. The task drops it when it ends, which the asker sees as "closed".
pub(super) type Reply<T, E = ServiceError> = oneshot::Sender<Result<T, E>>;

/// A transaction that is signed, stored, and whose coins are locked.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) transaction: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) fee: u64,
    pub(super) includes_expired_bond: bool,
}

/// How sending a prepared transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server has it.
    Accepted,
    /// The server refused it.
    Rejected,
    /// Nobody knows.
    Unknown,
}

/// A request to the wallet task.
pub(super) enum Command {
    IssueAddress {
        mixdepth: Mixdepth,
        branch: Branch,
        reply: Reply<Address>,
    },
    BondAddress {
        timenumber: u16,
        reply: Reply<Address>,
    },
    SetFrozen {
        changes: Vec<(OutPoint, bool)>,
        reply: Reply<()>,
    },
    SetLabel {
        address: String,
        label: String,
        reply: Reply<()>,
    },
    /// Selects and locks coins, builds, signs and stores, all in one step.
    Prepare {
        request: Box<SendRequest>,
        /// Satoshi per 1000 vbytes.
        rate: u64,
        reply: Reply<Prepared, SendError>,
    },
    /// News of a prepared transaction; also from sending one again (`first` is false then).
    Sent {
        txid: Txid,
        outcome: Outcome,
        first: bool,
        reply: Option<oneshot::Sender<()>>,
    },
    SignMessage {
        path: String,
        message: String,
        reply: Reply<(String, Address)>,
    },
    Rescan {
        gap: u32,
        reply: Reply<()>,
    },
    Seed {
        reply: Reply<(SecretString, Option<SecretString>)>,
    },
    VerifyPassword {
        password: SecretString,
        reply: Reply<bool>,
    },
    ChangePassword {
        current: SecretString,
        new: SecretString,
        reply: Reply<(), ChangePasswordError>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only the kind: some commands carry secrets, labels or messages.
        f.write_str(match self {
            Self::IssueAddress { .. } => "IssueAddress",
            Self::BondAddress { .. } => "BondAddress",
            Self::SetFrozen { .. } => "SetFrozen",
            Self::SetLabel { .. } => "SetLabel",
            Self::Prepare { .. } => "Prepare",
            Self::Sent { .. } => "Sent",
            Self::SignMessage { .. } => "SignMessage",
            Self::Rescan { .. } => "Rescan",
            Self::Seed { .. } => "Seed",
            Self::VerifyPassword { .. } => "VerifyPassword",
            Self::ChangePassword { .. } => "ChangePassword",
            Self::Close { .. } => "Close",
        })
    }
}
