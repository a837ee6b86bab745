//! One server: its connection, our place in its registration, who is there, what waits to be sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use joinery_proto::irc::{MAX_PRIVMSG, Reassembler};
use joinery_proto::nick::Nick;
use rand::Rng;
use rand::rngs::StdRng;

use super::config::{IrcServer, IrcTiming};
use crate::budget::Budget;
use crate::event::LinkId;

/// Most lines that wait to be sent: five minutes' worth.
pub(super) const MAX_QUEUE: usize = 256;
/// Most peers that are known to be in one channel. The market has a few hundred.
pub const MAX_PRESENT: usize = 4_096;
/// Lines a server may bring: it carries everybody's traffic, each slowly, and long greetings.
const LINES_PER_SECOND: f64 = 100.0;
const LINES_BURST: u32 = 2_000;
/// Signatures that are verified for one server: 50 a second in the long run (`spec/protocol.md` 13.2).
const SIGNATURES_PER_SECOND: f64 = 50.0;
const SIGNATURES_BURST: u32 = 500;
/// Order book requests: 2 at once, 2 a minute in the long run. Every maker answers each of them.
const ORDERBOOK_BURST: u32 = 2;
const ORDERBOOK_PER_SECOND: f64 = 2.0 / 60.0;

/// Where the connection to a server stands, for displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Waiting before the next attempt.
    Waiting,
    /// Connecting, registering or joining.
    Connecting,
    /// In the channel.
    Up,
}

/// How a server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which.
    pub address: IrcServer,
    /// Where its connection stands.
    pub state: ServerState,
    /// Attempts that failed since it was last well.
    pub failures: u32,
    /// Peers that are there.
    pub peers: usize,
}

/// Our place in the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected; the next attempt is due then.
    Waiting { until: Duration },
    /// Waiting for the driver.
    Dialing { link: LinkId, until: Duration },
    /// Our nick is given and the channel is to be joined. `nick_at`: the nick was in use and is tried again then.
    Registering { link: LinkId, until: Duration, welcomed: bool, nick_at: Option<Duration> },
    /// In the channel, and told who is there.
    Listing { link: LinkId, until: Duration },
    /// In the channel, and we know who is there.
    Up { link: LinkId, since: Duration },
    /// No more.
    Stopped,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: IrcServer,
    pub(super) stage: Stage,
    pub(super) failures: u32,
    pub(super) lines: Budget,
    pub(super) signatures: Budget,
    /// What signatures cover there.
    pub(super) hostid: String,
    /// Longest line that others get whole from us.
    pub(super) longest: usize,
    pub(super) heard: Duration,
    pub(super) ping_at: Duration,
    pub(super) pieces: Reassembler,
    /// Who is there, and whether a signature proved it.
    pub(super) present: BTreeMap<Nick, bool>,
    /// Lines of the connection itself, which go first.
    control: VecDeque<String>,
    /// The answer to the server's last ping.
    pong: Option<String>,
    queue: VecDeque<String>,
    orderbook_wanted: bool,
    orderbooks: Budget,
    /// No line is sent before.
    next_line: Duration,
}

impl Server {
    pub(super) fn new(address: IrcServer) -> Self {
        Self {
            hostid: address.fallback_hostid(),
            address,
            stage: Stage::Waiting { until: Duration::ZERO },
            failures: 0,
            lines: Budget::new(LINES_PER_SECOND, LINES_BURST),
            signatures: Budget::new(SIGNATURES_PER_SECOND, SIGNATURES_BURST),
            longest: MAX_PRIVMSG,
            heard: Duration::ZERO,
            ping_at: Duration::ZERO,
            pieces: Reassembler::default(),
            present: BTreeMap::new(),
            control: VecDeque::new(),
            pong: None,
            queue: VecDeque::new(),
            orderbook_wanted: false,
            orderbooks: Budget::new(ORDERBOOK_PER_SECOND, ORDERBOOK_BURST),
            next_line: Duration::ZERO,
        }
    }

