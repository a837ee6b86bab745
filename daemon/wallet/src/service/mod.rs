//! The opened wallet: one task that owns the state, and the handle everybody else uses.

mod announce;
mod command;
mod export;
mod freeze;
mod handle;
mod lending;
mod locks;
mod open;
mod own;
mod round_error;
mod round_handle;
mod rounds;
mod send;
mod settle;
mod state;
mod sync;
mod task;
mod view;

use std::sync::Arc;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Address, OutPoint, Transaction, Txid};
use joinery_proto::bond_proof::Certificate;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::signing::LentCoin;

use crate::chain::ChainError;
use crate::policy::TxFees;
use crate::round::{Agreed, RoundBegin, RoundEvent, RoundId, RoundRole};
use crate::types::{Keychain, Mixdepth};

pub(crate) use export::export_of;
pub use handle::{OpenOptions, PRUNE_ABOVE, SessionMode, WalletHandle};
pub use round_error::{RoundError, Unusable};

/// A plain payment (`spec/wallet.md` 8.3).
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Account whose coins are spent.
    pub mixdepth: Mixdepth,
    /// Satoshi; `None` sweeps the mixdepth.
    pub amount: Option<bdk_wallet::bitcoin::Amount>,
    /// Checked for the network by whoever parsed it.
    pub destination: Address,
    /// Fee rule of this call only; `None` takes the policy's.
    pub fees: Option<TxFees>,
    /// Exactly these coins instead of a selection.
    pub inputs: Option<Vec<OutPoint>>,
    /// Miner fee above which nothing is signed; `None` leaves that to `absurd_fee_per_kb` alone.
    pub max_fee: Option<bdk_wallet::bitcoin::Amount>,
}

/// A fee rate that was drawn for one transaction, satoshi per 1000 vbytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawnRate {
    /// What is paid.
    pub rate: u64,
    /// Below it the server's mempool takes nothing.
    pub floor: u64,
}

/// A payment that was accepted by the server and applied to the wallet.
#[derive(Debug, Clone)]
pub struct SentTransaction {
    /// The transaction with its witnesses.
    pub transaction: Arc<Transaction>,
    /// Miner fee, satoshi.
    pub fee: u64,
    /// True when an expired bond was among the inputs.
    pub includes_expired_bond: bool,
}

/// What a transaction does to the wallet. Satoshi.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Others pay the wallet.
    In {
        /// All outputs of ours.
        amount: u64,
    },
    /// The wallet pays, perhaps itself.
    Out {
        /// Inputs of ours less outputs of ours: what was paid and the fee.
        amount: u64,
    },
    /// A coinjoin, as maker or taker.
    Coinjoin {
        /// The equal amount.
        amount: u64,
    },
}

/// Accounts whose internal branches give a round its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundAccounts {
    /// Of the equal amount output.
    pub equal: Mixdepth,
    /// Of the change.
    pub change: Mixdepth,
}

/// Where the two outputs of a maker's round go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundOutputs {
    /// To fresh addresses of these accounts.
    Fresh(RoundAccounts),
    /// To addresses of internal branches that were handed out before and told to nobody, or to the same taker for the
    /// same commitment.
    Known {
        /// Of the equal amount output.
        equal: Address,
        /// Of the change.
        change: Address,
    },
}

/// A maker's round that is to be opened: what was agreed with the taker, and what is lent for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakerRound {
    /// Seconds since epoch.
    pub time: u64,
    /// Account whose coins go in.
    pub mixdepth: Mixdepth,
    /// Nick that we have in it.
    pub nick: String,
    /// Nick of the taker.
    pub taker: String,
    /// Amount and fees. Nothing is ever signed in the round that pays less.
    pub agreement: Agreement,
    /// P2WPKH coins of the account. A transaction must spend all of them, and no other coin of ours.
    pub coins: Vec<OutPoint>,
    /// Where amount and change go.
    pub outputs: RoundOutputs,
}

impl MakerRound {
    /// The first event of the round, once its addresses are known.
    #[must_use]
    pub fn begin(&self, equal: &Address, change: &Address) -> RoundBegin {
        let Agreement { amount, fee, tx_fee } = self.agreement;
        RoundBegin {
            role: RoundRole::Maker,
            time: self.time,
            mixdepth: self.mixdepth.0,
            amount,
            counterparties: 1,
            destination: String::new(),
            nick: self.nick.clone(),
            agreed: Some(Agreed {
                taker: self.taker.clone(),
                coinjoin_fee: fee,
                miner_fee: tx_fee,
                equal: equal.script_pubkey(),
                change: change.script_pubkey(),
            }),
        }
    }
}

