//! What makes a run of block headers believable (`spec/wallet.md` R-35): linkage, proof of work, difficulty
//! that changes only as the network's rules let it, times above the median, and the blocks that everybody
//! knows. Pure functions; `headers` does the fetching.

use bdk_wallet::bitcoin::block::Header;
use bdk_wallet::bitcoin::consensus::Params;
use bdk_wallet::bitcoin::constants::genesis_block;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{BlockHash, CompactTarget, Target};
use joinery_wallet::types::Network;

use super::error::LinkError;

/// Blocks whose times count for the median time (BIP113).
pub(crate) const MEDIAN_SPAN: u32 = 11;
/// Blocks between two changes of the difficulty.
pub(crate) const PERIOD: u32 = 2016;

/// Heights and hashes that Bitcoin Core publishes for its snapshots of the coin database.
const MAINNET: &[(u32, &str)] = &[
    (840_000, "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5"),
    (880_000, "000000000000000000010b17283c3c400507969a9c2afd1dcf2082ec5cca2880"),
    (910_000, "0000000000000000000108970acb9522ffd516eae17acddcb1bd16469194a821"),
    (935_000, "0000000000000000000147034958af1652b2b91bba607beacc5e72a56f0fb5ee"),
];
const TESTNET: &[(u32, &str)] = &[
    (2_500_000, "0000000000000093bcb68c03a9a168ae252572d348a2eaeba2cdf9231d73206f"),
    (4_840_000, "00000000000000f4971a7fb37fbdff89315b69a2e1920c467654a382f0d64786"),
];
const TESTNET4: &[(u32, &str)] = &[
    (90_000, "0000000002ebe8bcda020e0dd6ccfbdfac531d2f6a81457191b99fc2df2dbe3b"),
    (120_000, "000000000bd2317e51b3c5794981c35ba894ce27d3e772d5c39ecd9cbce01dc8"),
];
const SIGNET: &[(u32, &str)] = &[
    (160_000, "0000003ca3c99aff040f2563c2ad8f8ec88bd0fd6b8f0895cfaf1ef90353a62c"),
    (290_000, "0000000577f2741bb30cd9d39d6d71b023afbeb9764f6260786a97969d5c9ac0"),
];

/// From this height on mainnet's difficulty has always been far above that of [`MAINNET_FLOOR`].
const MAINNET_FLOOR_FROM: u32 = 840_000;
/// A sixteenth of the difficulty of block 840 000 (whose bits are 0x17034219).
const MAINNET_FLOOR: u32 = 0x1734_2190;

/// The rules of one network.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    network: Network,
    params: Params,
    known: Vec<(u32, BlockHash)>,
}

impl Rules {
    pub(crate) fn new(network: Network) -> Self {
        let known = match network {
            Network::Mainnet => MAINNET,
            Network::Testnet => TESTNET,
            Network::Testnet4 => TESTNET4,
            Network::Signet => SIGNET,
            Network::Regtest => &[],
        };
        let mut blocks = vec![(0, genesis_block(network.bitcoin()).block_hash())];
        blocks.extend(known.iter().map(|(height, hash)| {
            (*height, hash.parse().expect("64 hexadecimal digits, parsed in a test"))
        }));
        Self { network, params: Params::new(network.bitcoin()), known: blocks }
    }

    /// Blocks that are in the chain of this network, ascending, the genesis block first.
    pub(crate) fn known(&self) -> &[(u32, BlockHash)] {
        &self.known
    }

    pub(crate) const fn network(&self) -> Network {
        self.network
    }

