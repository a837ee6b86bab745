//! Several directories of different kinds, makers that come and go, and one watcher that judges the directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::{Features, PING};
use joinery_proto::onion::handshake::{DirectoryHandshake, PeerHandshake};
use joinery_proto::onion::onion_name;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_roles::channel::{self, ChannelConfig, DirectoryAddress, OnionChannel};
use joinery_roles::directory::{self, Directory, Incident, Load, Settings};
use joinery_roles::event::LinkId;
use joinery_roles::order_book::{self, DirectoryHealth, OrderBook, OrderBookConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const NETWORK: &str = "regtest";

/// What a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours, as joinmarket-ng's and joinmarket-rs's: lists its peers when it is asked.
    Lists,
    /// The reference's: announces no flags and lists nobody.
    Reference,
    /// Lists its peers but for every so many-th maker, of whom it passes on nothing.
    Hides(usize),
    /// Passes on nothing of every so many-th maker and poses as one of the reference.
    HidesAsReference(usize),
}

impl Kind {
    const fn hides(self, maker: usize) -> bool {
        match self {
            Self::Lists | Self::Reference => false,
            Self::Hides(nth) | Self::HidesAsReference(nth) => maker.is_multiple_of(nth),
        }
    }

    const fn lists(self) -> bool {
        matches!(self, Self::Lists | Self::Hides(_))
    }
}

/// How a maker answers an order book request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// As the reference: through one directory of its choice, whichever asked; silent when it comes back to one.
    Reference,
    /// As joinmarket-ng: through the directory that brought the request; announces where it comes back.
    Asked,
}

/// Somebody's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Watcher,
    Maker(usize),
}

enum Happening {
    Enter(usize, usize),
    ToDirectory(usize, LinkId, String),
    ToWatcher(LinkId, Vec<u8>),
    ToMaker(usize, usize, Vec<u8>),
}

struct Node {
    kind: Kind,
    machine: Directory,
    /// Who is behind its links, and which link of its own the watcher knows.
    ends: BTreeMap<LinkId, End>,
    watcher: Option<LinkId>,
    /// The last line on its way to the watcher or a maker arrives then.
    last: BTreeMap<End, Duration>,
    /// The same of what makers said.
    said: BTreeMap<LinkId, Duration>,
    down: bool,
}

struct Player {
    key: NickKey,
    kind: Maker,
    /// Directories that it is never on.
    shuns: BTreeSet<usize>,
    home: usize,
    links: BTreeMap<usize, LinkId>,
    terms: u64,
}

pub(crate) struct Services {
    pub(crate) now: Duration,
    random: StdRng,
    nodes: Vec<Node>,
    players: Vec<Player>,
    watcher: OnionChannel,
    watching: bool,
    book: OrderBook,
    watcher_nick: Nick,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    links: u64,
}

