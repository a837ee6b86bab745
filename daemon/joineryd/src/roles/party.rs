//! One role in its task: the machine, its message channel, and everything that it hears and asks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::PrivateWord;
use joinery_roles::ask::{Answer, QuestionId, WalletView};
use joinery_roles::event::{ChannelEvent, Source};
use joinery_roles::order_book::Book;
use joinery_wallet::round::Round;
use joinery_wallet::service::{WalletEvent, WalletHandle};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Sources};
use crate::channels::Channels;

/// Longest sleep of a machine that waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// What taker and maker have in common. `now` is the party's clock.
pub(super) trait Machine {
    /// What it wants done.
    type Output: Send;

    fn heard(&mut self, event: &ChannelEvent, now: Duration);
    fn answered(&mut self, id: QuestionId, answer: Answer, now: Duration);
    fn wallet(&mut self, view: Arc<WalletView>, now: Duration);
    fn book(&mut self, book: Arc<Book>, now: Duration);
    fn followed(&mut self, round: &Round, now: Duration);
    fn stop(&mut self, now: Duration);
    fn tick(&mut self, now: Duration);
    fn next_wake(&self) -> Option<Duration>;
    fn poll(&mut self) -> Option<Self::Output>;

    /// A used commitment could not be published by a throwaway nick.
    fn unpublished(&mut self, commitment: Commitment, now: Duration);
}

/// Does what a machine wants done.
pub(super) trait Role: Sync {
    /// Its machine.
    type Machine: Machine + Send;
    /// How it ends.
    type End: Send;

    /// Does one thing; breaks with the last.
    fn perform(
        &self,
        around: &Surroundings,
        output: <Self::Machine as Machine>::Output,
    ) -> impl Future<Output = ControlFlow<Self::End>> + Send;
}

/// What the machine's outputs are done with.
#[derive(Debug)]
pub(super) struct Surroundings {
    start: Instant,
    /// The channels of this role's nick.
    pub(super) channels: Channels,
    /// Who answers questions.
    pub(super) executor: Executor,
    /// For commitments that could not be published.
    pub(super) unpublished: mpsc::UnboundedSender<Commitment>,
}

impl Surroundings {
    /// The clock of the machine.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sends a private message. One that finds no way is lost, as one on a real network may be.
    pub(super) async fn send(
        &self,
        to: Nick,
        word: PrivateWord,
        payload: String,
        prefer: Option<Source>,
    ) {
        match self.channels.send(to, word, payload, prefer).await {
            Ok(()) => tracing::debug!(%to, word = word.as_str(), "sent"),
            Err(error) => tracing::info!(%to, word = word.as_str(), %error, "not sent"),
        }
    }
}

/// A role with all its inputs.
#[derive(Debug)]
pub(super) struct Party<M> {
    pub(super) machine: M,
    pub(super) around: Surroundings,
    news: mpsc::Receiver<ChannelEvent>,
    answers: mpsc::UnboundedReceiver<(QuestionId, Answer)>,
    wallet: WalletHandle,
    wallet_events: Option<broadcast::Receiver<WalletEvent>>,
    books: Option<watch::Receiver<Arc<Book>>>,
    stop: Option<CancellationToken>,
    unpublished: mpsc::UnboundedReceiver<Commitment>,
}

/// What a party is made of.
pub(super) struct Parts {
    pub(super) sources: Sources,
    pub(super) channels: Channels,
    pub(super) news: mpsc::Receiver<ChannelEvent>,
    /// The watcher's order book.
    pub(super) books: Option<watch::Receiver<Arc<Book>>>,
    /// Cancelled when a person stops the role.
    pub(super) stop: CancellationToken,
}

