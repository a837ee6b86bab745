//! The box as somebody in its network sees it: the other end of its second cable.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Connections that are tried at once.
const AT_ONCE: usize = 3500;
/// A connection that is not there after so long is not there: the kernel asks twice in it.
const KNOCK: Duration = Duration::from_secs(3);
/// UDP ports of services that systems like this one have: names, DHCP, portmap, time, SNMP, IPsec, UPnP, LLMNR.
const UDP: [u16; 13] = [53, 67, 68, 69, 111, 123, 161, 500, 514, 546, 1900, 5355, 9050];
/// Of mDNS.
const MDNS: u16 = 5353;

/// An address of the box on its second cable.
#[derive(Debug, Clone, Copy)]
pub struct Box(IpAddr, u32);

impl Box {
    /// The one of IPv6 that it makes of the number of its network card (RFC 4291, appendix A; the emulator's second card
    /// has 52:54:00:12:34:57).
    pub fn ipv6() -> Self {
        let device = std::env::var("JOINERY_IMAGE_TAP").expect("image/test.sh names the cable");
        // Address, index, length and scope in hexadecimal, flags, name: what /sys shows is of another network.
        let table = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap();
        let index = table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.last() == Some(&&*device)).then(|| u32::from_str_radix(words[1], 16).unwrap())
        });
        let index = index.expect("the cable has an address of its own");
        let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0x00ff, 0xfe12, 0x3457);
        Self(address.into(), index)
    }

    /// One of IPv4.
    pub fn ipv4(address: Ipv4Addr) -> Self {
        Self(address.into(), 0)
    }

    fn port(self, port: u16) -> SocketAddr {
        match self.0 {
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.1).into(),
            IpAddr::V4(address) => (address, port).into(),
        }
    }

    /// Whether somebody takes a connection there.
    pub async fn takes(self, port: u16) -> bool {
        let connected = tokio::time::timeout(KNOCK, TcpStream::connect(self.port(port))).await;
        matches!(connected, Ok(Ok(_)))
    }

    /// Every TCP port that takes a connection, and every one that refuses it: a box that drops what it does not want does
    /// neither.
    pub async fn tcp(self) -> (BTreeSet<u16>, BTreeSet<u16>) {
        let (mut open, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut tried = JoinSet::new();
        let mut ports = 1..=u16::MAX;
        loop {
            while tried.len() < AT_ONCE
                && let Some(port) = ports.next()
            {
                let address = self.port(port);
                tried.spawn(async move {
                    (port, tokio::time::timeout(KNOCK, TcpStream::connect(address)).await)
                });
            }
            match tried.join_next().await {
                Some(Ok((port, Ok(Ok(_))))) => _ = open.insert(port),
                Some(Ok((port, Ok(Err(error))))) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{port}: {error}");
                    refused.insert(port);
                }
                Some(Ok((_, Err(_)))) => {}
                Some(Err(error)) => panic!("{error}"),
                None => return (open, refused),
            }
        }
    }

    /// UDP ports out of a list of usual ones that answer anything, be it only that nobody is there.
    pub async fn udp(self) -> BTreeSet<u16> {
        let mut asked = JoinSet::new();
        for port in UDP {
            asked.spawn(async move { self.ask(port, &question()).await.map(|_| port) });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// What it answers to somebody who looks for HTTPS by mDNS.
    pub async fn mdns(self) -> Option<Vec<u8>> {
        self.ask(MDNS, &question()).await
    }

    /// The answer to a datagram; empty when it is a refusal.
    async fn ask(self, port: u16, question: &[u8]) -> Option<Vec<u8>> {
        let any: SocketAddr = match self.0 {
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.unwrap();
        socket.connect(self.port(port)).await.unwrap();
        let mut answer = vec![0; 4096];
        for _ in 0..2 {
            if socket.send(question).await.is_err() {
                return Some(Vec::new());
            }
            match tokio::time::timeout(KNOCK, socket.recv(&mut answer)).await {
                Ok(Ok(length)) => {
                    answer.truncate(length);
                    return Some(answer);
                }
                Ok(Err(_)) => return Some(Vec::new()),
                Err(_) => {}
            }
        }
        None
    }
}

/// A question of DNS for pointers at `_https._tcp.local`.
fn question() -> Vec<u8> {
    let mut question = vec![0x4a, 0x4f, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_https", "_tcp", "local"] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    // The end of the name, type PTR, class IN.
    question.extend([0, 0, 12, 0, 1]);
    question
}
