//! The board bridge: a Unix socket on which one board process may listen and press (`docs/board-link.md`).
//!
//! Keys never cross it. A board that hangs, floods, lies, sends half lines or goes away can lock the wallet, switch the
//! machine off (where that is configured), refuse, and approve the one request that it was shown; nothing more.

mod machine;
mod message;
mod session;
mod status;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use joinery_api::AppState;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use machine::Facts;
use session::{End, Session};
pub(crate) use status::Fixed;

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long nobody is let in after a board that misbehaved, and after an error of the socket.
const PAUSE: Duration = Duration::from_secs(1);
/// Shortest time between two complaints about strangers.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What the sessions of one daemon share.
#[derive(Debug)]
struct Shared {
    app: Arc<AppState>,
    fixed: Fixed,
    facts: watch::Sender<Facts>,
    /// What switches the machine off; empty: nothing does.
    shutdown: Vec<String>,
    switching_off: AtomicBool,
    /// Some client has made or opened a wallet.
    paired: AtomicBool,
}

/// The socket before it is served.
#[derive(Debug)]
pub(crate) struct Bridge {
    listener: UnixListener,
    path: PathBuf,
    /// The user that a board must run as.
    user: u32,
    data: PathBuf,
    shared: Arc<Shared>,
}

/// What [`Bridge::bind`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) app: Arc<AppState>,
    pub(crate) fixed: Fixed,
    /// The user that a board must run as; `None`: our own.
    pub(crate) user: Option<u32>,
    pub(crate) shutdown: Vec<String>,
    /// The data directory, for its disk.
    pub(crate) data: PathBuf,
}

impl Bridge {
    /// Binds the socket, in place of one that a daemon left that is gone. Must be called within the runtime.
    ///
    /// # Errors
    /// When something else is there, or a daemon listens on it.
    pub(crate) fn bind(path: &Path, parts: Parts) -> io::Result<Self> {
        remove_left_over(path)?;
        let listener = UnixListener::bind(path)?;
        // A set-group-id directory gives it the board's group. Who is let in is decided by the user of the other end.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        let Parts { app, fixed, user, shutdown, data } = parts;
        let shared = Shared {
            paired: AtomicBool::new(app.has_wallets()),
            app,
            fixed,
            facts: watch::Sender::new(Facts::default()),
            shutdown,
            switching_off: AtomicBool::new(false),
        };
        let user = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        Ok(Self { listener, path: path.to_owned(), user, data, shared: Arc::new(shared) })
    }

    /// Serves one board after the other until `stop` is cancelled.
    ///
    /// # Errors
    /// Never; for the supervisor.
    pub(crate) async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let watching = watch_machine(Arc::clone(&self.shared), self.data.clone(), stop.clone());
        let watching = tokio::spawn(watching);
        let mut current: Option<JoinHandle<End>> = None;
        let mut complained: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                end = finished(&mut current) => {
                    current = None;
                    if end != End::Gone {
                        sleep(PAUSE).await;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &mut current, &mut complained, &stop),
                    Err(error) => {
                        tracing::warn!(%error, "the board's socket fails");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        if let Some(session) = current {
            // It hears of the end by the same token.
            let _ = session.await;
        }
        let _ = watching.await;
        let _ = std::fs::remove_file(&self.path);
        Ok(())
    }

    /// Begins a session with a board; closes the connection of anybody else.
    fn admit(
        &self,
        stream: UnixStream,
        current: &mut Option<JoinHandle<End>>,
        complained: &mut Option<Instant>,
        stop: &CancellationToken,
    ) {
        let uid = stream.peer_cred().map(|other| other.uid());
        if uid.as_ref().ok() != Some(&self.user) {
            let now = Instant::now();
            if complained.is_none_or(|last| now >= last + COMPLAIN) {
                *complained = Some(now);
                tracing::warn!(uid = ?uid.ok(), wanted = self.user, "a stranger knocked at the board's socket");
            }
            return;
        }
        if current.is_some() {
            tracing::debug!("a second board was sent away");
            return;
        }
        let Some(seat) = self.shared.app.consent().seat() else { return };
        let session = Session::new(stream, Arc::clone(&self.shared), seat);
        *current = Some(tokio::spawn(session.run(stop.clone())));
    }
}

/// Waits for the end of the session; for ever when there is none.
async fn finished(current: &mut Option<JoinHandle<End>>) -> End {
    match current {
        Some(session) => session.await.unwrap_or(End::Misbehaved),
        None => std::future::pending().await,
    }
}

/// Removes the socket of a daemon that is gone, and nothing else.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => std::fs::remove_file(path),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Looks at the machine from time to time.
async fn watch_machine(shared: Arc<Shared>, data: PathBuf, stop: CancellationToken) {
    loop {
        let (data, app) = (data.clone(), Arc::clone(&shared.app));
        let look = spawn_blocking(move || (Facts::look(&data), app.has_wallets()));
        if let Ok((facts, has_wallets)) = look.await {
            shared.facts.send_if_modified(|known| {
                let changed = *known != facts;
                *known = facts;
                changed
            });
            shared.paired.fetch_or(has_wallets, Ordering::Relaxed);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}
