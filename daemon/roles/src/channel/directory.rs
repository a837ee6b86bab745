//! One directory: its connection, our place in its handshake, its budgets.

use std::collections::VecDeque;
use std::time::Duration;

use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::DirectoryHandshake;
use rand::Rng;
use rand::rngs::StdRng;

use super::config::{ChannelTiming, DirectoryAddress};
use crate::budget::Budget;
use crate::event::LinkId;

/// Public messages that wait for the budget; older ones give way.
const MAX_QUEUE: usize = 64;
/// Lines a directory may bring: it carries everybody's traffic (`spec/protocol.md` 13.2).
const LINES_PER_SECOND: f64 = 200.0;
const LINES_BURST: u32 = 2_000;
/// Signatures that are verified for one directory: 50 a second in the long run, and at once as many as a
/// full order book brings in answer to one request (1 000 makers with 3 offers, in two ways).
const SIGNATURES_PER_SECOND: f64 = 50.0;
const SIGNATURES_BURST: u32 = 6_000;
/// Public messages that we send: 20 in any minute. A bucket of 10 that fills at 10 a minute lets no more
/// through in any 60 seconds.
const PUBLIC_BURST: u32 = 10;
const PUBLIC_PER_SECOND: f64 = 10.0 / 60.0;
/// Order book requests: 2 in any minute, in the same way.
const ORDERBOOK_BURST: u32 = 1;
const ORDERBOOK_PER_SECOND: f64 = 1.0 / 60.0;
/// Answers to pings: 6 in any minute, in the same way.
const PONG_BURST: u32 = 3;
const PONG_PER_SECOND: f64 = 3.0 / 60.0;
/// Time between two requests for the peer list; more than three a minute close the connection.
pub(super) const PEER_LIST_INTERVAL: Duration = Duration::from_secs(60);
/// Silence after which a directory that answers pings is pinged, and how long the answer may take.
pub(super) const PING_AFTER: Duration = Duration::from_secs(600);
pub(super) const PONG_WAIT: Duration = Duration::from_secs(30);
/// Silence after which a directory that cannot be pinged is taken for dead. Quiet networks exist.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(3_600);

/// Where the connection to a directory stands, for displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryState {
    /// Waiting before the next attempt.
    Waiting,
    /// Connecting or in the handshake.
    Connecting,
    /// In use.
    Up,
}

/// How a directory does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryStatus {
    /// Which.
    pub address: DirectoryAddress,
    /// Where its connection stands.
    pub state: DirectoryState,
    /// Attempts that failed since it was last well.
    pub failures: u32,
    /// Whether it verified our nick.
    pub verified: bool,
    /// Its flags; none unless it is up.
    pub features: Features,
}

/// Our place in the conversation.
#[derive(Debug)]
pub(super) enum Stage {
    /// Not connected; the next attempt is due then.
    Waiting { until: Duration },
    /// Waiting for the driver.
    Dialing { link: LinkId, until: Duration },
    /// Our handshake is sent; its exact text is part of nick authentication.
    Handshaking { link: LinkId, until: Duration, sent: String },
    /// The directory took us and is to ask for a proof of our nick.
    Authenticating(Authentication),
    /// In use.
    Up(Session),
    /// No more.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Authentication {
    pub(super) link: LinkId,
    pub(super) until: Duration,
    pub(super) sent: String,
    pub(super) greeting: DirectoryHandshake,
    pub(super) proof_sent: bool,
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: LinkId,
    pub(super) features: Features,
    /// The directory's own nick; nothing is ever sent to it and it is nobody's peer.
    pub(super) nick: String,
    pub(super) since: Duration,
    pub(super) heard: Duration,
    pub(super) ping_sent: Option<Duration>,
    pub(super) verified: bool,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) address: DirectoryAddress,
    pub(super) stage: Stage,
    pub(super) failures: u32,
    pub(super) lines: Budget,
    pub(super) signatures: Budget,
    pub(super) pongs: Budget,
    public: Budget,
    orderbooks: Budget,
    queue: VecDeque<String>,
    orderbook_wanted: bool,
    pub(super) peer_list_at: Option<Duration>,
    pub(super) peer_list_wanted: bool,
}

impl Directory {
    pub(super) fn new(address: DirectoryAddress) -> Self {
        Self {
            address,
            stage: Stage::Waiting { until: Duration::ZERO },
            failures: 0,
            lines: Budget::new(LINES_PER_SECOND, LINES_BURST),
            signatures: Budget::new(SIGNATURES_PER_SECOND, SIGNATURES_BURST),
            pongs: Budget::new(PONG_PER_SECOND, PONG_BURST),
            public: Budget::new(PUBLIC_PER_SECOND, PUBLIC_BURST),
            orderbooks: Budget::new(ORDERBOOK_PER_SECOND, ORDERBOOK_BURST),
            queue: VecDeque::new(),
            orderbook_wanted: false,
            peer_list_at: None,
            peer_list_wanted: false,
        }
    }

    /// The connection, whatever its stage.
    pub(super) const fn link(&self) -> Option<LinkId> {
        match &self.stage {
            Stage::Dialing { link, .. } | Stage::Handshaking { link, .. } => Some(*link),
            Stage::Authenticating(authentication) => Some(authentication.link),
            Stage::Up(session) => Some(session.link),
            Stage::Waiting { .. } | Stage::Stopped => None,
        }
    }

    pub(super) const fn session(&self) -> Option<&Session> {
        match &self.stage {
            Stage::Up(session) => Some(session),
            _ => None,
        }
    }

