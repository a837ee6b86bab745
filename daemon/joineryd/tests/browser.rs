//! What only a real browser can show: that a page from the daemon's own port is loaded over TLS with its
//! certificate, reaches API and websocket of its origin, survives a reload anywhere, and that pages of others reach
//! nothing. The page is `tests/page`; browser wallets do the same with more pictures.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::path::Path;

use bdk_wallet::bitcoin::Amount;
use joinery_testkit::Bench;
use serde_json::{Value, json};
use support::Home;
use support::browser::{Browser, Page, pin};
use support::client::{PASSWORD, parse_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A name that is not the daemon's but leads to it.
const FOREIGN: &str = "evil.example";
const WALLET: &str = "browser.jmdat";

/// The daemon's part of the response to the page's address.
async fn document(page: &Page, url: &str) -> Value {
    let fits = |event: &Value| event["type"] == "Document" && event["response"]["url"] == url;
    page.event("Network.responseReceived", fits).await["response"].clone()
}

fn header<'a>(response: &'a Value, name: &str) -> &'a str {
    let headers = response["headers"].as_object().unwrap();
    let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.unwrap_or_else(|| panic!("{name}: {response}")).1.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_wallet_works_from_the_daemons_own_port() {
    let bench = Bench::start().unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
    let home = Home::with_electrum(&bench.endpoints().electrum)
        .argument(&format!("--static-dir={}", files.display()));
    let daemon = home.start();
    let origin = format!("https://localhost:{}", daemon.rpc_address().port());
    let browser = Browser::start(&pin(&home.data()), FOREIGN).await;
    let page = browser.page().await;

    // The page comes over TLS, with headers that the browser acts on and that break nothing: `nosniff` refuses
    // scripts and styles whose type is not right.
    page.go(&format!("{origin}/")).await.unwrap();
    page.shows("#wallet", "None").await;
    let response = document(&page, &format!("{origin}/")).await;
    assert_eq!((&response["status"], &response["mimeType"]), (&json!(200), &json!("text/html")));
    assert_eq!(response["securityDetails"]["protocol"], json!("TLS 1.3"));
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(header(&response, "x-frame-options"), "DENY");
    assert!(header(&response, "cache-control").contains("no-store"));
    let style = "getComputedStyle(document.documentElement).getPropertyValue('--style').trim()";
    assert_eq!(page.run(style).await, json!("loaded"));

    // A wallet made by the page.
    let made = page.run(&format!("wallet.create('{WALLET}', '{PASSWORD}')")).await;
    assert_eq!(made["status"], json!(201), "{made}");
    assert_eq!(made["body"]["seedphrase"].as_str().unwrap().split(' ').count(), 12);
    page.shows("#wallet", WALLET).await;

    // A reload in the middle of the application finds the page again, and the tab is still logged in.
    page.run("history.pushState(null, '', '/wallet/receive?mixdepth=0')").await;
    page.reload().await;
    page.shows("#path", "/wallet/receive").await;
    page.shows("#wallet", WALLET).await;
    page.shows("#height", &bench.height().unwrap().to_string()).await;

    // The websocket of the same origin tells of a payment, first unconfirmed, then confirmed.
    page.shows("#events", "state 2").await;
    let path = format!("/wallet/{WALLET}/address/new/0");
    let address = page.run(&format!("wallet.api('GET', '{path}')")).await;
    let address = parse_address(address["body"]["address"].as_str().unwrap());
    let txid = bench.fund(&address, Amount::from_sat(1_000_000)).unwrap();
    page.shows("#events", &format!("{txid} 0")).await;
    bench.mine(1, None).unwrap();
    page.shows("#events", &format!("{txid} 1")).await;
    page.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser.png")).await;

    // Nothing of it troubled the browser, and nothing is left in it but the tab's own token.
    for complaint in ["Log.entryAdded", "Runtime.exceptionThrown", "Network.loadingFailed"] {
        let mut events = page.events(complaint).await;
        // What the browser itself gave up because of the reload.
        events.retain(|event| event["canceled"] != json!(true));
        assert_eq!(events, Vec::<Value>::new(), "{complaint}");
    }
    assert_eq!(page.cookies().await, json!([]));

    // A lock ends the token, which the page can tell, and not the websocket.
    page.run(&format!("wallet.api('GET', '/wallet/{WALLET}/lock')")).await;
    let refused = page.run("wallet.api('GET', '/session')").await;
    assert_eq!(refused["status"], json!(401));
    assert!(refused["challenge"].as_str().unwrap().contains("invalid_token"), "{refused}");
    assert_eq!(page.run("wallet.socket.readyState").await, json!(1));

    others_reach_nothing(&browser, &origin).await;

    // By a name that a stranger made lead here there is no page, and with another certificate there is none either.
    let rebound = format!("https://{FOREIGN}:{}/", daemon.rpc_address().port());
    page.go(&rebound).await.unwrap();
    assert_eq!(document(&page, &rebound).await["status"], json!(403));
    page.shows("body", "Host not allowed.").await;
    let stranger = Home::new();
    let unknown = stranger.start();
    let refused = page.go(&unknown.listening.rpc).await;
    assert_eq!(refused, Err("net::ERR_CERT_AUTHORITY_INVALID".to_owned()));
    unknown.stop();
    browser.close().await;
    daemon.stop();
}

