//! A board that does what a test says, on the daemon's socket.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::{Home, PATIENCE, until};

/// One connection.
#[derive(Debug)]
pub struct Board {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

/// Where the daemons of a home listen for a board.
pub fn socket(home: &Home) -> PathBuf {
    home.log().with_file_name("board.sock")
}

/// A home with a board's socket; `more` is for the table `[board]`.
pub fn home_with_board(home: Home, more: &str) -> Home {
    let path = socket(&home);
    home.write_config(&format!(
        "[wallet]\nkdf_memory_mib = 19\n[board]\nsocket = \"{}\"\n{more}\n",
        path.display()
    ));
    home
}

impl Board {
    /// Connects, and sees a snapshot.
    pub async fn connect(path: &Path) -> Self {
        until("the daemon takes the board", || async {
            let stream = UnixStream::connect(path).await.ok()?;
            let (reader, writer) = stream.into_split();
            let mut board = Self { lines: BufReader::new(reader).lines(), writer };
            // One that comes too early is sent away without a word.
            board.next().await.map(|_| board)
        })
        .await
    }

    /// Connects and says hello with a small panel.
    pub async fn with_panel(path: &Path) -> Self {
        let mut board = Self::connect(path).await;
        board.hello("128x64").await;
        board
    }

    /// Says hello.
    pub async fn hello(&mut self, panel: &str) {
        self.say(&json!({"v": 1, "type": "hello", "panel": panel, "version": "0.1.0"})).await;
    }

    /// Says a line.
    pub async fn say(&mut self, line: &Value) {
        self.write(format!("{line}\n").as_bytes()).await;
    }

    /// Says something about a request.
    pub async fn about(&mut self, what: &str, id: &str) {
        self.say(&json!({"v": 1, "type": what, "pending": id})).await;
    }

    /// Writes bytes; a connection that is closed takes them, too.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes).await;
    }

    /// The next snapshot; `None` when the connection is closed. Each is held against what a real board takes.
    pub async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("a snapshot comes in time").ok().flatten()?;
        let read = joinery_board::link::parse(line.as_bytes());
        assert!(matches!(read, Ok(Some(_))), "{read:?}: {line}");
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The first snapshot that fits.
    pub async fn when(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let waiting = timeout(PATIENCE, async {
            while let Some(status) = self.next().await {
                if fits(&status) {
                    return status;
                }
            }
            panic!("the daemon closed the connection: {what}");
        });
        waiting.await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    /// The request that waits, once there is one.
    pub async fn pending(&mut self) -> Value {
        let status = self.when("a request", |status| !status["pending"].is_null()).await;
        status["pending"].clone()
    }

    /// Waits until nothing waits.
    pub async fn nothing_pending(&mut self) {
        self.when("no request", |status| status["pending"].is_null()).await;
    }

    /// Waits until the daemon closes the connection.
    pub async fn closed(&mut self) {
        let closing = async { while self.next().await.is_some() {} };
        timeout(PATIENCE, closing).await.expect("the daemon sends the board away");
    }
}

/// The id of a request.
pub fn id_of(pending: &Value) -> &str {
    pending["id"].as_str().unwrap()
}
