//! All conversations: who may have one, and how they end (`spec/roles.md` 4.4, 4.10, 4.12; `spec/protocol.md` 7.3,
//! 13.2).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bdk_wallet::bitcoin::{OutPoint, Txid};
use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::conversation::Ended;
use joinery_proto::conversation::maker::{AUTH_PATIENCE, FillRefusal, MakerSession};
use joinery_proto::message::Fill;
use joinery_proto::nacl_box::NaclSecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::offer::Offer;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::PrivateWord;
use joinery_wallet::round::{RoundEnd, RoundId};
use joinery_wallet::types::Mixdepth;

use super::config::MakerConfig;
use super::desk::{Bounded, Desk, Purpose};
use super::hp2::Commitments;
use super::push::Pushes;
use super::session::{Addresses, Cause, Session, SessionId, Step};
use crate::ask::{AskError, Question, WalletView};
use crate::budget::Budget;
use crate::event::{LinkId, Source};
use crate::order_book::Book;

/// Most conversations whose taker has no signatures yet.
pub const MAX_SESSIONS: usize = 32;
/// Most conversations in all: those whose taker has signatures may still bring another transaction.
const MAX_KEPT: usize = 64;
/// Most conversations over one direct connection.
pub const MAX_PER_LINK: usize = 2;
/// A copy of a `!fill` within this time is the same one over another way.
const COPY_WINDOW: Duration = Duration::from_secs(30);
/// Lies after which a taker is not talked to, and for how long.
const MAX_STRIKES: u32 = 3;
const STRIKE_MEMORY: Duration = Duration::from_secs(3_600);
/// Most takers whose lies are remembered.
const MAX_STRIKERS: usize = 1_024;
/// `!error`s a second, to all together.
const ERROR_RATE: f64 = 5.0;
const ERROR_BURST: u32 = 32;
/// Looks at the chain for takers' coins a second: a proof costs its maker nothing.
const LOOK_UP_RATE: f64 = 2.0;
const LOOK_UP_BURST: u32 = 32;
/// Most coins that are remembered not to exist.
const MAX_ABSENT: usize = 256;
/// Most pairs of addresses that were drawn and never told.
const MAX_SPARE: usize = 64;

/// Everything around a session that it may use.
pub(super) struct Env<'a> {
    pub(super) config: &'a MakerConfig,
    pub(super) desk: &'a mut Desk,
    pub(super) view: &'a WalletView,
    pub(super) book: &'a Book,
    pub(super) blacklist: &'a mut CommitmentBlacklist,
    pub(super) commitments: &'a mut Commitments,
    pub(super) offers: &'a [Offer],
    pub(super) bonded: bool,
    /// What of ours went wrong.
    pub(super) failure: &'a mut Option<AskError>,
}

impl Env<'_> {
    /// The steady clock in the unit of conversations.
    pub(super) fn millis(&self) -> u64 {
        millis(self.desk.now)
    }

    /// Seconds since epoch.
    pub(super) fn time(&self) -> u64 {
        self.config.epoch.saturating_add(self.desk.now.as_secs())
    }

    /// Keeps the worst that went wrong.
    pub(super) fn fail(&mut self, error: AskError) {
        let fatal = |error: &AskError| matches!(error, AskError::Closed | AskError::Storage(_));
        if !self.failure.as_ref().is_some_and(fatal) {
            *self.failure = Some(error);
        }
    }
}

/// Who lied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Striker {
    Nick(Nick),
    Link(LinkId),
}

