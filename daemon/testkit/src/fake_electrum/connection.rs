//! One client: a thread that reads requests, a thread that writes what is to be said.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::{Shared, protocol};

/// Bytes written at once of a line that is made up on the way.
const CHUNK: usize = 64 * 1024;
/// A client that does not read is looked at again after this time, to see whether it is still there.
const STALL: Duration = Duration::from_millis(500);

/// What a connection is told to write.
#[derive(Debug)]
enum Output {
    Line(String),
    Stream(Option<u64>),
    Close,
}

/// What a client has subscribed to, with what it was told last.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Script hash to status.
    pub(super) scripts: BTreeMap<String, Option<String>>,
    /// Header of the tip, hexadecimal.
    pub(super) tip: Option<String>,
}

/// A connection that a client has open.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    /// Requests so far.
    pub(super) asked: AtomicU64,
    pub(super) subscriptions: Mutex<Subscriptions>,
    stream: TcpStream,
    output: Sender<Output>,
}

impl Connection {
    pub(super) fn start(number: u64, stream: TcpStream, shared: Arc<Shared>) -> Result<Arc<Self>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let (output, orders) = channel();
        let connection = Arc::new(Self {
            number,
            asked: AtomicU64::new(0),
            subscriptions: Mutex::default(),
            stream: stream.try_clone()?,
            output,
        });
        let writing = stream.try_clone()?;
        let for_writer = Arc::clone(&shared);
        let for_reader = Arc::clone(&connection);
        std::thread::Builder::new().name("fake-electrum-write".into()).spawn(move || {
            // Whatever ends the writing, the client must see it.
            let _ = write(&writing, &orders, &for_writer);
            let _ = writing.shutdown(Shutdown::Both);
        })?;
        std::thread::Builder::new().name("fake-electrum-read".into()).spawn(move || {
            let _ = read(&stream, &for_reader, &shared);
            for_reader.close();
            shared.state().connections.retain(|other| other.number != for_reader.number);
        })?;
        Ok(connection)
    }

    pub(super) fn subscriptions(&self) -> std::sync::MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line; lost when the connection has ended.
    pub(super) fn send_line(&self, line: &str) {
        let _ = self.output.send(Output::Line(line.to_owned()));
    }

    /// Queues a line that is made up while it is written.
    pub(super) fn send_stream(&self, bytes: Option<u64>) {
        let _ = self.output.send(Output::Stream(bytes));
    }

    /// Closes the connection after what is queued.
    pub(super) fn hang_up(&self) {
        let _ = self.output.send(Output::Close);
    }

    /// Closes the connection at once.
    pub(super) fn close(&self) {
        // Both threads wake up with an error or an end; that it is closed already is fine.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn read(stream: &TcpStream, connection: &Arc<Connection>, shared: &Shared) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if shared.stopped() {
            break;
        }
        protocol::handle(&line, connection, &mut shared.state());
    }
    Ok(())
}

fn write(mut stream: &TcpStream, orders: &Receiver<Output>, shared: &Shared) -> Result<()> {
    while let Ok(order) = orders.recv() {
        match order {
            Output::Close => return Ok(()),
            Output::Line(line) => {
                put(&mut stream, line.as_bytes(), shared)?;
                put(&mut stream, b"\n", shared)?;
            }
            Output::Stream(length) => {
                let chunk = [b'x'; CHUNK];
                let mut left = length.unwrap_or(u64::MAX);
                while left > 0 {
                    let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                    put(&mut stream, chunk.get(..now).unwrap_or(&chunk), shared)?;
                    if length.is_some() {
                        left -= u64::try_from(now)?;
                    }
                }
                put(&mut stream, b"\n", shared)?;
            }
        }
    }
    Ok(())
}

/// Writes everything, however slowly the client reads, unless the server is stopped meanwhile.
fn put(stream: &mut &TcpStream, mut bytes: &[u8], shared: &Shared) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.stopped() {
                    return Err(error);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
