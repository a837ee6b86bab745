//! The page that asks for the password of the box's encrypted volume, over HTTPS and with a root side of the test's own.
//! The real one, with cryptsetup, is booted by `make image-test`.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use reqwest::{Certificate, Client, Response, StatusCode};
use support::client::use_ring;
use support::daemon::Listening;
use support::{Daemon, Home};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

const FORM: &str = "application/x-www-form-urlencoded";
const PASSWORD: &str = "päss word 5b1c+&%";
/// The same as a browser writes it.
const TYPED: &str = "p%C3%A4ss+word+5b1c%2B%26%25";

/// What the root side heard, and what it says.
#[derive(Default)]
struct Side {
    heard: Mutex<Vec<String>>,
    /// Answers to `make` other than the usual one.
    make: Mutex<Option<&'static str>>,
    /// Answer to `open` other than the usual one.
    open: Mutex<Option<&'static str>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Side {
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

struct Rig {
    side: Arc<Side>,
    home: Home,
    directory: tempfile::TempDir,
}

impl Rig {
    /// A root side that says whether there is a volume, and knows its password.
    fn new(state: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        std::fs::write(directory.path().join("volume"), format!("{state}\n")).unwrap();
        let home = Home::new()
            .argument("key-page")
            .argument(&format!("--root-side={}", socket.display()))
            .argument(&format!("--volume={}", directory.path().join("volume").display()));
        let side = Arc::new(Side::default());
        tokio::spawn(serve(socket, Arc::clone(&side)));
        Self { side, home, directory }
    }

