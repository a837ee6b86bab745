//! The scheduler: one taker with its wallet, makers, directories between them, in simulated time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::{Network, ScriptBuf};
use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_proto::transaction::fees::FeeLimits;
use joinery_roles::ask::{Answer, Question, QuestionId};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::maker;
use joinery_roles::order_book::{Book, BookOffer, BookPhase};
use joinery_roles::taker::{
    Destination, Outcome, Output, Phase, Progress, Taker, TakerPolicy, TakerRequest, TakerSetup,
};
use joinery_wallet::round::RoundEvent;
use joinery_wallet::types::Mixdepth;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::chain::Chain;
use crate::fake_maker::{Behaviour, FakeMaker, secret};
use crate::real_maker::RealMaker;
use crate::wallet::FakeWallet;

pub(crate) const AMOUNT: u64 = 1_000_000;
/// Longest time that a request may take, whatever happens: three attempts of 20 times the wait for a maker, directories,
/// order book, and twice the wait for a sighting.
pub(crate) const LONGEST: Duration = Duration::from_secs(3 * (20 * 60 + 120 + 130 + 60) + 1_200);

/// Something that a test does.
type Act = fn(&mut Stage);

/// When the power fails, at a step whose outcome is to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before anything of it is on the disk.
    Before,
    /// When it is, and nobody has heard.
    After,
    /// A transaction is kept, and not sent yet.
    Between,
}

enum Happening {
    ToTaker(ChannelEvent),
    ToMaker(usize, PrivateWord, String, Source),
    Answer(QuestionId, Question),
    ToReal(usize, ChannelEvent),
    RealAnswer(usize, QuestionId, Question),
}

pub(crate) struct Stage {
    pub(crate) now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    pub(crate) rng: StdRng,
    pub(crate) chain: Chain,
    pub(crate) wallet: FakeWallet,
    pub(crate) makers: Vec<FakeMaker>,
    /// The real machine; their places come after those of the others.
    pub(crate) real: Vec<RealMaker>,
    key: NickKey,
    nick: Nick,
    taker: Option<Taker>,
    pub(crate) directories: usize,
    /// Number of a directory that drops, repeats, delays and changes what it can.
    pub(crate) evil: Option<usize>,
    heard: VecDeque<(Nick, String)>,
    routes: HashMap<Nick, Source>,
    /// Questions that nobody answers, by the name that the trace gives them.
    pub(crate) deaf: Vec<&'static str>,
    /// Now and then this is the answer instead of the right one.
    pub(crate) confuse: Option<fn(&mut StdRng) -> Answer>,
    /// Every output but progress, in a word or two.
    pub(crate) trace: Vec<String>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) outcome: Option<Outcome>,
    /// What is to be done when a phase is reached for the first time.
    pub(crate) at_phase: Vec<(Phase, Act)>,
    pub(crate) balance: u64,
    /// Transactions that the wallets have seen.
    noticed: usize,
    /// Steps of the taker that were made durable.
    durable: usize,
    /// At which of them the power fails, and how.
    pub(crate) cut: Option<(usize, Cut)>,
    /// The step at which it did.
    pub(crate) cut_at: Option<&'static str>,
    /// Nicks of takers that are no more.
    pub(crate) former: BTreeSet<Nick>,
}

pub(crate) fn policy() -> TakerPolicy {
    let limits = FeeLimits { absolute: 5_000, relative: "0.004".parse().unwrap() };
    TakerPolicy::new(Network::Regtest, limits)
}

pub(crate) fn request(counterparties: u8) -> TakerRequest {
    TakerRequest {
        mixdepth: Mixdepth(0),
        amount: AMOUNT,
        counterparties,
        destination: Destination::Internal,
        inputs: None,
    }
}

