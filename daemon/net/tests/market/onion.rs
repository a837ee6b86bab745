use std::sync::Arc;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::onion::{
    ChannelStopped, NotSaid, OnionConfig, OnionHandle, ServeError, ServiceState, Serving,
    SpawnError, spawn,
};
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_roles::channel::{Audience, ChannelConfig, ChannelTiming, DirectoryAddress, SendError};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";

const OTHER: &str = "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion:5222";

fn channel(directories: &[&str]) -> ChannelConfig {
    let key = NickKey::new(SecretKey::from_slice(&[1; 32]).unwrap());
    let mut config = ChannelConfig::new("testnet", Arc::new(key));
    config.allow_plain = true;
    config.timing = ChannelTiming::regtest();
    config.directories =
        directories.iter().map(|text| DirectoryAddress::new(text.parse().unwrap())).collect();
    config
}

fn run(directories: &[&str], config: OnionConfig) -> (OnionHandle, mpsc::Receiver<ChannelEvent>) {
    let (sender, events) = mpsc::channel(64);
    (spawn(config, channel(directories), sender).unwrap(), events)
}

/// Served without Tor.
fn plain(listen: &str) -> OnionConfig {
    let serving = Serving::Plain { listen: listen.parse().unwrap(), location: None };
    OnionConfig { serving: Some(serving), ..config() }
}

/// Where peers reach the channel.
async fn serving(handle: &OnionHandle) -> String {
    let mut status = handle.status();
    let state = status.wait_for(|status| matches!(status.service, ServiceState::Serving { .. }));
    let state = soon("a service", state).await.unwrap().service.clone();
    let ServiceState::Serving { location } = state else { panic!("{state:?}") };
    location.to_string()
}

