//! The order book: what makers offer, how far each word is to be believed, and what their bonds are worth
//! (`spec/roles.md` 2, 6, 7; `spec/protocol.md` 4.8, 10.3, 15; vectors `order_choice.json`, `bond_value.json`).
//!
//! [`OrderBook`] opens no sockets and reads no clock. It is told what the channel heard
//! ([`OrderBook::event`]), what the chain is ([`OrderBook::tip`]) and said ([`OrderBook::bond_answer`]); it says
//! whom to ask for offers and which bonded coins to look up ([`OrderBook::poll`]), and gives readers an immutable
//! [`Book`].
//!
//! # Rules for drivers
//!
//! * `now` is a steady clock, the same in every call.
//! * After every input: take outputs until `poll` returns `None`, then sleep until [`OrderBook::next_wake`] or the
//!   next input, and call [`OrderBook::tick`] then.
//! * [`Output::VerifyBond`] is answered with one [`OrderBook::bond_answer`]; a late answer does no harm.
//!
//! Everything that strangers fill is bounded ([`OrderBookLimits`]), with a share of its own for each directory.

mod bonds;
mod book;
mod config;
mod gathering;
mod health;
mod makers;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::BlockHash;
use joinery_proto::bond_proof::{BondProof, PROOF_TEXT};
use joinery_proto::message::OfferMessage;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::{PrivateWord, UnverifiedMessage};
use joinery_proto::public_message::{self, PublicCommand};

use crate::budget::Budget;
use crate::event::{ChannelEvent, Source};
use bonds::{BondClaim, Lookups};
use gathering::Gathering;
use health::Health;
use makers::{Change, Makers, group};

pub use bonds::{BondAnswer, BondedCoin, BookTip};
pub use book::{Book, BookBond, BookOffer};
pub use config::{MAX_OFFERS_PER_NICK, OrderBookConfig, OrderBookLimits, OrderBookTiming};
pub use gathering::BookPhase;
pub use health::DirectoryHealth;

/// Seconds' worth of proofs whose signatures may be checked at once.
const PROOF_BURST: u32 = 20;
/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// Pause before budgets are looked at again.
const BUDGET_PAUSE: Duration = Duration::from_millis(500);

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send a public `!orderbook` on this way.
    AskOffers(Source),
    /// Look up this coin: is it unspent, confirmed, and does it pay [`BondedCoin::script_pubkey`]?
    VerifyBond(BondedCoin),
}

/// A proof whose signatures wait to be checked.
#[derive(Debug)]
struct Unchecked {
    nick: Nick,
    via: Source,
    proof: String,
}

/// The order book of one nick of ours.
#[derive(Debug)]
pub struct OrderBook {
    config: OrderBookConfig,
    makers: Makers,
    lookups: Lookups,
    gathering: Gathering,
    health: Health,
    tip: Option<BookTip>,
    proofs: Budget,
    unchecked: VecDeque<Unchecked>,
    order: u64,
    outputs: VecDeque<Output>,
    sweep: Duration,
    /// Budgets are looked at again then.
    retry: Option<Duration>,
    /// A bond is to be looked up again then.
    due: Option<Duration>,
    dirty: bool,
    latest: Arc<Book>,
}

impl OrderBook {
    /// An empty book.
    #[must_use]
    pub fn new(config: OrderBookConfig, now: Duration) -> Self {
        let (timing, limits) = (config.timing, config.limits);
        let burst = limits.proofs_per_second.saturating_mul(PROOF_BURST);
        Self {
            makers: Makers::new(&config),
            lookups: Lookups::new(&limits, timing),
            gathering: Gathering::new(timing),
            health: Health::new(config.directories, timing, now),
            tip: None,
            proofs: Budget::new(f64::from(limits.proofs_per_second), burst),
            unchecked: VecDeque::new(),
            order: 0,
            outputs: VecDeque::new(),
            sweep: now.saturating_add(SWEEP),
            retry: None,
            due: None,
            dirty: true,
            latest: Arc::new(Book::empty()),
            config,
        }
    }

