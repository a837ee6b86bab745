//! One maker of an attempt.

use std::time::Duration;

use joinery_proto::conversation::taker::TakerSession;
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::transaction::taker::{ForeignCoin, VerifiedMaker};
use joinery_proto::utxo::WireUtxo;

use super::outcome::MakerFailure;
use super::progress::{MakerProgress, MakerStep};
use crate::event::Source;

/// How far a maker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Chosen; `!fill` waits for the commitment to be durable.
    Chosen,
    /// `!fill` was sent.
    Asked,
    /// Its key is here; it waits at the barrier before `!auth`.
    Ready,
    /// `!auth` was sent.
    Authorising,
    /// The chain is asked for its coins.
    Checking,
    /// Verified; waits for the transaction.
    Verified,
    /// `!tx` was sent.
    Signing,
    /// All its inputs are signed.
    Signed,
    /// Takes no part any more.
    Dropped(MakerFailure),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) nick: Nick,
    pub(super) offer: Offer,
    pub(super) stage: Stage,
    pub(super) session: Option<TakerSession>,
    /// Way of its last message that was due.
    pub(super) via: Option<Source>,
    /// Commitment with which it was asked last, counted from 1.
    pub(super) generation: u32,
    /// It said that this commitment is blacklisted.
    pub(super) refused: bool,
    /// It did not answer the last `!fill` in time.
    pub(super) silent: bool,
    /// Coins that it named, until the chain has answered.
    pub(super) named: Vec<WireUtxo>,
    /// Ask the chain again then: it could not be asked.
    pub(super) ask_again: Option<Duration>,
    /// Its coins as the chain knows them.
    pub(super) coins: Vec<ForeignCoin>,
    pub(super) verified: Option<VerifiedMaker>,
    /// It signed a transaction of this attempt completely.
    pub(super) has_signed: bool,
    /// `!tx` was sent a second time, on another way.
    pub(super) repeated: bool,
    /// Signatures that were good, for any of the transactions that it was shown.
    pub(super) accepted: Vec<Vec<u8>>,
    /// Signatures that fitted nothing.
    pub(super) bad_signatures: u8,
}

impl Slot {
    pub(super) const fn new(nick: Nick, offer: Offer) -> Self {
        Self {
            nick,
            offer,
            stage: Stage::Chosen,
            session: None,
            via: None,
            generation: 0,
            refused: false,
            silent: false,
            named: Vec::new(),
            ask_again: None,
            coins: Vec::new(),
            verified: None,
            has_signed: false,
            repeated: false,
            accepted: Vec::new(),
            bad_signatures: 0,
        }
    }

    pub(super) const fn is_dropped(&self) -> bool {
        matches!(self.stage, Stage::Dropped(_))
    }

    pub(super) fn progress(&self, amount: u64) -> MakerProgress {
        let step = match &self.stage {
            Stage::Chosen | Stage::Asked => MakerStep::Asked,
            Stage::Ready => MakerStep::Ready,
            Stage::Authorising => MakerStep::Authorising,
            Stage::Checking => MakerStep::Checking,
            Stage::Verified => MakerStep::Verified,
            Stage::Signing => MakerStep::Signing,
            Stage::Signed => MakerStep::Signed,
            Stage::Dropped(failure) => MakerStep::Dropped(failure.clone()),
        };
        MakerProgress { nick: self.nick, fee: self.offer.cj_fee.of(amount), step }
    }
}