/// Answers every request with an empty page, without TLS; its port.
async fn foreign_site() -> (u16, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let site = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\
                            Connection: close\r\n\r\n<!doctype html>";
                let _ = stream.write_all(page.as_bytes()).await;
            });
        }
    });
    (port, site.abort_handle())
}

/// What a page of another origin may do: nothing that has an effect or can be read. One of this machine may.
async fn others_reach_nothing(browser: &Browser, origin: &str) {
    let (port, site) = foreign_site().await;
    let read = format!("fetch('{origin}/api/v1/session').then(answer => answer.json())");
    let with_token = format!(
        "fetch('{origin}/api/v1/session', {{headers: {{'x-jm-authorization': 'Bearer x'}}}})\
         .then(answer => answer.status)"
    );
    let body = json!({"walletname": "evil.jmdat", "password": PASSWORD});
    // No preflight is made for this: the browser sends it, and only hides the answer.
    let create = format!(
        "fetch('{origin}/api/v1/wallet/create', {{method: 'POST', mode: 'no-cors', body: '{body}'}})"
    );
    let socket = format!(
        "new Promise(done => {{ const socket = new WebSocket('{}/jmws');\
         socket.onopen = () => done('open'); socket.onclose = () => done('closed'); }})",
        origin.replacen("https", "wss", 1)
    );

    let evil = browser.page().await;
    evil.go(&format!("http://{FOREIGN}:{port}/")).await.unwrap();
    assert_eq!(evil.run("location.hostname").await, json!(FOREIGN));
    for (attempt, reason) in [
        (&read, "MissingAllowOriginHeader"),
        (&with_token, "PreflightMissingAllowOriginHeader"),
        (&create, "corp-not-same-origin"),
    ] {
        assert!(evil.try_run(attempt).await.unwrap_err().contains("Failed to fetch"));
        let fits = |event: &Value| {
            event["corsErrorStatus"]["corsError"] == reason || event["blockedReason"] == reason
        };
        evil.event("Network.loadingFailed", fits).await;
    }
    assert_eq!(evil.run(&socket).await, json!("closed"));

    // The same from a page of this machine: what was refused above was refused for the origin.
    let good = browser.page().await;
    good.go(&format!("http://localhost:{port}/")).await.unwrap();
    assert_eq!(good.run(&read).await["wallet_name"], json!("None"));
    assert_eq!(good.run(&with_token).await, json!(401));
    assert_eq!(good.run(&socket).await, json!("open"));
    let list = format!("fetch('{origin}/api/v1/wallet/all').then(answer => answer.json())");
    assert_eq!(good.run(&list).await, json!({"wallets": [WALLET]}));
    site.abort();
}
