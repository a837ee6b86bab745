//! What browsers get: one origin with API, websocket, order book, helpers and files; and what hostile pages
//! do not get. `spec/api.md` 1.3 to 1.5, 12, 13; `spec/defects.md` row 24 and 3.4.

use std::sync::Arc;

use http::Method;
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::Network;
use serde_json::json;

use crate::rig::Rig;

fn with_files() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("web");
    std::fs::create_dir_all(files.join("static")).unwrap();
    std::fs::write(files.join("index.html"), "<title>wallet</title>").unwrap();
    std::fs::write(files.join("static/app.js"), "run()").unwrap();
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    let chain = Arc::new(NoServer::default());
    Rig::in_directory(dir, Network::Regtest, chain, |config| config.static_dir = Some(files))
}

#[tokio::test]
async fn files_are_served_and_unknown_paths_are_the_single_page() {
    let rig = with_files();
    for path in ["/", "/index.html", "/wallet/receive", "/send?x=1", "/apiary", "/%61bc"] {
        let reply = rig.get(path).send().await;
        reply.expect(200);
        assert_eq!(reply.headers["content-type"], "text/html", "{path}");
        assert_eq!(reply.body, b"<title>wallet</title>", "{path}");
    }
    let script = rig.get("/static/app.js").send().await;
    assert_eq!(script.body, b"run()");
    let head = rig.request(Method::HEAD, "/wallet").send().await;
    head.expect(200);
    assert!(head.body.is_empty());
    for path in ["/api/v1/nope", "/api", "/api/", "/obwatch/nope", "/jam/nope", "/jam/api/v0/nope"]
    {
        rig.get(path).send().await.expect_error(404, "Not found.");
    }
    rig.post("/wallet", &json!({})).send().await.expect_error(405, "Method not allowed.");
    rig.request(Method::DELETE, "/index.html").send().await.expect(405);
}