    /// The connection, whatever its stage.
    pub(super) const fn link(&self) -> Option<LinkId> {
        match self.stage {
            Stage::Dialing { link, .. }
            | Stage::Registering { link, .. }
            | Stage::Listing { link, .. }
            | Stage::Up { link, .. } => Some(link),
            Stage::Waiting { .. } | Stage::Stopped => None,
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    /// Whether presence there counts.
    pub(super) const fn is_joined(&self) -> bool {
        matches!(self.stage, Stage::Listing { .. } | Stage::Up { .. })
    }

    /// Whether this is the name of our channel there.
    pub(super) fn is_channel(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.address.channel())
    }

    /// Forgets everything that belonged to a connection.
    pub(super) fn clear(&mut self) {
        self.hostid = self.address.fallback_hostid();
        self.longest = MAX_PRIVMSG;
        self.pieces = Reassembler::default();
        self.present.clear();
        self.control.clear();
        self.pong = None;
        self.queue.clear();
        self.orderbook_wanted = false;
    }

    // Sending.

    /// Puts up a line of the connection itself.
    pub(super) fn control(&mut self, line: String) {
        self.control.push_back(line);
    }

    /// Answers a ping. Only the last one: a server that sends many gets one answer.
    pub(super) fn pong(&mut self, token: &str) {
        self.pong = Some(format!("PONG {token}"));
    }

    /// Whether so many more lines have room.
    pub(super) fn has_room(&self, lines: usize) -> bool {
        self.queue.len().saturating_add(lines) <= MAX_QUEUE
    }

    /// Puts up lines; the caller has asked for room.
    pub(super) fn enqueue(&mut self, lines: impl IntoIterator<Item = String>) {
        self.queue.extend(lines);
    }

    /// Wants one `!orderbook` to be sent as soon as its budget allows.
    pub(super) const fn want_orderbook(&mut self) {
        self.orderbook_wanted = true;
    }

    /// The next line that may be sent now.
    pub(super) fn next_line(&mut self, gap: Duration, now: Duration) -> Option<String> {
        if now < self.next_line {
            return None;
        }
        let line = self.control.pop_front().or_else(|| self.pong.take());
        let line = match line {
            Some(line) => line,
            None if !self.is_up() => return None,
            None if self.orderbook_wanted && self.orderbooks.take(now) => {
                self.orderbook_wanted = false;
                format!("PRIVMSG {} :!orderbook", self.address.channel())
            }
            None => self.queue.pop_front()?,
        };
        self.next_line = now.saturating_add(gap);
        Some(line)
    }

    /// When the next line may be sent, if there is one.
    fn line_due(&self, now: Duration) -> Option<Duration> {
        if !self.control.is_empty()
            || self.pong.is_some()
            || (self.is_up() && !self.queue.is_empty())
        {
            return Some(self.next_line);
        }
        let wanted = self.is_up() && self.orderbook_wanted;
        wanted.then(|| self.orderbooks.ready_at(1, now).max(self.next_line))
    }

    /// A new connection: nothing was sent on it.
    pub(super) fn reset_gap(&mut self, now: Duration) {
        self.next_line = now;
    }

    // Time.

    /// The pause before the next attempt, e times as long after each failure, never in step with others.
    pub(super) fn pause(
        &mut self,
        timing: &IrcTiming,
        refused: bool,
        rng: &mut StdRng,
    ) -> Duration {
        let growth = f64::from(self.failures.min(32)).exp();
        self.failures = self.failures.saturating_add(1);
        let pause = (timing.retry_first.as_secs_f64() * growth).min(timing.retry_max.as_secs_f64());
        let pause = if refused { pause.max(timing.refused_pause.as_secs_f64()) } else { pause };
        // A fifth less to a fifth more.
        let jitter: f64 = rng.random();
        Duration::from_secs_f64(pause * jitter.mul_add(0.4, 0.8))
    }

    /// When something is to be done here without any input.
    pub(super) fn wake(&self, timing: &IrcTiming, now: Duration) -> Option<Duration> {
        let stage = match self.stage {
            Stage::Waiting { until }
            | Stage::Dialing { until, .. }
            | Stage::Listing { until, .. } => until,
            Stage::Registering { until, nick_at, .. } => nick_at.map_or(until, |at| at.min(until)),
            Stage::Up { .. } => self.ping_at.min(self.heard.saturating_add(timing.dead)),
            Stage::Stopped => return None,
        };
        Some(self.line_due(now).map_or(stage, |due| due.min(stage)))
    }

    pub(super) fn status(&self) -> ServerStatus {
        ServerStatus {
            address: self.address.clone(),
            state: match self.stage {
                Stage::Waiting { .. } | Stage::Stopped => ServerState::Waiting,
                Stage::Up { .. } => ServerState::Up,
                _ => ServerState::Connecting,
            },
            failures: self.failures,
            peers: self.present.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn pauses_grow_by_e_stay_apart_and_end_at_an_hour() {
        let timing = IrcTiming::default();
        let address = IrcServer::new("h", 1, "c", "mainnet", false).unwrap();
        let mut rng = StdRng::from_seed([1; 32]);
        let mut server = Server::new(address.clone());
        let mut exact = 1.0_f64;
        for _ in 0..40 {
            let pause = server.pause(&timing, false, &mut rng).as_secs_f64();
            assert!(pause >= exact * 0.8 && pause <= exact * 1.2, "{pause} for {exact}");
            exact = (exact * std::f64::consts::E).min(3_600.0);
        }
        assert!((exact - 3_600.0).abs() < 1.0);
        let mut fresh = Server::new(address);
        let pauses = [(); 2].map(|()| {
            fresh.failures = 0;
            fresh.pause(&timing, true, &mut rng)
        });
        assert!(pauses.iter().all(|pause| *pause >= timing.refused_pause.mul_f64(0.8)));
        assert_ne!(pauses[0], pauses[1], "jitter");
    }
}
