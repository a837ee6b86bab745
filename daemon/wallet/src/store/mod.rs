//! Durable wallet metadata behind one trait (`design.md` "Storage", `spec/wallet.md` 13.4 and 13.6).
//!
//! Two kinds of data. *Facts* cannot be rebuilt from the chain: they are durable, in the side journal,
//! before [`Store::record`] returns. *Chain data* can be fetched again: it is appended lazily and
//! committed in groups.

mod chain_log;
#[cfg(test)]
mod crash_tests;
mod disk;
mod durable;
mod fact_table;
mod fold;
mod journal;
pub mod memory;
mod seal;
#[cfg(test)]
mod sim_disk;
mod sled_store;
mod snapshot_file;

pub use durable::{open, set_aside};
pub use memory::MemoryStore;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Txid};
use bdk_wallet::chain::{ConfirmationBlockTime, indexed_tx_graph, keychain_txout, local_chain};
use serde::{Deserialize, Serialize};

use crate::chain::StatusHash;
pub use crate::graph::PrunedTx;
use crate::round::{MAX_KEPT_ROUNDS, Round, RoundEvent, RoundId, RoundRole};

/// Who set a freeze flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FreezeOrigin {
    /// A person, through the API.
    User,
    /// The wallet: address reuse or a bond that is still locked.
    Auto,
    /// Taken over from another program's wallet file.
    Import,
}

/// State of a transaction that we made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnTxState {
    /// Signed and stored; may or may not have left the machine.
    Built,
    /// A server accepted it.
    Broadcast,
    /// The server rejected it for good: its coins are free again.
    Rejected,
    /// Seen in a block.
    Confirmed,
}

/// Something that happened and cannot be learnt again from the chain.
///
/// New variants and new optional fields may be added; old journals must still load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fact {
    /// Addresses below `next_unused` of this keychain were handed out. Only ever grows.
    Issued {
        /// Mixdepth.
        mixdepth: u8,
        /// 0 external, 1 internal.
        branch: u8,
        /// Index of the next address to hand out.
        next_unused: u32,
    },
    /// A freeze flag was set or cleared; also for outpoints that are not known yet.
    Frozen {
        /// The coin.
        outpoint: OutPoint,
        /// New state.
        frozen: bool,
        /// Who decided.
        by: FreezeOrigin,
        /// Seconds since epoch.
        time: u64,
    },
    /// Coins were looked at by the automatic freeze rules (`spec/wallet.md` 7.2); never again.
    CoinsSeen {
        /// The coins.
        outpoints: Vec<OutPoint>,
    },
    /// A label was set; an empty one removes it.
    Label {
        /// Address text.
        address: String,
        /// Label text.
        label: String,
    },
    /// The timelocked address of this month was handed out.
    BondIssued {
        /// 0 to 959.
        timenumber: u16,
    },
    /// A PoDLE commitment of this coin is used up.
    CommitmentUsed {
        /// The coin.
        outpoint: OutPoint,
        /// NUMS index, 0 to 255.
        index: u8,
        /// SHA256 of P2.
        commitment: [u8; 32],
    },
    /// We made and signed this transaction.
    OwnTransaction {
        /// Its id.
        txid: Txid,
        /// Consensus serialisation with witnesses.
        #[serde(with = "serde_bytes_vec")]
        raw: Vec<u8>,
        /// Seconds since epoch.
        time: u64,
    },
    /// News of a transaction of ours.
    OwnTransactionState {
        /// Its id.
        txid: Txid,
        /// New state.
        state: OwnTxState,
    },
    /// A transaction of ours is so deep in the chain that it will never be sent again: it is forgotten.
    OwnTransactionOver {
        /// Its id.
        txid: Txid,
    },
    /// A complete sync has been made once.
    SyncedOnce,
    /// Facts of another program's wallet file were taken over.
    Imported,
    /// State was lost and rebuilt. Recorded by the store itself when it opens damaged files.
    StateLost,
    /// Every internal branch was advanced past what may have been shown before the loss: answers
    /// [`Fact::StateLost`]. Record it together with the [`Fact::Issued`] that do it.
    IndexesSkipped,
    /// Something happened in a coinjoin round.
    Round {
        /// Number of the round ([`RoundId`]).
        round: u64,
        /// What.
        event: RoundEvent,
    },
}

/// CBOR byte strings instead of arrays of integers.
pub(crate) mod serde_bytes_vec {
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Vec<u8>, E> {
                Ok(v.to_vec())
            }
            fn visit_byte_buf<E>(self, v: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(v)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut out = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    out.push(byte);
                }
                Ok(out)
            }
        }
        d.deserialize_byte_buf(Bytes)
    }
}

