//! Downloads what changed: histories of scripts, the transactions that the wallet does not have, and the
//! proofs that they are in their blocks. Reports in pieces of bounded size, oldest block first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bdk_wallet::bitcoin::{BlockHash, Transaction, Txid};
use bdk_wallet::chain::TxUpdate;
use joinery_wallet::chain::{ChainTip, ScriptHistory, TxHeight};
use serde_json::json;

use super::answers;
use super::client::Call;
use super::error::LinkError;
use super::headers::TipChange;
use super::script::{HistoryEntry, status_of};
use super::sync::{Stop, Sync, unix_time};
use super::watch::Trouble;

/// Longest history: about 120 000 transactions.
const HISTORY_MAX: usize = 12 * 1024 * 1024;
/// Longest transaction: four million bytes in hexadecimal, and quotes.
const TRANSACTION_MAX: usize = 8 * 1024 * 1024 + 1024;
/// Scripts whose histories are asked for before transactions are.
const SCRIPTS_AT_ONCE: usize = 5_000;
/// Lines of history, after which no more scripts are asked for.
const ENTRIES_AT_ONCE: usize = 100_000;
/// Transactions in one piece of news.
const PIECE: usize = 500;
/// Bytes of transactions after which a piece is full.
const PIECE_BYTES: usize = 4_000_000;
/// Transactions asked for before anything is known of their size.
const TRANSACTIONS_FIRST: usize = 50;

/// A script whose news is being downloaded.
struct Script {
    index: usize,
    entries: Vec<HistoryEntry>,
    /// Transactions that the wallet was not told of yet.
    missing: usize,
    trouble: Option<Trouble>,
}

/// A transaction of one or more of the scripts.
struct Wanted {
    txid: Txid,
    height: TxHeight,
    /// Positions in the list of scripts.
    scripts: Vec<usize>,
}

