//! The machine: what comes in goes to the part that it concerns.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::message::OfferMessage;
use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::{PrivateWord, UnverifiedMessage};
use joinery_proto::public_message::{self, PublicCommand};

use super::announce::Announcer;
use super::bond::BondKeeper;
use super::coins::announced_balances;
use super::config::MakerConfig;
use super::desk::{Desk, Purpose};
use super::hp2::{self, Commitments};
use super::offers::{self, Change};
use super::output::{MakerEnd, MakerProblem, MakerState, OfferView, Output};
use super::replies::ReplyLimits;
use super::sessions::{Env, Sessions};
use crate::ask::{Answer, AskError, QuestionId, WalletView};
use crate::event::{ChannelEvent, Source};
use crate::order_book::Book;

/// Who was found this long ago may be lost by now.
const FOUND_MEMORY: Duration = Duration::from_secs(1_800);

/// Whether the machine still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping { until: Duration },
    Over,
}

/// A maker from its start to its end.
#[derive(Debug)]
pub struct Maker {
    config: MakerConfig,
    desk: Desk,
    phase: Phase,
    view: Arc<WalletView>,
    book: Arc<Book>,
    blacklist: CommitmentBlacklist,
    announcer: Announcer,
    replies: ReplyLimits,
    bond: BondKeeper,
    commitments: Commitments,
    sessions: Sessions,
    /// The wallet or the bond changed: offers are looked at again.
    fresh: bool,
    /// Offers were made at least once: later ones are quantised.
    offered: bool,
    /// When somebody showed last that our offers are seen.
    found: Option<Duration>,
    last_error: Option<MakerProblem>,
    shown: Option<Arc<MakerState>>,
}

impl Maker {
    /// A maker that has not said anything yet. `blacklist` holds the used commitments that are stored; `seed` is 32
    /// bytes from the operating system: every key and nonce of the run comes out of it.
    #[must_use]
    pub fn new(
        config: MakerConfig,
        blacklist: CommitmentBlacklist,
        view: Arc<WalletView>,
        seed: [u8; 32],
        now: Duration,
    ) -> Self {
        let mut maker = Self {
            desk: Desk::new(seed, now),
            phase: Phase::Running,
            book: Arc::new(Book::empty()),
            blacklist,
            announcer: Announcer::new(config.timing),
            replies: ReplyLimits::new(),
            bond: BondKeeper::new(),
            commitments: Commitments::new(),
            sessions: Sessions::new(),
            fresh: true,
            offered: false,
            found: None,
            last_error: None,
            shown: None,
            view: Arc::new(WalletView::default()),
            config,
        };
        maker.wallet(view, now);
        maker
    }

    /// The channel has news.
    pub fn heard(&mut self, event: &ChannelEvent, now: Duration) {
        if !self.enter(now) {
            return;
        }
        match event {
            ChannelEvent::Up(via) => self.announcer.up(*via),
            ChannelEvent::Down(via) => self.announcer.down(*via),
            ChannelEvent::Public { from, via, text } => self.public(*from, *via, text),
            ChannelEvent::Private { from, via, text } => self.private(*from, *via, text),
            ChannelEvent::Seen { .. }
            | ChannelEvent::Left { .. }
            | ChannelEvent::Lists(_)
            | ChannelEvent::Serves { .. } => {}
        }
        self.work();
    }

    fn public(&mut self, from: Nick, via: Source, text: &str) {
        if self.config.is_ours(&from) {
            return;
        }
        for command in public_message::parse(text) {
            match command {
                PublicCommand::Orderbook => self.reply(from, via),
                PublicCommand::CommitmentSeen(commitment) => {
                    let blacklist = &mut self.blacklist;
                    self.commitments.seen(commitment, via, &self.config, blacklist, &mut self.desk);
                }
                PublicCommand::Offer(_) | PublicCommand::BadOffer(_) | PublicCommand::Cancel(_) => {
                }
            }
        }
    }

