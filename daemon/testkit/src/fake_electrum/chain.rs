//! The chain of the fake server: real headers with regtest proof of work, transactions without signatures.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::block::{Header, Version as BlockVersion};
use bdk_wallet::bitcoin::blockdata::constants::genesis_block;
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::script::Builder;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Amount, Block, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, merkle_tree,
};

use crate::electrum::script_hash;

/// Reward of a block; halvings are nobody's concern here.
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);
/// Fee that is reported for a transaction whose inputs nobody knows.
const UNKNOWN_FEE: u64 = 1_000;

/// One entry of a script's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) txid: Txid,
    /// Height of the block, 0 for unconfirmed, -1 for unconfirmed with an unconfirmed parent.
    pub(super) height: i64,
    /// Satoshi, for unconfirmed ones.
    pub(super) fee: Option<u64>,
}

/// Blocks and a mempool that a test puts together.
#[derive(Debug, Clone)]
pub struct FakeChain {
    blocks: Vec<Block>,
    mempool: Vec<Transaction>,
    /// Makes invented outpoints and blocks differ.
    counter: u64,
    index: Index,
}

/// What follows from blocks and mempool, renewed after each change.
#[derive(Debug, Clone, Default)]
struct Index {
    histories: HashMap<String, Vec<Entry>>,
    transactions: HashMap<Txid, Transaction>,
}

impl Default for FakeChain {
    fn default() -> Self {
        let mut chain = Self {
            blocks: vec![genesis_block(Network::Regtest)],
            mempool: Vec::new(),
            counter: 0,
            index: Index::default(),
        };
        chain.reindex();
        chain
    }
}

