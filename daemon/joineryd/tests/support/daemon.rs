//! The daemon as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use joinery_testkit::{Supervised, wait_for, wait_until};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::{Client, PATIENCE};

/// What `listening.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Listening {
    pub pid: u32,
    pub rpc: String,
    /// Empty for a page that has none.
    #[serde(default)]
    pub websocket: String,
    pub certificate: Option<PathBuf>,
    pub fingerprint: Option<String>,
}

/// A data directory and the settings of the daemons that run in it, one after the other.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
    arguments: Vec<String>,
    variables: Vec<String>,
}

impl Home {
    /// A new, empty data directory; regtest, free ports.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("joineryd-").tempdir().unwrap();
        let arguments = ["--network=regtest", "--listen=127.0.0.1:0", "--wss-listen=127.0.0.1:0"]
            .map(String::from);
        let home = Self { directory, arguments: arguments.into(), variables: Vec::new() };
        // The least that is allowed: these tests unlock hundreds of times and are not about the key derivation.
        home.write_config("[wallet]\nkdf_memory_mib = 19\n");
        home
    }

    /// A home whose daemons use this Electrum server.
    pub fn with_electrum(url: &str) -> Self {
        Self::new().argument(&format!("--electrum={url}"))
    }

    /// Adds a flag for all daemons of this home.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets a variable for the daemons of this home.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, toml: &str) {
        std::fs::create_dir_all(self.data()).unwrap();
        std::fs::write(self.data().join("joineryd.toml"), toml).unwrap();
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The log of all daemons of this home.
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The log's text.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Runs a subcommand to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = binary();
        command.arg("--data-dir").arg(self.data()).args(&self.arguments).args(arguments);
        command.output().unwrap()
    }

    /// Starts the daemon and waits until it listens.
    pub fn start(&self) -> Daemon {
        // `env` sets the variables and becomes the daemon.
        let mut arguments = self.variables.clone();
        arguments.push(env!("CARGO_BIN_EXE_joineryd").to_owned());
        arguments.push(format!("--data-dir={}", self.data().display()));
        arguments.extend(self.arguments.iter().cloned());
        let env = Path::new("env");
        let mut process = Supervised::start("joineryd", env, &arguments, &self.log()).unwrap();
        let file = self.data().join("listening.json");
        let listening = wait_for(PATIENCE, || {
            process.require_running().unwrap();
            let listening: Listening = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            // One that a killed daemon left names another process.
            (listening.pid == process.id()).then_some(listening)
        });
        let listening = listening.expect("the daemon says within the deadline where it listens");
        Daemon { process, listening }
    }
}

impl Drop for Home {
    /// A failed test shows what its daemons said.
    #[expect(clippy::print_stderr, reason = "the output of a failed test is read by people")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the daemon:\n{}", self.log_text());
        }
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Supervised,
    pub listening: Listening,
}

impl Daemon {
    /// A client that trusts this daemon's certificate and nothing else.
    pub fn client(&self) -> Client {
        Client::new(&self.listening)
    }

    /// `127.0.0.1:PORT` of the API.
    pub fn rpc_address(&self) -> std::net::SocketAddr {
        address(&self.listening.rpc)
    }

    /// `127.0.0.1:PORT` of the websocket.
    pub fn websocket_address(&self) -> std::net::SocketAddr {
        address(&self.listening.websocket)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for its end and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        let ended = wait_until(PATIENCE, || match self.process.ended().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        assert!(ended, "the daemon does not end");
        code
    }

    /// Ends it in an orderly way.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait(), Some(0), "{}", self.process.log_tail());
    }

    /// Panics with the end of the log when the daemon has ended.
    pub fn require_running(&mut self) {
        self.process.require_running().unwrap();
    }
}

/// The program under test, without the variables of whoever runs the tests.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joineryd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("JOINERY_") {
            command.env_remove(name);
        }
    }
    command
}

fn address(url: &str) -> std::net::SocketAddr {
    url.split_once("://").unwrap().1.parse().unwrap()
}
