//! The scheduler: one queue of happenings in the order of simulated time.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::private_message::{NickKey, PrivateWord, UnverifiedMessage};
use joinery_roles::channel::{self, Audience, ChannelConfig, DirectoryAddress, OnionChannel};
use joinery_roles::directory::{self, Directory, Frame, Incident, Load, Settings, limits};
use joinery_roles::event::{ChannelEvent, LinkId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a malicious directory does to lines on their way to clients, each with this probability.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evil {
    floods: bool,
}

impl Evil {
    pub(crate) fn flooder() -> Self {
        Self { floods: true }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    pub(crate) directories: Vec<Option<Evil>>,
    /// Chance that a line ends its connection instead of arriving.
    pub(crate) resets: f64,
    /// Chance that a machine's clock jumps ahead when something reaches it.
    pub(crate) jumps: f64,
}

#[derive(Debug)]
enum Happening {
    WakeClient(usize),
    WakeDirectory(usize),
    Connected(usize),
    ToDirectory(usize, Vec<u8>),
    ToClient(usize, Vec<u8>, Option<Load>),
    /// The directory's end is closed and the client sees it.
    EndAtClient(usize),
    EndAtDirectory(usize),
}

/// A connection, by its number. Bytes arrive in order, as TCP has it.
#[derive(Debug)]
struct Connection {
    client: usize,
    client_link: LinkId,
    directory: usize,
    arrives: [Duration; 2],
    at_client: bool,
    at_directory: bool,
}

struct Client {
    channel: OnionChannel,
    nick: Nick,
    links: HashMap<LinkId, usize>,
    ahead: Duration,
    wakes_at: Option<Duration>,
    dials: usize,
    paused: HashMap<LinkId, Duration>,
}

struct Node {
    machine: Directory,
    evil: Option<Evil>,
    ahead: Duration,
    wakes_at: Option<Duration>,
    /// Lines to replay and the one held back.
    heard: VecDeque<Vec<u8>>,
    held: Option<(usize, Vec<u8>)>,
    logged: HashMap<Incident, Duration>,
}

pub(crate) struct World {
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    random: StdRng,
    digest: DefaultHasher,
    clients: Vec<Client>,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    resets: f64,
    jumps: f64,
    /// Payloads of private messages by sender and recipient, and which arrived.
    sent: HashSet<(Nick, Nick, String)>,
    arrived: HashMap<(Nick, Nick, String), Duration>,
    repeats: usize,
    spoken: usize,
    received: usize,
    said: u64,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut random = StdRng::seed_from_u64(plan.seed);
        let clients = (0..plan.clients).map(|index| {
            let mut bytes = [9_u8; 32];
            bytes[0] = u8::try_from(index).unwrap();
            let key = Arc::new(NickKey::new(SecretKey::from_slice(&bytes).unwrap()));
            let nick = key.nick();
            let mut config = ChannelConfig::new("regtest", key);
            config.allow_plain = true;
            let address = |place| format!("127.0.0.1:{}", 5_222 + place).parse().unwrap();
            config.directories = (0..plan.directories.len())
                .map(|place| DirectoryAddress::new(address(place)))
                .collect();
            config.first_link = index as u64 * 1_000_000;
            Client {
                channel: OnionChannel::new(config, random.random()).unwrap(),
                nick,
                links: HashMap::new(),
                ahead: Duration::ZERO,
                wakes_at: None,
                dials: 0,
                paused: HashMap::new(),
            }
        });
        let clients = clients.collect();
        let nodes = plan.directories.iter().map(|evil| Node {
            machine: Directory::new(Settings::new("regtest"), random.random()),
            evil: *evil,
            ahead: Duration::ZERO,
            wakes_at: None,
            heard: VecDeque::new(),
            held: None,
            logged: HashMap::new(),
        });
        let nodes = nodes.collect();
        let mut world = Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            random,
            digest: DefaultHasher::new(),
            clients,
            nodes,
            connections: Vec::new(),
            resets: plan.resets,
            jumps: plan.jumps,
            sent: HashSet::new(),
            arrived: HashMap::new(),
            repeats: 0,
            spoken: 0,
            received: 0,
            said: 0,
        };
        for index in 0..plan.clients {
            world.schedule(Duration::ZERO, Happening::WakeClient(index));
        }
        for index in 0..plan.directories.len() {
            world.schedule(Duration::ZERO, Happening::WakeDirectory(index));
        }
        world
    }

    /// Lets everything happen that happens in this time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), happening) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = end;
    }

    /// Everybody says something now and then: `each` public and `each` private lines in all that time.
    pub(crate) fn chatter(&mut self, each: usize, time: Duration) {
        let pause = time / u32::try_from(each).unwrap();
        for _ in 0..each {
            for index in 0..self.clients.len() {
                self.speak(index);
            }
            self.run(pause);
        }
    }

    fn speak(&mut self, index: usize) {
        self.said += 1;
        let now = self.now + self.clients[index].ahead;
        let other = (index + self.random.random_range(1..self.clients.len())) % self.clients.len();
        let to = self.clients[other].nick;
        let payload = format!("{:064x}", self.said);
        let client = &mut self.clients[index];
        let text = format!("hp2 {payload}");
        if client.channel.is_up() && client.channel.announce(&text, Audience::All, now).is_ok() {
            self.spoken += 1;
        }
        let result = client.channel.send_private(to, PrivateWord::PubKey, &payload, None, now);
        if result.is_ok() {
            self.sent.insert((client.nick, to, payload));
        }
        self.settle_client(index);
    }

    fn happen(&mut self, happening: Happening) {
        // What happened, to whom and when: the same in each run of a seed.
        self.now.hash(&mut self.digest);
        match happening {
            Happening::WakeClient(index) => {
                self.clients[index].wakes_at = None;
                let now = self.client_time(index);
                self.clients[index].channel.tick(now);
                self.settle_client(index);
            }
            Happening::WakeDirectory(index) => {
                self.nodes[index].wakes_at = None;
                let now = self.directory_time(index);
                self.nodes[index].machine.tick(now);
                self.settle_directory(index);
            }
            Happening::Connected(number) => self.connected(number),
            Happening::ToDirectory(number, line) => {
                let Connection { directory, at_directory: true, .. } = self.connections[number]
                else {
                    return;
                };
                line.hash(&mut self.digest);
                let now = self.directory_time(directory);
                self.nodes[directory].machine.received(link(number), &line, now);
                self.settle_directory(directory);
            }
            Happening::ToClient(number, line, load) => self.reach_client(number, &line, load),
            Happening::EndAtClient(number) => {
                let Connection { client, client_link, at_client: true, .. } =
                    self.connections[number]
                else {
                    return;
                };
                self.connections[number].at_client = false;
                let now = self.client_time(client);
                self.clients[client].links.remove(&client_link);
                self.clients[client].channel.closed(client_link, "ended", now);
                self.settle_client(client);
            }
            Happening::EndAtDirectory(number) => {
                let Connection { directory, at_directory: true, .. } = self.connections[number]
                else {
                    return;
                };
                self.connections[number].at_directory = false;
                let now = self.directory_time(directory);
                self.nodes[directory].machine.closed(link(number), Incident::Gone, now);
                self.settle_directory(directory);
            }
        }
    }

    fn connected(&mut self, number: usize) {
        let Connection { client, client_link, directory, at_client, .. } = self.connections[number];
        if !at_client {
            return;
        }
        self.connections[number].at_directory = true;
        let now = self.directory_time(directory);
        self.nodes[directory].machine.opened(link(number), now);
        let now = self.client_time(client);
        self.clients[client].channel.opened(client_link, now);
        self.settle_directory(directory);
        self.settle_client(client);
    }

    fn reach_client(&mut self, number: usize, line: &[u8], load: Option<Load>) {
        let Connection { client, client_link, directory, at_client, at_directory, .. } =
            self.connections[number];
        if at_directory && let Some(load) = load {
            let now = self.directory_time(directory);
            self.nodes[directory].machine.written(link(number), &load, now);
            self.settle_directory(directory);
        }
        if !at_client {
            return;
        }
        // A client that reads nothing for a while finds the line later.
        if let Some(until) = self.clients[client].paused.get(&client_link).copied()
            && until > self.now + self.clients[client].ahead
        {
            let later = until.saturating_sub(self.clients[client].ahead);
            return self.schedule(later, Happening::ToClient(number, line.to_vec(), None));
        }
        line.hash(&mut self.digest);
        let now = self.client_time(client);
        self.clients[client].channel.received(client_link, line, now);
        self.settle_client(client);
    }

    fn settle_client(&mut self, index: usize) {
        while let Some(output) = self.clients[index].channel.poll() {
            match output {
                channel::Output::Dial { link: client_link, address, .. } => {
                    self.clients[index].dials += 1;
                    let number = self.connections.len();
                    self.clients[index].links.insert(client_link, number);
                    self.connections.push(Connection {
                        client: index,
                        client_link,
                        directory: usize::from(address.port() - 5_222),
                        arrives: [self.now; 2],
                        at_client: true,
                        at_directory: false,
                    });
                    let at = self.now + self.latency() * 4;
                    self.schedule(at, Happening::Connected(number));
                }
                channel::Output::Send { link: client_link, line } => {
                    let Some(number) = self.clients[index].links.get(&client_link).copied() else {
                        continue;
                    };
                    let line = line.trim_end().as_bytes().to_vec();
                    self.travel(number, 0, |number| Happening::ToDirectory(number, line));
                }
                channel::Output::Close { link: client_link } => {
                    if let Some(number) = self.clients[index].links.remove(&client_link) {
                        self.connections[number].at_client = false;
                        self.arrive(number, 0, Happening::EndAtDirectory(number));
                    }
                }
                channel::Output::Pause { link: client_link, until } => {
                    self.clients[index].paused.insert(client_link, until);
                }
                channel::Output::Event(event) => self.hear(index, event),
                channel::Output::Log(_) => {}
            }
        }
        let client = &self.clients[index];
        if let Some(wake) = client.channel.next_wake() {
            let at = wake.saturating_sub(client.ahead).max(self.now);
            if client.wakes_at.is_none_or(|planned| at < planned) {
                self.clients[index].wakes_at = Some(at);
                // At least a moment later, so that a machine that asks for nothing new cannot stop time.
                let at = at.max(self.now + Duration::from_micros(1));
                self.schedule(at, Happening::WakeClient(index));
            }
        }
    }

    fn settle_directory(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].machine.poll() {
            match output {
                directory::Output::Send { link, frame } => self.relay(index, link, &frame),
                directory::Output::Close { link, .. } => {
                    let number = usize::try_from(link.0).unwrap();
                    self.connections[number].at_directory = false;
                    self.arrive(number, 1, Happening::EndAtClient(number));
                }
                directory::Output::Log(fact) => {
                    let now = self.now + self.nodes[index].ahead;
                    let before = self.nodes[index].logged.insert(fact.incident, now);
                    let quiet = before.is_none_or(|at| now - at >= Duration::from_secs(60));
                    assert!(quiet, "{:?} is logged twice in a minute", fact.incident);
                }
            }
        }
        let node = &self.nodes[index];
        let at = node.machine.next_tick().saturating_sub(node.ahead).max(self.now);
        if node.wakes_at.is_none_or(|planned| at < planned) {
            self.nodes[index].wakes_at = Some(at);
            let at = at.max(self.now + Duration::from_micros(1));
            self.schedule(at, Happening::WakeDirectory(index));
        }
    }

    /// A frame on its way to a client, through what its directory makes of it.
    fn relay(&mut self, index: usize, to: LinkId, frame: &Frame) {
        let number = usize::try_from(to.0).unwrap();
        let line = frame.bytes().strip_suffix(b"\r\n").unwrap().to_vec();
        let mut load = Load::default();
        load.add(frame);
        let shakes_hands = line.starts_with(b"{\"type\": 795");
        let Some(evil) = self.nodes[index].evil.filter(|_| !shakes_hands) else {
            return self.travel(number, 1, |number| Happening::ToClient(number, line, Some(load)));
        };
        let node = &mut self.nodes[index];
        node.heard.push_back(line.clone());
        if node.heard.len() > 50 {
            node.heard.pop_front();
        }
        let mut out: Vec<(usize, Vec<u8>)> = Vec::new();
        match self.random.random_range(0..10) {
            0 => {}
            1 => out.extend([(number, line.clone()), (number, line)]),
            // To be told after the next one.
            2 if node.held.is_none() => node.held = Some((number, line)),
            3 => {
                let forged = forge(&line, &mut self.random);
                out.extend([(number, forged), (number, line)]);
            }
            4 => {
                let old = self.random.random_range(0..node.heard.len());
                out.extend([(number, line), (number, node.heard[old].clone())]);
            }
            _ => out.push((number, line)),
        }
        if out.len() == 1 {
            out.extend(node.held.take());
        }
        if evil.floods && self.random.random_bool(0.02) {
            out.extend((0..60).map(|count| (number, junk(count))));
        }
        // The honest half of the machine believes that it was written.
        let now = self.now + self.nodes[index].ahead;
        self.nodes[index].machine.written(to, &load, now);
        for (number, line) in out {
            self.travel(number, 1, |number| Happening::ToClient(number, line, None));
        }
    }

    fn hear(&mut self, index: usize, event: ChannelEvent) {
        let to = self.clients[index].nick;
        match event {
            ChannelEvent::Private { from, text, .. } => {
                let message = UnverifiedMessage::parse(&text).unwrap();
                let message = message.verify(&from, "onion-network").unwrap();
                let fact = (from, to, message.payload.to_owned());
                assert!(self.sent.contains(&fact), "{from} never said that to {to}");
                // A directory may replay a line later than copies are looked for (`spec/protocol.md` 13.1); then the
                // conversation has to see that it has had it.
                let now = self.now + self.clients[index].ahead;
                if let Some(before) = self.arrived.insert(fact, now) {
                    assert!(
                        now - before > Duration::from_secs(30),
                        "a copy after {:?}",
                        now - before
                    );
                    self.repeats += 1;
                }
            }
            ChannelEvent::Public { text, .. } if text.starts_with("hp2 ") => self.received += 1,
            _ => {}
        }
    }

    /// A line on its way; sometimes it ends the connection instead.
    fn travel(&mut self, number: usize, way: usize, happening: impl FnOnce(usize) -> Happening) {
        if self.resets > 0.0 && self.random.random_bool(self.resets) {
            self.arrive(number, 0, Happening::EndAtDirectory(number));
            self.arrive(number, 1, Happening::EndAtClient(number));
        } else {
            self.arrive(number, way, happening(number));
        }
    }

    /// After everything else that was sent on this way before.
    fn arrive(&mut self, number: usize, way: usize, happening: Happening) {
        let at = (self.now + self.latency()).max(self.connections[number].arrives[way]);
        self.connections[number].arrives[way] = at;
        self.schedule(at, happening);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(20..800))
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn client_time(&mut self, index: usize) -> Duration {
        if self.jumps > 0.0 && self.random.random_bool(self.jumps) {
            self.clients[index].ahead += Duration::from_secs(self.random.random_range(1..120));
        }
        self.now + self.clients[index].ahead
    }

    fn directory_time(&mut self, index: usize) -> Duration {
        if self.jumps > 0.0 && self.random.random_bool(self.jumps) {
            self.nodes[index].ahead += Duration::from_secs(self.random.random_range(1..120));
        }
        self.now + self.nodes[index].ahead
    }

    /// What must hold in every world.
    pub(crate) fn check(&self) {
        for node in &self.nodes {
            assert!(node.machine.waiting_bytes() <= limits::DIRECTED_BYTES);
            assert!(node.machine.members() <= self.clients.len());
        }
        for client in &self.clients {
            assert!(client.channel.peer_count() <= channel::MAX_PEERS);
            assert!(client.channel.link_count() <= self.nodes.len());
        }
    }

    pub(crate) fn everybody_is_up(&self) -> bool {
        self.clients.iter().all(|client| client.channel.is_up())
    }

    /// Private messages that were sent and that arrived.
    pub(crate) fn private_totals(&self) -> (usize, usize) {
        (self.sent.len(), self.arrived.len())
    }

    /// How often a private message was taken a second time.
    pub(crate) const fn repeats(&self) -> usize {
        self.repeats
    }

    /// Public messages that were sent, and how often one was heard.
    pub(crate) fn public_totals(&self) -> (usize, usize) {
        (self.spoken, self.received)
    }

    pub(crate) fn most_dials(&self) -> usize {
        self.clients.iter().map(|client| client.dials).max().unwrap()
    }

    /// A number that stands for everything that happened.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }
}