impl FakeChain {
    /// Height of the best block; 0 is the genesis block.
    #[must_use]
    pub fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).unwrap_or(u32::MAX)
    }

    /// The block at a height.
    #[must_use]
    pub fn block(&self, height: u32) -> Option<&Block> {
        self.blocks.get(usize::try_from(height).ok()?)
    }

    /// Transactions that are not in a block, in the order of arrival.
    #[must_use]
    pub fn mempool(&self) -> &[Transaction] {
        &self.mempool
    }

    /// A transaction of a block or of the mempool.
    #[must_use]
    pub fn transaction(&self, txid: &Txid) -> Option<&Transaction> {
        self.index.transactions.get(txid)
    }

    /// Height of the block with this transaction.
    #[must_use]
    pub fn height_of(&self, txid: &Txid) -> Option<u32> {
        let found = self
            .blocks
            .iter()
            .position(|block| block.txdata.iter().any(|tx| tx.compute_txid() == *txid))?;
        u32::try_from(found).ok()
    }

    /// Adds `count` blocks, the first of them with the whole mempool.
    pub fn mine(&mut self, count: u32) {
        for _ in 0..count {
            let mempool = std::mem::take(&mut self.mempool);
            self.push_block(mempool);
        }
        self.reindex();
    }

    /// Adds one block with exactly these transactions; they leave the mempool if they were there.
    pub fn mine_with(&mut self, transactions: Vec<Transaction>) {
        let mined: HashSet<Txid> = transactions.iter().map(Transaction::compute_txid).collect();
        self.mempool.retain(|tx| !mined.contains(&tx.compute_txid()));
        self.push_block(transactions);
        self.reindex();
    }

    /// Invents a transaction that pays `script`, from inputs that nobody knows, into the mempool.
    pub fn pay(&mut self, script: &Script, satoshi: u64) -> Transaction {
        self.pay_many(&[(script.to_owned(), satoshi)])
    }

    /// Like [`Self::pay`] with many outputs, in order.
    pub fn pay_many(&mut self, outputs: &[(ScriptBuf, u64)]) -> Transaction {
        self.counter += 1;
        let invented = sha256::Hash::hash(&self.counter.to_le_bytes()).to_byte_array();
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array(invented), 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[[1u8; 71].as_slice(), [2u8; 33].as_slice()]),
            }],
            output: outputs
                .iter()
                .map(|(script_pubkey, satoshi)| TxOut {
                    value: Amount::from_sat(*satoshi),
                    script_pubkey: script_pubkey.clone(),
                })
                .collect(),
        };
        self.mempool.push(transaction.clone());
        self.reindex();
        transaction
    }

    /// Takes a transaction into the mempool. What conflicts with it there is replaced, with its descendants.
    ///
    /// # Errors
    /// When it is known already or spends what a block has spent.
    pub fn submit(&mut self, transaction: Transaction) -> Result<Txid, String> {
        let txid = transaction.compute_txid();
        if self.index.transactions.contains_key(&txid) {
            return Err("txn-already-known".into());
        }
        let inputs: HashSet<OutPoint> =
            transaction.input.iter().map(|input| input.previous_output).collect();
        let spends = |other: &Transaction| {
            other.input.iter().any(|input| inputs.contains(&input.previous_output))
        };
        if self.blocks.iter().flat_map(|block| &block.txdata).any(spends) {
            return Err("bad-txns-inputs-missingorspent".into());
        }
        let replaced: Vec<Txid> = self
            .mempool
            .iter()
            .filter(|other| spends(other))
            .map(Transaction::compute_txid)
            .collect();
        for txid in replaced {
            self.forget(&txid);
        }
        self.mempool.push(transaction);
        self.reindex();
        Ok(txid)
    }

    /// Drops a transaction and its descendants from the mempool; returns whether it was there.
    pub fn evict(&mut self, txid: &Txid) -> bool {
        let known = self.forget(txid);
        self.reindex();
        known
    }

    /// Replaces the last `depth` blocks by `depth + 1` empty ones; their transactions, rewards apart, are in the
    /// mempool again.
    pub fn reorganise(&mut self, depth: u32) {
        let returned = self.truncate(depth);
        for _ in 0..=depth {
            self.push_block(Vec::new());
        }
        self.mempool.splice(0..0, returned);
        self.reindex();
    }

    /// Replaces the last `depth` blocks by `depth + 1` empty ones; their transactions never existed.
    pub fn reorganise_and_forget(&mut self, depth: u32) {
        self.truncate(depth);
        for _ in 0..=depth {
            self.push_block(Vec::new());
        }
        self.reindex();
    }

    /// Removes the last `depth` blocks and leaves the chain shorter, as a restored backup of a server does.
    pub fn roll_back(&mut self, depth: u32) {
        let returned = self.truncate(depth);
        self.mempool.splice(0..0, returned);
        self.reindex();
    }

    /// Another branch: the same headers up to `from - 1` and different ones from there to the same height.
    pub(super) fn forked(&self, from: u32) -> Self {
        let mut fork = self.clone();
        let depth = (self.height() + 1).saturating_sub(from.max(1));
        fork.truncate(depth);
        // Not a counter that the true branch has used or will use soon.
        fork.counter += 1 << 40;
        for _ in 0..depth {
            fork.push_block(Vec::new());
        }
        fork
    }

    /// The first blocks up to and with `height`, and no mempool.
    pub(super) fn up_to(&self, height: u32) -> Self {
        let mut lower = self.clone();
        lower.truncate(self.height().saturating_sub(height));
        lower.mempool.clear();
        lower.reindex();
        lower
    }

    /// History of a script hash, in the order that the protocol prescribes.
    pub(super) fn history(&self, script_hash: &str) -> &[Entry] {
        self.index.histories.get(script_hash).map_or(&[], Vec::as_slice)
    }

    fn truncate(&mut self, depth: u32) -> Vec<Transaction> {
        let keep = self.blocks.len().saturating_sub(usize::try_from(depth).unwrap_or(usize::MAX));
        let removed = self.blocks.split_off(keep.max(1));
        removed
            .into_iter()
            .flat_map(|block| block.txdata)
            .filter(|transaction| !transaction.is_coinbase())
            .collect()
    }

    fn forget(&mut self, txid: &Txid) -> bool {
        let before = self.mempool.len();
        let mut gone = HashSet::from([*txid]);
        // Parents come before children in the mempool, so one pass finds all descendants.
        self.mempool.retain(|transaction| {
            let own = transaction.compute_txid();
            let orphan =
                transaction.input.iter().any(|input| gone.contains(&input.previous_output.txid));
            if orphan {
                gone.insert(own);
            }
            !gone.contains(&own)
        });
        self.mempool.len() < before
    }

    fn push_block(&mut self, transactions: Vec<Transaction>) {
        self.counter += 1;
        let height = i64::try_from(self.blocks.len()).unwrap_or(i64::MAX);
        let reward = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                // Height first, as BIP 34 wants; the counter tells branches apart.
                script_sig: Builder::new()
                    .push_int(height)
                    .push_slice(self.counter.to_le_bytes())
                    .into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: SUBSIDY,
                script_pubkey: ScriptBuf::new_op_return(b"reward"),
            }],
        };
        let mut txdata = vec![reward];
        txdata.extend(transactions);
        let ids = txdata.iter().map(|tx| tx.compute_txid().to_raw_hash());
        let merkle_root = merkle_tree::calculate_root(ids)
            .map_or_else(TxMerkleNode::all_zeros, TxMerkleNode::from_raw_hash);
        let genesis = genesis_block(Network::Regtest).header;
        let parent = self.blocks.last().map_or(genesis, |block| block.header);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u32::try_from(since.as_secs()).ok())
            .unwrap_or(0);
        let mut header = Header {
            version: BlockVersion::from_consensus(0x2000_0000),
            prev_blockhash: parent.block_hash(),
            merkle_root,
            time: now.max(parent.time + 1),
            bits: genesis.bits,
            nonce: 0,
        };
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        self.blocks.push(Block { header, txdata });
    }

    fn reindex(&mut self) {
        let mut index = Index::default();
        let unconfirmed: HashSet<Txid> =
            self.mempool.iter().map(Transaction::compute_txid).collect();
        let confirmed = self.blocks.iter().zip(0i64..).flat_map(|(block, height)| {
            block.txdata.iter().map(move |transaction| (transaction, height))
        });
        let waiting = self.mempool.iter().map(|transaction| {
            let child =
                transaction.input.iter().any(|i| unconfirmed.contains(&i.previous_output.txid));
            (transaction, if child { -1 } else { 0 })
        });
        for (transaction, height) in confirmed.chain(waiting) {
            let txid = transaction.compute_txid();
            let spent: Vec<TxOut> = transaction
                .input
                .iter()
                .filter_map(|input| {
                    let parent = index.transactions.get(&input.previous_output.txid)?;
                    parent.output.get(usize::try_from(input.previous_output.vout).ok()?).cloned()
                })
                .collect();
            let fee = unconfirmed.contains(&txid).then(|| {
                let sum = |outputs: &[TxOut]| outputs.iter().map(|o| o.value.to_sat()).sum::<u64>();
                if spent.len() == transaction.input.len() {
                    sum(&spent).saturating_sub(sum(&transaction.output))
                } else {
                    UNKNOWN_FEE
                }
            });
            let touched: HashSet<String> = transaction
                .output
                .iter()
                .chain(&spent)
                .map(|output| script_hash(&output.script_pubkey))
                .collect();
            for script in touched {
                index.histories.entry(script).or_default().push(Entry { txid, height, fee });
            }
            index.transactions.insert(txid, transaction.clone());
        }
        self.index = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::funds_address;

    #[test]
    fn headers_link_and_prove_work() {
        let mut chain = FakeChain::default();
        chain.mine(20);
        for height in 1..=20 {
            let header = chain.block(height).unwrap().header;
            let parent = chain.block(height - 1).unwrap().header;
            assert_eq!(header.prev_blockhash, parent.block_hash());
            assert_eq!(header.validate_pow(parent.target()).unwrap(), header.block_hash());
            assert!(chain.block(height).unwrap().check_merkle_root());
        }
    }

    #[test]
    fn reorganising_returns_transactions_to_the_mempool_on_a_longer_branch() {
        let mut chain = FakeChain::default();
        let script = funds_address().script_pubkey();
        let paid = chain.pay(&script, 1_000);
        chain.mine(2);
        let old = chain.block(1).unwrap().block_hash();
        assert_eq!(chain.height_of(&paid.compute_txid()), Some(1));
        chain.reorganise(2);
        assert_eq!(chain.height(), 3);
        assert_ne!(chain.block(1).unwrap().block_hash(), old);
        assert_eq!(chain.mempool(), [paid]);
    }

    #[test]
    fn replacement_and_eviction_take_descendants_along() {
        let mut chain = FakeChain::default();
        let script = funds_address().script_pubkey();
        let first = chain.pay(&script, 5_000);
        let mut child = chain.pay(&script, 1_000);
        chain.evict(&child.compute_txid());
        child.input[0].previous_output = OutPoint::new(first.compute_txid(), 0);
        chain.submit(child.clone()).unwrap();
        let entries = chain.history(&script_hash(&script));
        assert_eq!(entries[0].height, 0);
        assert_eq!((entries[1].height, entries[1].fee), (-1, Some(4_000)));
        assert_eq!(chain.submit(child), Err("txn-already-known".into()));
        let mut replacement = first;
        replacement.output[0].value = Amount::from_sat(4_000);
        let txid = chain.submit(replacement).unwrap();
        assert_eq!(chain.mempool().len(), 1);
        assert!(chain.evict(&txid));
        assert!(!chain.evict(&txid));
    }
}
