//! One connection: a task that reads lines, one that writes them.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::onion::framing::LineReader;
use joinery_roles::event::LinkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// Bytes read at a time.
const CHUNK: usize = 4_096;

/// What tasks tell the driver.
#[derive(Debug)]
pub(super) enum Input {
    /// A dialled connection is open.
    Opened(LinkId, TcpStream),
    /// Whether the proxy could be used at all; why not.
    Proxy(Option<String>),
    /// A peer has connected to our listener.
    Accepted(TcpStream),
    /// A line without its end. The next one follows when the driver grants it.
    Line(LinkId, Vec<u8>),
    /// The connection did not come about or is over.
    Closed(LinkId, String),
}

/// The driver's end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Dials or reads.
    inward: AbortHandle,
    writer: Option<(AbortHandle, mpsc::Sender<String>)>,
    turn: Arc<Semaphore>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inward.abort();
        if let Some((task, _)) = &self.writer {
            task.abort();
        }
    }
}

impl Link {
    /// A connection that is being dialled.
    pub(super) fn dialing(task: AbortHandle) -> Self {
        Self { inward: task, writer: None, turn: Arc::new(Semaphore::new(0)) }
    }

    /// An open connection with its tasks running: one among `readers`, one among `writers`, which waits at most
    /// `patience` for the peer to take a line.
    pub(super) fn open(
        link: LinkId,
        stream: TcpStream,
        (queue, patience): (usize, Duration),
        inputs: &mpsc::Sender<Input>,
        readers: &mut JoinSet<()>,
        writers: &mut JoinSet<()>,
    ) -> Self {
        let (reader, writer) = stream.into_split();
        let turn = Arc::new(Semaphore::new(1));
        let (lines, waiting) = mpsc::channel(queue);
        let inward = {
            let (turn, inputs) = (Arc::clone(&turn), inputs.clone());
            readers.spawn(async move {
                let reason = read(link, reader, &turn, &inputs).await;
                let _ = inputs.send(Input::Closed(link, reason)).await;
            })
        };
        let writing = {
            let inputs = inputs.clone();
            writers.spawn(async move {
                if let Some(reason) = write(writer, waiting, patience).await {
                    let _ = inputs.send(Input::Closed(link, reason)).await;
                }
            })
        };
        Self { inward, writer: Some((writing, lines)), turn }
    }

    /// Reads no more and closes when everything that waits was written.
    pub(super) fn finish(mut self) {
        // The writing task ends with its queue.
        drop(self.writer.take());
    }

    /// Puts a line up for writing; false when the peer does not keep up.
    pub(super) fn write(&self, line: String) -> bool {
        self.writer.as_ref().is_some_and(|(_, lines)| lines.try_send(line).is_ok())
    }

    /// Lets the next line in.
    pub(super) fn grant(&self) {
        self.turn.add_permits(1);
    }
}

/// Reads until the end; returns why it ended. Holds at most one line and a chunk, and reads no further until
/// its line was taken and the next one granted: what comes faster stays in the kernel.
async fn read(
    link: LinkId,
    mut stream: OwnedReadHalf,
    turn: &Semaphore,
    inputs: &mpsc::Sender<Input>,
) -> String {
    let (mut lines, mut chunk) = (LineReader::default(), [0; CHUNK]);
    loop {
        match lines.next_line() {
            Ok(Some(line)) => {
                let Ok(permit) = turn.acquire().await else { return "closed".to_owned() };
                permit.forget();
                if inputs.send(Input::Line(link, line)).await.is_err() {
                    return "closed".to_owned();
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return error.to_string(),
        }
        match stream.read(&mut chunk).await {
            Ok(0) => return "the other end closed the connection".to_owned(),
            Ok(count) => lines.push(chunk.get(..count).unwrap_or_default()),
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes until nobody sends any more; returns why it ended when that was the peer's doing.
async fn write(
    mut stream: OwnedWriteHalf,
    mut lines: mpsc::Receiver<String>,
    timeout: Duration,
) -> Option<String> {
    while let Some(line) = lines.recv().await {
        match tokio::time::timeout(timeout, stream.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some("it does not read what is sent to it".to_owned()),
        }
    }
    None
}