    /// The channel has news.
    pub fn event(&mut self, event: &ChannelEvent, now: Duration) {
        let change = match event {
            ChannelEvent::Up(via) => {
                self.health.up(*via, now);
                self.gathering.up(*via, now);
                Change { visible: true, ..Change::default() }
            }
            ChannelEvent::Down(via) => {
                self.health.down(*via, now);
                self.gathering.down(*via);
                self.makers.down(*via);
                Change { visible: true, ..Change::default() }
            }
            ChannelEvent::Public { from, via, text } => {
                self.health.public_line(*via);
                self.public(*from, *via, text, now)
            }
            ChannelEvent::Private { from, via, text } => {
                self.health.private_message(*via);
                self.private(*from, *via, text, now)
            }
            ChannelEvent::Seen { nick, via } => self.makers.seen(*nick, *via, now),
            ChannelEvent::Left { nick, via } => self.makers.left(nick, *via, now),
            // Both matter for the comparison of directories alone, which time changes anyway.
            ChannelEvent::Lists(id) => {
                self.health.lists(*id);
                Change::default()
            }
            ChannelEvent::Serves { nick } => {
                self.makers.serves(nick);
                Change::default()
            }
        };
        self.dirty |= change.visible;
        if change.new {
            self.gathering.news(now);
        }
        if change.disputed {
            self.gathering.dispute(now);
        }
        self.work(now);
    }

    fn public(&mut self, from: Nick, via: Source, text: &str, now: Duration) -> Change {
        let mut change = Change::default();
        for command in public_message::parse(text) {
            change |= match command {
                PublicCommand::Offer(offer) => self.makers.public_offer(from, via, offer, now),
                PublicCommand::BadOffer(id) | PublicCommand::Cancel(id) => {
                    self.makers.public_cancel(&from, via, id, now)
                }
                PublicCommand::Orderbook | PublicCommand::CommitmentSeen(_) => Change::default(),
            };
        }
        change
    }

    /// The channel has verified the signature; what else the message says is for others.
    fn private(&mut self, from: Nick, via: Source, text: &str, now: Duration) -> Change {
        let mut change = Change::default();
        let Ok(message) = UnverifiedMessage::parse(text) else { return change };
        let PrivateWord::Offer(order_type) = message.word else { return change };
        let message = OfferMessage::parse(order_type, message.payload);
        for id in message.bad {
            change |= self.makers.signed_cancel(&from, id);
        }
        for offer in message.offers {
            change |= self.makers.signed_offer(from, via, offer, now);
        }
        if let Some(proof) = message.bond {
            self.claim(from, via, proof);
        }
        change
    }

    /// A maker showed a bond. Only the length is looked at here (`spec/roles.md` 2).
    fn claim(&mut self, nick: Nick, via: Source, proof: String) {
        let bounded = self.unchecked.len() < self.config.limits.nicks;
        let Some(maker) = self.makers.get_mut(&nick) else { return };
        if proof.len() != PROOF_TEXT || !bounded || maker.checked == Some(digest(&proof)) {
            return;
        }
        self.unchecked.push_back(Unchecked { nick, via, proof });
    }

    /// Checks the signatures of as many proofs as the budget allows.
    fn check_proofs(&mut self, now: Duration) {
        while !self.unchecked.is_empty() && self.proofs.take(now) {
            let Some(Unchecked { nick, via, proof }) = self.unchecked.pop_front() else { return };
            let Some(maker) = self.makers.get_mut(&nick) else { continue };
            maker.checked = Some(digest(&proof));
            // A private message names no recipient in what its maker signed, so a directory can send us the
            // answer to somebody else, with a proof for them. It must not cost the maker its bond with us.
            let Ok(proof) = BondProof::verify(&proof, &nick, &self.config.our_nick) else {
                continue;
            };
            let same = |claim: &BondClaim| claim.proof.outpoint == proof.outpoint;
            let order = match maker.bond.as_ref().filter(|claim| same(claim)) {
                Some(claim) => claim.order,
                None => {
                    self.order = self.order.saturating_add(1);
                    self.order
                }
            };
            let claim = BondClaim { proof, order };
            let coin = claim.coin();
            maker.bond = Some(claim);
            self.lookups.want(coin, group(via), self.tip.map(|tip| tip.hash), now);
            self.dirty = true;
        }
    }

