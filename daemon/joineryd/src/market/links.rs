//! Connections of the message channel: bytes to lines, lines to bytes, and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use joinery_net::{DialError, ProxyUrl, dial};
use joinery_proto::onion::framing::LineReader;
use joinery_proto::onion::location::PeerAddress;
use joinery_roles::event::LinkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Lines that wait to be written on one link.
const QUEUE: usize = 64;
/// News of all links that wait for the machine; then nothing more is read.
const NEWS: usize = 64;
/// Longest time that a node may take nothing of what is written.
const WRITE: Duration = Duration::from_secs(30);

/// What a link reports.
#[derive(Debug)]
pub(super) enum News {
    /// It is open.
    Opened(LinkId),
    /// Whole lines.
    Lines(LinkId, Vec<Vec<u8>>),
    /// It could not be opened, or it is over.
    Closed {
        link: LinkId,
        reason: String,
        /// There is no proxy (Tor) at all.
        no_proxy: bool,
    },
}

#[derive(Debug)]
enum Order {
    Write(String),
    /// Reads nothing until then.
    Pause(Instant),
}

/// Every connection.
#[derive(Debug)]
pub(super) struct Links {
    proxy: ProxyUrl,
    /// Time for a connection to come up.
    connect: Duration,
    /// Circuits of this run are nobody else's.
    secret: String,
    orders: HashMap<LinkId, mpsc::Sender<Order>>,
    news: mpsc::Sender<News>,
}

impl Links {
    pub(super) fn new(
        proxy: ProxyUrl,
        connect: Duration,
        secret: String,
    ) -> (Self, mpsc::Receiver<News>) {
        let (news, receiver) = mpsc::channel(NEWS);
        (Self { proxy, connect, secret, orders: HashMap::new(), news }, receiver)
    }

    /// Whether the machine still knows the link.
    pub(super) fn knows(&self, link: LinkId) -> bool {
        self.orders.contains_key(&link)
    }

    /// Opens a connection; `purpose` keeps its circuit apart from others.
    pub(super) fn dial(&mut self, link: LinkId, address: PeerAddress, purpose: String) {
        let (orders, receiver) = mpsc::channel(QUEUE);
        self.orders.insert(link, orders);
        let (proxy, connect, secret) = (self.proxy, self.connect, self.secret.clone());
        let news = self.news.clone();
        // Ends by itself when the link is forgotten here: its orders end.
        tokio::spawn(async move {
            let dialling = dial(address.host(), address.port(), proxy, &purpose, &secret);
            let (reason, no_proxy) = match timeout(connect, dialling).await {
                Ok(Ok(stream)) => match carry(link, stream, receiver, &news).await {
                    Some(reason) => (reason, false),
                    None => return,
                },
                Ok(Err(error)) => (error.to_string(), matches!(error, DialError::Proxy { .. })),
                Err(_) => ("no connection in time".to_owned(), false),
            };
            let _ = news.send(News::Closed { link, reason, no_proxy }).await;
        });
    }

    /// Writes a line. False: the node does not take what is written, and the link is gone.
    pub(super) fn send(&mut self, link: LinkId, line: String) -> bool {
        let Some(orders) = self.orders.get(&link) else { return true };
        let sent = orders.try_send(Order::Write(line)).is_ok();
        if !sent {
            self.orders.remove(&link);
        }
        sent
    }

    /// Reads nothing from a link until then.
    pub(super) fn pause(&self, link: LinkId, until: Instant) {
        if let Some(orders) = self.orders.get(&link) {
            // A full queue of writes holds reading back, too.
            let _ = orders.try_send(Order::Pause(until));
        }
    }

    /// Forgets a link, which ends it.
    pub(super) fn close(&mut self, link: LinkId) {
        self.orders.remove(&link);
    }
}

/// Runs an open connection. `None`: nobody wants to hear of it any more.
async fn carry(
    link: LinkId,
    mut stream: TcpStream,
    mut orders: mpsc::Receiver<Order>,
    news: &mpsc::Sender<News>,
) -> Option<String> {
    news.send(News::Opened(link)).await.ok()?;
    let mut reader = LineReader::default();
    let mut chunk = vec![0; CHUNK];
    let mut paused: Option<Instant> = None;
    let (mut read_half, mut write_half) = stream.split();
    loop {
        tokio::select! {
            order = orders.recv() => match order? {
                Order::Write(line) => {
                    match timeout(WRITE, write_half.write_all(line.as_bytes())).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Some(error.to_string()),
                        Err(_) => return Some("it takes nothing of what is sent to it".to_owned()),
                    }
                }
                Order::Pause(until) => paused = Some(until),
            },
            () = async { if let Some(until) = paused { sleep_until(until).await } }, if paused.is_some() => {
                paused = None;
            }
            read = read_half.read(&mut chunk), if paused.is_none() => {
                let bytes = match read {
                    Ok(0) => return Some("the node closed the connection".to_owned()),
                    Ok(count) => chunk.get(..count).unwrap_or_default(),
                    Err(error) => return Some(error.to_string()),
                };
                reader.push(bytes);
                let mut lines = Vec::new();
                let failure = loop {
                    match reader.next_line() {
                        Ok(Some(line)) => lines.push(line),
                        Ok(None) => break None,
                        Err(error) => break Some(error.to_string()),
                    }
                };
                if !lines.is_empty() {
                    news.send(News::Lines(link, lines)).await.ok()?;
                }
                if failure.is_some() {
                    return failure;
                }
            }
        }
    }
}
