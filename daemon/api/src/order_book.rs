//! The order book as clients see it (`spec/api.md` 12, `spec/roles.md` 7.3): the shapes that the reference and
//! joinmarket-ng use, from the book that the market task of the daemon keeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use joinery_proto::cjfee::CjFee;
use joinery_roles::event::DirectoryId;
use joinery_roles::order_book::{Book, BookBond, BookOffer, BookPhase, DirectoryHealth};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;

/// Time between two refreshes.
const REFRESH: Duration = Duration::from_secs(60);
/// Longest time that a refresh waits for answers.
const REFRESH_WAIT: Duration = Duration::from_secs(5);

/// What the daemon's market task shows the API. Without one the order book is switched off.
#[derive(Debug, Clone)]
pub struct MarketView {
    /// The latest book.
    pub book: watch::Receiver<Arc<Book>>,
    /// Wakes the task to ask makers for their offers again.
    pub refresh: mpsc::Sender<()>,
    /// What is wrong with the market, as a code for `warnings` of `/session`: `tor_unavailable`,
    /// `no_directories` or `market_unreachable`.
    pub problem: watch::Receiver<Option<&'static str>>,
    /// Names of the directories, by [`DirectoryId`].
    pub directories: Arc<[String]>,
}

/// The order book, and when it was last asked for.
#[derive(Debug)]
pub(crate) struct OrderBook {
    clock: Clock,
    market: Option<MarketView>,
    refreshed: Mutex<Option<Duration>>,
}

impl OrderBook {
    pub(crate) const fn new(clock: Clock, market: Option<MarketView>) -> Self {
        Self { clock, market, refreshed: Mutex::new(None) }
    }

    /// What is wrong with the market.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        *self.market.as_ref()?.problem.borrow()
    }

    /// `orderbook.json`; `None` when the order book is switched off.
    pub(crate) fn json(&self) -> Option<Json> {
        let market = self.market.as_ref()?;
        let book = Arc::clone(&market.book.borrow());
        Some(Json::new(&book, &market.directories, self.clock.wall()))
    }

    /// Asks for offers again unless that was done within the last minute, and waits a little for the
    /// answers. `None` when the order book is switched off.
    pub(crate) async fn refresh(&self) -> Option<()> {
        let market = self.market.as_ref()?;
        if !self.refresh_is_due() {
            return Some(());
        }
        let mut book = market.book.clone();
        let before = {
            let book = book.borrow_and_update();
            // Nobody is there to ask; whoever comes is asked anyway.
            if book.phase == BookPhase::Connecting {
                return Some(());
            }
            book.completed
        };
        // A full queue means that it will be asked for.
        let _ = market.refresh.try_send(());
        let answered = book.wait_for(|book| book.completed != before);
        let _ = tokio::time::timeout(REFRESH_WAIT, answered).await;
        Some(())
    }

    /// Whether a refresh is due; if so the next one is not for a minute.
    fn refresh_is_due(&self) -> bool {
        let now = self.clock.steady();
        let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        let due = refreshed.is_none_or(|last| now >= last + REFRESH);
        if due {
            *refreshed = Some(now);
        }
        due
    }
}

/// `orderbook.json`. What joinmarket-ng and we add is optional for clients.
#[derive(Debug, Serialize)]
pub(crate) struct Json {
    offers: Vec<OfferJson>,
    fidelitybonds: Vec<BondJson>,
    /// When this was written, RFC 3339 in UTC.
    timestamp: String,
    current_block_height: Option<u32>,
    directory_nodes: Vec<String>,
    directory_stats: BTreeMap<String, DirectoryJson>,
    /// `connecting`, `collecting` or `complete`.
    phase: &'static str,
    /// Bonds that are still being looked up.
    bonds_pending: usize,
}

#[derive(Debug, Serialize)]
struct OfferJson {
    counterparty: String,
    oid: u64,
    ordertype: &'static str,
    minsize: u64,
    maxsize: u64,
    txfee: u64,
    /// Integer of satoshi, or a decimal string without exponent.
    cjfee: Value,
    fidelity_bond_value: f64,
    fidelity_bond_verified: bool,
    directory_nodes: Vec<String>,
    directly_reachable: bool,
    /// The maker signed it within the last half hour.
    signed: bool,
    /// A public line contradicts it.
    disputed: bool,
}

