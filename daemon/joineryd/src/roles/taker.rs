//! A coinjoin that a person asked for, in its task.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use joinery_api::{TakerDesk, TakerRun};
use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_roles::ask::{Answer, QuestionId, WalletView};
use joinery_roles::event::{ChannelEvent, Source};
use joinery_roles::order_book::Book;
use joinery_roles::taker::{Outcome, Output, Reason, Taker, TakerPolicy, TakerSetup, Verdict};
use joinery_wallet::round::Round;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::executor::Sources;
use super::party::{Machine, Parts, Party, Role, Surroundings};
use super::{Roles, epoch};
use crate::channels::{Channels, random};

impl Machine for Taker {
    type Output = Output;

    fn heard(&mut self, event: &ChannelEvent, now: Duration) {
        Self::heard(self, event, now);
    }

    fn answered(&mut self, id: QuestionId, answer: Answer, now: Duration) {
        Self::answered(self, id, answer, now);
    }

    fn wallet(&mut self, view: Arc<WalletView>, now: Duration) {
        Self::wallet(self, view, now);
    }

    fn book(&mut self, book: Arc<Book>, now: Duration) {
        Self::book(self, book, now);
    }

    fn followed(&mut self, round: &Round, now: Duration) {
        Self::followed(self, round, now);
    }

    fn stop(&mut self, now: Duration) {
        Self::stop(self, now);
    }

    fn tick(&mut self, now: Duration) {
        Self::tick(self, now);
    }

    fn next_wake(&self) -> Option<Duration> {
        Self::next_wake(self)
    }

    fn poll(&mut self) -> Option<Output> {
        Self::poll(self)
    }

    fn unpublished(&mut self, _commitment: Commitment, _now: Duration) {
        // Takers publish none.
    }
}

/// Runs a request to its end, whatever that is.
pub(super) async fn run(roles: Arc<Roles>, run: TakerRun) {
    let started = roles.channels("taker", None, |channel| {
        channel.want_peers = true;
        channel.neutrino_compat = run.policy.neutrino_compat;
    });
    let seed = random();
    match (started, seed) {
        (Ok((channels, news)), Ok(seed)) => {
            drive(&roles, run, channels, news, seed).await;
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "a coinjoin cannot be started");
            let text = "the message channel cannot be started";
            let verdict = Verdict::new(Reason::Internal, text);
            run.desk.finished(Outcome::before_start(verdict));
        }
    }
}

async fn drive(
    roles: &Roles,
    run: TakerRun,
    channels: Channels,
    news: mpsc::Receiver<ChannelEvent>,
    seed: [u8; 32],
) {
    let TakerRun { wallet, request, policy, fees, desk } = run;
    let irc_servers = channels.irc_status().map_or(0, |status| status.borrow().servers.len());
    let irc_servers = u16::try_from(irc_servers).unwrap_or(u16::MAX);
    let policy = TakerPolicy { irc_servers, ..policy };
    let nick = channels.nick();
    tracing::info!(%nick, counterparties = request.counterparties, "coinjoin starts");
    let setup = TakerSetup {
        request,
        policy,
        nick,
        own_nicks: roles.nicks.recent(epoch()),
        avoid: roles.scores.avoid(epoch()),
        epoch: epoch(),
    };
    let sources = Sources { wallet, commitments: Arc::clone(&roles.commitments), fees };
    let stop = either(desk.stopped(), &roles.stop);
    let books = roles.book.clone();
    let parts = Parts { sources, channels, news, books, stop: stop.clone() };
    let party = Party::new(parts, |view, book| Taker::new(setup, view, book, seed, Duration::ZERO));
    let role = TakerRole { desk, refresh: roles.refresh.clone(), book: roles.book.clone() };
    let outcome = party.run(&role).await;
    stop.cancel();
    report(&outcome);
    roles.scores.record(&outcome, epoch());
    role.desk.finished(outcome);
}

/// Does what the taker wants done.
#[derive(Debug)]
struct TakerRole {
    desk: TakerDesk,
    refresh: Option<mpsc::Sender<()>>,
    book: Option<watch::Receiver<Arc<Book>>>,
}

impl TakerRole {
    /// A directory where the order book saw a maker. The book is kept under another nick, and reference directories
    /// tell our own channel nothing about who is there.
    fn seen_at(&self, nick: &Nick) -> Option<Source> {
        let book = Arc::clone(&self.book.as_ref()?.borrow());
        let offer = book.offers.iter().find(|offer| offer.nick == *nick)?;
        // Which of them does not matter much; the remainder of a 16-bit number is even enough.
        let any = usize::from(u16::from_le_bytes(random().ok()?));
        let place = any.checked_rem(offer.directories.len())?;
        offer.directories.get(place).copied().map(Source::Directory)
    }
}

impl Role for TakerRole {
    type Machine = Taker;
    type End = Outcome;

    async fn perform(&self, around: &Surroundings, output: Output) -> ControlFlow<Outcome> {
        match output {
            Output::Send { to, word, payload, prefer } => {
                let prefer = prefer.or_else(|| self.seen_at(&to));
                around.send(to, word, payload, prefer).await;
            }
            Output::Ask(id, question) => around.executor.ask(id, question),
            Output::RefreshBook => {
                // A full queue means that makers will be asked.
                let _ = self.refresh.as_ref().map(|refresh| refresh.try_send(()));
            }
            Output::Progress(progress) => self.desk.progress(*progress, around.now()),
            Output::Finished(outcome) => return ControlFlow::Break(*outcome),
        }
        ControlFlow::Continue(())
    }
}

fn report(outcome: &Outcome) {
    let reason = outcome.verdict.reason.code();
    if outcome.is_success() {
        tracing::info!(attempts = outcome.attempts, "coinjoin complete");
    } else {
        tracing::warn!(
            reason,
            text = outcome.verdict.text,
            attempts = outcome.attempts,
            "coinjoin ended"
        );
    }
    for (nick, failure) in &outcome.failed {
        tracing::info!(%nick, code = failure.code, text = failure.text, "maker failed");
    }
}

/// A token that is cancelled with either of two.
pub(super) fn either(one: &CancellationToken, other: &CancellationToken) -> CancellationToken {
    let (both, one, other) = (CancellationToken::new(), one.clone(), other.clone());
    let token = both.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = one.cancelled() => {}
            () = other.cancelled() => {}
            // Its owner is done.
            () = token.cancelled() => {}
        }
        token.cancel();
    });
    both
}
