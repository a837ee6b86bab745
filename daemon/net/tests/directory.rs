//! The directory node on real sockets: framing, slow and hostile connections, metrics, the end.
#![allow(clippy::unwrap_used)] // tests, where a panic is the report

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use joinery_net::{DirectoryError, DirectoryServer};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::location::Location;
use joinery_proto::private_message::NickKey;
use joinery_roles::directory::Settings;
use joinery_testkit::{PATIENCE, wait_until};
use tokio_util::sync::CancellationToken;

/// A directory in a runtime of its own, stopped at the end of the test.
struct Running {
    address: SocketAddr,
    metrics: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        Self::with(Settings::new("regtest"), Duration::from_secs(60))
    }

    fn with(settings: Settings, stall: Duration) -> Self {
        let stop = CancellationToken::new();
        let (told, addresses) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let any = "127.0.0.1:0".parse().unwrap();
                let server = DirectoryServer::bind(any, Some(any), settings).await.unwrap();
                let server = server.stall_after(stall);
                told.send((server.address(), server.metrics_address().unwrap())).unwrap();
                server.run(stopped).await;
            });
        });
        let (address, metrics) = addresses.recv().unwrap();
        Self { address, metrics, stop, thread: Some(thread) }
    }

    /// The value of one metric.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        let row = page
            .lines()
            .find_map(|line| line.strip_prefix("joinery_directory_")?.strip_prefix(name));
        row.unwrap_or_else(|| panic!("no {name} in {page}")).trim().parse().unwrap()
    }

    fn incidents(&self, name: &str) -> u64 {
        self.metric(&format!("incidents_total{{incident=\"{name}\"}}"))
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream, nick: String::new() }
    }

    fn enter(&self, number: u8) -> Client {
        let mut client = self.connect();
        client.shake_hands(number);
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    nick: String,
}

impl Client {
    fn shake_hands(&mut self, number: u8) {
        let key = NickKey::new(SecretKey::from_slice(&[number; 32]).unwrap());
        self.nick = key.nick().to_string();
        let handshake = PeerHandshake {
            nick: key.nick(),
            location: Location::NotServing,
            network: "regtest".into(),
            features: Features::none(),
        };
        self.say(MessageType::Handshake, &handshake.to_line());
        assert!(self.next().unwrap().line.contains("\"accepted\": true"));
    }

    fn say(&mut self, kind: MessageType, line: &str) {
        let text = Envelope::new(kind, line).encode().unwrap();
        // A directory that has closed the connection is what some tests wait for.
        let _ = self.stream.write_all(text.as_bytes());
    }

    fn public(&mut self, text: &str) {
        self.say(MessageType::Public, &format!("{}!PUBLIC!{text}", self.nick.clone()));
    }

    /// The next message; `None` when the connection has ended.
    fn next(&mut self) -> Option<Envelope> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Envelope::decode(line.strip_suffix(b"\r\n").unwrap()).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    fn is_closed(&mut self) -> bool {
        while let Some(message) = self.next() {
            assert_ne!(message.kind, MessageType::Disconnect);
        }
        true
    }
}

#[test]
fn messages_pass_between_sockets_whatever_ends_their_lines() {
    let directory = Running::start();
    let (mut a, mut b) = (directory.enter(1), directory.enter(2));
    a.public("orderbook");
    assert_eq!(b.next().unwrap().line, format!("{}!PUBLIC!orderbook", a.nick));
    // LF alone, two lines in one segment, one line in two.
    let line = |text: &str| format!("{{\"type\": 687, \"line\": \"{}!PUBLIC!{text}\"}}", b.nick);
    let lines = format!("{}\n{}\r\n", line("cancel 1"), line("cancel 2"));
    let (first, second) = lines.split_at(lines.len() - 10);
    b.stream.write_all(first.as_bytes()).unwrap();
    assert_eq!(a.next().unwrap().line, format!("{}!PUBLIC!cancel 1", b.nick));
    b.stream.write_all(second.as_bytes()).unwrap();
    assert_eq!(a.next().unwrap().line, format!("{}!PUBLIC!cancel 2", b.nick));
    let private = format!("{}!{}!fill 0 1 2 P3 pub sig", a.nick, b.nick);
    a.say(MessageType::Private, &private);
    assert_eq!(b.next().unwrap().line, private);
    drop(b);
    assert!(a.next().unwrap().line.ends_with(";NOT-SERVING-ONION;D"));
    assert_eq!(directory.metric("members"), 1);
}

#[test]
fn refused_peers_hear_why_before_the_connection_ends() {
    let directory = Running::start();
    let _holder = directory.enter(1);
    let mut second = directory.connect();
    let key = NickKey::new(SecretKey::from_slice(&[1; 32]).unwrap());
    let text = PeerHandshake {
        nick: key.nick(),
        location: Location::NotServing,
        network: "regtest".into(),
        features: Features::none(),
    };
    second.say(MessageType::Handshake, &text.to_line());
    assert!(second.next().unwrap().line.contains("nick is already registered"));
    assert!(second.is_closed());
}

