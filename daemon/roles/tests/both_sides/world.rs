//! The scheduler: takers, makers, their wallets, one directory between them, in simulated time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::hashes::{Hash, sha256};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Network, OutPoint};
use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_proto::transaction::fees::FeeLimits;
use joinery_roles::ask::{Question, QuestionId};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::maker::{self, Maker, MakerConfig, MakerState, MakerTerms};
use joinery_roles::order_book::{Book, BookOffer, BookPhase};
use joinery_roles::taker::{
    self, Destination, Outcome, Reason, Taker, TakerPolicy, TakerRequest, TakerSetup,
};
use joinery_wallet::round::{RoundEnd, RoundEvent};
use joinery_wallet::types::Mixdepth;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::chain::Chain;
use crate::wallet::FakeWallet;

const DIRECTORY: Source = Source::Directory(DirectoryId(0));
/// Longest time that everything together may take.
const LONGEST: Duration = Duration::from_secs(3 * 3_600);

/// What a world is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) makers: usize,
    pub(crate) takers: usize,
    /// Chance that a message is lost.
    pub(crate) loss: f64,
    /// Chance that a maker is killed when it hears something. It comes back under a new nick.
    pub(crate) kills: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { makers: 4, takers: 1, loss: 0.0, kills: 0.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Maker(usize),
    Taker(usize),
}

enum Happening {
    Hear(Nick, ChannelEvent),
    /// Everybody but the sender.
    Public(Nick, String),
    Answer(Who, u32, QuestionId, Question),
}

struct Party<M> {
    machine: Option<M>,
    wallet: FakeWallet,
    key: NickKey,
    /// Counts its lives: answers to an earlier one are lost.
    life: u32,
    worth: u64,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    pub(crate) chain: Chain,
    pub(crate) trace: Vec<String>,
    pub(crate) kills: u32,
    plan: Plan,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    makers: Vec<Party<Maker>>,
    states: BTreeMap<usize, Arc<MakerState>>,
    takers: Vec<Party<Taker>>,
    outcomes: BTreeMap<usize, Outcome>,
}

fn secret(text: &str) -> SecretKey {
    SecretKey::from_slice(&sha256::Hash::hash(text.as_bytes()).to_byte_array()).unwrap()
}

impl World {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Self {
        let mut world = Self {
            now: Duration::from_secs(1_000),
            rng: StdRng::seed_from_u64(seed),
            chain: Chain::new(),
            trace: Vec::new(),
            kills: 0,
            plan: *plan,
            queue: BTreeMap::new(),
            sequence: 0,
            makers: Vec::new(),
            states: BTreeMap::new(),
            takers: Vec::new(),
            outcomes: BTreeMap::new(),
        };
        for number in 0..plan.makers {
            let mut wallet = FakeWallet::new(&format!("maker {number}"));
            let coins = world.rng.random_range(1..4_u8);
            for coin in 0..coins {
                let mixdepth = world.rng.random_range(0..5);
                let value = world.rng.random_range(9_000_000..30_000_000) + u64::from(coin);
                wallet.fund(&mut world.chain, mixdepth, value, 20);
            }
            let key = NickKey::new(secret(&format!("maker {number} 0")));
            let worth = world.chain.balance(|script| wallet.owns(script));
            world.makers.push(Party { machine: None, wallet, key, life: 0, worth });
            world.start_maker(number);
        }
        for number in 0..plan.takers {
            let mut wallet = FakeWallet::new(&format!("taker {number}"));
            for _ in 0..4 {
                let value = world.rng.random_range(700_000..2_000_000);
                wallet.fund(&mut world.chain, 0, value, 20);
            }
            let key = NickKey::new(secret(&format!("taker {number}")));
            let worth = world.chain.balance(|script| wallet.owns(script));
            world.takers.push(Party { machine: None, wallet, key, life: 0, worth });
        }
        world
    }