impl<M: Machine + Send> Party<M> {
    /// `machine` makes the machine out of the wallet and the book as they are, at time zero.
    pub(super) fn new(parts: Parts, machine: impl FnOnce(Arc<WalletView>, Arc<Book>) -> M) -> Self {
        let Parts { sources, channels, news, mut books, stop } = parts;
        let wallet = sources.wallet.clone();
        // Before the first look, so that nothing falls between the two.
        let wallet_events = wallet.events();
        let view = Arc::new(WalletView::from(&*wallet.snapshot()));
        let book = books.as_mut().map_or_else(
            || Arc::new(Book::empty()),
            |books| Arc::clone(&books.borrow_and_update()),
        );
        let (executor, answers) = Executor::start(sources);
        let start = Instant::now();
        // Bounded by the few publications that run at once.
        let (failed, unpublished) = mpsc::unbounded_channel();
        Self {
            machine: machine(view, book),
            around: Surroundings { start, channels, executor, unpublished: failed },
            news,
            answers,
            wallet,
            wallet_events: Some(wallet_events),
            books,
            stop: Some(stop),
            unpublished,
        }
    }

    /// Runs until the role ends. The channel is closed then.
    pub(super) async fn run<R: Role<Machine = M>>(mut self, role: &R) -> R::End {
        loop {
            while let Some(output) = self.machine.poll() {
                if let ControlFlow::Break(end) = role.perform(&self.around, output).await {
                    self.around.channels.close().await;
                    return end;
                }
            }
            self.next().await;
        }
    }

    /// Waits for the next input and gives it to the machine.
    async fn next(&mut self) {
        let wake = self.around.start + self.machine.next_wake().unwrap_or(IDLE);
        tokio::select! {
            // Answers first: what waits for them is a promise to somebody.
            biased;
            Some((id, answer)) = self.answers.recv() => {
                self.machine.answered(id, answer, self.around.now());
            }
            () = stopped(self.stop.as_ref()) => {
                self.stop = None;
                self.machine.stop(self.around.now());
            }
            event = next_event(&mut self.wallet_events) => self.wallet_changed(&event),
            Some(event) = self.news.recv() => {
                self.around.channels.heard(&event);
                self.machine.heard(&event, self.around.now());
            }
            book = next_book(&mut self.books) => match book {
                Some(book) => self.machine.book(book, self.around.now()),
                None => self.books = None,
            },
            Some(commitment) = self.unpublished.recv() => {
                self.machine.unpublished(commitment, self.around.now());
            }
            () = sleep_until(wake) => {}
        }
        self.machine.tick(self.around.now());
    }

    fn wallet_changed(&mut self, event: &Result<WalletEvent, RecvError>) {
        let now = self.around.now();
        let snapshot = self.wallet.snapshot();
        match event {
            Ok(WalletEvent::Round { round, .. }) => {
                let round = snapshot.rounds.iter().find(|known| known.id == *round);
                if let Some(round) = round {
                    self.machine.followed(round, now);
                }
            }
            Ok(WalletEvent::Changed { .. } | WalletEvent::Transaction { .. }) => {
                self.machine.wallet(Arc::new(WalletView::from(&*snapshot)), now);
            }
            Err(RecvError::Lagged(_)) => {
                for round in snapshot.rounds.iter() {
                    self.machine.followed(round, now);
                }
                self.machine.wallet(Arc::new(WalletView::from(&*snapshot)), now);
            }
            // The wallet was closed, which is the end of every role.
            Err(RecvError::Closed) => {
                self.wallet_events = None;
                self.machine.stop(now);
            }
        }
    }
}

async fn stopped(stop: Option<&CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn next_event(
    events: &mut Option<broadcast::Receiver<WalletEvent>>,
) -> Result<WalletEvent, RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// The next book; `None` when there will be none any more.
async fn next_book(books: &mut Option<watch::Receiver<Arc<Book>>>) -> Option<Arc<Book>> {
    match books {
        Some(books) => {
            books.changed().await.ok()?;
            Some(Arc::clone(&books.borrow_and_update()))
        }
        None => std::future::pending().await,
    }
}
