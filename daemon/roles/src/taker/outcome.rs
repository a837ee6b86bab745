//! How a request ends, and why an attempt does: stable words for programs, sentences for people.

use std::collections::BTreeMap;

use bdk_wallet::bitcoin::{Transaction, Txid};
use joinery_proto::nick::Nick;
use joinery_wallet::round::{MAX_SENTENCE, RoundId, RoundSums};

/// Why a request or one of its attempts is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The transaction is in the mempool or in a block.
    Complete,
    /// A person stopped it before anything of ours was signed.
    Stopped,
    /// It had to be approved by a person and was not; nobody was asked for anything.
    NotApproved,
    /// There is no such account.
    BadMixdepth,
    /// The amount is below the network's smallest, or more than there can be.
    BadAmount,
    /// The destination is of another chain or not payable.
    BadDestination,
    /// Not 1 to 99 makers.
    BadCounterparties,
    /// A named coin is not ours, of another account, unconfirmed, frozen, held or a bond; or a list is empty or double.
    BadInputs,
    /// The wallet has not caught up with the chain.
    NotSynced,
    /// The account does not hold enough confirmed, free money.
    InsufficientFunds,
    /// A coin that was to be spent was taken by something else of ours at that moment.
    CoinsTaken,
    /// More coins than one transaction of this protocol can carry.
    TooManyCoins,
    /// No coin that could back a commitment is old enough yet.
    CommitmentTooNew,
    /// No coin can back a commitment: all are too small, used up or of the wrong kind.
    CommitmentUnavailable,
    /// No directory could be reached.
    NoDirectory,
    /// Not enough makers offer what is wanted within the fee limits.
    NotEnoughOffers,
    /// Not enough makers answered as they must.
    NotEnoughMakers,
    /// Not enough makers signed.
    NotSigned,
    /// The miner fee came out beyond what the inputs or the limits allow.
    FeeOutOfRange,
    /// The fee rate is above `absurd_fee_per_kb`.
    AbsurdFee,
    /// An input of the transaction was spent by something else.
    InputSpent,
    /// Our server refused the transaction.
    Rejected,
    /// It is signed and kept, but nobody was seen to have it.
    NotBroadcast,
    /// The Electrum server cannot be asked.
    ChainUnreachable,
    /// The wallet was locked.
    WalletClosed,
    /// The wallet cannot store anything.
    Storage,
    /// It took longer than any attempt may.
    Stalled,
    /// Something that cannot be.
    Internal,
}

impl Reason {
    /// The stable word, for [`joinery_wallet::round::RoundEnd::code`] and API clients.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::NotApproved => "not_approved",
            Self::BadMixdepth => "bad_mixdepth",
            Self::BadAmount => "bad_amount",
            Self::BadDestination => "bad_destination",
            Self::BadCounterparties => "bad_counterparties",
            Self::BadInputs => "bad_inputs",
            Self::NotSynced => "not_synced",
            Self::InsufficientFunds => "insufficient_funds",
            Self::CoinsTaken => "coins_taken",
            Self::TooManyCoins => "too_many_coins",
            Self::CommitmentTooNew => "commitment_too_new",
            Self::CommitmentUnavailable => "commitment_unavailable",
            Self::NoDirectory => "no_directory",
            Self::NotEnoughOffers => "not_enough_offers",
            Self::NotEnoughMakers => "not_enough_makers",
            Self::NotSigned => "not_signed",
            Self::FeeOutOfRange => "fee_out_of_range",
            Self::AbsurdFee => "absurd_fee",
            Self::InputSpent => "input_spent",
            Self::Rejected => "rejected",
            Self::NotBroadcast => "not_broadcast",
            Self::ChainUnreachable => "chain_unreachable",
            Self::WalletClosed => "wallet_closed",
            Self::Storage => "storage",
            Self::Stalled => "stalled",
            Self::Internal => "internal",
        }
    }

    /// Whether a new attempt may do better at once (`spec/roles.md` 3.14, RETRYABLE). There is none after our signatures
    /// exist, whatever the reason.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::CoinsTaken
                | Self::NotEnoughOffers
                | Self::NotEnoughMakers
                | Self::NotSigned
                | Self::FeeOutOfRange
                | Self::InputSpent
                | Self::ChainUnreachable
                | Self::Stalled
        )
    }
}

/// An end with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For programs.
    pub reason: Reason,
    /// For people: at most [`MAX_SENTENCE`] bytes, without a secret and without anything of a counterparty but nicks.
    pub text: String,
}

impl Verdict {
    /// Cuts the sentence where it is too long.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX_SENTENCE {
            let end = (0..=MAX_SENTENCE).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
        }
        Self { reason, text }
    }
}

/// What a maker did wrong in this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakerFailure {
    /// Stable word: that of [`joinery_proto::conversation::Ended::code`], or `bad_signatures`, `input_spent`,
    /// `commitment_refused`, `too_many_inputs`.
    pub code: &'static str,
    /// For people; at most 256 characters, printable.
    pub text: String,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub verdict: Verdict,
    /// The transaction, once we signed it: it may appear at any time, whatever the verdict.
    pub txid: Option<Txid>,
    /// The complete transaction when it was not seen: for whoever wants to send it by hand (`not-self`).
    pub transaction: Option<Box<Transaction>>,
    /// What the last attempt came to, once a transaction was shown to makers.
    pub sums: Option<RoundSums>,
    /// Rounds in the journal, one for each attempt that got so far.
    pub rounds: Vec<RoundId>,
    /// Attempts that were made.
    pub attempts: u8,
    /// Makers that failed: for the score that is kept beyond this request (`spec/roles.md` 3.15).
    pub failed: BTreeMap<Nick, MakerFailure>,
    /// Makers that did all that was asked of them in the last attempt.
    pub honest: Vec<Nick>,
}

impl Outcome {
    /// Of a request that ended before its machine was made.
    #[must_use]
    pub fn before_start(verdict: Verdict) -> Self {
        Self {
            verdict,
            txid: None,
            transaction: None,
            sums: None,
            rounds: Vec::new(),
            attempts: 0,
            failed: BTreeMap::new(),
            honest: Vec::new(),
        }
    }

    /// Whether the coinjoin was made.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.verdict.reason == Reason::Complete
    }
}
