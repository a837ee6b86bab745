//! Bonds: proofs that makers made for us, and what the chain says of the coins (`spec/roles.md` 6.2,
//! `spec/wallet.md` 13.7).
//!
//! A proof is checked by its signatures first, which costs nothing but our own time; only then the chain is
//! asked, a few questions at a time, taking turns between the directories that brought the proofs: one that
//! makes up thousands of bonds delays its own makers, not those of others.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf};
use joinery_proto::bond_proof::BondProof;
use joinery_proto::fidelity_bond;

use super::config::{OrderBookLimits, OrderBookTiming};
use super::makers::Group;
use crate::budget::Budget;

/// A bonded coin as a proof names it: where it is, and the lock time and key that its script must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BondedCoin {
    /// The coin.
    pub outpoint: OutPoint,
    /// Lock time, seconds since epoch.
    pub locktime: u32,
    /// Key of the coin.
    pub key: PublicKey,
}

impl BondedCoin {
    /// The script that the coin must pay (34 bytes, P2WSH).
    #[must_use]
    pub fn script_pubkey(&self) -> ScriptBuf {
        fidelity_bond::script_pubkey(self.locktime, &self.key)
    }
}

impl From<&BondProof> for BondedCoin {
    fn from(proof: &BondProof) -> Self {
        Self { outpoint: proof.outpoint, locktime: proof.locktime, key: proof.coin_key }
    }
}

/// What the chain says of a bonded coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondAnswer {
    /// It is there, unspent, pays the script, and its block is proved.
    Confirmed {
        /// Value of the coin.
        amount: Amount,
        /// Height of its block.
        height: u32,
        /// Header time of its block, seconds since epoch.
        time: u32,
    },
    /// It is spent, unconfirmed, or never was.
    Absent,
    /// The chain could not be asked. Says nothing about the coin.
    Unavailable,
    /// The server was asked and gave no answer that could be used. Says nothing about the coin either, but may have to
    /// do with it.
    Unanswered,
}

/// The best block, as far as bonds need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookTip {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Median time of the last 11 blocks, seconds since epoch: the "now" of bond values.
    pub median_time: u32,
}

/// The proof that counts for a maker.
#[derive(Debug, Clone)]
pub(super) struct BondClaim {
    pub(super) proof: BondProof,
    /// Order in which nicks first claimed: of several with one coin the first has it.
    pub(super) order: u64,
}

impl BondClaim {
    pub(super) fn coin(&self) -> BondedCoin {
        BondedCoin::from(&self.proof)
    }
}

/// A coin that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) amount: Amount,
    pub(super) height: u32,
    pub(super) time: u32,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// `None`: never answered, or not there.
    found: Option<Found>,
    /// Until when it needs no lookup, unless there is a block.
    until: Duration,
    /// Block at which it was found.
    tip: Option<BlockHash>,
    /// When it was found last.
    at: Duration,
    /// In the queue or on the way.
    pending: bool,
}

/// Lookups: wanted, on the way, answered.
#[derive(Debug)]
pub(super) struct Lookups {
    timing: OrderBookTiming,
    at_once: usize,
    most: usize,
    budget: Budget,
    known: HashMap<BondedCoin, Known>,
    waiting: BTreeMap<Group, VecDeque<BondedCoin>>,
    /// Group that was served last.
    turn: Group,
    running: HashMap<BondedCoin, Duration>,
}

impl Lookups {
    pub(super) fn new(limits: &OrderBookLimits, timing: OrderBookTiming) -> Self {
        // A whole market may ask at once: as many as there are makers on the live network, twice.
        let burst = limits.lookups_per_second.saturating_mul(50);
        Self {
            timing,
            at_once: limits.lookups,
            most: limits.nicks.saturating_mul(2),
            budget: Budget::new(f64::from(limits.lookups_per_second), burst),
            known: HashMap::new(),
            waiting: BTreeMap::new(),
            turn: None,
            running: HashMap::new(),
        }
    }

    /// What is known of a coin.
    pub(super) fn found(&self, coin: &BondedCoin) -> Option<Found> {
        self.known.get(coin)?.found
    }

