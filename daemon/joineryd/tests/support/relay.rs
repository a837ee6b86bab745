//! Between the daemon's socket and a board: lets a test read what the board is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy};
use tokio::net::{UnixListener, UnixStream};

/// Listens for a board; each connection of one becomes a connection to the daemon.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    /// All snapshots that went by, oldest first.
    statuses: Arc<Mutex<Vec<Value>>>,
}

impl Relay {
    /// Listens beside the daemon's socket.
    pub fn start(daemon: &Path) -> Self {
        let path = daemon.with_file_name("relay.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (daemon, statuses) = (daemon.to_owned(), Arc::<Mutex<Vec<Value>>>::default());
        let told = Arc::clone(&statuses);
        tokio::spawn(async move {
            while let Ok((board, _)) = listener.accept().await {
                // Without a daemon the board hears the end of its connection, as it would without us.
                let Ok(daemon) = UnixStream::connect(&daemon).await else { continue };
                tokio::spawn(pass(board, daemon, Arc::clone(&told)));
            }
        });
        Self { path, statuses }
    }

    /// Where the board is to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The request that the board was told of last.
    pub fn last_request(&self) -> Value {
        self.last("pending").expect("a request")
    }

    /// The transaction that the board was told of last.
    pub fn last_transaction(&self) -> Value {
        self.last("transaction").expect("a transaction")
    }

    fn last(&self, field: &str) -> Option<Value> {
        let statuses = self.statuses.lock().unwrap();
        statuses.iter().rev().map(|status| &status[field]).find(|value| !value.is_null()).cloned()
    }
}

async fn pass(board: UnixStream, daemon: UnixStream, told: Arc<Mutex<Vec<Value>>>) {
    let (mut from_board, mut to_board) = board.into_split();
    let (from_daemon, mut to_daemon) = daemon.into_split();
    let statuses = async {
        let mut lines = BufReader::new(from_daemon).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let status: Value = serde_json::from_str(&line).unwrap();
            told.lock().unwrap().push(status);
            if to_board.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                break;
            }
        }
    };
    // Whoever goes away first takes the other along.
    tokio::select! {
        () = statuses => {}
        _ = copy(&mut from_board, &mut to_daemon) => {}
    }
}