    /// Starts a maker with what its journal holds, under a new nick.
    fn start_maker(&mut self, number: usize) {
        let party = &mut self.makers[number];
        party.life += 1;
        party.key = NickKey::new(secret(&format!("maker {number} {}", party.life)));
        let mut blacklist = CommitmentBlacklist::default();
        for (_, event) in &party.wallet.journal {
            if let RoundEvent::Revealed { commitment, .. } = event {
                blacklist.use_up(Commitment::from_bytes(*commitment));
            }
        }
        let kind =
            if number.is_multiple_of(2) { OrderType::Sw0Relative } else { OrderType::Sw0Absolute };
        let terms = MakerTerms {
            absolute_fee: 100 + u64::try_from(number).unwrap(),
            relative_fee: "0.0002".parse().unwrap(),
            tx_fee: if number.is_multiple_of(3) { 20 } else { 0 },
            ..MakerTerms::new(kind)
        };
        let config = MakerConfig::new(party.key.nick(), terms, 1_700_000_000);
        let view = Arc::new(party.wallet.view(&self.chain));
        party.machine = Some(Maker::new(config, blacklist, view, self.rng.random(), self.now));
        self.with_maker(number, |maker, now| maker.heard(&ChannelEvent::Up(DIRECTORY), now));
    }

    /// The power of a maker fails; what its wallet did stands.
    fn kill_maker(&mut self, number: usize) {
        self.kills += 1;
        self.trace.push(format!("kill {number}"));
        let party = &mut self.makers[number];
        party.machine = None;
        for round in party.wallet.rounds.values_mut().filter(|round| round.end.is_none()) {
            let end = RoundEnd { code: "interrupted".to_owned(), text: String::new(), time: 0 };
            round.apply(&RoundEvent::Ended(end));
        }
        self.states.remove(&number);
        self.start_maker(number);
    }

    pub(crate) fn stop_maker(&mut self, number: usize) {
        self.with_maker(number, |maker, now| maker.stop(now));
    }

    /// A taker begins a coinjoin.
    pub(crate) fn request(&mut self, number: usize, amount: u64, counterparties: u8) {
        let limits = FeeLimits { absolute: 5_000, relative: "0.004".parse().unwrap() };
        let policy =
            TakerPolicy { minimum_makers: 3, ..TakerPolicy::new(Network::Regtest, limits) };
        let request = TakerRequest {
            mixdepth: Mixdepth(0),
            amount,
            counterparties,
            destination: Destination::Internal,
            inputs: None,
        };
        let party = &self.takers[number];
        let setup = TakerSetup {
            request,
            policy,
            nick: party.key.nick(),
            own_nicks: BTreeSet::default(),
            avoid: BTreeSet::default(),
            epoch: 1_700_000_000,
        };
        let view = Arc::new(party.wallet.view(&self.chain));
        let book = Arc::new(self.book());
        let taker = Taker::new(setup, view, book, self.rng.random(), self.now);
        self.takers[number].machine = Some(taker);
        self.with_taker(number, |taker, now| taker.heard(&ChannelEvent::Up(DIRECTORY), now));
    }

