//! The market task: an order book watcher of its own nick (`spec/roles.md` 7). It listens to the message channels,
//! drives the order book, looks bonds up on the chain, and shows the API what it has. It needs no wallet.
//!
//! Its nick is drawn at each start, is never that of a maker or taker, and its circuits are its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use joinery_api::{AppState, MarketView};
use joinery_net::ProxyUrl;
use joinery_roles::channel::DirectoryAddress;
use joinery_roles::event::ChannelEvent;
use joinery_roles::order_book::{
    BondAnswer, BondedCoin, Book, BookTip, OrderBook, OrderBookConfig, OrderBookTiming, Output,
};
use joinery_wallet::chain::{ChainError, ChainSource, ChainStatus};
use joinery_wallet::types::Network;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::channels::Channels;
use crate::config::Irc;

/// Shortest time between two books for readers.
const PUBLISH: Duration = Duration::from_millis(50);
/// How long no directory or IRC server may be reached before that is shown as trouble.
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
    /// IRC servers; usually none.
    pub(crate) irc: Vec<Irc>,
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
        if self.config.directories.is_empty() && self.config.irc.is_empty() {
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
            if self.config.watch == Watch::Always || app.wallet().is_some() {
                let mut session = Session::start(&self.config, &app, Arc::clone(&chain))?;
                session.run(&mut self, &app, &stop).await;
                self.book.send_replace(Arc::new(Book::empty()));
                self.problem.send_replace(None);
            }
            // A session that ends by itself must not become a loop.
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
        }
        Ok(())
    }
}

/// One nick, from its first connection to its end.
struct Session {
    start: Instant,
    channels: Channels,
    news: mpsc::Receiver<ChannelEvent>,
    book: OrderBook,
    chain: Arc<dyn ChainSource>,
    status: watch::Receiver<ChainStatus>,
    answers: mpsc::Receiver<(BondedCoin, BondAnswer)>,
    answer: mpsc::Sender<(BondedCoin, BondAnswer)>,
    /// When a directory or an IRC server was connected last.
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
        let (channels, news) = Channels::open(config, "orderbook", None, |channel| {
            // Who is there is asked of directories; makers themselves are left alone.
            channel.want_peers = true;
            channel.dial_peers = false;
        })?;
        let nick = channels.nick();
        let directories = u16::try_from(config.directories.len()).unwrap_or(u16::MAX);
        let mut book = OrderBookConfig::new(nick, directories);
        book.irc_servers = u16::try_from(config.irc.len()).unwrap_or(u16::MAX);
        if regtest {
            book.timing = OrderBookTiming::regtest();
        }
        let policy = app.settings().policy();
        let policy = policy.load();
        (book.interest_rate, book.bond_exponent) =
            (policy.interest_rate, policy.bond_value_exponent);
        let (answer, answers) = mpsc::channel(16);
        let now = Instant::now();
        tracing::info!(%nick, directories, network = config.jm_network, "order book watcher starts");
        Ok(Self {
            start: now,
            channels,
            news,
            book: OrderBook::new(book, Duration::ZERO),
            status: chain.status(),
            chain,
            answers,
            answer,
            reached: now,
            published: now,
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until `stop`, until the book is not wanted any more, or until the channel fails.
    async fn run(&mut self, market: &mut Market, app: &AppState, stop: &CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        self.status.mark_changed();
        loop {
            if !self.work().await {
                break;
            }
            let wake = self.publish(market);
            tokio::select! {
                () = stop.cancelled() => break,
                news = self.news.recv() => {
                    let Some(news) = news else { break };
                    self.book.event(&news, self.now());
                    // What has come already is taken together.
                    while let Ok(news) = self.news.try_recv() {
                        self.book.event(&news, self.now());
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
            self.book.tick(self.now());
        }
        self.channels.close().await;
        tracing::info!("order book watcher ends");
    }

    /// Does what the book wants done; false when a channel has failed.
    async fn work(&mut self) -> bool {
        while let Some(output) = self.book.poll() {
            let running = match output {
                Output::AskOffers(on) => self.channels.ask_offers(on).await,
                Output::VerifyBond(coin) => {
                    self.look_up(coin);
                    true
                }
            };
            if !running {
                return false;
            }
        }
        true
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
        let mut wake = self.start + self.book.next_wake();
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
        let (mut up, mut no_proxy) = {
            let status = self.channels.onion_status();
            let status = status.borrow();
            (status.is_up(), status.proxy_failure.is_some())
        };
        if let Some(status) = self.channels.irc_status() {
            let status = status.borrow();
            up |= status.is_up();
            no_proxy |= status.proxy_failure.is_some();
        }
        let problem = if up {
            self.reached = Instant::now();
            None
        } else if no_proxy {
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

/// What the chain says of a bonded coin. Only "not among the unspent coins" is held against the coin. A refusal, a
/// contradiction or silence is not, but the question is not repeated soon: a stranger could have named a script that
/// no server can answer for.
async fn ask_chain(chain: &dyn ChainSource, coin: &BondedCoin) -> BondAnswer {
    let no_answer = |error: &ChainError| match error {
        ChainError::Lie { .. } | ChainError::Server { .. } | ChainError::TimedOut => {
            BondAnswer::Unanswered
        }
        _ => BondAnswer::Unavailable,
    };
    let output = match chain.foreign_output(coin.outpoint, coin.script_pubkey()).await {
        Ok(Some(output)) => output,
        Ok(None) => return BondAnswer::Absent,
        Err(error) => return no_answer(&error),
    };
    // Unconfirmed: not yet a bond.
    let Some(height) = output.height else { return BondAnswer::Absent };
    match chain.block_time(height).await {
        Ok(time) => BondAnswer::Confirmed {
            amount: joinery_proto::bitcoin::Amount::from_sat(output.value),
            height,
            time,
        },
        Err(error) => no_answer(&error),
    }
}

/// For logs and errors.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("nick", &self.channels.nick()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use joinery_wallet::bitcoin::OutPoint;
    use joinery_wallet::bitcoin::secp256k1::{PublicKey, SecretKey};
    use joinery_wallet::chain::ForeignOutput;

    use super::*;
    use crate::scripted_chain::{NO_ANSWERS, ScriptedChain};

    #[allow(clippy::unnecessary_wraps)] // the form of an answer
    fn output(
        confirmations: u32,
        height: Option<u32>,
    ) -> Result<Option<ForeignOutput>, ChainError> {
        Ok(Some(ForeignOutput { value: 5, confirmations, height }))
    }

    #[tokio::test]
    async fn bond_is_absent_only_when_the_server_says_so() {
        let secret = SecretKey::from_slice(&[1; 32]).expect("below the group order");
        let key = PublicKey::from_secret_key(joinery_proto::secp(), &secret);
        let coin = BondedCoin { outpoint: OutPoint::null(), locktime: 1_900_000_000, key };
        let ask = async |reply| ask_chain(&ScriptedChain::new(reply), &coin).await;
        let mut answers = Vec::new();
        for reply in NO_ANSWERS {
            answers.push(ask(reply).await);
        }
        let (away, none) = (BondAnswer::Unavailable, BondAnswer::Unanswered);
        assert_eq!(answers, [away, away, none, none, none]);
        assert_eq!(ask(|| Ok(None)).await, BondAnswer::Absent);

        assert_eq!(ask(|| output(0, None)).await, BondAnswer::Absent, "unconfirmed");
        let found = ask(|| output(3, Some(7))).await;
        let amount = joinery_proto::bitcoin::Amount::from_sat(5);
        assert_eq!(found, BondAnswer::Confirmed { amount, height: 7, time: 1_700_000_000 });
    }
}
