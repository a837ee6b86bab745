//! One peer's socket: lines in, frames out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use joinery_proto::onion::framing::LineReader;
use joinery_roles::directory::{Frame, Incident, Load, limits};
use joinery_roles::event::LinkId;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::hub::Input;

/// Bytes read at a time, on the stack of a poll and not in the task.
const READ: usize = 8 * 1024;
/// Frames written at a time.
const WRITE: usize = 32;
/// Places of a queue that are kept when it is empty.
const KEPT: usize = 8;
/// Time to take what waits for a peer that is being closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the hub and a connection's task share.
#[derive(Debug, Default)]
pub(super) struct Link {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Milliseconds since the start, at least 1, when a line was begun that is not ended; 0 when there is none.
    pub(super) reading_since: AtomicU64,
    /// Likewise for a socket that takes nothing more.
    pub(super) blocked_since: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    end: End,
}

/// How far a connection is towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    Open,
    /// What waits is still written.
    Soon,
    Now,
}

impl Link {
    /// Appends a frame.
    pub(super) fn push(&self, frame: Frame) {
        self.queue().frames.push_back(frame);
        self.wake.notify_one();
    }

    /// Ends the connection when what waits is written.
    pub(super) fn close(&self) {
        self.queue().end = End::Soon;
        self.wake.notify_one();
    }

    /// Ends the connection.
    pub(super) fn abort(&self) {
        *self.queue() = Queue { frames: VecDeque::new(), end: End::Now };
        self.wake.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what the socket takes. `offset` is how much of the first frame was written before.
    fn write(
        &self,
        stream: &TcpStream,
        offset: &mut usize,
        load: &mut Load,
    ) -> io::Result<Progress> {
        loop {
            let (frames, end) = {
                let queue = self.queue();
                (queue.frames.iter().take(WRITE).cloned().collect::<Vec<_>>(), queue.end)
            };
            match end {
                End::Now => return Ok(Progress::Done),
                End::Soon if frames.is_empty() => return Ok(Progress::Done),
                End::Soon | End::Open => {}
            }
            if frames.is_empty() {
                return Ok(Progress::Idle);
            }
            let mut skip = *offset;
            let slices: Vec<IoSlice<'_>> = frames
                .iter()
                .map(|frame| {
                    let rest = frame.bytes().get(std::mem::take(&mut skip)..);
                    IoSlice::new(rest.unwrap_or_default())
                })
                .collect();
            let mut written = match stream.try_write_vectored(&slices) {
                Ok(written) => written.saturating_add(*offset),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut whole = 0;
            for frame in &frames {
                let Some(rest) = written.checked_sub(frame.bytes().len()) else { break };
                written = rest;
                whole += 1;
                load.add(frame);
            }
            *offset = written;
            let mut queue = self.queue();
            // Only this task takes frames out, but an abort may have emptied the queue.
            let whole = whole.min(queue.frames.len());
            queue.frames.drain(..whole);
            if queue.frames.is_empty() && queue.frames.capacity() > KEPT {
                queue.frames = VecDeque::new();
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Everything is written.
    Idle,
    /// The socket takes nothing more for now.
    Blocked,
    /// The connection is to end.
    Done,
}

/// Moves lines and frames until the peer or the hub ends the connection; says why.
pub(super) async fn converse(
    stream: &TcpStream,
    id: LinkId,
    link: &Link,
    hub: &mpsc::Sender<Input>,
    start: Instant,
) -> Incident {
    let mut reader = LineReader::with_limit(limits::MAX_LINE);
    let mut offset = 0;
    loop {
        let mut load = Load::default();
        let progress = link.write(stream, &mut offset, &mut load);
        if load.frames > 0 && hub.send(Input::Written(id, load)).await.is_err() {
            return Incident::Gone;
        }
        let interest = match progress {
            Ok(Progress::Idle) => {
                link.blocked_since.store(0, Ordering::Relaxed);
                Interest::READABLE
            }
            Ok(Progress::Blocked) => {
                if link.is_ending() {
                    return last_words(stream, link, offset).await;
                }
                // Since the last time that it took anything.
                if load.frames > 0 || link.blocked_since.load(Ordering::Relaxed) == 0 {
                    link.blocked_since.store(millis(start), Ordering::Relaxed);
                }
                Interest::READABLE | Interest::WRITABLE
            }
            Ok(Progress::Done) | Err(_) => return Incident::Gone,
        };
        let ready = tokio::select! {
            () = link.wake.notified() => continue,
            ready = stream.ready(interest) => ready,
        };
        let Ok(ready) = ready else { return Incident::Gone };
        if !ready.is_readable() {
            continue;
        }
        match read(stream, &mut reader) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => return Incident::Gone,
        }
        loop {
            match reader.next_line() {
                Ok(Some(line)) => {
                    // Here a peer waits when the machine is busy.
                    if hub.send(Input::Line(id, line)).await.is_err() {
                        return Incident::Gone;
                    }
                    link.reading_since.store(0, Ordering::Relaxed);
                }
                Ok(None) => break,
                Err(_) => return Incident::LineTooLong,
            }
        }
        if reader.is_within_line() && link.reading_since.load(Ordering::Relaxed) == 0 {
            link.reading_since.store(millis(start), Ordering::Relaxed);
        }
    }
}

/// Reads once into the reader; `false` when there was nothing after all.
fn read(stream: &TcpStream, reader: &mut LineReader) -> io::Result<bool> {
    let mut buffer = [0_u8; READ];
    match stream.try_read(&mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            reader.push(buffer.get(..count).unwrap_or_default());
            Ok(true)
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives a peer that is being closed a moment to take what waits for it.
async fn last_words(stream: &TcpStream, link: &Link, mut offset: usize) -> Incident {
    let flush = async {
        while stream.writable().await.is_ok() {
            let written = link.write(stream, &mut offset, &mut Load::default());
            if !matches!(written, Ok(Progress::Blocked)) {
                return;
            }
        }
    };
    // Boxed: few connections come here, and the others need not have room for it.
    let _ = Box::pin(tokio::time::timeout(LAST_WORDS, flush)).await;
    Incident::Gone
}

impl Link {
    fn is_ending(&self) -> bool {
        self.queue().end != End::Open
    }
}

/// Milliseconds since the start, at least 1.
pub(super) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}
