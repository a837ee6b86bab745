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
//! complete, before it is sent. Our signatures are made last, after [`guard`](self) looked at the whole transaction
//! once more.

mod context;
mod outcome;
mod output;
mod preflight;
mod progress;
mod request;

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::Txid;
use joinery_wallet::round::Round;

use crate::ask::{Answer, QuestionId, WalletView};
use crate::event::ChannelEvent;
use crate::order_book::{Book, BookPhase};
use context::Context;

pub use outcome::{MakerFailure, Outcome, Reason, Verdict};
pub use output::Output;
pub use preflight::{MAX_COUNTERPARTIES, MAX_OWN_INPUTS, Preflight, preflight};
pub use progress::{FeeProgress, MakerProgress, MakerStep, Phase, Progress};
pub use request::{BroadcastPolicy, Destination, TakerPolicy, TakerRequest, TakerSetup};

/// Where a request is.
#[derive(Debug)]
enum State {
    Connecting { until: Duration },
    Collecting { until: Duration },
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
        taker.work(now);
        taker
    }

    /// The channel has news.
    pub fn heard(&mut self, event: &ChannelEvent, now: Duration) {
        match event {
            ChannelEvent::Up(via) => {
                self.ctx.ways.insert(*via);
            }
            ChannelEvent::Down(via) => {
                self.ctx.ways.remove(via);
            }
            // What strangers say in public is for the order book. A published commitment, even ours, is not a reuse:
            // makers publish it as soon as they have answered (`spec/protocol.md` 7.3).
            _ => {}
        }
        self.work(now);
    }

    /// The answer to [`Output::Ask`].
    pub fn answered(&mut self, question: QuestionId, _answer: Answer, now: Duration) {
        self.ctx.pending.remove(&question);
        self.work(now);
    }

    /// The wallet changed.
    pub fn wallet(&mut self, view: Arc<WalletView>, now: Duration) {
        self.ctx.wallet = view;
        self.work(now);
    }

    /// A round of ours changed in the journal: a transaction was seen, confirmed or given up.
    pub fn followed(&mut self, _round: &Round, now: Duration) {
        self.work(now);
    }

    /// A transaction was seen in the mempool or in a block.
    pub fn seen(&mut self, _txid: Txid, now: Duration) {
        self.work(now);
    }

    /// There is a newer order book.
    pub fn book(&mut self, book: Arc<Book>, now: Duration) {
        (self.ctx.book, self.ctx.book_at) = (book, now);
        self.work(now);
    }

    /// A person wants it to stop. Before our signatures exist that ends it at once; afterwards the transaction is sent
    /// as soon as the broadcast policy allows, and the request ends when it is seen or given up.
    pub fn stop(&mut self, now: Duration) {
        if !matches!(self.state, State::Over) {
            self.finish(Verdict::new(Reason::Stopped, "stopped before anything was signed"));
        }
        self.work(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.work(now);
    }

    /// When [`Taker::tick`] is to be called at the latest; `None` once it is over.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match self.state {
            State::Connecting { until } | State::Collecting { until } => Some(until),
            State::Over => None,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.ctx.outputs.pop_front()
    }

    fn work(&mut self, now: Duration) {
        self.ctx.now = self.ctx.now.max(now);
        let now = self.ctx.now;
        if let State::Connecting { until } = self.state {
            if !self.ctx.ways.is_empty() {
                let until = now.saturating_add(self.ctx.setup.policy.collect_timeout);
                self.state = State::Collecting { until };
                if !self.ctx.book_is_fresh() && self.ctx.book.phase == BookPhase::Complete {
                    self.ctx.outputs.push_back(Output::RefreshBook);
                }
            } else if now >= until {
                let text = "no directory could be reached";
                self.finish(Verdict::new(Reason::NoDirectory, text));
            }
        }
        if let State::Collecting { until } = self.state
            && (self.ctx.book_is_fresh() || now >= until)
        {
            let text = "coinjoins are not made by this version";
            self.finish(Verdict::new(Reason::Internal, text));
        }
        self.show();
    }

    fn finish(&mut self, verdict: Verdict) {
        self.state = State::Over;
        self.show();
        self.ctx.outputs.push_back(Output::Finished(Box::new(self.ctx.outcome(verdict))));
    }

    /// Puts the progress out when it changed.
    fn show(&mut self) {
        let (phase, deadline) = match self.state {
            State::Connecting { until } => (Phase::Connecting, Some(until)),
            State::Collecting { until } => (Phase::Collecting, Some(until)),
            State::Over => (Phase::Over, None),
        };
        let progress = Progress {
            phase,
            attempt: 1,
            attempts: self.ctx.setup.policy.retries.saturating_add(1),
            round: None,
            deadline,
            amount: None,
            makers: Vec::new(),
            fees: None,
            txid: None,
            last: None,
            stopping: false,
        };
        if self.shown.as_ref() != Some(&progress) {
            self.shown = Some(progress.clone());
            self.ctx.outputs.push_back(Output::Progress(Box::new(progress)));
        }
    }
}
