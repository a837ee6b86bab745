//! What a maker is started with, and why it cannot be (`spec/roles.md` 4.1, 9; `spec/api.md` 6.16).

use std::collections::HashSet;
use std::time::Duration;

use joinery_proto::cjfee::{CjFee, RelativeFee};
use joinery_proto::conversation::maker::{CommitmentPolicy, SESSION_TIMEOUT};
use joinery_proto::maker_offers::{InputMixdepthRule, OfferTerms, Spread};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{MAX_MONEY, OrderType};
use joinery_proto::transaction::taker::MAX_MAKER_INPUTS;
use joinery_wallet::policy::MergeAlgorithm;

use super::coins::CoinRules;
use super::offers;
use crate::ask::WalletView;

/// What the owner wants to earn, as it came in the request that starts the maker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MakerTerms {
    /// `sw0reloffer` or `sw0absoffer`: the one kind that is offered, unless [`Self::dual`].
    pub order_type: OrderType,
    /// `cjfee_a`, satoshi.
    pub absolute_fee: u64,
    /// `cjfee_r`, a fraction.
    pub relative_fee: RelativeFee,
    /// `txfee_contribution`, satoshi.
    pub tx_fee: u64,
    /// `minsize`, satoshi.
    pub min_size: u64,
    /// Factors of the privacy-enhanced generator; `None` offers the exact values, as the reference's API does.
    pub spread: Option<Spread>,
    /// `dual_offers`: a relative offer with id 0 and an absolute one with id 1 that share the range.
    pub dual: bool,
}

/// Terms that nobody may offer. The API answers 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// Not a kind of a native segwit wallet.
    #[error("ordertype must be sw0reloffer or sw0absoffer")]
    OrderType,
    /// Zero where the fee is relative.
    #[error("cjfee_r must be above 0 and below 1")]
    RelativeFee,
    /// More than all money.
    #[error("an amount is more than there is money")]
    Amount,
    /// A factor that is not within 0 and 1.
    #[error("factors must be between 0 and 1")]
    Factor,
}

/// Why a maker cannot be started now; found without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartRefusal {
    /// The terms cannot be offered: 400.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// No account has a confirmed, free coin: 409.
    #[error("Maker could not start, no confirmed coins.")]
    NoCoins,
    /// No account has enough for the smallest amount: 409.
    #[error("Maker could not start, minsize exceeds the available balance.")]
    MinimumTooLarge,
}

impl StartRefusal {
    /// A stable word.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Terms(_) => "bad_terms",
            Self::NoCoins => "no_coins",
            Self::MinimumTooLarge => "minsize_too_large",
        }
    }
}

impl MakerTerms {
    /// The terms of a single exact offer of `[YIELDGENERATOR]`'s defaults.
    #[must_use]
    pub fn new(order_type: OrderType) -> Self {
        Self {
            order_type,
            absolute_fee: 500,
            // 0.00002 is a valid fee; nothing at all would be refused by `check`.
            relative_fee: "0.00002".parse().unwrap_or(RelativeFee::ZERO),
            tx_fee: 0,
            min_size: 100_000,
            spread: None,
            dual: false,
        }
    }

    /// Checks what a person typed.
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn check(&self) -> Result<(), TermsError> {
        if !matches!(self.order_type, OrderType::Sw0Relative | OrderType::Sw0Absolute) {
            return Err(TermsError::OrderType);
        }
        if (self.dual || self.order_type.is_relative()) && self.relative_fee.is_zero() {
            return Err(TermsError::RelativeFee);
        }
        if [self.absolute_fee, self.tx_fee, self.min_size].iter().any(|sats| *sats > MAX_MONEY) {
            return Err(TermsError::Amount);
        }
        let factors = self.spread.map(|spread| [spread.tx_fee, spread.cj_fee, spread.size]);
        if factors.iter().flatten().any(|factor| !(0.0..=1.0).contains(factor)) {
            return Err(TermsError::Factor);
        }
        Ok(())
    }

    /// The terms of one of the two kinds.
    pub(super) const fn of(&self, order_type: OrderType) -> OfferTerms {
        let cj_fee = if order_type.is_relative() {
            CjFee::Relative(self.relative_fee)
        } else {
            CjFee::Absolute(self.absolute_fee)
        };
        OfferTerms { order_type, cj_fee, tx_fee: self.tx_fee, min_size: self.min_size }
    }
}