    fn private(&mut self, from: Nick, via: Source, text: &str) {
        // The channel verified the signature; what it lets through can be parsed.
        let Ok(message) = UnverifiedMessage::parse(text) else { return };
        if self.config.is_ours(&from) {
            return;
        }
        let (word, payload) = (message.word, message.payload);
        match word {
            PrivateWord::Fill => {
                self.found = Some(self.desk.now);
                self.with_sessions(|sessions, env| sessions.fill(from, via, payload, env));
            }
            PrivateWord::Auth | PrivateWord::Tx => {
                self.with_sessions(|sessions, env| sessions.received(from, via, word, payload, env))
            }
            PrivateWord::Push => {
                self.with_sessions(|sessions, env| sessions.push(from, payload, env));
            }
            PrivateWord::Hp2 => {
                let blacklist = &mut self.blacklist;
                self.commitments.asked(payload, via, &self.config, blacklist, &mut self.desk);
            }
            // A direct peer may ask for offers in a signed message, too.
            PrivateWord::Orderbook => self.reply(from, via),
            PrivateWord::Offer(_)
            | PrivateWord::PubKey
            | PrivateWord::IoAuth
            | PrivateWord::Sig
            | PrivateWord::Error => {}
        }
    }

    /// Lets the conversations do something with everything around them.
    fn with_sessions(&mut self, work: impl FnOnce(&mut Sessions, &mut Env<'_>)) {
        let mut failure = None;
        let mut env = Env {
            config: &self.config,
            desk: &mut self.desk,
            view: &self.view,
            book: &self.book,
            blacklist: &mut self.blacklist,
            commitments: &mut self.commitments,
            offers: self.announcer.standing(),
            bonded: self.bond.guards_deposits(),
            failure: &mut failure,
        };
        work(&mut self.sessions, &mut env);
        if let Some(error) = failure {
            self.failed("session_failed", &error);
        }
    }

    /// Answers a request for our offers: one message for each, with the bond (`spec/protocol.md` 6.5).
    fn reply(&mut self, taker: Nick, via: Source) {
        let offers = self.announcer.standing().to_vec();
        if offers.is_empty() || !self.replies.allow(taker, via, self.desk.now) {
            return;
        }
        let proof = self.bond.proof(taker, &self.config.nick).map(str::to_owned);
        for offer in offers {
            let word = PrivateWord::Offer(offer.order_type);
            let payload = OfferMessage::payload(&offer, proof.as_deref());
            self.desk.send(taker, word, payload, Some(via));
        }
    }

    /// A question was answered.
    pub fn answered(&mut self, id: QuestionId, answer: Answer, now: Duration) {
        if !self.enter(now) {
            return;
        }
        match (self.desk.take(id), answer) {
            (Some(Purpose::Bond), Answer::Certified(answer)) => {
                self.fresh = true;
                if let Err(error) = self.bond.certified(answer, now) {
                    self.failed("bond_not_certified", &error);
                }
            }
            (Some(Purpose::Session(session, step)), answer) => {
                self.with_sessions(|sessions, env| sessions.answered(session, step, answer, env));
            }
            (Some(Purpose::Push), Answer::Broadcast(Err(error))) => {
                self.failed("not_sent", &error);
            }
            (Some(Purpose::Nothing), Answer::Recorded(Err(error))) => {
                self.failed("not_stored", &error);
            }
            (Some(_) | None, _) => {}
        }
        self.work();
    }

    /// The wallet changed, or the chain did.
    pub fn wallet(&mut self, view: Arc<WalletView>, now: Duration) {
        if !self.enter(now) {
            return;
        }
        self.view = view;
        self.fresh = true;
        self.with_sessions(Sessions::wallet);
        self.work();
    }

    /// The order book has news.
    pub fn book(&mut self, book: Arc<Book>, now: Duration) {
        if !self.enter(now) {
            return;
        }
        if book.offers.iter().any(|offer| offer.nick == self.config.nick) {
            self.found = Some(self.desk.now);
        }
        self.book = book;
        self.work();
    }

    /// A commitment could not be published as [`Output::PublishCommitment`] asked.
    pub fn publication_failed(&mut self, commitment: Commitment, now: Duration) {
        if self.enter(now) {
            hp2::relay(commitment, &[], &self.config, &self.book, &mut self.desk);
            self.work();
        }
    }

    /// Stops: new sessions are refused at once, those that have shown coins get
    /// [`super::MakerTiming::stop`] to finish.
    pub fn stop(&mut self, now: Duration) {
        if !self.enter(now) || self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping { until: now.saturating_add(self.config.timing.stop) };
        self.announcer.withdraw(&mut self.desk);
        self.with_sessions(|sessions, env| sessions.stop(false, env));
        self.work();
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        if self.enter(now) {
            self.work();
        }
    }

    /// When [`Self::tick`] is due; `None` while only news can change anything.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match self.phase {
            Phase::Over => None,
            Phase::Stopping { until } => {
                let sessions = self.sessions.next_wake(self.desk.now);
                let wakes = [Some(until), sessions, self.commitments.next_wake()];
                wakes.into_iter().flatten().min()
            }
            Phase::Running => {
                let sessions = self.sessions.next_wake(self.desk.now);
                let commitments = self.commitments.next_wake();
                let wakes =
                    [self.announcer.next_wake(), self.bond.next_wake(), sessions, commitments];
                wakes.into_iter().flatten().min()
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.desk.poll()
    }

    /// Our nick.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.config.nick
    }