/// Connects to the channel as a peer that does not serve.
async fn greet(address: String) -> BufReader<TcpStream> {
    let mut peer = BufReader::new(TcpStream::connect(address).await.unwrap());
    let hello = serde_json::json!({
        "app-name": "joinmarket", "directory": false, "location-string": "NOT-SERVING-ONION",
        "proto-ver": 5, "features": {}, "nick": "J5DdKBhSf2Ykxqqy", "network": "testnet",
    });
    peer.write_all(envelope(793, &hello.to_string()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("our handshake", peer.read_line(&mut answer)).await.unwrap();
    assert!(answer.starts_with("{\"type\": 793,"), "{answer}");
    peer
}

fn config() -> OnionConfig {
    OnionConfig::new("test")
}

fn envelope(kind: u32, line: &str) -> String {
    format!("{}\r\n", serde_json::json!({"type": kind, "line": line}))
}

/// What a directory answers to a handshake.
fn welcome() -> String {
    let text = serde_json::json!({
        "app-name": "joinmarket", "directory": true, "proto-ver-min": 5, "proto-ver-max": 5,
        "features": {}, "accepted": true, "nick": "J5dnOOOOOOOOOOOO", "network": "testnet",
        "motd": "",
    });
    envelope(795, &text.to_string())
}

/// Reads our handshake and takes us.
async fn take_in(stream: TcpStream) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    soon("our handshake", stream.read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("{\"type\": 793,") && line.ends_with("\r\n"), "{line}");
    stream.write_all(welcome().as_bytes()).await.unwrap();
    stream
}

/// Answers one SOCKS5 request; returns user, password, kind of address, name and port that were asked for.
async fn socks(stream: &mut TcpStream) -> (String, String, u8, String, u16) {
    answer(stream, 0).await
}

/// Answers one SOCKS5 request by "host unreachable".
async fn refuse(stream: &mut TcpStream) {
    answer(stream, 4).await;
}

async fn answer(stream: &mut TcpStream, verdict: u8) -> (String, String, u8, String, u16) {
    let mut hello = [0; 3];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(hello, [5, 1, 2], "only user and password are offered");
    stream.write_all(&[5, 2]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
    let (user, password) = (text(stream).await, text(stream).await);
    stream.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    let name = text(stream).await;
    let port = stream.read_u16().await.unwrap();
    stream.write_all(&[5, verdict, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    (user, password, request[3], name, port)
}

async fn text(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; usize::from(stream.read_u8().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Defect 28. The names exist nowhere but at this proxy, so whoever reached the directory asked it; and what it
/// was asked for is the name and not an address that somebody else had told.
#[tokio::test]
async fn no_udp53_ever() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = OnionConfig { proxy: Some(proxy.local_addr().unwrap()), ..config() };
    let (handle, mut events) = run(&[ONION, OTHER], config);
    let mut asked = Vec::new();
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = soon("a request", proxy.accept()).await.unwrap();
        asked.push(soon("the request", socks(&mut stream)).await);
        open.push(take_in(stream).await);
    }
    asked.sort();
    for ((user, password, kind, name, port), (purpose, address)) in
        asked.iter().zip([("test-directory-0", ONION), ("test-directory-1", OTHER)])
    {
        assert_eq!((user.as_str(), *kind, format!("{name}:{port}")), (purpose, 3, address.into()));
        assert_eq!(password.len(), 32);
    }
    for _ in 0..2 {
        let event = soon("both are up", events.recv()).await.unwrap();
        assert!(matches!(event, ChannelEvent::Up(_)));
    }
    soon("readiness", handle.ready()).await.unwrap();
    assert_eq!(handle.status().borrow().proxy_failure, None);
}

#[tokio::test]
async fn absent_proxy_is_told_and_not_mistaken_for_an_absent_directory() {
    // Nothing listens on port 1.
    let absent = OnionConfig { proxy: Some("127.0.0.1:1".parse().unwrap()), ..config() };
    for config in [absent, config()] {
        let (handle, _events) = run(&[ONION], config);
        let mut status = handle.status();
        let failed = status.wait_for(|status| status.proxy_failure.is_some());
        let failed = soon("the failure", failed).await.unwrap().clone();
        assert!(!failed.is_up(), "{failed:?}");
    }
    let refuses = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = OnionConfig { proxy: Some(refuses.local_addr().unwrap()), ..config() };
    let (handle, _events) = run(&[ONION], config);
    let (mut stream, _) = soon("a request", refuses.accept()).await.unwrap();
    soon("the request", refuse(&mut stream)).await;
    let mut status = handle.status();
    let failed = status.wait_for(|status| status.directories[0].failures > 0);
    assert_eq!(soon("the failure", failed).await.unwrap().proxy_failure, None);
}

#[tokio::test]
async fn without_a_proxy_nothing_but_loopback_is_dialled() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (handle, mut events) = run(&["localhost:1", "192.0.2.1:5222", ONION, &address], config());
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let _open = take_in(stream).await;
    let up = ChannelEvent::Up(Source::Directory(DirectoryId(3)));
    assert_eq!(soon("up", events.recv()).await, Some(up));
    let status = handle.status().borrow().clone();
    let failures: Vec<u32> = status.directories.iter().map(|d| d.failures).collect();
    assert!(failures[..3].iter().all(|count| *count > 0) && failures[3] == 0, "{failures:?}");
}

#[tokio::test]
async fn flood_loses_nothing_and_an_endless_line_is_cut_off() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (_handle, mut events) = run(&[&address], config());
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let mut stream = take_in(stream).await;
    assert!(matches!(soon("up", events.recv()).await, Some(ChannelEvent::Up(_))));
    // 300 lines above the budget of lines: paused, and all of them arrive.
    let flood = tokio::spawn(async move {
        for number in 0..2_300 {
            let line = envelope(687, &format!("J5DdKBhSf2Ykxqqy!PUBLIC!cancel {number}"));
            stream.write_all(line.as_bytes()).await.unwrap();
        }
        let chunk = vec![b'x'; 70_000];
        let _ = stream.write_all(&chunk).await;
        stream
    });
    let mut public = 0;
    loop {
        match soon("news", events.recv()).await.unwrap() {
            ChannelEvent::Public { text, .. } => {
                assert_eq!(text, format!("cancel {public}"));
                public += 1;
            }
            ChannelEvent::Down(_) => break,
            _ => {}
        }
    }
    assert_eq!(public, 2_300);
    let mut stream = flood.await.unwrap();
    let mut rest = Vec::new();
    // Closed by us, with or without a reset.
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    // It is dialled again.
    soon("the next connection", directory.accept()).await.unwrap();
}

#[tokio::test]
async fn peers_are_accepted_and_the_end_of_the_last_handle_closes_everything() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (handle, mut events) = run(&[&address], plain("127.0.0.1:0"));
    let serving = serving(&handle).await;
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let _open = take_in(stream).await;
    assert!(matches!(soon("up", events.recv()).await, Some(ChannelEvent::Up(_))));
    let mut peer = greet(serving).await;
    peer.write_all(envelope(687, "J5DdKBhSf2Ykxqqy!PUBLIC!orderbook").as_bytes()).await.unwrap();
    let event = soon("its request", events.recv()).await.unwrap();
    assert!(matches!(event, ChannelEvent::Public { via: Source::Direct(_), .. }), "{event:?}");
    let mut status = handle.status();
    drop(handle);
    let stopped = status.wait_for(|status| status.service == ServiceState::Stopped);
    soon("the service's end", stopped).await.unwrap();
    let mut rest = String::new();
    assert_eq!(soon("the end", peer.read_line(&mut rest)).await.unwrap_or(0), 0);
}

/// What a role says, in the order in which it says it, is written before the channel closes.
#[tokio::test]
async fn what_was_said_before_the_end_is_written_and_then_nothing_works_any_more() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (handle, mut events) = run(&[&address], config());
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let mut open = take_in(stream).await;
    assert!(matches!(soon("up", events.recv()).await, Some(ChannelEvent::Up(_))));
    soon("readiness", handle.ready()).await.unwrap();
    let maker = "J5DdKBhSf2Ykxqqy";
    open.write_all(envelope(687, &format!("{maker}!PUBLIC!cancel 0")).as_bytes()).await.unwrap();
    let event = soon("its line", async {
        loop {
            if let ChannelEvent::Public { from, via, .. } = events.recv().await.unwrap() {
                return (from, via);
            }
        }
    });
    let (from, via) = event.await;
    assert_eq!(from.as_str(), maker);
    handle.request_orderbook().await.unwrap();
    handle.send_private(from, PrivateWord::Push, "AAAA", Some(via)).await.unwrap();
    handle.announce("cancel 0", Audience::All).await.unwrap();
    let refused = handle.announce("x".repeat(50_000), Audience::All).await;
    assert!(matches!(refused, Err(NotSaid::Refused(SendError::Line(_)))), "{refused:?}");
    let stranger = "J5dnOOOOOOOOOOOO".parse().unwrap();
    let refused = handle.send_private(stranger, PrivateWord::Push, "AAAA", None).await;
    assert!(matches!(refused, Err(NotSaid::Refused(SendError::NoRoute { .. }))), "{refused:?}");
    handle.stop();
    soon("the end", handle.stopped()).await;
    let mut said = String::new();
    soon("what was said", open.read_to_string(&mut said)).await.unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for (line, word) in said.iter().zip(["!PUBLIC!orderbook", "!push AAAA ", "!PUBLIC!cancel 0"]) {
        assert!(line.contains(word), "{line}");
    }
    assert_eq!(handle.announce("cancel 0", Audience::All).await, Err(ChannelStopped.into()));
    assert_eq!(handle.ready().await, Err(ChannelStopped));
}