impl Stage {
    pub(crate) fn new(seed: u64, makers: &[Behaviour]) -> Self {
        let mut chain = Chain::new();
        let makers = (0..).zip(makers).map(|(index, behaviour)| {
            let fee = format!("{}", 100 + index * 10);
            FakeMaker::new(index, *behaviour, &fee, &mut chain)
        });
        let makers = makers.collect();
        let key = NickKey::new(secret("taker's nick"));
        Self {
            now: Duration::from_secs(1_000),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: StdRng::seed_from_u64(seed),
            chain,
            wallet: FakeWallet::new("taker"),
            makers,
            real: Vec::new(),
            nick: key.nick(),
            key,
            taker: None,
            directories: 1,
            evil: None,
            heard: VecDeque::new(),
            routes: HashMap::new(),
            deaf: Vec::new(),
            confuse: None,
            trace: Vec::new(),
            progress: Vec::new(),
            outcome: None,
            at_phase: Vec::new(),
            balance: 0,
            noticed: 0,
            durable: 0,
            cut: None,
            cut_at: None,
            former: BTreeSet::new(),
        }
    }

    /// A coin of the taker with 10 confirmations.
    pub(crate) fn fund(&mut self, value: u64) -> joinery_proto::bitcoin::OutPoint {
        self.wallet.fund(&mut self.chain, 0, value, 10)
    }

    /// A book with the offers of all makers, complete now.
    pub(crate) fn book(&self) -> Book {
        let fake = self.makers.iter().map(|maker| (maker.nick, maker.offer));
        let real = self.real.iter().flat_map(|maker| {
            let nick = maker.nick;
            maker.offers.iter().map(move |offer| (nick, *offer))
        });
        let offers = fake.chain(real).map(|(nick, offer)| BookOffer {
            nick,
            offer,
            signed: true,
            disputed: false,
            heard: self.now,
            directories: vec![DirectoryId(0)],
            direct: false,
            bond_value: 0.0,
        });
        Book {
            made: self.now,
            phase: BookPhase::Complete,
            completed: Some(self.now),
            offers: offers.collect(),
            ..Book::empty()
        }
    }

    pub(crate) fn begin(&mut self, request: TakerRequest, policy: TakerPolicy) {
        let book = self.book();
        self.begin_with(request, policy, book);
    }