    /// Puts a public message up for sending.
    pub(super) fn enqueue(&mut self, text: String) {
        if self.queue.len() >= MAX_QUEUE {
            self.queue.pop_front();
        }
        self.queue.push_back(text);
    }

    /// Wants one `!orderbook` to be sent as soon as the budget allows.
    pub(super) const fn want_orderbook(&mut self) {
        self.orderbook_wanted = true;
    }

    /// The next public message that may be sent now: order book requests first.
    pub(super) fn next_public(&mut self, now: Duration) -> Option<String> {
        let wanted = self.orderbook_wanted && self.orderbooks.ready_at(1, now) <= now;
        if !wanted && self.queue.is_empty() || !self.public.take(now) {
            return None;
        }
        if wanted && self.orderbooks.take(now) {
            self.orderbook_wanted = false;
            return Some("orderbook".to_owned());
        }
        self.queue.pop_front()
    }

    /// Forgets what waits to be sent: the roles announce again after a reconnection.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.orderbook_wanted = false;
        self.peer_list_wanted = false;
    }

    /// The pause before the next attempt, longer after each failure, never in step with others and never
    /// shorter than the shortest (defect 33: a connection that is reset at once must not become a loop).
    pub(super) fn pause(
        &mut self,
        timing: &ChannelTiming,
        refused: bool,
        rng: &mut StdRng,
    ) -> Duration {
        let growth = 1.5_f64.powi(i32::try_from(self.failures.min(64)).unwrap_or(64));
        self.failures = self.failures.saturating_add(1);
        let pause = timing.retry_first.as_secs_f64() * growth;
        let pause = pause.min(timing.retry_max.as_secs_f64());
        let jitter: f64 = rng.random();
        let (early, late) =
            (timing.retry_jitter.0.as_secs_f64(), timing.retry_jitter.1.as_secs_f64());
        let pause = pause - early + jitter * (early + late);
        let pause = Duration::from_secs_f64(pause.max(timing.retry_first.as_secs_f64() / 2.0));
        if refused { pause.max(timing.refused_pause) } else { pause }
    }

    /// When something is to be done here without any input.
    pub(super) fn wake(&self, now: Duration) -> Option<Duration> {
        match &self.stage {
            Stage::Waiting { until }
            | Stage::Dialing { until, .. }
            | Stage::Handshaking { until, .. } => Some(*until),
            Stage::Authenticating(authentication) => Some(authentication.until),
            Stage::Stopped => None,
            Stage::Up(session) => Some(self.wake_up(session, now)),
        }
    }

    fn wake_up(&self, session: &Session, now: Duration) -> Duration {
        let mut wake = session.deadline();
        if self.orderbook_wanted {
            wake = wake.min(self.orderbooks.ready_at(1, now).max(self.public.ready_at(1, now)));
        }
        if !self.queue.is_empty() {
            wake = wake.min(self.public.ready_at(1, now));
        }
        if let (true, Some(at)) = (self.peer_list_wanted, self.peer_list_at) {
            wake = wake.min(at.saturating_add(PEER_LIST_INTERVAL));
        }
        wake
    }

    pub(super) fn status(&self) -> DirectoryStatus {
        let session = self.session();
        DirectoryStatus {
            address: self.address.clone(),
            state: match &self.stage {
                Stage::Waiting { .. } | Stage::Stopped => DirectoryState::Waiting,
                Stage::Up(_) => DirectoryState::Up,
                _ => DirectoryState::Connecting,
            },
            failures: self.failures,
            verified: session.is_some_and(|session| session.verified),
            features: session.map(|session| session.features.clone()).unwrap_or_default(),
        }
    }
}

impl Session {
    /// When silence is to be acted upon.
    pub(super) fn deadline(&self) -> Duration {
        match self.ping_sent {
            Some(at) => at.saturating_add(PONG_WAIT),
            None if self.features.has(joinery_proto::onion::features::PING) => {
                self.heard.saturating_add(PING_AFTER)
            }
            None => self.heard.saturating_add(DEAD_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn directory() -> Directory {
        Directory::new(DirectoryAddress::new("127.0.0.1:5222".parse().unwrap()))
    }

    #[test]
    fn never_more_than_twenty_public_messages_and_two_requests_in_any_minute() {
        let mut directory = directory();
        let mut sent = Vec::new();
        for second in 0..600_u64 {
            for _ in 0..5 {
                directory.enqueue("cancel 0".to_owned());
            }
            directory.want_orderbook();
            while let Some(text) = directory.next_public(Duration::from_secs(second)) {
                sent.push((second, text));
            }
        }
        for start in 0..540 {
            let minute = sent.iter().filter(|(at, _)| (start..start + 60).contains(at));
            assert!(minute.clone().count() <= 20);
            assert!(minute.filter(|(_, text)| text == "orderbook").count() <= 2);
        }
        assert!(sent.len() > 90, "the budget is used: {}", sent.len());
    }

    #[test]
    fn pauses_grow_stay_apart_and_end_at_ten_minutes() {
        let timing = ChannelTiming::default();
        let mut rng = StdRng::from_seed([1; 32]);
        let mut directory = directory();
        let mut last = 0.0;
        for _ in 0..11 {
            let pause = directory.pause(&timing, false, &mut rng).as_secs_f64();
            assert!(pause >= 3.0 && pause > last - 6.0 && pause <= 605.0, "{pause} after {last}");
            last = pause;
        }
        assert!(last > 300.0);
        let mut fresh = Directory::new(directory.address.clone());
        assert!(fresh.pause(&timing, true, &mut rng) >= timing.refused_pause);
    }
}
