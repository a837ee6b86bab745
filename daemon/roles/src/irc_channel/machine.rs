//! The machine: links, their life and their deadlines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use joinery_proto::nick::Nick;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::config::{IrcConfig, IrcConfigError, MAX_SERVERS};
use super::output::{LogFact, Output};
use super::server::{Server, ServerStatus, Stage};
use crate::complaints::{Cause, Complaints};
use crate::event::{ChannelEvent, LinkId, Source};
use crate::recent::Recent;

/// Longest reason of a lost connection that is kept, characters.
const MAX_REASON: usize = 256;
/// How long a channel with at least one server that is up waits for the others (`spec/protocol.md` 5).
const PATIENCE: Duration = Duration::from_secs(60);

/// The IRC message channel of one nick. See the module's text for how to drive it.
#[derive(Debug)]
pub struct IrcChannel {
    pub(super) config: IrcConfig,
    pub(super) nick: Nick,
    rng: StdRng,
    next_link: u64,
    pub(super) servers: Vec<Server>,
    pub(super) links: BTreeMap<LinkId, u16>,
    pub(super) recent: Recent,
    complaints: Complaints,
    outputs: VecDeque<Output>,
    /// The latest time that anybody told.
    pub(super) now: Duration,
}

impl IrcChannel {
    /// A channel that dials at its first [`Self::tick`]. `seed` decides jitter: from the operating system in a
    /// daemon, from the scheduler in a simulation.
    ///
    /// # Errors
    /// [`IrcConfigError`].
    pub fn new(config: IrcConfig, seed: [u8; 32]) -> Result<Self, IrcConfigError> {
        let count = config.servers.len();
        if count > MAX_SERVERS {
            return Err(IrcConfigError::TooManyServers { count });
        }
        Ok(Self {
            nick: config.key.nick(),
            rng: StdRng::from_seed(seed),
            next_link: config.first_link,
            servers: config.servers.iter().cloned().map(Server::new).collect(),
            links: BTreeMap::new(),
            recent: Recent::default(),
            complaints: Complaints::default(),
            outputs: VecDeque::new(),
            now: Duration::ZERO,
            config,
        })
    }

