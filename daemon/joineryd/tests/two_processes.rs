//! The real daemon and the real board together: pictures as files, a button that is pressed by words.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::board::{home_with_board, socket};
use support::client::PASSWORD;
use support::{Answer, Client, Home, until};

/// The board's program, beside the daemon's; built if it is not there as it should be.
fn board_program() -> PathBuf {
    let daemon = Path::new(env!("CARGO_BIN_EXE_joineryd"));
    let profile = daemon.parent().unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "joinery-board", "--target-dir"])
        .arg(profile.parent().unwrap())
        .status();
    assert!(built.unwrap().success(), "joinery-board cannot be built");
    profile.join("joinery-board")
}

/// A board process; ended when dropped.
struct Board {
    child: Child,
    hand: ChildStdin,
    /// What it told last of the screen, and of the light.
    last: Arc<Mutex<(String, String)>>,
}

impl Board {
    fn start(home: &Home) -> Self {
        let pictures = home.log().with_file_name("pictures");
        let mut child = Command::new(board_program())
            .arg("--socket")
            .arg(socket(home))
            .args(["--backend", "png"])
            .arg(pictures)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let last = Arc::<Mutex<(String, String)>>::default();
        let (told, lines) = (Arc::clone(&last), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap();
                let mut last = told.lock().unwrap();
                if let Some(screen) = line["screen"].as_str() {
                    screen.clone_into(&mut last.0);
                }
                if let Some(led) = line["led"].as_str() {
                    led.clone_into(&mut last.1);
                }
            }
        });
        let hand = child.stdin.take().unwrap();
        Self { child, hand, last }
    }

    async fn screen(&self, name: &str) {
        let shown = || async { (self.last.lock().unwrap().0 == name).then_some(()) };
        until(&format!("screen {name}"), shown).await;
    }

    async fn light(&self, name: &str) {
        let shown = || async { (self.last.lock().unwrap().1 == name).then_some(()) };
        until(&format!("light {name}"), shown).await;
    }

    fn press(&mut self, seconds: &str) {
        writeln!(self.hand, "press {seconds}").unwrap();
    }

    /// Presses as long as it takes: a press means a request only when it was on the panel for a while.
    async fn press_until_gone(&mut self, screen: &str) {
        let mut pace = tokio::time::interval(Duration::from_millis(1_000));
        while self.last.lock().unwrap().0 == screen {
            pace.tick().await;
            self.press("0.1");
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn try_unlock(client: &Client) -> Answer {
    client.post("/wallet/box.jmdat/unlock", json!({"password": PASSWORD})).await
}

#[tokio::test]
async fn boot_pair_unlock_and_lock_with_the_real_board() {
    let home = home_with_board(Home::new(), "approve = [\"unlock\"]");
    let mut board = Board::start(&home);
    board.screen("starting").await;
    let daemon = home.start();
    board.screen("pairing").await;
    board.light("off").await;
    let mut client = daemon.client();
    client.create("box.jmdat").await;
    board.screen("idle").await;
    board.light("steady").await;
    client.lock().await;
    board.light("off").await;

    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        board.screen("unlock").await;
        board.light("double-blink").await;
        board.press_until_gone("unlock").await;
    });
    client.take_tokens(&answer.expect(200));
    board.light("steady").await;

    // Somebody else who knows the password, and a person at the box who wants none of it.
    let (answer, ()) = tokio::join!(try_unlock(&client), async {
        board.screen("unlock").await;
        board.press("3.3");
        board.light("off").await;
    });
    assert_eq!(answer.expect(409)["error_code"], "approval_refused");
    client.get("/session").await.expect(401);
    client.token.clear();
    assert_eq!(client.get("/session").await.expect(200)["session"], false);
    daemon.stop();
    board.screen("silent").await;
}
