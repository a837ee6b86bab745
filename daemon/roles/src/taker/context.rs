//! What all phases of a request share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_wallet::round::RoundId;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::outcome::{MakerFailure, Outcome, Verdict};
use super::output::Output;
use super::request::TakerSetup;
use crate::ask::{Question, QuestionId, WalletView};
use crate::event::Source;
use crate::order_book::Book;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {}

#[derive(Debug)]
#[expect(dead_code, reason = "the phases after the order book come with the next commits")]
pub(super) struct Context {
    pub(super) setup: TakerSetup,
    pub(super) now: Duration,
    started: Duration,
    pub(super) rng: StdRng,
    pub(super) wallet: Arc<WalletView>,
    pub(super) book: Arc<Book>,
    /// When the book came.
    pub(super) book_at: Duration,
    /// Ways of the channel that are up.
    pub(super) ways: BTreeSet<Source>,
    pub(super) outputs: VecDeque<Output>,
    next_question: u64,
    pub(super) pending: BTreeMap<QuestionId, Purpose>,
    pub(super) failed: BTreeMap<Nick, MakerFailure>,
    pub(super) rounds: Vec<RoundId>,
    pub(super) attempt: u8,
}

#[expect(dead_code, reason = "the phases after the order book come with the next commits")]
impl Context {
    pub(super) fn new(
        setup: TakerSetup,
        wallet: Arc<WalletView>,
        book: Arc<Book>,
        seed: [u8; 32],
        now: Duration,
    ) -> Self {
        Self {
            setup,
            now,
            started: now,
            rng: StdRng::from_seed(seed),
            wallet,
            book,
            book_at: now,
            ways: BTreeSet::new(),
            outputs: VecDeque::new(),
            next_question: 0,
            pending: BTreeMap::new(),
            failed: BTreeMap::new(),
            rounds: Vec::new(),
            attempt: 1,
        }
    }

    pub(super) fn ask(&mut self, purpose: Purpose, question: Question) {
        let id = QuestionId(self.next_question);
        self.next_question = self.next_question.saturating_add(1);
        self.pending.insert(id, purpose);
        self.outputs.push_back(Output::Ask(id, question));
    }

    /// Seconds since epoch.
    pub(super) fn time(&self) -> u64 {
        self.setup.epoch.saturating_add(self.now.saturating_sub(self.started).as_secs())
    }

    /// Whether the book was complete recently enough.
    pub(super) fn book_is_fresh(&self) -> bool {
        let passed = self.now.saturating_sub(self.book_at);
        self.book.completed.is_some_and(|completed| {
            let age = self.book.made.saturating_sub(completed).saturating_add(passed);
            age <= self.setup.policy.book_age
        })
    }

    pub(super) fn outcome(&self, verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            txid: None,
            transaction: None,
            sums: None,
            rounds: self.rounds.clone(),
            attempts: self.attempt,
            failed: self.failed.clone(),
            honest: Vec::new(),
        }
    }
}