/// A maker's round that was opened with its coins held: everything that a maker tells its taker comes from here.
#[derive(Debug)]
pub struct OpenedRound {
    /// Its number.
    pub id: RoundId,
    /// The coins, in the order in which they were asked for.
    pub coins: Vec<LentCoin>,
    /// Address of the equal amount output.
    pub equal: Address,
    /// Address of the change.
    pub change: Address,
}

/// Something that clients of the websocket hear about (`spec/wallet.md` 10.2).
#[derive(Debug, Clone)]
pub enum WalletEvent {
    /// A transaction of the wallet, first seen or first confirmed.
    Transaction {
        /// It.
        transaction: Arc<Transaction>,
        /// 0 in the mempool, else at least 1.
        confirmations: u32,
        /// What it does to the wallet.
        effect: Effect,
    },
    /// The snapshot changed.
    Changed {
        /// Its revision.
        revision: u64,
    },
    /// Something happened in a coinjoin round; the snapshot shows it.
    Round {
        /// The round.
        round: RoundId,
        /// What.
        what: RoundNews,
    },
}

/// What happened in a coinjoin round; the snapshot has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoundNews {
    /// It began.
    Begun,
    /// It holds other coins than before.
    Coins,
    /// The role went a step further.
    Step,
    /// A transaction with signatures of ours exists.
    Signed,
    /// A transaction of the round was seen. Also when it lost its block in a reorganisation: then the snapshot says that
    /// it is not confirmed.
    Seen {
        /// Which.
        txid: Txid,
    },
    /// It is in a block, or after a reorganisation in another one.
    Confirmed {
        /// Which.
        txid: Txid,
        /// Height of the block.
        height: u32,
    },
    /// Nothing will come of what was signed; its coins are free where they are unspent.
    Abandoned,
    /// The row of the income statement is written.
    Accounted,
    /// The conversation part is over.
    Ended,
}

impl RoundNews {
    const fn of(event: &RoundEvent) -> Self {
        match event {
            RoundEvent::Begun(_) => Self::Begun,
            RoundEvent::Reserved { .. } | RoundEvent::Released => Self::Coins,
            RoundEvent::CommitmentSent { .. }
            | RoundEvent::Shown { .. }
            | RoundEvent::Revealed { .. } => Self::Step,
            RoundEvent::Signed { .. } => Self::Signed,
            RoundEvent::Seen { txid, .. } => Self::Seen { txid: *txid },
            RoundEvent::Confirmed { txid, height, .. } => {
                Self::Confirmed { txid: *txid, height: *height }
            }
            RoundEvent::Abandoned { .. } => Self::Abandoned,
            RoundEvent::Accounted => Self::Accounted,
            RoundEvent::Ended(_) => Self::Ended,
        }
    }
}

/// What became of the complete transaction of a round when it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundSent {
    /// The server has it.
    Accepted,
    /// The server refused it. The round keeps its coins: somebody else may have it.
    Rejected {
        /// The server's text, bounded and printable.
        text: String,
    },
    /// Nobody knows; it is sent again by itself.
    Unknown,
}

/// A certificate of a fidelity bond and what a proof needs besides (`spec/roles.md` 4.8).
#[derive(Debug, Clone)]
pub struct BondCertificate {
    /// The bonded coin.
    pub outpoint: OutPoint,
    /// Its value, satoshi.
    pub value: u64,
    /// Its lock time, seconds since epoch.
    pub locktime: u32,
    /// Key of the coin.
    pub coin_key: PublicKey,
    /// The certificate.
    pub certificate: Certificate,
}