impl Sync<'_> {
    /// Brings scripts that changed up to date.
    pub(super) async fn download(&mut self, tip: ChainTip) -> Result<(), Stop> {
        let mut scripts = self.histories().await?;
        let Some(tip) = self.reach_tip(&scripts, tip).await? else { return Ok(()) };
        for script in &mut scripts {
            let announced = self.session.scripts.get(script.index).and_then(|s| s.announced);
            if script.trouble.is_none() {
                script.trouble = doubt(&script.entries, announced, tip);
            }
        }
        let mut wanted = plan(&mut scripts);
        // Scripts without a transaction left to tell of go with the first piece.
        let mut done: Vec<usize> = scripts
            .iter()
            .enumerate()
            .filter(|(_, s)| s.missing == 0 && s.trouble.is_none())
            .map(|(i, _)| i)
            .collect();
        while !wanted.is_empty() || !done.is_empty() {
            let piece = self.piece(&mut wanted, &mut scripts).await?;
            for script in piece.finished {
                done.push(script);
            }
            let finished: Vec<&Script> = done
                .drain(..)
                .filter_map(|position| scripts.get(position))
                .filter(|script| script.trouble.is_none())
                .collect();
            let statuses: Vec<_> =
                finished.iter().map(|s| (s.index, status_of(&s.entries))).collect();
            let histories = finished.into_iter().filter_map(|script| self.report(script)).collect();
            if !piece.update.is_empty() || !statuses.is_empty() {
                self.tell(tip, piece.update, histories).await?;
            }
            for (index, status) in statuses {
                self.session.applied(index, status);
            }
            self.tell_progress();
            if !self.session.obey_all() {
                return Err(Stop::SessionOver);
            }
        }
        let mut contradiction = false;
        for script in scripts {
            if let Some(trouble) = script.trouble {
                contradiction |= matches!(trouble, Trouble::Contradiction(_));
                self.session.trouble(script.index, trouble)?;
            }
        }
        if contradiction {
            // The usual cause is a block that we have not heard of yet.
            self.refresh_tip().await?;
        }
        Ok(())
    }

    /// Asks for the histories of dirty scripts, as many as fit into one round.
    async fn histories(&mut self) -> Result<Vec<Script>, Stop> {
        let dirty: Vec<usize> = self.session.dirty.iter().copied().take(SCRIPTS_AT_ONCE).collect();
        let mut scripts: Vec<Script> = Vec::new();
        let mut overloaded = false;
        let mut entries = 0;
        let mut dirty = dirty.as_slice();
        while !dirty.is_empty() && entries <= ENTRIES_AT_ONCE {
            let window = self.pace.histories.size();
            let (group, rest) = dirty.split_at(window.min(dirty.len()));
            dirty = rest;
            let calls = group
                .iter()
                .filter_map(|index| self.session.scripts.get(*index))
                .map(|watched| Call {
                    method: "blockchain.scripthash.get_history",
                    params: json!([watched.hash.to_string()]),
                    limit: HISTORY_MAX,
                })
                .collect();
            self.pace
                .histories
                .ask(self.client, calls, |position, answer| {
                    let Some(index) = group.get(position).copied() else { return Ok(()) };
                    let mut script =
                        Script { index, entries: Vec::new(), missing: 0, trouble: None };
                    match answer {
                        Ok(answer) => {
                            script.entries = answers::history(answer.text())
                                .ok_or(LinkError::Protocol("a history that is none"))?;
                            entries += script.entries.len();
                        }
                        Err(error) => {
                            overloaded |= error.is_overload();
                            script.trouble = Some(Trouble::Refused(error.text));
                        }
                    }
                    scripts.push(script);
                    Ok(())
                })
                .await?;
        }
        if overloaded {
            self.pace.shrink();
        }
        // What the server said meanwhile counts.
        for (hash, status) in self.client.take_script_pushes() {
            self.session.announce_hash(&hash, status);
        }
        Ok(scripts)
    }

    /// Downloads and proves transactions until a piece is full.
    async fn piece(
        &mut self,
        wanted: &mut VecDeque<Wanted>,
        scripts: &mut [Script],
    ) -> Result<Piece, Stop> {
        let mut piece = Piece::default();
        let mut heights = Vec::new();
        let mut taken: Vec<Wanted> = Vec::new();
        let mut bytes = 0;
        let mut fitting = TRANSACTIONS_FIRST;
        while taken.len() < PIECE && bytes < PIECE_BYTES && !wanted.is_empty() {
            let room = (PIECE - taken.len()).min(fitting);
            let group: Vec<Wanted> = wanted.drain(..room.min(wanted.len())).collect();
            let new: Vec<Txid> = group
                .iter()
                .map(|w| w.txid)
                .filter(|txid| !self.session.known.contains_key(txid))
                .collect();
            let mut failed: HashMap<Txid, Trouble> = HashMap::new();
            for (txid, outcome) in self.transactions(&new).await? {
                match outcome {
                    Ok(tx) => {
                        bytes += tx.total_size();
                        piece.update.txs.push(Arc::new(tx));
                    }
                    Err(trouble) => {
                        failed.insert(txid, trouble);
                    }
                }
            }
            // If the others are as large as these.
            let average = bytes.checked_div(piece.update.txs.len()).unwrap_or_default();
            fitting = PIECE_BYTES
                .saturating_sub(bytes)
                .checked_div(average)
                .unwrap_or(PIECE)
                .max(TRANSACTIONS_FIRST);
            for item in group {
                match (failed.remove(&item.txid), item.height) {
                    (Some(trouble), _) => blame(scripts, &item.scripts, &trouble),
                    (None, TxHeight::Block(height)) => {
                        heights.push((item.txid, height));
                        taken.push(item);
                    }
                    (None, TxHeight::Unconfirmed) => taken.push(item),
                }
            }
        }
        let headers = &*self.headers;
        // Proven to be in the block that is still there: nothing to do.
        heights.retain(|(txid, height)| {
            let proven = self.session.known.get(txid).copied().flatten();
            let block = headers.get(*height).map(|header| header.block_hash());
            let proven: Option<BlockHash> =
                proven.filter(|proven| proven.height == *height).map(|proven| proven.hash);
            // Headers of old blocks are not kept; the agreed chain holds every proven block.
            match (proven, block) {
                (Some(proven), Some(block)) => proven != block,
                (Some(_), None) => false,
                (None, _) => true,
            }
        });
        let unproven: HashMap<Txid, Trouble> =
            self.prove(&heights, &mut piece.update).await?.into_iter().collect();
        let now = unix_time();
        for item in taken {
            if let Some(trouble) = unproven.get(&item.txid) {
                blame(scripts, &item.scripts, trouble);
                continue;
            }
            if item.height == TxHeight::Unconfirmed {
                piece.update.seen_ats.insert((item.txid, now));
            }
            for position in item.scripts {
                let Some(script) = scripts.get_mut(position) else { continue };
                script.missing = script.missing.saturating_sub(1);
                if script.missing == 0 {
                    piece.finished.push(position);
                }
            }
        }
        // Without its proof a transaction is not told of.
        piece.update.txs.retain(|tx| !unproven.contains_key(&tx.compute_txid()));
        Ok(piece)
    }

    async fn transactions(
        &mut self,
        txids: &[Txid],
    ) -> Result<Vec<(Txid, Result<Transaction, Trouble>)>, LinkError> {
        let calls = txids
            .iter()
            .map(|txid| Call {
                method: "blockchain.transaction.get",
                params: json!([txid]),
                limit: TRANSACTION_MAX,
            })
            .collect();
        let mut outcomes = Vec::with_capacity(txids.len());
        self.pace
            .transactions
            .ask(self.client, calls, |index, answer| {
                let Some(txid) = txids.get(index).copied() else { return Ok(()) };
                let outcome = match answer {
                    Ok(answer) => {
                        Ok(answers::transaction(answer.text(), txid).ok_or_else(|| {
                            LinkError::lie(format!("another transaction than {txid}"))
                        })?)
                    }
                    Err(error) if error.is_overload() => Err(Trouble::Refused(error.text)),
                    Err(_) => {
                        Err(Trouble::Contradiction("a transaction of a history is not to be had"))
                    }
                };
                outcomes.push((txid, outcome));
                Ok(())
            })
            .await?;
        Ok(outcomes)
    }

    fn report(&self, script: &Script) -> Option<ScriptHistory> {
        Some(ScriptHistory {
            script: self.session.scripts.get(script.index)?.script.clone(),
            status: status_of(&script.entries),
            entries: script.entries.iter().map(|entry| (entry.txid, height_of(entry))).collect(),
        })
    }

    /// Servers tell of scripts before they tell of the block. When a history goes beyond the tip, the tip is
    /// asked for at once. `None` when blocks were replaced: then everything begins anew.
    async fn reach_tip(
        &mut self,
        scripts: &[Script],
        tip: ChainTip,
    ) -> Result<Option<ChainTip>, Stop> {
        let entries = scripts.iter().flat_map(|script| &script.entries);
        let Some(highest) = entries.map(|entry| entry.height).max() else { return Ok(Some(tip)) };
        if highest <= i64::from(tip.height) {
            return Ok(Some(tip));
        }
        let call = Call::small("blockchain.headers.subscribe", json!([]));
        let answer = self.client.require(call).await?;
        let (height, header) =
            answers::tip(answer.text()).ok_or(LinkError::Protocol("a best block that is none"))?;
        if self.headers.follow(self.client, height, header).await? == TipChange::Reorganised {
            self.session.agreed = false;
            self.session.subscribe_all();
            return Ok(None);
        }
        Ok(self.headers.tip())
    }

    /// Asks for the tip, in case a notification is late or lost.
    async fn refresh_tip(&mut self) -> Result<(), LinkError> {
        let call = Call::small("blockchain.headers.subscribe", json!([]));
        let answer = self.client.require(call).await?;
        self.client.note_tip(answer.text());
        Ok(())
    }
}

