//! Which transactions count, and which outputs are unspent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use bdk_wallet::bitcoin::constants::COINBASE_MATURITY;
use bdk_wallet::bitcoin::{Amount, BlockHash, OutPoint, Txid};
use bdk_wallet::chain::{
    BlockId, CanonicalizationParams, ChainOracle, ChainPosition, ConfirmationBlockTime, TxGraph,
};

use super::JmIndex;
use super::pruned::Pruned;
use crate::path::ScriptPlace;

/// The blocks of the local chain by height.
#[derive(Debug, Default)]
pub(super) struct Blocks(pub(super) BTreeMap<u32, BlockHash>);

impl Blocks {
    pub(super) fn holds(&self, block: BlockId) -> bool {
        self.0.get(&block.height) == Some(&block.hash)
    }
}

impl ChainOracle for Blocks {
    type Error = Infallible;

    fn is_block_in_chain(
        &self,
        block: BlockId,
        chain_tip: BlockId,
    ) -> Result<Option<bool>, Infallible> {
        if block.height > chain_tip.height {
            return Ok(None);
        }
        Ok(self.0.get(&block.height).map(|hash| *hash == block.hash))
    }

    fn get_chain_tip(&self) -> Result<BlockId, Infallible> {
        let (height, hash) =
            self.0.last_key_value().expect("a chain has at least its genesis block");
        Ok(BlockId { height: *height, hash: *hash })
    }
}

/// Where a transaction that counts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// In the mempool, first seen at this time if known.
    Mempool(Option<u64>),
    /// In the block of this height.
    Block(u32),
}

impl Position {
    pub(crate) const fn height(self) -> Option<u32> {
        match self {
            Self::Block(height) => Some(height),
            Self::Mempool(_) => None,
        }
    }
}

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawCoin {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: Amount,
    pub(crate) place: ScriptPlace,
    pub(crate) height: Option<u32>,
    /// Made by a block: unspendable for its first 100 blocks.
    pub(crate) coinbase: bool,
}

impl RawCoin {
    /// Whether the network lets it be spent in the next block. Immature coins are not shown, as the
    /// reference does not show them.
    pub(crate) fn is_mature(&self, tip: u32) -> bool {
        let age = self.height.map_or(0, |height| (tip + 1).saturating_sub(height));
        !self.coinbase || age >= COINBASE_MATURITY
    }
}

/// The state of the wallet that follows from its graph and chain.
#[derive(Debug, Default)]
pub(crate) struct Canonical {
    /// Transactions that count.
    pub(crate) positions: HashMap<Txid, Position>,
    /// Unspent outputs, ascending by mixdepth, place and outpoint; immature ones too.
    pub(crate) coins: Vec<RawCoin>,
    /// Blocks that are not in the chain but hold one of our transactions: if one of them comes back,
    /// everything must be computed again.
    pub(crate) stale_anchors: HashSet<BlockId>,
}

impl Canonical {
    pub(super) fn compute(
        txs: &TxGraph<ConfirmationBlockTime>,
        index: &JmIndex,
        pruned: &Pruned,
        blocks: &Blocks,
        tip: BlockId,
    ) -> Self {
        let mut positions = HashMap::new();
        for tx in txs.list_canonical_txs(blocks, tip, CanonicalizationParams::default()) {
            let position = match tx.chain_position {
                ChainPosition::Confirmed { anchor, .. } => Position::Block(anchor.block_id.height),
                ChainPosition::Unconfirmed { first_seen, .. } => Position::Mempool(first_seen),
            };
            positions.insert(tx.tx_node.txid, position);
        }
        let mut coins = Vec::new();
        for (place, outpoint) in index.outpoints() {
            let Some(position) = positions.get(&outpoint.txid) else { continue };
            if pruned.is_spent(&outpoint)
                || txs.outspends(outpoint).iter().any(|txid| positions.contains_key(txid))
            {
                continue;
            }
            let Some((_, txout)) = index.txout(outpoint) else { continue };
            let coinbase = txs.get_tx(outpoint.txid).is_some_and(|tx| tx.is_coinbase());
            coins.push(RawCoin {
                outpoint,
                value: txout.value,
                place,
                height: position.height(),
                coinbase,
            });
        }
        coins.sort_by_key(|coin| (coin.place.mixdepth(), coin.place, coin.outpoint));
        let stale_anchors = txs
            .all_anchors()
            .values()
            .flatten()
            .map(|anchor| anchor.block_id)
            .filter(|block| !blocks.holds(*block))
            .collect();
        Self { positions, coins, stale_anchors }
    }
}
