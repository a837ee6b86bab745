//! No name of a peer, directory or Electrum server is asked of DNS when a proxy is set (defect 28).
//!
//! The test runs itself again in a network and file system view of its own (Linux namespaces): there is no network but
//! loopback there, and the system's resolver is a trap on loopback. So a lookup through the system is caught, and a query
//! to any other server could not leave; what it does not prove is that no such query was *tried* by some way other than
//! the system's resolver. The names must arrive at the proxy as names, which is looked at, too.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::onion::{OnionConfig, spawn};
use joinery_proto::nick::Nick;
use joinery_proto::private_message::NickKey;
use joinery_roles::channel::{ChannelConfig, ChannelTiming, DirectoryAddress};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use serde_json::json;
use support::{Home, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Says to the test that it runs inside.
const INSIDE: &str = "JOINERY_TEST_INSIDE";
/// The name of the test below.
const TEST: &str = "no_name_is_asked_of_dns_behind_a_proxy";
/// Names that exist nowhere.
const ELECTRUM: &str = "electrum.only-the-proxy-knows.test";
const PEER: &str = "peer.only-the-proxy-knows.test";
const DIRECTORY: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
const SILENT_DIRECTORY: &str = "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion";
const ONION_PEER: &str = "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion";

#[test]
fn no_name_is_asked_of_dns_behind_a_proxy() {
    if std::env::var_os(INSIDE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        return runtime.worker_threads(2).enable_all().build().unwrap().block_on(inside());
    }
    let directory = tempfile::tempdir().unwrap();
    let resolver = directory.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net"]).args(arguments);
        command
    };
    // Root can; everybody else needs namespaces of users.
    let root = unshare(&["true"]).status().is_ok_and(|status| status.success());
    let user: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let script = "ip link set lo up && mount --bind \"$1\" /etc/resolv.conf && exec \"$2\" --exact \"$3\" --nocapture";
    let output = unshare(user)
        .args(["sh", "-c", script, "sh"])
        .arg(&resolver)
        .arg(std::env::current_exe().unwrap())
        .arg(TEST)
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) and ip (iproute2) are needed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "the test inside (it needs the right to make namespaces):\n{out}\n{err}"
    );
}

/// Names that were asked of DNS.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// A server of the domain name system that knows nothing and remembers what it was asked.
async fn trap() -> Asked {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            // Twelve bytes of head, then labels with their lengths.
            let (mut name, mut place) = (Vec::new(), 12);
            while query[place] != 0 {
                let end = place + 1 + usize::from(query[place]);
                name.push(String::from_utf8_lossy(&query[place + 1..end]).into_owned());
                place = end;
            }
            seen.lock().unwrap().insert(name.join("."));
            // The same question, as an answer: no such name.
            query[2] |= 0x80;
            query[3] = 0x83;
            let _ = socket.send_to(&query[..length], from).await;
        }
    });
    asked
}

/// What a proxy was asked for: kind of address and name.
type Requests = Arc<Mutex<BTreeSet<(u8, String)>>>;

/// A SOCKS5 server that leads to one directory and nowhere else.
async fn proxy(directory: String) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, directory) = (Arc::clone(&seen), directory.clone());
            // Ends with an error when the other end goes away.
            tokio::spawn(async move { carry(stream, &seen, &directory).await.ok() });
        }
    });
    (address, requests)
}

async fn carry(mut stream: TcpStream, seen: &Requests, directory: &str) -> std::io::Result<()> {
    let mut hello = [0; 3];
    stream.read_exact(&mut hello).await?;
    stream.write_all(&[5, 2]).await?;
    let version = stream.read_u8().await?;
    assert_eq!(version, 1, "user name and password");
    text(&mut stream).await?;
    text(&mut stream).await?;
    stream.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    // A number is no text, but neither is it what is to be seen here.
    let name = text(&mut stream).await?;
    let _port = stream.read_u16().await?;
    let leads = name == DIRECTORY;
    seen.lock().unwrap().insert((request[3], name));
    let verdict = if leads { 0 } else { 4 };
    stream.write_all(&[5, verdict, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if leads {
        let mut onward = TcpStream::connect(directory).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut onward).await?;
    }
    Ok(())
}

async fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Two peers: one with an onion service, one that is said to serve under a name.
fn peers() -> [Nick; 2] {
    let nick = |byte| NickKey::new(SecretKey::from_slice(&[byte; 32]).unwrap()).nick();
    [nick(2), nick(3)]
}

/// A directory that takes everybody in and lists both peers.
async fn directory() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let welcome = json!({
                "app-name": "joinmarket", "directory": true, "proto-ver-min": 5,
                "proto-ver-max": 5, "features": {}, "accepted": true, "nick": "J5dnOOOOOOOOOOOO",
                "network": "regtest", "motd": "",
            });
            let [onion, named] = peers();
            let list = format!("{onion};{ONION_PEER}:5222,{named};{PEER}:5222");
            let lines = [
                json!({"type": 795, "line": welcome.to_string()}),
                json!({"type": 789, "line": list}),
            ];
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            tokio::spawn(async move {
                if stream.write_all(lines.as_bytes()).await.is_ok() {
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                }
            });
        }
    });
    address
}

