//! The root side, which makes and opens the volume (`image/rootfs/usr/lib/joinery/volume`): one connection to its socket
//! for each thing that it is to do.
//!
//! We write `make` or `open`, a newline, and the password, and close our half; it answers with one word.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::page::Kind;

/// Longest that one thing may take: the volume of a slow card in an emulator.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest answer, bytes.
const ANSWER: u64 = 64;

/// Where it is.
#[derive(Debug, Clone)]
pub(super) struct RootSide {
    socket: PathBuf,
    volume: PathBuf,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The volume is open.
    Opened,
    /// The password is wrong.
    Wrong,
    /// There is too little space for a volume.
    NoSpace,
    /// Something else; the journal has what.
    Failed,
}

impl RootSide {
    /// With its socket, and the file in which it says whether there is a volume.
    pub(super) fn new(socket: &Path, volume: &Path) -> Self {
        Self { socket: socket.to_owned(), volume: volume.to_owned() }
    }

    /// What is to be typed: a new password only where the root side says that there is no volume yet.
    pub(super) fn wants(&self) -> Kind {
        match std::fs::read_to_string(&self.volume) {
            Ok(text) if text.trim() == "new" => Kind::Choose,
            _ => Kind::Enter,
        }
    }

    /// Opens the volume, and before that makes it when the password is a new one.
    pub(super) async fn open(&self, kind: Kind, password: &[u8]) -> Outcome {
        if kind == Kind::Choose {
            match self.ask("make", password).await.as_deref() {
                Ok("made") => {}
                Ok("space") => return Outcome::NoSpace,
                answer => return failed("make", answer),
            }
        }
        match self.ask("open", password).await.as_deref() {
            Ok("opened") => Outcome::Opened,
            Ok("wrong") => Outcome::Wrong,
            answer => failed("open", answer),
        }
    }

    async fn ask(&self, what: &str, password: &[u8]) -> io::Result<String> {
        let asking = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let mut message = Zeroizing::new(Vec::with_capacity(what.len() + 1 + password.len()));
            message.extend_from_slice(what.as_bytes());
            message.push(b'\n');
            message.extend_from_slice(password);
            stream.write_all(&message).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.take(ANSWER).read_to_string(&mut answer).await?;
            Ok(answer.trim().to_owned())
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn failed(what: &str, answer: Result<&str, &io::Error>) -> Outcome {
    tracing::error!(what, ?answer, "the volume cannot be used");
    Outcome::Failed
}
