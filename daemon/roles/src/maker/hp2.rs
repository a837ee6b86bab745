//! Used commitments: what is believed, published for others and published of our own (`spec/protocol.md` 9.6,
//! `spec/roles.md` 4.5).
//!
//! Our own are published a while after they were used ([`super::MakerTiming::publish`]), and at the latest when the
//! maker ends.
//!
//! What others publish and what is published for others has budgets of its own, so that no flood delays our
//! own publications (`hp2_priority_own_first`).

use std::collections::VecDeque;
use std::time::Duration;

use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::PrivateWord;
use joinery_proto::public_message;
use rand::seq::IndexedRandom;

use super::config::{MakerConfig, Publication};
use super::desk::{Bounded, Desk, Purpose};
use super::output::Output;
use crate::ask::Question;
use crate::budget::Budget;
use crate::event::Source;
use crate::order_book::Book;

/// Published commitments that are stored a minute, for each way on which they come.
const STORED_PER_MINUTE: f64 = 60.0;
/// Publications for others a minute.
const RELAYED_PER_MINUTE: f64 = 10.0;
/// Publications for others at once.
const RELAY_BURST: u32 = 3;
/// Used commitments that wait to be published; each has cost a taker a coin. The oldest is published early.
const MAX_WAITING: usize = 256;
/// Ways with a budget of their own.
const MAX_WAYS: usize = 256;
/// Seconds of a minute.
const MINUTE: f64 = 60.0;

/// Budgets of publications.
#[derive(Debug)]
pub(super) struct Commitments {
    stored: Bounded<Source, Budget>,
    relayed: Budget,
    /// Ours, and when each is to be published.
    waiting: VecDeque<Waiting>,
}

/// A used commitment that nobody was told of yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    due: Duration,
    commitment: Commitment,
    taker: Nick,
}

impl Commitments {
    pub(super) fn new() -> Self {
        let relayed = Budget::new(RELAYED_PER_MINUTE / MINUTE, RELAY_BURST);
        Self { stored: Bounded::new(MAX_WAYS), relayed, waiting: VecDeque::new() }
    }

    /// A taker's commitment is used up: it is to be published, but not yet.
    pub(super) fn used(
        &mut self,
        commitment: Commitment,
        taker: Nick,
        config: &MakerConfig,
        desk: &mut Desk,
    ) {
        let (least, most) = config.timing.publish;
        let wait = desk.uniform(least.as_secs_f64(), most.as_secs_f64());
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(most);
        let due = desk.now.saturating_add(wait);
        self.waiting.push_back(Waiting { due, commitment, taker });
    }

    /// Publishes what is due, and with `all` everything.
    pub(super) fn publish(
        &mut self,
        all: bool,
        config: &MakerConfig,
        book: &Book,
        desk: &mut Desk,
    ) {
        let mut early = self.waiting.len().saturating_sub(MAX_WAITING);
        for waiting in std::mem::take(&mut self.waiting) {
            if all || early > 0 || waiting.due <= desk.now {
                publish(waiting.commitment, &waiting.taker, config, book, desk);
                early = early.saturating_sub(1);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// When the next one is due.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.waiting.iter().map(|waiting| waiting.due).min()
    }

    /// Somebody published a commitment: it is used, unless we take no such words. A session that runs with it goes
    /// on.
    pub(super) fn seen(
        &mut self,
        commitment: Commitment,
        via: Source,
        config: &MakerConfig,
        blacklist: &mut CommitmentBlacklist,
        desk: &mut Desk,
    ) {
        if config.accept_commitments && self.may_store(via, desk.now) && blacklist.seen(commitment)
        {
            desk.ask(Purpose::Nothing, Question::RememberCommitment(commitment));
        }
    }

    fn may_store(&mut self, via: Source, now: Duration) -> bool {
        if self.stored.get(&via).is_none() {
            self.stored.insert(via, Budget::new(STORED_PER_MINUTE / MINUTE, 60));
        }
        self.stored.get_mut(&via).is_some_and(|budget| budget.take(now))
    }

    /// Another maker asks us to publish a commitment. It goes out under our own nick, as reference makers do it: it
    /// is not ours. It is used for us, too.
    pub(super) fn asked(
        &mut self,
        payload: &str,
        via: Source,
        config: &MakerConfig,
        blacklist: &mut CommitmentBlacklist,
        desk: &mut Desk,
    ) {
        let text = payload.split(' ').next().unwrap_or_default();
        let Ok(commitment) = Commitment::from_hex(text) else { return };
        self.seen(commitment, via, config, blacklist, desk);
        if config.accept_commitments && self.relayed.take(desk.now) {
            let text = public_message::publish_commitment(&commitment);
            desk.out(Output::Announce { text, on: None });
        }
    }

    /// A taker came with a used commitment: one more maker hears of it, as far as the budget for others allows.
    pub(super) fn reused(
        &mut self,
        commitment: Commitment,
        taker: &Nick,
        config: &MakerConfig,
        book: &Book,
        desk: &mut Desk,
    ) {
        if self.relayed.take(desk.now) {
            relay(commitment, &[*taker], config, book, desk);
        }
    }
}

/// Publishes a commitment that we have used up.
fn publish(
    commitment: Commitment,
    taker: &Nick,
    config: &MakerConfig,
    book: &Book,
    desk: &mut Desk,
) {
    match config.publication {
        Publication::Throwaway => desk.out(Output::PublishCommitment(commitment)),
        Publication::Relay => relay(commitment, &[*taker], config, book, desk),
    }
}

/// Asks one random maker, none of `except`, to publish a commitment; nobody when none is known.
pub(super) fn relay(
    commitment: Commitment,
    except: &[Nick],
    config: &MakerConfig,
    book: &Book,
    desk: &mut Desk,
) {
    let mut makers: Vec<Nick> = book.offers.iter().map(|offer| offer.nick).collect();
    makers.dedup();
    makers.retain(|nick| !except.contains(nick) && !config.is_ours(nick));
    if let Some(maker) = makers.choose(&mut desk.rng).copied() {
        desk.send(maker, PrivateWord::Hp2, commitment.to_string(), None);
    }
}
