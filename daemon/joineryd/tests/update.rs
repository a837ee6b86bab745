//! Uploading an update, with the real daemon over HTTPS: what is taken, what is not, and that nothing is left of what is
//! not. The root side has tests of its own (`image/update-test.sh`); here its report is a file.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::path::PathBuf;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use support::{Client, Daemon, Home, Raw, until};

const PATH: &str = "/api/v1/update";

/// A box: a daemon with an open wallet, and a root side.
struct Rig {
    home: Home,
    daemon: Daemon,
    client: Client,
    reports: tempfile::TempDir,
}

impl Rig {
    async fn new(config: &str) -> Self {
        let reports = tempfile::tempdir().unwrap();
        // It gets an error for a write beyond the limit instead of a signal.
        let home = Home::new()
            .variable("--ignore-signal", "XFSZ")
            .argument(&format!("--update-dir={}", reports.path().display()));
        home.write_config(&format!("[wallet]\nkdf_memory_mib = 19\n{config}"));
        let daemon = home.start();
        let mut client = daemon.client();
        client.create("w.jmdat").await;
        let rig = Self { home, daemon, client, reports };
        rig.report(&json!({"version": "0.1.0", "slot": "A"}));
        rig
    }

    /// What the root side says from now on.
    fn report(&self, report: &Value) {
        let path = self.reports.path().join("new");
        std::fs::write(&path, report.to_string()).unwrap();
        std::fs::rename(path, self.reports.path().join("status.json")).unwrap();
    }

    fn inbox(&self) -> PathBuf {
        self.home.data().join("update")
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = self.inbox().read_dir() else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    async fn nothing_left(&self) {
        until("nothing is left of the upload", || async { self.files().is_empty().then_some(()) })
            .await;
    }

    async fn state(&self) -> Value {
        self.client.get("/update").await.expect(200)["state"].clone()
    }

    /// Head of an upload, with these lines in it.
    fn head(&self, lines: &str) -> String {
        let token = &self.client.token;
        format!(
            "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{lines}\r\n"
        )
    }

    /// Sends the head and then the parts; the answer.
    async fn send(&self, head: &str, parts: &[&[u8]]) -> (u16, Value) {
        let mut raw = Raw::connect(&self.daemon).await;
        raw.write(head.as_bytes()).await.unwrap();
        for part in parts {
            // The daemon may have answered and closed already.
            if raw.write(part).await.is_err() {
                break;
            }
        }
        answer(&raw.read_to_end().await)
    }

    async fn upload(&self, bytes: &[u8]) -> (u16, Value) {
        self.send(&self.head(&format!("Content-Length: {}\r\n", bytes.len())), &[bytes]).await
    }
}

/// Status and body, held against the published document.
fn answer(text: &str) -> (u16, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    assert!(head.to_lowercase().contains("content-type: application/json\r\n"), "{head}");
    let code = StatusCode::from_u16(status).unwrap();
    support::contract::check(&Method::POST, PATH, code, &headers, body.as_bytes());
    (status, serde_json::from_str(body).unwrap())
}

#[track_caller]
fn refused((status, body): (u16, Value), expected: u16, code: &str) {
    assert_eq!((status, &body["error_code"]), (expected, &json!(code)), "{body}");
}

#[tokio::test]
async fn a_machine_without_a_root_side_says_that_it_is_not_updated_here() {
    let rig = Rig::new("").await;
    std::fs::remove_file(rig.reports.path().join("status.json")).unwrap();
    for answer in
        [rig.client.get("/update").await, rig.client.post("/update/restart", json!({})).await]
    {
        assert_eq!(answer.expect(409)["error_code"], "update_not_supported");
    }
    refused(rig.upload(b"bundle").await, 409, "update_not_supported");
    assert!(rig.files().is_empty());
    rig.daemon.stop();
}

#[tokio::test]
async fn a_bundle_is_stored_as_it_is_and_waits_for_the_root_side() {
    let rig = Rig::new("").await;
    assert_eq!(rig.state().await, "idle");
    let bundle: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let (status, body) = rig.upload(&bundle).await;
    assert_eq!((status, &body["state"]), (202, &json!("waiting")), "{body}");
    assert_eq!(rig.files(), ["bundle.raucb", "install"]);
    assert!(std::fs::read(rig.inbox().join("bundle.raucb")).unwrap() == bundle, "other bytes");
    assert_eq!(rig.inbox().join("install").metadata().unwrap().len(), 0, "a request says nothing");
    // The root side has not looked yet, then it works.
    refused(rig.upload(&bundle).await, 409, "update_in_progress");
    std::fs::remove_file(rig.inbox().join("install")).unwrap();
    rig.report(
        &json!({"version": "0.1.0", "slot": "A", "state": "installing", "next_version": "0.2.0"}),
    );
    assert_eq!(rig.state().await, "installing");
    refused(rig.upload(&bundle).await, 409, "update_in_progress");
    assert_eq!(
        rig.client.post("/update/restart", json!({})).await.expect(409)["error_code"],
        "update_not_installed"
    );
    // Installed: a restart can be asked for.
    rig.report(&json!({"version": "0.1.0", "slot": "A", "state": "restart_needed", "next_version": "0.2.0"}));
    let shown = rig.client.post("/update/restart", json!({})).await.expect(202);
    assert_eq!(
        (&shown["state"], &shown["next_version"]),
        (&json!("restart_needed"), &json!("0.2.0"))
    );
    assert!(rig.files().contains(&"restart".to_owned()));
    // What the root side says of the last one is passed on.
    let last =
        json!({"ok": false, "code": "fell_back", "reason": "why", "version": "0.2.0", "at": 7});
    rig.report(&json!({"version": "0.1.0", "slot": "A", "last": last}));
    assert_eq!(rig.client.get("/update").await.expect(200)["last"], last);
    rig.daemon.stop();
}

#[tokio::test]
async fn nothing_is_taken_from_strangers_nor_without_an_honest_length() {
    let rig = Rig::new("").await;
    let stranger = rig.head("Content-Length: 6\r\n").replace("Bearer ey", "Bearer ay");
    let (status, body) = rig.send(&stranger, &[b"bundle"]).await;
    assert_eq!((status, &body["error_code"]), (401, &json!("invalid_token")));
    let nobody = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\n"
    );
    assert_eq!(rig.send(&nobody, &[b"bundle"]).await.0, 401);
    let chunked = rig.head("Transfer-Encoding: chunked\r\n");
    refused(rig.send(&chunked, &[b"6\r\nbundle\r\n0\r\n\r\n"]).await, 400, "length_required");
    refused(rig.send(&rig.head("Content-Length: 0\r\n"), &[]).await, 400, "length_required");
    let huge = rig.head("Content-Length: 536870913\r\n");
    refused(rig.send(&huge, &[b"the beginning of it"]).await, 413, "body_too_large");
    assert!(rig.files().is_empty());
    // The limit of every other call is what it was.
    let path = "POST /api/v1/wallet/create HTTP/1.1";
    let other =
        rig.head("Content-Length: 70000\r\n").replace(&format!("POST {PATH} HTTP/1.1"), path);
    let mut raw = Raw::connect(&rig.daemon).await;
    raw.write(other.as_bytes()).await.unwrap();
    let _ = raw.write(&[b' '; 70_000]).await;
    let text = raw.read_to_end().await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    rig.daemon.stop();
}

