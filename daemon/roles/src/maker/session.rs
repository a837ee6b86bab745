//! One conversation with a taker, and what the wallet and the chain do for it.

use std::collections::HashSet;
use std::time::Duration;

use bdk_wallet::bitcoin::{Address, OutPoint};
use joinery_proto::conversation::Ended;
use joinery_proto::conversation::maker::{MakerChoice, MakerSession};
use joinery_proto::message::Fill;
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerShare;
use joinery_proto::utxo::WireUtxo;
use joinery_wallet::round::RoundId;
use joinery_wallet::service::OpenedRound;
use joinery_wallet::types::Mixdepth;

use super::check::InputCheck;
use super::coins::Chosen;
use crate::event::{LinkId, Source};

/// Number of a session, unique within the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// What a question of a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The taker's coin.
    LookUp,
    /// A round in the journal, our coins held, and addresses.
    Open,
    /// That our coins are told, and the proof that they are ours.
    Reveal,
    /// Values of the inputs of the taker's transaction.
    Inputs,
    /// What the mempool takes.
    FeeRate,
    /// That a transaction is signed, and the signatures.
    Sign,
    /// The end of the round.
    End,
}

/// A look at the chain for the taker's coin.
#[derive(Debug, Clone)]
pub(super) struct LookUp {
    pub(super) utxo: WireUtxo,
    pub(super) state: LookUpState,
    pub(super) tries: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUpState {
    Waiting,
    Asked,
    RetryAt(Duration),
}

/// Two addresses that were drawn and shown to nobody.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) mixdepth: Mixdepth,
    pub(super) cj: Address,
    pub(super) change: Address,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) nick: Nick,
    /// Way of the taker's last message: answers go back on it.
    pub(super) via: Source,
    /// Direct connection on which the `!fill` came.
    pub(super) link: Option<LinkId>,
    /// The `!fill`, to know a copy of it.
    pub(super) fill: Fill,
    pub(super) filled_at: Duration,
    pub(super) machine: MakerSession,
    pub(super) offer: Offer,
    pub(super) look_up: Option<LookUp>,
    /// The round in the journal, which holds our coins.
    pub(super) round: Option<RoundId>,
    /// The wallet was asked for round, coins and addresses, and has not answered.
    pub(super) opening: bool,
    pub(super) plan: Option<Chosen>,
    /// Coins that the wallet would not hold.
    pub(super) refused: HashSet<OutPoint>,
    /// Where amount and change go, once the wallet has opened the round.
    pub(super) addresses: Option<Addresses>,
    /// That our coins are told is being made durable.
    pub(super) revealing: bool,
    pub(super) check: Option<InputCheck>,
    /// Transactions that were signed.
    pub(super) signed: u32,
}

impl Session {
    /// Takes over what the wallet opened; `None` if that is not what was asked for.
    pub(super) fn opened(&mut self, opened: OpenedRound) -> Option<MakerChoice> {
        self.round = Some(opened.id);
        let OpenedRound { coins, equal: cj, change, .. } = opened;
        let plan = self.plan.as_ref()?;
        let (mixdepth, asked) = (plan.mixdepth, plan.outpoints.iter());
        if !coins.iter().map(|coin| &coin.outpoint).eq(asked) {
            return None;
        }
        let share = MakerShare {
            agreement: Agreement::of(&self.offer, self.fill.amount),
            coins,
            cj_script: cj.script_pubkey(),
            change_script: change.script_pubkey(),
        };
        let heights = plan.heights.clone();
        let (cj_address, change_address) = (cj.to_string(), change.to_string());
        self.addresses = Some(Addresses { mixdepth, cj, change });
        Some(MakerChoice { share, cj_address, change_address, heights })
    }

    /// Addresses that were drawn for this session and never told.
    pub(super) fn spare_addresses(&self) -> Option<Addresses> {
        let shown = self.revealing || self.machine.has_revealed();
        self.addresses.clone().filter(|_| !shown)
    }

    /// Coins that this session holds or is about to.
    pub(super) fn outpoints(&self) -> impl Iterator<Item = OutPoint> {
        self.plan.iter().flat_map(|plan| plan.outpoints.iter().copied())
    }
}

/// Why a session is over, beyond what the conversation itself can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// As the conversation ended.
    Conversation(Ended),
    /// The chain could not be asked. Nobody's fault.
    Unreachable,
    /// The wallet could not do what was asked, or a coin of ours is gone.
    Wallet,
    /// The same taker came with another `!fill`, or another taker needed the place.
    Replaced,
    /// It was over before its round was open.
    Gone,
}

impl Cause {
    /// Stable word for the journal.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Conversation(ended) => ended.code(),
            Self::Unreachable => "chain_unreachable",
            Self::Wallet => "wallet_refused",
            Self::Replaced => "replaced",
            Self::Gone => "gone",
        }
    }

    /// Sentence for the journal: never a counterparty's coin.
    pub(super) const fn sentence(&self) -> &'static str {
        match self {
            Self::Conversation(Ended::Complete) => "The taker has our signatures.",
            Self::Conversation(Ended::TimedOut { .. }) => "The taker did not go on in time.",
            Self::Conversation(Ended::NoCoins) => "There were no free coins for this amount.",
            Self::Conversation(Ended::AuthRefused(_)) => {
                "The taker's commitment was not acceptable."
            }
            Self::Conversation(Ended::TransactionRefused(_) | Ended::Unreadable(_)) => {
                "The taker's transaction was not what was agreed."
            }
            Self::Conversation(Ended::Stopped) => "The maker was stopped.",
            Self::Conversation(_) => "The conversation ended.",
            Self::Unreachable => "The Electrum server could not be asked.",
            Self::Wallet => "The wallet could not hold or use the coins.",
            Self::Replaced => "The taker started again, or another one needed the place.",
            Self::Gone => "The conversation ended before coins were chosen.",
        }
    }

    /// What the taker hears.
    pub(super) fn reply(&self) -> Option<String> {
        match self {
            Self::Conversation(ended) => ended.reply(),
            Self::Unreachable | Self::Wallet => Some("temporarily unavailable".to_owned()),
            Self::Replaced | Self::Gone => None,
        }
    }

    /// Whether the taker lied.
    pub(super) const fn is_lie(&self) -> bool {
        use joinery_proto::conversation::maker::AuthRefusal;
        matches!(
            self,
            Self::Conversation(
                Ended::TransactionRefused(_)
                    | Ended::Unreadable(_)
                    | Ended::AuthRefused(AuthRefusal::Podle(_))
            )
        )
    }
}
