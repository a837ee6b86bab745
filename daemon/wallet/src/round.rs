//! Coinjoin rounds as the wallet remembers them (`spec/roles.md` 3.13, 4.9, 4.10; `design.md` "Storage" 1).
//!
//! A round is a list of events that is appended to the facts journal and folded into a [`Round`]. Each event is
//! durable before its consequence leaves the machine; replaying the list after a power cut gives back what the round
//! holds and what it has shown. New events and new optional fields may be added; old journals must still load.
//!
//! What is deliberately not here: anything that belongs to a counterparty except its nick.

use std::collections::BTreeMap;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerShare;
use joinery_proto::transaction::signing::LentCoin;
use serde::{Deserialize, Serialize};

use crate::store::serde_bytes_vec;

/// Rounds that are kept once they are over; older ones are forgotten when the journal is rotated.
pub const MAX_KEPT_ROUNDS: usize = 100;
/// Longest sentence about an end, bytes.
pub const MAX_SENTENCE: usize = 512;
/// Longest nick, destination, code or name of a counterparty, bytes.
pub const MAX_WORD: usize = 128;
/// Most coins that one round may hold.
pub const MAX_COINS: usize = 500;
/// Most counterparties of one round.
pub const MAX_COUNTERPARTIES: usize = 100;
/// Most transactions that are signed in one round (`spec/roles.md` 4.7: a taker may send another one twice).
pub const MAX_SIGNED: usize = 3;
/// Largest serialised transaction of a round, bytes: more is never relayed.
pub const MAX_TRANSACTION: usize = 400_000;

/// Number of a round in its wallet: ascending from 1, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundId(pub u64);

impl std::fmt::Display for RoundId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Our side of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoundRole {
    /// We start the coinjoin and pay.
    Taker,
    /// We lend coins for a fee.
    Maker,
}

/// What a round is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundBegin {
    /// Our side.
    pub role: RoundRole,
    /// Seconds since epoch.
    pub time: u64,
    /// Account whose coins go in.
    pub mixdepth: u8,
    /// Equal amount in satoshi; 0 for a sweep whose amount is not known yet.
    pub amount: u64,
    /// Taker: makers that are wanted. Maker: 1, the taker.
    pub counterparties: u8,
    /// Taker: address that gets the equal amount, or `INTERNAL`. Maker: empty.
    pub destination: String,
    /// Nick that we have in it.
    pub nick: String,
    /// Maker: what was agreed; missing in journals of before it was written down. Taker: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Agreed>,
}

/// What a maker and its taker agreed on besides the amount, and where the money has to go: written down before anybody is
/// told of a coin. Every transaction of the round is judged by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Nick of the taker.
    pub taker: String,
    /// What we get for it, satoshi.
    pub coinjoin_fee: u64,
    /// What we add to the miner fee, satoshi; not more than we get.
    pub miner_fee: u64,
    /// Script of ours for the equal amount.
    pub equal: ScriptBuf,
    /// Script of ours for the change.
    pub change: ScriptBuf,
}

/// What a round came to, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundSums {
    /// Equal amount, satoshi.
    pub amount: u64,
    /// Counterparties that take part in the transaction: their nicks.
    pub counterparties: Vec<String>,
    /// Our inputs.
    pub input_count: u32,
    /// Value of our inputs, satoshi.
    pub input_value: u64,
    /// Taker: fees of all makers. Maker: our fee. Satoshi.
    pub coinjoin_fee: u64,
    /// Taker: what the miners get from the whole transaction. Maker: our share. Satoshi.
    pub miner_fee: u64,
    /// Taker: what we pay in all (fees of makers and our part of the miner fee). Maker: what we earn, negated.
    /// Satoshi.
    pub cost: i64,
}

/// How a round ended, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundEnd {
    /// Stable word, e.g. `complete`, `not_enough_makers`.
    pub code: String,
    /// One sentence; at most [`MAX_SENTENCE`] bytes, never a secret, never a counterparty's coin.
    pub text: String,
    /// Seconds since epoch.
    pub time: u64,
}

