//! Many peers at one directory, on loopback: memory a peer, broadcasts a second.
//!
//! The directory runs in a process of its own (this program with `--serve`), so that its memory is its own. Peers
//! are real connections from several loopback addresses. `PEERS` and `MESSAGES` in the environment change the size.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a program for people who measure

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use joinery_net::DirectoryServer;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::onion::envelope::{Envelope, MessageType};
use joinery_proto::onion::features::Features;
use joinery_proto::onion::handshake::PeerHandshake;
use joinery_proto::onion::{location::Location, onion_name};
use joinery_proto::private_message::NickKey;
use joinery_roles::directory::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// Messages a peer may send in a minute.
const PER_SPEAKER: usize = 30;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn main() {
    if std::env::args().any(|argument| argument == "--serve") {
        runtime().block_on(serve());
    } else {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        runtime().block_on(measure());
    }
}

async fn serve() {
    let any = "127.0.0.1:0".parse().unwrap();
    let settings = Settings { max_peers: number("PEERS", 10_000) + 10, ..Settings::new("regtest") };
    let server = DirectoryServer::bind(any, Some(any), settings).await.unwrap();
    println!("{} {}", server.address(), server.metrics_address().unwrap());
    server.run(CancellationToken::new()).await;
}

/// The other process; killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Resident memory now and at most, bytes.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let field = |name: &str| {
            let row = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            row.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Seconds of processor time.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
        let ticks = fields[12].parse::<u32>().unwrap() + fields[13].parse::<u32>().unwrap();
        f64::from(ticks) / 100.0
    }
}

/// What all peers have received.
#[derive(Default)]
struct Heard {
    lines: AtomicU64,
    bytes: AtomicU64,
    open: AtomicUsize,
}

async fn measure() {
    let peers = number("PEERS", 10_000);
    let messages = number("MESSAGES", 300);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--serve")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server(child);
    let address: SocketAddr = line.split(' ').next().unwrap().parse().unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("{peers} peers, {messages} messages; load average before: {}", load.trim());
    let (empty, _) = server.memory();

    let heard = Arc::new(Heard::default());
    let start = Instant::now();
    let mut speakers = Vec::new();
    for index in 0..peers {
        let stream = enter(address, index).await;
        heard.open.fetch_add(1, Ordering::Relaxed);
        let speaker = (index * PER_SPEAKER < messages).then(|| Arc::clone(&stream));
        speakers.extend(speaker.map(|stream| (index, stream)));
        tokio::spawn(listen(stream, Arc::clone(&heard)));
    }
    let entering = start.elapsed().as_secs_f64();
    println!("{:.0} handshakes a second, one after the other", peers as f64 / entering);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (idle, _) = server.memory();
    println!(
        "memory: {:.1} MiB without peers, {:.1} MiB with; {} bytes a peer",
        empty as f64 / 1048576.0,
        idle as f64 / 1048576.0,
        (idle - empty) / peers as u64
    );

    // First one at a time, then all at once.
    for (what, burst) in [("one at a time", 1), ("at once", messages)] {
        let count = if burst == 1 {
            PER_SPEAKER.min(messages)
        } else {
            messages - PER_SPEAKER.min(messages)
        };
        let skip = if burst == 1 { 0 } else { 1 };
        let cpu = server.cpu();
        let before = heard.lines.load(Ordering::Relaxed);
        let start = Instant::now();
        let mut sent = 0;
        for (index, stream) in speakers.iter().skip(skip) {
            for _ in 0..PER_SPEAKER.min(count - sent) {
                say(stream, *index).await;
                sent += 1;
                if burst == 1 {
                    until(&heard, before + sent as u64 * (peers as u64 - 1)).await;
                }
            }
            if sent == count {
                break;
            }
        }
        until(&heard, before + sent as u64 * (peers as u64 - 1)).await;
        let time = start.elapsed().as_secs_f64();
        let copies = sent as f64 * (peers as f64 - 1.0);
        println!(
            "{sent} messages {what}: {:.0} messages x peers a second, {:.1} ms a message, {:.2} µs of the directory's \
             processor time for each copy",
            copies / time,
            time * 1_000.0 / sent as f64,
            (server.cpu() - cpu) * 1e6 / copies
        );
    }
    let (after, peak) = server.memory();
    println!(
        "memory after: {:.1} MiB, peak {:.1} MiB, {} bytes a peer at the peak; {} connections still open, {} MiB received",
        after as f64 / 1048576.0,
        peak as f64 / 1048576.0,
        (peak - empty) / peers as u64,
        heard.open.load(Ordering::Relaxed),
        heard.bytes.load(Ordering::Relaxed) >> 20
    );
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load average after: {}", load.trim());
}

async fn until(heard: &Heard, lines: u64) {
    let mut stuck = (0, Instant::now());
    loop {
        let now = heard.lines.load(Ordering::Relaxed);
        if now >= lines {
            return;
        }
        if now != stuck.0 {
            stuck = (now, Instant::now());
        }
        assert!(stuck.1.elapsed() < Duration::from_secs(60), "{} lines are missing", lines - now);
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

fn key(index: usize) -> NickKey {
    let mut bytes = [3_u8; 32];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    NickKey::new(SecretKey::from_slice(&bytes).unwrap())
}

/// Connects and shakes hands; every other peer serves an onion.
async fn enter(address: SocketAddr, index: usize) -> Arc<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + index / 4_000).unwrap());
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let key = key(index);
    let mut service = [5_u8; 32];
    service[..8].copy_from_slice(&(index as u64).to_be_bytes());
    let location = match index % 2 {
        0 => Location::NotServing,
        _ => format!("{}:5222", onion_name::encode(&service)).parse().unwrap(),
    };
    let features = Features::from_names(["neutrino_compat", "peerlist_features", "ping"]);
    let handshake =
        PeerHandshake { nick: key.nick(), location, network: "regtest".into(), features };
    write(&stream, &Envelope::new(MessageType::Handshake, handshake.to_line()).encode().unwrap())
        .await;
    let mut buffer = [0; 2_048];
    loop {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(count) => {
                let answer = String::from_utf8_lossy(&buffer[..count]);
                assert!(answer.contains("\\\"accepted\\\": true"), "{answer}");
                return Arc::new(stream);
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

/// An offer, as long as they are.
async fn say(stream: &TcpStream, index: usize) {
    let line = format!("{}!PUBLIC!sw0reloffer 0 27300 5000000000 0 0.00002", key(index).nick());
    write(stream, &Envelope::new(MessageType::Public, line).encode().unwrap()).await;
}

async fn write(stream: &TcpStream, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

/// Counts the lines that a peer gets.
async fn listen(stream: Arc<TcpStream>, heard: Arc<Heard>) {
    while stream.readable().await.is_ok() {
        match read(&stream) {
            Ok((_, 0)) => break,
            Ok((lines, bytes)) => {
                heard.lines.fetch_add(lines, Ordering::Relaxed);
                heard.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    heard.open.fetch_sub(1, Ordering::Relaxed);
}

fn read(stream: &TcpStream) -> std::io::Result<(u64, u64)> {
    let mut buffer = [0; 16 * 1_024];
    let count = stream.try_read(&mut buffer)?;
    let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
    Ok((lines as u64, count as u64))
}