#[tokio::test]
async fn nothing_outside_of_the_directory_is_served() {
    let rig = with_files();
    for path in [
        "/../secret.txt",
        "/static/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/static/..%2f..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "//secret.txt",
        "/./../secret.txt",
        "/static/%00",
        "/%ff",
    ] {
        let reply = rig.get(path).send().await;
        assert!(matches!(reply.status.as_u16(), 200 | 404), "{path} {}", reply.status);
        assert!(!String::from_utf8_lossy(&reply.body).contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn without_files_everything_unknown_is_not_found() {
    let rig = Rig::new();
    for path in
        ["/", "/index.html", "/api/v1/wallet/x.jmdat", "/api/v1/session/", "/api/v2/session"]
    {
        rig.get(path).send().await.expect_error(404, "Not found.");
    }
    for (method, path) in [
        (Method::POST, "/api/v1/session"),
        (Method::GET, "/api/v1/token"),
        (Method::PUT, "/api/v1/wallet/all"),
        (Method::GET, "/api/v1/wallet/w.jmdat/signmessage"),
        (Method::PATCH, "/api/v1/wallet/w.jmdat/lock"),
        (Method::DELETE, "/api/v1/wallet/w.jmdat/taker/schedule"),
    ] {
        let reply = rig.request(method, path).send().await;
        reply.expect_error(405, "Method not allowed.");
        assert!(reply.headers.contains_key("allow"), "{path}");
    }
    rig.request(Method::HEAD, "/api/v1/session").send().await.expect(200);
}

#[tokio::test]
async fn cors_allowlist() {
    let rig = Rig::new();
    let ours = rig.get("/api/v1/session").header("origin", "http://localhost:3000").send().await;
    assert_eq!(ours.headers["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(ours.headers["access-control-expose-headers"], "WWW-Authenticate");
    assert_eq!(ours.headers["vary"], "Origin");
    assert!(!ours.headers.contains_key("access-control-allow-credentials"));
    let preflight = rig
        .request(Method::OPTIONS, "/api/v1/wallet/create")
        .header("origin", "https://localhost:28183")
        .header("access-control-request-method", "POST")
        .send()
        .await;
    preflight.expect(200);
    assert_eq!(preflight.headers["access-control-allow-methods"], "GET, POST, DELETE, OPTIONS");
    assert_eq!(
        preflight.headers["access-control-allow-headers"],
        "authorization, x-jm-authorization, content-type"
    );
    for origin in ["https://evil.example", "null", "https://localhost.evil.example"] {
        let reply = rig.get("/api/v1/session").header("origin", origin).send().await;
        reply.expect(200);
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{origin}");
        let preflight = rig.request(Method::OPTIONS, "/api/v1/session").header("origin", origin);
        let preflight = preflight.send().await;
        preflight.expect(200);
        assert!(preflight.body.is_empty());
        assert!(!preflight.headers.keys().any(|name| name.as_str().starts_with("access-control")));
        // A plain form post of a hostile page would arrive without a preflight.
        let body = json!({"walletname": "evil.jmdat", "password": "x"});
        for path in ["/api/v1/wallet/create", "/api/v1/wallet/w.jmdat/unlock"] {
            let reply = rig.post(path, &body).header("origin", origin).send().await;
            reply.expect_error(403, "Origin not allowed.");
        }
        // Websockets can be read across origins.
        let reply = rig.get("/api/v1/ws").header("origin", origin).header("upgrade", "websocket");
        reply.send().await.expect_error(403, "Origin not allowed.");
    }
    let list = rig.get("/api/v1/wallet/all").send().await.json();
    assert_eq!(list, json!({"wallets": []}));
    rig.request(Method::OPTIONS, "/nope").send().await.expect(200);
}

#[tokio::test]
async fn foreign_host_names_are_not_answered() {
    let chain = Arc::new(NoServer::default());
    let rig = Rig::with(Network::Regtest, chain, |config| {
        config.hosts = vec!["joinery.local".to_owned()];
    });
    for host in ["joinery.local:28183", "192.168.1.2:28183", "localhost"] {
        rig.get("/api/v1/session").header("host", host).send().await.expect(200);
    }
    for host in ["rebound.evil.example", "joinery.local.evil.example:28183"] {
        for path in ["/api/v1/session", "/", "/obwatch/orderbook.json", "/jmws"] {
            let reply = rig.get(path).header("host", host).send().await;
            reply.expect_error(403, "Host not allowed.");
        }
        rig.request(Method::OPTIONS, "/").header("host", host).send().await.expect(403);
    }
    let chain = Arc::new(NoServer::default());
    let open = Rig::with(Network::Regtest, chain, |config| config.check_host = false);
    open.get("/api/v1/session").header("host", "proxy.example").send().await.expect(200);
}

#[tokio::test]
async fn helpers_of_the_packaged_wallet() {
    let chain = Arc::new(NoServer::default());
    let rig = Rig::with(Network::Regtest, chain, |config| {
        config.log_tail = Some(Arc::new(|| vec![b'x'; 3 << 20]));
    });
    for path in ["/features", "/info", "/log/jmwalletd_stdout.log"] {
        rig.get(format!("/jam/api/v0{path}")).send().await.expect(401);
    }
    let login = rig.create().await;
    let get = |path: &'static str| rig.get(path).token(&login.access).send();
    assert_eq!(get("/jam/api/v0/features").await.json(), json!({"features": {"logs": true}}));
    let info = get("/jam/api/v0/info").await.json();
    assert_eq!(info, json!({"backend": {"name": "joinery", "version": "0.1.0-test"}}));
    for path in ["/jam/api/v0/log/jmwalletd_stdout.log", "/api/v1/logs"] {
        let log = get(path).await;
        log.expect(200);
        assert!(log.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        assert_eq!(log.body.len(), 1 << 20);
    }
    let bare = Rig::new();
    let login = bare.create().await;
    let log = bare.get("/jam/api/v0/log/jmwalletd_stdout.log").token(&login.access).send().await;
    log.expect_error(404, "Log not available.");
}

#[tokio::test]
async fn the_yield_generator_report_is_public_unless_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("yigen-statement.csv");
    let rig = |public: bool| {
        let path = path.clone();
        Rig::with(Network::Regtest, Arc::new(NoServer::default()), move |config| {
            config.yieldgen_report = Some(path);
            config.public_yieldgen_report = public;
        })
    };
    let call = "/api/v1/wallet/yieldgen/report";
    let open = rig(true);
    open.get(call).send().await.expect_error(404, "Yield generator report not available.");
    let text = "timestamp,cj amount/satoshi,notes\n2026/01/03 02:54:42,,,,,,,Connected\n";
    std::fs::write(&path, text).unwrap();
    let report = open.get(call).token("a bad token is ignored").send().await.json();
    assert_eq!(report["yigen_data"][1], "2026/01/03 02:54:42,,,,,,,Connected\n");
    assert_eq!(report["yigen_data"].as_array().unwrap().len(), 2);
    let closed = rig(false);
    closed.get(call).send().await.expect(401);
    let login = closed.create().await;
    closed.get(call).token(&login.access).send().await.expect(200);
}

#[tokio::test]
async fn versions_and_health() {
    let (rig, _chain) = Rig::on_chain();
    let info = rig.get("/api/v1/getinfo").token("ignored").send().await.json();
    assert_eq!(info["version"], "0.9.12");
    assert_eq!(info["backend"], "joinery");
    assert_eq!(info["backend_version"], "0.1.0-test");
    assert_eq!(info["network"], "regtest");
    assert_eq!(info["block_height"], 110);
    assert_eq!(info["electrum_connected"], true);
    for path in ["/health", "/api/v1/health"] {
        let health = rig.get(path).send().await;
        health.expect(200);
        assert_eq!(health.json()["ok"], true);
    }
    let document = rig.get("/api/v1/openapi.yaml").send().await;
    document.expect(200);
    assert_eq!(document.body, joinery_api::openapi().as_bytes());
    let session = rig.get("/api/v1/session").send().await.json();
    assert_eq!(session["warnings"], json!(["public_server"]));
}