fn link(number: usize) -> LinkId {
    LinkId(number as u64)
}

/// A line that says something else than it did.
fn forge(line: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut forged = line.to_vec();
    let digits: Vec<usize> = (0..line.len()).filter(|at| line[*at].is_ascii_hexdigit()).collect();
    let at = digits[random.random_range(0..digits.len())];
    forged[at] = if forged[at] == b'7' { b'3' } else { b'7' };
    forged
}

/// What nobody asked for: internal numbers, long peer lists, lines of 60 KB.
fn junk(count: usize) -> Vec<u8> {
    let line = match count % 4 {
        0 => return b"{\"type\": 787, \"line\": \"127.0.0.1:5222\"}".to_vec(),
        1 => {
            return format!("{{\"type\": 4242, \"line\": \"{}\"}}", "x".repeat(60_000))
                .into_bytes();
        }
        2 => "J5CdDnhVDhc5R7Gg!PUBLIC!cancel 0".to_owned(),
        _ => {
            let entry =
                |number: usize| format!("J5{number:0>13}x;NOT-SERVING-ONION").replace('0', "1");
            let entries: Vec<_> = (0..300).map(|number| entry(count * 1_000 + number)).collect();
            let envelope = Envelope::new(MessageType::PeerList, entries.join(","));
            return envelope.encode().unwrap().trim_end().as_bytes().to_vec();
        }
    };
    Envelope::new(MessageType::Public, line).encode().unwrap().trim_end().as_bytes().to_vec()
}