/// Whether a maker with these terms has anything to offer. The API calls it before it answers 202: a start that
/// cannot work is refused at once.
///
/// # Errors
/// [`StartRefusal`].
pub fn check_start(
    terms: &MakerTerms,
    rules: &CoinRules,
    view: &WalletView,
) -> Result<(), StartRefusal> {
    terms.check()?;
    if view.balances().values().all(|balance| *balance == 0) {
        return Err(StartRefusal::NoCoins);
    }
    if offers::possible(terms, rules, view) { Ok(()) } else { Err(StartRefusal::MinimumTooLarge) }
}

/// Who publishes the commitments that this maker has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publication {
    /// The driver, by a throwaway nick on a circuit of its own ([`super::Output::PublishCommitment`]).
    #[default]
    Throwaway,
    /// One random maker of the order book, asked by a private `!hp2` (the reference's way).
    Relay,
}

/// Waiting times of a maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MakerTiming {
    /// `session_timeout_sec`: longest life of a conversation.
    pub session: Duration,
    /// `offer_reannounce_delay_max`: longest random wait before changed offers are announced.
    pub reannounce_delay_max: Duration,
    /// Shortest time between two announcements to one directory.
    pub announce_interval: Duration,
    /// What sessions that have shown coins get when the maker is stopped.
    pub stop: Duration,
    /// How long the inputs of a taker's transaction are looked up before it is signed without knowing its fee rate.
    pub input_check: Duration,
    /// Pause before a question to a chain that did not answer is asked again.
    pub chain_retry: Duration,
    /// How long after its signing a transaction may be sent by `!push` (`pending_tx_timeout`).
    pub push: Duration,
    /// How long, at least and at most, a used commitment is kept to ourselves: the other makers of the same coinjoin
    /// must have answered its `!fill` before they hear of it, or they refuse. Takers of the reference open their
    /// commitment to each maker as it comes.
    pub publish: (Duration, Duration),
}

impl Default for MakerTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            session: Duration::from_millis(SESSION_TIMEOUT),
            reannounce_delay_max: seconds(600),
            announce_interval: seconds(30),
            stop: seconds(30),
            input_check: seconds(5),
            chain_retry: seconds(3),
            push: seconds(3_600),
            publish: (seconds(5), seconds(15)),
        }
    }
}

/// What a maker is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct MakerConfig {
    /// Our nick of this run; never used before.
    pub nick: Nick,
    /// What is offered.
    pub terms: MakerTerms,
    /// How coins are chosen.
    pub rules: CoinRules,
    /// What is asked of takers' commitments.
    pub policy: CommitmentPolicy,
    /// `minimum_profit_sat`: nothing is signed for less, satoshi.
    pub minimum_profit: u64,
    /// `accept_commitment_broadcasts`.
    pub accept_commitments: bool,
    /// Who publishes our used commitments.
    pub publication: Publication,
    /// Whether extended coin texts are offered to takers (`neutrino_compat`).
    pub neutrino_compat: bool,
    /// `interest_rate` of `[POLICY]`, a year.
    pub interest_rate: f64,
    /// `bond_value_exponent` of `[POLICY]`.
    pub bond_exponent: f64,
    /// Nicks that this device had in the last 24 hours: never a counterparty.
    pub own_nicks: HashSet<Nick>,
    /// Seconds since epoch at which the steady clock of the machine stands at zero; dates in the journal.
    pub epoch: u64,
    /// Waiting times.
    pub timing: MakerTiming,
}

impl MakerConfig {
    /// The defaults of `[POLICY]` and `[JOINERY]`.
    #[must_use]
    pub fn new(nick: Nick, terms: MakerTerms, epoch: u64) -> Self {
        Self {
            nick,
            terms,
            rules: CoinRules::default(),
            policy: CommitmentPolicy::default(),
            minimum_profit: 0,
            accept_commitments: true,
            publication: Publication::default(),
            neutrino_compat: true,
            interest_rate: 0.015,
            bond_exponent: 1.3,
            own_nicks: HashSet::new(),
            epoch,
            timing: MakerTiming::default(),
        }
    }

    /// Whether a nick is one of this device.
    pub(super) fn is_ours(&self, nick: &Nick) -> bool {
        *nick == self.nick || self.own_nicks.contains(nick)
    }
}

impl Default for CoinRules {
    fn default() -> Self {
        Self {
            merge_algorithm: MergeAlgorithm::Default,
            max_inputs: MAX_MAKER_INPUTS,
            mixdepth: InputMixdepthRule::LargestGap,
        }
    }
}
