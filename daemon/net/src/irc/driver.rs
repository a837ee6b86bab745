//! The loop between the machine and its connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use joinery_proto::irc::MAX_LINE_IN;
use joinery_roles::event::{ChannelEvent, LinkId};
use joinery_roles::irc_channel::{IrcChannel, LogFact, Output};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::IrcSockets;
use super::dial::{Dialer, Stream};
use super::handle::{Call, IrcStatus};
use crate::link::{Link, LinkLimits, LinkNews};

/// Inputs that wait for the driver; each link has at most one line among them.
const INPUTS: usize = 64;
/// Events that wait in the driver before it stops reading.
const BACKLOG: usize = 1_024;
/// How long the end of the channel waits for what was said last.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest sleep: far ends of time are not for timers.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

/// What tasks tell the driver.
enum Input {
    /// A dialled connection is open.
    Opened(LinkId, Box<dyn Stream>),
    /// Whether the proxy could be used at all; why not.
    Proxy(Option<String>),
    /// A connection has something to say.
    Link(LinkNews),
}

impl From<LinkNews> for Input {
    fn from(news: LinkNews) -> Self {
        Self::Link(news)
    }
}

pub(super) struct Driver {
    channel: IrcChannel,
    sockets: IrcSockets,
    dialer: Dialer,
    started: Instant,
    links: BTreeMap<LinkId, Link>,
    /// Links that may not be read before the time.
    paused: BTreeMap<LinkId, Duration>,
    inputs: mpsc::Sender<Input>,
    arrivals: mpsc::Receiver<Input>,
    events: mpsc::Sender<ChannelEvent>,
    backlog: VecDeque<ChannelEvent>,
    status: watch::Sender<IrcStatus>,
    proxy_failure: Option<String>,
    /// Those that dial and read.
    tasks: JoinSet<()>,
    /// Those that write.
    writers: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(
        channel: IrcChannel,
        sockets: IrcSockets,
        dialer: Dialer,
        events: mpsc::Sender<ChannelEvent>,
        status: watch::Sender<IrcStatus>,
    ) -> Self {
        let (inputs, arrivals) = mpsc::channel(INPUTS);
        Self {
            channel,
            sockets,
            dialer,
            started: Instant::now(),
            links: BTreeMap::new(),
            paused: BTreeMap::new(),
            inputs,
            arrivals,
            events,
            backlog: VecDeque::new(),
            status,
            proxy_failure: None,
            tasks: JoinSet::new(),
            writers: JoinSet::new(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs until `stop` is cancelled or nobody is there to speak or to listen any more.
    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<Call>, stop: CancellationToken) {
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
                // A role that is gone needs no channel, whether or not there is anything to tell it.
                () = events.closed() => break,
                // Tasks that ended are taken off the lists, so that these do not grow.
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.writers.join_next() => {}
                () = sleep_until(self.started + wake) => self.resume(),
            }
        }
        self.end().await;
    }

    /// Says goodbye and closes everything.
    async fn end(mut self) {
        self.channel.stop(self.now());
        self.perform();
        self.show();
        // Connections that never came about.
        self.links.clear();
        self.tasks.shutdown().await;
        let farewell = async { while self.writers.join_next().await.is_some() {} };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("not every server took our goodbye");
        }
        self.writers.shutdown().await;
    }

    /// Shows how the channel does, when that has changed.
    fn show(&self) {
        let mut status = IrcStatus::of(&self.channel);
        status.proxy_failure.clone_from(&self.proxy_failure);
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    fn resume(&mut self) {
        let now = self.now();
        let due: Vec<LinkId> =
            self.paused.iter().filter(|(_, until)| **until <= now).map(|(link, _)| *link).collect();
        for link in due {
            self.paused.remove(&link);
            if let Some(link) = self.links.get(&link) {
                link.grant();
            }
        }
        self.channel.tick(now);
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
            Input::Proxy(failure) => self.proxy_failure = failure,
            Input::Link(LinkNews::Line(link, line)) => {
                if self.links.contains_key(&link) {
                    self.channel.received(link, &line, now);
                    // What the machine wants done with this line comes first: it may want a pause.
                    self.perform();
                    if let (Some(open), false) =
                        (self.links.get(&link), self.paused.contains_key(&link))
                    {
                        open.grant();
                    }
                }
            }
            Input::Link(LinkNews::Closed(link, reason)) => {
                if self.forget(link).is_some() {
                    self.channel.closed(link, &reason, now);
                }
            }
        }
    }

    fn forget(&mut self, link: LinkId) -> Option<Link> {
        self.paused.remove(&link);
        self.links.remove(&link)
    }

    fn open(&mut self, link: LinkId, stream: Box<dyn Stream>) {
        let limits = LinkLimits {
            line: MAX_LINE_IN,
            queue: self.sockets.write_queue,
            patience: self.sockets.write_timeout,
        };
        let halves = tokio::io::split(stream);
        let (readers, writers) = (&mut self.tasks, &mut self.writers);
        let open = Link::open(link, halves, limits, &self.inputs, readers, writers);
        self.links.insert(link, open);
    }

    /// Does what the machine wants.
    fn perform(&mut self) {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Dial { link, server, address } => {
                    let (dialer, inputs) = (self.dialer.clone(), self.inputs.clone());
                    let task = self.tasks.spawn(async move {
                        let (proxy, input) = match dialer.dial(server, &address).await {
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
                    if !keeps_up && self.forget(link).is_some() {
                        let reason = "it does not read what is sent to it";
                        self.channel.closed(link, reason, self.now());
                    }
                }
                Output::Close { link } => {
                    if let Some(link) = self.forget(link) {
                        link.finish();
                    }
                }
                Output::Pause { link, until } => {
                    let paused = self.paused.entry(link).or_default();
                    *paused = until.max(*paused);
                }
                Output::Event(event) => self.backlog.push_back(event),
                Output::Log(fact) => log(self.sockets.purpose, &fact),
            }
        }
    }
}

fn log(channel: &'static str, fact: &LogFact) {
    match fact {
        LogFact::ServerUp { server, hostid } => {
            tracing::info!(channel, server, hostid, "IRC server connected");
        }
        LogFact::ServerLost { server, reason, retry_in } => {
            let reason = crate::text::printable(reason);
            let retry_s = retry_in.as_secs();
            tracing::info!(channel, server, reason, retry_s, "IRC server not connected");
        }
        LogFact::NickInUse { server } => {
            tracing::info!(
                channel,
                server,
                "our nick is in use on an IRC server, most likely by our last connection"
            );
        }
        LogFact::Misbehaviour { cause, via, unreported } => {
            tracing::warn!(channel, ?cause, ?via, unreported, "foreign misbehaviour");
        }
    }
}
