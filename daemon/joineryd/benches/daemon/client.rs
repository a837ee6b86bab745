//! The API over HTTPS, as far as the bench needs it. Times are from sending a request to the last byte of its
//! answer, on a connection that is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::process::PATIENCE;

/// Password of all wallets of the bench.
const PASSWORD: &str = "benchmark";

/// A client of one daemon, with the token of its wallet.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    wallet: String,
    token: String,
}

/// A coinjoin that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Account that pays.
    pub(crate) mixdepth: usize,
    /// Equal amount, satoshi.
    pub(crate) amount: u64,
    /// Makers.
    pub(crate) makers: usize,
}

/// reqwest needs a TLS provider to find; a second call does nothing.
pub(crate) fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Client {
    /// For a daemon on a loopback address, whose certificate is not looked at: it may not exist yet.
    pub(crate) fn new(address: SocketAddr) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true)
            .timeout(PATIENCE)
            .build()?;
        let base = format!("https://{address}/api/v1");
        Ok(Self { http, base, wallet: String::new(), token: String::new() })
    }

    async fn timed(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(Value, Duration)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let begin = Instant::now();
        let response = request.send().await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        let took = begin.elapsed();
        ensure!(
            status.is_success(),
            "{path} answers {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok((serde_json::from_slice(&bytes).unwrap_or(Value::Null), took))
    }

    /// Offers and bonds in `/obwatch/orderbook.json`.
    pub(crate) async fn order_book(&self) -> Result<(usize, usize)> {
        let (book, _) = self.timed(Method::GET, "/../../obwatch/orderbook.json", None).await?;
        let count = |key: &str| book[key].as_array().map_or(0, Vec::len);
        Ok((count("offers"), count("fidelitybonds")))
    }

    /// `GET /session`.
    pub(crate) async fn session(&self) -> Result<Value> {
        Ok(self.timed(Method::GET, "/session", None).await?.0)
    }

    /// Whether the wallet has the chain up to this height and scans nothing.
    pub(crate) async fn is_synced(&self, height: u64) -> Result<bool> {
        let session = self.session().await?;
        Ok(session["rescanning"] == false && session["block_height"] == height)
    }

    /// A call under the wallet's name.
    pub(crate) async fn get(&self, path: &str) -> Result<(Value, Duration)> {
        self.timed(Method::GET, &format!("/wallet/{}{path}", self.wallet), None).await
    }

    fn keep(&mut self, answer: &Value) -> Result<()> {
        let text = |key: &str| answer[key].as_str().map(str::to_owned).context("no such field");
        (self.wallet, self.token) = (text("walletname")?, text("token")?);
        Ok(())
    }

    /// Creates a wallet; gives its words.
    pub(crate) async fn create(&mut self, name: &str) -> Result<String> {
        let body = json!({"walletname": name, "password": PASSWORD, "wallettype": "sw-fb"});
        let (made, _) = self.timed(Method::POST, "/wallet/create", Some(body)).await?;
        self.keep(&made)?;
        Ok(made["seedphrase"].as_str().context("no words")?.to_owned())
    }

    /// Recovers a wallet from its words.
    pub(crate) async fn recover(&mut self, name: &str, words: &str) -> Result<()> {
        let body = json!({
            "walletname": name, "password": PASSWORD, "wallettype": "sw-fb", "seedphrase": words,
        });
        let (made, _) = self.timed(Method::POST, "/wallet/recover", Some(body)).await?;
        self.keep(&made)
    }

    /// Unlocks a wallet; gives the time until the answer.
    pub(crate) async fn unlock(&mut self, name: &str) -> Result<Duration> {
        let body = json!({"password": PASSWORD});
        let path = format!("/wallet/{name}/unlock");
        let (opened, took) = self.timed(Method::POST, &path, Some(body)).await?;
        self.keep(&opened)?;
        Ok(took)
    }

    /// Locks the wallet.
    pub(crate) async fn lock(&mut self) -> Result<()> {
        self.get("/lock").await?;
        self.token.clear();
        Ok(())
    }

    /// A new address of a mixdepth.
    pub(crate) async fn address(&self, mixdepth: usize) -> Result<(String, Duration)> {
        let (answer, took) = self.get(&format!("/address/new/{mixdepth}")).await?;
        Ok((answer["address"].as_str().context("no address")?.to_owned(), took))
    }

    /// Number of coins.
    pub(crate) async fn coin_count(&self) -> Result<usize> {
        let (answer, _) = self.get("/utxos").await?;
        Ok(answer["utxos"].as_array().context("no list")?.len())
    }

    /// Number of coins that a block has.
    pub(crate) async fn confirmed_coins(&self) -> Result<usize> {
        let (answer, _) = self.get("/utxos").await?;
        let coins = answer["utxos"].as_array().context("no list")?;
        Ok(coins.iter().filter(|coin| coin["confirmations"].as_u64() > Some(0)).count())
    }

    /// The account with the most satoshi in coins that a block has.
    pub(crate) async fn richest_mixdepth(&self) -> Result<usize> {
        let (answer, _) = self.get("/utxos").await?;
        let mut sums: BTreeMap<usize, u64> = BTreeMap::new();
        for coin in answer["utxos"].as_array().context("no list")? {
            let mixdepth = coin["mixdepth"].as_u64().context("no mixdepth")?;
            if coin["confirmations"].as_u64() > Some(0) {
                let sum = sums.entry(usize::try_from(mixdepth)?).or_default();
                *sum += coin["value"].as_u64().context("no value")?;
            }
        }
        let richest = sums.into_iter().max_by_key(|(_, sum)| *sum);
        Ok(richest.context("no coins")?.0)
    }

    async fn post(&self, path: &str, body: Value) -> Result<(Value, Duration)> {
        self.timed(Method::POST, &format!("/wallet/{}{path}", self.wallet), Some(body)).await
    }

    /// Starts a maker with one relative offer.
    pub(crate) async fn start_maker(&self) -> Result<()> {
        let terms = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
            "ordertype": "sw0reloffer", "minsize": "100000"});
        self.post("/maker/start", terms).await.map(drop)
    }

    /// Sets something of the reference's configuration.
    pub(crate) async fn configure(&self, section: &str, field: &str, value: &str) -> Result<()> {
        let body = json!({"section": section, "field": field, "value": value});
        self.post("/configset", body).await.map(drop)
    }

    /// Asks for a coinjoin to the next mixdepth.
    pub(crate) async fn coinjoin(&self, request: Request) -> Result<()> {
        let Request { mixdepth, amount, makers } = request;
        let body = json!({"mixdepth": mixdepth, "amount_sats": amount, "counterparties": makers,
            "destination": "INTERNAL"});
        self.post("/taker/coinjoin", body).await.map(drop)
    }

    /// The token of the wallet that is open.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Pays at 2 sat/vB; gives the time until the answer.
    pub(crate) async fn send(
        &self,
        mixdepth: usize,
        satoshi: u64,
        destination: &str,
    ) -> Result<Duration> {
        let body = json!({
            "mixdepth": mixdepth, "amount_sats": satoshi, "destination": destination, "txfee": 2000,
        });
        let path = format!("/wallet/{}/taker/direct-send", self.wallet);
        Ok(self.timed(Method::POST, &path, Some(body)).await?.1)
    }
}
