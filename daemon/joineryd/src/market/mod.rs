//! The market task: an order book watcher of its own nick (`spec/roles.md` 7). It drives the message channel and the
//! order book, looks bonds up on the chain, and shows the API what it has. It needs no wallet.
//!
//! Its nick is drawn at each start, is never that of a maker or taker, and its circuits are its own.

mod links;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use joinery_api::{AppState, MarketView};
use joinery_net::ProxyUrl;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::private_message::NickKey;
use joinery_roles::channel::{
    Audience, ChannelConfig, ChannelTiming, DirectoryAddress, LogFact, OnionChannel, Output,
    Purpose,
};
use joinery_roles::event::{DirectoryId, Source};
use joinery_roles::order_book::{
    BondAnswer, BondedCoin, Book, BookTip, OrderBook, OrderBookConfig, OrderBookTiming,
    Output as BookOutput,
};
use joinery_wallet::chain::{ChainError, ChainSource, ChainStatus};
use joinery_wallet::types::Network;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use links::{Links, News};

/// Shortest time between two books for readers.
const PUBLISH: Duration = Duration::from_millis(50);
/// How long no directory may be reached before that is shown as trouble.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked whether a wallet is unlocked, when that decides.
const LOOK: Duration = Duration::from_secs(2);
/// Longest time for one bond on the chain, both questions together.
const LOOKUP: Duration = Duration::from_secs(20);

/// When the order book is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// As long as the daemon runs.
    Always,
    /// While a wallet is unlocked.
    Unlocked,
    /// Never.
    Off,
}

/// What the task is to do.
#[derive(Debug, Clone)]
pub(crate) struct MarketConfig {
    /// When the order book is kept.
    pub(crate) watch: Watch,
    /// The chain.
    pub(crate) network: Network,
    /// Name of the JoinMarket network.
    pub(crate) jm_network: String,
    /// Directories to connect to.
    pub(crate) directories: Vec<DirectoryAddress>,
    /// Tor.
    pub(crate) socks: ProxyUrl,
}

/// The task before it runs.
#[derive(Debug)]
pub(crate) struct Market {
    config: MarketConfig,
    book: watch::Sender<Arc<Book>>,
    refresh: mpsc::Receiver<()>,
    problem: watch::Sender<Option<&'static str>>,
}

impl Market {
    /// The task and what it shows the API; `None` when the order book is switched off.
    pub(crate) fn new(config: MarketConfig) -> Option<(Self, MarketView)> {
        if config.watch == Watch::Off {
            return None;
        }
        let (book, book_view) = watch::channel(Arc::new(Book::empty()));
        let (refresh_view, refresh) = mpsc::channel(1);
        let (problem, problem_view) = watch::channel(None);
        let names = config.directories.iter().map(|directory| directory.address.to_string());
        let view = MarketView {
            book: book_view,
            refresh: refresh_view,
            problem: problem_view,
            directories: names.collect(),
        };
        Some((Self { config, book, refresh, problem }, view))
    }

    /// Runs until `stop` is cancelled.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub(crate) async fn run(
        mut self,
        app: Arc<AppState>,
        chain: Arc<dyn ChainSource>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        if self.config.directories.is_empty() {
            // On a private chain that is how it is meant.
            if self.config.network != Network::Regtest {
                tracing::warn!(
                    "there are no directories for this network: set joinmarket.directories"
                );
                self.problem.send_replace(Some("no_directories"));
            }
            stop.cancelled().await;
            return Ok(());
        }
        while !stop.is_cancelled() {
            let wanted = || self.config.watch == Watch::Always || app.wallet().is_some();
            if wanted() {
                let mut session = Session::start(&self.config, &app, Arc::clone(&chain))?;
                session.run(&mut self, &app, &stop).await;
                self.book.send_replace(Arc::new(Book::empty()));
                self.problem.send_replace(None);
            } else {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(LOOK) => {}
                }
            }
        }
        Ok(())
    }
}

/// One nick, from its first connection to its end.
struct Session {
    start: Instant,
    channel: OnionChannel,
    book: OrderBook,
    links: Links,
    news: mpsc::Receiver<News>,
    chain: Arc<dyn ChainSource>,
    status: watch::Receiver<ChainStatus>,
    answers: mpsc::Receiver<(BondedCoin, BondAnswer)>,
    answer: mpsc::Sender<(BondedCoin, BondAnswer)>,
    /// The last attempt to connect found no proxy.
    no_proxy: bool,
    /// When a directory was connected last.
    reached: Instant,
    published: Instant,
}

