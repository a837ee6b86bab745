//! The listeners: TLS only, websockets on every path, limits that hold, names that are checked, an orderly end.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use serde_json::json;
use support::{Daemon, Home, PATIENCE, Raw, Socket, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A daemon that is impatient and lets few in.
fn strict() -> (Home, Daemon) {
    let home = Home::new();
    home.write_config(
        "[http]\nconnections = 12\nhandshake_timeout_s = 1\nheader_timeout_s = 1\nbody_timeout_s = 1\n",
    );
    let daemon = home.start();
    (home, daemon)
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_a_hint_and_no_api() {
    let home = Home::new();
    let daemon = home.start();
    for address in [daemon.rpc_address(), daemon.websocket_address()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(get("/api/v1/session", "localhost").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("This port speaks HTTPS") && !answer.contains("wallet_name"));
    }
}

#[tokio::test]
async fn no_tls_serves_plain_http_on_loopback_and_makes_no_certificate() {
    let home = Home::new().argument("--no-tls");
    let daemon = home.start();
    assert!(daemon.listening.rpc.starts_with("http://127.0.0.1:"));
    daemon.client().get("/session").await.expect(200);
    assert!(!home.data().join("ssl").exists());
}

#[tokio::test]
async fn websocket_opens_on_every_path_of_its_port_and_on_three_of_the_api() {
    let home = Home::new();
    let daemon = home.start();
    for path in ["", "/", "/jmws", "/any/path?with=query"] {
        Socket::open(&daemon.listening, path)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    for path in ["/jmws", "/ws", "/api/v1/ws"] {
        Socket::open_on_rpc(&daemon.listening, path)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    assert!(Socket::open_on_rpc(&daemon.listening, "/other").await.is_err());
}

#[tokio::test]
async fn websocket_with_a_bad_token_is_closed_with_4001() {
    let home = Home::new();
    let daemon = home.start();
    let mut socket = Socket::open(&daemon.listening, "/").await.unwrap();
    socket.say("eyJhbGciOiJub25lIn0.e30.").await;
    assert_eq!(socket.close_code().await, Some(4001));
}

#[tokio::test]
async fn foreign_host_names_are_refused() {
    let home = Home::new();
    home.write_config("[http]\nnames = [\"box.example\"]\n");
    let daemon = home.start();
    let port = daemon.rpc_address().port();
    for (host, fine) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("[::1]", true),
        ("box.example", true),
        ("Box.Example", true),
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
    ] {
        let mut raw = Raw::connect(&daemon).await;
        raw.write(get("/api/v1/getinfo", &format!("{host}:{port}")).as_bytes()).await.unwrap();
        let answer = raw.read_to_end().await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), fine, "{host}: {answer}");
        assert!(fine || answer.contains("\"message\":"), "{answer}");
    }
}

#[tokio::test]
async fn host_check_can_be_switched_off() {
    let home = Home::new();
    home.write_config("[http]\ncheck_host = false\n");
    let daemon = home.start();
    let mut raw = Raw::connect(&daemon).await;
    raw.write(get("/api/v1/getinfo", "evil.example").as_bytes()).await.unwrap();
    assert!(raw.read_to_end().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn slow_handshakes_heads_and_bodies_are_cut_off() {
    let (_home, daemon) = strict();
    // Nothing at all, and half a TLS hello.
    for first in [&b""[..], &[22, 3, 1]] {
        let mut silent = TcpStream::connect(daemon.rpc_address()).await.unwrap();
        silent.write_all(first).await.unwrap();
        let end = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    // A head of which a line comes now and then.
    let mut head = Raw::connect(&daemon).await;
    head.write(b"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let ended = head.read_to_end().await;
    assert!(!ended.starts_with("HTTP/1.1 200"), "{ended}");
    // A body that is announced and does not come.
    let mut body = Raw::connect(&daemon).await;
    let request =
        "POST /api/v1/wallet/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    body.write(request.as_bytes()).await.unwrap();
    let answer = body.read_to_end().await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    daemon.client().get("/session").await.expect(200);
}

#[tokio::test]
async fn body_that_drips_for_ever_is_cut_off() {
    let (_home, daemon) = strict();
    let mut raw = Raw::connect(&daemon).await;
    let head = "POST /api/v1/wallet/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    raw.write(head.as_bytes()).await.unwrap();
    // Each byte in time, the whole never: the deadline is for the body, not for a pause in it.
    let end = std::time::Instant::now() + PATIENCE;
    while raw.write(b"1\r\n \r\n").await.is_ok() {
        assert!(std::time::Instant::now() < end, "the body is never cut off");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn oversized_heads_and_bodies_are_refused() {
    let home = Home::new();
    let daemon = home.start();
    let mut head = Raw::connect(&daemon).await;
    let cookie = "x".repeat(200_000);
    // The daemon may close before it has read all of it.
    let request = format!("GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\nX: {cookie}\r\n\r\n");
    let _ = head.write(request.as_bytes()).await;
    let answer = head.read_to_end().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let mut body = Raw::connect(&daemon).await;
    let head = "POST /api/v1/wallet/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
    body.write(head.as_bytes()).await.unwrap();
    let chunk = vec![b' '; 128 * 1024];
    let _ = body.write(&chunk).await;
    let answer = body.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut endless = Raw::connect(&daemon).await;
    let head = "POST /api/v1/wallet/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    endless.write(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let _ = endless.write(chunk.as_bytes()).await;
    let _ = endless.write(chunk.as_bytes()).await;
    let answer = endless.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn old_and_pipelining_clients_are_served() {
    let home = Home::new();
    let daemon = home.start();
    let mut old = Raw::connect(&daemon).await;
    old.write(b"GET /api/v1/getinfo HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(old.read_to_end().await.starts_with("HTTP/1.0 200 "));

    let mut pipelined = Raw::connect(&daemon).await;
    let first = "GET /api/v1/getinfo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    pipelined
        .write(format!("{first}{}", get("/api/v1/session", "localhost")).as_bytes())
        .await
        .unwrap();
    let answers = pipelined.read_to_end().await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    let (version, wallet) = (answers.find("\"version\""), answers.find("\"wallet_name\""));
    assert!(
        version.is_some() && version < wallet,
        "answers come in the order of requests: {answers}"
    );
}

#[tokio::test]
async fn too_many_connections_are_turned_away_and_those_inside_are_served() {
    let home = Home::new();
    home.write_config("[http]\nconnections = 12\n");
    let daemon = home.start();
    let mut inside = Vec::new();
    // Permits of connections that just ended may still be out: fill up until one is refused.
    while let Ok(raw) = Raw::try_connect(&daemon).await {
        inside.push(raw);
        assert!(inside.len() <= 12);
    }
    assert_eq!(inside.len(), 12);
    for raw in &mut inside {
        raw.write(b"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        raw.read_until("wallet_name").await;
    }
    inside.pop();
    until("there is room again", || async { Raw::try_connect(&daemon).await.ok() }).await;
}

#[tokio::test]
async fn sigterm_ends_the_daemon_although_clients_hold_on() {
    let home = Home::new();
    let mut daemon = home.start();
    let mut client = daemon.client();
    client.create("w.jmdat").await;
    let mut socket = Socket::open(&daemon.listening, "/").await.unwrap();
    socket.say(&client.token).await;
    let mut idle = Raw::connect(&daemon).await;
    idle.write(b"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    idle.read_until("wallet_name").await;
    let mut half = Raw::connect(&daemon).await;
    half.write(b"GET /api/v1/se").await.unwrap();

    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0), "{}", home.log_text());
    assert!(!home.data().join("listening.json").exists());
    let log = home.log_text();
    assert!(log.contains("stopping") && log.contains("stopped"), "{log}");

    let again = home.start();
    let mut client = again.client();
    client.unlock("w.jmdat").await;
    assert_eq!(client.get("/session").await.expect(200)["wallet_name"], json!("w.jmdat"));
}

#[tokio::test]
async fn answers_to_everybody_at_once() {
    let home = Home::new();
    let daemon = home.start();
    let client = daemon.client();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.get("/session").await.expect(200) });
    }
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap()["wallet_name"], json!("None"));
    }
}
