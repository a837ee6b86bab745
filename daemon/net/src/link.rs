//! One connection of a message channel: a task that reads lines, one that writes them.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::onion::framing::LineReader;
use joinery_roles::event::LinkId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Bytes read at a time.
const CHUNK: usize = 4_096;

/// What a connection tells the driver.
#[derive(Debug)]
pub(crate) enum LinkNews {
    /// A line without its end. The next one follows when the driver grants it.
    Line(LinkId, Vec<u8>),
    /// The connection did not come about or is over.
    Closed(LinkId, String),
}

/// What both tasks of a connection keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkLimits {
    /// Longest line that is taken, bytes without its end; one that is longer ends the connection.
    pub(crate) line: usize,
    /// Lines that may wait for the peer to read them; one more and it is given up.
    pub(crate) queue: usize,
    /// How long the peer may take to read a line.
    pub(crate) patience: Duration,
}

/// The driver's end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Link {
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
    pub(crate) fn dialing(task: AbortHandle) -> Self {
        Self { inward: task, writer: None, turn: Arc::new(Semaphore::new(0)) }
    }

    /// An open connection with its tasks running: one among `readers`, one among `writers`.
    pub(crate) fn open<I: From<LinkNews> + Send + 'static>(
        link: LinkId,
        (reader, writer): (
            impl AsyncRead + Send + Unpin + 'static,
            impl AsyncWrite + Send + Unpin + 'static,
        ),
        limits: LinkLimits,
        inputs: &mpsc::Sender<I>,
        readers: &mut JoinSet<()>,
        writers: &mut JoinSet<()>,
    ) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        let (lines, waiting) = mpsc::channel(limits.queue);
        let inward = {
            let (turn, inputs) = (Arc::clone(&turn), inputs.clone());
            readers.spawn(async move {
                let reason = read(link, reader, limits.line, &turn, &inputs).await;
                let _ = inputs.send(LinkNews::Closed(link, reason).into()).await;
            })
        };
        let writing = {
            let inputs = inputs.clone();
            writers.spawn(async move {
                if let Some(reason) = write(writer, waiting, limits.patience).await {
                    let _ = inputs.send(LinkNews::Closed(link, reason).into()).await;
                }
            })
        };
        Self { inward, writer: Some((writing, lines)), turn }
    }

    /// Reads no more and closes when everything that waits was written.
    pub(crate) fn finish(mut self) {
        // The writing task ends with its queue.
        drop(self.writer.take());
    }

    /// Puts a line up for writing; false when the peer does not keep up.
    pub(crate) fn write(&self, line: String) -> bool {
        self.writer.as_ref().is_some_and(|(_, lines)| lines.try_send(line).is_ok())
    }

    /// Lets the next line in.
    pub(crate) fn grant(&self) {
        self.turn.add_permits(1);
    }
}

/// Reads until the end; returns why it ended. Holds at most one line and a chunk, and reads no further until
/// its line was taken and the next one granted: what comes faster stays in the kernel.
async fn read<I: From<LinkNews>>(
    link: LinkId,
    mut stream: impl AsyncRead + Unpin,
    longest: usize,
    turn: &Semaphore,
    inputs: &mpsc::Sender<I>,
) -> String {
    let (mut lines, mut chunk) = (LineReader::with_limit(longest), [0; CHUNK]);
    loop {
        match lines.next_line() {
            Ok(Some(line)) => {
                let Ok(permit) = turn.acquire().await else { return "closed".to_owned() };
                permit.forget();
                if inputs.send(LinkNews::Line(link, line).into()).await.is_err() {
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
    mut stream: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
    patience: Duration,
) -> Option<String> {
    while let Some(line) = lines.recv().await {
        let writing = async {
            stream.write_all(line.as_bytes()).await?;
            // Encrypting streams hold bytes back.
            stream.flush().await
        };
        match timeout(patience, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some("it does not read what is sent to it".to_owned()),
        }
    }
    // The connection is given up: nobody waits for how it ends.
    let _ = timeout(patience, stream.shutdown()).await;
    None
}
