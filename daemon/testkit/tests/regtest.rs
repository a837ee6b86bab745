//! The binary `regtest`, as another program sees it.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use joinery_testkit::{Endpoints, INITIAL_BLOCKS, PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ADDRESS: &str = "bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp";

fn regtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_regtest"))
}

fn run(arguments: &[&str], directory: &Path) -> Output {
    regtest().args(arguments).arg("--dir").arg(directory).output().unwrap()
}

fn answer(arguments: &[&str], directory: &Path) -> Value {
    let output = run(arguments, directory);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(arguments: &[&str], directory: &Path) -> String {
    let output = run(arguments, directory);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// A running `regtest up`, killed when a test fails.
struct Up {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    endpoints: Endpoints,
}

impl Up {
    fn start(directory: &Path) -> Self {
        let mut child =
            regtest().args(["up", "--dir"]).arg(directory).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let endpoints = serde_json::from_str(&line).unwrap();
        Self { child, stdout, endpoints }
    }

    fn electrum(&self) -> String {
        self.endpoints.electrum.strip_prefix("tcp://").unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn up_mine_fund_and_a_clean_end() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut up = Up::start(directory);
    assert!(up.endpoints.cookie_file.is_file());
    assert!(up.endpoints.bitcoind_rpc.starts_with("http://127.0.0.1:"));

    let directory_node = up.endpoints.directory.clone().unwrap();
    assert!(std::net::TcpStream::connect(&directory_node).is_ok());

    let paid = answer(&["fund", ADDRESS, "0.12345678"], directory);
    assert_eq!(paid["txid"].as_str().unwrap().len(), 64);
    let mined = answer(&["mine", "2"], directory);
    assert_eq!(mined["height"], INITIAL_BLOCKS + 2);
    let mined = answer(&["mine", "1", ADDRESS], directory);
    assert_eq!(mined["height"], INITIAL_BLOCKS + 3);
    assert_eq!(mined["hash"].as_str().unwrap().len(), 64);

    assert!(refusal(&["fund", "nonsense", "1"], directory).contains("is not a Bitcoin address"));
    let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    assert!(refusal(&["fund", mainnet, "1"], directory).contains("is not an address of regtest"));
    assert!(refusal(&["mine", "1", mainnet], directory).contains("is not an address of regtest"));
    for amount in ["0", "x", "0.123456789", "1e3", "22000000.5x", ""] {
        let error = refusal(&["fund", ADDRESS, amount], directory);
        assert!(error.contains("amount"), "{amount}: {error}");
    }
    assert!(refusal(&["fund", ADDRESS, "-1"], directory).contains("-1"));
    assert!(refusal(&["fund", ADDRESS, "0.00000001"], directory).contains("dust"));
    assert!(refusal(&["fund", ADDRESS, "20999999"], directory).contains("mine more blocks"));
    assert!(refusal(&["mine", "0"], directory).contains("'0'"));
    assert!(refusal(&["up"], directory).contains("another `regtest up` is running"));

    up.signal(Signal::TERM);
    let mut rest = String::new();
    up.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "stdout carries exactly one line");
    assert!(up.child.wait().unwrap().success());
    assert!(std::net::TcpStream::connect(up.electrum()).is_err());
    assert!(std::net::TcpStream::connect(&directory_node).is_err());
    assert!(refusal(&["mine", "1"], directory).contains("no `regtest up` is running"));

    // The chain is continued, not begun again.
    let up = Up::start(directory);
    assert_eq!(answer(&["mine", "1"], directory)["height"], INITIAL_BLOCKS + 4);
    up.signal(Signal::INT);
}

#[test]
fn children_die_with_a_killed_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut up = Up::start(directory.path());
    up.signal(Signal::KILL);
    up.child.wait().unwrap();
    let electrum = up.electrum();
    let rpc = up.endpoints.bitcoind_rpc.strip_prefix("http://").unwrap();
    for address in [electrum.as_str(), rpc] {
        assert!(wait_until(PATIENCE, || std::net::TcpStream::connect(address).is_err()));
    }
    let error = refusal(&["fund", ADDRESS, "1"], directory.path());
    assert!(error.contains("no `regtest up` is running"), "{error}");
}

#[test]
fn commands_refuse_a_directory_without_a_bench() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["mine", "1"][..], &["fund", ADDRESS, "1"]] {
        let error = refusal(arguments, directory.path());
        assert!(error.contains("no `regtest up` is running"), "{error}");
    }
}

#[test]
fn tools_prints_where_the_programs_are() {
    let output = regtest().arg("tools").output().unwrap();
    assert!(output.status.success());
    let tools: Value = serde_json::from_slice(&output.stdout).unwrap();
    for program in ["bitcoind", "electrs"] {
        assert!(Path::new(tools[program].as_str().unwrap()).is_file());
    }
}
