//! Automatic freezing (`spec/wallet.md` 7.1, 7.2, R-16): coins on a reused address and bonds that are
//! still locked. A decision, once made by anyone, is never made again.

use std::collections::HashMap;

use bdk_wallet::bitcoin::{OutPoint, Txid};
use joinery_proto::fidelity_bond::locktime_of_month;

use crate::graph::{Canonical, Position, RawCoin, WalletGraph};
use crate::path::ScriptPlace;
use crate::store::{Fact, Facts, FreezeOrigin};

/// Coins per [`Fact::CoinsSeen`]: keeps a record below 4 KiB.
const COINS_PER_FACT: usize = 64;

/// What the rules look at.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) graph: &'a WalletGraph,
    pub(super) canonical: &'a Canonical,
    pub(super) facts: &'a Facts,
    /// Order of the transactions of a script as the server gave it, for scripts heard of since the
    /// wallet was opened.
    pub(super) histories: &'a HashMap<ScriptPlace, Vec<Txid>>,
    /// `max_sats_freeze_reuse`: -1 for any value.
    pub(super) limit: i64,
    /// Seconds since epoch.
    pub(super) now: u64,
}

impl Rules<'_> {
    /// Facts to record about coins that were not looked at before. Before the first complete sync only
    /// bonds are frozen: what arrived in an earlier life of the seed is not judged.
    pub(super) fn due(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut seen = Vec::new();
        for coin in &self.canonical.coins {
            let decided = self.facts.frozen.contains_key(&coin.outpoint);
            if let ScriptPlace::Bond { timenumber } = coin.place {
                if !decided && locktime_of_month(timenumber) > self.now {
                    facts.push(self.freeze(coin.outpoint));
                }
            } else if self.facts.synced_once
                && !decided
                && !self.facts.seen.contains(&coin.outpoint)
                && self.is_within_limit(coin)
                && self.was_used_before(coin)
            {
                tracing::warn!(outpoint = %coin.outpoint, "coin on a reused address is frozen");
                facts.push(self.freeze(coin.outpoint));
            }
            if self.facts.synced_once && !self.facts.seen.contains(&coin.outpoint) {
                seen.push(coin.outpoint);
            }
        }
        facts.extend(seen_facts(&seen));
        facts
    }

    /// Facts that end the first complete sync: every coin there is counts as looked at.
    pub(super) fn baseline(&self) -> Vec<Fact> {
        let seen: Vec<OutPoint> = self.canonical.coins.iter().map(|coin| coin.outpoint).collect();
        let mut facts: Vec<Fact> = seen_facts(&seen).collect();
        facts.push(Fact::SyncedOnce);
        facts
    }

    fn freeze(&self, outpoint: OutPoint) -> Fact {
        Fact::Frozen { outpoint, frozen: true, by: FreezeOrigin::Auto, time: self.now }
    }

    fn is_within_limit(&self, coin: &RawCoin) -> bool {
        match u64::try_from(self.limit) {
            Ok(limit) => coin.value.to_sat() <= limit,
            Err(_) => true,
        }
    }

    /// Whether another transaction paid the address before the one that made this coin.
    fn was_used_before(&self, coin: &RawCoin) -> bool {
        let own = coin.outpoint.txid;
        let Some(own_order) = self.order(coin.place, own) else { return false };
        // What was set aside is far below every coin that is new.
        let (height, ..) = own_order;
        if self.graph.pruned_heights(coin.place).iter().any(|paid| *paid < height) {
            return true;
        }
        let payers = self.graph.index().outpoints_of(coin.place).map(|outpoint| outpoint.txid);
        payers
            .filter(|txid| *txid != own)
            .filter_map(|txid| self.order(coin.place, txid))
            .any(|order| order < own_order)
    }

    /// Sort key of a transaction in the history of a script: by block, within a block or among those
    /// that arrived together by the server's order. The id makes the order total, so that of two
    /// payments never both count as the later one. `None` for transactions that do not count.
    fn order(&self, place: ScriptPlace, txid: Txid) -> Option<(u32, u64, usize, Txid)> {
        let (height, seen) = match *self.canonical.positions.get(&txid)? {
            Position::Block(height) => (height, 0),
            Position::Mempool(seen) => (u32::MAX, seen.unwrap_or(u64::MAX)),
        };
        let row = self.histories.get(&place).and_then(|row| row.iter().position(|id| *id == txid));
        Some((height, seen, row.unwrap_or(0), txid))
    }
}

fn seen_facts(seen: &[OutPoint]) -> impl Iterator<Item = Fact> + '_ {
    seen.chunks(COINS_PER_FACT).map(|coins| Fact::CoinsSeen { outpoints: coins.to_vec() })
}
