//! The IRC channel against a real server and scripted ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::irc::{ChannelStopped, IrcHandle, IrcSockets, IrcStatus, NotSaid, spawn};
use joinery_net::{Fingerprint, TlsTrust};
use joinery_proto::irc::source_name;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_roles::event::{ChannelEvent, Source};
use joinery_roles::irc_channel::{
    Audience, IrcConfig, IrcServer, IrcTiming, SendError, ServerState,
};
use joinery_testkit::{Ngircd, Relay, TestCertificate};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;

const IRC: Source = Source::Irc(0);
const NETWORK: &str = "TestNet";

fn key(byte: u8) -> NickKey {
    NickKey::new(SecretKey::from_slice(&[byte; 32]).unwrap())
}

fn nick(byte: u8) -> Nick {
    key(byte).nick()
}

fn server(host: &str, port: u16, tls: bool) -> IrcServer {
    IrcServer::new(host, port, "joinmarket-pit", "testnet", tls).unwrap()
}

/// Patient where the server is slow, quick where only we wait.
fn timing() -> IrcTiming {
    IrcTiming {
        line_gap: Duration::from_millis(10),
        nick_retry: Duration::from_millis(100),
        retry_first: Duration::from_millis(50),
        retry_max: Duration::from_millis(500),
        ..IrcTiming::default()
    }
}

/// A running channel.
struct Irc {
    handle: IrcHandle,
    events: mpsc::Receiver<ChannelEvent>,
}

impl Irc {
    fn to(byte: u8, servers: Vec<IrcServer>, sockets: IrcSockets) -> Self {
        let mut config = IrcConfig::new(Arc::new(key(byte)));
        (config.servers, config.timing) = (servers, timing());
        let (sender, events) = mpsc::channel(64);
        Self { handle: spawn(sockets, config, sender).unwrap(), events }
    }

    fn at(byte: u8, address: SocketAddr) -> Self {
        let servers = vec![server(&address.ip().to_string(), address.port(), false)];
        Self::to(byte, servers, IrcSockets::new("test"))
    }

    /// Reads news until the one that is waited for.
    async fn until(&mut self, what: &str, is: impl Fn(&ChannelEvent) -> bool) -> ChannelEvent {
        soon(what, async {
            loop {
                let event = self.events.recv().await.expect("the channel runs");
                if is(&event) {
                    return event;
                }
            }
        })
        .await
    }

    async fn up(&mut self) {
        self.until("the channel", |event| *event == ChannelEvent::Up(IRC)).await;
    }

    async fn sees(&mut self, byte: u8) {
        let seen = ChannelEvent::Seen { nick: nick(byte), via: IRC };
        self.until("a peer", |event| *event == seen).await;
    }

    async fn private(&mut self) -> (Nick, String) {
        let event =
            self.until("a message", |event| matches!(event, ChannelEvent::Private { .. })).await;
        let ChannelEvent::Private { from, via: IRC, text } = event else { panic!("{event:?}") };
        (from, text)
    }

    async fn status(&self, what: &str, is: impl FnMut(&IrcStatus) -> bool) -> IrcStatus {
        soon(what, self.handle.status().wait_for(is)).await.unwrap().clone()
    }

    async fn end(self) {
        self.handle.stop();
        soon("the end", self.handle.stopped()).await;
    }
}

/// What the testkit does with threads of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn ngircd(network: Option<&'static str>) -> Ngircd {
    blocking(move || Ngircd::start(network).unwrap()).await
}

