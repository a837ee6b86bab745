//! Conversations: one taker-maker pair, seen from either side (`spec/protocol.md` 7).
//!
//! Each side is a chain of types, one per step; every transition consumes a step and returns the next, so
//! an order in which something is signed before it was verified does not compile. [`maker::MakerSession`]
//! and [`taker::TakerSession`] hold the current step and give each message a defined answer in each state:
//! what is not expected is ignored, whatever it is.
//!
//! Time is a number of milliseconds that the caller passes in. Randomness is passed in. Facts that must
//! survive a restart are [`Fact`]s: the machine asks for one to be made durable and gives out what depends
//! on it only after it was told that it is: [`maker::MakerSession::revealed`], [`maker::MakerSession::signed`],
//! [`taker::TakerSession::durable`].

pub mod maker;
pub mod taker;
#[cfg(test)]
mod tests;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use crate::podle::Commitment;

/// Milliseconds of a steady clock; the origin does not matter.
pub type Millis = u64;

/// Something that must be durable before its consequence leaves the machine.
///
/// The serialised form is stable: variants and fields are only ever added, and new fields are optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fact {
    /// Maker: these coins and scripts are about to be told to a taker, for this commitment.
    CoinsRevealed {
        /// Our inputs.
        outpoints: Vec<OutPoint>,
        /// Our two scripts; never to be given to anybody else.
        scripts: Vec<ScriptBuf>,
        /// The taker's commitment; used up.
        #[serde(with = "commitment_hex")]
        commitment: Commitment,
    },
    /// Maker: signatures for this transaction are about to leave.
    Signed {
        /// The transaction, fixed by its unsigned form.
        txid: Txid,
        /// Our inputs in it.
        outpoints: Vec<OutPoint>,
    },
    /// Taker: this commitment is about to be sent.
    CommitmentSent {
        /// The commitment; used up.
        #[serde(with = "commitment_hex")]
        commitment: Commitment,
    },
    /// Taker: the transaction is about to be shown to a maker; our inputs may be signed from now on.
    TransactionShown {
        /// The transaction.
        txid: Txid,
    },
}

mod commitment_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::podle::Commitment;

    pub(super) fn serialize<S: Serializer>(c: &Commitment, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(c)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Commitment, D::Error> {
        Commitment::from_hex(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// How a conversation ended. Also the text that the log and the API client get; a counterparty hears at most
/// what [`Ended::reply`] says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// Everything that was to be exchanged was.
    #[error("complete")]
    Complete,
    /// Nothing came in time.
    #[error("no answer in time while waiting for {waiting_for}")]
    TimedOut {
        /// What was expected.
        waiting_for: &'static str,
    },
    /// The counterparty said that it gives up.
    #[error("counterparty gave up: {text}")]
    CounterpartyError {
        /// Its words, bounded and printable.
        text: String,
    },
    /// A `!fill` was refused.
    #[error("fill refused: {0}")]
    FillRefused(#[source] maker::FillRefusal),
    /// The taker's proof or coin is not acceptable.
    #[error("authorisation refused: {0}")]
    AuthRefused(#[source] maker::AuthRefusal),
    /// Our side has no coins for it.
    #[error("no coins for this amount")]
    NoCoins,
    /// The taker's transaction is not what was agreed.
    #[error("transaction refused: {0}")]
    TransactionRefused(#[source] crate::transaction::maker::MakerRefusal),
    /// A maker's answer is not acceptable.
    #[error("maker refused: {0}")]
    MakerRefused(#[source] crate::transaction::taker::MakerFault),
    /// A payload that was due could not be read.
    #[error("unreadable {0}")]
    Unreadable(&'static str),
    /// Our side stopped.
    #[error("stopped by our side")]
    Stopped,
}

impl Ended {
    /// The clear-text `!error` that the counterparty may hear, if any. Everybody on the way can read it:
    /// never coins, addresses or internals (`spec/roles.md` 4.4, 4.5, 4.12; `spec/protocol.md` 6.7).
    ///
    /// A taker that hears nothing waits a minute for nothing, so every refusal of what it sent has a text. The one
    /// exception is a commitment that is not 64 hex digits: that is never an honest taker.
    #[must_use]
    pub fn reply(&self) -> Option<String> {
        match self {
            Self::FillRefused(refusal) => refusal.reply(),
            Self::AuthRefused(refusal) => {
                Some(format!("commitment rejected: {}", refusal.reason()))
            }
            Self::NoCoins => Some("no funds".to_owned()),
            Self::TransactionRefused(_) | Self::Unreadable("tx") => {
                Some("transaction rejected".to_owned())
            }
            _ => None,
        }
    }

    /// A stable word for API clients and statistics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::TimedOut { .. } => "timed_out",
            Self::CounterpartyError { .. } => "counterparty_error",
            Self::FillRefused(_) => "fill_refused",
            Self::AuthRefused(_) => "auth_refused",
            Self::NoCoins => "no_coins",
            Self::TransactionRefused(_) => "transaction_refused",
            Self::MakerRefused(_) => "maker_refused",
            Self::Unreadable(_) => "unreadable",
            Self::Stopped => "stopped",
        }
    }
}
