//! The taker: one coinjoin that we start and pay for, from the order book to the broadcast (`spec/roles.md` 3).
//!
//! [`Taker`] is a machine without I/O. It hears the message channel ([`Taker::heard`]), gets answers from wallet and
//! chain ([`Taker::answered`]), newer views of both ([`Taker::wallet`], [`Taker::followed`]) and of the market
//! ([`Taker::book`]), and says what is to be done ([`Taker::poll`]).
//!
//! # Rules for drivers
//!
//! * `now` is a steady clock, the same in every call.
//! * After every input: take outputs until `poll` returns `None`, then sleep until [`Taker::next_wake`] or the next
//!   input, and call [`Taker::tick`] then.
//! * Every [`Output::Ask`] is answered once, at any time. The last output is [`Output::Finished`]; it comes in bounded
//!   time whatever others do, as long as `tick` is called.
//! * Before a request is taken, [`preflight`] says at once whether it can work.
//!
//! # Order of events
//!
//! Nothing leaves before its fact is durable. Coins are reserved before the first `!fill`, the commitment is recorded
//! before it, addresses are issued before they are shown, the transaction is recorded before it is shown and again,
//! complete, before it is sent. Our signatures are made last, after the whole transaction was looked at once more by code
//! that knows what was agreed and not how it was built.

mod attempt;
mod authorising;
mod broadcast;
mod commitment;
mod context;
mod filling;
mod guard;
mod outcome;
mod output;
mod plan;
mod preflight;
mod progress;
mod request;
mod signing;
mod slot;

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::Txid;
use joinery_wallet::round::{Round, RoundEnd, RoundId};

use crate::ask::{Answer, Question, QuestionId, WalletView};
use crate::event::ChannelEvent;
use crate::order_book::{Book, BookPhase};
use attempt::{Attempt, Flow, Step, WALLET_TIMEOUT};
use context::{Context, Purpose};

pub use outcome::{MakerFailure, Outcome, Reason, Verdict};
pub use output::Output;
pub use preflight::{MAX_COUNTERPARTIES, MAX_OWN_INPUTS, Preflight, preflight};
pub use progress::{FeeProgress, MakerProgress, MakerStep, Phase, Progress};
pub use request::{BroadcastPolicy, Destination, TakerPolicy, TakerRequest, TakerSetup};

/// Pause before a new attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause before a new attempt when something of ours could not be reached.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// Where a request is.
#[derive(Debug)]
enum State {
    Connecting {
        until: Duration,
    },
    Collecting {
        until: Duration,
    },
    Working(Box<Attempt>),
    /// The journal is told how an attempt ended.
    Ending {
        verdict: Verdict,
        retry: bool,
        until: Duration,
    },
    Pausing {
        until: Duration,
    },
    Over,
}

/// One coinjoin of ours.
#[derive(Debug)]
pub struct Taker {
    ctx: Context,
    state: State,
    shown: Option<Progress>,
}

impl Taker {
    /// Begins. `seed` is of a cryptographic generator: keys come out of it.
    #[must_use]
    pub fn new(
        setup: TakerSetup,
        wallet: Arc<WalletView>,
        book: Arc<Book>,
        seed: [u8; 32],
        now: Duration,
    ) -> Self {
        let until = now.saturating_add(setup.policy.connect_timeout);
        let ctx = Context::new(setup, wallet, book, seed, now);
        let mut taker = Self { ctx, state: State::Connecting { until }, shown: None };
        let setup = &taker.ctx.setup;
        if let Err(verdict) = preflight(&setup.request, &setup.policy, &taker.ctx.wallet, None) {
            taker.finish(verdict);
        }
        taker.work();
        taker
    }

    /// The channel has news.
    pub fn heard(&mut self, event: &ChannelEvent, now: Duration) {
        self.enter(now);
        match event {
            ChannelEvent::Up(via) => {
                self.ctx.ways.insert(*via);
                self.ctx.first_up.get_or_insert(self.ctx.now);
            }
            ChannelEvent::Down(via) => {
                self.ctx.ways.remove(via);
            }
            ChannelEvent::Private { from, via, text } => {
                // A message that comes after a deadline is late, whoever hears of which first.
                self.attempt(|attempt, ctx| attempt.tick(ctx));
                self.attempt(|attempt, ctx| attempt.heard(from, *via, text, ctx));
            }
            // What strangers say in public is for the order book. A published commitment, even ours, is not a reuse:
            // makers publish it as soon as they have answered (`spec/protocol.md` 7.3).
            ChannelEvent::Public { .. }
            | ChannelEvent::Seen { .. }
            | ChannelEvent::Left { .. }
            | ChannelEvent::Lists(_)
            | ChannelEvent::Serves { .. } => {}
        }
        self.work();
    }