async fn inside() {
    let asked = trap().await;
    let (proxy, requests) = proxy(directory().await).await;
    let silent = || asked.lock().unwrap().is_empty();
    let was_asked = |name: &str| requests.lock().unwrap().contains(&(3, name.to_owned()));

    // The daemon: its Electrum server by name and as an onion service, two directories.
    let directories = [DIRECTORY, SILENT_DIRECTORY];
    let onion_server = "odpwaf67rs5226uabcamvypg3y4bngzmfk7255flcdodesqhsvkptaid.onion";
    for (url, server) in [
        (format!("ssl://{ELECTRUM}:50002"), ELECTRUM),
        (format!("tcp://{onion_server}:50001"), onion_server),
    ] {
        let mut home = Home::with_electrum(&url).argument(&format!("--proxy=socks5://{proxy}"));
        for directory in directories {
            home = home.argument(&format!("--directory={directory}:5222"));
        }
        home.write_config(&format!(
            "[wallet]\nkdf_memory_mib = 19\n[joinmarket]\nsocks = \"socks5://{proxy}\"\n"
        ));
        let daemon = home.start();
        until("every name at the proxy", || async {
            let all = directories.iter().all(|name| was_asked(name)) && was_asked(server);
            all.then_some(())
        })
        .await;
        daemon.stop();
        requests.lock().unwrap().clear();
    }
    assert!(silent(), "DNS was asked for {:?}", asked.lock().unwrap());

    // A taker's channel that dials peers.
    let key = NickKey::new(SecretKey::from_slice(&[1; 32]).unwrap());
    let mut channel = ChannelConfig::new("regtest", key.into());
    channel.timing = ChannelTiming::regtest();
    // Everything that a private chain allows, so that only the driver stands between names and DNS.
    channel.allow_plain = true;
    let directory = format!("{DIRECTORY}:5222").parse().unwrap();
    channel.directories = vec![DirectoryAddress::new(directory)];
    let mut config = OnionConfig::new("taker");
    config.proxy = Some(proxy.parse().unwrap());
    let (sender, mut events) = tokio::sync::mpsc::channel(64);
    let handle = spawn(config, channel, sender).unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let event = tokio::time::timeout(support::PATIENCE, events.recv()).await;
        if let ChannelEvent::Seen { nick, via: Source::Directory(DirectoryId(0)) } =
            event.expect("the peers are listed in time").unwrap()
        {
            seen.insert(nick);
        }
    }
    for peer in peers() {
        assert!(handle.connect_peer(peer).await.unwrap(), "the machine lets both be dialled");
    }
    until("the peer's onion name at the proxy", || async { was_asked(ONION_PEER).then_some(()) })
        .await;
    until("no link but the directory's", || async {
        let links = handle.call(|channel, _| channel.link_count()).await.unwrap();
        (links == 1).then_some(())
    })
    .await;
    assert!(!was_asked(PEER), "names that are no onion services are not dialled at all");
    handle.stop();
    handle.stopped().await;
    assert!(requests.lock().unwrap().iter().all(|(kind, _)| *kind == 3), "{requests:?}");
    assert!(silent(), "DNS was asked for {:?}", asked.lock().unwrap());

    // The trap works: the same daemon without a proxy does ask, and so does the system.
    let home =
        Home::with_electrum(&format!("tcp://{ELECTRUM}:50001")).argument("--allow-public-electrum");
    let daemon = home.start();
    until("the daemon's own question", || async {
        asked.lock().unwrap().contains(ELECTRUM).then_some(())
    })
    .await;
    daemon.stop();
    let looked_up = tokio::task::spawn_blocking(|| (PEER, 1).to_socket_addrs().is_err());
    assert!(looked_up.await.unwrap() && asked.lock().unwrap().contains(PEER));
}
