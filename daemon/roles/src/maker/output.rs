//! What the machine wants done, and what the API may know of it.

use std::sync::Arc;

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::PrivateWord;

use crate::ask::{Question, QuestionId};
use crate::event::Source;

/// One thing to do or to know, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Sign and send a private message.
    Send {
        /// To whom.
        to: Nick,
        /// Its leading word.
        word: PrivateWord,
        /// The rest.
        payload: String,
        /// The way on which the message came that this one answers.
        prefer: Option<Source>,
    },
    /// Send a public message: `command fields…` without a leading `!`.
    Announce {
        /// The text.
        text: String,
        /// On this directory or IRC server; `None`: on all that are up.
        on: Option<Source>,
    },
    /// Answer this with [`super::Maker::answered`].
    Ask(QuestionId, Question),
    /// Publish a used commitment as `!hp2` by a nick that is used for nothing else, over a circuit of its own. When
    /// that cannot be done: [`super::Maker::publication_failed`].
    PublishCommitment(Commitment),
    /// What the API shows changed.
    State(Arc<MakerState>),
    /// The machine is over. The last output.
    Finished(MakerEnd),
}

/// An offer in the words of the API (`spec/roles.md` 4.2, step 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferView {
    /// Its number.
    pub oid: u64,
    /// Word on the wire, e.g. `sw0reloffer`.
    pub ordertype: &'static str,
    /// Satoshi.
    pub minsize: u64,
    /// Satoshi.
    pub maxsize: u64,
    /// Satoshi.
    pub txfee: u64,
    /// Satoshi or a fraction, as it stands on the wire.
    pub cjfee: String,
}

impl From<&Offer> for OfferView {
    fn from(offer: &Offer) -> Self {
        Self {
            oid: offer.id.get(),
            ordertype: offer.order_type.word(),
            minsize: offer.min_size,
            maxsize: offer.max_size,
            txfee: offer.tx_fee,
            cjfee: offer.cj_fee.to_string(),
        }
    }
}

/// The bond that is announced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BondView {
    /// The bonded coin.
    pub outpoint: OutPoint,
    /// Lock time, seconds since epoch.
    pub locktime: u32,
    /// Weight, satoshi to the power of the exponent. The time of its block is estimated from its height.
    pub value: f64,
    /// Last height at which its certificate is valid. It is renewed before.
    pub certified_until: u32,
}

/// Something that went wrong without ending the maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakerProblem {
    /// Stable word.
    pub code: &'static str,
    /// One sentence; never a secret, never a counterparty's coin.
    pub text: String,
}

/// The maker as the API shows it (`spec/roles.md` 4.13).
#[derive(Debug, Clone, PartialEq)]
pub struct MakerState {
    /// Our nick.
    pub nick: Nick,
    /// Offers that stand, by id. Empty while there is nothing to offer.
    pub offers: Vec<OfferView>,
    /// The bond that takers are shown.
    pub bond: Option<BondView>,
    /// Conversations with takers that run now.
    pub sessions_open: usize,
    /// Transactions that were signed since the start.
    pub signed: u64,
    /// Directories that are up.
    pub directories_up: usize,
    /// Within the last half hour our offers were seen coming back from a directory, or a taker found us.
    pub reachable: bool,
    /// The last thing that went wrong.
    pub last_error: Option<MakerProblem>,
    /// New sessions are refused; running ones are finished.
    pub stopping: bool,
}

/// How a maker ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakerEnd {
    /// It was told to.
    #[error("the maker was stopped")]
    Stopped,
    /// The wallet was locked.
    #[error("the wallet was closed")]
    WalletClosed,
    /// The wallet cannot store anything: nothing may be promised to anybody.
    #[error("the wallet cannot store anything: {0}")]
    Storage(String),
}

impl MakerEnd {
    /// A stable word.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::WalletClosed => "wallet_closed",
            Self::Storage(_) => "storage",
        }
    }
}
