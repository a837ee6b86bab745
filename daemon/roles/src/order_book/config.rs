//! What an order book is made of: limits, waiting times, how bonds are weighed.

use std::time::Duration;

use joinery_proto::nick::Nick;

/// Most offers kept of one maker (`spec/protocol.md` 13.2, the tighter of two numbers).
pub const MAX_OFFERS_PER_NICK: usize = 12;

/// How much is kept. Everything here is the attacker's to fill: nicks and offers cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBookLimits {
    /// Nicks known, with or without offers (`spec/protocol.md` 13.2: 20 000). Each directory and IRC server may
    /// introduce its share of them, so that one that makes nicks up cannot hide those of the others; and only half of its
    /// share may be nicks that offer nothing.
    pub nicks: usize,
    /// Offers of all makers (`spec/protocol.md` 13.2: 50 000), shared likewise.
    pub offers: usize,
    /// Chain lookups that are asked for at a time. Twice what the backend has under way (`spec/wallet.md` 13.7: 3), so
    /// that it never waits for the next question.
    pub lookups: usize,
    /// Chain lookups a second in the long run; makers are a few hundred.
    pub lookups_per_second: u32,
    /// Bond proofs whose signatures are checked a second in the long run (`spec/protocol.md` 13.2: 50). A whole
    /// market answers at once, so that many seconds' worth may come together.
    pub proofs_per_second: u32,
}

impl Default for OrderBookLimits {
    fn default() -> Self {
        Self {
            nicks: 20_000,
            offers: 50_000,
            lookups: 6,
            lookups_per_second: 20,
            proofs_per_second: 50,
        }
    }
}

/// Waiting times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBookTiming {
    /// A collection lasts at least this long (`spec/roles.md` 3.3).
    pub collect_min: Duration,
    /// It ends when nothing new came for this long.
    pub collect_quiet: Duration,
    /// It ends at the latest after this.
    pub collect_max: Duration,
    /// Offers are asked for again this often (`spec/roles.md` 7.1).
    pub refresh: Duration,
    /// What was not confirmed for this long is dropped; as long, a signed offer is safe from public lines.
    pub stale: Duration,
    /// Public lines that contradict signed offers make us ask again no more often than this.
    pub dispute: Duration,
    /// A chain lookup without answer is given up after this.
    pub lookup: Duration,
    /// A bond that was found is looked up again after this, or at the next block.
    pub bond_found: Duration,
    /// A bond that was not found, or that the server gave no answer about, is looked up again after this.
    pub bond_absent: Duration,
    /// A bond is looked up again this long after the chain could not be asked.
    pub bond_retry: Duration,
    /// A bond that was found and cannot be looked up again counts for this long.
    pub bond_trust: Duration,
    /// Directories are compared by what they showed at least this long ago: lines need time to arrive.
    pub settle: Duration,
    /// How long makers may take to come back to a directory before it is asked where they are: joinmarket-ng's try every
    /// 300 s, those of the reference after half as long again as they were away, and our copy of its peer list may be as
    /// old as [`Self::refresh`].
    pub grace: Duration,
}

impl Default for OrderBookTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            collect_min: seconds(30),
            collect_quiet: seconds(15),
            collect_max: seconds(120),
            refresh: seconds(600),
            stale: seconds(1_800),
            dispute: seconds(300),
            // A little more than the backend's own 10 s: its answer says more than our impatience.
            lookup: seconds(12),
            bond_found: seconds(3_600),
            bond_absent: seconds(600),
            bond_retry: seconds(30),
            bond_trust: seconds(6 * 3_600),
            settle: seconds(30),
            grace: seconds(900),
        }
    }
}

impl OrderBookTiming {
    /// For a private chain on one machine, where answers take no time.
    #[must_use]
    pub fn regtest() -> Self {
        let millis = Duration::from_millis;
        Self {
            collect_min: millis(500),
            collect_quiet: millis(500),
            collect_max: millis(4_000),
            dispute: millis(10_000),
            bond_absent: millis(5_000),
            bond_retry: millis(1_000),
            ..Self::default()
        }
    }
}

/// What an order book is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderBookConfig {
    /// Our nick of this run: bond proofs are made for it, and its own offers are not in the book.
    pub our_nick: Nick,
    /// Number of configured directories.
    pub directories: u16,
    /// Number of configured IRC servers; usually none.
    pub irc_servers: u16,
    /// How much is kept.
    pub limits: OrderBookLimits,
    /// Waiting times.
    pub timing: OrderBookTiming,
    /// `interest_rate` of `[POLICY]`, a year.
    pub interest_rate: f64,
    /// `bond_value_exponent` of `[POLICY]`.
    pub bond_exponent: f64,
}

impl OrderBookConfig {
    /// The defaults of the network.
    #[must_use]
    pub fn new(our_nick: Nick, directories: u16) -> Self {
        Self {
            our_nick,
            directories,
            irc_servers: 0,
            limits: OrderBookLimits::default(),
            timing: OrderBookTiming::default(),
            interest_rate: 0.015,
            bond_exponent: 1.3,
        }
    }
}
