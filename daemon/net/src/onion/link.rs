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
    tasks: Vec<AbortHandle>,
    writer: Option<mpsc::Sender<String>>,
    turn: Arc<Semaphore>,
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Link {
    /// A connection that is being dialled.
    pub(super) fn dialing(task: AbortHandle) -> Self {
        Self { tasks: vec![task], writer: None, turn: Arc::new(Semaphore::new(0)) }
    }

    /// An open connection with its tasks running.
    pub(super) fn open(
        link: LinkId,
        stream: TcpStream,
        queue: usize,
        write_timeout: Duration,
        inputs: &mpsc::Sender<Input>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (reader, writer) = stream.into_split();
        let turn = Arc::new(Semaphore::new(1));
        let (lines, waiting) = mpsc::channel(queue);
        let reading = {
            let (turn, inputs) = (Arc::clone(&turn), inputs.clone());
            tasks.spawn(async move {
                let reason = read(link, reader, &turn, &inputs).await;
                let _ = inputs.send(Input::Closed(link, reason)).await;
            })
        };
        let writing = {
            let inputs = inputs.clone();
            tasks.spawn(async move {
                if let Some(reason) = write(writer, waiting, write_timeout).await {
                    let _ = inputs.send(Input::Closed(link, reason)).await;
                }
            })
        };
        Self { tasks: vec![reading, writing], writer: Some(lines), turn }
    }

    /// Puts a line up for writing; false when the peer does not keep up.
    pub(super) fn write(&self, line: String) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.try_send(line).is_ok())
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