impl Services {
    pub(crate) fn open(seed: u64, kinds: &[Kind], makers: &[Maker]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let key = |number: u64| {
            let mut bytes = [11_u8; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            NickKey::new(SecretKey::from_slice(&bytes).unwrap())
        };
        let own = Arc::new(key(u64::MAX));
        let watcher_nick = own.nick();
        let mut config = ChannelConfig::new(NETWORK, own);
        config.allow_plain = true;
        config.want_peers = true;
        config.dial_peers = false;
        let address = |place| format!("127.0.0.1:{}", 5_222 + place).parse().unwrap();
        config.directories =
            (0..kinds.len()).map(|place| DirectoryAddress::new(address(place))).collect();
        let directories = u16::try_from(kinds.len()).unwrap();
        let nodes = kinds.iter().map(|kind| Node {
            kind: *kind,
            machine: Directory::new(Settings::new(NETWORK), random.random()),
            ends: BTreeMap::new(),
            watcher: None,
            last: BTreeMap::new(),
            said: BTreeMap::new(),
            down: false,
        });
        let nodes = nodes.collect();
        let players = (0..).zip(makers).map(|(number, kind)| Player {
            key: key(number),
            kind: *kind,
            shuns: BTreeSet::new(),
            home: random.random_range(0..kinds.len()),
            links: BTreeMap::new(),
            terms: 0,
        });
        let players = players.collect();
        let now = Duration::from_secs(1);
        let book = OrderBookConfig::new(watcher_nick, directories);
        Self {
            now,
            nodes,
            players,
            watcher: OnionChannel::new(config, random.random()).unwrap(),
            watching: false,
            book: OrderBook::new(book, now),
            watcher_nick,
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            links: 0,
        }
    }

    /// A maker that does not know a directory.
    pub(crate) fn shun(&mut self, maker: usize, directory: usize) {
        self.players[maker].shuns.insert(directory);
    }

    /// All makers connect everywhere within a minute, then the watcher does.
    pub(crate) fn begin(&mut self) {
        for maker in 0..self.players.len() {
            for directory in 0..self.nodes.len() {
                self.come(maker, directory, 60);
            }
        }
        self.run(Duration::from_secs(60));
        self.watching = true;
        let directories = u16::try_from(self.nodes.len()).unwrap();
        let config = OrderBookConfig::new(self.watcher_nick, directories);
        self.book = OrderBook::new(config, self.now);
        self.watcher.tick(self.now);
        self.settle();
    }

    fn come(&mut self, maker: usize, directory: usize, within: u64) {
        if !self.players[maker].shuns.contains(&directory) {
            let wait = Duration::from_millis(self.random.random_range(0..within * 1_000));
            self.schedule(self.now + wait, Happening::Enter(maker, directory));
        }
    }

    /// A maker loses its connection to a directory, and comes back after so long.
    pub(crate) fn lose(&mut self, maker: usize, directory: usize, back: Duration) {
        if let Some(link) = self.players[maker].links.remove(&directory) {
            let node = &mut self.nodes[directory];
            node.ends.remove(&link);
            node.machine.closed(link, Incident::Gone, self.now);
        }
        self.schedule(self.now + back, Happening::Enter(maker, directory));
        self.settle();
    }

    /// A directory ends and is back after so long. Makers follow as theirs do: those of the reference after at most
    /// half as long again and a little, those of joinmarket-ng within 300 s.
    pub(crate) fn restart(&mut self, directory: usize, away: Duration) {
        let seed = self.random.random();
        let node = &mut self.nodes[directory];
        node.machine = Directory::new(Settings::new(NETWORK), seed);
        node.ends.clear();
        node.down = true;
        if let Some(link) = node.watcher.take() {
            self.watcher.closed(link, "ended", self.now);
        }
        for player in &mut self.players {
            player.links.remove(&directory);
        }
        self.settle();
        self.run(away);
        self.nodes[directory].down = false;
        for maker in 0..self.players.len() {
            let within = match self.players[maker].kind {
                Maker::Reference => 15 + away.as_secs() / 2,
                Maker::Asked => 300,
            };
            self.come(maker, directory, within);
        }
    }

    /// A maker has other terms and says so wherever it is.
    pub(crate) fn announce(&mut self, maker: usize) {
        self.players[maker].terms += 1;
        for directory in 0..self.nodes.len() {
            self.announce_on(maker, directory);
        }
    }

    fn announce_on(&mut self, maker: usize, directory: usize) {
        let line = format!("{}!PUBLIC!{}", self.nick(maker), self.terms(maker));
        self.speak(maker, directory, MessageType::Public, line);
    }

    fn nick(&self, maker: usize) -> Nick {
        self.players[maker].key.nick()
    }

    fn terms(&self, maker: usize) -> String {
        format!("sw0absoffer 0 27300 {} 0 250", 1_000_000 + self.players[maker].terms)
    }

    fn speak(&mut self, maker: usize, directory: usize, kind: MessageType, line: String) {
        let Some(link) = self.players[maker].links.get(&directory).copied() else { return };
        let text = Envelope::new(kind, line).encode().unwrap();
        let at = self.now + self.latency();
        let last = self.nodes[directory].said.entry(link).or_default();
        *last = at.max(*last);
        let at = *last;
        self.schedule(at, Happening::ToDirectory(directory, link, text));
    }

    fn answer(&mut self, maker: usize, asked_on: usize) {
        let player = &self.players[maker];
        let directory = match player.kind {
            Maker::Asked => asked_on,
            Maker::Reference if player.links.contains_key(&player.home) => player.home,
            Maker::Reference => *player.links.keys().next().unwrap(),
        };
        let terms = self.terms(maker);
        let (word, payload) = terms.split_once(' ').unwrap();
        let word = PrivateWord::parse(word).unwrap();
        let text = self.players[maker].key.sign_message(word, payload, ONION_HOSTID);
        let line = format!("{}!{}!{text}", self.nick(maker), self.watcher_nick);
        self.speak(maker, directory, MessageType::Private, line);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let ticks = self.nodes.iter().map(|node| node.machine.next_tick());
            let watcher = self.watcher.next_wake().filter(|_| self.watching);
            let tick = ticks.chain(watcher).chain([self.book.next_wake()]).min().unwrap();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            if tick <= end && next.is_none_or(|at| tick < at) {
                self.now = self.now.max(tick) + Duration::from_micros(1);
                for node in &mut self.nodes {
                    node.machine.tick(self.now);
                }
                if watcher.is_some() {
                    self.watcher.tick(self.now);
                }
                self.book.tick(self.now);
            } else if let Some(at) = next.filter(|at| *at <= end) {
                self.now = self.now.max(at);
                let happening = self.queue.pop_first().unwrap().1;
                self.happen(happening);
            } else {
                break;
            }
            self.settle();
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Enter(maker, directory) => {
                let links = &self.players[maker].links;
                if self.nodes[directory].down || links.contains_key(&directory) {
                    return;
                }
                let link = self.connect(directory, End::Maker(maker));
                self.players[maker].links.insert(directory, link);
                let mut key = [12_u8; 32];
                key[..8].copy_from_slice(&(maker as u64).to_be_bytes());
                let location = format!("{}:5222", onion_name::encode(&key));
                let handshake = PeerHandshake {
                    nick: self.nick(maker),
                    location: location.parse().unwrap(),
                    network: NETWORK.into(),
                    features: Features::from_names([PING]),
                };
                self.speak(maker, directory, MessageType::Handshake, handshake.to_line());
                if self.players[maker].kind == Maker::Asked {
                    self.announce_on(maker, directory);
                }
            }
            Happening::ToDirectory(directory, link, line) => {
                let node = &mut self.nodes[directory];
                if node.ends.contains_key(&link) {
                    node.machine.received(link, line.trim_end().as_bytes(), self.now);
                }
            }
            Happening::ToWatcher(link, line) => self.watcher.received(link, &line, self.now),
            Happening::ToMaker(maker, directory, line) => {
                if !self.players[maker].links.contains_key(&directory) {
                    return;
                }
                let envelope = Envelope::decode(&line).unwrap();
                if envelope.kind == MessageType::Ping {
                    self.speak(maker, directory, MessageType::Pong, String::new());
                } else if envelope.line == format!("{}!PUBLIC!orderbook", self.watcher_nick) {
                    self.answer(maker, directory);
                }
            }
        }
    }