/// A rate per 1000 vbytes as the reference writes it per vbyte: one decimal, half to even.
fn sat_per_vb(sat_per_kvb: u64) -> String {
    let tenths = sat_per_kvb / 100;
    let rest = sat_per_kvb % 100;
    let tenths = if rest > 50 || (rest == 50 && tenths % 2 == 1) { tenths + 1 } else { tenths };
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Why a payment was not made. Nothing left the machine unless said so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The mixdepth does not exist.
    #[error("mixdepth {0} does not exist")]
    NoSuchMixdepth(Mixdepth),
    /// The coins do not suffice. Satoshi. The text is the reference's.
    #[error("Not enough funds, {wanted} vs. {available}.")]
    InsufficientFunds {
        /// Amount and fee.
        wanted: u64,
        /// Spendable in the mixdepth.
        available: u64,
        /// Frozen in the mixdepth.
        frozen: u64,
    },
    /// A sweep found no spendable coin.
    #[error("no spendable coin in mixdepth {0}")]
    NothingToSweep(Mixdepth),
    /// The destination would get less than the network relays.
    #[error("output of {value} satoshi is below the dust limit of {limit}")]
    DustOutput {
        /// Its value.
        value: u64,
        /// Relay limit for its script.
        limit: u64,
    },
    /// An explicit input cannot be used.
    #[error("coin {outpoint} cannot be used: {reason}")]
    UnusableInput {
        /// The coin.
        outpoint: OutPoint,
        /// Why.
        reason: &'static str,
    },
    /// The explicit list is empty or names a coin twice.
    #[error("the list of inputs is empty or names a coin twice")]
    BadInputList,
    /// The transaction would be too large for nodes to relay: too many coins at once.
    #[error(
        "{inputs} coins make a transaction of {weight} weight units, above the limit of {limit}"
    )]
    TooLarge {
        /// Number of coins.
        inputs: usize,
        /// Weight units.
        weight: u64,
        /// Relay limit, weight units.
        limit: u64,
    },
    /// The rate is above `absurd_fee_per_kb`. The text is the reference's.
    #[error(
        "Estimated fee {rate} sat/kvB ({} sat/vB) greater than absurd value {limit} sat/kvB ({} sat/vB), quitting.",
        sat_per_vb(*rate),
        sat_per_vb(*limit)
    )]
    AbsurdFee {
        /// sat/kvB.
        rate: u64,
        /// sat/kvB.
        limit: u64,
    },
    /// The miner fee comes to more than [`SendRequest::max_fee`]. Satoshi.
    #[error("the fee comes to {fee} satoshi, more than the {limit} that were agreed to")]
    FeeAboveLimit {
        /// What it comes to.
        fee: u64,
        /// What was agreed to.
        limit: u64,
    },
    /// A key does not belong to the coin it should spend: never signed.
    #[error("internal check before signing failed: {0}")]
    SigningCheck(&'static str),
    /// The server cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The server refused the transaction; the coins are free again.
    #[error("the transaction was rejected: {text}")]
    Rejected {
        /// The server's text, bounded and printable.
        text: String,
    },
    /// It is unknown whether the server got the transaction; it is stored and sent again later.
    #[error("it is unknown whether the transaction was sent; it will be sent again")]
    Uncertain,
    /// The store failed before anything was sent.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The wallet was opened for the maker role only.
    #[error("the wallet is open for the maker only: paying needs the password")]
    MakerOnly,
    /// The wallet was locked meanwhile.
    #[error("the wallet is closed")]
    Closed,
}

/// Why a command to the wallet failed. Nothing was handed out and nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The wallet was locked, or its task ended.
    #[error("the wallet is closed")]
    Closed,
    /// The mixdepth does not exist.
    #[error("mixdepth {0} does not exist")]
    NoSuchMixdepth(Mixdepth),
    /// Only `sw-fb` wallets have timelocked addresses.
    #[error("this kind of wallet has no timelocked addresses")]
    NoBonds,
    /// The month index is not between 0 and 959.
    #[error("month {0} is outside January 2020 to December 2099")]
    NoSuchMonth(u16),
    /// All 2^31 addresses of a branch are used up.
    #[error("branch {0} has no address left")]
    Exhausted(Keychain),
    /// The address is not one of this wallet.
    #[error("the address does not belong to this wallet")]
    UnknownAddress,
    /// A label is longer than [`MAX_LABEL_BYTES`].
    #[error("label of {0} bytes is too long")]
    LabelTooLong(usize),
    /// The text is not a key path of this wallet.
    #[error("not a key path of this wallet")]
    UnknownPath,
    /// A coinjoin round holds the coin: it cannot be frozen or unfrozen now.
    #[error("coin {outpoint} is held by coinjoin round {round}")]
    HeldByRound {
        /// The coin.
        outpoint: OutPoint,
        /// The round.
        round: RoundId,
    },
    /// The wallet was opened for the maker role only.
    #[error("the wallet is open for the maker only: this needs the password")]
    MakerOnly,
    /// The key of an address does not produce its script: it is not handed out.
    #[error("internal check failed: {0}")]
    KeyCheck(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The thread of the wallet could not be started.
    #[error("cannot start the wallet thread")]
    Thread(#[source] std::io::Error),
}

/// Longest label, UTF-8 bytes.
pub const MAX_LABEL_BYTES: usize = 1024;
