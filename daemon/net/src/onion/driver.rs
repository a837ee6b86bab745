//! The loop between the machine and its connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use joinery_proto::onion::envelope::MAX_LINE_IN;
use joinery_proto::onion::location::Location;
use joinery_roles::channel::{LogFact, OnionChannel, Output};
use joinery_roles::event::{ChannelEvent, LinkId};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::Dialer;
use super::handle::Call;
use super::serve::{self, Service, ServiceState};
use super::{OnionConfig, OnionStatus};
use crate::link::{Link, LinkLimits, LinkNews};
use crate::tor::TorState;

/// Inputs that wait for the driver; each link has at most one line among them.
const INPUTS: usize = 256;
/// Events that wait in the driver before it stops reading.
const BACKLOG: usize = 1_024;
/// How long the end of the channel waits for what was said last.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest sleep: far ends of time are not for timers.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

/// What tasks tell the driver.
#[derive(Debug)]
pub(super) enum Input {
    /// A dialled connection is open.
    Opened(LinkId, TcpStream),
    /// Whether the proxy could be used at all; why not.
    Proxy(Option<String>),
    /// A peer has connected to our listener.
    Accepted(TcpStream),
    /// A connection has something to say.
    Link(LinkNews),
}

impl From<LinkNews> for Input {
    fn from(news: LinkNews) -> Self {
        Self::Link(news)
    }
}

