//! What other tasks ask of the wallet task.

use std::sync::Arc;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Address, OutPoint, Transaction, Txid};
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::transaction::signing::{Authorisation, OwnCoin};
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};

use super::state::now;
use super::{
    BondCertificate, MakerRound, OpenedRound, RoundError, SendError, SendRequest, ServiceError,
};
use crate::directory::{ChangePasswordError, SealError, SealingKey};
use crate::round::{RoundBegin, RoundEnd, RoundEvent, RoundId, RoundSums};
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

/// A round on its way to whoever asked for it. If that one has gone away, the round is ended: nobody would do it.
#[derive(Debug)]
pub(super) struct BegunRound<T> {
    id: RoundId,
    /// What whoever asked gets; empty once it has it.
    round: Option<T>,
    /// For ending it.
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl<T> BegunRound<T> {
    pub(super) const fn new(
        id: RoundId,
        round: T,
        commands: mpsc::WeakUnboundedSender<Command>,
    ) -> Self {
        Self { id, round: Some(round), commands }
    }

    /// Takes the round over.
    pub(super) fn take(mut self) -> T {
        self.round.take().expect("taken once, since taking consumes it")
    }
}

impl<T> Drop for BegunRound<T> {
    fn drop(&mut self) {
        if self.round.is_none() {
            return;
        }
        if let Some(commands) = self.commands.upgrade() {
            let end = RoundEnd {
                code: "interrupted".to_owned(),
                text: "Whoever began the round went away.".to_owned(),
                time: now(),
            };
            let (reply, _) = oneshot::channel();
            // An error means that the wallet was closed; the round is ended when it opens again.
            let _ = commands.send(Command::EndRound { round: self.id, end, reply });
        }
    }
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
    /// Ends the restriction to the maker: the password was right.
    AllowEverything {
        reply: Reply<()>,
    },
    Seal {
        key: Arc<SealingKey>,
        note: Vec<u8>,
        reply: Reply<(), SealError>,
    },
    ChangePassword {
        current: SecretString,
        new: SecretString,
        reply: Reply<(), ChangePasswordError>,
    },
    BeginRound {
        begin: Box<RoundBegin>,
        reply: Reply<BegunRound<RoundId>, RoundError>,
    },
    /// Begins a maker's round, holds coins and hands out addresses for it, all in one step.
    OpenRound {
        round: Box<MakerRound>,
        reply: Reply<BegunRound<OpenedRound>, RoundError>,
    },
    RevealRound {
        round: RoundId,
        commitment: [u8; 32],
        session: NaclPublicKey,
        coin: OutPoint,
        reply: Reply<Authorisation, RoundError>,
    },
    SignRound {
        round: RoundId,
        transaction: Box<Transaction>,
        time: u64,
        reply: Reply<Vec<InputSignature>, RoundError>,
    },
    Reserve {
        round: RoundId,
        outpoints: Vec<OutPoint>,
        reply: Reply<(), RoundError>,
    },
    RecordRound {
        round: RoundId,
        event: Box<RoundEvent>,
        reply: Reply<(), RoundError>,
    },
    CoinjoinCoins {
        round: RoundId,
        outpoints: Vec<OutPoint>,
        reply: Reply<Vec<OwnCoin>, RoundError>,
    },
    EndRound {
        round: RoundId,
        end: RoundEnd,
        reply: Reply<(), RoundError>,
    },
    KeepTransaction {
        round: RoundId,
        transaction: Box<Transaction>,
        sums: Box<RoundSums>,
        /// Whether we are going to send it.
        send: bool,
        reply: Reply<(), RoundError>,
    },
    /// Hands out the complete transaction of a round for sending, if no block has it.
    TakeTransaction {
        round: RoundId,
        reply: Reply<Option<(Txid, Transaction)>, RoundError>,
    },
    CertifyBond {
        outpoint: OutPoint,
        cert_key: PublicKey,
        expiry: u16,
        reply: Reply<BondCertificate, RoundError>,
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
            Self::AllowEverything { .. } => "AllowEverything",
            Self::Seal { .. } => "Seal",
            Self::ChangePassword { .. } => "ChangePassword",
            Self::BeginRound { .. } => "BeginRound",
            Self::OpenRound { .. } => "OpenRound",
            Self::RevealRound { .. } => "RevealRound",
            Self::SignRound { .. } => "SignRound",
            Self::Reserve { .. } => "Reserve",
            Self::RecordRound { .. } => "RecordRound",
            Self::CoinjoinCoins { .. } => "CoinjoinCoins",
            Self::EndRound { .. } => "EndRound",
            Self::KeepTransaction { .. } => "KeepTransaction",
            Self::TakeTransaction { .. } => "TakeTransaction",
            Self::CertifyBond { .. } => "CertifyBond",
            Self::Close { .. } => "Close",
        })
    }
}
