//! JSON-RPC calls to the bench's own bitcoind: one short HTTP connection a call, cookie authentication.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};

/// Longest silence of bitcoind that is taken for work: mining thousands of blocks in one call is slow.
const SILENCE: Duration = Duration::from_secs(120);

/// Where bitcoind answers and where its cookie is.
#[derive(Debug, Clone)]
pub struct Rpc {
    address: SocketAddr,
    cookie_file: PathBuf,
}

/// What bitcoind answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// Bitcoin Core's error code, e.g. -26 for a transaction that the mempool rejects.
    pub code: i64,
    /// Its explanation.
    pub message: String,
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "bitcoind error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for RpcError {}

impl Rpc {
    /// Names a server; nothing is connected before the first call. The cookie is read at each call, because
    /// bitcoind writes a new one at each start.
    #[must_use]
    pub fn new(address: SocketAddr, cookie_file: PathBuf) -> Self {
        Self { address, cookie_file }
    }

    /// Where bitcoind answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls `method` with positional parameters (a JSON array) and returns the result.
    ///
    /// # Errors
    /// An [`RpcError`] (reachable with `downcast_ref`) when bitcoind says no; otherwise what went wrong with
    /// the connection.
    pub fn call(&self, method: &str, params: &Value) -> Result<Value> {
        let answer =
            self.exchange(method, params).with_context(|| format!("bitcoind, {method}"))?;
        match answer.get("error") {
            None | Some(Value::Null) => Ok(answer.get("result").cloned().unwrap_or(Value::Null)),
            Some(error) => Err(RpcError {
                code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
                message: error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or("no message")
                    .to_owned(),
            })
            .with_context(|| format!("bitcoind, {method}")),
        }
    }

    fn exchange(&self, method: &str, params: &Value) -> Result<Value> {
        let cookie = std::fs::read(&self.cookie_file)
            .with_context(|| format!("cannot read {}", self.cookie_file.display()))?;
        let credentials = base64::engine::general_purpose::STANDARD.encode(cookie.trim_ascii());
        let body =
            json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params}).to_string();
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        stream.write_all(request.as_bytes())?;
        let (status, body) = read_answer(BufReader::new(stream))?;
        // Errors of a call come with status 500 or 404 and a JSON body; only a body that is not JSON is
        // a failure of the exchange itself (401, work queue exceeded).
        serde_json::from_slice(&body).or_else(|_| {
            bail!("unexpected answer {status:?}: {}", String::from_utf8_lossy(&body).trim())
        })
    }
}

/// Reads one HTTP answer: status line and body. The body is read by its length, because the server takes tens
/// of milliseconds to close the connection.
fn read_answer(mut reader: impl BufRead) -> Result<(String, Vec<u8>)> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the answer ends within its head");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<u64>()?);
        }
    }
    let length = length.context("an answer without its length")?;
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok((status.trim_end().to_owned(), body))
}