pub(super) struct Driver {
    channel: OnionChannel,
    config: OnionConfig,
    dialer: Dialer,
    started: Instant,
    links: BTreeMap<LinkId, Link>,
    /// Links that may not be read before the time.
    paused: BTreeMap<LinkId, Duration>,
    inputs: mpsc::Sender<Input>,
    arrivals: mpsc::Receiver<Input>,
    events: mpsc::Sender<ChannelEvent>,
    backlog: VecDeque<ChannelEvent>,
    status: watch::Sender<OnionStatus>,
    /// The status may have changed.
    changed: bool,
    proxy_failure: Option<String>,
    service: Service,
    service_state: ServiceState,
    /// Our onion service was reachable before.
    served: bool,
    /// Those that dial, accept and read.
    tasks: JoinSet<()>,
    /// Those that write.
    writers: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(
        channel: OnionChannel,
        config: OnionConfig,
        service: Service,
        events: mpsc::Sender<ChannelEvent>,
        status: watch::Sender<OnionStatus>,
    ) -> Self {
        let (inputs, arrivals) = mpsc::channel(INPUTS);
        Self {
            channel,
            dialer: Dialer::new(config.purpose, config.proxy),
            config,
            started: Instant::now(),
            links: BTreeMap::new(),
            paused: BTreeMap::new(),
            inputs,
            arrivals,
            events,
            backlog: VecDeque::new(),
            status,
            changed: true,
            proxy_failure: None,
            service_state: service.state(),
            service,
            served: false,
            tasks: JoinSet::new(),
            writers: JoinSet::new(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs until `stop` is cancelled or nobody is there to speak or to listen any more.
    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<Call>, stop: CancellationToken) {
        if let Some(listener) = self.service.take_listener() {
            self.tasks.spawn(serve::accept(listener, self.inputs.clone()));
        }
        // By itself, because a permit borrows it across the branches below.
        let events = self.events.clone();
        self.channel.tick(self.now());
        loop {
            self.perform();
            self.show();
            let now = self.now();
            let wake = self.channel.next_wake().into_iter().chain(self.paused.values().copied());
            let wake = wake.min().unwrap_or(Duration::MAX).min(now.saturating_add(LONGEST_SLEEP));
            tokio::select! {
                () = stop.cancelled() => break,
                input = self.arrivals.recv(), if self.backlog.len() < BACKLOG => {
                    // The driver holds a sender itself, so there is always an input to come.
                    if let Some(input) = input {
                        self.input(input);
                    }
                }
                call = calls.recv() => match call {
                    Some(call) => call(&mut self.channel, now),
                    None => break,
                },
                permit = events.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.backlog.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => break,
                },
                state = self.service.changed() => self.service_is(&state),
                // Tasks that ended are taken off the lists, so that these do not grow.
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.writers.join_next() => {}
                () = sleep_until(self.started + wake) => self.resume(),
            }
        }
        self.end().await;
    }

    /// Closes everything, but lets go what was said before.
    async fn end(mut self) {
        std::mem::take(&mut self.links).into_values().for_each(Link::finish);
        self.tasks.shutdown().await;
        self.service_state = match self.service_state {
            ServiceState::Off => ServiceState::Off,
            _ => ServiceState::Stopped,
        };
        self.changed = true;
        self.channel.stop(self.now());
        // The links are closed already: nothing of this is written, and nobody hears the news.
        self.perform();
        self.show();
        let farewell = async { while self.writers.join_next().await.is_some() {} };
        let (farewell, ()) = tokio::join!(timeout(FAREWELL, farewell), self.service.stop(FAREWELL));
        if farewell.is_err() {
            tracing::debug!("not everything that was to be said last could be written");
        }
        self.writers.shutdown().await;
    }

    /// Shows how the channel does, when that has changed.
    fn show(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut status = OnionStatus::of(&self.channel, self.service_state.clone());
        status.proxy_failure.clone_from(&self.proxy_failure);
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    /// Our onion service has another state: directories are told addresses that can be reached, and no others.
    fn service_is(&mut self, state: &TorState) {
        let was = std::mem::replace(&mut self.service_state, state.into());
        self.changed = true;
        let now = self.now();
        match serve::ready(state) {
            Some(address) => {
                let location = Location::Address(address.clone());
                if was != (ServiceState::Serving { location: location.clone() }) {
                    self.channel.set_location(location);
                    // The first address is what start-up waited for; a later one must be told.
                    if std::mem::replace(&mut self.served, true) {
                        self.channel.reconnect(now);
                    }
                    self.channel.tick(now);
                }
            }
            None if self.served => self.channel.set_location(Location::NotServing),
            None => {}
        }
    }

    fn resume(&mut self) {
        let now = self.now();
        let due: Vec<LinkId> =
            self.paused.iter().filter(|(_, until)| **until <= now).map(|(link, _)| *link).collect();
        for link in due {
            self.paused.remove(&link);
            self.grant(link);
        }
        self.channel.tick(now);
    }

    fn grant(&self, link: LinkId) {
        if let Some(link) = self.links.get(&link) {
            link.grant();
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Opened(link, stream) => {
                // Closed by the machine in the meantime, or open.
                if self.links.contains_key(&link) {
                    self.open(link, stream);
                    self.channel.opened(link, now);
                }
            }
            Input::Proxy(failure) => {
                self.proxy_failure = failure;
                self.changed = true;
            }
            Input::Accepted(stream) => {
                let link = self.channel.accepted(now);
                self.open(link, stream);
            }
            Input::Link(LinkNews::Line(link, line)) => {
                if self.links.contains_key(&link) {
                    self.channel.received(link, &line, now);
                    // What the machine wants done with this line comes first: it may want a pause.
                    self.perform();
                    if !self.paused.contains_key(&link) {
                        self.grant(link);
                    }
                }
            }
            Input::Link(LinkNews::Closed(link, reason)) => {
                if self.forget(link) {
                    self.channel.closed(link, &reason, now);
                }
            }
        }
    }

    fn forget(&mut self, link: LinkId) -> bool {
        self.paused.remove(&link);
        self.links.remove(&link).is_some()
    }

    fn open(&mut self, link: LinkId, stream: TcpStream) {
        let limits = LinkLimits {
            line: MAX_LINE_IN,
            queue: self.config.write_queue,
            patience: self.config.write_timeout,
        };
        let (readers, writers) = (&mut self.tasks, &mut self.writers);
        let open = Link::open(link, stream.into_split(), limits, &self.inputs, readers, writers);
        self.links.insert(link, open);
    }

    /// Does what the machine wants.
    fn perform(&mut self) {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Dial { link, address, purpose } => {
                    let (dialer, inputs) = (self.dialer.clone(), self.inputs.clone());
                    let task = self.tasks.spawn(async move {
                        let (proxy, input) = match dialer.dial(&address, purpose).await {
                            Ok((stream, by_proxy)) => {
                                (by_proxy.then_some(None), Input::Opened(link, stream))
                            }
                            Err(error) => {
                                (error.of_proxy(), LinkNews::Closed(link, error.to_string()).into())
                            }
                        };
                        if let Some(failure) = proxy {
                            let _ = inputs.send(Input::Proxy(failure)).await;
                        }
                        let _ = inputs.send(input).await;
                    });
                    self.links.insert(link, Link::dialing(task));
                }
                Output::Send { link, line } => {
                    let keeps_up = self.links.get(&link).is_none_or(|open| open.write(line));
                    if !keeps_up && self.forget(link) {
                        let reason = "it does not read what is sent to it";
                        self.channel.closed(link, reason, self.now());
                    }
                }
                Output::Close { link } => {
                    self.forget(link);
                }
                Output::Pause { link, until } => {
                    let paused = self.paused.entry(link).or_default();
                    *paused = until.max(*paused);
                }
                Output::Event(event) => {
                    self.changed |= matches!(event, ChannelEvent::Up(_) | ChannelEvent::Down(_));
                    self.backlog.push_back(event);
                }
                Output::Log(fact) => {
                    self.changed |=
                        matches!(fact, LogFact::DirectoryUp { .. } | LogFact::DirectoryLost { .. });
                    log(self.config.purpose, &fact);
                }
            }
        }
    }
}

fn log(channel: &'static str, fact: &LogFact) {
    match fact {
        LogFact::DirectoryUp { directory, verified, motd } => {
            let motd = crate::text::printable(motd);
            tracing::info!(channel, directory = directory.0, verified, motd, "directory connected");
        }
        LogFact::DirectoryLost { directory, reason, retry_in } => {
            let reason = crate::text::printable(reason);
            let retry_s = retry_in.as_secs();
            tracing::info!(
                channel,
                directory = directory.0,
                reason,
                retry_s,
                "directory not connected"
            );
        }
        LogFact::PeerUnreachable { nick, reason } => {
            let reason = crate::text::printable(reason);
            tracing::debug!(channel, %nick, reason, "no direct connection");
        }
        LogFact::Undeliverable { nick } => {
            tracing::info!(channel, %nick, "a message found no way to its recipient");
        }
        LogFact::Misbehaviour { cause, via, unreported } => {
            tracing::warn!(channel, ?cause, ?via, unreported, "foreign misbehaviour");
        }
    }
}
