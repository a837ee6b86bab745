//! The thread that owns the wallet's connection: connects, greets, follows the chain, serves the watch, and
//! begins again after every failure, ever more slowly.

use std::sync::Arc;
use std::time::Duration;

use joinery_wallet::chain::{ChainStatus, WatchEvent};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::answers;
use super::backoff::Backoff;
use super::client::{Call, Client};
use super::config::{ElectrumConfig, Timing};
use super::error::LinkError;
use super::handshake::{Greeting, greet};
use super::headers::{HeaderChain, TipChange};
use super::pace::Pace;
use super::rules::Rules;
use super::sync::{Progress, Stop, Sync};
use super::transport::{Connector, Stream};
use super::watch::Session;
use crate::text::printable;

/// First pause after a server was caught lying: it will not have changed in a second.
const MISTRUST: Duration = Duration::from_secs(5);

/// A connection that stands, for questions from other threads.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) greeting: Arc<Greeting>,
}

/// What the rest of the daemon sees of the thread.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    pub(super) status: watch::Sender<ChainStatus>,
    pub(super) link: watch::Sender<Option<Link>>,
}

/// The thread's state.
pub(super) struct Engine {
    connector: Connector,
    timing: Timing,
    public: bool,
    near: bool,
    headers: HeaderChain,
    /// The server is at this lower height.
    behind: Option<u32>,
    session: Option<Session>,
    sessions: mpsc::UnboundedReceiver<Session>,
    pace: Pace,
    outside: Outside,
    /// When the connection of this attempt was ready.
    ready: Option<Instant>,
}

impl Engine {
    pub(super) fn new(
        config: &ElectrumConfig,
        connector: Connector,
        sessions: mpsc::UnboundedReceiver<Session>,
        outside: Outside,
    ) -> Self {
        Self {
            connector,
            timing: config.timing,
            public: config.is_public_server(),
            near: config.proxy.is_none(),
            headers: HeaderChain::new(Rules::new(config.network)),
            behind: None,
            session: None,
            sessions,
            pace: Pace::default(),
            outside,
            ready: None,
        }
    }

