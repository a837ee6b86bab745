//! What people and programs see of a request while it runs (`spec/api.md` App. C 1, `spec/roles.md` 3.16).

use std::time::Duration;

use bdk_wallet::bitcoin::Txid;
use joinery_proto::nick::Nick;
use joinery_wallet::round::RoundId;

use super::outcome::{MakerFailure, Verdict};

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Waits until a person approves it; the machine is made afterwards.
    Approving,
    /// Waits for the first directory.
    Connecting,
    /// Waits for offers.
    Collecting,
    /// Chooses makers and coins, reserves, makes the commitment.
    Choosing,
    /// Makers were asked; waits for their keys.
    Filling,
    /// The commitment was opened; waits for coins and addresses of makers, and for the chain about them.
    Authorising,
    /// The transaction was shown; waits for signatures.
    Signing,
    /// All makers signed; the chain is asked once more about their coins.
    Rechecking,
    /// Signed by all; it is on its way, or waits to be seen.
    Broadcasting,
    /// An attempt failed; the next one begins soon.
    Pausing,
    /// Lets go of what it holds.
    Ending,
    /// Over.
    Over,
}

impl Phase {
    /// Stable word for API clients.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approving => "approval",
            Self::Connecting => "connecting",
            Self::Collecting => "orderbook",
            Self::Choosing => "choosing",
            Self::Filling => "fill",
            Self::Authorising => "auth",
            Self::Signing => "sign",
            Self::Rechecking => "recheck",
            Self::Broadcasting => "broadcast",
            Self::Pausing => "pause",
            Self::Ending => "ending",
            Self::Over => "over",
        }
    }
}

/// How far a maker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MakerStep {
    /// Asked; has not answered.
    Asked,
    /// Its session key is here.
    Ready,
    /// The commitment was opened to it.
    Authorising,
    /// It named its coins; the chain is being asked.
    Checking,
    /// Its coins and addresses are good.
    Verified,
    /// It was shown the transaction.
    Signing,
    /// All its signatures are good.
    Signed,
    /// It takes no part any more.
    Dropped(MakerFailure),
}

impl MakerStep {
    /// Stable word for API clients.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Ready => "ready",
            Self::Authorising => "authorising",
            Self::Checking => "checking",
            Self::Verified => "verified",
            Self::Signing => "signing",
            Self::Signed => "signed",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// A maker of the current attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakerProgress {
    /// Who.
    pub nick: Nick,
    /// What it asks for at the amount, satoshi, before its part of the miner fee.
    pub fee: u64,
    /// How far it is.
    pub step: MakerStep,
}

/// What an attempt may cost and costs so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeProgress {
    /// Fee rate of the attempt, satoshi per 1000 virtual bytes.
    pub rate: u64,
    /// Fees of the makers that take part now, satoshi.
    pub coinjoin_fee: u64,
    /// Miner fee of the whole transaction: estimated, then as built. Satoshi.
    pub miner_fee: u64,
    /// What we pay in all at most, satoshi: nothing that costs more is signed.
    pub limit: u64,
}

impl Progress {
    /// Of a request that waits until a person approves it, at most so long.
    #[must_use]
    pub fn approving(patience: Duration) -> Self {
        Self {
            phase: Phase::Approving,
            attempt: 0,
            attempts: 0,
            round: None,
            deadline: Some(patience),
            amount: None,
            makers: Vec::new(),
            fees: None,
            txid: None,
            last: None,
            stopping: false,
        }
    }
}

/// A request at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// Which attempt, from 1.
    pub attempt: u8,
    /// Most attempts that there will be.
    pub attempts: u8,
    /// Round of the attempt in the journal, once it was begun.
    pub round: Option<RoundId>,
    /// The phase ends at the latest then, on the clock of the machine.
    pub deadline: Option<Duration>,
    /// Equal amount, once it is known, satoshi.
    pub amount: Option<u64>,
    /// Makers of the attempt, in the order in which they were asked.
    pub makers: Vec<MakerProgress>,
    /// Costs, once makers were chosen.
    pub fees: Option<FeeProgress>,
    /// The transaction that makers were shown last.
    pub txid: Option<Txid>,
    /// Why the attempt before this one failed.
    pub last: Option<Verdict>,
    /// A person asked it to stop.
    pub stopping: bool,
}