    /// Checks a run of headers that starts at height `start`. `below` gives verified headers of lower heights
    /// as far as there are any; the one directly below, if it is there, must be the first one's parent.
    ///
    /// # Errors
    /// [`LinkError::Lie`] with what is wrong at which height.
    pub(crate) fn check(
        &self,
        start: u32,
        run: &[Header],
        below: impl Fn(u32) -> Option<Header>,
    ) -> Result<(), LinkError> {
        let at = |height: u32| match height.checked_sub(start) {
            Some(offset) => run.get(offset as usize).copied(),
            None => below(height),
        };
        for (height, header) in (start..).zip(run) {
            let lie = |what: &str| LinkError::lie(format!("header {height}: {what}"));
            let hash = header.block_hash();
            let target = header.target();
            if target > self.params.max_attainable_target || !target.is_met_by(hash) {
                return Err(lie("no proof of work"));
            }
            if let Some((_, known)) = self.known.iter().find(|(known, _)| *known == height)
                && *known != hash
            {
                return Err(lie("not the block that everybody knows at this height"));
            }
            let Some(previous) = height.checked_sub(1) else {
                continue;
            };
            let Some(parent) = at(previous) else {
                self.check_floor(height, target).map_err(lie)?;
                continue;
            };
            if header.prev_blockhash != parent.block_hash() {
                return Err(lie("does not follow its predecessor"));
            }
            self.check_difficulty(height, header.bits, &parent, &at).map_err(lie)?;
            self.check_floor(height, target).map_err(lie)?;
            if let Some(median) = median_time(previous, at)
                && header.time <= median
            {
                return Err(lie("its time is before the median of its predecessors"));
            }
        }
        Ok(())
    }

    /// Text of an error when `bits` cannot follow `parent` at this height.
    fn check_difficulty(
        &self,
        height: u32,
        bits: CompactTarget,
        parent: &Header,
        at: &impl Fn(u32) -> Option<Header>,
    ) -> Result<(), &'static str> {
        // Test networks let anybody mine at the lowest difficulty after twenty minutes, and go back to the
        // block before that: nothing simple can be said beyond the proof of work.
        if self.params.allow_min_difficulty_blocks && !self.params.no_pow_retargeting {
            return Ok(());
        }
        if self.params.no_pow_retargeting || !height.is_multiple_of(PERIOD) {
            return if bits == parent.bits { Ok(()) } else { Err("the difficulty changes here") };
        }
        if let Some(first) = at(height - PERIOD) {
            // Times may go backwards; the rule takes that as the shortest span.
            let span = u64::from(parent.time.saturating_sub(first.time));
            let expected = CompactTarget::from_next_work_required(parent.bits, span, &self.params);
            return if bits == expected { Ok(()) } else { Err("not the difficulty that is due") };
        }
        let before = parent.target();
        let rounded = |target: Target| Target::from_compact(target.to_compact_lossy());
        let lowest = rounded(before.min_transition_threshold());
        let highest = before.max_transition_threshold(&self.params);
        let target = Target::from_compact(bits);
        if (lowest..=highest).contains(&target) {
            Ok(())
        } else {
            Err("the difficulty changes by more than a factor of four")
        }
    }

    fn check_floor(&self, height: u32, target: Target) -> Result<(), &'static str> {
        let floor = Target::from_compact(CompactTarget::from_consensus(MAINNET_FLOOR));
        if self.network == Network::Mainnet && height >= MAINNET_FLOOR_FROM && target > floor {
            return Err("the difficulty is far too low");
        }
        Ok(())
    }
}