    fn start(&self) -> Page {
        let daemon = self.home.start();
        Page { client: client(&daemon.listening), daemon }
    }
}

async fn serve(socket: PathBuf, side: Arc<Side>) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let side = Arc::clone(&side);
        tokio::spawn(async move {
            side.most.fetch_max(side.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let (verb, password) = text.split_once('\n').unwrap();
            let answer = match verb {
                "make" => side.make.lock().unwrap().unwrap_or("made\n"),
                "open" if password == PASSWORD => side.open.lock().unwrap().unwrap_or("opened\n"),
                "open" => "wrong\n",
                _ => panic!("asked for {verb}"),
            };
            side.heard.lock().unwrap().push(text);
            tokio::time::sleep(Duration::from_millis(100)).await;
            side.now.fetch_sub(1, Ordering::SeqCst);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

/// Trusts the page's certificate alone.
fn client(listening: &Listening) -> Client {
    use_ring();
    let pem = std::fs::read(listening.certificate.as_ref().unwrap()).unwrap();
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.tls_certs_only([Certificate::from_pem(&pem).unwrap()]).build().unwrap()
}

struct Page {
    client: Client,
    daemon: Daemon,
}

impl Page {
    fn url(&self) -> &str {
        &self.daemon.listening.rpc
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        text(self.client.get(format!("{}{path}", self.url())).send().await.unwrap()).await
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> (StatusCode, String) {
        self.send(HeaderMap::new(), body).await
    }

    /// As a browser does that shows the page, but for these header fields.
    async fn send(
        &self,
        headers: HeaderMap,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, String) {
        let request = self.client.post(self.url()).header(ORIGIN, self.url());
        let request = request.header(CONTENT_TYPE, FORM).headers(headers).body(body);
        text(request.send().await.unwrap()).await
    }
}

async fn text(response: Response) -> (StatusCode, String) {
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status(), response.text().await.unwrap())
}

fn says_nothing_secret(path: &Path) {
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.contains("asking for the password"), "{log}");
    for secret in [PASSWORD, TYPED, "5b1c", "wrong one"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_typed_twice_and_makes_a_volume() {
    let rig = Rig::new("new");
    let page = rig.start();
    let (status, shown) = page.get("/").await;
    assert_eq!(status, 200);
    assert!(shown.contains("New password") && shown.contains("name=again"), "{shown}");

    let long = format!("password={0}&again={0}", "a".repeat(513));
    let longer = format!("password={}", "a".repeat(5000));
    for (body, status, says) in [
        (b"".to_vec(), 400, "Nothing was typed"),
        (b"password=&again=".to_vec(), 400, "Nothing was typed"),
        (b"password=short&again=short".to_vec(), 400, "Too short"),
        (format!("password={TYPED}").into_bytes(), 400, "not the same"),
        (format!("password={TYPED}&again=another+one+here").into_bytes(), 400, "not the same"),
        (b"password=%ff%fe%fd&again=%ff%fe%fd".to_vec(), 400, "UTF-8"),
        (b"password=\xff\xfe&again=\xff\xfe".to_vec(), 400, "UTF-8"),
        (b"password=%f".to_vec(), 400, "not the form"),
        (long.into_bytes(), 400, "Too long"),
        (longer.into_bytes(), 413, "Too long"),
    ] {
        let (answered, shown) = page.post(body.clone()).await;
        assert_eq!(answered, status, "{}", String::from_utf8_lossy(&body));
        assert!(shown.contains(says) && shown.contains("New password"), "{shown}");
    }
    let kind = HeaderMap::from_iter([(CONTENT_TYPE, "text/plain".parse().unwrap())]);
    let (status, _) = page.send(kind, format!("password={TYPED}&again={TYPED}")).await;
    assert_eq!(status, 400, "a form of another kind");
    assert_eq!(rig.side.heard(), Vec::<String>::new(), "nothing of this reached the root side");

    *rig.side.make.lock().unwrap() = Some("space\n");
    let good = format!("password={TYPED}&again={TYPED}");
    let (status, shown) = page.post(good.clone()).await;
    assert_eq!(status, 507, "{shown}");
    assert_eq!(rig.side.heard(), [format!("make\n{PASSWORD}")]);
    *rig.side.make.lock().unwrap() = None;

    let (status, shown) = page.post(good.clone()).await;
    assert_eq!(status, 200, "{shown}");
    assert!(shown.contains("the box starts"), "{shown}");
    assert_eq!(rig.side.heard(), [format!("make\n{PASSWORD}"), format!("open\n{PASSWORD}")]);
    // Whoever pressed twice.
    assert_eq!(page.post(good).await.0, 303);
    assert!(page.get("/").await.1.contains("the box starts"));
    assert_eq!(rig.side.heard(), Vec::<String>::new());
    page.daemon.stop();
    says_nothing_secret(&rig.home.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_are_tried_one_at_a_time_and_the_right_one_opens() {
    let rig = Rig::new("locked");
    let page = rig.start();
    let (_, shown) = page.get("/").await;
    assert!(shown.contains("current-password") && !shown.contains("name=again"), "{shown}");
    let begin = Instant::now();
    let tries = (0..3).map(|_| page.post("password=wrong+one"));
    for (status, shown) in futures_util::future::join_all(tries).await {
        assert_eq!(status, 403);
        assert!(shown.contains("The password is wrong"), "{shown}");
    }
    assert!(begin.elapsed() >= Duration::from_secs(6), "each costs time");
    assert_eq!(rig.side.most.load(Ordering::SeqCst), 1, "one at a time");
    assert_eq!(rig.side.heard(), vec!["open\nwrong one"; 3]);
    // Short ones are no matter: it is the root side that knows.
    assert_eq!(page.post("password=x").await.0, 403);
    rig.side.heard();
    let (status, shown) = page.post(format!("password={TYPED}")).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(rig.side.heard(), [format!("open\n{PASSWORD}")]);
    page.daemon.stop();
    says_nothing_secret(&rig.home.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_foreign_names_nor_foreign_pages_reach_it() {
    let rig = Rig::new("new");
    let page = rig.start();
    let good = format!("password={TYPED}&again={TYPED}");
    let port = page.daemon.rpc_address().port();
    for name in ["evil.example", "joinery.local.evil.example", "127.0.0.1.evil.example"] {
        let host = format!("{name}:{port}");
        let origin = format!("https://{host}");
        let headers = HeaderMap::from_iter([
            (HOST, host.parse().unwrap()),
            (ORIGIN, origin.parse().unwrap()),
        ]);
        let shown = page.client.get(page.url()).header(HOST, &host).send().await.unwrap();
        assert_eq!(shown.status(), 403, "{name}");
        assert_eq!(page.send(headers, good.clone()).await.0, 403, "{name}");
    }
    for origin in ["https://evil.example", "null", "https://127.0.0.2", "rubbish"] {
        let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
        assert_eq!(page.send(headers, good.clone()).await.0, 403, "{origin}");
    }
    assert_eq!(rig.side.heard(), Vec::<String>::new());
    // And under a name of the machine it is there.
    let shown = page.client.get(page.url()).header(HOST, format!("localhost:{port}"));
    assert_eq!(shown.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_side_that_cannot_is_no_opened_volume() {
    let rig = Rig::new("locked");
    let page = rig.start();
    for answer in ["failed\n", "", "opened by somebody\n", "\u{7f}"] {
        *rig.side.open.lock().unwrap() = Some(answer);
        let (status, shown) = page.post(format!("password={TYPED}")).await;
        assert_eq!(status, 500, "{answer:?}: {shown}");
        assert!(shown.contains("name=password"), "{shown}");
    }
    std::fs::remove_file(rig.directory.path().join("socket")).unwrap();
    assert_eq!(page.post(format!("password={TYPED}")).await.0, 500);
    // Without the root side's word there is no new password.
    std::fs::remove_file(rig.directory.path().join("volume")).unwrap();
    assert!(!page.get("/").await.1.contains("New password"));
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_hear_why_and_the_certificate_stays() {
    let rig = Rig::new("locked");
    let page = rig.start();
    let (status, said) = page.get("/api/v1/session").await;
    assert_eq!(status, 503);
    assert!(said.contains("waits for the password"), "{said}");
    let (status, said) = page.get("/health").await;
    assert_eq!(status, 200);
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    // As `joineryd update confirm` asks it.
    let data = format!("--data-dir={}", rig.home.data().display());
    let mut health = std::process::Command::new(env!("CARGO_BIN_EXE_joineryd"));
    let asked = health.args([&data, "health"]).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let fingerprint = page.daemon.listening.fingerprint.clone();
    page.daemon.stop();
    let again = rig.start();
    assert_eq!(again.daemon.listening.fingerprint, fingerprint);
    assert!(fingerprint.is_some());
}
