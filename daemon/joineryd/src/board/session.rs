//! One connection of a board: snapshots out, presses in.

use std::collections::VecDeque;
use std::future::pending;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use joinery_api::Seat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::message::{BadLine, Lines, Said, parse};
use super::status::{Now, PhaseLength, line};

/// Longest time between two snapshots; a board gives us up after five seconds without one.
const BEAT: Duration = Duration::from_secs(1);
/// Shortest time between two snapshots.
const APART: Duration = Duration::from_millis(50);
/// How long a board may take to say hello, to end a line, and to take a snapshot.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines that a board may send within a second.
const RATE: usize = 20;
/// That second.
const WINDOW: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The board went away, or we do.
    Gone,
    /// It did what it must not.
    Misbehaved,
}

/// Why a board is sent away.
#[derive(Debug, thiserror::Error)]
enum Misbehaviour {
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("more than {RATE} lines in a second")]
    Flood,
    #[error("no hello, or a line without end")]
    TooSlow,
    #[error("it does not read")]
    Deaf,
}

pub(super) struct Session {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    shared: Arc<Shared>,
    seat: Seat,
    lines: Lines,
    /// When the last lines came.
    recent: VecDeque<Instant>,
    greeted: bool,
    phase: PhaseLength,
    /// A hello or the end of a line must be here by then.
    due: Option<Instant>,
    /// The wallet is being locked.
    locking: Option<JoinHandle<()>>,
    /// It is to be locked once more: the button was held again meanwhile.
    lock_again: bool,
    /// The machine is being asked to switch itself off.
    stopping: Option<JoinHandle<bool>>,
}