/// Median of the times of the eleven blocks up to `height` (fewer at the very start of a chain); `None` when
/// one of them is not known.
pub(crate) fn median_time(height: u32, at: impl Fn(u32) -> Option<Header>) -> Option<u32> {
    let mut times: Vec<u32> = (height.saturating_sub(MEDIAN_SPAN - 1)..=height)
        .map(|height| at(height).map(|header| header.time))
        .collect::<Option<_>>()?;
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Whether a header is that of a genesis block: it has no parent.
pub(crate) fn is_first(header: &Header) -> bool {
    header.prev_blockhash == BlockHash::all_zeros()
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::TxMerkleNode;
    use bdk_wallet::bitcoin::block::Version;

    use super::*;

    /// A regtest chain of `count` headers on the genesis block, ten minutes apart.
    fn chain(count: u32) -> Vec<Header> {
        let mut chain = vec![genesis_block(Network::Regtest.bitcoin()).header];
        for _ in 0..count {
            let parent = chain.last().unwrap();
            chain.push(mined(Header {
                version: Version::TWO,
                prev_blockhash: parent.block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: parent.time + 600,
                bits: parent.bits,
                nonce: 0,
            }));
        }
        chain
    }

    fn mined(mut header: Header) -> Header {
        while !header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
        header
    }

    fn complaint(run: &[Header]) -> String {
        Rules::new(Network::Regtest).check(0, run, |_| None).unwrap_err().to_string()
    }

    #[test]
    fn published_blocks_are_hashes_with_much_work() {
        for network in [Network::Mainnet, Network::Testnet, Network::Testnet4, Network::Signet] {
            let rules = Rules::new(network);
            assert!(rules.known().len() > 2);
            assert!(rules.known().is_sorted());
            for (_, hash) in rules.known() {
                assert!(rules.params.max_attainable_target.is_met_by(*hash), "{network} {hash}");
            }
        }
    }

    #[test]
    fn honest_chain_is_believed_whole_and_in_pieces() {
        let chain = chain(40);
        let rules = Rules::new(Network::Regtest);
        rules.check(0, &chain, |_| None).unwrap();
        rules.check(20, &chain[20..], |height| chain.get(height as usize).copied()).unwrap();
        rules.check(20, &chain[20..], |_| None).unwrap();
        assert_eq!(
            median_time(40, |height| chain.get(height as usize).copied()),
            Some(chain[35].time)
        );
        assert_eq!(
            median_time(2, |height| chain.get(height as usize).copied()),
            Some(chain[1].time)
        );
    }

    #[test]
    fn lies_are_named() {
        let good = chain(20);

        let mut run = good.clone();
        run[0].nonce += 1;
        assert!(complaint(&run).contains("header 0"), "another genesis block");

        let mut run = good.clone();
        while run[5].target().is_met_by(run[5].block_hash()) {
            run[5].nonce += 1;
        }
        assert!(complaint(&run).contains("header 5: no proof of work"));

        let mut run = good.clone();
        run.remove(7);
        assert!(complaint(&run).contains("header 7: does not follow"));

        let mut run = good.clone();
        run[20].bits = CompactTarget::from_consensus(0x207f_fffe);
        run[20] = mined(run[20]);
        assert!(complaint(&run).contains("header 20: the difficulty changes"));

        let mut run = good.clone();
        run[20].time = run[10].time;
        run[20] = mined(run[20]);
        assert!(complaint(&run).contains("header 20: its time"));

        let mut run = good;
        run[20].bits = CompactTarget::from_consensus(0x2100_ffff);
        assert!(
            complaint(&run).contains("header 20: no proof of work"),
            "above the network's limit"
        );
    }

    #[test]
    fn mainnet_difficulty_cannot_fall_to_what_a_forger_could_afford() {
        let rules = Rules::new(Network::Mainnet);
        let target = |bits| Target::from_compact(CompactTarget::from_consensus(bits));
        assert!(rules.check_floor(900_000, target(0x1703_4219)).is_ok());
        assert!(rules.check_floor(900_000, target(0x1735_0000)).is_err());
        assert!(rules.check_floor(100_000, target(0x1b04_864c)).is_ok());
    }

    #[test]
    fn retarget_is_exact_when_the_period_is_known_and_within_four_when_not() {
        let rules = Rules::new(Network::Mainnet);
        let header = |time, bits| Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(bits),
            nonce: 0,
        };
        let first = header(1_000_000, 0x1b04_864c);
        let parent = header(1_000_000 + 1_209_600 / 2, 0x1b04_864c);
        let at = |height| (height == 2016).then_some(first);
        let half = CompactTarget::from_consensus(0x1b02_4326);
        assert!(rules.check_difficulty(4032, half, &parent, &at).is_ok());
        assert!(rules.check_difficulty(4032, parent.bits, &parent, &at).is_err());
        assert!(rules.check_difficulty(4033, parent.bits, &parent, &at).is_ok());
        assert!(rules.check_difficulty(4033, half, &parent, &at).is_err());
        let unknown = |_| None;
        for (bits, possible) in [
            (0x1b04_864c, true),
            (0x1b01_2193, true),
            (0x1b01_2192, false),
            (0x1b12_1930, true),
            (0x1b12_1931, false),
        ] {
            let bits = CompactTarget::from_consensus(bits);
            assert_eq!(rules.check_difficulty(4032, bits, &parent, &unknown).is_ok(), possible);
        }
    }
}
