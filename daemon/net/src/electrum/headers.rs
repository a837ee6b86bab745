//! The chain of headers as far as it was verified: follows the server's tip, over reorganisations of any
//! depth, and reaches back to old blocks when a transaction there must be proven.
//!
//! Nothing enters [`HeaderChain`] unverified, and nothing the server says takes it back to a lower height:
//! a server that is behind is waited for.

use std::collections::{BTreeMap, BTreeSet};

use bdk_wallet::bitcoin::BlockHash;
use bdk_wallet::bitcoin::block::Header;
use joinery_wallet::chain::ChainTip;
use serde_json::json;

use super::answers;
use super::client::{Call, Client, SMALL};
use super::error::LinkError;
use super::rules::{PERIOD, Rules, is_first, median_time};

/// Headers that are asked for at once: what servers give at most.
const AT_ONCE: u32 = 2016;
/// Longest answer with that many headers, in either protocol version.
const HEADERS_MAX: usize = 2016 * (answers::HEADER_HEX + 4) + 1024;
/// Blocks that a tip may be ahead of ours so that all between are fetched; beyond, the newest are enough.
const GAP_MAX: u32 = 20 * PERIOD;
/// Headers that are kept before the oldest go: two periods, 0.6 MB.
const KEPT_MAX: usize = 2 * PERIOD as usize;
/// Newest ones that stay then: a period, by which the next difficulty is known exactly, and the deepest search for the
/// place where branches part.
const KEPT: u32 = PERIOD + 1000;
/// Headers asked for at the same time, one by one.
const WINDOW: usize = 100;

/// What a new tip means for what was verified before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TipChange {
    /// Nothing new.
    Same,
    /// Blocks were added.
    Extended,
    /// Blocks were replaced.
    Reorganised,
    /// The server is at this lower height; ours stays.
    Behind(u32),
}

/// Verified headers: all of the newest, and single older ones. Of a long life and of many old transactions no more than
/// [`KEPT_MAX`] are kept: what is needed again is fetched and verified again.
#[derive(Debug)]
pub(crate) struct HeaderChain {
    rules: Rules,
    blocks: BTreeMap<u32, Header>,
}

impl HeaderChain {
    pub(crate) const fn new(rules: Rules) -> Self {
        Self { rules, blocks: BTreeMap::new() }
    }

    /// The best verified block.
    pub(crate) fn tip(&self) -> Option<ChainTip> {
        let (height, header) = self.blocks.last_key_value()?;
        // Fewer than eleven are only known at the very start of a chain, where the median is of those.
        let median = median_time(*height, |height| self.blocks.get(&height).copied());
        Some(ChainTip {
            height: *height,
            hash: header.block_hash(),
            median_time: median.unwrap_or(header.time),
            time: header.time,
        })
    }

    /// A verified header.
    pub(crate) fn get(&self, height: u32) -> Option<&Header> {
        self.blocks.get(&height)
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Lowest height from which on every header up to the tip is here.
    fn floor(&self) -> Option<u32> {
        let mut floor = None;
        for height in self.blocks.keys().rev() {
            match floor {
                Some(above) if *height + 1 != above => break,
                _ => floor = Some(*height),
            }
        }
        floor
    }

    /// Takes the tip that the server names, and fetches and verifies what lies between.
    ///
    /// # Errors
    /// When the connection breaks or a header cannot be true; what was verified before stays.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        height: u32,
        header: Header,
    ) -> Result<TipChange, LinkError> {
        let Some(tip) = self.tip() else {
            self.restart(client, height).await?;
            return Ok(TipChange::Extended);
        };
        if height < tip.height {
            return Ok(TipChange::Behind(height));
        }
        if height == tip.height && header.block_hash() == tip.hash {
            return Ok(TipChange::Same);
        }
        if height == tip.height + 1 && header.prev_blockhash == tip.hash {
            self.add(height, &[header])?;
            return Ok(TipChange::Extended);
        }
        if height - tip.height > GAP_MAX {
            self.restart(client, height).await?;
            return Ok(TipChange::Reorganised);
        }
        // How many of our own newest blocks are asked for again, to find where the branches part.
        for again in [0, 10, 100, 1000] {
            let start = (tip.height + 1).saturating_sub(again);
            let run = fetch(client, start, height).await?;
            let linked = match (run.first(), start.checked_sub(1)) {
                (Some(first), Some(below)) => {
                    self.blocks.get(&below).is_some_and(|b| b.block_hash() == first.prev_blockhash)
                }
                (Some(first), None) => is_first(first),
                (None, _) => false,
            };
            if linked {
                let replaced = (start..).zip(&run).any(|(height, header)| {
                    self.blocks.get(&height).is_some_and(|ours| ours != header)
                });
                self.add(start, &run)?;
                return Ok(if replaced { TipChange::Reorganised } else { TipChange::Extended });
            }
            if start == 0 {
                return Err(LinkError::lie("another genesis block"));
            }
        }
        self.restart(client, height).await?;
        Ok(TipChange::Reorganised)
    }

