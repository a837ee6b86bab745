//! An API for one test, and requests to it.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bdk_wallet::bitcoin::constants::genesis_block;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use joinery_api::contract::Contract;
use joinery_api::{ApiConfig, AppState, ManualClock, Sections, Settings, router};
use joinery_wallet::chain::{ChainSource, NoServer};
use joinery_wallet::directory::WalletDirectory;
use joinery_wallet::file::KdfParams;
use joinery_wallet::types::Network;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fake_chain::FakeChain;

/// The words of all test vectors.
pub(crate) const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                                abandon abandon about";
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const WALLET: &str = "test.jmdat";

/// Time at which manual clocks start: November 2026.
pub(crate) const NOW: u64 = 1_795_000_000;

/// How long a condition may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::new);

/// The document that everything is checked against.
pub(crate) fn contract() -> &'static Contract {
    &CONTRACT
}

/// One API with its own directory.
pub(crate) struct Rig {
    pub(crate) app: Arc<AppState>,
    pub(crate) clock: ManualClock,
    pub(crate) dir: tempfile::TempDir,
    router: Router,
}

impl Rig {
    /// Regtest without a server.
    pub(crate) fn new() -> Self {
        Self::with(Network::Regtest, Arc::new(NoServer::default()), |_| {})
    }

    /// Regtest with a made-up chain of 110 blocks.
    pub(crate) fn on_chain() -> (Self, Arc<FakeChain>) {
        let genesis = genesis_block(Network::Regtest.bitcoin()).block_hash();
        let chain = FakeChain::new(genesis, 1..=110);
        (Self::with(Network::Regtest, chain.clone(), |_| {}), chain)
    }

    pub(crate) fn with(
        network: Network,
        chain: Arc<dyn ChainSource>,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_directory(dir, network, chain, change)
    }

    pub(crate) fn in_directory(
        dir: tempfile::TempDir,
        network: Network,
        chain: Arc<dyn ChainSource>,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Self {
        let wallets = dir.path().join("wallets");
        let directory = WalletDirectory::new(wallets, network, KdfParams::lightest()).unwrap();
        Self::in_wallets(dir, directory, chain, change)
    }

    /// The directory is somewhere below `dir`.
    pub(crate) fn in_wallets(
        dir: tempfile::TempDir,
        directory: WalletDirectory,
        chain: Arc<dyn ChainSource>,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Self {
        let clock = ManualClock::new(NOW);
        let mut config = ApiConfig { clock: clock.clock(), ..ApiConfig::new("0.1.0-test") };
        change(&mut config);
        let settings = Settings::volatile(directory.network(), Sections::new());
        let app = AppState::new(config, directory, chain, settings);
        let router = router(&app);
        Self { app, clock, dir, router }
    }

    pub(crate) fn request(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call {
            rig: self,
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            peer: None,
        }
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: impl Into<String>, body: &Value) -> Call<'_> {
        self.request(Method::POST, path).raw(body.to_string())
    }

    /// Creates the test wallet; the login.
    pub(crate) async fn create(&self) -> Login {
        let body = json!({"walletname": WALLET, "password": PASSWORD, "wallettype": "sw-fb"});
        let made = self.post("/api/v1/wallet/create", &body).send().await;
        made.expect(201);
        Login::of(&made.json())
    }

    /// Makes the test wallet from the well-known words; the login.
    pub(crate) async fn recover(&self) -> Login {
        let body = json!({"walletname": WALLET, "password": PASSWORD, "wallettype": "sw-fb",
            "seedphrase": WORDS});
        let made = self.post("/api/v1/wallet/recover", &body).send().await;
        made.expect(201);
        Login::of(&made.json())
    }

    /// Unlocks a wallet; the answer.
    pub(crate) async fn unlock(&self, name: &str, password: &str) -> Reply {
        let path = format!("/api/v1/wallet/{name}/unlock");
        self.post(path, &json!({"password": password})).send().await
    }

    /// A call about the test wallet with a token.
    pub(crate) async fn wallet_get(&self, login: &Login, path: &str) -> Reply {
        self.get(format!("/api/v1/wallet/{WALLET}{path}")).token(&login.access).send().await
    }

    pub(crate) async fn wallet_post(&self, login: &Login, path: &str, body: &Value) -> Reply {
        let path = format!("/api/v1/wallet/{WALLET}{path}");
        self.post(path, body).token(&login.access).send().await
    }

    /// `/session` of a client with a token.
    pub(crate) async fn session(&self, login: &Login) -> Value {
        let reply = self.get("/api/v1/session").token(&login.access).send().await;
        reply.expect(200);
        reply.json()
    }
}

/// Both tokens of a client.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Login {
    pub(crate) fn of(body: &Value) -> Self {
        Self {
            access: body["token"].as_str().unwrap().to_owned(),
            refresh: body["refresh_token"].as_str().unwrap().to_owned(),
        }
    }
}

/// A request in the making.
pub(crate) struct Call<'a> {
    rig: &'a Rig,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    peer: Option<SocketAddr>,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("x-jm-authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn raw(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Comes from this address.
    pub(crate) fn peer(mut self, address: &str) -> Self {
        self.peer = Some(SocketAddr::new(address.parse().unwrap(), 40_000));
        self
    }

    fn build(&mut self) -> Request<Body> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .body(Body::from(std::mem::take(&mut self.body)))
            .unwrap();
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        *request.headers_mut() = std::mem::take(&mut self.headers);
        request.headers_mut().entry(header::HOST).or_insert("localhost:28183".parse().unwrap());
        request
    }

    /// Sends it and reads the answer, which must be one that the document allows.
    pub(crate) async fn send(mut self) -> Reply {
        let request = self.build();
        let response = self.rig.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let reply = Reply { status: parts.status, headers: parts.headers, body };
        let kind = reply.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap());
        if self.path.starts_with("/api/") || self.path.starts_with("/obwatch") {
            contract()
                .check(self.method.as_str(), &self.path, reply.status.as_u16(), kind, &reply.body)
                .unwrap();
        }
        assert_ne!(reply.status, 500, "{} {}", self.method, self.path);
        reply.check_headers();
        reply
    }

    /// Sends it and goes away without reading the body of the answer.
    pub(crate) async fn send_and_hang_up(mut self) -> StatusCode {
        let request = self.build();
        self.rig.router.clone().oneshot(request).await.unwrap().status()
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn challenge(&self) -> Option<&str> {
        self.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap())
    }

    /// Fails with the body unless the status is this.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
    }

    /// Fails unless it is this error.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, message: &str) {
        self.expect(status);
        assert_eq!(self.message(), message, "{}", String::from_utf8_lossy(&self.body));
    }

    #[track_caller]
    fn check_headers(&self) {
        for (name, value) in [
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("expires", "Sat, 26 Jul 1997 05:00:00 GMT"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(self.headers.get(name).expect(name), value);
        }
        assert!(!self.headers.contains_key("set-cookie"));
        assert_ne!(self.headers.get("access-control-allow-origin"), Some(&"*".parse().unwrap()));
        // Browser wallets log out on exactly this; it belongs to token errors only.
        let invalid_token = self.challenge().is_some_and(|text| text.contains("invalid_token"));
        if invalid_token {
            assert_eq!(self.status, 401);
            assert!(self.message().contains("access token"), "{}", self.message());
        }
    }
}

/// Awaits a condition on the API's answers.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