    /// The answer to [`Output::Ask`].
    pub fn answered(&mut self, question: QuestionId, answer: Answer, now: Duration) {
        self.enter(now);
        let Some((current, purpose)) = self.ctx.take(question) else { return };
        if let Purpose::Address(which) = purpose {
            self.ctx.keep_address(which, &answer);
        }
        match (&self.state, purpose, &answer) {
            (State::Working(_), _, _) if current => {
                self.attempt(|attempt, ctx| attempt.answered(purpose, answer, ctx));
            }
            // It was to end before it had begun.
            (State::Over, ..) => {}
            (_, Purpose::Begin, Answer::Begun(Ok(round))) => {
                let round = *round;
                self.ctx.rounds.push(round);
                let waits = current && matches!(self.state, State::Ending { .. });
                self.end_round(round, if waits { Purpose::End } else { Purpose::Nothing });
            }
            (State::Ending { .. }, Purpose::Begin | Purpose::End, _) if current => self.conclude(),
            _ => {}
        }
        self.work();
    }

    /// The wallet changed.
    pub fn wallet(&mut self, view: Arc<WalletView>, now: Duration) {
        self.enter(now);
        self.ctx.wallet = view;
        self.attempt(|attempt, ctx| attempt.look_in_wallet(ctx));
        self.work();
    }

    /// A round of ours changed in the journal: a transaction was seen, confirmed or given up.
    pub fn followed(&mut self, round: &Round, now: Duration) {
        self.enter(now);
        self.attempt(|attempt, ctx| attempt.followed(round, ctx));
        self.work();
    }

    /// A transaction was seen in the mempool or in a block.
    pub fn seen(&mut self, txid: Txid, now: Duration) {
        self.enter(now);
        self.attempt(|attempt, ctx| attempt.seen(txid, ctx));
        self.work();
    }

    /// There is a newer order book.
    pub fn book(&mut self, book: Arc<Book>, now: Duration) {
        self.enter(now);
        self.ctx.new_book(book);
        self.work();
    }

    /// A person wants it to stop. Before our signatures exist that ends it at once; afterwards the transaction is sent
    /// as soon as the broadcast policy allows, and the request ends when it is seen or given up.
    pub fn stop(&mut self, now: Duration) {
        self.enter(now);
        self.ctx.stopping = true;
        let stopped = || Verdict::new(Reason::Stopped, "stopped before anything was signed");
        match &mut self.state {
            State::Connecting { .. } | State::Collecting { .. } | State::Pausing { .. } => {
                self.finish(stopped());
            }
            State::Working(attempt) if attempt.has_signed() => {
                self.attempt(|attempt, ctx| attempt.hasten(ctx));
            }
            State::Working(_) => self.end_attempt(stopped()),
            State::Ending { retry, verdict, .. } => {
                if std::mem::take(retry) {
                    *verdict = stopped();
                }
            }
            State::Over => {}
        }
        self.work();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.enter(now);
        self.attempt(|attempt, ctx| attempt.tick(ctx));
        self.work();
    }