#[test]
fn endless_lines_are_cut_off() {
    let directory = Running::start();
    let mut player = directory.enter(1);
    // 64 KiB without an end, and much more behind it.
    let chunk = vec![b'x'; 64 * 1024];
    while player.stream.write_all(&chunk).is_ok() {}
    assert!(wait_until(PATIENCE, || directory.incidents("line_too_long") == 1));
    assert_eq!(directory.metric("connections"), 0);
}

#[test]
fn a_line_that_is_never_ended_is_not_waited_for() {
    let directory = Running::with(Settings::new("regtest"), Duration::from_millis(300));
    let mut patient = directory.enter(1);
    let mut slow = directory.enter(2);
    slow.stream.write_all(b"{\"type\": 687, ").unwrap();
    assert!(slow.is_closed());
    assert!(wait_until(PATIENCE, || directory.incidents("line_stalled") == 1));
    // Who has begun nothing may be silent.
    assert_eq!(directory.metric("members"), 1);
    assert_eq!(patient.next().unwrap().kind, MessageType::PeerList);
}

#[test]
fn a_half_open_socket_that_takes_nothing_is_ended() {
    let directory = Running::with(Settings::new("regtest"), Duration::from_millis(300));
    let deaf = directory.enter(1);
    // Private messages, which are dropped rather than making a slow reader of their recipient.
    let mut speaker = directory.enter(2);
    let line = format!("{}!{}!x {}", speaker.nick, deaf.nick, "a".repeat(39_000));
    let ended = wait_until(PATIENCE, || {
        for _ in 0..50 {
            speaker.say(MessageType::Private, &line);
        }
        directory.incidents("write_stalled") == 1
    });
    assert!(ended);
    assert_eq!(directory.metric("members"), 1);
    drop(deaf);
}

#[test]
fn a_slow_reader_is_evicted_and_does_not_delay_others() {
    let directory = Running::start();
    let deaf = directory.enter(1);
    let mut quick = directory.enter(2);
    let (mut sent, mut evicted) = (0_u64, false);
    let text = format!("x {}", "a".repeat(8_000));
    for number in 3..250 {
        let mut speaker = directory.enter(number);
        for _ in 0..30 {
            speaker.public(&text);
            sent += 1;
        }
        // The quick one gets all of them.
        let mut got = 0;
        while got < 30 {
            got += u64::from(quick.next().unwrap().kind == MessageType::Public);
        }
        // Members: the quick one, perhaps the deaf one, and this speaker, which leaves now.
        drop(speaker);
        evicted = directory.incidents("slow_reader") > 0;
        if evicted {
            break;
        }
    }
    assert!(evicted, "{sent} messages of 8 KiB");
    assert_eq!(directory.incidents("slow_reader"), 1);
    drop(deaf);
}

#[test]
fn silent_sockets_keep_nobody_out() {
    let settings = Settings { max_peers: 20, ..Settings::new("regtest") };
    let directory = Running::with(settings, Duration::from_secs(60));
    let silent: Vec<Client> = (0..200).map(|_| directory.connect()).collect();
    let mut a = directory.enter(1);
    let mut b = directory.enter(2);
    a.public("orderbook");
    assert_eq!(b.next().unwrap().kind, MessageType::Public);
    drop(silent);
}

/// Defects row 33: a connection that was reset made a directory's loop spin and its log grow.
#[test]
fn econnreset_backoff() {
    let directory = Running::start();
    for _ in 0..4 {
        for number in 1..=50 {
            let mut client = directory.enter(number);
            client.say(MessageType::Ping, "");
            // Bytes that came and were not read make the kernel reset the connection instead of ending it.
            assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
        }
    }
    assert!(wait_until(PATIENCE, || directory.metric("connections") == 0));
    // At rest the process computes next to nothing, however busy the machine is.
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    let before = ticks();
    // Not a wait for something, but the time in which a spinning loop would show.
    std::thread::park_timeout(Duration::from_secs(1));
    let spent = ticks() - before;
    assert!(spent < 50, "{spent} of 100 ticks a second");
}

#[test]
fn stopping_ends_every_connection_and_frees_the_port() {
    let directory = Running::start();
    let address = directory.address;
    let mut clients: Vec<Client> = (1..20).map(|number| directory.enter(number)).collect();
    drop(directory);
    for client in &mut clients {
        assert!(client.is_closed());
    }
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn metrics_are_for_this_machine_only() {
    let any = "127.0.0.1:0".parse().unwrap();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = DirectoryServer::bind(any, Some(everywhere), Settings::new("regtest")).await;
    assert!(matches!(refused, Err(DirectoryError::MetricsNotLoopback(_))));
}
