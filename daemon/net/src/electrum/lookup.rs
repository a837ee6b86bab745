//! Questions about other people's coins (`spec/wallet.md` 13.7), on a connection and a thread of their own, so
//! that no counterparty can delay the wallet, and on its own Tor circuit. Connects when first asked and hangs
//! up when nobody has asked for a while. Transactions that nobody shall link to the wallet's connection are sent
//! from here, each on a connection of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bdk_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::chain::{BroadcastError, ChainError, ChainStatus, ChainTip, ForeignOutput};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::answers;
use super::backoff::Backoff;
use super::client::{Call, Client};
use super::config::{ElectrumConfig, Timing};
use super::error::{CallError, LinkError};
use super::handshake::greet;
use super::queries;
use super::rules::Rules;
use super::script::ScriptHash;
use super::transport::Connector;
use crate::text::printable;

/// Questions under way at the same time.
const CONCURRENT: usize = 3;
/// Longest answer of any kind: a script with more unspent coins is not worth asking about.
const ANSWER_MAX: usize = 1024 * 1024;
/// How long an output that was not there is not asked for again.
const NEGATIVE_AGE: Duration = Duration::from_secs(600);
/// Entries of each cache.
const CACHE_MAX: usize = 2_000;
/// Blocks on top of one whose time is taken as final.
const FINAL_DEPTH: u32 = 6;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(300);

type Reply<T> = oneshot::Sender<Result<T, ChainError>>;

/// A question and where its answer goes.
#[derive(Debug)]
pub(super) enum Question {
    Transaction(Txid, Reply<Option<Transaction>>),
    Output(OutPoint, ScriptBuf, Reply<Option<ForeignOutput>>),
    /// Past the caches.
    OutputNow(OutPoint, ScriptBuf, Reply<Option<ForeignOutput>>),
    BlockTime(u32, Reply<u32>),
    /// To be sent on a fresh circuit.
    Broadcast(Box<Transaction>, Reply<Result<(), BroadcastError>>),
}

/// Runs until `questions` ends.
pub(super) async fn run(
    config: ElectrumConfig,
    connector: Connector,
    status: watch::Receiver<ChainStatus>,
    mut questions: mpsc::Receiver<Question>,
) {
    let lookup = Arc::new(Lookup {
        connector,
        rules: Rules::new(config.network),
        timing: config.timing,
        status,
        places: Semaphore::new(CONCURRENT),
        connection: Arc::new(tokio::sync::Mutex::new(Connection {
            client: None,
            backoff: Backoff::new(config.timing.backoff_first, config.timing.backoff_max),
            failure: None,
        })),
        caches: Mutex::default(),
    });
    loop {
        match timeout(IDLE, questions.recv()).await {
            Ok(Some(question)) => {
                tokio::spawn(Arc::clone(&lookup).answer(question));
            }
            Ok(None) => return,
            // Dropping the last handle hangs up.
            Err(_) => lookup.connection.lock().await.client = None,
        }
    }
}

struct Connection {
    client: Option<Client>,
    backoff: Backoff,
    /// Last failure, and until when no new attempt is made.
    failure: Option<(Instant, LinkError)>,
}