    /// When [`Taker::tick`] is to be called at the latest; `None` once it is over.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.state {
            State::Connecting { .. } if !self.ctx.ways.is_empty() => Some(self.ctx.irc_due()),
            State::Connecting { until }
            | State::Collecting { until }
            | State::Ending { until, .. }
            | State::Pausing { until } => Some(*until),
            State::Working(attempt) => Some(attempt.next_wake()),
            State::Over => None,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.ctx.outputs.pop_front()
    }

    fn enter(&mut self, now: Duration) {
        self.ctx.now = self.ctx.now.max(now);
    }

    /// Lets the attempt that runs do something.
    fn attempt(&mut self, act: impl FnOnce(&mut Attempt, &mut Context) -> Flow) {
        let State::Working(attempt) = &mut self.state else { return };
        if let Err(verdict) = act(attempt, &mut self.ctx) {
            self.end_attempt(verdict);
        }
    }

    /// Does what follows from the last input and from the time.
    fn work(&mut self) {
        let now = self.ctx.now;
        match self.state {
            State::Connecting { until } if self.ctx.ways.is_empty() && now >= until => {
                let text = "no directory could be reached";
                self.finish(Verdict::new(Reason::NoDirectory, text));
            }
            State::Connecting { .. } if self.ctx.is_connected() => {
                if !self.ctx.book_is_fresh() && self.ctx.book.phase == BookPhase::Complete {
                    self.ctx.refresh_book();
                }
                let until = self.ctx.after(self.ctx.setup.policy.collect_timeout);
                self.state = State::Collecting { until };
                self.work();
                return;
            }
            State::Collecting { until } if now >= until || self.ctx.book_is_fresh() => {
                self.state = State::Working(Box::new(Attempt::begin(&mut self.ctx)));
            }
            State::Pausing { until } if now >= until => {
                self.ctx.attempt = self.ctx.attempt.saturating_add(1);
                let until = self.ctx.after(self.ctx.setup.policy.connect_timeout);
                self.state = State::Connecting { until };
                self.work();
                return;
            }
            State::Ending { until, .. } if now >= until => self.conclude(),
            _ => {}
        }
        self.show();
    }

    /// The attempt is over. Its round in the journal ends, with everything that it holds and did not sign.
    fn end_attempt(&mut self, verdict: Verdict) {
        let State::Working(attempt) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        if !attempt.has_signed() {
            self.ctx.released.append(&mut self.ctx.held);
        }
        self.ctx.held.clear();
        // Once our signatures exist there is no new attempt: the transaction may still appear, also after a refusal, and
        // a second one with other coins would pay twice.
        let policy = &self.ctx.setup.policy;
        let shown = policy.destination_once && attempt.shown > 0;
        let again = self.ctx.attempt <= policy.retries
            && !self.ctx.stopping
            && !attempt.has_signed()
            && !shown;
        let retry = again && verdict.reason.may_pass();
        let until = self.ctx.after(WALLET_TIMEOUT);
        let begins = attempt.step == Step::Begin;
        self.state = State::Ending { verdict, retry, until };
        match attempt.round {
            Some(round) => self.end_round(round, Purpose::End),
            None if begins => {}
            None => self.conclude(),
        }
    }

    fn end_round(&mut self, round: RoundId, purpose: Purpose) {
        let verdict = match &self.state {
            State::Ending { verdict, .. } => verdict.clone(),
            _ => Verdict::new(Reason::Stopped, "it was over before it had begun"),
        };
        let Verdict { reason, text } = verdict;
        let end = RoundEnd { code: reason.code().to_owned(), text, time: self.ctx.time() };
        self.ctx.ask(purpose, Question::End { round, end });
    }

    /// What comes after an attempt.
    fn conclude(&mut self) {
        let State::Ending { verdict, retry, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        if !retry {
            self.finish(self.with_cause(verdict));
            return;
        }
        let pause = match verdict.reason {
            Reason::ChainUnreachable => LONG_PAUSE,
            _ => PAUSE,
        };
        if verdict.reason == Reason::NotEnoughOffers {
            self.ctx.refresh_book();
        }
        self.ctx.last = Some(verdict);
        self.state = State::Pausing { until: self.ctx.after(pause) };
    }

    /// A later attempt can fail for want of what the earlier ones used up: then people want to know both.
    fn with_cause(&self, verdict: Verdict) -> Verdict {
        let Some(before) = self.ctx.last.as_ref() else { return verdict };
        let good = matches!(verdict.reason, Reason::Complete | Reason::Stopped);
        if good || *before == verdict {
            return verdict;
        }
        let text = format!("{}; before that: {}", verdict.text, before.text);
        Verdict::new(verdict.reason, text)
    }

    fn finish(&mut self, verdict: Verdict) {
        self.state = State::Over;
        self.show();
        self.ctx.outputs.push_back(Output::Finished(Box::new(self.ctx.outcome(verdict))));
    }

    /// Puts the progress out when it changed.
    fn show(&mut self) {
        let progress = self.progress();
        if self.shown.as_ref() != Some(&progress) {
            self.shown = Some(progress.clone());
            self.ctx.outputs.push_back(Output::Progress(Box::new(progress)));
        }
    }

    fn progress(&self) -> Progress {
        let phase = match &self.state {
            State::Connecting { .. } => Phase::Connecting,
            State::Collecting { .. } => Phase::Collecting,
            State::Working(attempt) => attempt.phase(),
            State::Ending { .. } => Phase::Ending,
            State::Pausing { .. } => Phase::Pausing,
            State::Over => Phase::Over,
        };
        let mut progress = Progress {
            phase,
            attempt: self.ctx.attempt,
            attempts: self.ctx.setup.policy.retries.saturating_add(1),
            round: None,
            deadline: self.next_wake(),
            amount: None,
            makers: Vec::new(),
            fees: None,
            txid: self.ctx.signed.as_ref().map(|(txid, _)| *txid),
            last: self.ctx.last.clone(),
            stopping: self.ctx.stopping,
        };
        if let State::Working(attempt) = &self.state {
            attempt.describe(&mut progress);
        }
        progress
    }
}