#[tokio::test]
async fn one_at_a_time_however_slow_and_nothing_is_left_of_one_that_is_cut_off() {
    // Every other body has a second.
    let rig = Rig::new("[http]\nbody_timeout_s = 1\n").await;
    let mut slow = Raw::connect(&rig.daemon).await;
    slow.write(rig.head("Content-Length: 20\r\n").as_bytes()).await.unwrap();
    slow.write(b"0123456789").await.unwrap();
    let arriving = || async { (rig.files() == ["bundle.part"]).then_some(()) };
    until("the first half arrives", arriving).await;
    assert_eq!(rig.state().await, "uploading");
    refused(rig.upload(b"another").await, 409, "update_in_progress");
    // A second client that is refused does not disturb the first.
    assert_eq!(rig.files(), ["bundle.part"]);
    drop(slow);
    rig.nothing_left().await;
    until("its turn is over", || async { (rig.state().await == "idle").then_some(()) }).await;

    let mut slow = Raw::connect(&rig.daemon).await;
    slow.write(rig.head("Content-Length: 20\r\n").as_bytes()).await.unwrap();
    slow.write(b"0123456789").await.unwrap();
    until("the first half arrives", arriving).await;
    // Longer than any other call may take for its body: one that dawdles just as long is turned away meanwhile.
    let mut other = Raw::connect(&rig.daemon).await;
    let head = rig.head("Content-Length: 20\r\n").replace(PATH, "/api/v1/wallet/create");
    other.write(head.as_bytes()).await.unwrap();
    other.write(b"{").await.unwrap();
    let text = other.read_to_end().await;
    assert!(!text.starts_with("HTTP/1.1 2"), "{text}");
    slow.write(b"0123456789").await.unwrap();
    let (status, _) = answer(&slow.read_to_end().await);
    assert_eq!(status, 202);
    assert_eq!(std::fs::read(rig.inbox().join("bundle.raucb")).unwrap(), b"01234567890123456789");
    rig.daemon.stop();
}

#[tokio::test]
async fn a_full_disk_is_said_and_takes_nothing_from_wallets() {
    let rig = Rig::new("").await;
    let pid = Pid::from_raw(i32::try_from(rig.daemon.id()).unwrap());
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(1_000_000));
    refused(rig.upload(&[1; 3_000_000]).await, 500, "storage_full");
    rig.nothing_left().await;
    rig.client.address(0).await;
    limit(None);
    assert_eq!(rig.upload(&[1; 3_000_000]).await.0, 202);
    rig.daemon.stop();
}

#[tokio::test]
async fn what_a_power_cut_left_of_an_upload_goes_at_the_next_start() {
    let rig = Rig::new("").await;
    let mut cut = Raw::connect(&rig.daemon).await;
    cut.write(rig.head("Content-Length: 20\r\n").as_bytes()).await.unwrap();
    cut.write(b"0123456789").await.unwrap();
    until("it arrives", || async { (rig.files() == ["bundle.part"]).then_some(()) }).await;
    let Rig { home, daemon, reports, .. } = rig;
    daemon.kill();
    assert!(home.data().join("update/bundle.part").exists());
    let daemon = home.start();
    assert_eq!(home.data().join("update").read_dir().unwrap().count(), 0);
    daemon.stop();
    drop(reports);
}

#[tokio::test]
async fn health_is_asked_as_a_client_would_and_fails_without_a_daemon() {
    let home = Home::new();
    let daemon = home.start();
    let output = home.command(&["health"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        text,
        format!(
            "joineryd {} answers at {}/health\n",
            env!("CARGO_PKG_VERSION"),
            daemon.listening.rpc
        )
    );
    // Another certificate than the daemon's own is nobody to believe.
    let certificate = home.data().join("ssl/cert.pem");
    let own = std::fs::read(&certificate).unwrap();
    std::fs::copy("tests/fixtures/rsa_cert.pem", &certificate).unwrap();
    let output = home.command(&["health"]);
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::write(&certificate, own).unwrap();
    assert!(home.command(&["health"]).status.success());
    daemon.stop();
    assert_eq!(home.command(&["health"]).status.code(), Some(69));
}