/// A transaction of ours as the facts know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTx {
    /// Consensus serialisation.
    pub raw: Vec<u8>,
    /// When it was made, seconds since epoch.
    pub time: u64,
    /// Last known state.
    pub state: OwnTxState,
}

/// All facts folded together: what a reopened wallet starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Next index by (mixdepth, branch).
    pub issued: BTreeMap<(u8, u8), u32>,
    /// Freeze decisions by coin.
    pub frozen: BTreeMap<OutPoint, (bool, FreezeOrigin)>,
    /// Coins that the automatic freeze rules have looked at.
    pub seen: BTreeSet<OutPoint>,
    /// Labels by address text.
    pub labels: BTreeMap<String, String>,
    /// Months whose bond address was handed out.
    pub bonds: BTreeSet<u16>,
    /// Used commitments: index and hash by coin.
    pub commitments: BTreeMap<OutPoint, BTreeMap<u8, [u8; 32]>>,
    /// Our transactions that are not over.
    pub own_txs: BTreeMap<Txid, OwnTx>,
    /// A complete sync has been made once.
    pub synced_once: bool,
    /// Another program's file was taken over.
    pub imported: bool,
    /// State was lost and the internal branches were not advanced since.
    pub state_lost: bool,
    /// Coinjoin rounds: those that are not over, and some that are.
    pub rounds: BTreeMap<RoundId, Arc<Round>>,
}

impl Facts {
    /// Folds one fact in. Order matters only between facts about the same thing.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Issued { mixdepth, branch, next_unused } => {
                let entry = self.issued.entry((*mixdepth, *branch)).or_default();
                *entry = (*entry).max(*next_unused);
            }
            Fact::Frozen { outpoint, frozen, by, time: _ } => {
                self.frozen.insert(*outpoint, (*frozen, *by));
            }
            Fact::CoinsSeen { outpoints } => self.seen.extend(outpoints),
            Fact::Label { address, label } if label.is_empty() => {
                self.labels.remove(address);
            }
            Fact::Label { address, label } => {
                self.labels.insert(address.clone(), label.clone());
            }
            Fact::BondIssued { timenumber } => {
                self.bonds.insert(*timenumber);
            }
            Fact::CommitmentUsed { outpoint, index, commitment } => {
                self.commitments.entry(*outpoint).or_default().insert(*index, *commitment);
            }
            Fact::OwnTransaction { txid, raw, time } => {
                self.own_txs.entry(*txid).or_insert_with(|| OwnTx {
                    raw: raw.clone(),
                    time: *time,
                    state: OwnTxState::Built,
                });
            }
            Fact::OwnTransactionState { txid, state } => {
                if let Some(tx) = self.own_txs.get_mut(txid) {
                    tx.state = *state;
                }
            }
            Fact::OwnTransactionOver { txid } => {
                self.own_txs.remove(txid);
            }
            Fact::SyncedOnce => self.synced_once = true,
            Fact::Imported => self.imported = true,
            Fact::StateLost => self.state_lost = true,
            Fact::IndexesSkipped => self.state_lost = false,
            Fact::Round { round, event } => self.apply_round(RoundId(*round), event),
        }
    }

    fn apply_round(&mut self, id: RoundId, event: &RoundEvent) {
        match (self.rounds.get_mut(&id), event) {
            (Some(round), event) => Arc::make_mut(round).apply(event),
            (None, RoundEvent::Begun(begin)) => {
                self.rounds.insert(id, Arc::new(Round::new(id, begin.clone())));
            }
            // Its beginning was lost in damage: whatever it is, it cannot be followed.
            (None, _) => {}
        }
    }

    /// The number of the next round.
    #[must_use]
    pub fn next_round(&self) -> RoundId {
        RoundId(self.rounds.last_key_value().map_or(0, |(id, _)| id.0) + 1)
    }

    /// Forgets old rounds: of those that are over the newest [`MAX_KEPT_ROUNDS`] stay, of those whose income is not
    /// written down yet ten times as many. Rounds that hold coins always stay, and so does the newest, so that no number
    /// is used twice.
    ///
    /// Returns how many were forgotten.
    pub(crate) fn forget_rounds(&mut self) -> usize {
        let forgotten: BTreeSet<RoundId> = self.old_rounds().collect();
        self.rounds.retain(|id, _| !forgotten.contains(id));
        forgotten.len()
    }

    /// The rounds that [`Self::forget_rounds`] forgets.
    pub(crate) fn old_rounds(&self) -> impl Iterator<Item = RoundId> {
        let over = self.rounds.values().rev().filter(|round| round.is_over());
        let old = over.zip(0..).filter(|(round, newer)| {
            let owed = round.begin.role == RoundRole::Maker
                && round.confirmed.is_some()
                && !round.accounted;
            *newer >= if owed { 10 * MAX_KEPT_ROUNDS } else { MAX_KEPT_ROUNDS }
        });
        old.map(|(round, _)| round.id)
    }
}

