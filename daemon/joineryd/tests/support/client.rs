//! The API over HTTPS, as a client sees it. Each answer is held against the published OpenAPI document.

use std::time::Duration;

use bdk_wallet::bitcoin::{Address, Network};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::{Value, json};

use super::daemon::Listening;
use super::{PATIENCE, until};

/// Password of the wallets that tests make. Searched for in logs.
pub const PASSWORD: &str = "correct horse 8c21f0 battery";

/// One client of one daemon, with the token of its wallet.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    /// Wallet file name.
    pub wallet: String,
    /// Access token.
    pub token: String,
    /// Refresh token.
    pub refresh: String,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: reqwest::header::HeaderMap,
    /// JSON body; null when there is none.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

/// The provider that reqwest needs to find; a second call does nothing.
pub fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificate that is shown to whoever asks, in DER form; nothing is verified. `None` when nobody answers.
pub async fn shown_certificate(address: std::net::SocketAddr) -> Option<Vec<u8>> {
    use_ring();
    let anyone = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true)
        .timeout(Duration::from_secs(20));
    let anyone = anyone.build().unwrap();
    let answer = anyone.get(format!("https://{address}/api/v1/getinfo")).send().await.ok()?;
    let shown = answer.extensions().get::<reqwest::tls::TlsInfo>()?;
    shown.peer_certificate().map(<[u8]>::to_vec)
}

/// A certificate in PEM form.
pub fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

impl Client {
    /// A client of the daemon that listens there, which trusts its certificate and no other.
    pub fn new(listening: &Listening) -> Self {
        use_ring();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(120));
        if let Some(path) = &listening.certificate {
            let pem = std::fs::read(path).unwrap();
            builder = builder.tls_certs_only([Certificate::from_pem(&pem).unwrap()]);
        }
        Self {
            http: builder.build().unwrap(),
            base: listening.rpc.clone(),
            wallet: String::new(),
            token: String::new(),
            refresh: String::new(),
        }
    }

    /// A request with whatever token there is. `None` when the daemon does not answer.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("x-jm-authorization", format!("Bearer {}", self.token));
        }
        if let Some(body) = body {
            // As browsers send it: no JSON content type.
            request =
                request.header("content-type", "text/plain;charset=UTF-8").body(body.to_string());
        }
        Self::answer(&method, path, request).await
    }

    /// `POST` of a file, which may take half an hour. `None` when the daemon ends before it answers.
    pub async fn try_upload(&self, path: &str, bytes: Vec<u8>) -> Option<Answer> {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("x-jm-authorization", format!("Bearer {}", self.token));
        let request = request.header("content-type", "application/octet-stream");
        let request = request.timeout(Duration::from_secs(1800)).body(bytes);
        Self::answer(&Method::POST, path, request).await
    }

    /// Sends a request, and holds the answer against the published document.
    async fn answer(
        method: &Method,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.ok()?;
        super::contract::check(method, path, status, &headers, &bytes);
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        Some(Answer { status, headers, body })
    }

    /// A request that must be answered.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let answer = self.try_request(method.clone(), path, body).await;
        answer.unwrap_or_else(|| panic!("{method} {path} is not answered"))
    }

    /// `GET` that a dying daemon may leave unanswered.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_request(Method::GET, path, None).await
    }

    /// `POST` that a dying daemon may leave unanswered.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.try_request(Method::POST, path, Some(body)).await
    }

    /// Content type and text of something that is not JSON.
    pub async fn raw_get(&self, path: &str) -> (String, String) {
        let request = self.http.get(format!("{}{path}", self.base));
        let request = request.header("x-jm-authorization", format!("Bearer {}", self.token));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, response.text().await.unwrap())
    }

    /// `GET /api/v1…`.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, &format!("/api/v1{path}"), None).await
    }

    /// `POST /api/v1…`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, &format!("/api/v1{path}"), Some(&body)).await
    }

    /// `GET /api/v1/wallet/NAME…`.
    pub async fn wallet_get(&self, path: &str) -> Answer {
        self.get(&format!("/wallet/{}{path}", self.wallet)).await
    }

    /// `POST /api/v1/wallet/NAME…`.
    pub async fn wallet_post(&self, path: &str, body: Value) -> Answer {
        self.post(&format!("/wallet/{}{path}", self.wallet), body).await
    }

    /// Creates a wallet with bonds and remembers its token; gives the words.
    pub async fn create(&mut self, name: &str) -> String {
        let body = json!({"walletname": name, "password": PASSWORD, "wallettype": "sw-fb"});
        let made = self.post("/wallet/create", body).await.expect(201);
        self.take_tokens(&made);
        made["seedphrase"].as_str().unwrap().to_owned()
    }

    /// Recovers a wallet from its words.
    pub async fn recover(&mut self, name: &str, words: &str) {
        let body = json!({
            "walletname": name, "password": PASSWORD, "wallettype": "sw-fb", "seedphrase": words,
        });
        let made = self.post("/wallet/recover", body).await.expect(201);
        self.take_tokens(&made);
    }

    /// Unlocks a wallet.
    pub async fn unlock(&mut self, name: &str) {
        let body = json!({"password": PASSWORD});
        let opened = self.post(&format!("/wallet/{name}/unlock"), body).await.expect(200);
        self.take_tokens(&opened);
    }

    /// Locks the wallet and forgets the token.
    pub async fn lock(&mut self) {
        self.wallet_get("/lock").await.expect(200);
        self.token.clear();
    }

    /// Keeps the tokens of an answer.
    pub fn take_tokens(&mut self, answer: &Value) {
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (self.wallet, self.token, self.refresh) =
            (text("walletname"), text("token"), text("refresh_token"));
    }

    /// A new address.
    pub async fn address(&self, mixdepth: u8) -> String {
        let answer = self.wallet_get(&format!("/address/new/{mixdepth}")).await.expect(200);
        answer["address"].as_str().unwrap().to_owned()
    }

    /// The coins.
    pub async fn utxos(&self) -> Vec<Value> {
        let answer = self.wallet_get("/utxos").await.expect(200);
        answer["utxos"].as_array().unwrap().clone()
    }

    /// Waits until the coins fulfil a condition.
    pub async fn utxos_when(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        let looking = tokio::time::timeout(PATIENCE, async {
            loop {
                seen = self.utxos().await;
                if holds(&seen) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let found = looking.await;
        assert!(found.is_ok(), "waited in vain: {what}; the coins are {seen:#?}");
        seen
    }

    /// Freezes or thaws a coin.
    pub async fn freeze(&self, outpoint: &str, freeze: bool) {
        let body = json!({"utxo-string": outpoint, "freeze": freeze});
        self.wallet_post("/freeze", body).await.expect(200);
    }

    /// Pays; 0 sweeps.
    pub async fn send(&self, mixdepth: u8, satoshi: u64, destination: &str) -> Answer {
        let body = json!({
            "mixdepth": mixdepth, "amount_sats": satoshi, "destination": destination, "txfee": 2000,
        });
        self.wallet_post("/taker/direct-send", body).await
    }

    /// Waits until the wallet has caught up with this height and no scan runs.
    pub async fn synced(&self, height: u64) {
        until("the wallet catches up", || async {
            let session = self.get("/session").await.expect(200);
            let done =
                session["block_height"] == json!(height) && session["rescanning"] == json!(false);
            done.then_some(())
        })
        .await;
    }
}

/// An address of the API as a type.
pub fn parse_address(text: &str) -> Address {
    text.parse::<Address<_>>().unwrap().require_network(Network::Regtest).unwrap()
}