#[derive(Debug, Serialize)]
struct BondJson {
    counterparty: String,
    utxo: UtxoJson,
    bond_value: f64,
    locktime: u32,
    amount: u64,
    /// scriptPubKey, hex.
    script: String,
    utxo_confirmations: u32,
    utxo_confirmation_timestamp: u32,
    utxo_pub: String,
    /// Number of the 2016-block period.
    cert_expiry: u16,
    verification_valid: bool,
}

#[derive(Debug, Serialize)]
struct UtxoJson {
    txid: String,
    vout: u32,
}

#[derive(Debug, Serialize)]
struct DirectoryJson {
    connected: bool,
    uptime_percentage: f64,
    connections_lost: u64,
    maker_count: usize,
    offer_count: usize,
    lists_peers: bool,
    withheld_makers: usize,
    differing_offers: usize,
    score: u8,
}

impl Json {
    fn new(book: &Book, directories: &[String], now: u64) -> Self {
        let name = |id: &DirectoryId| directories.get(usize::from(id.0)).cloned();
        let time =
            i64::try_from(now).ok().and_then(|t| OffsetDateTime::from_unix_timestamp(t).ok());
        let stats = |health: &DirectoryHealth| Some((name(&health.directory)?, health.into()));
        Self {
            offers: book.offers.iter().map(|entry| OfferJson::new(entry, &name)).collect(),
            fidelitybonds: book.bonds.iter().map(BondJson::from).collect(),
            timestamp: time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
            current_block_height: book.tip.map(|tip| tip.height),
            directory_nodes: directories.to_vec(),
            directory_stats: book.directories.iter().filter_map(stats).collect(),
            phase: match book.phase {
                BookPhase::Connecting => "connecting",
                BookPhase::Collecting => "collecting",
                BookPhase::Complete => "complete",
            },
            bonds_pending: book.bonds_pending,
        }
    }
}

impl OfferJson {
    fn new(entry: &BookOffer, name: &impl Fn(&DirectoryId) -> Option<String>) -> Self {
        let offer = &entry.offer;
        Self {
            counterparty: entry.nick.to_string(),
            oid: offer.id.get(),
            ordertype: offer.order_type.word(),
            minsize: offer.min_size,
            maxsize: offer.max_size,
            txfee: offer.tx_fee,
            cjfee: match offer.cj_fee {
                CjFee::Absolute(fee) => Value::from(fee),
                CjFee::Relative(fee) => Value::from(fee.to_string()),
            },
            fidelity_bond_value: entry.bond_value,
            fidelity_bond_verified: entry.bond_value > 0.0,
            directory_nodes: entry.directories.iter().filter_map(name).collect(),
            directly_reachable: entry.direct,
            signed: entry.signed,
            disputed: entry.disputed,
        }
    }
}

impl From<&BookBond> for BondJson {
    fn from(bond: &BookBond) -> Self {
        Self {
            counterparty: bond.nick.to_string(),
            utxo: UtxoJson { txid: bond.outpoint.txid.to_string(), vout: bond.outpoint.vout },
            bond_value: bond.value,
            locktime: bond.locktime,
            amount: bond.amount.to_sat(),
            script: bond.script.to_hex_string(),
            utxo_confirmations: bond.confirmations,
            utxo_confirmation_timestamp: bond.confirmation_time,
            utxo_pub: bond.key.to_string(),
            cert_expiry: bond.cert_expiry,
            verification_valid: true,
        }
    }
}

impl From<&DirectoryHealth> for DirectoryJson {
    fn from(health: &DirectoryHealth) -> Self {
        Self {
            connected: health.up,
            uptime_percentage: (health.up_share * 10_000.0).round() / 100.0,
            connections_lost: health.losses,
            maker_count: health.makers,
            offer_count: health.offers,
            lists_peers: health.lists,
            withheld_makers: health.withheld,
            differing_offers: health.differing,
            score: health.score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn one_refresh_a_minute() {
        let clock = ManualClock::new(0);
        let book = OrderBook::new(clock.clock(), None);
        assert!(book.refresh_is_due());
        clock.advance(59);
        assert!(!book.refresh_is_due());
        clock.advance(1);
        assert!(book.refresh_is_due());
    }
}