/// A map that forgets what is too old, and everything when it gets too large.
struct Cache<K, V> {
    entries: HashMap<K, (Instant, V)>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get(&self, key: &K, age: Duration) -> Option<V> {
        let (since, value) = self.entries.get(key)?;
        (since.elapsed() < age).then(|| value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.len() >= CACHE_MAX {
            // Rare, and asking again is all it costs.
            self.entries.clear();
        }
        self.entries.insert(key, (Instant::now(), value));
    }
}

#[derive(Default)]
struct Caches {
    /// Outputs that were there, all at the same tip.
    found: Cache<(OutPoint, ScriptBuf), ForeignOutput>,
    found_at: Option<BlockHash>,
    /// Outputs that were not.
    absent: Cache<(OutPoint, ScriptBuf), ()>,
    /// Values and heights of outputs whose blocks are deep enough: of these only "unspent" is asked again.
    proven: Cache<(OutPoint, ScriptBuf), (u64, u32)>,
    /// Times of blocks: for good, or while this is the tip.
    times: Cache<u32, (Option<BlockHash>, u32)>,
}

impl Caches {
    /// Takes the answer about an output that was asked for when `tip` was the best block.
    fn answered(
        &mut self,
        key: (OutPoint, ScriptBuf),
        tip: BlockHash,
        output: Option<ForeignOutput>,
    ) {
        self.found.entries.remove(&key);
        self.absent.entries.remove(&key);
        let Some(output) = output else { return self.absent.put(key, ()) };
        if self.found_at != Some(tip) {
            // What was found at another tip is not asked for any more.
            self.found = Cache::default();
            self.found_at = Some(tip);
        }
        self.found.put(key, output);
    }
}

/// Whether nothing is expected to take this block back any more.
const fn is_final(height: u32, tip: &ChainTip) -> bool {
    height.saturating_add(FINAL_DEPTH) <= tip.height
}

struct Lookup {
    connector: Connector,
    rules: Rules,
    timing: Timing,
    status: watch::Receiver<ChainStatus>,
    places: Semaphore,
    connection: Arc<tokio::sync::Mutex<Connection>>,
    caches: Mutex<Caches>,
}

impl Lookup {
    async fn answer(self: Arc<Self>, question: Question) {
        // Whoever asked may have gone; then the answer is dropped.
        match question {
            Question::Transaction(txid, reply) => {
                let _ = reply.send(self.bounded(self.transaction(txid)).await);
            }
            // What is known waits for no place.
            Question::Output(outpoint, script, reply) => {
                let key = (outpoint, script);
                let _ = reply.send(match self.known_output(&key) {
                    Some(known) => Ok(known),
                    None => self.bounded(self.output(key)).await,
                });
            }
            Question::OutputNow(outpoint, script, reply) => {
                let _ = reply.send(self.bounded(self.output_now(&(outpoint, script))).await);
            }
            Question::BlockTime(height, reply) => {
                let _ = reply.send(match self.known_time(height) {
                    Some(time) => Ok(time),
                    None => self.bounded(self.block_time(height)).await,
                });
            }
            // Not bounded like a lookup: a new circuit takes its time, and no counterparty can ask for it.
            Question::Broadcast(tx, reply) => {
                let _ = reply.send(Ok(self.broadcast(&tx).await));
            }
        }
    }

    /// Waits for a place, and then for the answer, each no longer than a lookup may take. Only the second time says
    /// something of what was asked for.
    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let longest = self.timing.lookup;
        // The semaphore is never closed.
        let Ok(_place) = timeout(longest, self.places.acquire()).await else {
            let reason = "too many questions are under way".to_owned();
            return Err(ChainError::Unavailable { reason });
        };
        timeout(longest, answer).await.unwrap_or(Err(ChainError::TimedOut))
    }