/// What BDK needs to rebuild chain and graph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChainData {
    /// Checkpoints.
    pub chain: local_chain::ChangeSet,
    /// Transactions, anchors, first-seen times and revealed indexes.
    pub graph: indexed_tx_graph::ChangeSet<ConfirmationBlockTime, keychain_txout::ChangeSet>,
    /// Transactions that were set aside. Only in what [`Store::compact`] is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pruned: BTreeMap<Txid, PrunedTx>,
}

/// Status hashes by script: what the server said when the stored data was fetched.
pub type Statuses = HashMap<ScriptBuf, StatusHash>;

/// Where the files of one wallet are. Their parent directories must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePaths {
    /// Directory of the database, `DATA/wallets/.NAME.db`.
    pub db: std::path::PathBuf,
    /// The facts journal, `DATA/wallets/.NAME.journal`; its lock file is beside it.
    pub journal: std::path::PathBuf,
    /// The merged chain data, `DATA/wallets/.NAME.chain`.
    pub snapshot: std::path::PathBuf,
}

/// Puts new content in the place of a small file, durably: see [`disk::replace`].
pub(crate) fn replace_file(
    temporary: &std::path::Path,
    target: &std::path::Path,
    bytes: &[u8],
) -> std::io::Result<()> {
    disk::replace(&disk::RealDisk, temporary, target, bytes)
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused; nothing was acknowledged.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// File or directory.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The database failed.
    #[error("wallet database: {0}")]
    Database(String),
    /// Stored data cannot be decrypted or parsed, and cannot be rebuilt.
    #[error("stored wallet data is damaged: {0}")]
    Damaged(&'static str),
    /// Somebody else has this wallet's files open.
    #[error("{path} is in use by another process or another open wallet")]
    InUse {
        /// The lock that is held.
        path: std::path::PathBuf,
    },
    /// The files are intact but were written with another data key, e.g. by an older wallet of the same
    /// name. Nothing was changed.
    #[error("{path} belongs to another wallet")]
    WrongKey {
        /// The first such file.
        path: std::path::PathBuf,
    },
    /// The files were written by a later version of this program. Nothing was changed.
    #[error("the {0} was written by a newer version")]
    Newer(&'static str),
    /// A fact is larger than the store takes.
    #[error("record of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Serialised size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// Durable state of one wallet. All calls block; the wallet task makes them on its own thread.
pub trait Store: Send + std::fmt::Debug {
    /// Everything recorded so far.
    fn facts(&self) -> &Facts;

    /// Makes facts durable, in order, all or none, and folds them into [`Store::facts`].
    ///
    /// # Errors
    /// After an error nothing of the call may be relied upon and nothing may be revealed.
    fn record(&mut self, facts: &[Fact]) -> Result<(), StoreError>;

    /// Folds facts into [`Store::facts`] that nobody outside may be told of yet. They become durable with what is recorded
    /// next, all of it or none, so that two steps that follow each other wait for the disk once, or when the store is dropped.
    /// When the process is killed before that, they never were.
    fn note(&mut self, facts: &[Fact]);

    /// Chain data and statuses as of the last commit.
    ///
    /// # Errors
    /// Damaged data is discarded (it can be fetched again), so only I/O errors are returned.
    fn load_chain(&mut self) -> Result<(ChainData, Statuses), StoreError>;

    /// Appends a change of chain data, then the statuses that it makes true (`None`: no history).
    /// Durable only after [`Store::commit`].
    ///
    /// # Errors
    /// I/O or database failure.
    fn append_chain(
        &mut self,
        change: &ChainData,
        statuses: &[(ScriptBuf, Option<StatusHash>)],
    ) -> Result<(), StoreError>;

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// I/O or database failure.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Whether the appended changes have grown enough that [`Store::compact`] pays.
    fn wants_compaction(&self) -> bool;

    /// Replaces all chain data by its merged form.
    ///
    /// # Errors
    /// I/O or database failure; the old data stays valid then.
    fn compact(&mut self, merged: &ChainData) -> Result<(), StoreError>;

    /// True when state was lost and rebuilt: internal branches must skip at least 50 indexes before
    /// issuing (`spec/wallet.md` 13.6). Stays true, also over a restart, until
    /// [`Fact::IndexesSkipped`] is recorded.
    fn recovered_from_loss(&self) -> bool;
}
