//! The order book as readers see it: immutable, shared.

use std::collections::HashMap;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf};
use joinery_proto::bond_proof::CERT_PERIOD;
use joinery_proto::fidelity_bond::{BondTerms, bond_value};
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;

use super::bonds::{BondedCoin, BookTip, Lookups};
use super::config::OrderBookConfig;
use super::gathering::BookPhase;
use super::health::DirectoryHealth;
use super::makers::Makers;
use crate::event::{DirectoryId, Source};

/// An offer in the book.
#[derive(Debug, Clone, PartialEq)]
pub struct BookOffer {
    /// Who offers.
    pub nick: Nick,
    /// What.
    pub offer: Offer,
    /// Its maker signed it within the last half hour. Offers that nobody signed are a last resort.
    pub signed: bool,
    /// A public line contradicts it: ask again before it is used.
    pub disputed: bool,
    /// When it was last heard, on the clock of the book.
    pub heard: Duration,
    /// Directories on which the maker is, ascending.
    pub directories: Vec<DirectoryId>,
    /// Whether there is a direct connection to the maker.
    pub direct: bool,
    /// Weight of the maker's bond, satoshi to the power of the exponent; 0 without a verified one.
    pub bond_value: f64,
}

/// A verified bond in the book: one nick per coin.
#[derive(Debug, Clone, PartialEq)]
pub struct BookBond {
    /// Whose it is.
    pub nick: Nick,
    /// The coin.
    pub outpoint: OutPoint,
    /// Weight, satoshi to the power of the exponent.
    pub value: f64,
    /// Lock time, seconds since epoch.
    pub locktime: u32,
    /// Value of the coin.
    pub amount: Amount,
    /// Script that the coin pays, 34 bytes.
    pub script: ScriptBuf,
    /// 1 and more.
    pub confirmations: u32,
    /// Header time of its block, seconds since epoch.
    pub confirmation_time: u32,
    /// Key of the coin.
    pub key: PublicKey,
    /// Number of the 2016-block period at whose start the maker's certificate expires.
    pub cert_expiry: u16,
}

impl BookBond {
    /// Last height at which the certificate is valid.
    #[must_use]
    pub fn expires_after(&self) -> u32 {
        u32::from(self.cert_expiry).saturating_mul(CERT_PERIOD)
    }
}

/// Everything that was heard, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Book {
    /// When it was made, on the clock of the book.
    pub made: Duration,
    /// How far it is.
    pub phase: BookPhase,
    /// When a collection last ended, on the clock of the book.
    pub completed: Option<Duration>,
    /// The best block that bonds were judged by.
    pub tip: Option<BookTip>,
    /// Offers by nick and id.
    pub offers: Vec<BookOffer>,
    /// Verified bonds by nick.
    pub bonds: Vec<BookBond>,
    /// Bonds whose coins are still being looked up.
    pub bonds_pending: usize,
    /// Every configured directory, in order.
    pub directories: Vec<DirectoryHealth>,
}

impl Book {
    /// A book before anything was heard.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            made: Duration::ZERO,
            phase: BookPhase::Connecting,
            completed: None,
            tip: None,
            offers: Vec::new(),
            bonds: Vec::new(),
            bonds_pending: 0,
            directories: Vec::new(),
        }
    }
}

/// Verified bonds: certificate still valid, coin confirmed, and of several nicks with one coin the first.
pub(super) fn bonds(
    makers: &Makers,
    lookups: &Lookups,
    tip: Option<BookTip>,
    config: &OrderBookConfig,
) -> Vec<BookBond> {
    // Without a chain there is no time and no height to judge by.
    let Some(tip) = tip else { return Vec::new() };
    let mut first: HashMap<OutPoint, (u64, BookBond)> = HashMap::new();
    for (nick, maker) in makers.iter() {
        let Some(claim) = &maker.bond else { continue };
        if maker.offers.is_empty() || claim.proof.check_expiry(tip.height).is_err() {
            continue;
        }
        let coin = BondedCoin::from(&claim.proof);
        let Some(found) = lookups.found(&coin) else { continue };
        let earlier = first.get(&coin.outpoint).is_some_and(|(order, _)| *order < claim.order);
        if earlier {
            continue;
        }
        let terms = BondTerms {
            amount: found.amount,
            confirmation_time: found.time.into(),
            locktime: coin.locktime.into(),
        };
        let value =
            bond_value(&terms, tip.median_time.into(), config.interest_rate, config.bond_exponent);
        let bond = BookBond {
            nick: *nick,
            outpoint: coin.outpoint,
            value,
            locktime: coin.locktime,
            amount: found.amount,
            script: coin.script_pubkey(),
            // A block that the tip does not know of yet counts as the first.
            confirmations: tip.height.saturating_sub(found.height).saturating_add(1),
            confirmation_time: found.time,
            key: coin.key,
            cert_expiry: claim.proof.cert_expiry,
        };
        first.insert(coin.outpoint, (claim.order, bond));
    }
    let mut bonds: Vec<_> = first.into_values().map(|(_, bond)| bond).collect();
    bonds.sort_unstable_by_key(|bond| bond.nick);
    bonds
}

/// Offers with the weight of their makers' bonds.
pub(super) fn offers(
    makers: &Makers,
    bonds: &[BookBond],
    config: &OrderBookConfig,
    now: Duration,
) -> Vec<BookOffer> {
    let mut offers = Vec::with_capacity(makers.offer_count());
    for (nick, maker) in makers.iter() {
        let value = bonds
            .binary_search_by_key(nick, |bond| bond.nick)
            .ok()
            .and_then(|index| bonds.get(index))
            .map_or(0.0, |bond| bond.value);
        let mut directories: Vec<DirectoryId> = maker
            .places
            .iter()
            .filter_map(|place| match place.via {
                Source::Directory(id) => Some(id),
                Source::Direct(_) | Source::Irc(_) => None,
            })
            .collect();
        directories.sort_unstable();
        for listed in maker.offers.values() {
            offers.push(BookOffer {
                nick: *nick,
                offer: listed.offer,
                signed: listed.is_signed(now, config.timing.stale),
                disputed: listed.disputed,
                heard: listed.heard(),
                directories: directories.clone(),
                direct: maker.places.iter().any(|place| matches!(place.via, Source::Direct(_))),
                bond_value: value,
            });
        }
    }
    offers.sort_unstable_by_key(|entry| (entry.nick, entry.offer.id));
    offers
}
