//! Metrics in the text format of Prometheus, one page over HTTP for this machine.
//!
//! A page of thirty numbers needs no HTTP library: whatever the request says, the page is the answer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use joinery_roles::directory::{Directory, Incident};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::hub::Input;

/// Readers at a time.
const READERS: usize = 4;
/// Time for one reader from request to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request that is looked at.
const REQUEST: usize = 4_096;

/// The page.
pub(super) fn page(directory: &Directory, now: Duration) -> String {
    let counters = directory.counters();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let rows = [
        ("uptime_seconds", "gauge", now.as_secs()),
        ("connections", "gauge", count(directory.connections())),
        ("members", "gauge", count(directory.members())),
        ("makers", "gauge", count(directory.makers())),
        ("waiting_bytes", "gauge", count(directory.waiting_bytes())),
        ("connections_total", "counter", counters.connections),
        ("handshakes_total", "counter", counters.handshakes),
        ("proofs_total", "counter", counters.proofs),
        ("public_messages_total", "counter", counters.public),
        ("public_recipients_total", "counter", counters.public_recipients),
        ("private_messages_total", "counter", counters.private),
        ("private_unknown_total", "counter", counters.private_unknown),
        ("peer_lists_total", "counter", counters.lists),
    ];
    let mut text = String::with_capacity(4_096);
    // Writing to a string cannot fail.
    for (name, kind, value) in rows {
        let _ = writeln!(
            text,
            "# TYPE joinery_directory_{name} {kind}\njoinery_directory_{name} {value}"
        );
    }
    text.push_str("# TYPE joinery_directory_incidents_total counter\n");
    for incident in Incident::ALL {
        let total = directory.incidents(*incident);
        let _ =
            writeln!(text, "joinery_directory_incidents_total{{incident=\"{incident}\"}} {total}");
    }
    text
}

/// Serves the page for ever.
pub(super) async fn serve(listener: TcpListener, hub: mpsc::Sender<Input>) {
    let readers = Arc::new(Semaphore::new(READERS));
    while let Ok(permit) = Arc::clone(&readers).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(super::ACCEPT_PAUSE).await;
            continue;
        };
        let hub = hub.clone();
        tokio::spawn(async move {
            // A reader that goes away or takes too long has no page; that is all.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &hub)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, hub: &mpsc::Sender<Input>) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (ask, page) = oneshot::channel();
    let stopping = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    hub.send(Input::Metrics(ask)).await.map_err(|_| std::io::ErrorKind::BrokenPipe)?;
    let page = page.await.map_err(stopping)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}
