//! The directory node on sockets: the driver of [`joinery_roles::directory`].
//!
//! One task owns the machine; each connection has a task that cuts lines and writes what waits for it. What a
//! peer may cost is bounded everywhere: lines that are read go through one bounded channel, frames that wait are
//! counted by the machine, a line that is begun must be ended, and a socket that takes nothing is closed. A
//! connection at rest holds no buffers.

mod connection;
mod hub;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use joinery_roles::directory::{Directory, Settings};
use joinery_roles::event::LinkId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::Link;
use hub::{Hub, Input};

/// Files that are open besides connections: listeners, the runtime's own, logs.
const OTHER_FILES: u64 = 64;
/// Inputs that may wait for the machine; readers wait when there are more.
const INPUTS: usize = 512;
/// Pause after an accept that failed, so that a lack of files does not keep a core busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// How often failing to accept is logged.
const ACCEPT_QUIET: Duration = Duration::from_secs(60);
/// Time to end a line that was begun, and for a socket to take anything.
const STALL: Duration = Duration::from_secs(60);
/// Time for peers to take what waits for them when the directory stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a directory cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Metrics say who is busy when; they are for this machine only.
    #[error("metrics are served on loopback addresses only, not on {0}")]
    MetricsNotLoopback(SocketAddr),
    /// The process may not open enough files for a single peer.
    #[error("the process may open only {0} files")]
    TooFewFiles(u64),
}

/// A directory that listens and has yet to be run.
#[derive(Debug)]
pub struct DirectoryServer {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
    settings: Settings,
    connections: usize,
    stall: Duration,
}

impl DirectoryServer {
    /// Opens the listeners, after raising the limit of open files to what the system allows. When that is less
    /// than `settings.max_peers` need, fewer are taken.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn bind(
        listen: SocketAddr,
        metrics: Option<SocketAddr>,
        mut settings: Settings,
    ) -> Result<Self, DirectoryError> {
        if let Some(address) = metrics.filter(|address| !address.ip().is_loopback()) {
            return Err(DirectoryError::MetricsNotLoopback(address));
        }
        let files = raise_file_limit();
        let sockets = files.saturating_sub(OTHER_FILES);
        if sockets < 2 {
            return Err(DirectoryError::TooFewFiles(files));
        }
        let sockets = usize::try_from(sockets).unwrap_or(usize::MAX);
        let wanted = settings.max_peers.saturating_add(settings.max_peers / 10).saturating_add(16);
        if wanted > sockets {
            // Ten of eleven, as the machine keeps a tenth more for handshakes.
            settings.max_peers = (sockets / 11).saturating_mul(10).max(1);
            tracing::warn!(
                files,
                peers = settings.max_peers,
                "fewer peers: open files are limited"
            );
        }
        let (listener, address) = bind(listen).await?;
        let metrics = match metrics {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self {
            listener,
            address,
            metrics,
            settings,
            connections: wanted.min(sockets),
            stall: STALL,
        })
    }

    /// Sets after what time a connection is ended that has begun a line or takes nothing; 60 s unless set.
    #[must_use]
    pub const fn stall_after(mut self, time: Duration) -> Self {
        self.stall = time;
        self
    }

    /// Where peers connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Runs until `stop` is cancelled, then closes every connection. To be awaited in a runtime with time and I/O.
    pub async fn run(self, stop: CancellationToken) {
        let start = Instant::now();
        let directory = Directory::new(self.settings, rand::random());
        let (hub, inputs) = mpsc::channel(INPUTS);
        let tasks = TaskTracker::new();
        if let Some((listener, _)) = self.metrics {
            let (hub, stop) = (hub.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = metrics::serve(listener, hub) => {}
                }
            });
        }
        let accepting = accept(self.listener, self.connections, hub, start, tasks.clone());
        let running = Hub::new(directory, start, self.stall).run(inputs, stop.clone());
        tokio::select! {
            () = running => {}
            () = accepting => {}
        }
        tasks.close();
        if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
            tracing::debug!(left = tasks.len(), "peers that take nothing are left behind");
        }
    }
}

/// Accepts connections for ever. Beyond `connections` of them newcomers wait in the kernel's queue.
async fn accept(
    listener: TcpListener,
    connections: usize,
    hub: mpsc::Sender<Input>,
    start: Instant,
    tasks: TaskTracker,
) {
    let room = std::sync::Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let mut logged: Option<Instant> = None;
    for number in 1.. {
        let Ok(permit) = std::sync::Arc::clone(&room).acquire_owned().await else { return };
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // The newcomer went away again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if logged.is_none_or(|at| at.elapsed() >= ACCEPT_QUIET) {
                        logged = Some(Instant::now());
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let (link, hub) = (LinkId(number), hub.clone());
        tasks.spawn(attend(stream, link, hub, start, permit));
    }
}

/// One connection from its beginning to its end.
async fn attend(
    stream: TcpStream,
    id: LinkId,
    hub: mpsc::Sender<Input>,
    start: Instant,
    permit: OwnedSemaphorePermit,
) {
    // Messages are small and answers are waited for.
    let _ = stream.set_nodelay(true);
    let link = std::sync::Arc::new(Link::default());
    // Without a hub the directory is stopping.
    if hub.send(Input::Opened(id, std::sync::Arc::clone(&link))).await.is_ok() {
        let incident = connection::converse(&stream, id, &link, &hub, start).await;
        let _ = hub.send(Input::Closed(id, incident)).await;
    }
    drop(stream);
    drop(permit);
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DirectoryError> {
    let failed = |source| DirectoryError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Raises the soft limit of open files to the hard one; says what it is then.
fn raise_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // When the kernel refuses, the soft limit stays what it is.
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    now.unwrap_or(u64::MAX)
}
