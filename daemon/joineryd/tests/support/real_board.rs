//! The real board's process: pictures as files, a button that is pressed by words.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::board::socket;
use super::{Home, until};

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
#[derive(Debug)]
pub struct RealBoard {
    child: Child,
    hand: ChildStdin,
    /// What it told last of the screen and of the light, and every screen so far.
    last: Arc<Mutex<(String, String, Vec<String>)>>,
    pictures: PathBuf,
}

impl RealBoard {
    /// Starts it with the small panel on the daemon's socket.
    pub fn start(home: &Home) -> Self {
        Self::with(home, &socket(home), &[])
    }

    /// Starts it with the large panel, which shows a payment on one page, on another socket.
    pub fn with_large_panel(home: &Home, socket: &Path) -> Self {
        Self::with(home, socket, &["--display", "st7789-spi"])
    }

    fn with(home: &Home, socket: &Path, more: &[&str]) -> Self {
        let pictures = home.log().with_file_name("pictures");
        let mut child = Command::new(board_program())
            .arg("--socket")
            .arg(socket)
            .args(["--backend", "png"])
            .arg(&pictures)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let last = Arc::<Mutex<(String, String, Vec<String>)>>::default();
        let (told, lines) = (Arc::clone(&last), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap();
                let mut last = told.lock().unwrap();
                if let Some(screen) = line["screen"].as_str() {
                    screen.clone_into(&mut last.0);
                    last.2.push(screen.to_owned());
                }
                if let Some(led) = line["led"].as_str() {
                    led.clone_into(&mut last.1);
                }
            }
        });
        let hand = child.stdin.take().unwrap();
        Self { child, hand, last, pictures }
    }

    /// The pictures of a screen that were shown, as files.
    pub fn pictures(&self, screen: &str) -> Vec<Vec<u8>> {
        let end = format!("-{screen}.png");
        let entries = std::fs::read_dir(&self.pictures).unwrap().map(|entry| entry.unwrap().path());
        let these = entries.filter(|path| path.to_string_lossy().ends_with(&end));
        these.map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Waits until this screen is to be seen.
    pub async fn screen(&self, name: &str) {
        let shown = || async { (self.last.lock().unwrap().0 == name).then_some(()) };
        until(&format!("screen {name}"), shown).await;
    }

    /// Waits until the light blinks like this.
    pub async fn light(&self, name: &str) {
        let shown = || async { (self.last.lock().unwrap().1 == name).then_some(()) };
        until(&format!("light {name}"), shown).await;
    }

    /// Presses the button for so many seconds.
    pub fn press(&mut self, seconds: &str) {
        writeln!(self.hand, "press {seconds}").unwrap();
    }

    /// Waits until a picture of this screen was made, also one that is not to be seen any more.
    pub async fn was_shown(&self, screen: &str) {
        let shown = || async { (!self.pictures(screen).is_empty()).then_some(()) };
        until(&format!("screen {screen} was shown"), shown).await;
    }

    /// Holds the button for so many seconds, as often as it takes: a press means a request only when it was on the panel
    /// for a while.
    pub async fn hold_until_gone(&mut self, screen: &str, seconds: &str) {
        while self.is_shown(screen) {
            self.press(seconds);
            self.gone_within(screen, Duration::from_secs(4)).await;
        }
    }

    /// Presses as often as it takes.
    pub async fn press_until_gone(&mut self, screen: &str) {
        while self.is_shown(screen) {
            self.press("0.1");
            self.gone_within(screen, Duration::from_secs(1)).await;
        }
    }

    /// Presses twice in a row, as often as it takes.
    pub async fn press_twice_until_gone(&mut self, screen: &str) {
        while self.is_shown(screen) {
            self.press("0.1");
            // The finger is up for as long as that of a person.
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.press("0.1");
            self.gone_within(screen, Duration::from_secs(2)).await;
        }
    }

    fn is_shown(&self, screen: &str) -> bool {
        self.last.lock().unwrap().0 == screen
    }

    /// Waits until another screen is shown, or for so long.
    async fn gone_within(&self, screen: &str, patience: Duration) {
        let gone = async {
            while self.is_shown(screen) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, gone).await;
    }
}

impl Drop for RealBoard {
    #[expect(clippy::print_stderr, reason = "the output of a failed test is read by people")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the board's last screen and light: {:?}", self.last);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
