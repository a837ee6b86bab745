//! A wire between a maker and its directory that times what the maker answers.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A taker's message and the last of the maker's that answer it.
const PAIRS: [(&str, &str); 3] = [("fill", "pubkey"), ("auth", "ioauth"), ("tx", "sig")];

/// How these look on the wire.
const MARKS: [&str; 6] = ["!fill ", "!pubkey ", "!auth ", "!ioauth ", "!tx ", "!sig "];

/// A private message that passed.
#[derive(Debug)]
struct Passed {
    at: Instant,
    line: String,
}

/// How long a maker took to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The taker's word.
    pub(crate) to: &'static str,
    /// From the last byte of its message to the last byte of the (last) answer.
    pub(crate) took: Duration,
}

/// The wire.
#[derive(Debug)]
pub(crate) struct Tap {
    address: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
    task: AbortHandle,
}

impl Tap {
    /// Listens on a free port and passes everything on to `target`, line by line.
    pub(crate) async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passed = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            while let Ok((maker, _)) = listener.accept().await {
                let Ok(directory) = TcpStream::connect(target).await else { continue };
                // As the daemon has it; small messages must not wait for each other.
                let _ = (maker.set_nodelay(true), directory.set_nodelay(true));
                let ((from_maker, to_maker), (from_directory, to_directory)) =
                    (maker.into_split(), directory.into_split());
                tokio::spawn(pass(from_maker, to_directory, Arc::clone(&shared)));
                tokio::spawn(pass(from_directory, to_maker, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, passed, task: task.abort_handle() })
    }

    /// Where the maker connects.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The answers since the last call.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        let passed =
            std::mem::take(&mut *self.passed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut asked: HashMap<(String, &str), Instant> = HashMap::new();
        let mut answered: HashMap<(String, &'static str), Duration> = HashMap::new();
        for Passed { at, line } in &passed {
            let Some((from, to, word)) = parts(line) else { continue };
            for (ask, answer) in PAIRS {
                // A taker has a new nick for each coinjoin.
                if word == ask {
                    asked.entry((from.clone(), ask)).or_insert(*at);
                } else if word == answer
                    && let Some(asked) = asked.get(&(to.clone(), ask))
                {
                    answered.insert((to.clone(), ask), at.saturating_duration_since(*asked));
                }
            }
        }
        answered.into_iter().map(|((_, to), took)| Answer { to, took }).collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sender, receiver and word of a private message.
fn parts(line: &str) -> Option<(String, String, String)> {
    let envelope: Value = serde_json::from_str(line).ok()?;
    let mut fields = envelope["line"].as_str()?.splitn(3, '!');
    let (from, to, text) = (fields.next()?, fields.next()?, fields.next()?);
    let word = text.trim_start_matches('!').split(' ').next()?;
    Some((from.to_owned(), to.to_owned(), word.to_owned()))
}

async fn pass(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: Arc<Mutex<Vec<Passed>>>,
) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        let at = Instant::now();
        if to.write_all(&line).await.is_err() {
            break;
        }
        // Private messages of a conversation only: the rest of the market is not kept.
        if let Ok(text) = std::str::from_utf8(&line)
            && MARKS.iter().any(|mark| text.contains(mark))
        {
            let line = text.to_owned();
            passed.lock().unwrap_or_else(PoisonError::into_inner).push(Passed { at, line });
        }
        line.clear();
    }
}