    /// Takes the time; false when the machine is over.
    fn enter(&mut self, now: Duration) -> bool {
        self.desk.now = self.desk.now.max(now);
        self.phase != Phase::Over
    }

    /// Everything that follows from the last input.
    fn work(&mut self) {
        if self.phase == Phase::Over {
            return;
        }
        self.with_sessions(Sessions::tick);
        self.commitments.publish(false, &self.config, &self.book, &mut self.desk);
        match self.phase {
            Phase::Running => {
                let now = self.desk.now;
                let again = self.bond.next_wake().is_some_and(|wake| wake <= now);
                if self.fresh || again || self.announcer.is_due(now) {
                    self.fresh = false;
                    self.bond.update(&self.view, &self.config, &mut self.desk);
                    self.offers();
                }
                self.announcer.flush(&mut self.desk);
            }
            Phase::Stopping { until } => {
                let late = self.desk.now >= until;
                if late {
                    self.with_sessions(|sessions, env| sessions.stop(true, env));
                }
                // The ends of rounds are stored before the machine is over, if the wallet still answers.
                let idle = self.sessions.all.is_empty() && self.sessions.closing == 0;
                if idle || late {
                    self.end(MakerEnd::Stopped);
                }
            }
            Phase::Over => return,
        }
        self.show();
    }

    /// Makes offers anew where the wallet says so.
    fn offers(&mut self) {
        if !self.view.synced {
            return;
        }
        let balances =
            announced_balances(&self.view, &self.config.rules, self.bond.guards_deposits());
        let best = balances.iter().max().copied().unwrap_or_default();
        let change = offers::change(self.announcer.standing(), self.announcer.best(), &balances);
        let now = !self.offered || change == Change::Now || self.announcer.is_due(self.desk.now);
        if !now {
            if change == Change::Later {
                self.announcer.later(&mut self.desk);
            }
            return;
        }
        let desk = &mut self.desk;
        let made = offers::make(&self.config.terms, &balances, |low, high| desk.uniform(low, high));
        let made =
            if self.offered { made.into_iter().map(offers::quantised).collect() } else { made };
        self.offered |= !made.is_empty();
        self.announcer.set(made, best);
    }

    /// Something of ours went wrong, and the maker goes on.
    fn failed(&mut self, code: &'static str, error: &AskError) {
        match error {
            AskError::Closed => self.end(MakerEnd::WalletClosed),
            AskError::Storage(text) => self.end(MakerEnd::Storage(text.clone())),
            other => self.last_error = Some(MakerProblem { code, text: other.to_string() }),
        }
    }

    fn end(&mut self, end: MakerEnd) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            // They are used, whatever becomes of us.
            self.commitments.publish(true, &self.config, &self.book, &mut self.desk);
            self.show();
            self.desk.out(Output::Finished(end));
        }
    }

    /// Tells the API what changed.
    fn show(&mut self) {
        let state = MakerState {
            nick: self.config.nick,
            offers: self.announcer.standing().iter().map(OfferView::from).collect(),
            bond: self.bond.view(),
            sessions_open: self.sessions.all.len(),
            signed: self.sessions.signed,
            directories_up: self.announcer.directories_up(),
            reachable: self.announcer.directories_up() > 0
                && self.found.is_some_and(|at| self.desk.now < at.saturating_add(FOUND_MEMORY)),
            last_error: self.last_error.clone(),
            stopping: self.phase != Phase::Running,
        };
        if self.shown.as_deref() != Some(&state) {
            let state = Arc::new(state);
            self.shown = Some(Arc::clone(&state));
            self.desk.out(Output::State(state));
        }
    }
}
