//! The process as it is: a daemon of the test on its socket, pictures as files, a button pressed by words.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::sample;
use tempfile::TempDir;

/// Longest wait for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Board {
    child: Child,
    hand: ChildStdin,
    told: Receiver<Value>,
    /// What was told last of screen and light.
    last: [Value; 2],
    home: TempDir,
}

impl Board {
    fn start(home: TempDir, backend: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_joinery-board"))
            .arg("--socket")
            .arg(home.path().join("board.sock"))
            .args(["--backend", "png"])
            .arg(home.path().join("pictures"))
            .args(backend)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (tell, told) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        let hand = child.stdin.take().unwrap();
        Self { child, hand, told, last: [Value::Null, Value::Null], home }
    }

    fn hand(&mut self, what: &str) {
        writeln!(self.hand, "{what}").unwrap();
    }

    /// Waits until the board's screen or light is this, and returns the line that told it.
    #[track_caller]
    fn until(&mut self, field: &str, value: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            if let Some(line) = self.last.iter().find(|line| line[field] == value) {
                return line.clone();
            }
            match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    seen.push(line.to_string());
                    let of_light = usize::from(line.get("led").is_some());
                    self.last[of_light] = line;
                }
                Err(error) => {
                    panic!("no {field} {value} ({error}) but\n{}\n{}", seen.join("\n"), self.log())
                }
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other end of the socket; says the last thing again and again, as a daemon does.
struct Daemon {
    stream: UnixStream,
    lines: Receiver<Value>,
}

impl Daemon {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let (tell, lines) = channel();
        let reader = BufReader::new(stream.try_clone().unwrap()).lines();
        std::thread::spawn(move || {
            for line in reader.map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { stream, lines }
    }

    fn say(&mut self, value: &Value) {
        writeln!(self.stream, "{value}").unwrap();
    }

    #[track_caller]
    fn hear(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("the board says something")
    }

    fn keep_saying(&mut self, name: &str) -> KeepSaying {
        let (stop, stopped) = channel::<()>();
        let (mut stream, value) = (self.stream.try_clone().unwrap(), sample(name));
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(200))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                if writeln!(stream, "{value}").is_err() {
                    return;
                }
            }
        });
        KeepSaying { stop: Some(stop), thread: Some(thread) }
    }
}

struct KeepSaying {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for KeepSaying {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("board.sock");
    (home, socket)
}

#[test]
fn unlock_mix_lock_and_end() {
    let (home, socket) = home();
    let listener = UnixListener::bind(&socket).unwrap();
    let mut board = Board::start(home, &[]);
    let first = board.until("screen", "starting");
    let picture = board.home.path().join("pictures").join(first["file"].as_str().unwrap());
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    let mut daemon = Daemon::accept(&listener);
    let hello = daemon.hear();
    assert_eq!((hello["v"].as_u64(), hello["type"].as_str()), (Some(1), Some("hello")));
    assert_eq!(hello["panel"], "128x64");

    daemon.say(&sample("locked"));
    board.until("screen", "pairing");
    let unlocking = daemon.keep_saying("unlock");
    board.until("screen", "unlock");
    board.until("led", "double-blink");
    // The picture must be there for a while before a press means it: press until one does.
    let pressed = loop {
        board.hand("press 0.1");
        if let Ok(line) = daemon.lines.recv_timeout(Duration::from_secs(2)) {
            break line;
        }
    };
    assert_eq!(
        (pressed["type"].as_str(), pressed["pending"].as_str()),
        (Some("press"), Some("unlock-7f3a"))
    );
    board.until("screen", "outcome");
    drop(unlocking);

    let mixing = daemon.keep_saying("taker");
    board.until("led", "quick-breath");
    board.until("screen", "taker");
    board.hand("press 3.2");
    let held = daemon.hear();
    assert_eq!(held["type"], "hold");
    assert!(held.get("pending").is_none());
    drop(mixing);
    daemon.say(&sample("locked"));
    board.until("led", "off");

    board.signal(rustix::process::Signal::TERM);
    let last = board.until("light", "off");
    assert!(last["file"].as_str().is_some(), "nothing is left that looks alive");
    assert!(board.child.wait().unwrap().success());
}

#[test]
fn the_large_panel_is_told_too() {
    let (home, socket) = home();
    let listener = UnixListener::bind(&socket).unwrap();
    let mut board = Board::start(home, &["--display", "st7789-spi"]);
    let daemon = Daemon::accept(&listener);
    assert_eq!(daemon.hear()["panel"], "240x240");
    board.until("screen", "starting");
}

#[test]
fn a_daemon_that_comes_late_goes_and_comes_again_is_found() {
    let (home, socket) = home();
    let mut board = Board::start(home, &[]);
    board.until("screen", "starting");
    let listener = UnixListener::bind(&socket).unwrap();
    for _ in 0..3 {
        let mut daemon = Daemon::accept(&listener);
        daemon.say(&sample("idle"));
        board.until("screen", "idle");
        drop(daemon.stream.shutdown(std::net::Shutdown::Both));
        board.until("screen", "silent");
        board.until("led", "fast-blink");
    }
}

#[test]
fn nonsense_and_floods_are_survived_in_little_memory() {
    let (home, socket) = home();
    let listener = UnixListener::bind(&socket).unwrap();
    let mut board = Board::start(home, &[]);
    let mut daemon = Daemon::accept(&listener);
    daemon.hear();
    // Half a line, a line without end, bytes that are no text, JSON that is no status.
    daemon.stream.write_all(&vec![b'{'; 4 << 20]).unwrap();
    daemon.stream.write_all(b"\n\xff\xfe\n[]\n{\"v\":1}\n").unwrap();
    board.until("screen", "silent");
    // As many different snapshots as fit through the socket.
    let (mut one, mut other) = (sample("idle"), sample("taker"));
    for height in 0..20_000 {
        one["height"] = height.into();
        other["height"] = height.into();
        daemon.say(if height % 2 == 0 { &one } else { &other });
    }
    daemon.say(&sample("maker"));
    board.until("screen", "maker");
    let pictures = board.home.path().join("pictures").read_dir().unwrap().count();
    assert!(pictures <= 1001, "{pictures} pictures");
    let memory = board.memory();
    assert!(memory < 10 << 20, "{memory} bytes resident");
    assert!(board.log().lines().count() < 20, "{}", board.log());
}

#[test]
fn a_probe_says_whether_there_is_a_display() {
    let (home, socket) = home();
    let probe = |backend: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joinery-board"));
        command.arg("--probe").arg("--socket").arg(&socket).arg("--backend").args(backend);
        command.output().unwrap()
    };
    let pictures = home.path().join("pictures");
    let found = probe(&["png", pictures.to_str().unwrap()]);
    assert!(found.status.success(), "{found:?}");
    assert_eq!(found.stdout, b"128x64\n");
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for absent in
        [probe(&["png", file.to_str().unwrap()]), probe(&["gpiochip", "--gpiochip", "/nowhere"])]
    {
        assert_eq!(absent.status.code(), Some(69), "{absent:?}");
        assert_eq!(String::from_utf8_lossy(&absent.stderr).lines().count(), 1, "{absent:?}");
    }
}

#[test]
fn a_wrong_command_line_is_refused_in_one_sentence() {
    for (arguments, code) in
        [(vec!["--backend", "oled"], 69), (vec!["--display", "oled"], 64), (vec!["--what"], 64)]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_joinery-board"))
            .args(&arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}: {text}");
        assert!(text.starts_with("joinery-board: "), "{text}");
    }
}
