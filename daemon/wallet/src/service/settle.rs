//! What becomes of signed rounds (`spec/roles.md` 3.13, 4.10): seen, in a block, beaten by another spender, or given
//! up. Follows from the graph alone, so that it is the same after a restart.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bdk_wallet::bitcoin::consensus::encode::deserialize;
use bdk_wallet::bitcoin::{Transaction, TxOut, Txid};

use super::state::{State, now};
use crate::graph::{Canonical, Position, WalletGraph};
use crate::round::{Round, RoundEvent, RoundRole};
use crate::store::{Fact, OwnTxState};

/// Deadlines of rounds are looked at this often, whatever the clock says: it may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// What settling looks at.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    pub(super) graph: &'a WalletGraph,
    pub(super) canonical: &'a Canonical,
    /// Transactions of ours that no server has listed yet: they count as sent, not as seen.
    pub(super) unlisted: &'a HashSet<Txid>,
    /// The server has said everything that there is: what is not there now is really gone.
    pub(super) current: bool,
    /// Seconds since epoch.
    pub(super) now: u64,
    /// How long a signed transaction may stay unseen, seconds.
    pub(super) unseen_limit: u64,
    /// How long one that others send or that was seen may stay away before it is given up, seconds.
    pub(super) missing_limit: u64,
}

impl Sight<'_> {
    /// What has happened to a round that it does not say yet. `refused`: our server does not take its transaction.
    pub(super) fn news(&self, round: &Round, refused: bool) -> Vec<RoundEvent> {
        if round.signed.is_empty() {
            return Vec::new();
        }
        let first_seen = round.seen.map_or(self.now, |(_, time)| time);
        let already = |txid| round.seen.is_some_and(|(seen, _)| seen == txid);
        match self.find(round) {
            Some((txid, Position::Block(height))) => {
                let known = round.confirmed.is_some_and(|(at, _)| at == height);
                if known && already(txid) {
                    return Vec::new();
                }
                let confirmed = RoundEvent::Confirmed { txid, height, time: self.now };
                if round.seen.is_some() {
                    vec![confirmed]
                } else {
                    vec![RoundEvent::Seen { txid, time: first_seen }, confirmed]
                }
            }
            Some((txid, Position::Mempool(_))) => {
                // Until everything is told, what has a block may look as if it had none.
                let lost_block = round.confirmed.is_some() && self.current;
                if lost_block || !already(txid) && round.confirmed.is_none() || round.abandoned {
                    vec![RoundEvent::Seen { txid, time: first_seen }]
                } else {
                    Vec::new()
                }
            }
            None if !self.current => Vec::new(),
            None => self.missing(round, refused),
        }
    }

    /// A round whose transaction is nowhere.
    fn missing(&self, round: &Round, refused: bool) -> Vec<RoundEvent> {
        if let (Some(_), Some((txid, time))) = (round.confirmed, round.seen) {
            if self.graph.is_set_aside(txid) {
                return Vec::new();
            }
            // A reorganisation took it out of its block, and the mempool does not have it.
            let mut unconfirmed = vec![RoundEvent::Seen { txid, time }];
            if self.is_beaten(round) {
                unconfirmed.push(RoundEvent::Abandoned { time: self.now });
            }
            return unconfirmed;
        }
        if !round.abandoned && (self.is_beaten(round) || self.is_overdue(round, refused)) {
            return vec![RoundEvent::Abandoned { time: self.now }];
        }
        Vec::new()
    }

    fn is_overdue(&self, round: &Round, refused: bool) -> bool {
        let (since, limit) = match (round.seen, round.begin.role) {
            (Some((_, time)), _) => (time, self.missing_limit),
            // Only the taker can complete it: if nothing came of it by now, nothing will.
            (None, RoundRole::Maker) => (round.signed_at().unwrap_or(0), self.unseen_limit),
            (None, RoundRole::Taker) if refused => {
                (round.signed_at().unwrap_or(0), self.unseen_limit)
            }
            (None, RoundRole::Taker) => (round.signed_at().unwrap_or(0), self.missing_limit),
        };
        self.now.saturating_sub(since) >= limit
    }

    /// The transaction of the round that counts.
    fn find(&self, round: &Round) -> Option<(Txid, Position)> {
        let position = |txid: Txid| {
            let position = *self.canonical.positions.get(&txid)?;
            let sent = self.unlisted.contains(&txid) && matches!(position, Position::Mempool(_));
            (!sent).then_some((txid, position))
        };
        let seen = round.seen.map(|(txid, _)| txid);
        let signed = round.signed.iter().map(|(txid, _, _)| *txid);
        if let Some(found) = seen.into_iter().chain(signed).find_map(position) {
            return Some(found);
        }
        // Its id is another one when an input of somebody else has a scriptSig: ours commits to the outputs only.
        let spenders = round.coins.iter().flat_map(|coin| self.graph.spenders(*coin));
        let counted: HashSet<Txid> =
            spenders.filter(|txid| self.canonical.positions.contains_key(txid)).collect();
        if counted.is_empty() {
            return None;
        }
        let outputs: Vec<Vec<TxOut>> = self.signed(round).map(|tx| sorted(&tx)).collect();
        counted
            .into_iter()
            .filter(|txid| {
                self.graph.tx(*txid).is_some_and(|tx| {
                    let pays_us = tx
                        .output
                        .iter()
                        .any(|output| round.scripts.binary_search(&output.script_pubkey).is_ok());
                    pays_us || outputs.contains(&sorted(&tx))
                })
            })
            .find_map(position)
    }

    fn signed(&self, round: &Round) -> impl Iterator<Item = Transaction> {
        let raw = round.signed.iter().map(|(_, raw, _)| raw);
        raw.filter_map(|raw| deserialize(raw).ok()).collect::<Vec<_>>().into_iter()
    }

    /// Whether nothing that was signed can confirm any more, because something else that did spent one of its coins.
    fn is_beaten(&self, round: &Round) -> bool {
        let in_block =
            |txid: Txid| matches!(self.canonical.positions.get(&txid), Some(Position::Block(_)));
        let mut all = self.signed(round).peekable();
        all.peek().is_some()
            && all.all(|tx| {
                let mut inputs = tx.input.iter().map(|input| input.previous_output);
                inputs.any(|coin| {
                    self.graph.is_spent_for_good(coin) || self.graph.spenders(coin).any(in_block)
                })
            })
    }
}