    /// Runs until the future is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.timing.backoff_first, self.timing.backoff_max);
        loop {
            self.ready = None;
            let error = self.attempt().await;
            self.outside.link.send_replace(None);
            if self.ready.is_some_and(|ready| ready.elapsed() >= self.timing.settled) {
                backoff.reset();
            }
            let mut pause = backoff.next();
            if error.is_misbehaviour() {
                pause = pause.max(MISTRUST.min(self.timing.backoff_max));
            }
            let reason = error.to_string();
            tracing::warn!(reason, pause_ms = pause.as_millis(), "no Electrum server");
            self.outside.status.send_modify(|status| {
                status.connected = false;
                status.last_error = Some(reason.clone());
            });
            self.tell_disconnected(reason);
            self.wait_for(pause).await;
        }
    }

    /// Waits, and takes new sessions meanwhile, so that they hear why nothing happens.
    async fn wait_for(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while let Ok(session) = tokio::time::timeout_at(until, self.sessions.recv()).await {
            let Some(session) = session else {
                // The engine is being dropped; the thread ends at its next wait.
                return tokio::time::sleep_until(until).await;
            };
            self.session = Some(session);
            let reason = self.outside.status.borrow().last_error.clone();
            self.tell_disconnected(reason.unwrap_or_default());
        }
    }

    fn tell_disconnected(&mut self, reason: String) {
        if let Some(session) = self.session.as_mut()
            && !session.told_disconnected
        {
            // A wallet that has no room for this has more urgent things to read, and the status to look at.
            session.told_disconnected =
                session.events.try_send(WatchEvent::Disconnected { reason }).is_ok();
        }
    }

    /// One connection from its beginning to its end.
    async fn attempt(&mut self) -> LinkError {
        let connected = match self.connector.connect().await {
            Ok(connected) => connected,
            Err(error) => return LinkError::Connect(printable(&error.to_string())),
        };
        self.public = connected.public;
        let stream: Box<dyn Stream> = connected.stream;
        let client = Client::start(stream, self.timing.answer);
        let error = match self.serve(&client).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        client.close(error.clone());
        error
    }

    /// Greets the server and then does whatever there is to do, until the connection fails.
    async fn serve(&mut self, client: &Client) -> Result<std::convert::Infallible, LinkError> {
        let greeting = greet(client, self.headers.rules()).await?;
        let call = Call::small("blockchain.headers.subscribe", json!([]));
        let answer = client.require(call).await?;
        self.take_tip(client, answer.text()).await?;
        drop(answer);
        tracing::info!(server = greeting.software, protocol = greeting.protocol, "connected");
        self.outside.status.send_modify(|status| {
            status.connected = true;
            status.public_server = self.public;
            status.server = Some(greeting.software.clone());
        });
        let link = Link { client: client.clone(), greeting: Arc::new(greeting) };
        self.outside.link.send_replace(Some(link));
        let near = self.near && !self.public;
        let interval = if near { self.timing.ping_near } else { self.timing.ping_far };
        tokio::spawn(keep_alive(client.clone(), interval));
        self.ready = Some(Instant::now());
        if let Some(session) = self.session.as_mut() {
            session.reconnected();
        }
        let mut recheck = Instant::now() + self.timing.recheck;
        loop {
            if client.is_closed() {
                return Err(client.closed().await);
            }
            while let Ok(session) = self.sessions.try_recv() {
                self.session = Some(session);
            }
            let pushes = client.take_pushes();
            if let Some(tip) = pushes.tip {
                self.take_tip(client, &tip).await?;
            }
            if let Some(session) = self.session.as_mut() {
                for (hash, status) in pushes.scripts {
                    session.announce_hash(&hash, status);
                }
                if Instant::now() >= recheck {
                    recheck = Instant::now() + self.timing.recheck;
                    session.subscribe_all();
                }
            }
            let progress = self.work(client).await?;
            self.publish(matches!(progress, Progress::Idle(None)));
            if let Progress::Idle(wake) = progress {
                self.idle(client, wake.map_or(recheck, |wake| wake.min(recheck))).await;
            }
        }
    }

    /// Takes what the server says its best block is.
    async fn take_tip(&mut self, client: &Client, text: &str) -> Result<(), LinkError> {
        let (height, header) =
            answers::tip(text).ok_or(LinkError::Protocol("a best block that is none"))?;
        let change = self.headers.follow(client, height, header).await?;
        self.headers.forget();
        self.behind = match change {
            TipChange::Behind(height) => Some(height),
            _ => None,
        };
        if change == TipChange::Reorganised
            && let Some(session) = self.session.as_mut()
        {
            session.agreed = false;
            session.subscribe_all();
        }
        self.publish(false);
        Ok(())
    }

    /// Does one step for the wallet, if there is one.
    async fn work(&mut self, client: &Client) -> Result<Progress, LinkError> {
        let Some(session) = self.session.as_mut() else { return Ok(Progress::Idle(None)) };
        if !session.obey_all() {
            self.session = None;
            return Ok(Progress::Idle(None));
        }
        if self.behind.is_some() {
            return Ok(Progress::Idle(None));
        }
        let mut sync = Sync { client, headers: &mut self.headers, session, pace: &mut self.pace };
        match sync.step().await {
            Ok(progress) => Ok(progress),
            Err(Stop::SessionOver) => {
                self.session = None;
                Ok(Progress::Worked)
            }
            Err(Stop::Link(error)) => {
                // Whatever we asked for may have been too much, or in a form that this server does not know.
                self.pace.shrink();
                if matches!(error, LinkError::Refused { .. }) {
                    self.pace.arrays = false;
                }
                Err(error)
            }
        }
    }

    /// Publishes tip and warnings, waking readers only when something changed. `settled` when there is nothing
    /// left to do.
    fn publish(&self, settled: bool) {
        let tip = self.headers.tip();
        let ours = self.session.as_ref().map(|session| session.chain.height());
        let warning = match (self.behind, tip, ours) {
            (Some(behind), Some(tip), _) => Some(format!(
                "the server is at block {behind}, behind block {} that it had before",
                tip.height
            )),
            (None, Some(tip), Some(ours)) if ours > tip.height => Some(format!(
                "the server is at block {}, behind block {ours} that the wallet has seen",
                tip.height
            )),
            _ => match self.session.as_ref().map_or(0, Session::refused) {
                0 if settled => None,
                0 => self.outside.status.borrow().last_error.clone(),
                count => Some(format!("the server refuses the history of {count} scripts")),
            },
        };
        self.outside.status.send_if_modified(|status| {
            // While there is no connection the reason for that is more important. It stays until the work is
            // done, so that a server which fails again and again is not shown as a good one in between.
            let warning = if status.connected { warning } else { status.last_error.clone() };
            let changed = status.tip != tip || status.last_error != warning;
            status.tip = tip;
            status.last_error = warning;
            changed
        });
    }

    /// Waits for anything that could make work.
    async fn idle(&mut self, client: &Client, wake: Instant) {
        let Self { session, sessions, .. } = self;
        tokio::select! {
            () = client.pushed() => {}
            _ = client.closed() => {}
            () = tokio::time::sleep_until(wake) => {}
            new = sessions.recv() => match new {
                Some(new) => *session = Some(new),
                // The engine is being dropped.
                None => client.close(LinkError::Stopped),
            },
            gone = news_from(session.as_mut()) => {
                if gone {
                    *session = None;
                }
            }
        }
    }
}

/// Waits for a command of the wallet and carries it out, or for its end; returns whether it has gone.
async fn news_from(session: Option<&mut Session>) -> bool {
    let Some(session) = session else { return std::future::pending().await };
    let events = session.events.clone();
    tokio::select! {
        command = session.commands.recv() => match command {
            Some(command) => {
                session.obey(command);
                false
            }
            None => true,
        },
        () = events.closed() => true,
    }
}

/// Shows the server that we are still here, and notices when it is not. Also makes electrs look for new
/// transactions.
async fn keep_alive(client: Client, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if client.is_closed() {
            return;
        }
        match client.call(Call::small("server.ping", json!([]))).await {
            // An error is an answer, too: somebody is there.
            Ok(_) | Err(super::error::CallError::Server(_)) => {}
            Err(error) => return client.close(error.into_link("server.ping")),
        }
    }
}
