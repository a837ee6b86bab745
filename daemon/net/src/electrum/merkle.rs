//! Merkle branches: the check that every confirmation rests on, and what else one branch tells.

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256d};
use bdk_wallet::bitcoin::{TxMerkleNode, Txid};
use serde::Deserialize;

/// Steps of a merkle proof: a block of 4 MB holds fewer than 2^17 transactions.
const PROOF_MAX: usize = 24;

/// Proof that a transaction is in a block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct MerkleProof {
    block_height: u32,
    pos: u32,
    merkle: Vec<sha256d::Hash>,
}

impl MerkleProof {
    /// Whether this proves that `transaction` is in the block with this height and merkle root.
    ///
    /// A transaction of 64 bytes without witness looks like an inner node of the tree, and the other way
    /// round (CVE-2017-12842); nothing is believed of such ones.
    pub(crate) fn proves(
        &self,
        txid: Txid,
        stripped: usize,
        height: u32,
        root: TxMerkleNode,
    ) -> bool {
        if self.block_height != height
            || self.merkle.len() > PROOF_MAX
            || stripped == 64
            // The path must lead to this position and not merely to one with the same lower bits.
            || u64::from(self.pos) >= 1_u64 << self.merkle.len()
        {
            return false;
        }
        let mut node = txid.to_raw_hash();
        for (level, sibling) in self.merkle.iter().enumerate() {
            node = if (self.pos >> level) & 1 == 0 {
                parent(node, *sibling)
            } else {
                parent(*sibling, node)
            };
        }
        node == root.to_raw_hash()
    }

    /// Branches of some of `others` that this branch of `txid` makes known: the transaction beside it, and the
    /// two under the next pair, which are found by trying. They are as good as what a server says: each must
    /// pass [`Self::proves`] before anything is believed. Costs as many hashes as there are pairs of `others`.
    pub(crate) fn neighbours(&self, txid: Txid, others: &[Txid]) -> Vec<(Txid, Self)> {
        let own = txid.to_raw_hash();
        let Some((beside, above)) = self.merkle.split_first() else { return Vec::new() };
        let branch = |pos, nodes: &[sha256d::Hash], above: &[sha256d::Hash]| Self {
            block_height: self.block_height,
            pos,
            merkle: nodes.iter().chain(above).copied().collect(),
        };
        let mut known = Vec::new();
        if others.iter().any(|other| other.to_raw_hash() == *beside) {
            known.push((Txid::from_raw_hash(*beside), branch(self.pos ^ 1, &[own], above)));
        }
        let Some((next, above)) = above.split_first() else { return known };
        let ours = if self.pos & 1 == 0 { parent(own, *beside) } else { parent(*beside, own) };
        let pairs = others.iter().flat_map(|left| others.iter().map(move |right| (left, right)));
        // The last transaction of an odd number is paired with itself.
        let found = pairs
            .map(|(left, right)| (left.to_raw_hash(), right.to_raw_hash()))
            .find(|(left, right)| parent(*left, *right) == *next);
        if let Some((left, right)) = found {
            let pos = ((self.pos >> 1) ^ 1) << 1;
            known.push((Txid::from_raw_hash(left), branch(pos, &[right, ours], above)));
            if left != right {
                known.push((Txid::from_raw_hash(right), branch(pos | 1, &[left, ours], above)));
            }
        }
        known
    }
}