fn sorted(tx: &Transaction) -> Vec<TxOut> {
    let mut outputs = tx.output.clone();
    outputs.sort_unstable();
    outputs
}

impl State {
    fn sight(&self) -> Sight<'_> {
        let policy = self.policy.load();
        Sight {
            graph: &self.graph,
            canonical: &self.canonical,
            unlisted: &self.own.unlisted,
            current: self.sync.complete && !self.sync.is_scanning(),
            now: now(),
            unseen_limit: policy.pending_tx_timeout.as_secs(),
            missing_limit: policy.missing_tx_timeout.as_secs(),
        }
    }

    /// Follows the rounds after the graph or the clock went on. Returns whether anything happened. The graph may be
    /// stale afterwards: what is given up does not count any more.
    pub(super) fn settle_rounds(&mut self) -> bool {
        self.rounds.looked = Some(Instant::now());
        let facts = self.store.facts();
        let refused = |txid: &Txid| {
            facts.own_txs.get(txid).is_some_and(|own| own.state == OwnTxState::Rejected)
        };
        let sight = self.sight();
        let mut news = Vec::new();
        for round in facts.rounds.values() {
            let refused = round.signed.last().is_some_and(|(txid, _, _)| refused(txid));
            let events = sight.news(round, refused).into_iter();
            news.extend(events.map(|event| Fact::Round { round: round.id.0, event }));
        }
        if news.is_empty() {
            return false;
        }
        if let Err(error) = self.record(&news) {
            // The rounds keep what they hold and are looked at again with the next change.
            tracing::error!(%error, "what became of coinjoin rounds could not be stored");
            return false;
        }
        for fact in &news {
            let Fact::Round { round, event } = fact else { continue };
            tracing::info!(round, news = ?super::RoundNews::of(event), "coinjoin round");
            match event {
                RoundEvent::Abandoned { .. } => self.give_up(*round),
                RoundEvent::Seen { txid, .. } => self.take_up(*txid),
                _ => {}
            }
        }
        true
    }

    /// What was given up is not sent again, and does not hide our coins.
    fn give_up(&mut self, round: u64) {
        let Some(round) = self.store.facts().rounds.get(&crate::round::RoundId(round)) else {
            return;
        };
        let txids: Vec<Txid> = round.signed.iter().map(|(txid, _, _)| *txid).collect();
        for txid in txids {
            let own = self.store.facts().own_txs.get(&txid).map(|own| own.state);
            if matches!(own, Some(OwnTxState::Built | OwnTxState::Broadcast)) {
                self.set_own_state(txid, OwnTxState::Rejected);
            }
            if self.own.unlisted.remove(&txid) && self.graph.tx(txid).is_some() {
                let change = self.graph.evict(txid, now());
                self.keep(change);
                self.mark_stale(true);
            }
        }
    }

    /// A transaction of ours that lost its block, or that was given up too early, is followed and sent again like one
    /// that was sent a moment ago.
    fn take_up(&mut self, txid: Txid) {
        let own = self.store.facts().own_txs.get(&txid).map(|own| own.state);
        if matches!(own, Some(OwnTxState::Confirmed | OwnTxState::Rejected)) {
            self.set_own_state(txid, OwnTxState::Broadcast);
            if !self.canonical.positions.contains_key(&txid) {
                self.own.unlisted.insert(txid);
                self.own.new_block = true;
            }
        }
    }

    /// When rounds must be looked at because of the clock.
    pub(super) fn rounds_due(&self) -> Option<Instant> {
        let waiting =
            |round: &std::sync::Arc<Round>| !round.signed.is_empty() && round.holds_coins();
        let looked = self.rounds.looked?;
        self.rounds.list.iter().any(waiting).then(|| looked + LOOK)
    }
}
