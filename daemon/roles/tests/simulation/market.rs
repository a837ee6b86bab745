//! One directory, many scripted makers with signed offers and bonds, one real client that collects them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Amount, BlockHash, OutPoint, Txid};
use joinery_proto::bond_proof::{BondProof, Certificate};
use joinery_proto::nick::Nick;
use joinery_proto::offer::OrderType;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::location::Location;
use joinery_proto::private_message::NickKey;
use joinery_proto::public_message::{self, PublicCommand};
use joinery_roles::channel::{self, ChannelConfig, DirectoryAddress, OnionChannel};
use joinery_roles::directory::{self, Directory, Load, Settings};
use joinery_roles::event::{ChannelEvent, LinkId};
use joinery_roles::order_book::{self, BondAnswer, Book, BookTip, OrderBook, OrderBookConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Height of the simulated chain.
const HEIGHT: u32 = 1_000;
/// First of January 2030, the end of every bond.
const LOCKTIME: u32 = 1_893_456_000;
/// The client's connection.
const CLIENT: LinkId = LinkId(u64::MAX);

enum Happening {
    ToDirectory(LinkId, String),
    ToClient(Vec<u8>, Load),
}

pub(crate) struct Market {
    now: Duration,
    random: StdRng,
    directory: Directory,
    client: OnionChannel,
    book: OrderBook,
    client_nick: Nick,
    client_link: Option<LinkId>,
    makers: Vec<NickKey>,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    last: [Duration; 2],
    public: HashSet<(Nick, String)>,
    signed: HashSet<(Nick, String)>,
    waiting: usize,
    paused_until: Duration,
}

impl Market {
    pub(crate) fn open(seed: u64, makers: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let key = |number: u64| {
            let mut bytes = [4_u8; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            NickKey::new(SecretKey::from_slice(&bytes).unwrap())
        };
        let own = Arc::new(key(u64::MAX));
        let client_nick = own.nick();
        let mut config = ChannelConfig::new("regtest", own);
        config.allow_plain = true;
        config.directories = vec![DirectoryAddress::new("127.0.0.1:5222".parse().unwrap())];
        let mut market = Self {
            now: Duration::from_secs(1),
            directory: Directory::new(Settings::new("regtest"), random.random()),
            client: OnionChannel::new(config, random.random()).unwrap(),
            book: OrderBook::new(OrderBookConfig::new(client_nick, 1), Duration::from_secs(1)),
            client_nick,
            client_link: None,
            makers: (0..makers).map(key).collect(),
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            last: [Duration::ZERO; 2],
            public: HashSet::new(),
            signed: HashSet::new(),
            waiting: 0,
            paused_until: Duration::ZERO,
        };
        let hash = BlockHash::all_zeros();
        let tip = BookTip { height: HEIGHT, hash, median_time: 1_700_000_000 };
        market.book.tip(tip, market.now);
        market.client.tick(market.now);
        market.settle();
        for number in 0..market.makers.len() {
            let handshake = PeerHandshake {
                nick: market.makers[number].nick(),
                location: Location::NotServing,
                network: "regtest".into(),
                features: Features::none(),
            };
            market.directory.opened(LinkId(number as u64), market.now);
            market.speak(number, MessageType::Handshake, &handshake.to_line());
        }
        market.run(Duration::from_secs(5));
        assert_eq!(market.directory.members(), market.makers.len() + 1);
        market
    }

    /// All makers announce so many offers each, in the course of a minute.
    pub(crate) fn announce(&mut self, offers: usize) {
        for number in 0..self.makers.len() {
            for offer in 0..offers {
                let nick = self.makers[number].nick();
                let line = format!("{nick}!PUBLIC!{}", terms(number, offer));
                self.speak(number, MessageType::Public, &line);
            }
            self.run(Duration::from_millis(60));
        }
    }

    pub(crate) fn ask(&mut self) {
        self.client.request_orderbook(self.now);
        self.settle();
    }

    fn speak(&mut self, number: usize, kind: MessageType, line: &str) {
        let text = Envelope::new(kind, line).encode().unwrap();
        let at = self.now + Duration::from_millis(self.random.random_range(20..800));
        self.schedule(at, Happening::ToDirectory(LinkId(number as u64), text));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let tick = self.client.next_wake().unwrap_or(end);
            let tick = tick.min(self.directory.next_tick()).min(self.book.next_wake());
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            if tick <= end && next.is_none_or(|at| tick < at) {
                self.now = self.now.max(tick) + Duration::from_micros(1);
                self.directory.tick(self.now);
                self.client.tick(self.now);
                self.book.tick(self.now);
            } else if let Some(at) = next.filter(|at| *at <= end) {
                self.now = self.now.max(at);
                match self.queue.pop_first().unwrap().1 {
                    Happening::ToDirectory(link, line) => {
                        self.directory.received(link, line.trim_end().as_bytes(), self.now);
                    }
                    Happening::ToClient(line, load) => {
                        if self.paused_until > self.now {
                            self.schedule(self.paused_until, Happening::ToClient(line, load));
                            continue;
                        }
                        self.directory.written(CLIENT, &load, self.now);
                        let link = self.client_link.unwrap();
                        self.client.received(link, &line[..line.len() - 2], self.now);
                    }
                }
            } else {
                break;
            }
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.directory.poll() {
                quiet = false;
                match output {
                    directory::Output::Send { link: CLIENT, frame } => {
                        let mut load = Load::default();
                        load.add(&frame);
                        let at = self.after(1);
                        self.schedule(at, Happening::ToClient(frame.bytes().to_vec(), load));
                    }
                    directory::Output::Send { link, frame } => {
                        let mut load = Load::default();
                        load.add(&frame);
                        self.directory.written(link, &load, self.now);
                        if frame.bytes().ends_with(b"!PUBLIC!orderbook\"}\r\n") {
                            self.answer(usize::try_from(link.0).unwrap());
                        }
                    }
                    directory::Output::Close { link, incident } => panic!("{link:?} {incident}"),
                    directory::Output::Log(_) => {}
                }
            }
            while let Some(output) = self.client.poll() {
                quiet = false;
                if let channel::Output::Event(event) = &output {
                    self.book.event(event, self.now);
                }
                match output {
                    channel::Output::Dial { link, .. } => {
                        self.client_link = Some(link);
                        self.directory.opened(CLIENT, self.now);
                        self.client.opened(link, self.now);
                    }
                    channel::Output::Send { line, .. } => {
                        let at = self.after(0);
                        self.schedule(at, Happening::ToDirectory(CLIENT, line));
                    }
                    channel::Output::Event(ChannelEvent::Public { from, text, .. }) => {
                        self.public.extend(offers(&text).map(|offer| (from, offer)));
                    }
                    channel::Output::Event(ChannelEvent::Private { from, text, .. }) => {
                        // `command payload key signature`, the bond's proof among the payload.
                        let offer: Vec<_> =
                            text.split("!tbond").next().unwrap().split(' ').collect();
                        self.signed.insert((from, offer[..6].join(" ")));
                    }
                    channel::Output::Pause { until, .. } => self.paused_until = until,
                    channel::Output::Close { .. } => panic!("the client gave up"),
                    channel::Output::Event(_) | channel::Output::Log(_) => {}
                }
            }
            while let Some(output) = self.book.poll() {
                quiet = false;
                match output {
                    order_book::Output::AskOffers(_) => self.client.request_orderbook(self.now),
                    order_book::Output::VerifyBond(coin) => {
                        let amount = Amount::from_sat(100_000_000);
                        let answer =
                            BondAnswer::Confirmed { amount, height: 500, time: 1_690_000_000 };
                        self.book.bond_answer(&coin, answer, self.now);
                    }
                }
            }
            self.waiting = self.waiting.max(self.directory.waiting_bytes());
            if quiet {
                return;
            }
        }
    }

    /// A maker's private answer: one message for each offer, each with the proof of its bond.
    fn answer(&mut self, number: usize) {
        for offer in 0..3 {
            let terms = terms(number, offer);
            let (word, fields) = terms.split_once(' ').unwrap();
            let proof = self.proof(number);
            let key = &self.makers[number];
            let payload = format!("{fields}!tbond {proof}");
            // As makers do it: what is signed is everything after the command word.
            let signature = key.sign_text(format!("{payload}onion-network").as_bytes());
            let text = format!("{word} {payload} {} {signature}", key.public_key());
            let line = format!("{}!{}!{text}", key.nick(), self.client_nick);
            self.speak(number, MessageType::Private, &line);
        }
    }

    /// The proof of a maker's bond towards the client.
    fn proof(&self, number: usize) -> String {
        let secret = |kind: u8| {
            let mut bytes = [kind; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            SecretKey::from_slice(&bytes).unwrap()
        };
        let (coin, certificate_key) = (secret(5), secret(6));
        let expiry = Certificate::expiry_at(HEIGHT).unwrap();
        let public = |secret: &SecretKey| secret.public_key(joinery_proto::secp());
        let certificate = Certificate::sign(&coin, &public(&certificate_key), expiry);
        let outpoint = OutPoint::new(Txid::hash(&number.to_be_bytes()), 0);
        let maker = self.makers[number].nick();
        let coin = public(&coin);
        let taker = &self.client_nick;
        BondProof::create(&maker, taker, &certificate, &certificate_key, &coin, &outpoint, LOCKTIME)
    }

    /// The client's order book.
    pub(crate) fn book(&mut self) -> Arc<Book> {
        self.book.book(self.now)
    }

    /// When something that is sent now arrives at the one end or the other: in order.
    fn after(&mut self, way: usize) -> Duration {
        let at = self.now + Duration::from_millis(self.random.random_range(20..800));
        self.last[way] = self.last[way].max(at);
        self.last[way]
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn public_offers(&self) -> usize {
        self.public.len()
    }

    pub(crate) fn signed_offers(&self) -> usize {
        self.signed.len()
    }

    /// Most bytes that waited in the directory for single peers.
    pub(crate) fn most_waiting(&self) -> usize {
        self.waiting
    }
}

fn terms(number: usize, offer: usize) -> String {
    format!(
        "{} {offer} 27300 {} 0 0.0000{}",
        OrderType::parse("sw0reloffer").unwrap().word(),
        1_000_000 + number,
        offer + 1
    )
}

/// The offers of a public message, as they are kept.
fn offers(text: &str) -> impl Iterator<Item = String> {
    public_message::parse(text).into_iter().filter_map(|command| match command {
        PublicCommand::Offer(offer) => Some(offer.to_string()),
        _ => None,
    })
}
