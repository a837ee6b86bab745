//! Makers on a directory: real connections, real signatures, real bond proofs, no wallets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bdk_wallet::bitcoin::secp256k1::{PublicKey, SecretKey};
use bdk_wallet::bitcoin::{OutPoint, ScriptBuf};
use joinery_proto::bond_proof::{BondProof, Certificate};
use joinery_proto::nick::Nick;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_proto::{fidelity_bond, secp};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio_util::sync::CancellationToken;

/// Message types (`spec/protocol.md` 4.4).
const PRIVATE: u64 = 685;
const PUBLIC: u64 = 687;
const HANDSHAKE: u64 = 793;
const DIRECTORY_HANDSHAKE: u64 = 795;
/// Period after which the certificates end: height 201 600, beyond every test.
const CERT_EXPIRY: u16 = 100;
/// Between two public announcements of one maker, when makers are told to be noisy: directories allow 20 a minute.
const NOISE: Duration = Duration::from_secs(3);

/// A bonded coin.
#[derive(Debug, Clone)]
pub struct TestBond {
    /// The coin.
    pub outpoint: OutPoint,
    /// Its key.
    pub key: SecretKey,
    /// Its lock time, seconds since epoch.
    pub locktime: u32,
}

impl TestBond {
    /// The script that a coin with this key and lock time pays.
    #[must_use]
    pub fn script(key: &SecretKey, locktime: u32) -> ScriptBuf {
        fidelity_bond::script_pubkey(locktime, &key.public_key(secp()))
    }
}

/// A maker with one offer and perhaps a bond.
#[derive(Debug)]
pub struct TestMaker {
    key: NickKey,
    word: PrivateWord,
    fields: String,
    bond: Option<(TestBond, PublicKey, SecretKey, Certificate)>,
}

impl TestMaker {
    /// A maker whose nick comes from `key` and whose offer has the wire form `sw0reloffer 0 …`.
    ///
    /// # Panics
    /// When the offer does not begin with an offer word.
    #[must_use]
    pub fn new(key: SecretKey, offer: &str, bond: Option<TestBond>) -> Self {
        let (word, fields) = offer.split_once(' ').expect("an offer has a word and fields");
        let word = PrivateWord::parse(word).expect("the word is one of an offer");
        let bond = bond.map(|bond| {
            // Any other key than the coin's.
            let cert_key = key;
            let certificate =
                Certificate::sign(&bond.key, &cert_key.public_key(secp()), CERT_EXPIRY);
            let public = bond.key.public_key(secp());
            (bond, public, cert_key, certificate)
        });
        Self { key: NickKey::new(key), word, fields: fields.to_owned(), bond }
    }

    /// Its nick.
    #[must_use]
    pub const fn nick(&self) -> Nick {
        self.key.nick()
    }

    /// Its answer to a taker's `!orderbook`, as it goes over the wire: `from!to!command payload key signature`.
    #[must_use]
    pub fn answer(&self, taker: &Nick) -> String {
        let nick = self.nick();
        let proof = |(bond, public, cert_key, certificate): &(TestBond, _, _, _)| {
            let proof = BondProof::create(
                &nick,
                taker,
                certificate,
                cert_key,
                public,
                &bond.outpoint,
                bond.locktime,
            );
            format!("!tbond {proof}")
        };
        let bond = self.bond.as_ref().map(proof).unwrap_or_default();
        let payload = format!("{}{bond}", self.fields);
        let text = self.key.sign_message(self.word, &payload, ONION_HOSTID);
        format!("{nick}!{taker}!{text}")
    }
}

/// Makers that are connected to a directory and answer `!orderbook`; they leave when this is dropped.
#[derive(Debug)]
pub struct Makers {
    asked: Arc<Mutex<Vec<Instant>>>,
    noisy: Arc<AtomicBool>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Makers {
    /// Connects them all.
    ///
    /// # Errors
    /// When one cannot connect or is refused.
    pub fn start(directory: SocketAddr, network: &str, makers: Vec<TestMaker>) -> Result<Self> {
        let count = makers.len();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noisy = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let (told, ready) = channel();
        let shared = (Arc::clone(&asked), Arc::clone(&noisy), stop.clone(), network.to_owned());
        let thread = std::thread::Builder::new().name("makers".into()).spawn(move || {
            let (asked, noisy, stop, network) = shared;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                for maker in makers {
                    let told = told.clone();
                    let (asked, noisy) = (Arc::clone(&asked), Arc::clone(&noisy));
                    let network = network.clone();
                    tokio::spawn(async move {
                        let life = live(maker, directory, &network, &asked, &noisy, &told);
                        let outcome = life.await;
                        // Nobody listens any more once all are there.
                        let _ = told.send(outcome);
                    });
                }
                drop(told);
                stop.cancelled().await;
            });
        })?;
        let this = Self { asked, noisy, stop, thread: Some(thread) };
        for _ in 0..count {
            let outcome = ready.recv_timeout(Duration::from_secs(120));
            outcome.context("makers do not come up")??;
        }
        Ok(this)
    }

    /// When a maker was asked for its offer, each time.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every maker announce its offer in public each three seconds, or not.
    pub fn set_noisy(&self, noisy: bool) {
        self.noisy.store(noisy, Ordering::SeqCst);
    }
}

impl Drop for Makers {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, kind: u64, line: &str) -> Result<()> {
    let text = format!("{}\r\n", json!({"type": kind, "line": line}));
    Ok(writer.write_all(text.as_bytes()).await?)
}

async fn live(
    maker: TestMaker,
    directory: SocketAddr,
    network: &str,
    asked: &Mutex<Vec<Instant>>,
    noisy: &AtomicBool,
    told: &std::sync::mpsc::Sender<Result<()>>,
) -> Result<()> {
    let (reader, mut writer) = TcpStream::connect(directory).await?.into_split();
    let mut lines = BufReader::new(reader).lines();
    let nick = maker.nick().to_string();
    let hello = json!({"app-name": "joinmarket", "directory": false,
        "location-string": "NOT-SERVING-ONION", "proto-ver": 5, "features": {}, "nick": nick,
        "network": network});
    send(&mut writer, HANDSHAKE, &hello.to_string()).await?;
    let mut noise = tokio::time::interval(NOISE);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.context("the directory hung up")?;
                let envelope: Value = serde_json::from_str(&line)?;
                let text = envelope["line"].as_str().unwrap_or_default();
                match envelope["type"].as_u64() {
                    Some(DIRECTORY_HANDSHAKE) => {
                        let answer: Value = serde_json::from_str(text)?;
                        ensure!(answer["accepted"] == true, "the directory refuses: {answer}");
                        let _ = told.send(Ok(()));
                    }
                    Some(PUBLIC) if text.ends_with("!PUBLIC!orderbook") => {
                        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                        let taker = text.split('!').next().unwrap_or_default().parse()?;
                        send(&mut writer, PRIVATE, &maker.answer(&taker)).await?;
                    }
                    _ => {}
                }
            }
            _ = noise.tick() => if noisy.load(Ordering::SeqCst) {
                let offer = format!("{nick}!PUBLIC!{} {}", maker.word.as_str(), maker.fields);
                send(&mut writer, PUBLIC, &offer).await?;
            }
        }
    }
}