    pub(crate) fn begin_with(&mut self, request: TakerRequest, policy: TakerPolicy, book: Book) {
        let setup = TakerSetup {
            request,
            policy,
            nick: self.nick,
            own_nicks: self.former.clone(),
            avoid: Default::default(),
            epoch: 1_700_000_000,
        };
        self.balance = self.chain.balance(|script| self.wallet.owns(script));
        let view = Arc::new(self.wallet.view(&self.chain));
        let seed = self.rng.random();
        self.taker = Some(Taker::new(setup, view, Arc::new(book), seed, self.now));
        for directory in 0..self.directories {
            let via = Source::Directory(DirectoryId(u16::try_from(directory).unwrap()));
            self.later(Duration::from_secs(2), Happening::ToTaker(ChannelEvent::Up(via)));
        }
        self.drain();
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + wait, self.sequence), happening);
    }

    /// Lets the taker do something, while there is one.
    fn with_taker(&mut self, act: impl FnOnce(&mut Taker, Duration)) {
        let now = self.now;
        let Some(taker) = &mut self.taker else { return };
        act(taker, now);
        self.drain();
    }

    pub(crate) fn stop(&mut self) {
        self.with_taker(|taker, now| taker.stop(now));
    }

    /// Something that the taker hears from elsewhere.
    pub(crate) fn tell(&mut self, event: &ChannelEvent) {
        self.with_taker(|taker, now| taker.heard(event, now));
    }

    pub(crate) fn give_book(&mut self, book: Book) {
        self.with_taker(|taker, now| taker.book(Arc::new(book), now));
    }

    /// Carries out what the taker wants.
    fn drain(&mut self) {
        while let Some(output) = self.taker.as_mut().unwrap().poll() {
            assert!(self.outcome.is_none(), "nothing comes after the end: {output:?}");
            match output {
                Output::Send { to, word, payload, prefer } => self.send(to, word, payload, prefer),
                Output::Ask(id, question) => {
                    let name = name(&question);
                    self.trace.push(format!("ask {name}"));
                    if !self.deaf.contains(&name) {
                        let wait = Duration::from_millis(self.rng.random_range(1..20));
                        self.later(wait, Happening::Answer(id, question));
                    }
                }
                Output::RefreshBook => self.trace.push("refresh book".to_owned()),
                Output::Progress(progress) => {
                    let phase = progress.phase;
                    self.progress.push(*progress);
                    if let Some(place) = self.at_phase.iter().position(|(at, _)| *at == phase) {
                        let (_, act) = self.at_phase.remove(place);
                        act(self);
                    }
                }
                Output::Finished(outcome) => {
                    self.trace.push(format!("finished {}", outcome.verdict.reason.code()));
                    self.outcome = Some(*outcome);
                }
            }
        }
    }

    /// Place of a maker in the list.
    pub(crate) fn place(&self, nick: &Nick) -> usize {
        let fake = self.makers.iter().map(|maker| maker.nick);
        let mut nicks = fake.chain(self.real.iter().map(|maker| maker.nick));
        nicks.position(|known| known == *nick).unwrap()
    }

    fn send(&mut self, to: Nick, word: PrivateWord, payload: String, prefer: Option<Source>) {
        let place = self.place(&to);
        self.trace.push(format!("{} {place}", word.as_str()));
        let route = match prefer {
            Some(via) => via,
            None => {
                let directory = self.rng.random_range(0..self.directories);
                let via = Source::Directory(DirectoryId(u16::try_from(directory).unwrap()));
                *self.routes.entry(to).or_insert(via)
            }
        };
        if self.is_evil(route) && self.rng.random_bool(0.35) {
            return;
        }
        let wait = self.latency();
        if let Some(real) = place.checked_sub(self.makers.len()) {
            let text = self.key.sign_message(word, &payload, ONION_HOSTID);
            let event = ChannelEvent::Private { from: self.nick, via: route, text };
            self.later(wait, Happening::ToReal(real, event));
            return;
        }
        self.later(wait, Happening::ToMaker(place, word, payload, route));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(5..800))
    }

    fn is_evil(&self, via: Source) -> bool {
        matches!(via, Source::Directory(id) if Some(usize::from(id.0)) == self.evil)
    }

    /// A maker's message on its way to the taker.
    fn answer(&mut self, place: usize, word: PrivateWord, payload: &str, via: Source) {
        let (text, nick, behaviour) = match place.checked_sub(self.makers.len()) {
            None => {
                let maker = &self.makers[place];
                (maker.key.sign_message(word, payload, ONION_HOSTID), maker.nick, maker.behaviour)
            }
            Some(real) => {
                let maker = &self.real[real];
                let text = maker.key.sign_message(word, payload, ONION_HOSTID);
                (text, maker.nick, Behaviour::Honest)
            }
        };
        let mut wait = self.latency();
        if let Behaviour::Slow(seconds) = behaviour {
            wait += Duration::from_secs(seconds);
        }
        let event = |text: String| ChannelEvent::Private { from: nick, via, text };
        if self.is_evil(via) {
            self.heard.push_back((nick, text.clone()));
            self.heard.truncate(50);
            match self.rng.random_range(0..100) {
                // Lost.
                0..35 => return,
                // Twice.
                35..45 => {
                    let again = self.latency();
                    self.later(again, Happening::ToTaker(event(text.clone())));
                }
                // Late.
                45..50 => wait += Duration::from_secs(50),
                // The word is not signed: it can be made another one.
                50..55 => {
                    let rest = text.split_once(' ').unwrap().1;
                    self.later(wait, Happening::ToTaker(event(format!("error {rest}"))));
                    return;
                }
                // Something old once more.
                55..65 => {
                    let old = self.rng.random_range(0..self.heard.len());
                    let (from, text) = self.heard[old].clone();
                    let event = ChannelEvent::Private { from, via, text };
                    self.later(wait, Happening::ToTaker(event));
                }
                _ => {}
            }
        }
        self.later(wait, Happening::ToTaker(event(text)));
    }

    /// Does the next thing; false when the request is over.
    pub(crate) fn step(&mut self) -> bool {
        if self.outcome.is_some() {
            return false;
        }
        let Some(taker) = &self.taker else { return false };
        let wake = taker.next_wake().expect("it has a deadline");
        let makers = (0..).zip(&self.real).filter_map(|(i, m)| Some((m.machine.next_wake()?, i)));
        if let Some((at, index)) = makers.min()
            && at < wake
            && self.queue.keys().next().is_none_or(|(next, _)| at < *next)
        {
            self.now = self.now.max(at);
            self.with_real(index, |maker, now| maker.machine.tick(now));
            return true;
        }
        let next = self.queue.keys().next().copied();
        match next.filter(|(at, _)| *at <= wake) {
            Some(key) => {
                let happening = self.queue.remove(&key).unwrap();
                self.now = self.now.max(key.0);
                self.happen(happening);
            }
            None => {
                let before = self.now;
                self.now = self.now.max(wake);
                self.with_taker(|taker, now| taker.tick(now));
                let stuck = self.now == before && self.outcome.is_none();
                let wake = self.taker.as_ref().and_then(Taker::next_wake);
                assert!(!stuck || wake.is_none_or(|wake| wake > self.now), "it spins");
            }
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToTaker(event) => self.tell(&event),
            Happening::ToMaker(place, word, payload, via) => {
                let from = self.nick;
                let maker = &mut self.makers[place];
                let (answers, gossip) =
                    maker.hear(from, word, &payload, &mut self.chain, &mut self.rng);
                for (word, payload) in answers {
                    self.answer(place, word, &payload, via);
                }
                if let Some(commitment) = gossip {
                    self.gossip(commitment, via);
                }
                self.notice();
            }
            Happening::ToReal(index, event) => {
                self.with_real(index, |maker, now| maker.machine.heard(&event, now));
            }
            Happening::RealAnswer(index, id, question) => {
                let maker = &mut self.real[index];
                let answer = maker.wallet.answer(question, &mut self.chain, &mut self.rng);
                let view = Arc::new(maker.wallet.view(&self.chain));
                self.with_real(index, |maker, now| {
                    maker.machine.wallet(view, now);
                    maker.machine.answered(id, answer, now);
                });
                self.notice();
            }
            Happening::Answer(id, question) => {
                if is_durable(&question) {
                    if let Some((at, cut)) = self.cut
                        && at == self.durable
                    {
                        return self.power_fails(question, cut);
                    }
                    self.durable += 1;
                }
                let wrong = self.confuse.filter(|_| self.rng.random_bool(0.1));
                let answer = match wrong {
                    Some(confuse) => confuse(&mut self.rng),
                    None => self.wallet.answer(question, &mut self.chain, &mut self.rng),
                };
                let fresh = matches!(answer, Answer::Reserved(_) | Answer::Recorded(_));
                self.with_taker(|taker, now| taker.answered(id, answer, now));
                if fresh && self.rng.random_bool(0.5) {
                    self.refresh_view();
                }
                self.notice();
            }
        }
    }

    /// The taker is gone in the middle of this step. What it said before still reaches makers.
    fn power_fails(&mut self, question: Question, cut: Cut) {
        self.cut_at = Some(name(&question));
        let question = match (cut, question) {
            (Cut::Before, _) => None,
            (Cut::Between, Question::Broadcast { round, transaction, sums, .. }) => {
                Some(Question::Broadcast { round, transaction, sums, send: false })
            }
            (_, question) => Some(question),
        };
        if let Some(question) = question {
            let _ = self.wallet.answer(question, &mut self.chain, &mut self.rng);
        }
        self.taker = None;
        self.cut = None;
        self.former.insert(self.nick);
        while let Some((key, happening)) = self.queue.pop_first() {
            self.now = self.now.max(key.0);
            if !matches!(happening, Happening::Answer(..)) {
                self.happen(happening);
            }
        }
    }

    /// The machine is on again: the wallet is opened from its journal, and the next request has a nick of its own.
    pub(crate) fn power_returns(&mut self) {
        self.wallet.reopen(&mut self.chain);
        self.key = NickKey::new(secret(&format!("taker's nick {}", self.former.len())));
        self.nick = self.key.nick();
        self.routes.clear();
        self.trace.clear();
        self.progress.clear();
    }

    pub(crate) fn refresh_view(&mut self) {
        let view = Arc::new(self.wallet.view(&self.chain));
        self.with_taker(|taker, now| taker.wallet(view, now));
    }

    /// Everybody hears of a used commitment, the taker too.
    fn gossip(&mut self, commitment: Commitment, via: Source) {
        for maker in &mut self.makers {
            maker.blacklist.insert(commitment);
        }
        let nick = NickKey::new(secret("throwaway")).nick();
        let text = format!("hp2 {commitment}");
        let event = ChannelEvent::Public { from: nick, via, text };
        let soon = Duration::from_millis(1);
        for index in 0..self.real.len() {
            self.later(soon, Happening::ToReal(index, event.clone()));
        }
        self.later(soon, Happening::ToTaker(event));
    }

    /// Makers with the real machine, before a request begins.
    pub(crate) fn add_real_makers(&mut self, count: usize) {
        for index in 0..count {
            let maker = RealMaker::new(index, self.directories, &mut self.chain, self.now);
            self.real.push(maker);
            self.with_real(index, |_, _| {});
        }
    }

    /// Lets a real maker do something and carries out what it wants.
    fn with_real(&mut self, index: usize, act: impl FnOnce(&mut RealMaker, Duration)) {
        let now = self.now;
        act(&mut self.real[index], now);
        while let Some(output) = self.real[index].machine.poll() {
            match output {
                maker::Output::Send { to, word, payload, prefer } if to == self.nick => {
                    let via = prefer.unwrap_or(Source::Directory(DirectoryId(0)));
                    self.answer(self.makers.len() + index, word, &payload, via);
                }
                maker::Output::Ask(id, question) => {
                    let wait = Duration::from_millis(self.rng.random_range(1..20));
                    self.later(wait, Happening::RealAnswer(index, id, question));
                }
                maker::Output::PublishCommitment(commitment) => {
                    self.gossip(commitment, Source::Directory(DirectoryId(0)));
                }
                maker::Output::State(state) => self.real[index].shows(&state),
                maker::Output::Finished(end) => panic!("a maker ended: {end}"),
                maker::Output::Send { .. } | maker::Output::Announce { .. } => {}
            }
        }
    }

    /// The wallets see the mempool.
    fn notice(&mut self) {
        if self.noticed != self.chain.transactions.len() {
            self.noticed = self.chain.transactions.len();
            for index in 0..self.real.len() {
                let maker = &mut self.real[index];
                maker.wallet.notice(&self.chain);
                let view = Arc::new(maker.wallet.view(&self.chain));
                self.with_real(index, |maker, now| maker.machine.wallet(view, now));
            }
        }
        for round in self.wallet.notice(&self.chain) {
            self.with_taker(|taker, now| taker.followed(&round, now));
        }
    }

    pub(crate) fn run(&mut self) -> &Outcome {
        self.play();
        self.check();
        self.outcome.as_ref().unwrap()
    }

    /// Until the request is over, or the power fails.
    pub(crate) fn play(&mut self) {
        let begun = self.now;
        while self.step() {
            assert!(self.now - begun < LONGEST, "it takes too long: {:?}", self.trace);
        }
    }

    /// Whatever happened: nobody honest has lost anything but what was agreed.
    fn check(&self) {
        let outcome = self.outcome.as_ref().unwrap();
        let sent = outcome.txid.and_then(|txid| self.chain.transactions.get(&txid));
        let own = |script: &ScriptBuf| self.wallet.owns(script);
        let balance = self.chain.balance(own);
        match (&sent, &outcome.sums) {
            (Some(tx), Some(sums)) => {
                let cost = u64::try_from(sums.cost).unwrap();
                let external = tx.output.iter().filter(|output| !own(&output.script_pubkey));
                let paid_out = external
                    .filter(|output| !self.makers.iter().any(|m| m.owns(&output.script_pubkey)))
                    .filter(|output| {
                        !self.real.iter().any(|m| m.wallet.owns(&output.script_pubkey))
                    })
                    .map(|output| output.value.to_sat())
                    .sum::<u64>();
                assert_eq!(self.balance - balance, cost + paid_out, "{:?}", self.trace);
                let limit = self.progress.iter().rev().find_map(|p| p.fees).unwrap().limit;
                assert!(cost <= limit, "{cost} of {limit}");
            }
            _ => assert_eq!(balance, self.balance, "{:?}", self.trace),
        }
        for maker in &self.makers {
            if matches!(maker.behaviour, Behaviour::Steals | Behaviour::SpentCoin) {
                continue;
            }
            let balance = self.chain.balance(|script| maker.owns(script));
            let in_it = sent.is_some_and(|tx| {
                tx.input.iter().any(|i| maker.coins.iter().any(|c| c.outpoint == i.previous_output))
            });
            let amount = outcome.sums.as_ref().map_or(0, |sums| sums.amount);
            let fee = if in_it { maker.offer.cj_fee.of(amount) } else { 0 };
            assert_eq!(balance, maker.worth + fee, "{:?}", maker.behaviour);
        }
        for maker in &self.real {
            let balance = self.chain.balance(|script| maker.wallet.owns(script));
            let in_it = outcome
                .sums
                .as_ref()
                .filter(|_| sent.is_some())
                .is_some_and(|sums| sums.counterparties.contains(&maker.nick.to_string()));
            let earned = balance.checked_sub(maker.worth).expect("a maker loses nothing");
            assert_eq!(earned > 0, in_it, "whoever takes part is paid, and nobody else");
        }
        // One request signs one transaction at most: a second one could pay twice.
        assert!(self.wallet.signed.len() <= 1, "two transactions are signed");
        // Every round that was begun has ended.
        for (id, round) in &self.wallet.rounds {
            let ended = round.end.is_some()
                || self.wallet.faults.full_after.is_some()
                || self.confuse.is_some();
            assert!(ended || self.deaf.contains(&"end"), "round {id} has not ended");
        }
        let commitments = self
            .wallet
            .journal
            .iter()
            .filter(|(_, event)| matches!(event, RoundEvent::CommitmentSent { .. }));
        assert!(commitments.count() <= 3 * self.wallet_coins(), "more commitments than there are");
    }

    fn wallet_coins(&self) -> usize {
        self.chain.coins.values().filter(|coin| self.wallet.owns(&coin.script)).count()
    }

    pub(crate) fn count(&self, word: &str) -> usize {
        self.trace.iter().filter(|said| said.split(' ').next() == Some(word)).count()
    }
}

/// Whether its answer says that something is durable.
const fn is_durable(question: &Question) -> bool {
    matches!(
        question,
        Question::Begin(_)
            | Question::Reserve { .. }
            | Question::Address { .. }
            | Question::Record { .. }
            | Question::Broadcast { .. }
            | Question::End { .. }
    )
}

fn name(question: &Question) -> &'static str {
    match question {
        Question::Begin(_) => "begin",
        Question::Reserve { .. } => "reserve",
        Question::Address { .. } => "address",
        Question::Coins { .. } => "coins",
        Question::Record { event, .. } => match **event {
            RoundEvent::CommitmentSent { .. } => "record commitment",
            RoundEvent::Shown { .. } => "record shown",
            _ => "record",
        },
        Question::End { .. } => "end",
        Question::LookUp(_) => "look up",
        Question::FeeRate => "fee rate",
        Question::Broadcast { send: true, .. } => "broadcast",
        Question::Broadcast { send: false, .. } => "keep",
        _ => "other",
    }
}
