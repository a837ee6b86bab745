//! One connection to a server: calls with their answers, and what the server says unasked.
//!
//! A [`Client`] is a handle; a task on the connection's thread owns the stream. The task keeps every wait and
//! every byte bounded: a line may be as long as the largest answer that is being waited for and no longer,
//! all answers not yet consumed together have a limit, and each call has its deadline. Any number of callers
//! may use one client at the same time, from any thread.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error::{CallError, LinkError, ServerError};
use super::message::{Message, parse_line};
use super::script::ScriptHash;
use super::transport::Stream;

/// Longest line while nothing larger is asked for: notifications and small answers.
pub(crate) const SMALL: usize = 64 * 1024;
/// All answers that have arrived and were not consumed yet.
const HELD_MAX: usize = 64 * 1024 * 1024;
/// Scripts that changed and were not looked at yet.
const PUSHES_MAX: usize = 100_000;
/// Bytes asked of the operating system at once.
const READ_AT_ONCE: usize = 64 * 1024;

/// A call to be made.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) params: Value,
    /// Longest answer in bytes, JSON and all.
    pub(crate) limit: usize,
}

impl Call {
    pub(crate) const fn small(method: &'static str, params: Value) -> Self {
        Self { method, params, limit: SMALL }
    }
}

/// JSON text of a result. Counted against the connection's memory until dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    text: Box<str>,
    held: Arc<AtomicUsize>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.held.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

type Outcome = Result<Answer, CallError>;
/// An answer to come.
pub(crate) type Pending = oneshot::Receiver<Outcome>;

/// What the server said unasked since it was last taken; only the latest of each kind counts.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    /// JSON object with the latest tip.
    pub(crate) tip: Option<String>,
    /// Latest status of each script that changed.
    pub(crate) scripts: HashMap<ScriptHash, Option<[u8; 32]>>,
}

struct Job {
    calls: Vec<(Call, oneshot::Sender<Outcome>)>,
    array: bool,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    pushes: Mutex<Pushes>,
    pushed: Notify,
    closed: watch::Sender<Option<LinkError>>,
    held: Arc<AtomicUsize>,
}