/// Two roles of one process share neither circuits nor numbers.
#[tokio::test]
async fn channels_share_nothing() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut passwords = Vec::new();
    let mut handles = Vec::new();
    for _ in 0..2 {
        let config = OnionConfig { proxy: Some(proxy.local_addr().unwrap()), ..config() };
        handles.push(run(&[ONION], config));
        let (mut stream, _) = soon("a request", proxy.accept()).await.unwrap();
        let (_, password, ..) = soon("the request", socks(&mut stream)).await;
        passwords.push(password);
    }
    assert_ne!(passwords[0], passwords[1]);
    let link = |channel: &mut joinery_roles::channel::OnionChannel, now| channel.accepted(now);
    let first = handles[0].0.call(link).await.unwrap();
    let second = handles[1].0.call(link).await.unwrap();
    assert!(first.0 + (1 << 32) < second.0);
}

#[tokio::test]
async fn taken_port_gives_way_to_another_and_other_machines_are_never_served() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (first, _events) = run(&[], plain(&address));
    let (second, _events) = run(&[], plain(&address));
    let (first_at, second_at) = (serving(&first).await, serving(&second).await);
    assert!(first_at != second_at && first_at != address && second_at != address);
    greet(first_at.clone()).await;
    // At the end the port is free again (the reference keeps it).
    first.stop();
    soon("the end", first.stopped()).await;
    TcpListener::bind(&first_at).await.unwrap();

    let everywhere = Serving::Plain { listen: "0.0.0.0:0".parse().unwrap(), location: None };
    let config = || OnionConfig { serving: Some(everywhere.clone()), ..config() };
    let refused = spawn(config(), channel(&[]), mpsc::channel(1).0);
    let Err(SpawnError::Serve(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(error, ServeError::NotLoopback { .. }), "{error:?}");
    let mut public = channel(&[]);
    public.allow_plain = false;
    let refused = spawn(plain("127.0.0.1:0"), public, mpsc::channel(1).0);
    assert!(matches!(refused, Err(SpawnError::Serve(ServeError::NotPrivate))), "{refused:?}");
}

/// Half-open sockets and half lines do not keep a peer out, and do not cost more than 64 connections.
#[tokio::test]
async fn strangers_who_hold_connections_open_keep_nobody_out() {
    let (handle, _events) = run(&[], plain("127.0.0.1:0"));
    let address = serving(&handle).await;
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"{\"type\": 793, \"line\": \"").await.unwrap();
        }
        silent.push(stream);
    }
    let peer = greet(address).await;
    let links = handle.call(|channel, _| channel.link_count()).await.unwrap();
    assert_eq!(links, 64);
    // The oldest are closed, 37 of them: 101 came.
    let mut rest = Vec::new();
    for stream in &mut silent[..37] {
        // With or without a reset.
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    assert!(rest.is_empty());
    drop(peer);
}