    /// A coin is claimed: asks the chain unless a fresh answer is there. True when it is a new question.
    pub(super) fn want(
        &mut self,
        coin: BondedCoin,
        group: Group,
        tip: Option<BlockHash>,
        now: Duration,
    ) -> bool {
        if !self.known.contains_key(&coin) && self.known.len() >= self.most {
            return false;
        }
        let known = self.known.entry(coin).or_insert(Known {
            found: None,
            until: now,
            tip: None,
            at: now,
            pending: false,
        });
        let moved = known.found.is_some() && known.tip != tip;
        if known.pending || (now < known.until && !moved) {
            return false;
        }
        known.pending = true;
        self.waiting.entry(group).or_default().push_back(coin);
        true
    }

    /// The next question to ask now, if one may be asked.
    pub(super) fn start(&mut self, now: Duration) -> Option<BondedCoin> {
        if self.running.len() >= self.at_once || self.waiting.is_empty() || !self.budget.take(now) {
            return None;
        }
        let turn = self.turn;
        let next = self.waiting.keys().find(|group| **group > turn).copied();
        let group = next.or_else(|| self.waiting.keys().next().copied())?;
        self.turn = group;
        let queue = self.waiting.get_mut(&group)?;
        let coin = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&group);
        }
        let coin = coin?;
        self.running.insert(coin, now.saturating_add(self.timing.lookup));
        Some(coin)
    }

    /// An answer came. False when nobody waits for it any more.
    pub(super) fn answered(
        &mut self,
        coin: &BondedCoin,
        answer: BondAnswer,
        tip: Option<BlockHash>,
        now: Duration,
    ) -> bool {
        if self.running.remove(coin).is_none() {
            return false;
        }
        self.settle(coin, answer, tip, now)
    }

    fn settle(
        &mut self,
        coin: &BondedCoin,
        answer: BondAnswer,
        tip: Option<BlockHash>,
        now: Duration,
    ) -> bool {
        let Some(known) = self.known.get_mut(coin) else { return false };
        known.pending = false;
        let before = known.found;
        let lasts = match answer {
            BondAnswer::Confirmed { amount, height, time } => {
                known.found = Some(Found { amount, height, time });
                known.at = now;
                self.timing.bond_found
            }
            BondAnswer::Absent => {
                known.found = None;
                self.timing.bond_absent
            }
            // What was known stands: a server that is away has spent nobody's coins.
            BondAnswer::Unavailable => self.timing.bond_retry,
            BondAnswer::Unanswered => self.timing.bond_absent,
        };
        // Not for ever: nobody may keep the weight of a bond by making it hard to look up.
        if now.saturating_sub(known.at) >= self.timing.bond_trust {
            known.found = None;
        }
        known.until = now.saturating_add(lasts);
        known.tip = tip;
        before != known.found
    }

    /// Gives up on lookups without answer.
    pub(super) fn expire(&mut self, tip: Option<BlockHash>, now: Duration) {
        let late: Vec<_> =
            self.running.iter().filter(|(_, end)| **end <= now).map(|(coin, _)| *coin).collect();
        for coin in late {
            self.running.remove(&coin);
            self.settle(&coin, BondAnswer::Unavailable, tip, now);
        }
    }

    /// Forgets coins that nobody claims, except that a coin that was not there stays unasked for its time.
    pub(super) fn keep(&mut self, claimed: &HashSet<BondedCoin>, now: Duration) {
        let keeps = |coin: &BondedCoin, known: &Known| {
            known.pending || claimed.contains(coin) || (known.found.is_none() && now < known.until)
        };
        self.known.retain(|coin, known| keeps(coin, known));
    }

    /// When something is to be done that no input announces.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.running.values().min().copied()
    }

    /// When the coin is to be asked for again, without a block.
    pub(super) fn due(&self, coin: &BondedCoin) -> Option<Duration> {
        self.known.get(coin).filter(|known| !known.pending).map(|known| known.until)
    }

    /// Whether questions wait only for the budget.
    pub(super) fn waits_for_budget(&self) -> bool {
        self.running.len() < self.at_once && !self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Questions that are asked or wait to be.
    pub(super) fn pending(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum::<usize>().saturating_add(self.running.len())
    }
}
