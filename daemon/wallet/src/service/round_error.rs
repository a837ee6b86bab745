//! Why a request about a coinjoin round was refused.

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::transaction::maker::MakerRefusal;

use super::ServiceError;
use crate::round::RoundId;
use crate::store::StoreError;
use crate::types::Mixdepth;

/// Why a coin cannot take part in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The wallet knows no such output of its own, or it is a block reward that is not mature.
    #[error("it is not a coin of this wallet")]
    Unknown,
    /// It is spent, at least in the mempool.
    #[error("it is spent")]
    Spent,
    /// A person or a rule froze it.
    #[error("it is frozen")]
    Frozen,
    /// It is timelocked, whether the time has passed or not.
    #[error("it is a fidelity bond")]
    Bond,
    /// A payment or another round holds it.
    #[error("something else holds it")]
    Held,
    /// Only P2WPKH coins go into coinjoins.
    #[error("its script is not P2WPKH")]
    Script,
    /// It is in another account than the round.
    #[error("it is in another mixdepth than the round")]
    Mixdepth,
    /// It is not confirmed; only bonds are refused for it.
    #[error("it is not confirmed")]
    Unconfirmed,
    /// It is no bond, and only a bond can be certified.
    #[error("it is not a fidelity bond")]
    NoBond,
}

/// Why a request about a round was refused. Nothing changed and nothing was handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoundError {
    /// There is no such round.
    #[error("there is no coinjoin round {0}")]
    NoSuchRound(RoundId),
    /// The conversation part of the round is over.
    #[error("coinjoin round {0} is over")]
    Ended(RoundId),
    /// A coin cannot be used.
    #[error("coin {outpoint} cannot be used: {reason}")]
    Unusable {
        /// The first such coin.
        outpoint: OutPoint,
        /// Why.
        reason: Unusable,
    },
    /// The round does not hold the coin.
    #[error("coinjoin round {round} does not hold coin {outpoint}")]
    NotHeld {
        /// The round.
        round: RoundId,
        /// The coin.
        outpoint: OutPoint,
    },
    /// This coin was used with this index before, or the commitment itself was.
    #[error("the commitment was used before")]
    CommitmentUsed,
    /// One of the scripts was shown to somebody else.
    #[error("a script was shown to somebody else before")]
    ScriptUsed,
    /// The event cannot happen in this round now.
    #[error("not possible in this round: {0}")]
    OutOfOrder(&'static str),
    /// The transaction is not one that may be signed in this round.
    #[error("the transaction does not belong to this round: {0}")]
    WrongTransaction(&'static str),
    /// A maker's transaction is not what was agreed, or the agreement itself costs us money: nothing was signed.
    #[error("not signed: {0}")]
    Refused(#[source] MakerRefusal),
    /// Something is longer than the journal takes.
    #[error("{what} of {size} is larger than the limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Bytes or pieces.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The mixdepth does not exist.
    #[error("mixdepth {0} does not exist")]
    NoSuchMixdepth(Mixdepth),
    /// The wallet was opened for the maker role only.
    #[error("the wallet is open for the maker only")]
    MakerOnly,
    /// A key does not own its coin: nothing is signed with it, and it is not handed out.
    #[error("internal check failed: {0}")]
    KeyCheck(&'static str),
    /// The store failed: nothing may leave.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The wallet was locked, or its task ended.
    #[error("the wallet is closed")]
    Closed,
}

impl From<ServiceError> for RoundError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Store(error) => Self::Store(error),
            ServiceError::NoSuchMixdepth(mixdepth) => Self::NoSuchMixdepth(mixdepth),
            ServiceError::KeyCheck(what) => Self::KeyCheck(what),
            ServiceError::MakerOnly => Self::MakerOnly,
            _ => Self::Closed,
        }
    }
}
