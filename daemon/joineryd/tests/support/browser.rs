//! A real browser without a window: Chromium, driven over its DevTools websocket.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use joinery_testkit::{Supervised, wait_for, wait_until};
use rcgen::PublicKeyData;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{PATIENCE, until};

/// Chromium with an empty profile; ended when dropped.
pub struct Browser {
    // First: it must have ended before its profile is removed.
    process: Supervised,
    connection: Arc<Mutex<Connection>>,
    profile: TempDir,
}

/// The DevTools websocket: answers to numbered calls, and events in between.
struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    events: Vec<Value>,
}

impl Connection {
    /// Calls a method of the browser, or of one page.
    async fn call(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        let answer = async {
            loop {
                let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else {
                    continue;
                };
                let mut message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == json!(self.calls) {
                    return match message.get("error") {
                        None => Ok(message["result"].take()),
                        Some(error) => Err(error.to_string()),
                    };
                }
                if message.get("method").is_some() {
                    self.events.push(message);
                }
            }
        };
        let answer = timeout(PATIENCE, answer).await;
        answer.unwrap_or_else(|_| panic!("the browser does not answer {method}"))
    }
}

/// What the browser is told to take for the certificate of this data directory: base64 of the SHA-256 of its public
/// key.
pub fn pin(data: &Path) -> String {
    let pem = std::fs::read_to_string(data.join("ssl/key.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&pem).unwrap();
    STANDARD.encode(Sha256::digest(key.subject_public_key_info()))
}

impl Browser {
    /// Starts Chromium. It takes the certificate of `pin` and otherwise only those that everybody takes; `foreign`
    /// is a name that leads to this machine.
    pub async fn start(pin: &str, foreign: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("chromium-").tempdir().unwrap();
        let home = profile.path().display();
        let arguments = [
            format!("HOME={home}"),
            "chromium".to_owned(),
            "--headless=new".to_owned(),
            // The tests may run as root, in containers without much shared memory, and on machines without a GPU.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            // Nobody is to be called but the daemon.
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-breakpad".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            format!("--host-resolver-rules=MAP {foreign} 127.0.0.1"),
            format!("--ignore-certificate-errors-spki-list={pin}"),
            format!("--user-data-dir={home}/data"),
            "--remote-debugging-port=0".to_owned(),
            "about:blank".to_owned(),
        ];
        let log = profile.path().join("log");
        let mut process =
            Supervised::start("chromium", Path::new("env"), &arguments, &log).unwrap();
        let file = profile.path().join("data/DevToolsActivePort");
        let listening = wait_for(PATIENCE, || {
            if let Err(error) = process.require_running() {
                panic!("these tests need Debian's package chromium (`make deps`): {error:#}");
            }
            let text = std::fs::read_to_string(&file).ok()?;
            let (port, path) = text.split_once('\n')?;
            (!path.is_empty()).then(|| format!("ws://127.0.0.1:{port}{}", path.trim()))
        });
        let url = listening.expect("the browser says within the deadline where it listens");
        let (socket, _) = connect_async(url).await.unwrap();
        let connection = Connection { socket, calls: 0, events: Vec::new() };
        Self { process, connection: Arc::new(Mutex::new(connection)), profile }
    }

    /// A new tab.
    pub async fn page(&self) -> Page {
        let connection = Arc::clone(&self.connection);
        let mut browser = connection.lock().await;
        let blank = json!({"url": "about:blank"});
        let target = browser.call(None, "Target.createTarget", blank).await.unwrap();
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call(None, "Target.attachToTarget", attach).await.unwrap();
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Network", "Runtime", "Log"] {
            let enable = format!("{domain}.enable");
            browser.call(Some(&session), &enable, json!({})).await.unwrap();
        }
        drop(browser);
        Page { connection, session }
    }

    /// Ends it as a user would, and waits until it has.
    pub async fn close(mut self) {
        // It may be gone before it answers.
        let close = json!({"id": 0, "method": "Browser.close"});
        let mut browser = self.connection.lock().await;
        let _ = browser.socket.send(Message::text(close.to_string())).await;
        drop(browser);
        let ended = wait_until(PATIENCE, || self.process.ended().unwrap().is_some());
        assert!(ended, "the browser does not end");
        // Its own children may take a moment longer, and may still be writing.
        let profile = self.profile.keep();
        let removed = wait_until(PATIENCE, || std::fs::remove_dir_all(&profile).is_ok());
        assert!(removed, "{} cannot be removed", profile.display());
    }
}

/// One tab.
pub struct Page {
    connection: Arc<Mutex<Connection>>,
    session: String,
}

impl Page {
    async fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.connection.lock().await.call(Some(&self.session), method, params).await
    }

    /// Goes to an address; the browser's own text when that fails, `net::ERR_…`.
    pub async fn go(&self, url: &str) -> Result<(), String> {
        let went = self.call("Page.navigate", json!({"url": url})).await.unwrap();
        went["errorText"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))
    }

    /// Loads the same page anew.
    pub async fn reload(&self) {
        self.call("Page.reload", json!({})).await.unwrap();
    }

    /// The value of a JavaScript expression, awaited if it is a promise; what was thrown if something was.
    pub async fn try_run(&self, expression: &str) -> Result<Value, String> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let outcome = self.call("Runtime.evaluate", params).await?;
        match outcome.get("exceptionDetails") {
            None => Ok(outcome["result"]["value"].clone()),
            Some(details) => Err(details["exception"]["description"].to_string()),
        }
    }

    /// As [`Self::try_run`], for what must not throw.
    pub async fn run(&self, expression: &str) -> Value {
        let outcome = self.try_run(expression).await;
        outcome.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until the visible text of an element has this in it.
    pub async fn shows(&self, selector: &str, text: &str) {
        let look = format!("document.querySelector('{selector}')?.innerText ?? ''");
        until(&format!("{selector} shows {text}"), || async {
            // While one page goes and the next comes there is nothing to look at.
            let shown = self.try_run(&look).await.unwrap_or_default();
            shown.as_str().unwrap_or_default().contains(text).then_some(())
        })
        .await;
    }

    /// Waits for an event of this page that fits, among those so far and those to come; its parameters.
    pub async fn event(&self, method: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(method, || async {
            // Events come in between answers.
            let _ = self.try_run("0").await;
            self.events(method).await.into_iter().find(&fits)
        })
        .await
    }

    /// The parameters of all events of this page so far, oldest first.
    pub async fn events(&self, method: &str) -> Vec<Value> {
        let browser = self.connection.lock().await;
        let ours = browser.events.iter().filter(|event| {
            event["sessionId"] == json!(self.session) && event["method"] == json!(method)
        });
        ours.map(|event| event["params"].clone()).collect()
    }

    /// Cookies of the page's origin.
    pub async fn cookies(&self) -> Value {
        self.call("Network.getCookies", json!({})).await.unwrap()["cookies"].take()
    }

    /// A picture of the page, for people.
    pub async fn picture(&self, path: &Path) {
        let taken = self.call("Page.captureScreenshot", json!({})).await.unwrap();
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, png).unwrap();
    }
}
