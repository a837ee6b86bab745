//! What a taker is asked to do, and the settings it obeys (`spec/roles.md` 3.1, 9; `spec/api.md` 6.18, 10).

use std::collections::BTreeSet;
use std::time::Duration;

use bdk_wallet::bitcoin::{Address, Network, OutPoint};
use joinery_proto::nick::Nick;
use joinery_proto::transaction::fees::FeeLimits;
use joinery_proto::transaction::taker::MAX_MAKER_INPUTS;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::types::Mixdepth;

use crate::choose::Chooser;
use crate::podle_source::CommitmentRules;

/// Where the equal amount goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A fresh internal address of the next account (`INTERNAL`).
    Internal,
    /// This address. Its network is checked against [`TakerPolicy::network`] before anybody is asked.
    Address(Address),
}

/// One coinjoin that a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakerRequest {
    /// Account whose coins go in.
    pub mixdepth: Mixdepth,
    /// Equal amount in satoshi; 0 sweeps.
    pub amount: u64,
    /// Makers that are wanted, 1 to 99.
    pub counterparties: u8,
    /// Where the equal amount goes.
    pub destination: Destination,
    /// Exactly these coins are the inputs (`input_utxos`); `None`: the wallet's algorithm chooses, a sweep takes all.
    pub inputs: Option<Vec<OutPoint>>,
}

impl TakerRequest {
    /// Whether a whole account, or all named coins, are spent without change.
    #[must_use]
    pub const fn is_sweep(&self) -> bool {
        self.amount == 0
    }
}

/// Who sends the finished transaction (`tx_broadcast`, `spec/roles.md` 3.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BroadcastPolicy {
    /// Our own server.
    Own,
    /// One of the makers or our own server, each with the same probability.
    #[default]
    RandomPeer,
    /// One of the makers; never our own server.
    NotSelf,
    /// Some random makers at once ([`TakerPolicy::broadcast_peers`]).
    MultiplePeers,
}

impl BroadcastPolicy {
    /// The policy of a setting; anything else is `self`, as in the reference. The second value is false for a word
    /// that is not one of the four.
    #[must_use]
    pub fn from_setting(word: &str) -> (Self, bool) {
        match word {
            "self" => (Self::Own, true),
            "random-peer" => (Self::RandomPeer, true),
            "not-self" => (Self::NotSelf, true),
            "multiple-peers" => (Self::MultiplePeers, true),
            _ => (Self::Own, false),
        }
    }
}

/// Settings of `[POLICY]`, `[TIMEOUT]` and `[JOINERY]` that a taker obeys (`spec/roles.md` 9). Captured when a request
/// begins.
#[derive(Debug, Clone, PartialEq)]
pub struct TakerPolicy {
    /// The chain.
    pub network: Network,
    /// `max_cj_fee_abs` and `max_cj_fee_rel`: a maker is refused only when it is above both.
    pub fee_limits: FeeLimits,
    /// How makers are drawn.
    pub chooser: Chooser,
    /// `minimum_makers`; a request for fewer lowers it.
    pub minimum_makers: u8,
    /// `accept_reduced_makers`: whether fewer makers than were asked for are accepted, down to `minimum_makers`.
    pub accept_fewer: bool,
    /// `maker_timeout_sec`: longest wait for each answer of a maker. Signatures may take twice as long.
    pub maker_timeout: Duration,
    /// `unconfirm_timeout_sec`: a transaction that was not seen this long after it was sent is sent by us.
    pub unconfirm_timeout: Duration,
    /// Longest wait for the first directory.
    pub connect_timeout: Duration,
    /// IRC servers of the channel, which take longer than directories: makers that are only there cannot be spoken to
    /// before.
    pub irc_servers: u16,
    /// Longest wait for them once something else is up (`spec/protocol.md` 5).
    pub irc_timeout: Duration,
    /// Longest wait for a complete order book.
    pub collect_timeout: Duration,
    /// An order book that was complete this long ago may be used at once.
    pub book_age: Duration,
    /// `max_sweep_fee_change`: fraction by which the miner fee of a sweep may differ from its first estimate.
    pub max_sweep_fee_change: f64,
    /// `tx_broadcast`.
    pub broadcast: BroadcastPolicy,
    /// `broadcast_peer_count`, for [`BroadcastPolicy::MultiplePeers`].
    pub broadcast_peers: u8,
    /// `merge_algorithm`.
    pub merge: MergeAlgorithm,
    /// `taker_utxo_retries`, `taker_utxo_age`, `taker_utxo_amtpercent`.
    pub commitment: CommitmentRules,
    /// `max_maker_utxos`: a maker that names more coins is refused. At most [`MAX_MAKER_INPUTS`].
    pub max_maker_inputs: usize,
    /// `maker_replacement_rounds`: how often makers that failed are replaced in one attempt.
    pub replacement_rounds: u8,
    /// `single_retries`: new attempts after one that failed for a reason that may pass.
    pub retries: u8,
    /// What a person agreed to pay in all at most, fees of makers and miners, satoshi: an attempt that would cost more
    /// ends.
    pub max_cost: Option<u64>,
    /// A person agreed to this one address, which is ours: there is no other attempt once makers were shown it.
    pub destination_once: bool,
    /// Whether we announced `neutrino_compat`: extended coin texts go to makers that announced it, too.
    pub neutrino_compat: bool,
}

impl TakerPolicy {
    /// The defaults of `spec/roles.md` 9. The fee limits have none.
    #[must_use]
    pub fn new(network: Network, fee_limits: FeeLimits) -> Self {
        let seconds = Duration::from_secs;
        Self {
            network,
            fee_limits,
            chooser: Chooser::default(),
            minimum_makers: 4,
            accept_fewer: true,
            maker_timeout: seconds(60),
            unconfirm_timeout: seconds(180),
            connect_timeout: seconds(120),
            irc_servers: 0,
            irc_timeout: seconds(60),
            collect_timeout: seconds(125),
            book_age: seconds(600),
            max_sweep_fee_change: 0.8,
            broadcast: BroadcastPolicy::default(),
            broadcast_peers: 3,
            merge: MergeAlgorithm::default(),
            commitment: CommitmentRules::default(),
            max_maker_inputs: MAX_MAKER_INPUTS,
            replacement_rounds: 3,
            retries: 2,
            max_cost: None,
            destination_once: false,
            neutrino_compat: true,
        }
    }
}

/// What a taker is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct TakerSetup {
    /// What is wanted.
    pub request: TakerRequest,
    /// Settings.
    pub policy: TakerPolicy,
    /// Our nick, drawn for this request only.
    pub nick: Nick,
    /// Nicks that this device had in the last day: never counterparties (`spec/roles.md` 13).
    pub own_nicks: BTreeSet<Nick>,
    /// Makers that failed us lately, or were counterparties just before: taken only when there are too few others.
    pub avoid: BTreeSet<Nick>,
    /// Seconds since epoch at the moment that is `now` of [`super::Taker::new`].
    pub epoch: u64,
}
