//! What a role asks of the wallet and of the chain, and the answers.
//!
//! Taker and maker are machines: they do not wait. A machine puts out a [`Question`] with a number; whoever drives it
//! finds the answer and brings it back with that number, at any later time. One executor answers all of them
//! (in the daemon: the wallet task, the Electrum server and the list of used commitments).
//!
//! Every question is answered exactly once, with the variant of [`Answer`] that its text names. A failure is an
//! answer, too. A machine that is over ignores answers.

use std::collections::BTreeMap;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Address, OutPoint, Transaction};
use joinery_proto::bond_proof::Certificate;
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::podle::Commitment;
use joinery_proto::transaction::maker::MakerRefusal;
use joinery_proto::transaction::signing::{Authorisation, OwnCoin};
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_proto::utxo::WireUtxo;
use joinery_wallet::round::{RoundBegin, RoundEnd, RoundEvent, RoundId};
use joinery_wallet::service::{MakerRound, OpenedRound};
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::types::Mixdepth;

/// Number of a question, unique within its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// Something that only the wallet or the chain can do or know.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Question {
    /// Taker: open a round in the journal. Answer: [`Answer::Begun`].
    Begin(Box<RoundBegin>),
    /// Maker: open a round in the journal, with what was agreed, the coins that are held for it and the addresses that
    /// are handed out for it: all or none of it, durable together. Answer: [`Answer::Opened`].
    Open(Box<MakerRound>),
    /// Maker: make durable that coins and outputs of a round are told for this commitment, and that the commitment is
    /// used; then prove that the session is ours. Answer: [`Answer::Revealed`].
    Reveal {
        /// The round.
        round: RoundId,
        /// The taker's.
        commitment: Commitment,
        /// Our key of the session.
        session: NaclPublicKey,
        /// The coin whose key proves it.
        coin: OutPoint,
    },
    /// Maker: sign this transaction if it is what the round was opened for; durable before there is an answer. Answer:
    /// [`Answer::Signed`].
    Sign {
        /// The round.
        round: RoundId,
        /// Not signed by anybody.
        transaction: Box<Transaction>,
        /// Seconds since epoch.
        time: u64,
    },
    /// Taker: hold these coins for the round, all or none: unspent, not frozen, not held otherwise. Durable. Answer:
    /// [`Answer::Reserved`].
    Reserve {
        /// For this round.
        round: RoundId,
        /// Coins of ours.
        outpoints: Vec<OutPoint>,
    },
    /// Hand out a fresh address of the internal branch, durably used from then on. Answer: [`Answer::Address`].
    Address {
        /// Of this account.
        mixdepth: Mixdepth,
    },
    /// Taker: the keys of coins that the round holds; P2WPKH coins only. Answer: [`Answer::Coins`], in this order.
    Coins {
        /// The round that holds them.
        round: RoundId,
        /// Coins of ours.
        outpoints: Vec<OutPoint>,
    },
    /// Taker: make an event of a round durable. Of [`RoundEvent::CommitmentSent`] the commitment is durably used, too.
    /// Answer: [`Answer::Recorded`].
    Record {
        /// The round.
        round: RoundId,
        /// What is about to happen.
        event: Box<RoundEvent>,
    },
    /// Durably ends the conversation part of a round; coins without a signature of ours become free. Answer:
    /// [`Answer::Recorded`].
    End {
        /// The round.
        round: RoundId,
        /// How.
        end: RoundEnd,
    },
    /// Look up coins of somebody else; a script hint is verified, never believed. Answer: [`Answer::Found`], in this
    /// order.
    LookUp(Vec<WireUtxo>),
    /// The fee rate for one attempt: drawn once with the configured random factor. Answer: [`Answer::FeeRate`].
    FeeRate,
    /// Taker: make the complete transaction durable ([`RoundEvent::Signed`]) and, if `send`, give it to our server.
    /// Without `send` it is only kept. Asked a second time for the same transaction it is only sent. Answer:
    /// [`Answer::Broadcast`].
    Broadcast {
        /// The round.
        round: RoundId,
        /// Signed by all.
        transaction: Box<Transaction>,
        /// What it comes to.
        sums: joinery_wallet::round::RoundSums,
        /// Whether our server gets it now.
        send: bool,
    },
    /// Maker: is this transaction one that the taker may have us send (`!push`): give it to our server. Answer:
    /// [`Answer::Broadcast`].
    Push(Box<Transaction>),
    /// Maker: certify a key with the key of a bond of ours, unspent and confirmed. Answer: [`Answer::Certified`].
    CertifyBond {
        /// The bonded coin.
        outpoint: OutPoint,
        /// The key that will sign for it.
        cert_key: PublicKey,
        /// Period at whose start the certificate ends, in units of 2016 blocks.
        expiry: u16,
    },
    /// Remember a commitment that somebody published, lazily. Answer: [`Answer::Recorded`].
    RememberCommitment(Commitment),
}

