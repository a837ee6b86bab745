//! Proofs that transactions are in their blocks: asks for as few branches as the blocks allow and checks every
//! one against the chain of headers.
//!
//! electrs fetches a block's list of transactions from bitcoind for each branch that it is asked for. Where
//! several of our transactions stand side by side in a block, the branch of one holds those of its neighbours
//! ([`MerkleProof::neighbours`]), so only each fourth is asked for at first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bdk_wallet::bitcoin::block::Header;
use bdk_wallet::bitcoin::{BlockHash, Txid};
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
use serde_json::json;

use super::answers;
use super::client::{Call, SMALL};
use super::error::{LinkError, ServerError};
use super::headers::HeaderChain;
use super::merkle::MerkleProof;
use super::sync::Sync;
use super::watch::Trouble;

/// A branch tells of as many transactions that stand side by side, itself among them.
const TOLD_BY_ONE: usize = 4;
/// Transactions of the same block, on either side in our list, that are tried as neighbours.
const TRIED: usize = 8;

/// Transactions of one block that are to be proven.
struct Block {
    listed: Vec<Txid>,
    /// Places in the list of those that are not settled yet.
    open: BTreeSet<usize>,
    /// Whether the branches of the last round told of neighbours.
    fruitful: bool,
}

impl Default for Block {
    fn default() -> Self {
        Self { listed: Vec::new(), open: BTreeSet::new(), fruitful: true }
    }
}

impl Block {
    /// Which to ask for next.
    fn next(&self) -> Vec<usize> {
        let step = if self.fruitful { TOLD_BY_ONE } else { 1 };
        self.open.iter().step_by(step).copied().collect()
    }

    /// Those that may stand beside the one at `place`. The list follows the histories, which are in the order
    /// of the blocks.
    fn around(&self, place: usize) -> Vec<Txid> {
        let from = place.saturating_sub(TRIED);
        let nearby = (from..).zip(self.listed.iter().skip(from)).take(place - from + 1 + TRIED);
        nearby.filter(|(other, _)| *other != place).map(|(_, txid)| *txid).collect()
    }

    /// Whether a transaction is not settled yet, and its place.
    fn open_place(&self, txid: Txid) -> Option<usize> {
        self.open.iter().copied().find(|place| self.listed.get(*place) == Some(&txid))
    }
}

/// What has been proven and what has not.
struct Outcome<'a> {
    headers: &'a HeaderChain,
    /// Sizes without witnesses of transactions that are new; the others were checked when they were.
    sizes: HashMap<Txid, usize>,
    update: &'a mut TxUpdate<ConfirmationBlockTime>,
    blocks: BTreeMap<u32, BlockHash>,
    missing: Vec<(Txid, Trouble)>,
}

impl Outcome<'_> {
    /// Believes a branch if it proves the transaction; the only way to an anchor.
    fn accept(&mut self, txid: Txid, height: u32, proof: &MerkleProof) -> bool {
        let size = self.sizes.get(&txid).copied().unwrap_or(0);
        let proven = |header: &&Header| proof.proves(txid, size, height, header.merkle_root);
        let Some(header) = self.headers.get(height).filter(proven) else { return false };
        let block_id = BlockId { height, hash: header.block_hash() };
        let confirmation_time = u64::from(header.time);
        self.blocks.insert(height, block_id.hash);
        self.update.anchors.insert((ConfirmationBlockTime { block_id, confirmation_time }, txid));
        true
    }

    /// Takes the branch of the transaction at `place` and whatever it tells of the others.
    fn take(
        &mut self,
        block: &mut Block,
        height: u32,
        place: usize,
        txid: Txid,
        proof: &MerkleProof,
    ) {
        if !self.accept(txid, height, proof) {
            if block.open.contains(&place) {
                let trouble =
                    Trouble::Contradiction("a merkle proof that does not prove the transaction");
                self.missing.push((txid, trouble));
            }
            return;
        }
        for (neighbour, proof) in proof.neighbours(txid, &block.around(place)) {
            if let Some(place) = block.open_place(neighbour)
                && self.accept(neighbour, height, &proof)
            {
                block.fruitful = true;
                block.open.remove(&place);
            }
        }
    }

    fn refuse(&mut self, txid: Txid, error: ServerError) {
        let trouble = if error.is_overload() {
            Trouble::Refused(error.text)
        } else {
            Trouble::Contradiction("a proof is not to be had")
        };
        self.missing.push((txid, trouble));
    }
}

impl Sync<'_> {
    /// Fetches and checks proofs; puts an anchor into `update` for each that holds and returns the others with
    /// the reason.
    pub(super) async fn prove(
        &mut self,
        wanted: &[(Txid, u32)],
        update: &mut TxUpdate<ConfirmationBlockTime>,
    ) -> Result<Vec<(Txid, Trouble)>, LinkError> {
        self.ensure(&wanted.iter().map(|(_, height)| *height).collect()).await?;
        let mut blocks: BTreeMap<u32, Block> = BTreeMap::new();
        for (txid, height) in wanted {
            let block = blocks.entry(*height).or_default();
            block.open.insert(block.listed.len());
            block.listed.push(*txid);
        }
        let sizes = update.txs.iter().map(|tx| (tx.compute_txid(), tx.base_size())).collect();
        let mut outcome = Outcome {
            headers: &*self.headers,
            sizes,
            update,
            blocks: BTreeMap::new(),
            missing: Vec::new(),
        };
        while !blocks.is_empty() {
            // Block after block, so that the server finds each where it has just read it.
            let mut asked = Vec::new();
            for (height, block) in &mut blocks {
                let places = block.next();
                asked.extend(
                    places.into_iter().filter_map(|place| {
                        Some((*height, place, block.listed.get(place).copied()?))
                    }),
                );
                block.fruitful = false;
            }
            let calls = asked
                .iter()
                .map(|(height, _, txid)| Call {
                    method: "blockchain.transaction.get_merkle",
                    params: json!([txid, height]),
                    limit: SMALL,
                })
                .collect();
            self.pace
                .proofs
                .ask(self.client, calls, |index, answer| {
                    let Some((height, place, txid)) = asked.get(index).copied() else {
                        return Ok(());
                    };
                    let Some(block) = blocks.get_mut(&height) else { return Ok(()) };
                    match answer {
                        Ok(answer) => {
                            let proof = answers::merkle(answer.text())
                                .ok_or(LinkError::Protocol("a merkle proof that is none"))?;
                            outcome.take(block, height, place, txid, &proof);
                        }
                        // The branch of a neighbour may have proven it already.
                        Err(error) if block.open.contains(&place) => outcome.refuse(txid, error),
                        Err(_) => {}
                    }
                    block.open.remove(&place);
                    Ok(())
                })
                .await?;
            blocks.retain(|_, block| !block.open.is_empty());
        }
        let Outcome { blocks, missing, .. } = outcome;
        self.session.insert_blocks(&blocks);
        Ok(missing)
    }
}