    /// There is a new best block.
    pub fn tip(&mut self, tip: BookTip, now: Duration) {
        if self.tip == Some(tip) {
            return;
        }
        self.tip = Some(tip);
        self.dirty = true;
        self.recheck(now);
        self.work(now);
    }

    /// Looks again for bonds whose last answer is too old.
    fn recheck(&mut self, now: Duration) {
        let tip = self.tip_hash();
        self.due = None;
        for (_, maker) in self.makers.iter() {
            let Some(claim) = &maker.bond else { continue };
            let turn = maker.places.first().and_then(|place| group(place.via));
            let coin = claim.coin();
            self.lookups.want(coin, turn, tip, now);
            self.due = earliest(self.due, self.lookups.due(&coin));
        }
    }

    /// The chain's answer to [`Output::VerifyBond`].
    pub fn bond_answer(&mut self, coin: &BondedCoin, answer: BondAnswer, now: Duration) {
        let tip = self.tip_hash();
        self.dirty |= self.lookups.answered(coin, answer, tip, now);
        self.due = earliest(self.due, self.lookups.due(coin));
        self.work(now);
    }

    /// Somebody wants the book to be asked for again. Nothing known is forgotten.
    pub fn refresh(&mut self, now: Duration) {
        self.gathering.refresh(now);
        self.work(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        if now >= self.sweep {
            self.sweep = now.saturating_add(SWEEP);
            self.dirty |= self.makers.age(now).visible;
            let makers = &self.makers;
            let claims = makers.iter().filter_map(|(_, maker)| maker.bond.as_ref());
            let claimed: HashSet<BondedCoin> = claims.map(BondClaim::coin).collect();
            self.lookups.keep(&claimed, now);
            // The comparison of directories changes by time alone.
            self.dirty = true;
        }
        self.lookups.expire(self.tip_hash(), now);
        self.recheck(now);
        self.work(now);
    }

    /// Does what is due and allowed.
    fn work(&mut self, now: Duration) {
        self.check_proofs(now);
        let before = self.gathering.phase();
        let asks = self.gathering.asks(now);
        self.outputs.extend(asks.into_iter().map(Output::AskOffers));
        let ended = self.gathering.end(now);
        self.dirty |= ended || before != self.gathering.phase();
        // Before the first block is known the chain cannot be asked.
        let chain = self.tip.is_some();
        while let Some(coin) = chain.then(|| self.lookups.start(now)).flatten() {
            self.outputs.push_back(Output::VerifyBond(coin));
        }
        let waits = self.gathering.owes()
            || !self.unchecked.is_empty()
            || (chain && self.lookups.waits_for_budget());
        self.retry = waits.then(|| now.saturating_add(BUDGET_PAUSE));
    }

    /// When [`OrderBook::tick`] is to be called at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Duration {
        let times = [self.gathering.next_wake(), self.lookups.next_wake(), self.retry, self.due];
        times.into_iter().flatten().fold(self.sweep, Duration::min)
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The book as it is now. Cheap when nothing changed: the same one again.
    pub fn book(&mut self, now: Duration) -> Arc<Book> {
        if self.dirty {
            self.dirty = false;
            let bonds = book::bonds(&self.makers, &self.lookups, self.tip, &self.config);
            self.latest = Arc::new(Book {
                made: now,
                phase: self.gathering.phase(),
                completed: self.gathering.completed,
                tip: self.tip,
                offers: book::offers(&self.makers, &bonds, &self.config, now),
                bonds,
                bonds_pending: self.lookups.pending().saturating_add(self.unchecked.len()),
                directories: self.health.report(&self.makers, now),
            });
        }
        Arc::clone(&self.latest)
    }

    /// Whether [`OrderBook::book`] has something new.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        self.dirty
    }

    /// Nicks, offers, bonded coins and unchecked proofs that are held: for tests of the bounds and for metrics.
    #[must_use]
    pub fn held(&self) -> [usize; 4] {
        let (nicks, offers) = (self.makers.nick_count(), self.makers.offer_count());
        [nicks, offers, self.lookups.len(), self.unchecked.len()]
    }

    fn tip_hash(&self) -> Option<BlockHash> {
        self.tip.map(|tip| tip.hash)
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// Tells texts apart, for equality only.
fn digest(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}
