use std::sync::Arc;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::onion::{OnionConfig, OnionHandle, start};
use joinery_proto::private_message::NickKey;
use joinery_roles::channel::{ChannelConfig, ChannelTiming, DirectoryAddress, OnionChannel};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";

fn channel(directories: &[&str]) -> OnionChannel {
    let key = NickKey::new(SecretKey::from_slice(&[1; 32]).unwrap());
    let mut config = ChannelConfig::new("testnet", Arc::new(key));
    config.allow_plain = true;
    config.timing = ChannelTiming::regtest();
    config.directories =
        directories.iter().map(|text| DirectoryAddress::new(text.parse().unwrap())).collect();
    OnionChannel::new(config, [1; 32]).unwrap()
}

fn run(
    directories: &[&str],
    config: OnionConfig,
) -> (OnionHandle, mpsc::Receiver<ChannelEvent>, tokio::task::JoinHandle<()>) {
    let (handle, events, driver) = start(channel(directories), config);
    (handle, events, tokio::spawn(driver))
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
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
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
    let config = OnionConfig { proxy: Some(proxy.local_addr().unwrap()), ..OnionConfig::default() };
    let other = "directory.only-the-proxy-knows.invalid:5222";
    let (_handle, mut events, _driver) = run(&[ONION, other], config);
    let mut asked = Vec::new();
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = soon("a request", proxy.accept()).await.unwrap();
        asked.push(soon("the request", socks(&mut stream)).await);
        open.push(take_in(stream).await);
    }
    asked.sort();
    for ((user, password, kind, name, port), (purpose, address)) in
        asked.iter().zip([("jm-directory-0", ONION), ("jm-directory-1", other)])
    {
        assert_eq!((user.as_str(), *kind, format!("{name}:{port}")), (purpose, 3, address.into()));
        assert_eq!(password.len(), 32);
    }
    for _ in 0..2 {
        let event = soon("both are up", events.recv()).await.unwrap();
        assert!(matches!(event, ChannelEvent::Up(_)));
    }
}

#[tokio::test]
async fn without_a_proxy_nothing_but_loopback_is_dialled() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (handle, mut events, _driver) =
        run(&["localhost:1", "192.0.2.1:5222", ONION, &address], OnionConfig::default());
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let _open = take_in(stream).await;
    let up = ChannelEvent::Up(Source::Directory(DirectoryId(3)));
    assert_eq!(soon("up", events.recv()).await, Some(up));
    let failures = handle
        .call(|channel, _| channel.directories().map(|d| d.failures).collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(failures[..3].iter().all(|count| *count > 0) && failures[3] == 0, "{failures:?}");
}

#[tokio::test]
async fn flood_loses_nothing_and_an_endless_line_is_cut_off() {
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = directory.local_addr().unwrap().to_string();
    let (_handle, mut events, _driver) = run(&[&address], OnionConfig::default());
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = listener.local_addr().unwrap();
    let config = OnionConfig { listener: Some(listener), ..OnionConfig::default() };
    let (handle, mut events, driver) = run(&[&address], config);
    let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
    let _open = take_in(stream).await;
    assert!(matches!(soon("up", events.recv()).await, Some(ChannelEvent::Up(_))));
    let peer = TcpStream::connect(serving).await.unwrap();
    let mut peer = BufReader::new(peer);
    let hello = serde_json::json!({
        "app-name": "joinmarket", "directory": false, "location-string": "NOT-SERVING-ONION",
        "proto-ver": 5, "features": {}, "nick": "J5DdKBhSf2Ykxqqy", "network": "testnet",
    });
    peer.write_all(envelope(793, &hello.to_string()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("our handshake", peer.read_line(&mut answer)).await.unwrap();
    assert!(answer.starts_with("{\"type\": 793,"), "{answer}");
    peer.write_all(envelope(687, "J5DdKBhSf2Ykxqqy!PUBLIC!orderbook").as_bytes()).await.unwrap();
    let event = soon("its request", events.recv()).await.unwrap();
    assert!(matches!(event, ChannelEvent::Public { via: Source::Direct(_), .. }), "{event:?}");
    drop(handle);
    soon("the driver's end", driver).await.unwrap();
    let mut rest = String::new();
    assert_eq!(soon("the end", peer.read_line(&mut rest)).await.unwrap_or(0), 0);
}