    /// Our nick.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.nick
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::tick`] is to be called if nothing else happens before. `None`: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.servers.iter().filter_map(|server| server.wake(&self.config.timing, self.now)).min()
    }

    /// How each server does.
    pub fn servers(&self) -> impl Iterator<Item = ServerStatus> + '_ {
        self.servers.iter().map(Server::status)
    }

    /// Whether anything can be sent: at least one server is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.servers.iter().any(Server::is_up)
    }

    /// Start-up is over (`spec/protocol.md` 5): every server is up, or at least one is and a minute has passed since
    /// `started`.
    #[must_use]
    pub fn is_ready(&self, started: Duration, now: Duration) -> bool {
        let late = now.saturating_sub(started) >= PATIENCE;
        self.is_up() && (self.servers.iter().all(Server::is_up) || late)
    }

    /// Whether a peer is in the channel of a server.
    #[must_use]
    pub fn is_present(&self, nick: &Nick, server: u16) -> bool {
        let server = self.servers.get(usize::from(server));
        server.is_some_and(|server| server.present.contains_key(nick))
    }

    /// Closes everything; nothing is dialled any more.
    pub fn stop(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for id in 0..self.count() {
            let Some(server) = self.server(id) else { continue };
            let was_up = server.is_up();
            let link = server.link();
            server.stage = Stage::Stopped;
            server.clear();
            if let Some(link) = link {
                self.links.remove(&link);
                if was_up {
                    self.out(Output::Send { link, line: "QUIT :\r\n".to_owned() });
                }
                self.out(Output::Close { link });
            }
            if was_up {
                self.event(ChannelEvent::Down(Source::Irc(id)));
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for id in 0..self.count() {
            self.tick_server(id);
        }
    }

    /// A dialled link is open.
    pub fn opened(&mut self, link: LinkId, now: Duration) {
        self.now = self.now.max(now);
        let Some(id) = self.links.get(&link).copied() else { return };
        let (now, nick, until) = (self.now, self.nick, self.now + self.config.timing.register);
        let Some(server) = self.server(id) else { return };
        server.stage = Stage::Registering { link, until, welcomed: false, nick_at: None };
        server.heard = now;
        server.ping_at = until;
        server.reset_gap(now);
        // As the reference does, whose library fills in the rest.
        server.control(format!("NICK {nick}"));
        server.control(format!("USER {nick} foo bar :None"));
        self.flush(id);
    }

    /// A link could not be opened, or is no more. `reason` is for the log.
    pub fn closed(&mut self, link: LinkId, reason: &str, now: Duration) {
        self.now = self.now.max(now);
        if let Some(id) = self.links.remove(&link) {
            self.server_lost(id, reason, false);
        }
    }

    pub(super) fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: ChannelEvent) {
        self.out(Output::Event(event));
    }

    pub(super) fn complain(&mut self, cause: Cause, via: Source) {
        if let Some(unreported) = self.complaints.report(cause, self.now) {
            self.out(Output::Log(LogFact::Misbehaviour { cause, via, unreported }));
        }
    }

    /// Number of servers; there are at most [`MAX_SERVERS`].
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.servers.len()).unwrap_or(u16::MAX)
    }

    /// The server of a number that we gave out ourselves.
    pub(super) fn server(&mut self, id: u16) -> Option<&mut Server> {
        self.servers.get_mut(usize::from(id))
    }

    fn tick_server(&mut self, id: u16) {
        let (now, timing, nick) = (self.now, self.config.timing, self.nick);
        let Some(server) = self.server(id) else { return };
        match &mut server.stage {
            Stage::Waiting { until } if *until <= now => self.dial(id),
            Stage::Dialing { until, .. } if *until <= now => {
                self.give_up(id, "no connection in time", false);
            }
            Stage::Registering { until, nick_at, .. } => {
                if *until <= now {
                    let reason = match nick_at {
                        Some(_) => "our nick is in use there",
                        None => "it did not let us in in time",
                    };
                    self.give_up(id, reason, false);
                } else if nick_at.is_some_and(|at| at <= now) {
                    // The same again and never another one: nobody would know whose it is.
                    *nick_at = None;
                    server.control(format!("NICK {nick}"));
                }
            }
            Stage::Listing { until, .. } if *until <= now => self.listed(id),
            Stage::Up { .. } => {
                if server.heard.saturating_add(timing.dead) <= now {
                    self.give_up(id, "nothing was heard for too long", false);
                } else if server.ping_at <= now {
                    server.ping_at = now.saturating_add(timing.ping);
                    let host = server.address.host().to_owned();
                    server.control(format!("PING {host}"));
                }
            }
            _ => {}
        }
        self.flush(id);
    }

    fn dial(&mut self, id: u16) {
        let until = self.now + self.config.timing.connect;
        let link = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        let Some(server) = self.server(id) else { return };
        server.stage = Stage::Dialing { link, until };
        let address = server.address.clone();
        self.links.insert(link, id);
        self.out(Output::Dial { link, server: id, address });
    }

    /// Sends what waits and may go.
    pub(super) fn flush(&mut self, id: u16) {
        let (now, gap) = (self.now, self.config.timing.line_gap);
        while let Some(server) = self.server(id) {
            let Some(link) = server.link() else { return };
            let Some(mut line) = server.next_line(gap, now) else { return };
            line.push_str("\r\n");
            self.out(Output::Send { link, line });
        }
    }

    /// We are in the channel, and will be told who is there.
    pub(super) fn joined(&mut self, id: u16, longest: usize) {
        let (until, nick) = (self.now + self.config.timing.list, self.nick);
        let Some(server) = self.server(id) else { return };
        let Stage::Registering { link, welcomed: true, .. } = server.stage else { return };
        server.stage = Stage::Listing { link, until };
        server.longest = longest;
        // Servers usually want bots to say that they are.
        server.control(format!("MODE {nick} +B"));
        self.flush(id);
    }

    /// We know who is there. It is told before we are up: who speaks at once knows to whom.
    pub(super) fn listed(&mut self, id: u16) {
        let (now, via) = (self.now, Source::Irc(id));
        let Some(server) = self.server(id) else { return };
        let Stage::Listing { link, .. } = server.stage else { return };
        server.stage = Stage::Up { link, since: now };
        let hostid = server.hostid.clone();
        let there: Vec<Nick> = server.present.keys().copied().collect();
        for nick in there {
            self.event(ChannelEvent::Seen { nick, via });
        }
        self.out(Output::Log(LogFact::ServerUp { server: id, hostid }));
        self.event(ChannelEvent::Up(via));
        self.flush(id);
    }

    /// Closes the connection to a server. `refused`: trying again soon is of no use.
    pub(super) fn give_up(&mut self, id: u16, reason: &str, refused: bool) {
        if let Some(link) = self.server(id).and_then(|server| server.link()) {
            self.links.remove(&link);
            self.out(Output::Close { link });
        }
        self.server_lost(id, reason, refused);
    }

    fn server_lost(&mut self, id: u16, reason: &str, refused: bool) {
        let (now, timing) = (self.now, self.config.timing);
        let Some(server) = self.servers.get_mut(usize::from(id)) else { return };
        let up = match server.stage {
            Stage::Up { since, .. } => Some(since),
            _ => None,
        };
        // Only a connection that lasted wipes out failures (defect 33).
        if up.is_some_and(|since| now.saturating_sub(since) >= timing.settled) {
            server.failures = 0;
        }
        let retry_in = server.pause(&timing, refused, &mut self.rng);
        server.stage = Stage::Waiting { until: now.saturating_add(retry_in) };
        server.clear();
        let reason = reason.chars().take(MAX_REASON).collect();
        self.out(Output::Log(LogFact::ServerLost { server: id, reason, retry_in }));
        if up.is_some() {
            self.event(ChannelEvent::Down(Source::Irc(id)));
        }
    }
}