/// Why the wallet or the chain did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// A coin is not ours, spent, frozen, a bond, or held by something else.
    #[error("coin {0} cannot be used")]
    Unusable(OutPoint),
    /// The wallet was locked.
    #[error("the wallet is closed")]
    Closed,
    /// The journal cannot be written: nothing may leave.
    #[error("the wallet cannot store anything: {0}")]
    Storage(String),
    /// The chain cannot be asked. Nobody's fault: never blame a counterparty for it.
    #[error("the Electrum server cannot be asked: {0}")]
    Unreachable(String),
    /// The fee rate is above `absurd_fee_per_kb`.
    #[error("the fee rate is absurd: {0}")]
    AbsurdFee(String),
    /// Maker: the transaction is not what was agreed; nothing was signed.
    #[error("transaction refused: {0}")]
    Refused(#[source] MakerRefusal),
    /// Something that cannot be.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A fee rate for one attempt, satoshi per 1000 virtual bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptFeeRate {
    /// What is paid.
    pub rate: u64,
    /// Below this the server's mempool takes nothing.
    pub floor: u64,
}

/// What became of a transaction that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResult {
    /// It is kept, as was asked; nobody got it from us.
    Kept,
    /// The server has it.
    Accepted,
    /// The server refused it; bounded, printable text.
    Rejected(String),
    /// Nobody knows; it is sent again by itself.
    Unknown,
}

/// The answer to a question.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Question::Begin`].
    Begun(Result<RoundId, AskError>),
    /// To [`Question::Open`]. An [`AskError::Unusable`] leaves no round behind.
    Opened(Result<OpenedRound, AskError>),
    /// To [`Question::Reveal`].
    Revealed(Result<Authorisation, AskError>),
    /// To [`Question::Sign`]: one for each coin of the round, in the order of the inputs. An [`AskError::Refused`] says
    /// what the transaction is not.
    Signed(Result<Vec<InputSignature>, AskError>),
    /// To [`Question::Reserve`].
    Reserved(Result<(), AskError>),
    /// To [`Question::Address`].
    Address(Result<Address, AskError>),
    /// To [`Question::Coins`].
    Coins(Result<Vec<OwnCoin>, AskError>),
    /// To [`Question::Record`], [`Question::End`], [`Question::RememberCommitment`].
    Recorded(Result<(), AskError>),
    /// To [`Question::LookUp`]: `None` for a coin that is spent (also in the mempool) or never existed.
    Found(Result<Vec<Option<ForeignCoin>>, AskError>),
    /// To [`Question::FeeRate`].
    FeeRate(Result<AttemptFeeRate, AskError>),
    /// To [`Question::CertifyBond`].
    Certified(Result<Box<CertifiedBond>, AskError>),
    /// To [`Question::Broadcast`] and [`Question::Push`].
    Broadcast(Result<SendResult, AskError>),
}

/// A certificate of a bond, and what a proof needs besides.
#[derive(Debug, Clone)]
pub struct CertifiedBond {
    /// The bonded coin.
    pub outpoint: OutPoint,
    /// Its lock time, seconds since epoch.
    pub locktime: u32,
    /// Key of the coin.
    pub coin_key: PublicKey,
    /// The certificate.
    pub certificate: Certificate,
}

/// One of our coins as the roles see it, out of a wallet snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Satoshi.
    pub value: u64,
    /// Account.
    pub mixdepth: Mixdepth,
    /// 0 in the mempool.
    pub confirmations: u32,
    /// Height of its block; `None` in the mempool.
    pub height: Option<u32>,
    /// Not frozen, not held, not a bond, P2WPKH: may be selected once it has enough confirmations.
    pub free: bool,
    /// Frozen by a person or a rule.
    pub frozen: bool,
    /// Lock time of a bond, seconds since epoch.
    pub locktime: Option<u32>,
    /// What it is to its history.
    pub kind: joinery_wallet::snapshot::CoinKind,
    /// NUMS indexes of commitments that were used with it, ascending.
    pub commitments_used: Vec<u8>,
}

/// The wallet at one moment, as far as the roles need it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalletView {
    /// All unspent coins.
    pub coins: Vec<WalletCoin>,
    /// Highest account.
    pub max_mixdepth: u8,
    /// Best block.
    pub height: Option<u32>,
    /// Median time of the last 11 blocks, seconds since epoch.
    pub median_time: Option<u32>,
    /// Whether the wallet has caught up with the chain since it was opened.
    pub synced: bool,
}

impl WalletView {
    /// Spendable balance of each account, satoshi: free coins with at least one confirmation.
    #[must_use]
    pub fn balances(&self) -> BTreeMap<u8, u64> {
        let mut balances: BTreeMap<u8, u64> =
            (0..=self.max_mixdepth).map(|mixdepth| (mixdepth, 0)).collect();
        for coin in self.coins.iter().filter(|coin| coin.free && coin.confirmations > 0) {
            let sum = balances.entry(coin.mixdepth.0).or_default();
            *sum = sum.saturating_add(coin.value);
        }
        balances
    }
}

impl From<&Snapshot> for WalletView {
    fn from(snapshot: &Snapshot) -> Self {
        let tip = snapshot.height();
        let coins = snapshot.coins.iter().map(|coin| WalletCoin {
            outpoint: coin.outpoint,
            value: coin.value.to_sat(),
            mixdepth: coin.mixdepth(),
            confirmations: coin.confirmations(tip),
            height: coin.height,
            free: !coin.frozen && !coin.locked && !coin.place.is_bond() && coin.script.is_p2wpkh(),
            frozen: coin.frozen,
            locktime: coin.locktime,
            kind: coin.kind,
            commitments_used: coin.commitments_used.clone(),
        });
        Self {
            coins: coins.collect(),
            max_mixdepth: snapshot.max_mixdepth().0,
            height: tip,
            median_time: snapshot.tip.map(|tip| tip.median_time),
            synced: snapshot.sync.complete,
        }
    }
}