/// Handle of a connection. The connection ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
    timeout: Duration,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Takes a stream over. Must be called on a tokio runtime with timers. `timeout` is the longest wait for
    /// an answer.
    pub(crate) fn start(stream: Box<dyn Stream>, timeout: Duration) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            pushes: Mutex::default(),
            pushed: Notify::new(),
            closed: watch::Sender::new(None),
            held: Arc::default(),
        });
        tokio::spawn(run(stream, queue, Arc::clone(&shared)));
        Self { jobs, shared, timeout }
    }

    /// Calls and waits for the answer.
    pub(crate) async fn call(&self, call: Call) -> Outcome {
        let pending = self.submit(vec![call], false).pop();
        self.outcome(pending).await
    }

    /// As [`Self::call`], with a method that the connection is useless without.
    pub(crate) async fn require(&self, call: Call) -> Result<Answer, LinkError> {
        let method = call.method;
        self.call(call).await.map_err(|error| error.into_link(method))
    }

    /// Sends calls in order, as single lines or as one JSON array; the answers are awaited by the caller.
    pub(crate) fn submit(&self, calls: Vec<Call>, array: bool) -> Vec<Pending> {
        let (calls, pending) = calls
            .into_iter()
            .map(|call| {
                let (sender, receiver) = oneshot::channel();
                ((call, sender), receiver)
            })
            .unzip();
        // When the connection has ended, the senders are dropped here and the receivers say so.
        let _ = self.jobs.send(Job { calls, array, timeout: self.timeout });
        pending
    }

    /// Waits for one answer.
    pub(crate) async fn outcome(&self, pending: Option<Pending>) -> Outcome {
        match pending {
            Some(pending) => match pending.await {
                Ok(outcome) => outcome,
                Err(_) => Err(self.reason().into()),
            },
            None => Err(self.reason().into()),
        }
    }

    /// Makes many calls with at most `window` of them under way and hands each outcome to `each`, in order.
    /// Stops at the first error that `each` returns and when the connection ends.
    pub(crate) async fn call_many(
        &self,
        calls: Vec<Call>,
        window: usize,
        mut each: impl FnMut(usize, Result<Answer, ServerError>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let window = window.max(1);
        let mut waiting: VecDeque<(&'static str, Pending)> = VecDeque::new();
        let mut calls = calls.into_iter();
        let mut index = 0;
        loop {
            // Refilled when half empty, so that requests leave in packets and the line never runs dry.
            if waiting.len() <= window / 2 {
                let next: Vec<Call> = calls.by_ref().take(window - waiting.len()).collect();
                let methods: Vec<_> = next.iter().map(|call| call.method).collect();
                waiting.extend(methods.into_iter().zip(self.submit(next, false)));
            }
            let Some((method, pending)) = waiting.pop_front() else { return Ok(()) };
            match self.outcome(Some(pending)).await {
                Ok(answer) => each(index, Ok(answer))?,
                Err(CallError::Server(error)) => each(index, Err(error))?,
                Err(error) => return Err(error.into_link(method)),
            }
            index += 1;
        }
    }

    /// Takes what was said unasked.
    pub(crate) fn take_pushes(&self) -> Pushes {
        std::mem::take(&mut *self.shared.pushes())
    }

    /// Takes only what was said about scripts.
    pub(crate) fn take_script_pushes(&self) -> HashMap<ScriptHash, Option<[u8; 32]>> {
        std::mem::take(&mut self.shared.pushes().scripts)
    }

    /// Treats a tip that was asked for as if the server had said it unasked.
    pub(crate) fn note_tip(&self, text: &str) {
        self.shared.pushes().tip = Some(text.to_owned());
        self.shared.pushed.notify_waiters();
    }

    /// Waits until something was said unasked that was not taken yet.
    pub(crate) async fn pushed(&self) {
        loop {
            let notified = self.shared.pushed.notified();
            {
                let pushes = self.shared.pushes();
                if pushes.tip.is_some() || !pushes.scripts.is_empty() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Waits until the connection has ended; returns why.
    pub(crate) async fn closed(&self) -> LinkError {
        let mut closed = self.shared.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(LinkError::Closed),
            Err(_) => LinkError::Closed,
        }
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Ends the connection for all its users.
    pub(crate) fn close(&self, reason: LinkError) {
        self.shared.close(reason);
    }

    fn reason(&self) -> LinkError {
        self.shared.closed.borrow().clone().unwrap_or(LinkError::Closed)
    }
}

impl Shared {
    fn pushes(&self) -> std::sync::MutexGuard<'_, Pushes> {
        // Nothing that runs under this lock panics half-way.
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason stays.
    fn close(&self, reason: LinkError) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
    }
}

async fn run(stream: Box<dyn Stream>, jobs: mpsc::UnboundedReceiver<Job>, shared: Arc<Shared>) {
    let (read, write) = tokio::io::split(stream);
    let (outgoing, lines) = mpsc::unbounded_channel();
    let mut closed = shared.closed.subscribe();
    let reason = tokio::select! {
        reason = Link::new(&shared, outgoing).run(read, jobs) => reason,
        reason = write_lines(write, lines) => reason,
        _ = closed.wait_for(Option::is_some) => LinkError::Stopped,
    };
    shared.close(reason);
}

async fn write_lines(
    mut write: impl AsyncWrite + Unpin,
    mut lines: mpsc::UnboundedReceiver<Vec<u8>>,
) -> LinkError {
    while let Some(mut bytes) = lines.recv().await {
        while let Ok(more) = lines.try_recv() {
            bytes.extend(more);
        }
        let written = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        if let Err(error) = written.await {
            return LinkError::Io(error.kind().to_string());
        }
    }
    LinkError::Stopped
}

/// A call that was sent.
struct Waiting {
    reply: oneshot::Sender<Outcome>,
    limit: usize,
    /// Longest line that may bring the answer: more than `limit` when it comes in an array.
    line_limit: usize,
    deadline: (Instant, u64),
}

/// The reading half with its bookkeeping.
struct Link<'a> {
    shared: &'a Shared,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeMap<(Instant, u64), ()>,
    /// Line limits of the waiting calls and how many have each.
    limits: BTreeMap<usize, usize>,
}

impl<'a> Link<'a> {
    fn new(shared: &'a Shared, outgoing: mpsc::UnboundedSender<Vec<u8>>) -> Self {
        Self {
            shared,
            outgoing,
            next_id: 0,
            waiting: HashMap::new(),
            deadlines: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }

    async fn run(
        mut self,
        mut read: impl AsyncRead + Unpin,
        mut jobs: mpsc::UnboundedReceiver<Job>,
    ) -> LinkError {
        let mut buffer: Vec<u8> = Vec::new();
        let mut piece = vec![0; READ_AT_ONCE];
        loop {
            let deadline = self.deadlines.keys().next().map(|(when, _)| *when);
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => self.send(job),
                    None => return LinkError::Stopped,
                },
                () = until(deadline) => self.expire(),
                read = read.read(&mut piece) => {
                    let outcome = match read {
                        Ok(0) => Err(LinkError::Closed),
                        Ok(count) => self.received(&mut buffer, piece.get(..count).unwrap_or_default()),
                        Err(error) => Err(LinkError::Io(error.kind().to_string())),
                    };
                    if let Err(reason) = outcome {
                        return reason;
                    }
                }
            }
        }
    }

    fn send(&mut self, job: Job) {
        let mut bytes = Vec::new();
        let total: usize = job.calls.iter().map(|(call, _)| call.limit).sum();
        let array = job.array && job.calls.len() > 1;
        let when = Instant::now() + job.timeout;
        for (index, (call, reply)) in job.calls.into_iter().enumerate() {
            let id = self.next_id;
            self.next_id += 1;
            bytes.extend(match (array, index) {
                (true, 0) => b"[".as_slice(),
                (true, _) => b",",
                (false, _) => b"",
            });
            let line = serde_json::json!({
                "jsonrpc": "2.0", "id": id, "method": call.method, "params": call.params,
            });
            bytes.extend(line.to_string().into_bytes());
            if !array {
                bytes.push(b'\n');
            }
            let line_limit = if array { total } else { call.limit };
            *self.limits.entry(line_limit).or_default() += 1;
            self.deadlines.insert((when, id), ());
            let waiting = Waiting { reply, limit: call.limit, line_limit, deadline: (when, id) };
            self.waiting.insert(id, waiting);
        }
        if array {
            bytes.extend(b"]\n");
        }
        // When the writer has ended, so does this task.
        let _ = self.outgoing.send(bytes);
    }

    fn take(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.deadlines.remove(&waiting.deadline);
        if let Some(count) = self.limits.get_mut(&waiting.line_limit) {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&waiting.line_limit);
            }
        }
        Some(waiting)
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((when, id)) = self.deadlines.keys().next().copied() {
            if when > now {
                return;
            }
            if let Some(waiting) = self.take(id) {
                // Nobody listening is fine.
                let _ = waiting.reply.send(Err(CallError::TimedOut));
            }
        }
    }

    fn line_limit(&self) -> usize {
        self.limits.keys().next_back().copied().unwrap_or(0).max(SMALL)
    }

    fn received(&mut self, buffer: &mut Vec<u8>, mut piece: &[u8]) -> Result<(), LinkError> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = piece.split_at(end);
            self.check_length(buffer.len() + head.len())?;
            if buffer.is_empty() {
                self.line(head)?;
            } else {
                buffer.extend(head);
                let line = std::mem::take(buffer);
                self.line(&line)?;
            }
            piece = rest.get(1..).unwrap_or_default();
        }
        self.check_length(buffer.len() + piece.len())?;
        buffer.extend(piece);
        Ok(())
    }

    fn check_length(&self, length: usize) -> Result<(), LinkError> {
        let limit = self.line_limit();
        if length > limit { Err(LinkError::LineTooLong { limit }) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), LinkError> {
        for message in parse_line(line)? {
            match message {
                Message::Answer { id, outcome } => self.answer(id, outcome)?,
                Message::Complaint(error) => {
                    return Err(LinkError::Refused { method: "a request", text: error.text });
                }
                Message::Tip(text) => {
                    self.shared.pushes().tip = Some(text.to_owned());
                    self.shared.pushed.notify_waiters();
                }
                Message::Script(script, status) => {
                    let mut pushes = self.shared.pushes();
                    pushes.scripts.insert(script, status);
                    if pushes.scripts.len() > PUSHES_MAX {
                        return Err(LinkError::Flood);
                    }
                    drop(pushes);
                    self.shared.pushed.notify_waiters();
                }
                Message::Other => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, outcome: Result<&str, ServerError>) -> Result<(), LinkError> {
        if id >= self.next_id {
            return Err(LinkError::Protocol("an answer's id is not one of ours"));
        }
        // Otherwise it was answered before or given up: nobody cares any more.
        let Some(waiting) = self.take(id) else { return Ok(()) };
        let outcome = match outcome {
            Ok(text) => {
                if text.len() > waiting.limit {
                    return Err(LinkError::LineTooLong { limit: waiting.limit });
                }
                let held = Arc::clone(&self.shared.held);
                if held.fetch_add(text.len(), Ordering::Relaxed) + text.len() > HELD_MAX {
                    return Err(LinkError::Flood);
                }
                Ok(Answer { text: text.into(), held })
            }
            Err(error) => Err(error.into()),
        };
        let _ = waiting.reply.send(outcome);
        Ok(())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
