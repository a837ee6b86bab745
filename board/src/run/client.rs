//! The board's end of the socket: connects, reads lines, tries again.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::Event;
use crate::backend::spawn;
use crate::link::{Lines, LinkError, Message, Status, parse};

/// First wait before another try; doubled up to [`LONGEST`], begun anew when the daemon has said something.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// A daemon that takes nothing for this long does not listen; the main thread must not wait for it.
const WRITE_WITHIN: Duration = Duration::from_millis(250);

/// What happens on the socket.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Connected(Client),
    Line(Box<Result<Option<Status>, LinkError>>),
    Closed,
}

/// The writing half. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Client(UnixStream);

impl Client {
    /// Writes a message.
    ///
    /// # Errors
    /// When the daemon does not take it.
    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.0.write_all(message.to_line().as_bytes())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Wakes the reader, which then reports the end. An error means that it has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Starts the thread that keeps the connection.
pub(super) fn start(socket: PathBuf, events: SyncSender<Event>) -> io::Result<JoinHandle<()>> {
    spawn("link", move || {
        let mut wait = FIRST;
        let mut missing = false;
        loop {
            match connection(&socket, &events) {
                Ok(Ended { listening: false, .. }) => return,
                Ok(Ended { heard, .. }) => {
                    missing = false;
                    if heard {
                        wait = FIRST;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut missing, true) {
                        tracing::warn!(socket = %socket.display(), %error, "no daemon; trying again and again");
                    }
                }
            }
            sleep(wait);
            wait = (wait * 2).min(LONGEST);
        }
    })
}

struct Ended {
    /// The daemon said something.
    heard: bool,
    /// The main thread is there still.
    listening: bool,
}

/// One connection from its begin to its end.
fn connection(socket: &Path, events: &SyncSender<Event>) -> io::Result<Ended> {
    let mut stream = UnixStream::connect(socket)?;
    let writing = stream.try_clone()?;
    writing.set_write_timeout(Some(WRITE_WITHIN))?;
    let tell = |event| events.send(Event::Link(event)).is_ok();
    let mut ended = Ended { heard: false, listening: tell(LinkEvent::Connected(Client(writing))) };
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 4096]);
    while ended.listening {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        lines.push(buffer.get(..count).unwrap_or_default(), |line| {
            ended.heard |= line.is_ok();
            let line = line.and_then(parse);
            ended.listening = ended.listening && tell(LinkEvent::Line(Box::new(line)));
        });
    }
    ended.listening = ended.listening && tell(LinkEvent::Closed);
    Ok(ended)
}