/// News that is ready to be told.
#[derive(Default)]
struct Piece {
    update: TxUpdate<bdk_wallet::chain::ConfirmationBlockTime>,
    /// Positions of scripts that have no transaction left to tell of.
    finished: Vec<usize>,
}

/// What is wrong with a history, if anything is.
fn doubt(entries: &[HistoryEntry], announced: Option<[u8; 32]>, tip: ChainTip) -> Option<Trouble> {
    if status_of(entries) != announced {
        return Some(Trouble::Contradiction("a history that does not have the announced status"));
    }
    // electrs shows a transaction twice while it moves between a block and the mempool.
    let mut seen = HashSet::with_capacity(entries.len());
    if !entries.iter().all(|entry| seen.insert(entry.txid)) {
        return Some(Trouble::Contradiction("a history that has a transaction twice"));
    }
    let above = entries.iter().any(|entry| entry.height > i64::from(tip.height));
    above.then_some(Trouble::Contradiction("a history that goes beyond the tip"))
}

fn height_of(entry: &HistoryEntry) -> TxHeight {
    match u32::try_from(entry.height) {
        Ok(height @ 1..) => TxHeight::Block(height),
        // 0 and -1; larger numbers were refused.
        _ => TxHeight::Unconfirmed,
    }
}

/// Lists the transactions of all scripts without trouble, each once, oldest block first, those of the mempool
/// last. A script whose history contradicts another's gets into trouble.
fn plan(scripts: &mut [Script]) -> VecDeque<Wanted> {
    let mut by_txid: HashMap<Txid, TxHeight> = HashMap::new();
    for script in scripts.iter_mut().filter(|script| script.trouble.is_none()) {
        let differs = script.entries.iter().any(|entry| {
            let height = height_of(entry);
            *by_txid.entry(entry.txid).or_insert(height) != height
        });
        if differs {
            script.trouble = Some(Trouble::Contradiction("two heights of one transaction"));
        }
        script.missing = script.entries.len();
    }
    let mut order: BTreeMap<(i64, usize), Wanted> = BTreeMap::new();
    let mut place: HashMap<Txid, (i64, usize)> = HashMap::new();
    for (position, script) in scripts.iter().enumerate().filter(|(_, s)| s.trouble.is_none()) {
        for entry in &script.entries {
            let count = place.len();
            let height = height_of(entry);
            let rank = match height {
                TxHeight::Block(height) => i64::from(height),
                // After all blocks, those with unconfirmed parents last.
                TxHeight::Unconfirmed => i64::MAX - 1 - entry.height,
            };
            let key = *place.entry(entry.txid).or_insert((rank, count));
            order
                .entry(key)
                .or_insert_with(|| Wanted { txid: entry.txid, height, scripts: Vec::new() })
                .scripts
                .push(position);
        }
    }
    order.into_values().collect()
}

