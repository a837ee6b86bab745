//! Taker and maker in the daemon: puts their machines together with a message channel of their own, the wallet, the
//! chain and the order book, each role in a task of its own (`spec/roles.md` 3, 4, 13).

mod executor;
mod maker;
mod nicks;
mod party;
mod scores;
mod statement;
mod taker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use joinery_api::{MakerRun, RoleRunner, TakerRun};
use joinery_net::onion::Serving;
use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_roles::channel::ChannelConfig;
use joinery_roles::event::ChannelEvent;
use joinery_roles::order_book::Book;
use joinery_wallet::commitments::Commitments;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channels::Channels;
use crate::market::MarketConfig;
use nicks::Nicks;
use scores::Scores;
use statement::Statement;

pub(crate) use statement::Bookkeeper;

/// What the roles work with.
#[derive(Debug)]
pub(crate) struct Roles {
    /// Networks, directories, Tor.
    config: MarketConfig,
    /// The watcher's order book, and its wake-up; none when it is switched off.
    book: Option<watch::Receiver<Arc<Book>>>,
    refresh: Option<mpsc::Sender<()>>,
    commitments: Arc<Commitments>,
    /// Nicks that this device had lately.
    nicks: Arc<Nicks>,
    /// Makers that failed lately.
    scores: Arc<Scores>,
    statement: Statement,
    /// How takers reach a maker of ours.
    serving: Option<Serving>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What [`Roles::new`] is made of.
pub(crate) struct RolesParts {
    pub(crate) config: MarketConfig,
    pub(crate) book: Option<watch::Receiver<Arc<Book>>>,
    pub(crate) refresh: Option<mpsc::Sender<()>>,
    pub(crate) commitments: Arc<Commitments>,
    /// Where nicks and scores are kept.
    pub(crate) state: PathBuf,
    /// How takers reach a maker of ours.
    pub(crate) serving: Option<Serving>,
    /// `yigen-statement.csv`.
    pub(crate) statement: PathBuf,
}

impl Roles {
    pub(crate) fn new(parts: RolesParts) -> Arc<Self> {
        let RolesParts { config, book, refresh, commitments, state, serving, statement } = parts;
        Arc::new(Self {
            config,
            book,
            refresh,
            commitments,
            nicks: Arc::new(Nicks::load(state.join("nicks.json"))),
            scores: Arc::new(Scores::load(state.join("makers.json"))),
            statement: Statement::new(statement),
            serving,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Ends every role and waits until their tasks are over.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Used commitments, for a maker that starts.
    async fn blacklist(&self) -> io::Result<CommitmentBlacklist> {
        let commitments = Arc::clone(&self.commitments);
        let read = tokio::task::spawn_blocking(move || commitments.blacklist()).await;
        read.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Channels with a nick that was never used before and is never a counterparty of ours.
    fn channels(
        &self,
        purpose: &'static str,
        serving: Option<Serving>,
        change: impl FnOnce(&mut ChannelConfig),
    ) -> io::Result<(Channels, mpsc::Receiver<ChannelEvent>)> {
        let (channels, news) = Channels::open(&self.config, purpose, serving, change)?;
        self.nicks.add(channels.nick(), epoch());
        Ok((channels, news))
    }
}

/// What the API starts roles with.
#[derive(Debug)]
pub(crate) struct Runner(pub(crate) Arc<Roles>);

impl RoleRunner for Runner {
    fn taker(&self, run: TakerRun) {
        self.0.tasks.spawn(taker::run(Arc::clone(&self.0), run));
    }

    fn maker(&self, run: MakerRun) {
        self.0.tasks.spawn(maker::run(Arc::clone(&self.0), run));
    }
}

/// Seconds since epoch.
fn epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