/// One thing that happened in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RoundEvent {
    /// It began. The first event of each round.
    Begun(RoundBegin),
    /// These coins are held by the round: nothing else may select or spend them.
    Reserved {
        /// The coins.
        outpoints: Vec<OutPoint>,
    },
    /// The round lets go of all its coins. Never after [`RoundEvent::Signed`].
    Released,
    /// Taker: this commitment is about to be sent; the coin and index are used up (recorded together with
    /// [`crate::store::Fact::CommitmentUsed`]).
    CommitmentSent {
        /// The coin that it proves; `None` for an external one.
        outpoint: Option<OutPoint>,
        /// NUMS index.
        index: u8,
        /// SHA256 of P2.
        commitment: [u8; 32],
    },
    /// Taker: an unsigned transaction is about to be shown to makers.
    Shown {
        /// Its id (no input of ours has a scriptSig).
        txid: Txid,
        /// What it comes to.
        sums: RoundSums,
    },
    /// Maker: our coins and scripts are about to be told to a taker.
    Revealed {
        /// The scripts; never given to anybody else.
        scripts: Vec<ScriptBuf>,
        /// The taker's commitment; used up.
        commitment: [u8; 32],
    },
    /// Our signatures exist or are about to leave: from now on the coins may be spent by `txid` at any time.
    /// Maker: by the step that signs, with the unsigned transaction; up to three per round. Taker: the complete
    /// transaction.
    Signed {
        /// The transaction.
        txid: Txid,
        /// Consensus serialisation.
        #[serde(with = "serde_bytes_vec")]
        raw: Vec<u8>,
        /// What it comes to.
        sums: RoundSums,
        /// Seconds since epoch.
        time: u64,
    },
    /// A transaction of the round was seen in the mempool or in a block for the first time; or again outside of
    /// blocks, after a reorganisation took it out of its own or after it had been given up.
    Seen {
        /// Which; of several signed ones the one that counts.
        txid: Txid,
        /// Of the first sighting, seconds since epoch.
        time: u64,
    },
    /// It is in a block.
    Confirmed {
        /// Which.
        txid: Txid,
        /// Height of the block.
        height: u32,
        /// Seconds since epoch at which we learnt of it.
        time: u64,
    },
    /// Something else spent a coin of the round in a block, or it was given up: the coins are free where they are
    /// unspent.
    Abandoned {
        /// Seconds since epoch.
        time: u64,
    },
    /// Maker: the row of the income statement is written.
    Accounted,
    /// The conversation part is over. What was signed is still followed.
    Ended(RoundEnd),
}

/// A round with all its events folded together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Its number.
    pub id: RoundId,
    /// What it is about.
    pub begin: RoundBegin,
    /// Coins that it holds or held, ascending.
    pub coins: Vec<OutPoint>,
    /// Maker: scripts that were shown to a taker, ascending.
    pub scripts: Vec<ScriptBuf>,
    /// Maker: the taker's commitment that they were shown for.
    pub commitment: Option<[u8; 32]>,
    /// Taker: the transaction that was shown last.
    pub shown: Option<Txid>,
    /// What it comes to: with the transaction that was seen, else the one signed last, else the one shown last.
    pub sums: RoundSums,
    /// Transactions that may appear: id, serialisation, and when they were signed. The newest is the last.
    pub signed: Vec<(Txid, Vec<u8>, u64)>,
    /// First sighting: id and seconds since epoch.
    pub seen: Option<(Txid, u64)>,
    /// Block: height and seconds since epoch at which we learnt of it.
    pub confirmed: Option<(u32, u64)>,
    /// It was given up after signing.
    pub abandoned: bool,
    /// When it was given up, seconds since epoch.
    abandoned_at: u64,
    /// The row of the income statement is written.
    pub accounted: bool,
    /// How the conversation part ended; `None` while it runs, also after a power cut until it is settled.
    pub end: Option<RoundEnd>,
    shown_sums: RoundSums,
    signed_sums: BTreeMap<Txid, RoundSums>,
}

/// Adds what is not there yet, and keeps the order.
fn add<T: Ord + Clone>(list: &mut Vec<T>, new: &[T]) {
    list.extend_from_slice(new);
    list.sort_unstable();
    list.dedup();
}

impl Round {
    /// A round that has just begun.
    #[must_use]
    pub fn new(id: RoundId, begin: RoundBegin) -> Self {
        let sums = RoundSums { amount: begin.amount, ..RoundSums::default() };
        Self {
            id,
            begin,
            coins: Vec::new(),
            scripts: Vec::new(),
            commitment: None,
            shown: None,
            shown_sums: sums.clone(),
            sums,
            signed: Vec::new(),
            signed_sums: BTreeMap::new(),
            seen: None,
            confirmed: None,
            abandoned: false,
            abandoned_at: 0,
            accounted: false,
            end: None,
        }
    }