/// A client of no wits, for what channels never do.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn register(address: SocketAddr, name: &str) -> Self {
        let mut client = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        client.says(&format!("NICK {name}\r\nUSER a b c :d")).await;
        client.hears(" 001 ").await;
        client
    }

    async fn says(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    async fn hears(&mut self, part: &str) -> String {
        soon(part, async {
            loop {
                let mut line = String::new();
                assert_ne!(self.0.read_line(&mut line).await.unwrap(), 0, "closed before {part}");
                if line.contains(part) {
                    return line;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn two_channels_meet_talk_in_short_and_long_and_notice_when_one_leaves() {
    let server = ngircd(Some(NETWORK)).await;
    let mut taker = Irc::at(1, server.address());
    taker.up().await;
    let mut maker = Irc::at(2, server.address());
    // The one was there before and is listed, the other one joins.
    maker.sees(1).await;
    maker.up().await;
    taker.sees(2).await;
    soon("both", taker.handle.ready()).await.unwrap();
    assert!(taker.handle.status().borrow().is_up());
    // Public, offers packed, and a request for them.
    let offers = ["0 27300 5000000000 0 0.00002", "1 27300 5000000000 0 0.0003"];
    let offers = offers.map(|fields| Offer::parse(OrderType::Sw0Relative, fields).unwrap());
    maker.handle.announce_offers(offers.to_vec(), Audience::All).await.unwrap();
    let public = |event: &ChannelEvent| matches!(event, ChannelEvent::Public { .. });
    let event = taker.until("offers", public).await;
    let ChannelEvent::Public { from, text, .. } = event else { panic!("{event:?}") };
    assert_eq!((from, joinery_proto::public_message::parse(&text).len()), (nick(2), 2));
    taker.handle.request_orderbook(Audience::All).await.unwrap();
    let event = maker.until("a request", public).await;
    assert!(matches!(event, ChannelEvent::Public { text, .. } if text == "orderbook"));
    taker.handle.announce("cancel 7", Audience::Server(0)).await.unwrap();
    let event = maker.until("a cancellation", public).await;
    assert!(matches!(event, ChannelEvent::Public { text, .. } if text == "cancel 7"));
    // Private: one line, and a transaction of twenty kilobytes; the answer as well.
    for payload in ["AAAA".to_owned(), "QUJD".repeat(5_000)] {
        let (to_maker, to_taker) = (taker.handle.clone(), maker.handle.clone());
        for (says, hears, from, to) in [(to_maker, &mut maker, 1, 2), (to_taker, &mut taker, 2, 1)]
        {
            says.send_private(0, nick(to), PrivateWord::Tx, payload.as_str()).await.unwrap();
            let expected = key(from).sign_message(PrivateWord::Tx, &payload, NETWORK);
            assert_eq!(hears.private().await, (nick(from), expected));
        }
    }
    // One leaves: the other one knows, and finds no way to it any more.
    maker.end().await;
    let left = ChannelEvent::Left { nick: nick(2), via: IRC };
    taker.until("the end of a peer", |event| *event == left).await;
    assert_eq!(
        taker.handle.send_private(0, nick(2), PrivateWord::Push, "AAAA").await,
        Err(NotSaid::Refused(SendError::NoRoute { nick: nick(2) }))
    );
    let handle = taker.handle.clone();
    taker.end().await;
    assert_eq!(handle.request_orderbook(Audience::All).await, Err(ChannelStopped));
}

#[tokio::test]
async fn without_a_network_name_both_sign_for_host_and_port() {
    let server = ngircd(None).await;
    let (mut one, mut other) = (Irc::at(1, server.address()), Irc::at(2, server.address()));
    one.sees(2).await;
    other.sees(1).await;
    one.handle.send_private(0, nick(2), PrivateWord::Push, "AAAA").await.unwrap();
    let hostid = format!("127.0.0.1{}", server.address().port());
    let expected = key(1).sign_message(PrivateWord::Push, "AAAA", &hostid);
    assert_eq!(other.private().await, (nick(1), expected));
}

#[tokio::test]
async fn a_nick_that_somebody_holds_is_taken_when_it_is_free() {
    let server = ngircd(Some(NETWORK)).await;
    let mut squatter = Client::register(server.address(), nick(1).as_str()).await;
    let mut channel = Irc::at(1, server.address());
    // The squatter is one of many things: here it watches the channel wait.
    squatter.says("JOIN #joinmarket-pit-test").await;
    squatter.hears(" 366 ").await;
    let connecting = |status: &IrcStatus| status.servers[0].state == ServerState::Connecting;
    channel.status("a connection", connecting).await;
    let mut watcher = Client::register(server.address(), "watcher").await;
    watcher.says("JOIN #joinmarket-pit-test").await;
    watcher.hears(" 366 ").await;
    squatter.says("QUIT :free").await;
    let join = watcher.hears(" JOIN ").await;
    assert_eq!(source_name(join.strip_prefix(':').unwrap()), nick(1).as_str());
    channel.up().await;
}

#[tokio::test]
async fn a_server_that_restarts_is_joined_again_by_both_and_they_talk_on() {
    let mut server = ngircd(Some(NETWORK)).await;
    let (mut one, mut other) = (Irc::at(1, server.address()), Irc::at(2, server.address()));
    one.sees(2).await;
    other.sees(1).await;
    server.kill().unwrap();
    for channel in [&mut one, &mut other] {
        channel.until("its loss", |event| *event == ChannelEvent::Down(IRC)).await;
    }
    assert!(one.handle.send_private(0, nick(2), PrivateWord::Push, "AAAA").await.is_err());
    let _server = blocking(move || {
        server.restart().unwrap();
        server
    })
    .await;
    one.sees(2).await;
    other.sees(1).await;
    one.handle.send_private(0, nick(2), PrivateWord::Push, "BBBB").await.unwrap();
    assert_eq!(other.private().await.0, nick(1));
}

/// Names travel to the proxy, each server and each channel with credentials of its own; TLS runs through it.
#[tokio::test]
async fn tls_through_the_proxy_by_name_with_a_pinned_certificate() {
    let server = ngircd(Some(NETWORK)).await;
    let certificate = TestCertificate::new(&["irc.example"]).unwrap();
    let address = server.address();
    let fingerprint = certificate.fingerprint();
    let (proxy, _tls) = blocking(move || {
        let tls = Relay::tls(address, &certificate).unwrap();
        let routes = [("irc.example:6697", tls.address()), ("plain.onion:6667", address)];
        (Relay::socks5(routes).unwrap(), tls)
    })
    .await;
    let servers =
        || vec![self::server("irc.example", 6697, true), self::server("plain.onion", 6667, false)];
    let sockets = |pin: [u8; 32]| {
        let mut sockets = IrcSockets::new("test");
        sockets.proxy = Some(proxy.address());
        sockets.trust = vec![TlsTrust::Pin(Fingerprint(pin))];
        sockets
    };
    let mut good = Irc::to(1, vec![servers().remove(0)], sockets(fingerprint));
    good.up().await;
    // Another certificate than the pinned one is not spoken to; the plain server is up all the same.
    let both = Irc::to(2, servers(), sockets([7; 32]));
    let split = |status: &IrcStatus| {
        status.servers[1].state == ServerState::Up && status.servers[0].failures > 0
    };
    both.status("one of two", split).await;
    good.sees(2).await;
    // Nor is one that no authority of this system vouches for.
    let mut unpinned = sockets([0; 32]);
    unpinned.trust.clear();
    let stranger = Irc::to(3, vec![servers().remove(0)], unpinned);
    stranger.status("a refusal", |status| status.servers[0].failures > 1).await;
    assert!(!stranger.handle.status().borrow().is_up());
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.target.contains("irc.example:6697")
        || request.target.contains("plain.onion:6667")));
    let credentials = |target: &str, user: &str| {
        let matching = requests.iter().filter_map(|request| {
            let (name, password) = request.credentials.clone()?;
            (request.target == target && name == user).then_some(password)
        });
        matching.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(credentials("irc.example:6697", "test-irc-0").len(), 3, "one password a channel");
    assert_eq!(credentials("plain.onion:6667", "test-irc-1").len(), 1);
}

#[tokio::test]
async fn without_tor_that_is_what_the_status_says() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut sockets = IrcSockets::new("test");
    sockets.proxy = Some(closed);
    let channel = Irc::to(1, vec![server("irc.example", 6667, false)], sockets);
    channel.status("its absence", |status| status.proxy_failure.is_some()).await;
    channel.end().await;
}

/// A server of the test's own, and the one channel that it gets.
async fn scripted() -> (TcpListener, Irc) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = Irc::at(1, listener.local_addr().unwrap());
    (listener, channel)
}

async fn let_in(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let us = nick(1);
    let welcome = format!(
        ":x 001 {us} :Welcome\r\n:x 005 {us} NETWORK={NETWORK} :are supported\r\n\
         :{us}!u@h JOIN #joinmarket-pit-test\r\n:x 366 {us} #joinmarket-pit-test :End\r\n"
    );
    stream.write_all(welcome.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn endless_lines_end_the_connection_and_not_the_channel() {
    let (listener, mut channel) = scripted().await;
    let mut stream = let_in(&listener).await;
    channel.up().await;
    stream.write_all(&vec![b'x'; 20_000]).await.unwrap();
    channel.until("its end", |event| *event == ChannelEvent::Down(IRC)).await;
    // Bytes that are no text and lines that are none are only ignored.
    let mut stream = let_in(&listener).await;
    stream
        .write_all(b"\r\n\n\xff\xfe\x00 \r\n:\r\n:x \xc3\x28 :\xff\r\nPING :alive\r\n")
        .await
        .unwrap();
    channel.up().await;
    let mut line = String::new();
    soon("our answer", async {
        while !line.starts_with("PONG alive") {
            line.clear();
            assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_left_in_the_kernel_and_news_that_nobody_reads_hold_it_back() {
    let (listener, mut channel) = scripted().await;
    let mut stream = let_in(&listener).await;
    channel.up().await;
    let line = format!(":{}!u@h PRIVMSG #joinmarket-pit-test :!orderbook\r\n", nick(2));
    let flood = line.repeat(1_000);
    // What the driver does not take fills the kernel's buffers; then the flood waits, not we.
    let flooding = async {
        loop {
            stream.write_all(flood.as_bytes()).await.unwrap();
        }
    };
    let stuck = tokio::time::timeout(Duration::from_millis(1_500), flooding).await;
    assert!(stuck.is_err());
    // The channel still does what it is told.
    let count =
        soon("an answer", channel.handle.call(|channel, _| channel.servers().count())).await;
    assert_eq!(count, Ok(1));
    channel.end().await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_a_role_that_is_gone_ends_the_channel() {
    let (listener, mut channel) = scripted().await;
    let mut stream = let_in(&listener).await;
    channel.up().await;
    channel.end().await;
    let mut said = String::new();
    soon("our end", stream.read_to_string(&mut said)).await.unwrap();
    assert!(said.ends_with("QUIT :\r\n"), "{said}");
    let (listener, mut channel) = scripted().await;
    let _stream = let_in(&listener).await;
    channel.up().await;
    drop(channel.events);
    soon("its end", channel.handle.stopped()).await;
}
