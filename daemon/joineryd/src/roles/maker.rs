//! A maker in its task.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use joinery_api::{MakerDesk, MakerReach, MakerRun};
use joinery_net::onion::{OnionStatus, ServiceState};
use joinery_proto::podle::Commitment;
use joinery_roles::ask::{Answer, QuestionId, WalletView};
use joinery_roles::event::ChannelEvent;
use joinery_roles::maker::{Maker, MakerConfig, MakerEnd, MakerTiming, Output};
use joinery_roles::order_book::Book;
use joinery_wallet::round::Round;
use joinery_wallet::types::Network;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::executor::Sources;
use super::party::{Machine, Parts, Party, Role, Surroundings};
use super::taker::either;
use super::{Roles, epoch};
use crate::channels::random;

/// Longest time for publishing a used commitment by a throwaway nick.
const PUBLISH: Duration = Duration::from_secs(90);
/// Publications under way at once; more go the other way.
const PUBLICATIONS: usize = 4;

impl Machine for Maker {
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

    fn followed(&mut self, _round: &Round, _now: Duration) {
        // What becomes of a signed transaction shows in the wallet.
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

    fn unpublished(&mut self, commitment: Commitment, now: Duration) {
        self.publication_failed(commitment, now);
    }
}

/// Runs a maker until somebody stops it or it cannot go on.
pub(super) async fn run(roles: Arc<Roles>, run: MakerRun) {
    let started = roles.channels("maker", roles.serving.clone(), |channel| {
        // Takers dial makers; a maker dials nobody.
        channel.dial_peers = false;
        channel.neutrino_compat = true;
    });
    let blacklist = roles.blacklist().await;
    let (channels, news, seed, blacklist) = match (started, random(), blacklist) {
        (Ok((channels, news)), Ok(seed), Ok(blacklist)) => (channels, news, seed, blacklist),
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
            tracing::error!(%error, "the maker cannot be started");
            run.desk.failed("start_failed", &error.to_string());
            return;
        }
    };
    let MakerRun { wallet, terms, rules, settings, desk } = run;
    let nick = channels.nick();
    tracing::info!(%nick, "maker starts");
    if let Err(error) = roles.statement.connected(epoch()).await {
        tracing::warn!(%error, "the income statement cannot be written");
    }
    let config = MakerConfig {
        rules,
        policy: settings.commitment,
        accept_commitments: settings.accept_commitment_broadcasts,
        interest_rate: settings.interest_rate,
        bond_exponent: settings.bond_value_exponent,
        own_nicks: roles.nicks.recent(epoch()).into_iter().collect(),
        timing: timing(roles.config.network),
        ..MakerConfig::new(nick, terms, epoch())
    };
    let sources = Sources { wallet, commitments: Arc::clone(&roles.commitments), fees: None };
    let stop = either(desk.stopped(), &roles.stop);
    tokio::spawn(watch_reach(channels.onion_status(), desk.reach()));
    let books = roles.book.clone();
    let parts = Parts { sources, channels, news, books, stop: stop.clone() };
    let party = Party::new(parts, |view, book| {
        let mut maker = Maker::new(config, blacklist, view, seed, Duration::ZERO);
        maker.book(book, Duration::ZERO);
        maker
    });
    let places = Arc::new(Semaphore::new(PUBLICATIONS));
    let role = MakerRole { roles, desk, places };
    let end = party.run(&role).await;
    stop.cancel();
    tracing::info!(reason = end.code(), "maker ended");
    role.desk.finished(&end);
}

/// Reports whether takers can reach us, as long as the channel lives.
async fn watch_reach(mut status: watch::Receiver<OnionStatus>, reach: MakerReach) {
    loop {
        let trouble = match &status.borrow_and_update().service {
            ServiceState::Absent { reason } => Some(format!("Tor cannot be reached: {reason}")),
            ServiceState::Refused { reason } => {
                Some(format!("Tor gives us no onion service: {reason}"))
            }
            ServiceState::Bootstrapping { percent, summary } => {
                Some(format!("Tor is still connecting: {percent} %, {summary}"))
            }
            _ => None,
        };
        reach.trouble(trouble.as_deref());
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// On a private chain of one machine nobody watches: nothing is gained by waiting.
fn timing(network: Network) -> MakerTiming {
    let usual = MakerTiming::default();
    if network != Network::Regtest {
        return usual;
    }
    MakerTiming {
        reannounce_delay_max: Duration::from_secs(2),
        announce_interval: Duration::from_secs(3),
        publish: (Duration::from_secs(1), Duration::from_secs(1)),
        ..usual
    }
}

/// Does what the maker wants done.
#[derive(Debug)]
struct MakerRole {
    roles: Arc<Roles>,
    desk: MakerDesk,
    /// For publications that run.
    places: Arc<Semaphore>,
}

impl Role for MakerRole {
    type Machine = Maker;
    type End = MakerEnd;

    async fn perform(&self, around: &Surroundings, output: Output) -> ControlFlow<MakerEnd> {
        match output {
            Output::Send { to, word, payload, prefer } => {
                around.send(to, word, payload, prefer).await;
            }
            Output::Announce { text, on } => {
                if let Err(error) = around.channels.announce(text, on).await {
                    tracing::info!(%error, "not announced");
                }
            }
            Output::Ask(id, question) => around.executor.ask(id, question),
            Output::PublishCommitment(commitment) => {
                self.publish(commitment, around.unpublished.clone());
            }
            Output::State(state) => self.desk.state(state),
            Output::Finished(end) => return ControlFlow::Break(end),
        }
        ControlFlow::Continue(())
    }
}

impl MakerRole {
    /// Publishes a commitment in a task of its own; `failed` hears of it when that cannot be done.
    fn publish(&self, commitment: Commitment, failed: mpsc::UnboundedSender<Commitment>) {
        // An error of `failed` means that the maker has ended.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let _ = failed.send(commitment);
            return;
        };
        let roles = Arc::clone(&self.roles);
        tokio::spawn(async move {
            let _place = place;
            let published = timeout(PUBLISH, publish(&roles, commitment)).await;
            if !matches!(published, Ok(Ok(()))) {
                tracing::debug!("a used commitment was not published by a throwaway nick");
                let _ = failed.send(commitment);
            }
        });
    }
}

/// Publishes a used commitment by a nick and circuits that are used for nothing else.
async fn publish(roles: &Roles, commitment: Commitment) -> anyhow::Result<()> {
    let (channels, mut news) =
        roles.channels("commitment", None, |channel| channel.dial_peers = false)?;
    // A channel whose news nobody reads stands still.
    let listen = tokio::spawn(async move { while news.recv().await.is_some() {} });
    channels.ready().await?;
    channels.announce(format!("hp2 {commitment}"), None).await?;
    channels.close().await;
    listen.abort();
    Ok(())
}