impl Session {
    pub(super) fn new(stream: UnixStream, shared: Arc<Shared>, seat: Seat) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer,
            shared,
            seat,
            lines: Lines::default(),
            recent: VecDeque::new(),
            greeted: false,
            phase: PhaseLength::default(),
            due: Some(Instant::now() + PATIENCE),
            locking: None,
            lock_again: false,
            stopping: None,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> End {
        tracing::info!("a board is connected");
        let app = Arc::clone(&self.shared.app);
        let paired = spawn_blocking(move || app.has_wallets()).await.unwrap_or(false);
        self.shared.paired.fetch_or(paired, Ordering::Relaxed);
        let outcome = self.serve(&stop).await;
        match outcome {
            Ok(()) => {
                tracing::info!("the board is gone");
                End::Gone
            }
            Err(error) => {
                tracing::warn!(%error, "the board was sent away");
                End::Misbehaved
            }
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), Misbehaviour> {
        let mut changes = self.shared.app.changes();
        let mut waiting = self.shared.app.consent().pending();
        let mut facts = self.shared.facts.subscribe();
        let mut chunk = [0; 512];
        let mut last = Instant::now();
        let mut next = last;
        loop {
            let soon = next.min(last + APART);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(next) => {
                    if self.show().await?.is_none() {
                        return Ok(());
                    }
                    last = Instant::now();
                    next = last + BEAT;
                }
                read = self.reader.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(count) => {
                        self.take(chunk.get(..count).unwrap_or_default())?;
                        next = soon;
                    }
                },
                () = until(self.due) => return Err(Misbehaviour::TooSlow),
                () = changes.next() => next = soon,
                changed = waiting.changed() => if changed.is_ok() { next = soon },
                changed = facts.changed() => if changed.is_ok() { next = soon },
                () = done(&mut self.locking) => {
                    if std::mem::take(&mut self.lock_again) {
                        self.lock();
                    }
                    next = soon;
                }
                () = switched(&mut self.stopping, &self.shared) => next = soon,
            }
        }
    }

    /// Sends a snapshot; `None` when the board is gone.
    async fn show(&mut self) -> Result<Option<()>, Misbehaviour> {
        let shared = &self.shared;
        let text = {
            let facts = shared.facts.borrow();
            let glance = shared.app.glance();
            let paired = glance.wallet.is_some() || shared.paired.load(Ordering::Relaxed);
            shared.paired.store(paired, Ordering::Relaxed);
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = Now {
                facts: &facts,
                switching_off: shared.switching_off.load(Ordering::Relaxed),
                paired,
                wall: wall.as_secs(),
                steady: Instant::now(),
            };
            line(&glance, &shared.fixed, &now, &mut self.phase)
        };
        match timeout(PATIENCE, self.writer.write_all(text.as_bytes())).await {
            Ok(Ok(())) => Ok(Some(())),
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(Misbehaviour::Deaf),
        }
    }

    /// Takes bytes of the board.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Misbehaviour> {
        for line in self.lines.push(bytes)? {
            let now = Instant::now();
            self.recent.retain(|time| now < *time + WINDOW);
            if self.recent.len() >= RATE {
                return Err(Misbehaviour::Flood);
            }
            self.recent.push_back(now);
            self.act(parse(&line)?)?;
        }
        self.due = match (self.greeted, self.lines.in_line()) {
            (true, false) => None,
            // From its first byte on: who sends one byte after the other gets no more time.
            (true, true) => self.due.or_else(|| Some(Instant::now() + PATIENCE)),
            (false, _) => self.due,
        };
        Ok(())
    }

    fn act(&mut self, said: Said) -> Result<(), BadLine> {
        if !self.greeted && !matches!(said, Said::Hello { .. }) {
            return Err(BadLine::Malformed);
        }
        match said {
            Said::Hello { panel } => {
                self.greeted = true;
                self.due = None;
                self.seat.panel(panel);
            }
            Said::Press(id) => {
                let approved = self.seat.approve(&id);
                tracing::info!(approved, "the button was pressed");
            }
            Said::Refuse(id) => {
                let refused = self.seat.refuse(&id);
                tracing::info!(refused, "refused at the box");
            }
            Said::Hold => {
                tracing::info!("the button was held: locking");
                self.lock();
            }
            Said::Shutdown => self.switch_off(),
            Said::Unknown => {}
        }
        Ok(())
    }

    fn lock(&mut self) {
        // What waits is refused and roles are stopped now, whatever the wallet is busy with.
        self.shared.app.refuse_and_stop();
        if self.locking.is_some() {
            self.lock_again = true;
            return;
        }
        let app = Arc::clone(&self.shared.app);
        self.locking = Some(tokio::spawn(async move { app.lock_at_the_box().await }));
    }

    fn switch_off(&mut self) {
        let Some((program, arguments)) = self.shared.shutdown.split_first() else {
            tracing::warn!(
                "the button was held for the shutdown: board.shutdown_command is not set"
            );
            return;
        };
        if self.stopping.is_some() || self.shared.switching_off.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!("the button was held: switching off");
        let mut command = Command::new(program);
        command.args(arguments);
        self.lock();
        self.stopping = Some(spawn_blocking(move || match command.status() {
            Ok(status) if status.success() => true,
            Ok(status) => {
                tracing::error!(%status, "board.shutdown_command failed");
                false
            }
            Err(error) => {
                tracing::error!(%error, "board.shutdown_command cannot be run");
                false
            }
        }));
    }
}

/// Waits until a time; for ever when there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits until the wallet is locked; for ever when nobody locks it.
async fn done(locking: &mut Option<JoinHandle<()>>) {
    match locking {
        Some(task) => drop(task.await),
        None => pending().await,
    }
    *locking = None;
}

/// Waits for the end of the shutdown command; for ever when there is none.
async fn switched(stopping: &mut Option<JoinHandle<bool>>, shared: &Shared) {
    let accepted = match stopping {
        Some(task) => task.await.unwrap_or(false),
        None => pending().await,
    };
    *stopping = None;
    shared.switching_off.store(accepted, Ordering::Relaxed);
}