fn parent(left: sha256d::Hash, right: sha256d::Hash) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    sha256d::Hash::from_engine(engine)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::merkle_tree;
    use proptest::prelude::*;

    use super::*;

    fn leaf(number: u32) -> Txid {
        Txid::from_raw_hash(sha256d::Hash::hash(&number.to_le_bytes()))
    }

    /// Transactions of a block of this size, its root, and the honest branch of each.
    fn block(count: u32) -> (Vec<Txid>, TxMerkleNode, Vec<MerkleProof>) {
        let txids: Vec<Txid> = (0..count).map(leaf).collect();
        let root = merkle_tree::calculate_root(txids.iter().map(|txid| txid.to_raw_hash()));
        let root = TxMerkleNode::from_raw_hash(root.unwrap());
        let proofs = (0..count).map(|pos| {
            let mut row: Vec<sha256d::Hash> = txids.iter().map(|id| id.to_raw_hash()).collect();
            let mut place = pos as usize;
            let mut merkle = Vec::new();
            while row.len() > 1 {
                if row.len() % 2 == 1 {
                    row.push(*row.last().unwrap());
                }
                merkle.push(row[place ^ 1]);
                place /= 2;
                row = row.chunks(2).map(|pair| parent(pair[0], pair[1])).collect();
            }
            MerkleProof { block_height: 7, pos, merkle }
        });
        let proofs = proofs.collect();
        (txids, root, proofs)
    }

    #[test]
    fn proof_of_a_block_with_three_transactions() {
        let [a, b, c] = [0, 1, 2].map(|number| leaf(number).to_raw_hash());
        let (ab, cc) = (parent(a, b), parent(c, c));
        let root = TxMerkleNode::from_raw_hash(parent(ab, cc));
        let proof = |pos, merkle: &[sha256d::Hash]| MerkleProof {
            block_height: 7,
            pos,
            merkle: merkle.to_vec(),
        };
        assert!(proof(1, &[a, cc]).proves(leaf(1), 100, 7, root));
        assert!(proof(2, &[c, ab]).proves(leaf(2), 100, 7, root));
        assert!(!proof(1, &[a, cc]).proves(leaf(1), 100, 8, root), "another height");
        assert!(!proof(0, &[a, cc]).proves(leaf(1), 100, 7, root), "another position");
        assert!(!proof(5, &[a, cc]).proves(leaf(1), 100, 7, root), "position beyond the tree");
        assert!(!proof(1, &[a, cc]).proves(leaf(1), 64, 7, root), "could be an inner node");
        assert!(!proof(1, &vec![a; 64]).proves(leaf(1), 100, 7, root), "deeper than any block");
    }

    #[test]
    fn one_branch_tells_of_the_neighbours() {
        let (txids, root, proofs) = block(11);
        let told = |pos: usize| -> Vec<Txid> {
            let others: Vec<Txid> =
                txids.iter().copied().filter(|txid| *txid != txids[pos]).collect();
            let known = proofs[pos].neighbours(txids[pos], &others);
            assert!(known.iter().all(|(txid, proof)| proof.proves(*txid, 100, 7, root)));
            known.into_iter().map(|(txid, _)| txid).collect()
        };
        assert_eq!(told(1), [leaf(0), leaf(2), leaf(3)]);
        assert_eq!(told(4), [leaf(5), leaf(6), leaf(7)]);
        assert_eq!(told(9), [leaf(8), leaf(10)], "the last is paired with itself");
        assert_eq!(told(10), [leaf(8), leaf(9)]);
        assert_eq!(block(1).2[0].neighbours(leaf(0), &[leaf(1)]), []);
    }

    /// A liar may name what is not in the block as a neighbour; then the branch does not lead to the root.
    #[test]
    fn invented_neighbours_are_not_proven() {
        let (txids, root, proofs) = block(8);
        let foreign = leaf(99);
        let mut beside = proofs[2].clone();
        beside.merkle[0] = foreign.to_raw_hash();
        let mut next = proofs[2].clone();
        next.merkle[1] = parent(foreign.to_raw_hash(), txids[1].to_raw_hash());
        for lie in [beside, next] {
            let known = lie.neighbours(txids[2], &[foreign, txids[1]]);
            assert!(!known.is_empty());
            assert!(!known.iter().any(|(txid, proof)| proof.proves(*txid, 100, 7, root)));
        }
        // One that could be an inner node is not believed either.
        let known = proofs[2].neighbours(txids[2], &[txids[3]]);
        assert!(known.iter().all(|(txid, proof)| !proof.proves(*txid, 64, 7, root)));
        assert_eq!(known.len(), 1);
    }

    proptest! {
        #[test]
        fn neighbours_in_blocks_of_any_size_are_those_of_the_tree(
            count in 1_u32..70, pos in any::<prop::sample::Index>()
        ) {
            let (txids, root, proofs) = block(count);
            let pos = pos.index(txids.len());
            let others: Vec<Txid> =
                txids.iter().copied().filter(|txid| *txid != txids[pos]).collect();
            let known = proofs[pos].neighbours(txids[pos], &others);
            let expected = others
                .iter()
                .filter(|txid| txids.iter().position(|id| id == *txid).unwrap() / 4 == pos / 4)
                .count();
            prop_assert_eq!(known.len(), expected);
            for (txid, proof) in known {
                let place = txids.iter().position(|id| *id == txid).unwrap();
                prop_assert_eq!(&proof, &proofs[place]);
                prop_assert!(proof.proves(txid, 100, 7, root));
            }
        }
    }
}
