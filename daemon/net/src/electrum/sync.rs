//! Keeps one wallet's watch in step with the server, a bounded step at a time: agree on a chain, prove anew
//! what a reorganisation unsettled, subscribe, download what changed, tell the wallet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::{BlockHash, Txid};
use bdk_wallet::chain::{CheckPoint, ConfirmationBlockTime, TxUpdate};
use joinery_wallet::chain::{ChainTip, ChainUpdate, ScriptHistory, WatchEvent};
use serde_json::json;
use tokio::time::Instant;

use super::client::{Call, Client};
use super::error::LinkError;
use super::headers::{HeaderChain, fetch_hashes};
use super::message;
use super::pace::Pace;
use super::script::parse_hash;
use super::watch::{Session, Trouble};

/// Longest answer to a subscription: a hash and its wrapping.
const STATUS_MAX: usize = 1024;
/// Steps of our own chain that are compared at first; doubled until a common block is found.
const COMPARED_AT_FIRST: usize = 8;
/// Blocks below the tip that are added to the wallet's chain, so that small reorganisations are seen as such.
const RECENT: u32 = 5;

/// Why a step ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The connection is of no more use.
    Link(LinkError),
    /// The wallet is gone or has started another watch.
    SessionOver,
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something; there may be more.
    Worked,
    /// Nothing to do until the server or the wallet says something, or until that time.
    Idle(Option<Instant>),
}

/// Everything that a step works with.
pub(super) struct Sync<'a> {
    pub(super) client: &'a Client,
    pub(super) headers: &'a mut HeaderChain,
    pub(super) session: &'a mut Session,
    pub(super) pace: &'a mut Pace,
}