/// All conversations.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) all: BTreeMap<SessionId, Session>,
    by_nick: HashMap<Nick, SessionId>,
    next: u64,
    strikes: Bounded<Striker, (u32, Duration)>,
    errors: Budget,
    pub(super) look_ups: Budget,
    pub(super) look_ups_open: usize,
    pub(super) absent: Bounded<OutPoint, Duration>,
    pub(super) spare: Bounded<(Nick, Commitment), Addresses>,
    /// Sessions that were over before the wallet gave them addresses: for whom these are to be kept.
    pub(super) late: Bounded<SessionId, (Nick, Commitment, Mixdepth)>,
    /// What the mempool took at least, and when that was: satoshi per 1000 virtual bytes.
    pub(super) floor: Option<(Duration, u64)>,
    /// Transactions that takers may have us send.
    pub(super) pushes: Pushes,
    /// Questions whose answers must not be lost when the maker stops.
    pub(super) closing: usize,
    /// Transactions that were signed since the start.
    pub(super) signed: u64,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            by_nick: HashMap::new(),
            next: 0,
            strikes: Bounded::new(MAX_STRIKERS),
            errors: Budget::new(ERROR_RATE, ERROR_BURST),
            look_ups: Budget::new(LOOK_UP_RATE, LOOK_UP_BURST),
            look_ups_open: 0,
            absent: Bounded::new(MAX_ABSENT),
            spare: Bounded::new(MAX_SPARE),
            late: Bounded::new(MAX_SPARE),
            floor: None,
            pushes: Pushes::new(),
            closing: 0,
            signed: 0,
        }
    }

    /// Answers a `!fill`.
    pub(super) fn fill(&mut self, from: Nick, via: Source, payload: &str, env: &mut Env<'_>) {
        let link = link_of(via);
        if self.is_struck(from, link, env.desk.now) {
            return;
        }
        let fill = Fill::parse(payload);
        let previous = self.by_nick.get(&from).copied();
        if let Some(session) = previous.and_then(|id| self.all.get(&id)) {
            let recent = env.desk.now < session.filled_at.saturating_add(COPY_WINDOW);
            let copy = fill.as_ref() == Ok(&session.fill);
            if (copy && recent) || !session.machine.is_replaceable() {
                return;
            }
        }
        if !self.make_room(previous, link, env) {
            return;
        }
        if let Some(refusal) = fill.as_ref().ok().and_then(|fill| too_little(fill, env)) {
            self.error(from, via, refusal.reply(), env);
            return;
        }
        // The commitment of a session that is replaced may be used again by the one that replaces it.
        let old = previous.and_then(|id| self.all.get(&id));
        let released = old
            .filter(|session| session.machine.awaits_auth())
            .and_then(|session| session.machine.reserved_commitment());
        if let Some(commitment) = &released {
            env.blacklist.release(commitment);
        }
        let secret = NaclSecretKey::from_bytes(env.desk.bytes());
        let (policy, compat, now) = (env.config.policy, env.config.neutrino_compat, env.millis());
        let started =
            MakerSession::start(payload, env.offers, secret, env.blacklist, policy, compat, now);
        match (started, fill) {
            (Ok((mut machine, outputs)), Ok(fill)) => {
                machine.set_timeout(millis(env.config.timing.session));
                if let Some(previous) = previous {
                    self.replace(previous, env);
                }
                let offer = env.offers.iter().find(|offer| offer.id == fill.offer);
                let Some(offer) = offer.copied() else { return };
                let id = SessionId(self.next);
                self.next = self.next.wrapping_add(1);
                let session = Session {
                    nick: from,
                    via,
                    link,
                    fill,
                    filled_at: env.desk.now,
                    machine,
                    offer,
                    look_up: None,
                    round: None,
                    opening: false,
                    plan: None,
                    refused: HashSet::new(),
                    addresses: None,
                    revealing: false,
                    check: None,
                    signed: 0,
                };
                self.all.insert(id, session);
                self.by_nick.insert(from, id);
                self.act(id, outputs, env);
            }
            (Err(ended), _) => {
                if let Some(commitment) = released {
                    env.blacklist.reserve(commitment);
                }
                if let Ended::FillRefused(FillRefusal::Blacklisted(commitment)) = &ended
                    && env.blacklist.is_used(commitment)
                {
                    let (config, book) = (env.config, env.book);
                    env.commitments.reused(*commitment, &from, config, book, env.desk);
                }
                self.error(from, via, ended.reply(), env);
            }
            (Ok(_), Err(_)) => {}
        }
    }

    /// Whether there is room for one more; those that wait for `!auth` for more than a minute, and those that have
    /// their signatures, make room.
    fn make_room(
        &mut self,
        previous: Option<SessionId>,
        link: Option<LinkId>,
        env: &mut Env<'_>,
    ) -> bool {
        let others = |(id, session): &(&SessionId, &Session)| {
            Some(**id) != previous && !session.machine.has_signed()
        };
        let on_link = |session: &Session| link.is_some() && session.link == link;
        let same_link = self.all.iter().filter(others).filter(|(_, s)| on_link(s)).count();
        if same_link >= MAX_PER_LINK {
            return false;
        }
        if self.all.iter().filter(others).count() >= MAX_SESSIONS {
            let patience = Duration::from_millis(AUTH_PATIENCE);
            let now = env.desk.now;
            let late = self.all.iter().filter(others).find(|(_, session)| {
                session.machine.awaits_auth() && now >= session.filled_at.saturating_add(patience)
            });
            let Some(late) = late.map(|(id, _)| *id) else { return false };
            self.close(late, &Cause::Replaced, env);
        }
        if self.all.len() >= MAX_KEPT {
            let done = self.all.iter().find(|(_, session)| session.machine.has_signed());
            let Some(done) = done.map(|(id, _)| *id) else { return false };
            self.close(done, &Cause::Conversation(Ended::Complete), env);
        }
        true
    }

    fn replace(&mut self, id: SessionId, env: &mut Env<'_>) {
        let signed = self.all.get(&id).is_some_and(|session| session.machine.has_signed());
        let cause = if signed { Cause::Conversation(Ended::Complete) } else { Cause::Replaced };
        // Its commitment was released before, or belongs to the session that comes now.
        if let Some(session) = self.remove(id) {
            self.finish(id, &session, &cause, env);
        }
    }

    /// Takes a private message of a taker that has a session.
    pub(super) fn received(
        &mut self,
        from: Nick,
        via: Source,
        word: PrivateWord,
        payload: &str,
        env: &mut Env<'_>,
    ) {
        let Some(id) = self.by_nick.get(&from).copied() else { return };
        let (height, now) = (env.view.height, env.millis());
        let Some(session) = self.all.get_mut(&id) else { return };
        session.via = via;
        let outputs = session.machine.received(word, payload, height, now);
        self.act(id, outputs, env);
    }

    /// Ends a session.
    pub(super) fn close(&mut self, id: SessionId, cause: &Cause, env: &mut Env<'_>) {
        let Some(session) = self.remove(id) else { return };
        if let Some(commitment) = session.machine.reserved_commitment() {
            if session.revealing {
                // It may be durable already that it is used.
                env.blacklist.use_up(commitment);
            } else {
                env.blacklist.release(&commitment);
            }
        }
        if cause.is_lie() {
            self.strike(session.nick, session.link, env.desk.now);
        }
        if let Some(addresses) = session.spare_addresses() {
            self.spare.insert((session.nick, session.fill.commitment), addresses);
        }
        if let Some(plan) = session.plan.as_ref().filter(|_| session.opening) {
            self.late.insert(id, (session.nick, session.fill.commitment, plan.mixdepth));
        }
        self.error(session.nick, session.via, cause.reply(), env);
        self.finish(id, &session, cause, env);
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.all.remove(&id)?;
        if self.by_nick.get(&session.nick) == Some(&id) {
            self.by_nick.remove(&session.nick);
        }
        Some(session)
    }

    /// Ends the round of a session that is gone.
    fn finish(&mut self, id: SessionId, session: &Session, cause: &Cause, env: &mut Env<'_>) {
        if let Some(round) = session.round {
            // What was signed is what counts, whatever the taker tried afterwards.
            let complete = Cause::Conversation(Ended::Complete);
            let cause = if session.signed > 0 { &complete } else { cause };
            self.end_round(id, round, cause, env);
        }
    }

    pub(super) fn end_round(
        &mut self,
        id: SessionId,
        round: RoundId,
        cause: &Cause,
        env: &mut Env<'_>,
    ) {
        let (code, text) = (cause.code().to_owned(), cause.sentence().to_owned());
        let end = RoundEnd { code, text, time: env.time() };
        self.closing = self.closing.saturating_add(1);
        env.desk.ask(Purpose::Session(id, Step::End), Question::End { round, end });
    }

    /// A clear-text complaint, as far as the budget goes.
    fn error(&mut self, to: Nick, via: Source, text: Option<String>, env: &mut Env<'_>) {
        if let Some(text) = text
            && self.errors.take(env.desk.now)
        {
            env.desk.send(to, PrivateWord::Error, text, Some(via));
        }
    }

    fn strike(&mut self, nick: Nick, link: Option<LinkId>, now: Duration) {
        for striker in std::iter::once(Striker::Nick(nick)).chain(link.map(Striker::Link)) {
            let known = self.strikes.get(&striker).copied();
            let recent = known.filter(|(_, at)| now < at.saturating_add(STRIKE_MEMORY));
            let count = recent.map_or(0, |(count, _)| count).saturating_add(1);
            self.strikes.insert(striker, (count, now));
        }
    }

    fn is_struck(&self, nick: Nick, link: Option<LinkId>, now: Duration) -> bool {
        std::iter::once(Striker::Nick(nick)).chain(link.map(Striker::Link)).any(|striker| {
            self.strikes.get(&striker).is_some_and(|(count, at)| {
                *count >= MAX_STRIKES && now < at.saturating_add(STRIKE_MEMORY)
            })
        })
    }

    /// Whether a signature for this transaction was given to this taker, and it may have it sent now.
    pub(super) fn push(&mut self, from: Nick, payload: &str, env: &mut Env<'_>) {
        self.pushes.asked(from, payload, env.view, env.config.timing.push, env.desk);
    }

    /// Remembers what was signed, for a `!push` of it.
    pub(super) fn remember_signed(&mut self, txid: Txid, id: SessionId, now: Duration) {
        if let Some(session) = self.all.get(&id) {
            self.pushes.signed(txid, session.nick, session.outpoints().collect(), now);
        }
    }
}

/// An amount for which we would earn less than we want is out of range, whatever the offer says.
fn too_little(fill: &Fill, env: &Env<'_>) -> Option<Ended> {
    let offer = env.offers.iter().find(|offer| offer.id == fill.offer)?;
    let enough = offer.earning(fill.amount) >= i128::from(env.config.minimum_profit);
    let refused = offer.accepts(fill.amount) && !enough && !env.blacklist.refuses(&fill.commitment);
    refused.then_some(Ended::FillRefused(FillRefusal::AmountOutOfRange))
}

/// A time in the unit of conversations.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The direct connection of a way.
const fn link_of(via: Source) -> Option<LinkId> {
    match via {
        Source::Direct(link) => Some(link),
        Source::Directory(_) | Source::Irc(_) => None,
    }
}