fn blame(scripts: &mut [Script], positions: &[usize], trouble: &Trouble) {
    for position in positions {
        if let Some(script) = scripts.get_mut(*position) {
            script.trouble.get_or_insert_with(|| trouble.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;

    use super::*;

    fn script(index: usize, entries: &[(u8, i64)]) -> Script {
        let entries = entries
            .iter()
            .map(|(byte, height)| HistoryEntry {
                txid: Txid::from_byte_array([*byte; 32]),
                height: *height,
            })
            .collect();
        Script { index, entries, missing: 0, trouble: None }
    }

    #[test]
    fn transactions_are_told_once_oldest_first_and_mempool_last() {
        let mut scripts =
            [script(0, &[(1, 9), (2, 0), (3, -1)]), script(1, &[(4, 3), (1, 9)]), script(2, &[])];
        let wanted = plan(&mut scripts);
        let order: Vec<u8> = wanted.iter().map(|w| w.txid.to_byte_array()[0]).collect();
        assert_eq!(order, [4, 1, 2, 3]);
        assert_eq!(wanted[1].scripts, [0, 1]);
        assert_eq!(wanted[2].height, TxHeight::Unconfirmed);
        assert_eq!(scripts.map(|s| s.missing), [3, 2, 0]);
    }

    #[test]
    fn doubtful_histories_are_told_from_good_ones() {
        let tip = ChainTip { height: 9, hash: BlockHash::all_zeros(), median_time: 0, time: 0 };
        let doubt_of = |entries: &[(u8, i64)]| {
            let entries = script(0, entries).entries;
            doubt(&entries, status_of(&entries), tip)
        };
        assert_eq!(doubt_of(&[(1, 9), (2, 0), (3, -1)]), None);
        assert_eq!(doubt_of(&[]), None);
        assert!(doubt_of(&[(1, 9), (1, 0)]).is_some(), "twice");
        assert!(doubt_of(&[(1, 10)]).is_some(), "above the tip");
        assert!(doubt(&script(0, &[(1, 9)]).entries, None, tip).is_some(), "another status");
    }

    #[test]
    fn histories_that_contradict_each_other_are_asked_for_again() {
        let mut scripts = [script(0, &[(1, 9)]), script(1, &[(1, 8)])];
        let wanted = plan(&mut scripts);
        assert_eq!(wanted.len(), 1);
        assert!(scripts[0].trouble.is_none());
        assert!(matches!(scripts[1].trouble, Some(Trouble::Contradiction(_))));
    }
}