    /// What a watcher would have heard.
    fn book(&self) -> Book {
        let offers = self.states.values().flat_map(|state| {
            state.offers.iter().map(|view| {
                let fields = format!(
                    "{} {} {} {} {}",
                    view.oid, view.minsize, view.maxsize, view.txfee, view.cjfee
                );
                let kind = OrderType::parse(view.ordertype).unwrap();
                BookOffer {
                    nick: state.nick,
                    offer: Offer::parse(kind, &fields).unwrap(),
                    signed: true,
                    disputed: false,
                    heard: self.now,
                    directories: vec![DirectoryId(0)],
                    direct: false,
                    bond_value: 0.0,
                }
            })
        });
        let mut offers: Vec<_> = offers.collect();
        offers.sort_by_key(|offer| (offer.nick, offer.offer.id));
        Book {
            made: self.now,
            phase: BookPhase::Complete,
            completed: Some(self.now),
            offers,
            ..Book::empty()
        }
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + wait, self.sequence), happening);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(5..600))
    }

    fn say(&mut self, from: Nick, text: String, to: Nick) {
        if self.plan.loss > 0.0 && self.rng.random_bool(self.plan.loss) {
            return;
        }
        let wait = self.latency();
        let event = ChannelEvent::Private { from, via: DIRECTORY, text };
        self.later(wait, Happening::Hear(to, event));
    }

    fn ask(&mut self, who: Who, life: u32, id: QuestionId, question: Question) {
        // What changes a wallet is done in the order in which it is asked.
        let wait = Duration::from_millis(3);
        self.later(wait, Happening::Answer(who, life, id, question));
    }

    fn with_maker(&mut self, number: usize, act: impl FnOnce(&mut Maker, Duration)) {
        let now = self.now;
        let Some(machine) = self.makers[number].machine.as_mut() else { return };
        act(machine, now);
        while let Some(output) = self.makers[number].machine.as_mut().and_then(Maker::poll) {
            let (nick, life) = (self.makers[number].key.nick(), self.makers[number].life);
            match output {
                maker::Output::Send { to, word, payload, .. } => {
                    self.trace.push(format!("maker {number}: {}", word.as_str()));
                    if word == PrivateWord::Error {
                        self.trace.push(payload.clone());
                    }
                    let text = self.makers[number].key.sign_message(word, &payload, ONION_HOSTID);
                    self.say(nick, text, to);
                }
                maker::Output::Announce { text, .. } => {
                    self.later(Duration::from_millis(20), Happening::Public(nick, text));
                }
                maker::Output::Ask(id, question) => {
                    self.ask(Who::Maker(number), life, id, question)
                }
                maker::Output::PublishCommitment(commitment) => {
                    let throwaway = NickKey::new(secret(&commitment.to_string())).nick();
                    let wait = self.latency();
                    self.later(wait, Happening::Public(throwaway, format!("hp2 {commitment}")));
                }
                maker::Output::State(state) => drop(self.states.insert(number, state)),
                maker::Output::Finished(end) => {
                    self.trace.push(format!("maker {number} ended: {end}"));
                    self.makers[number].machine = None;
                    self.states.remove(&number);
                }
            }
        }
    }

    fn with_taker(&mut self, number: usize, act: impl FnOnce(&mut Taker, Duration)) {
        let now = self.now;
        let Some(machine) = self.takers[number].machine.as_mut() else { return };
        act(machine, now);
        while let Some(output) = self.takers[number].machine.as_mut().and_then(Taker::poll) {
            match output {
                taker::Output::Send { to, word, payload, .. } => {
                    self.trace.push(format!("taker {number}: {}", word.as_str()));
                    let key = &self.takers[number].key;
                    let (nick, text) = (key.nick(), key.sign_message(word, &payload, ONION_HOSTID));
                    self.say(nick, text, to);
                }
                taker::Output::Ask(id, question) => self.ask(Who::Taker(number), 0, id, question),
                taker::Output::RefreshBook => {
                    let book = Arc::new(self.book());
                    let machine = self.takers[number].machine.as_mut().unwrap();
                    machine.book(book, now);
                }
                taker::Output::Progress(_) => {}
                taker::Output::Finished(outcome) => {
                    self.trace.push(format!("taker {number}: {}", outcome.verdict.reason.code()));
                    self.outcomes.insert(number, *outcome);
                    self.takers[number].machine = None;
                }
            }
        }
    }

    /// Next time at which anything happens.
    fn next(&self) -> Option<Duration> {
        let makers = self.makers.iter().filter_map(|party| party.machine.as_ref()?.next_wake());
        let takers = self.takers.iter().filter_map(|party| party.machine.as_ref()?.next_wake());
        let queue = self.queue.keys().next().map(|(at, _)| *at);
        makers.chain(takers).chain(queue).min()
    }

    /// Does what happens next.
    fn step(&mut self) {
        let Some(at) = self.next() else { return };
        self.now = self.now.max(at);
        if let Some(key) = self.queue.keys().next().copied().filter(|(at, _)| *at <= self.now) {
            let happening = self.queue.remove(&key).unwrap();
            self.happen(happening);
        }
        for number in 0..self.makers.len() {
            let due = self.makers[number].machine.as_ref().and_then(Maker::next_wake);
            if due.is_some_and(|due| due <= self.now) {
                self.with_maker(number, Maker::tick);
            }
        }
        for number in 0..self.takers.len() {
            let due = self.takers[number].machine.as_ref().and_then(Taker::next_wake);
            if due.is_some_and(|due| due <= self.now) {
                self.with_taker(number, Taker::tick);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Hear(to, event) => {
                if let Some(number) = self.takers.iter().position(|party| party.key.nick() == to) {
                    self.with_taker(number, |taker, now| taker.heard(&event, now));
                    return;
                }
                let maker = self.makers.iter().position(|party| party.key.nick() == to);
                let Some(number) = maker else { return };
                self.with_maker(number, |maker, now| maker.heard(&event, now));
                if self.plan.kills > 0.0 && self.rng.random_bool(self.plan.kills) {
                    self.kill_maker(number);
                }
            }
            Happening::Public(from, text) => {
                let event = ChannelEvent::Public { from, via: DIRECTORY, text };
                for number in 0..self.makers.len() {
                    if self.makers[number].key.nick() != from {
                        self.with_maker(number, |maker, now| maker.heard(&event, now));
                    }
                }
                for number in 0..self.takers.len() {
                    self.with_taker(number, |taker, now| taker.heard(&event, now));
                }
            }
            Happening::Answer(who, life, id, question) => self.answer(who, life, id, question),
        }
    }

    fn answer(&mut self, who: Who, life: u32, id: QuestionId, question: Question) {
        let before = self.chain.transactions.len();
        match who {
            Who::Maker(number) => {
                let party = &mut self.makers[number];
                if party.life != life {
                    return;
                }
                let answer = party.wallet.answer(question, &mut self.chain, &mut self.rng);
                // The wallet did it, and the power fails.
                if self.plan.kills > 0.0 && self.rng.random_bool(self.plan.kills / 2.0) {
                    self.kill_maker(number);
                    return;
                }
                self.with_maker(number, |maker, now| maker.answered(id, answer, now));
                let view = Arc::new(self.makers[number].wallet.view(&self.chain));
                self.with_maker(number, |maker, now| maker.wallet(view, now));
            }
            Who::Taker(number) => {
                let wallet = &mut self.takers[number].wallet;
                let answer = wallet.answer(question, &mut self.chain, &mut self.rng);
                self.with_taker(number, |taker, now| taker.answered(id, answer, now));
                let view = Arc::new(self.takers[number].wallet.view(&self.chain));
                self.with_taker(number, |taker, now| taker.wallet(view, now));
            }
        }
        if self.chain.transactions.len() > before {
            self.noticed();
        }
    }

    /// A transaction is in the mempool: wallets see it.
    fn noticed(&mut self) {
        for number in 0..self.makers.len() {
            let _ = self.makers[number].wallet.notice(&self.chain);
            let view = Arc::new(self.makers[number].wallet.view(&self.chain));
            self.with_maker(number, |maker, now| maker.wallet(view, now));
        }
        for number in 0..self.takers.len() {
            for round in self.takers[number].wallet.notice(&self.chain) {
                self.with_taker(number, |taker, now| taker.followed(&round, now));
            }
            let view = Arc::new(self.takers[number].wallet.view(&self.chain));
            self.with_taker(number, |taker, now| taker.wallet(view, now));
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Until every taker is done, and then until every conversation is over.
    pub(crate) fn run(&mut self) {
        let begun = self.now;
        while self.takers.iter().any(|party| party.machine.is_some()) {
            assert!(self.now - begun < LONGEST, "it takes too long: {:?}", self.trace);
            self.step();
        }
        self.pass(Duration::from_secs(400));
        self.check();
    }

    pub(crate) fn reason(&self, taker: usize) -> Option<Reason> {
        self.outcomes.get(&taker).map(|outcome| outcome.verdict.reason)
    }

    /// Signed transactions of all makers.
    pub(crate) fn signed(&self) -> usize {
        let rounds = self.makers.iter().flat_map(|party| party.wallet.rounds.values());
        rounds.map(|round| round.signed.len()).sum()
    }

    /// Whatever happened: nobody lost anything but what was agreed, nothing was used twice, everything is over.
    fn check(&self) {
        for (number, party) in self.makers.iter().enumerate() {
            let balance = self.chain.balance(|script| party.wallet.owns(script));
            assert!(balance >= party.worth, "maker {number} lost: {:?}", self.trace);
            let mut commitments = HashSet::new();
            let mut scripts = HashSet::new();
            let mut coins: HashSet<OutPoint> = HashSet::new();
            for (_, event) in &party.wallet.journal {
                if let RoundEvent::Revealed { scripts: shown, commitment } = event {
                    assert!(commitments.insert(*commitment), "maker {number}");
                    assert!(shown.iter().all(|script| scripts.insert(script.clone())));
                }
            }
            for round in party.wallet.rounds.values() {
                assert!(round.end.is_some(), "maker {number}: {round:?}");
                if !round.signed.is_empty() {
                    assert!(round.coins.iter().all(|coin| coins.insert(*coin)), "maker {number}");
                }
            }
            if let Some(state) = self.states.get(&number) {
                assert_eq!(state.sessions_open, 0, "maker {number}");
            }
        }
        for (number, party) in self.takers.iter().enumerate() {
            let balance = self.chain.balance(|script| party.wallet.owns(script));
            let outcome = &self.outcomes[&number];
            let cost = outcome.sums.as_ref().map_or(0, |sums| sums.cost.unsigned_abs());
            assert!(balance + cost >= party.worth, "taker {number} lost: {:?}", self.trace);
        }
    }
}
