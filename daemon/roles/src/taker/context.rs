//! What all phases of a request share, and what outlives an attempt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;
use joinery_wallet::round::{RoundEvent, RoundId, RoundSums};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::outcome::{MakerFailure, Outcome, Verdict};
use super::output::Output;
use super::preflight::commitment_coin;
use super::request::TakerSetup;
use crate::ask::{Question, QuestionId, WalletCoin, WalletView};
use crate::event::Source;
use crate::order_book::Book;
use crate::podle_source::CommitmentCoin;

/// Which of our two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnAddress {
    Destination,
    Change,
}

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    FeeRate,
    Begin,
    Reserve,
    Keys,
    Commit,
    Address(OwnAddress),
    LookUp(Nick),
    Show,
    Recheck,
    Broadcast,
    End,
    /// Nobody waits for it.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Context {
    pub(super) setup: TakerSetup,
    /// Latest time that we were told.
    pub(super) now: Duration,
    started: Duration,
    pub(super) rng: StdRng,
    pub(super) wallet: Arc<WalletView>,
    pub(super) book: Arc<Book>,
    /// When the book came.
    book_at: Duration,
    /// A book whose collection ended then is not good enough any more.
    book_used_up: Option<Duration>,
    /// Ways of the channel that are up.
    pub(super) ways: BTreeSet<Source>,
    /// When the first of them came up.
    pub(super) first_up: Option<Duration>,
    pub(super) outputs: VecDeque<Output>,
    next_question: u64,
    /// Open questions with the attempt that they belong to.
    pending: BTreeMap<QuestionId, (u8, Purpose)>,
    /// Which attempt, from 1.
    pub(super) attempt: u8,
    /// A person asked it to stop.
    pub(super) stopping: bool,
    /// Makers that failed in this request: never asked again.
    pub(super) failed: BTreeMap<Nick, MakerFailure>,
    /// Makers that did all that was asked of them in the last attempt: taken first.
    pub(super) honest: BTreeSet<Nick>,
    pub(super) rounds: Vec<RoundId>,
    /// Coins that the attempt holds.
    pub(super) held: BTreeSet<OutPoint>,
    /// Coins that an earlier attempt held; the wallet's view may be older than that it let go of them.
    pub(super) released: BTreeSet<OutPoint>,
    /// Coins that could not be held although they looked free.
    pub(super) taken: BTreeSet<OutPoint>,
    /// Commitments of this request, which the wallet's view may not show yet.
    committed: BTreeMap<OutPoint, BTreeSet<u8>>,
    /// Fresh addresses that nobody was shown.
    pub(super) destination: Option<ScriptBuf>,
    pub(super) change: Option<ScriptBuf>,
    /// What the inputs were short of in an earlier attempt, satoshi.
    pub(super) short: u64,
    /// What the last shown transaction comes to.
    pub(super) sums: Option<RoundSums>,
    /// What we signed.
    pub(super) signed: Option<(Txid, Transaction)>,
    pub(super) last: Option<Verdict>,
}

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
            book_used_up: None,
            ways: BTreeSet::new(),
            first_up: None,
            outputs: VecDeque::new(),
            next_question: 0,
            pending: BTreeMap::new(),
            attempt: 1,
            stopping: false,
            failed: BTreeMap::new(),
            honest: BTreeSet::new(),
            rounds: Vec::new(),
            held: BTreeSet::new(),
            released: BTreeSet::new(),
            taken: BTreeSet::new(),
            committed: BTreeMap::new(),
            destination: None,
            change: None,
            short: 0,
            sums: None,
            signed: None,
            last: None,
        }
    }

    pub(super) fn ask(&mut self, purpose: Purpose, question: Question) {
        let id = QuestionId(self.next_question);
        self.next_question = self.next_question.saturating_add(1);
        self.pending.insert(id, (self.attempt, purpose));
        self.outputs.push_back(Output::Ask(id, question));
    }

    /// What an answer is for, and whether the attempt that asked still runs.
    pub(super) fn take(&mut self, id: QuestionId) -> Option<(bool, Purpose)> {
        let (attempt, purpose) = self.pending.remove(&id)?;
        Some((attempt == self.attempt, purpose))
    }

    /// Asks for an event to be made durable.
    pub(super) fn record(&mut self, purpose: Purpose, round: RoundId, event: RoundEvent) {
        self.ask(purpose, Question::Record { round, event: Box::new(event) });
    }

    pub(super) fn send(
        &mut self,
        to: Nick,
        word: PrivateWord,
        payload: String,
        prefer: Option<Source>,
    ) {
        self.outputs.push_back(Output::Send { to, word, payload, prefer });
    }

    /// Seconds since epoch.
    pub(super) fn time(&self) -> u64 {
        self.setup.epoch.saturating_add(self.now.saturating_sub(self.started).as_secs())
    }

    /// The time of proto's conversations.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn after(&self, wait: Duration) -> Duration {
        self.now.saturating_add(wait)
    }

    pub(super) fn nonce<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill(bytes.as_mut_slice());
        bytes
    }

    pub(super) fn new_book(&mut self, book: Arc<Book>) {
        (self.book, self.book_at) = (book, self.now);
    }

    /// Whether makers can be spoken to: something is up, and IRC servers are or had time to come up.
    pub(super) fn is_connected(&self) -> bool {
        let irc = self.ways.iter().filter(|way| matches!(way, Source::Irc(_))).count();
        let awaited = usize::from(self.setup.policy.irc_servers);
        !self.ways.is_empty() && (irc >= awaited || self.now >= self.irc_due())
    }

    /// When IRC servers are not waited for any more.
    pub(super) fn irc_due(&self) -> Duration {
        self.first_up.unwrap_or(self.now).saturating_add(self.setup.policy.irc_timeout)
    }

    /// Whether the book was complete recently enough.
    pub(super) fn book_is_fresh(&self) -> bool {
        let passed = self.now.saturating_sub(self.book_at);
        self.book.completed.is_some_and(|completed| {
            let age = self.book.made.saturating_sub(completed).saturating_add(passed);
            age <= self.setup.policy.book_age && self.book_used_up != Some(completed)
        })
    }

    /// Asks for the offers anew: those that are there did not suffice, or are too old.
    pub(super) fn refresh_book(&mut self) {
        self.book_used_up = self.book.completed;
        self.outputs.push_back(Output::RefreshBook);
    }

    /// Nicks that are never asked: our own and those that failed in this request.
    pub(super) fn excluded(&self) -> BTreeSet<Nick> {
        let own = self.setup.own_nicks.iter().chain([&self.setup.nick]);
        own.chain(self.failed.keys()).copied().collect()
    }

    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&WalletCoin> {
        self.wallet.coins.iter().find(|coin| coin.outpoint == *outpoint)
    }

    /// Whether a coin may be used by us: it is free, or we hold it or held it.
    pub(super) fn may_use(&self, coin: &WalletCoin) -> bool {
        let outpoint = &coin.outpoint;
        let ours = self.held.contains(outpoint) || self.released.contains(outpoint);
        let plain = !coin.frozen && coin.locktime.is_none();
        (coin.free || (ours && plain)) && !self.taken.contains(outpoint)
    }

    /// A coin as a commitment sees it, with the commitments of this request.
    pub(super) fn commitment_coin(&self, coin: &WalletCoin) -> CommitmentCoin {
        let mut seen = commitment_coin(coin);
        seen.used.extend(self.committed.get(&coin.outpoint).into_iter().flatten());
        seen
    }

    /// This commitment is used up.
    pub(super) fn commit(&mut self, outpoint: OutPoint, index: u8) {
        self.committed.entry(outpoint).or_default().insert(index);
    }

    pub(super) fn outcome(&self, verdict: Verdict) -> Outcome {
        let shown = verdict.reason == super::Reason::Complete;
        let signed = self.signed.as_ref();
        Outcome {
            txid: signed.map(|(txid, _)| *txid),
            transaction: signed.filter(|_| !shown).map(|(_, tx)| Box::new(tx.clone())),
            verdict,
            sums: self.sums.clone(),
            rounds: self.rounds.clone(),
            attempts: self.attempt,
            failed: self.failed.clone(),
            honest: self.honest.iter().copied().collect(),
        }
    }
}