    /// The connection, made if there is none. Goes on connecting when the one who asked gives up.
    async fn client(&self) -> Result<Client, ChainError> {
        let connection = Arc::clone(&self.connection);
        let (connector, rules, timing) = (self.connector.clone(), self.rules.clone(), self.timing);
        let connecting = tokio::spawn(async move {
            let mut connection = connection.lock().await;
            if let Some(client) = &connection.client
                && !client.is_closed()
            {
                return Ok(client.clone());
            }
            connection.client = None;
            if let Some((until, error)) = &connection.failure
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            match connect(&connector, &rules, timing).await {
                Ok(client) => {
                    connection.backoff.reset();
                    connection.failure = None;
                    connection.client = Some(client.clone());
                    Ok(client)
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection for lookups");
                    let until = Instant::now() + connection.backoff.next();
                    connection.failure = Some((until, error.clone()));
                    Err(error)
                }
            }
        });
        match connecting.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(LinkError::Stopped.into()),
        }
    }

    fn caches(&self) -> std::sync::MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tip(&self) -> Result<ChainTip, ChainError> {
        self.status.borrow().tip.ok_or_else(|| ChainError::Unavailable {
            reason: "the best block is not known yet".to_owned(),
        })
    }

    async fn transaction(&self, txid: Txid) -> Result<Option<Transaction>, ChainError> {
        match self.client().await?.call(transaction_call(txid)).await {
            Ok(answer) => answers::transaction(answer.text(), txid)
                .map(Some)
                .ok_or_else(|| lie("another transaction than was asked for")),
            Err(CallError::Server(error)) if says_absent(&error.text) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What was found out of an output and still stands.
    fn known_output(&self, key: &(OutPoint, ScriptBuf)) -> Option<Option<ForeignOutput>> {
        let tip = self.status.borrow().tip?;
        let caches = self.caches();
        if caches.absent.get(key, NEGATIVE_AGE).is_some() {
            return Some(None);
        }
        // Good until the next block; then confirmations change, too.
        caches.found_at.filter(|at| *at == tip.hash)?;
        Some(Some(caches.found.get(key, Duration::MAX)?))
    }

    /// Asks, whatever is known, and remembers the answer.
    async fn output(
        &self,
        key: (OutPoint, ScriptBuf),
    ) -> Result<Option<ForeignOutput>, ChainError> {
        let tip = self.tip()?;
        let output = self.ask_output(&key, tip).await?;
        self.caches().answered(key, tip.hash, output.clone());
        Ok(output)
    }

    /// Asks, whatever is known. The answer is not remembered: it is asked for like this because only the present counts.
    /// What an earlier answer left behind goes.
    async fn output_now(
        &self,
        key: &(OutPoint, ScriptBuf),
    ) -> Result<Option<ForeignOutput>, ChainError> {
        let tip = self.tip()?;
        let output = self.ask_output(key, tip).await?;
        let mut caches = self.caches();
        caches.found.entries.remove(key);
        caches.absent.entries.remove(key);
        Ok(output)
    }

    /// Existence, value, script and depth are proven; that the output is unspent is the server's word.
    async fn ask_output(
        &self,
        key: &(OutPoint, ScriptBuf),
        tip: ChainTip,
    ) -> Result<Option<ForeignOutput>, ChainError> {
        let (outpoint, script) = key;
        let client = self.client().await?;
        let proven = self.caches().proven.get(key, Duration::MAX);
        let mut calls = vec![Call {
            method: "blockchain.scripthash.listunspent",
            params: json!([ScriptHash::of(script).to_string()]),
            limit: ANSWER_MAX,
        }];
        if proven.is_none() {
            // Together with the first question: one way to the server and back less.
            calls.push(transaction_call(outpoint.txid));
        }
        let mut pending = client.submit(calls, false).into_iter();
        let answer = client.outcome(pending.next()).await?;
        let list = answers::unspent(answer.text()).ok_or_else(|| lie("a list of unspent coins"))?;
        let mine = |entry: &&answers::Unspent| {
            entry.tx_hash == outpoint.txid && entry.tx_pos == outpoint.vout
        };
        let Some(entry) = list.iter().find(mine) else { return Ok(None) };
        let height = u32::try_from(entry.height).unwrap_or(0);
        // A block that we have not heard of yet counts as the first.
        let confirmations = tip.height.checked_sub(height).map_or(1, |above| above + 1);
        match proven {
            Some(proven) if proven == (entry.value, height) && is_final(height, &tip) => {
                let value = entry.value;
                return Ok(Some(ForeignOutput { value, confirmations, height: Some(height) }));
            }
            // Another block, or another value: everything anew.
            Some(_) => {
                pending = client.submit(vec![transaction_call(outpoint.txid)], false).into_iter()
            }
            None => {}
        }
        let answer = client.outcome(pending.next()).await?;
        let tx = answers::transaction(answer.text(), outpoint.txid)
            .ok_or_else(|| lie("another transaction than was asked for"))?;
        let index = usize::try_from(outpoint.vout).map_err(|_| lie("an output's index"))?;
        let output = tx.output.get(index).ok_or_else(|| lie("an output that does not exist"))?;
        if output.script_pubkey != *script || output.value.to_sat() != entry.value {
            return Err(lie("an unspent coin that its transaction does not have"));
        }
        let value = entry.value;
        if height == 0 {
            return Ok(Some(ForeignOutput { value, confirmations: 0, height: None }));
        }
        let proof = Call {
            method: "blockchain.transaction.get_merkle",
            params: json!([outpoint.txid, height]),
            limit: ANSWER_MAX,
        };
        let mut pending = client.submit(vec![proof, header_call(height)], false).into_iter();
        let proof = client.outcome(pending.next()).await?;
        let header = client.outcome(pending.next()).await?;
        let header = self.header(header.text(), height)?;
        self.note_time(height, header.time, &tip);
        let proven = answers::merkle(proof.text()).is_some_and(|proof| {
            proof.proves(outpoint.txid, tx.base_size(), height, header.merkle_root)
        });
        if !proven {
            return Err(lie("a merkle proof that does not prove the transaction"));
        }
        if is_final(height, &tip) {
            self.caches().proven.put(key.clone(), (value, height));
        }
        Ok(Some(ForeignOutput { value, confirmations, height: Some(height) }))
    }

    /// Sends a transaction on a circuit that nothing else uses. Connecting has a limit, and so has each answer.
    async fn broadcast(&self, tx: &Transaction) -> Result<(), BroadcastError> {
        let connector = self.connector.for_one_broadcast();
        let timing = Timing { lookup: self.timing.answer, ..self.timing };
        let client = connect(&connector, &self.rules, timing)
            .await
            .map_err(|error| BroadcastError::Unknown(error.into()))?;
        queries::broadcast(&client, tx).await
    }

    /// The time of a block, if it is known for good or while this is the tip.
    fn known_time(&self, height: u32) -> Option<u32> {
        let (while_tip, time) = self.caches().times.get(&height, Duration::MAX)?;
        let stands = |hash| self.status.borrow().tip.is_some_and(|tip| tip.hash == hash);
        while_tip.is_none_or(stands).then_some(time)
    }

    async fn block_time(&self, height: u32) -> Result<u32, ChainError> {
        let tip = self.tip()?;
        let answer = self.client().await?.call(header_call(height)).await?;
        let time = self.header(answer.text(), height)?.time;
        self.note_time(height, time, &tip);
        Ok(time)
    }

    fn note_time(&self, height: u32, time: u32, tip: &ChainTip) {
        let while_tip = (!is_final(height, tip)).then_some(tip.hash);
        self.caches().times.put(height, (while_tip, time));
    }

    /// A header with as much proof of work as its height demands.
    fn header(
        &self,
        text: &str,
        height: u32,
    ) -> Result<bdk_wallet::bitcoin::block::Header, ChainError> {
        let header = answers::header(text).ok_or_else(|| lie("a block header"))?;
        self.rules.check(height, &[header], |_| None)?;
        Ok(header)
    }
}

async fn connect(
    connector: &Connector,
    rules: &Rules,
    timing: Timing,
) -> Result<Client, LinkError> {
    let connected = connector
        .connect()
        .await
        .map_err(|error| LinkError::Connect(printable(&error.to_string())))?;
    let client = Client::start(connected.stream, timing.lookup);
    if let Err(error) = greet(&client, rules).await {
        client.close(error.clone());
        return Err(error);
    }
    Ok(client)
}

fn transaction_call(txid: Txid) -> Call {
    Call { method: "blockchain.transaction.get", params: json!([txid]), limit: ANSWER_MAX }
}

fn header_call(height: u32) -> Call {
    Call::small("blockchain.block.header", json!([height]))
}

fn lie(what: &str) -> ChainError {
    ChainError::Lie { what: what.to_owned() }
}

/// How servers say that there is no such transaction.
fn says_absent(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["no such", "not found", "unknown transaction", "missing transaction"]
        .iter()
        .any(|known| text.contains(known))
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;

    use super::*;

    fn key(number: u32) -> (OutPoint, ScriptBuf) {
        (OutPoint::new(Txid::all_zeros(), number), ScriptBuf::new())
    }

    #[test]
    fn outputs_are_remembered_for_one_tip_and_never_more_than_the_maximum() {
        let tip = |number: u8| BlockHash::from_byte_array([number; 32]);
        let found = || Some(ForeignOutput { value: 7, confirmations: 3, height: Some(5) });
        let mut caches = Caches::default();
        let count = 3 * u32::try_from(CACHE_MAX).unwrap();
        for number in 0..count {
            caches.answered(key(number), tip(1), found());
            caches.answered(key(number), tip(1), (number % 2 == 0).then(found).flatten());
            assert!(caches.found.entries.len() <= CACHE_MAX);
            assert!(caches.absent.entries.len() <= CACHE_MAX);
        }
        let absent = key(count - 1);
        caches.answered(key(0), tip(2), found());
        assert_eq!(caches.found.entries.len(), 1, "what was found at an older tip is gone");
        assert!(caches.absent.get(&absent, NEGATIVE_AGE).is_some(), "what was not there stays so");
        caches.answered(absent.clone(), tip(2), found());
        assert!(caches.absent.get(&absent, NEGATIVE_AGE).is_none(), "until it is found");
    }
}