    fn connect(&mut self, directory: usize, end: End) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let node = &mut self.nodes[directory];
        node.ends.insert(link, end);
        node.machine.opened(link, self.now);
        link
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for directory in 0..self.nodes.len() {
                while let Some(output) = self.nodes[directory].machine.poll() {
                    quiet = false;
                    match output {
                        directory::Output::Send { link, frame } => {
                            let mut load = Load::default();
                            load.add(&frame);
                            self.nodes[directory].machine.written(link, &load, self.now);
                            let line = frame.bytes().strip_suffix(b"\r\n").unwrap().to_vec();
                            self.relay(directory, link, line);
                        }
                        directory::Output::Close { link, incident } => {
                            panic!("{link:?} {incident}")
                        }
                        directory::Output::Log(_) => {}
                    }
                }
            }
            while let Some(output) = self.watcher.poll() {
                quiet = false;
                match output {
                    channel::Output::Dial { link, address, .. } => {
                        let directory = usize::from(address.port() - 5_222);
                        if self.nodes[directory].down {
                            self.watcher.closed(link, "refused", self.now);
                            continue;
                        }
                        // One number at both ends.
                        let node = &mut self.nodes[directory];
                        node.ends.insert(watcher_link(directory), End::Watcher);
                        node.watcher = Some(link);
                        node.machine.opened(watcher_link(directory), self.now);
                        self.watcher.opened(link, self.now);
                    }
                    channel::Output::Send { link, line } => {
                        let known = |node: &Node| node.watcher == Some(link);
                        let directory = self.nodes.iter().position(known).unwrap();
                        let at = self.now + Duration::from_millis(20);
                        let link = watcher_link(directory);
                        self.schedule(at, Happening::ToDirectory(directory, link, line));
                    }
                    channel::Output::Event(event) => self.book.event(&event, self.now),
                    channel::Output::Close { .. } => panic!("the watcher gave up"),
                    channel::Output::Pause { .. } => panic!("it is too much for the watcher"),
                    channel::Output::Log(_) => {}
                }
            }
            while let Some(output) = self.book.poll() {
                quiet = false;
                // As the daemon does it.
                if let order_book::Output::AskOffers(_) = output {
                    self.watcher.request_orderbook(self.now);
                    self.watcher.request_peers(self.now);
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// A line of a directory on its way, or what its kind makes of it.
    fn relay(&mut self, directory: usize, to: LinkId, line: Vec<u8>) {
        let Some(end) = self.nodes[directory].ends.get(&to).copied() else { return };
        let at = self.now + self.latency();
        let last = self.nodes[directory].last.entry(end).or_default();
        *last = at.max(*last);
        let at = *last;
        match end {
            End::Maker(maker) => self.schedule(at, Happening::ToMaker(maker, directory, line)),
            End::Watcher => {
                let link = self.nodes[directory].watcher.unwrap();
                if let Some(line) = self.twist(directory, line) {
                    self.schedule(at, Happening::ToWatcher(link, line));
                }
            }
        }
    }

    fn twist(&self, directory: usize, line: Vec<u8>) -> Option<Vec<u8>> {
        let kind = self.nodes[directory].kind;
        let Envelope { kind: type_, line: text } = Envelope::decode(&line).unwrap();
        let encode = |text: String| {
            Envelope::new(type_, text).encode().unwrap().trim_end().as_bytes().to_vec()
        };
        let hidden = |nick: &str| {
            let maker = (0..self.players.len()).find(|maker| self.nick(*maker).as_str() == nick);
            maker.is_some_and(|maker| kind.hides(maker))
        };
        match type_ {
            MessageType::DirectoryHandshake if !kind.lists() => {
                let mut greeting = DirectoryHandshake::parse(&text, NETWORK).unwrap();
                greeting.features = Features::none();
                Some(encode(greeting.to_line()))
            }
            MessageType::PeerList => {
                let shown = |entry: &&str| !hidden(entry.split(';').next().unwrap());
                let entries: Vec<_> = text.split(',').filter(shown).collect();
                (!entries.is_empty()).then(|| encode(entries.join(",")))
            }
            MessageType::Public | MessageType::Private => {
                let from = text.split('!').next().unwrap();
                (!hidden(from)).then_some(line)
            }
            _ => Some(line),
        }
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(20..800))
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// What the watcher thinks of the directories.
    pub(crate) fn report(&mut self) -> Vec<DirectoryHealth> {
        self.book.tick(self.now);
        self.book.book(self.now).directories.clone()
    }

    /// Makers that a directory hides and the watcher hears of all the same: their signed answers come over another one.
    pub(crate) fn hidden(&self, directory: usize) -> usize {
        let kind = self.nodes[directory].kind;
        let heard = |player: &Player| player.kind == Maker::Asked || player.home != directory;
        let players = self.players.iter().enumerate();
        players.filter(|(maker, player)| kind.hides(*maker) && heard(player)).count()
    }

    /// Offers in the watcher's book.
    pub(crate) fn offers(&mut self) -> usize {
        self.book.book(self.now).offers.len()
    }
}

/// The watcher's link at a directory's end.
fn watcher_link(directory: usize) -> LinkId {
    LinkId(u64::MAX - directory as u64)
}