    /// Verifies a run that ends at the new tip and puts it in place of everything from `start` on.
    fn add(&mut self, start: u32, run: &[Header]) -> Result<(), LinkError> {
        self.rules.check(start, run, |height| self.blocks.get(&height).copied())?;
        self.blocks.split_off(&start);
        self.blocks.extend((start..).zip(run.iter().copied()));
        Ok(())
    }

    /// Lets go of old headers when there are many. Blocks that everybody knows stay. Not to be called between
    /// [`Self::ensure`] and the use of what it fetched.
    pub(crate) fn forget(&mut self) {
        let Some((tip, _)) = self.blocks.last_key_value() else { return };
        if self.blocks.len() <= KEPT_MAX {
            return;
        }
        let newest = self.blocks.split_off(&tip.saturating_sub(KEPT - 1));
        let old = std::mem::replace(&mut self.blocks, newest);
        let known = |height: &u32| self.rules.known().iter().any(|(known, _)| known == height);
        let known: Vec<_> = old.into_iter().filter(|(height, _)| known(height)).collect();
        self.blocks.extend(known);
    }

    /// Begins anew with the newest headers.
    async fn restart(&mut self, client: &Client, height: u32) -> Result<(), LinkError> {
        let start = height.saturating_sub(AT_ONCE - 1);
        let run = fetch(client, start, height).await?;
        self.rules.check(start, &run, |_| None)?;
        let mut blocks: BTreeMap<u32, Header> = (start..).zip(run).collect();
        // A forger would have to begin his branch above the newest block that everybody knows.
        let known = self.rules.known().iter().rev().find(|(known, _)| *known <= height);
        if let Some((known, hash)) = known
            && !blocks.contains_key(known)
        {
            blocks.insert(*known, fetch_known(client, *known, *hash).await?);
        }
        self.blocks = blocks;
        Ok(())
    }

    /// Fetches and verifies the headers of `wanted` heights, none above the tip. `trusted` are blocks that are
    /// known to be in this chain. Others are reached from the next verified block above, by linkage.
    ///
    /// # Errors
    /// When the connection breaks or a header cannot be true.
    pub(crate) async fn ensure(
        &mut self,
        client: &Client,
        wanted: &BTreeSet<u32>,
        trusted: impl Fn() -> BTreeMap<u32, BlockHash>,
    ) -> Result<(), LinkError> {
        let missing: BTreeSet<u32> =
            wanted.iter().copied().filter(|height| !self.blocks.contains_key(height)).collect();
        let Some(tip) = self.tip() else { return Ok(()) };
        if missing.is_empty() {
            return Ok(());
        }
        let mut trusted = trusted();
        trusted.extend(self.rules.known().iter().copied());
        trusted.retain(|height, _| *height <= tip.height);
        let direct: Vec<(u32, BlockHash)> =
            missing.iter().filter_map(|height| Some((*height, *trusted.get(height)?))).collect();
        for (height, header) in fetch_each(client, &direct).await? {
            self.blocks.insert(height, header);
        }
        for height in missing.iter().rev() {
            self.reach(client, *height, &missing, &trusted).await?;
        }
        Ok(())
    }

    /// Follows the links from the next block above that is verified or known down to `height`.
    async fn reach(
        &mut self,
        client: &Client,
        height: u32,
        keep: &BTreeSet<u32>,
        trusted: &BTreeMap<u32, BlockHash>,
    ) -> Result<(), LinkError> {
        while !self.blocks.contains_key(&height) {
            let Some((above, verified)) = self.blocks.range(height..).next().map(|(h, b)| (*h, *b))
            else {
                // Above the tip: nothing can be said.
                return Ok(());
            };
            if let Some((nearer, hash)) = trusted.range(height + 1..above).next() {
                self.blocks.insert(*nearer, fetch_known(client, *nearer, *hash).await?);
                continue;
            }
            let start = height.max(above.saturating_sub(AT_ONCE));
            let run = fetch(client, start, above - 1).await?;
            if run.last().map(Header::block_hash) != Some(verified.prev_blockhash) {
                return Err(LinkError::lie(format!(
                    "header {above} does not follow header {}",
                    above - 1
                )));
            }
            self.rules.check(start, &run, |height| self.blocks.get(&height).copied())?;
            for (height, header) in (start..).zip(run) {
                // The lowest one is where the next step goes on.
                if height == start || keep.contains(&height) {
                    self.blocks.insert(height, header);
                }
            }
        }
        Ok(())
    }