    /// Folds an event in.
    ///
    /// Of two events about the same thing the later one counts, and what a round comes to follows from what is left:
    /// so the same round comes out of its compact form ([`Round::unfold`]) and of the database, which knows the
    /// last event about each thing.
    pub fn apply(&mut self, event: &RoundEvent) {
        match event {
            // The first one counts.
            RoundEvent::Begun(_) | RoundEvent::CommitmentSent { .. } => {}
            RoundEvent::Reserved { outpoints } => add(&mut self.coins, outpoints),
            RoundEvent::Released => {
                if self.signed.is_empty() {
                    self.coins.clear();
                }
            }
            RoundEvent::Shown { txid, sums } => {
                self.shown = Some(*txid);
                self.shown_sums = sums.clone();
            }
            RoundEvent::Revealed { scripts, commitment } => {
                add(&mut self.scripts, scripts);
                self.commitment = Some(*commitment);
            }
            RoundEvent::Signed { txid, raw, sums, time } => {
                self.signed.retain(|(known, _, _)| known != txid);
                self.signed.push((*txid, raw.clone(), *time));
                self.signed.sort_by_key(|(txid, _, time)| (*time, *txid));
                self.signed_sums.insert(*txid, sums.clone());
            }
            RoundEvent::Seen { txid, time } => {
                self.seen = Some((*txid, *time));
                self.confirmed = None;
                self.abandoned = false;
            }
            RoundEvent::Confirmed { txid, height, time } => {
                let first = self.seen.map_or(*time, |(_, time)| time);
                self.seen = Some((*txid, first));
                self.confirmed = Some((*height, *time));
                self.abandoned = false;
            }
            RoundEvent::Abandoned { time } => {
                self.abandoned = true;
                self.abandoned_at = *time;
                self.confirmed = None;
            }
            RoundEvent::Accounted => self.accounted = true,
            RoundEvent::Ended(end) => self.end = Some(end.clone()),
        }
        if !self.abandoned {
            self.abandoned_at = 0;
        }
        let seen = self.seen.and_then(|(txid, _)| self.signed_sums.get(&txid));
        let newest = self.signed.last().and_then(|(txid, _, _)| self.signed_sums.get(txid));
        self.sums = seen.or(newest).unwrap_or(&self.shown_sums).clone();
    }

    /// The shortest list of events that folds to this round.
    #[must_use]
    pub fn unfold(&self) -> Vec<RoundEvent> {
        let mut out = vec![RoundEvent::Begun(self.begin.clone())];
        if !self.coins.is_empty() {
            out.push(RoundEvent::Reserved { outpoints: self.coins.clone() });
        }
        if let Some(txid) = self.shown {
            out.push(RoundEvent::Shown { txid, sums: self.shown_sums.clone() });
        }
        if let Some(commitment) = self.commitment {
            out.push(RoundEvent::Revealed { scripts: self.scripts.clone(), commitment });
        }
        for (txid, raw, time) in &self.signed {
            let sums = self.signed_sums.get(txid).cloned().unwrap_or_default();
            out.push(RoundEvent::Signed { txid: *txid, raw: raw.clone(), sums, time: *time });
        }
        if let Some((txid, time)) = self.seen {
            out.push(RoundEvent::Seen { txid, time });
            if let Some((height, time)) = self.confirmed {
                out.push(RoundEvent::Confirmed { txid, height, time });
            }
        }
        if self.abandoned {
            out.push(RoundEvent::Abandoned { time: self.abandoned_at });
        }
        if self.accounted {
            out.push(RoundEvent::Accounted);
        }
        out.extend(self.end.clone().map(RoundEvent::Ended));
        out
    }

    /// What a transaction of a maker's round over these coins is judged by; `None` for a taker's round, and for one of a
    /// time when the agreement was not written down.
    #[must_use]
    pub fn share(&self, coins: Vec<LentCoin>) -> Option<MakerShare> {
        let Agreed { coinjoin_fee, miner_fee, equal, change, .. } = self.begin.agreed.as_ref()?;
        let (fee, tx_fee) = (*coinjoin_fee, *miner_fee);
        Some(MakerShare {
            agreement: Agreement { amount: self.begin.amount, fee, tx_fee },
            coins,
            cj_script: equal.clone(),
            change_script: change.clone(),
        })
    }

    /// What a transaction of a maker's round comes to.
    #[must_use]
    pub fn sums_of(&self, share: &MakerShare) -> RoundSums {
        let Agreement { amount, fee, tx_fee } = share.agreement;
        let taker = self.begin.agreed.as_ref().map(|agreed| agreed.taker.clone());
        RoundSums {
            amount,
            counterparties: taker.into_iter().collect(),
            input_count: u32::try_from(share.coins.len()).unwrap_or(u32::MAX),
            input_value: share.input_value(),
            coinjoin_fee: fee,
            miner_fee: tx_fee,
            cost: i64::try_from(share.agreement.earning()).unwrap_or(i64::MAX).saturating_neg(),
        }
    }

    /// When something of ours was signed last, seconds since epoch.
    #[must_use]
    pub fn signed_at(&self) -> Option<u64> {
        self.signed.last().map(|(_, _, time)| *time)
    }

    /// Whether the round still keeps its coins from everybody else: while it runs, and after signing until a block or
    /// the decision to give it up settles it. Ended without a signature, it holds nothing.
    #[must_use]
    pub fn holds_coins(&self) -> bool {
        if self.signed.is_empty() {
            self.end.is_none()
        } else {
            self.confirmed.is_none() && !self.abandoned
        }
    }

    /// Whether nothing can happen in it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some() && (self.signed.is_empty() || self.confirmed.is_some() || self.abandoned)
    }
}