impl Sync<'_> {
    /// Does the next piece of work.
    pub(super) async fn step(&mut self) -> Result<Progress, Stop> {
        let Some(tip) = self.headers.tip() else { return Ok(Progress::Idle(None)) };
        if self.session.chain.height() > tip.height {
            // The server has not seen what we have seen; it would tell us that coins are not confirmed.
            return Ok(Progress::Idle(None));
        }
        if !self.session.agreed {
            self.agree().await?;
            return Ok(Progress::Worked);
        }
        if !self.session.unproven.is_empty() {
            self.prove_again(tip).await?;
            return Ok(Progress::Worked);
        }
        self.session.wake_delayed();
        if !self.session.unsubscribed.is_empty() {
            self.subscribe().await?;
            self.tell_progress();
            return Ok(Progress::Worked);
        }
        if !self.session.dirty.is_empty() {
            self.download(tip).await?;
            self.tell_progress();
            return Ok(Progress::Worked);
        }
        if self.session.told_tip != Some(tip) {
            self.tell(tip, TxUpdate::default(), Vec::new()).await?;
        }
        if let Some(caught_up) = self.session.caught_up() {
            if let Some(progress) = self.session.progress() {
                self.send(progress).await?;
            }
            self.send(caught_up).await?;
            self.pace.grow();
        }
        Ok(Progress::Idle(self.session.next_wake()))
    }

    /// Finds the highest block that the wallet's chain and the server's have in common.
    async fn agree(&mut self) -> Result<(), Stop> {
        let ours: Vec<CheckPoint> = self.session.chain.iter().collect();
        let mut compared = 0;
        let mut count = COMPARED_AT_FIRST;
        let mut agreed = None;
        while agreed.is_none() && compared < ours.len() {
            let group = ours.get(compared..(compared + count).min(ours.len())).unwrap_or_default();
            let theirs = self.hashes_of(group).await?;
            agreed = group
                .iter()
                .zip(theirs)
                .find(|(ours, theirs)| Some(ours.hash()) == *theirs)
                .map(|(ours, _)| ours.clone());
            compared += group.len();
            count *= 2;
        }
        let Some(agreed) = agreed else {
            return Err(LinkError::lie("no block in common with the wallet's chain").into());
        };
        self.headers.link_to(self.client, agreed.height(), agreed.hash()).await?;
        let above = self.session.agree(agreed);
        // The blocks that took the place of ours must be named, or the wallet could not merge the chains.
        let tip = self.headers.tip().map_or(0, |tip| tip.height);
        let mut named: BTreeSet<u32> = above.into_iter().filter(|height| *height <= tip).collect();
        self.ensure(&named).await?;
        named.extend(tip.saturating_sub(RECENT)..=tip);
        self.insert_verified(named.into_iter());
        Ok(())
    }

    /// The server's block hashes at the heights of `blocks`, from verified headers where there are any.
    async fn hashes_of(&self, blocks: &[CheckPoint]) -> Result<Vec<Option<BlockHash>>, LinkError> {
        let ask: Vec<u32> = blocks
            .iter()
            .map(CheckPoint::height)
            .filter(|height| self.headers.get(*height).is_none())
            .collect();
        let mut asked = fetch_hashes(self.client, &ask).await?.into_iter();
        Ok(blocks
            .iter()
            .map(|block| match self.headers.get(block.height()) {
                Some(header) => Some(header.block_hash()),
                None => asked.next().flatten(),
            })
            .collect())
    }

    /// Fetches and verifies headers, with the wallet's agreed chain as known blocks.
    pub(super) async fn ensure(&mut self, heights: &BTreeSet<u32>) -> Result<(), LinkError> {
        let chain = &self.session.chain;
        let trusted = || chain.iter().map(|block| (block.height(), block.hash())).collect();
        self.headers.ensure(self.client, heights, trusted).await
    }

    /// Adds verified headers to the wallet's chain.
    fn insert_verified(&mut self, heights: impl Iterator<Item = u32>) {
        let blocks: BTreeMap<u32, BlockHash> = heights
            .filter_map(|height| Some((height, self.headers.get(height)?.block_hash())))
            .collect();
        self.session.insert_blocks(&blocks);
    }

    /// Proves again what was in blocks that were replaced. The wallet hears of the new chain and of the new
    /// proofs in one piece, so that no coin is out of view in between.
    async fn prove_again(&mut self, tip: ChainTip) -> Result<(), Stop> {
        // They stay unproven until the wallet has heard of it: the connection may end in between.
        let unproven = self.session.unproven.clone();
        let (reachable, gone): (Vec<_>, Vec<_>) =
            unproven.into_iter().partition(|(_, height)| *height <= tip.height);
        let mut update = TxUpdate::default();
        let missing = self.prove(&reachable, &mut update).await?;
        let now = unix_time();
        let missing: Vec<Txid> = missing
            .into_iter()
            .map(|(txid, _)| txid)
            .chain(gone.into_iter().map(|(id, _)| id))
            .collect();
        // Out of its block it is unconfirmed until the histories say otherwise.
        update.seen_ats.extend(missing.iter().map(|txid| (*txid, now)));
        self.tell(tip, update, Vec::new()).await?;
        self.session.unproven.clear();
        if !missing.is_empty() {
            self.session.force_all();
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<(), Stop> {
        let most = self.pace.subscriptions.size();
        let begin = Instant::now();
        let indexes: Vec<usize> = self.session.unsubscribed.iter().copied().take(most).collect();
        let mut waiting = Vec::with_capacity(indexes.len());
        for group in indexes.chunks(self.pace.batch) {
            let calls = group
                .iter()
                .filter_map(|index| self.session.scripts.get(*index))
                .map(|watched| Call {
                    method: "blockchain.scripthash.subscribe",
                    params: json!([watched.hash.to_string()]),
                    limit: STATUS_MAX,
                })
                .collect();
            waiting.extend(self.client.submit(calls, self.pace.arrays));
        }
        let count = indexes.len();
        let mut refused = false;
        for (index, pending) in indexes.into_iter().zip(waiting) {
            match self.client.outcome(Some(pending)).await {
                Ok(answer) => {
                    let status = message::value::<Option<String>>(answer.text())
                        .and_then(|status| {
                            status.map(|s| parse_hash(&s)).map_or(Some(None), |h| h.map(Some))
                        })
                        .ok_or(LinkError::Protocol("a status that is none"))?;
                    self.session.announce(index, status);
                }
                Err(super::error::CallError::Server(error)) => {
                    refused |= error.is_overload();
                    self.session.trouble(index, Trouble::Refused(error.text))?;
                }
                Err(error) => {
                    return Err(error.into_link("blockchain.scripthash.subscribe").into());
                }
            }
        }
        if refused {
            self.pace.shrink();
        } else {
            self.pace.subscriptions.took(count, begin.elapsed());
        }
        Ok(())
    }

    /// Tells the wallet something about the chain; waits while it has not read what it was told before.
    ///
    /// What is told counts as known only from then on: when the connection ends first it is downloaded again.
    pub(super) async fn tell(
        &mut self,
        tip: ChainTip,
        txs: TxUpdate<ConfirmationBlockTime>,
        histories: Vec<ScriptHistory>,
    ) -> Result<(), Stop> {
        self.insert_verified(std::iter::once(tip.height));
        let txids = txs.txs.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>();
        let anchors: Vec<_> =
            txs.anchors.iter().map(|(anchor, txid)| (*txid, anchor.block_id)).collect();
        let chain = self.session.chain.clone();
        let update = ChainUpdate { tip, chain, txs, histories };
        self.send(WatchEvent::Update(Box::new(update))).await?;
        self.session.told_tip = Some(tip);
        let known = &mut self.session.known;
        for txid in txids {
            known.entry(txid).or_default();
        }
        known.extend(anchors.into_iter().map(|(txid, block)| (txid, Some(block))));
        Ok(())
    }

    /// Sends an event, and stops waiting for room when the wallet or the connection is gone.
    async fn send(&self, event: WatchEvent) -> Result<(), Stop> {
        tokio::select! {
            permit = self.session.events.reserve() => match permit {
                Ok(permit) => {
                    permit.send(event);
                    Ok(())
                }
                Err(_) => Err(Stop::SessionOver),
            },
            reason = self.client.closed() => Err(Stop::Link(reason)),
            () = self.session.replaced() => Err(Stop::SessionOver),
        }
    }

    /// Progress is for display only: when there is no room, the next one will do.
    pub(super) fn tell_progress(&mut self) {
        if let Some(event) = self.session.progress()
            && self.session.events.try_send(event).is_err()
        {
            self.session.progress_unsent();
        }
    }
}

/// Seconds since epoch by the clock of this machine.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