    /// Checks that the verified headers lead down to a block that the wallet knows, unless it is so far below
    /// that fetching all between is too much.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub(crate) async fn link_to(
        &mut self,
        client: &Client,
        height: u32,
        hash: BlockHash,
    ) -> Result<(), LinkError> {
        let Some(floor) = self.floor() else { return Ok(()) };
        if height >= floor || floor - height > GAP_MAX {
            return Ok(());
        }
        self.reach(client, height + 1, &BTreeSet::new(), &BTreeMap::new()).await?;
        match self.blocks.get(&(height + 1)) {
            Some(child) if child.prev_blockhash == hash => Ok(()),
            _ => Err(LinkError::lie(format!("header {} does not follow our block", height + 1))),
        }
    }
}

/// Fetches the headers from `start` to `end`, both included, in as many calls as the server needs.
async fn fetch(client: &Client, start: u32, end: u32) -> Result<Vec<Header>, LinkError> {
    let mut run = Vec::new();
    let mut next = start;
    while next <= end {
        let count = (end - next + 1).min(AT_ONCE);
        let call = Call {
            method: "blockchain.block.headers",
            params: json!([next, count]),
            limit: HEADERS_MAX,
        };
        let answer = client.require(call).await?;
        let mut headers = answers::headers(answer.text())
            .ok_or(LinkError::Protocol("block headers that are none"))?;
        headers.truncate(count as usize);
        let Ok(got @ 1..) = u32::try_from(headers.len()) else {
            return Err(LinkError::lie(format!("no header at {next}, below its own tip")));
        };
        run.extend(headers);
        next += got;
    }
    Ok(run)
}

async fn fetch_known(client: &Client, height: u32, hash: BlockHash) -> Result<Header, LinkError> {
    let answer = client.require(header_call(height)).await?;
    known_header(answer.text(), height, hash)
}

fn known_header(text: &str, height: u32, hash: BlockHash) -> Result<Header, LinkError> {
    let header = answers::header(text).ok_or(LinkError::Protocol("a block header that is none"))?;
    if header.block_hash() == hash {
        Ok(header)
    } else {
        Err(LinkError::lie(format!("header {height} is not that of the known block")))
    }
}

fn header_call(height: u32) -> Call {
    Call { method: "blockchain.block.header", params: json!([height]), limit: SMALL }
}

/// Fetches the headers of blocks that are known.
async fn fetch_each(
    client: &Client,
    blocks: &[(u32, BlockHash)],
) -> Result<Vec<(u32, Header)>, LinkError> {
    let calls = blocks.iter().map(|(height, _)| header_call(*height)).collect();
    let mut headers = Vec::with_capacity(blocks.len());
    client
        .call_many(calls, WINDOW, |index, answer| {
            let Some((height, hash)) = blocks.get(index) else { return Ok(()) };
            let method = "blockchain.block.header";
            let answer = answer.map_err(|error| LinkError::Refused { method, text: error.text })?;
            headers.push((*height, known_header(answer.text(), *height, *hash)?));
            Ok(())
        })
        .await?;
    Ok(headers)
}

/// Asks for the hashes of the server's blocks at these heights; `None` where it has none.
pub(crate) async fn fetch_hashes(
    client: &Client,
    heights: &[u32],
) -> Result<Vec<Option<BlockHash>>, LinkError> {
    let calls = heights.iter().map(|height| header_call(*height)).collect();
    let mut hashes = Vec::with_capacity(heights.len());
    client
        .call_many(calls, WINDOW, |_, answer| {
            let hash = match answer {
                Err(_) => None,
                Ok(answer) => Some(
                    answers::header(answer.text())
                        .ok_or(LinkError::Protocol("a block header that is none"))?
                        .block_hash(),
                ),
            };
            hashes.push(hash);
            Ok(())
        })
        .await?;
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::TxMerkleNode;
    use bdk_wallet::bitcoin::block::Version;
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::{BlockHash, CompactTarget};
    use joinery_wallet::types::Network;

    use super::*;

    /// A header that only counts: nothing here looks at its work.
    fn header(height: u32) -> Header {
        Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: height,
        }
    }

    #[test]
    fn no_more_headers_are_kept_than_the_maximum_and_never_fewer_than_are_needed() {
        let rules = Rules::new(Network::Mainnet);
        let known: Vec<u32> = rules.known().iter().map(|(height, _)| *height).collect();
        let mut headers = HeaderChain::new(rules);
        headers.blocks.insert(known[0], header(known[0]));
        // Single ones of old transactions, then the newest of a chain that grows.
        let old = (1..=u32::try_from(KEPT_MAX).unwrap()).map(|number| known[0] + 2 * number);
        headers.blocks.extend(old.map(|height| (height, header(height))));
        let start = 900_000;
        for height in start..start + 20_000 {
            headers.blocks.insert(height, header(height));
            headers.forget();
            assert!(headers.blocks.len() <= KEPT_MAX, "at {height}");
            let floor = height.saturating_sub(KEPT - 1).max(start);
            assert_eq!(headers.blocks.range(floor..).count(), (floor..=height).count());
        }
        assert!(headers.get(known[0]).is_some(), "what everybody knows stays");
        assert_eq!(headers.tip().map(|tip| tip.height), Some(start + 19_999));
    }
}