impl Session {
    fn start(
        config: &MarketConfig,
        app: &AppState,
        chain: Arc<dyn ChainSource>,
    ) -> io::Result<Self> {
        let regtest = config.network == Network::Regtest;
        let key = Arc::new(NickKey::new(draw_key()?));
        let nick = key.nick();
        let mut channel = ChannelConfig::new(&config.jm_network, key);
        channel.directories.clone_from(&config.directories);
        channel.allow_plain = regtest;
        // Who is there is asked of directories; makers themselves are left alone.
        channel.want_peers = true;
        channel.dial_peers = false;
        if regtest {
            channel.timing = ChannelTiming::regtest();
        }
        let connect = channel.timing.connect;
        let channel = OnionChannel::new(channel, random()?).map_err(io::Error::other)?;
        let directories = u16::try_from(config.directories.len()).unwrap_or(u16::MAX);
        let mut book = OrderBookConfig::new(nick, directories);
        if regtest {
            book.timing = OrderBookTiming::regtest();
        }
        let policy = app.settings().policy();
        let policy = policy.load();
        (book.interest_rate, book.bond_exponent) =
            (policy.interest_rate, policy.bond_value_exponent);
        let secret: [u8; 16] = random()?;
        let secret = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let (links, news) = Links::new(config.socks, connect, secret);
        let (answer, answers) = mpsc::channel(16);
        let now = Instant::now();
        tracing::info!(%nick, directories, network = config.jm_network, "order book watcher starts");
        Ok(Self {
            start: now,
            channel,
            book: OrderBook::new(book, Duration::ZERO),
            links,
            news,
            status: chain.status(),
            chain,
            answers,
            answer,
            no_proxy: false,
            reached: now,
            published: now,
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn run(&mut self, market: &mut Market, app: &AppState, stop: &CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        self.status.mark_changed();
        self.channel.tick(self.now());
        loop {
            self.work();
            let wake = self.publish(market);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(news) = self.news.recv() => {
                    self.heard(news);
                    // What has come already is taken together.
                    while let Ok(news) = self.news.try_recv() {
                        self.heard(news);
                        self.work();
                    }
                }
                Some((coin, answer)) = self.answers.recv() => {
                    self.book.bond_answer(&coin, answer, self.now());
                }
                Ok(()) = self.status.changed() => {
                    let tip = self.status.borrow_and_update().tip;
                    if let Some(tip) = tip {
                        let tip = BookTip {
                            height: tip.height,
                            hash: tip.hash,
                            median_time: tip.median_time,
                        };
                        self.book.tip(tip, self.now());
                    }
                }
                Some(()) = market.refresh.recv() => self.book.refresh(self.now()),
                _ = look.tick() => {
                    if market.config.watch == Watch::Unlocked && app.wallet().is_none() {
                        break;
                    }
                    self.judge(market);
                }
                () = sleep_until(wake) => {}
            }
            let now = self.now();
            self.channel.tick(now);
            self.book.tick(now);
        }
        self.channel.stop(self.now());
        self.work();
        tracing::info!("order book watcher ends");
    }

    /// Bytes have come, or connections have changed.
    fn heard(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Opened(link) if self.links.knows(link) => {
                self.no_proxy = false;
                self.channel.opened(link, now);
            }
            News::Lines(link, lines) => {
                for line in lines {
                    // The machine may close the link in the middle.
                    if self.links.knows(link) {
                        self.channel.received(link, &line, now);
                        self.work();
                    }
                }
            }
            News::Closed { link, reason, no_proxy } if self.links.knows(link) => {
                self.no_proxy = no_proxy;
                self.links.close(link);
                self.channel.closed(link, &reason, now);
            }
            News::Opened(_) | News::Closed { .. } => {}
        }
    }

    /// Does what both machines want done.
    fn work(&mut self) {
        let now = self.now();
        loop {
            if let Some(output) = self.channel.poll() {
                self.perform(output, now);
            } else if let Some(output) = self.book.poll() {
                match output {
                    BookOutput::AskOffers(Source::Directory(id)) => {
                        // A word of nine letters fits every line.
                        let _ = self.channel.announce("orderbook", Audience::Directory(id), now);
                    }
                    BookOutput::AskOffers(_) => {}
                    BookOutput::VerifyBond(coin) => self.look_up(coin),
                }
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output, now: Duration) {
        match output {
            Output::Dial { link, address, purpose } => {
                let purpose = match purpose {
                    Purpose::Directory(DirectoryId(id)) => format!("orderbook-directory-{id}"),
                    Purpose::Peer(nick) => format!("orderbook-peer-{nick}"),
                };
                self.links.dial(link, address, purpose);
            }
            Output::Send { link, line } => {
                if !self.links.send(link, line) {
                    self.channel.closed(link, "it takes nothing of what is sent to it", now);
                }
            }
            Output::Close { link } => self.links.close(link),
            Output::Pause { link, until } => self.links.pause(link, self.start + until),
            Output::Event(event) => self.book.event(&event, now),
            Output::Log(fact) => log(&fact),
        }
    }

    /// Asks the chain about a bond (`spec/wallet.md` 13.7).
    fn look_up(&self, coin: BondedCoin) {
        let (chain, answer) = (Arc::clone(&self.chain), self.answer.clone());
        // Bounded by the machine: a few at a time, each for a short time.
        tokio::spawn(async move {
            let found = timeout(LOOKUP, ask_chain(&*chain, &coin)).await;
            let _ = answer.send((coin, found.unwrap_or(BondAnswer::Unavailable))).await;
        });
    }

    /// Shows readers the newest book, not too often. When something is to be done next.
    fn publish(&mut self, market: &Market) -> Instant {
        let wakes = [Some(self.book.next_wake()), self.channel.next_wake()];
        let wake = wakes.into_iter().flatten().min().unwrap_or(LOOK);
        let mut wake = self.start + wake;
        if self.book.has_news() {
            let due = self.published + PUBLISH;
            if Instant::now() < due {
                wake = wake.min(due);
            } else {
                market.book.send_replace(self.book.book(self.now()));
                self.published = Instant::now();
            }
        }
        wake
    }

    /// Says what is wrong with the market, once when it changes.
    fn judge(&mut self, market: &Market) {
        let problem = if self.channel.is_up() {
            self.reached = Instant::now();
            None
        } else if self.no_proxy {
            Some("tor_unavailable")
        } else if self.reached.elapsed() >= PATIENCE {
            Some("market_unreachable")
        } else {
            *market.problem.borrow()
        };
        market.problem.send_if_modified(|shown| {
            let changed = *shown != problem;
            if changed {
                match problem {
                    Some("tor_unavailable") => tracing::warn!(
                        proxy = %market.config.socks.0,
                        "Tor does not answer where joinmarket.socks says: no offers can be seen"
                    ),
                    Some(_) => tracing::warn!("no directory can be reached: no offers can be seen"),
                    None => tracing::info!("the market can be reached"),
                }
                *shown = problem;
            }
            changed
        });
    }
}

/// What the chain says of a bonded coin. That it cannot be asked is not held against the coin; a lie, a refusal or no
/// answer in time is: a stranger could have named a script that no server can answer for.
async fn ask_chain(chain: &dyn ChainSource, coin: &BondedCoin) -> BondAnswer {
    let absent = |error: &ChainError| match error {
        ChainError::Lie { .. } | ChainError::Server { .. } | ChainError::TimedOut => {
            BondAnswer::Absent
        }
        _ => BondAnswer::Unavailable,
    };
    let output = match chain.foreign_output(coin.outpoint, coin.script_pubkey()).await {
        Ok(Some(output)) => output,
        Ok(None) => return BondAnswer::Absent,
        Err(error) => return absent(&error),
    };
    // Unconfirmed: not yet a bond.
    let Some(height) = output.height else { return BondAnswer::Absent };
    match chain.block_time(height).await {
        Ok(time) => BondAnswer::Confirmed {
            amount: joinery_proto::bitcoin::Amount::from_sat(output.value),
            height,
            time,
        },
        Err(error) => absent(&error),
    }
}

fn log(fact: &LogFact) {
    match fact {
        LogFact::DirectoryUp { directory, verified, motd } => {
            tracing::info!(directory = directory.0, verified, "directory connected");
            tracing::debug!(directory = directory.0, motd, "message of the day");
        }
        LogFact::DirectoryLost { directory, reason, retry_in } => {
            tracing::info!(directory = directory.0, reason, ?retry_in, "directory not connected");
        }
        other => tracing::debug!(?other, "message channel"),
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// A secret key for a nick; one in 2^128 draws is not one.
fn draw_key() -> io::Result<SecretKey> {
    loop {
        if let Ok(key) = SecretKey::from_slice(&random::<32>()?) {
            return Ok(key);
        }
    }
}

/// For logs and errors.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("nick", &self.channel.nick()).finish_non_exhaustive()
    }
}
