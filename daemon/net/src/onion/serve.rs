//! Where peers reach us: a listener on loopback, and in front of it our onion service, or nothing on private chains.

use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::path::PathBuf;
use std::time::Duration;

use joinery_proto::onion::location::{Location, PeerAddress};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::driver::Input;
use crate::tor::{self, ControlAddress, TorConfig, TorState, TorTiming};

/// Pause after an error of the listener: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How peers reach us. `listen` is an address of this machine; when its port is taken another one is used.
#[derive(Debug, Clone)]
pub enum Serving {
    /// By an ephemeral onion service whose key nobody keeps. Directories are dialled when it is reachable and not
    /// before; when Tor loses it, a new one is made and directories are told its address.
    Onion {
        /// Where connections arrive.
        listen: SocketAddr,
        /// Where Tor is controlled.
        control: ControlAddress,
        /// Where Tor's authentication cookie is, in place of where Tor says that it is.
        cookie: Option<PathBuf>,
        /// Waiting times; usually [`TorTiming::USUAL`].
        timing: TorTiming,
    },
    /// Without Tor: private chains only.
    Plain {
        /// Where connections arrive.
        listen: SocketAddr,
        /// What others are told; `None`: the address at which we listen. Some directories take no address of this
        /// machine, but any onion name, which a proxy of the tests leads here.
        location: Option<Location>,
    },
}

/// Whether peers can reach us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// Nothing was asked for, as for takers.
    Off,
    /// Tor was not asked yet.
    Starting,
    /// Nobody answers on Tor's control port, or not like Tor. It is tried again.
    Absent {
        /// Why, for people.
        reason: String,
    },
    /// Tor is there and gives us no service: no readable cookie, a password, or a refusal. It is tried again.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Tor has our service, and is still connecting to its network.
    Bootstrapping {
        /// Progress, 0 to 99.
        percent: u8,
        /// What Tor is doing; untrusted, printable.
        summary: String,
    },
    /// Peers can reach us.
    Serving {
        /// What they are told.
        location: Location,
    },
    /// The channel has ended, and with it the service.
    Stopped,
}

impl From<&TorState> for ServiceState {
    fn from(state: &TorState) -> Self {
        match state.clone() {
            TorState::Starting => Self::Starting,
            TorState::Absent { reason } => Self::Absent { reason },
            TorState::Refused { reason } => Self::Refused { reason },
            TorState::Bootstrapping { percent, summary, .. } => {
                Self::Bootstrapping { percent, summary }
            }
            TorState::Ready { address } => Self::Serving { location: Location::Address(address) },
            TorState::Stopped => Self::Stopped,
        }
    }
}

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Other machines could connect without Tor.
    #[error("{listen} is not an address of this machine alone")]
    NotLoopback {
        /// Where we should listen.
        listen: SocketAddr,
    },
    /// Peers can be served without Tor on private chains only.
    #[error("peers are served without Tor on private chains only")]
    NotPrivate,
    /// No port can be had.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where we should listen.
        listen: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// What a running channel holds of its service.
#[derive(Debug)]
pub(super) struct Service {
    listener: Option<TcpListener>,
    /// What is told from the beginning.
    pub(super) location: Option<Location>,
    tor: Option<Tor>,
}

#[derive(Debug)]
struct Tor {
    state: watch::Receiver<TorState>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Service {
    /// No service.
    pub(super) const fn none() -> Self {
        Self { listener: None, location: None, tor: None }
    }

    /// Listens, and begins to ask Tor.
    pub(super) fn start(serving: Serving, private: bool) -> Result<Self, ServeError> {
        match serving {
            Serving::Onion { listen, control, cookie, timing } => {
                let (listener, target) = bind(listen)?;
                let config = TorConfig { control, target, cookie, timing };
                let (told, state) = watch::channel(TorState::Starting);
                let (stop, stopped) = oneshot::channel();
                let task = tokio::spawn(tor::run(config, told, stopped));
                let tor = Some(Tor { state, stop, task });
                Ok(Self { listener: Some(listener), location: None, tor })
            }
            Serving::Plain { listen, location } if private => {
                let (listener, address) = bind(listen)?;
                let own = || address.to_string().parse().map(Location::Address).ok();
                let location = location.or_else(own).or(Some(Location::NotServing));
                Ok(Self { listener: Some(listener), location, tor: None })
            }
            Serving::Plain { .. } => Err(ServeError::NotPrivate),
        }
    }

    /// Whether there is an address only later.
    pub(super) const fn is_awaited(&self) -> bool {
        self.tor.is_some()
    }

    /// How it does before anything happened.
    pub(super) fn state(&self) -> ServiceState {
        match (&self.location, &self.tor) {
            (Some(location), _) => ServiceState::Serving { location: location.clone() },
            (None, Some(_)) => ServiceState::Starting,
            (None, None) => ServiceState::Off,
        }
    }

    pub(super) const fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// The next state of our onion service. Never, where there is none.
    pub(super) async fn changed(&mut self) -> TorState {
        let Some(tor) = &mut self.tor else { return std::future::pending().await };
        if tor.state.changed().await.is_ok() {
            return tor.state.borrow_and_update().clone();
        }
        self.tor = None;
        TorState::Absent { reason: "the task that asks Tor has ended".to_owned() }
    }

    /// Removes the service, if Tor lets us within this time; it is gone in any case.
    pub(super) async fn stop(self, patience: Duration) {
        let Some(Tor { stop, mut task, .. }) = self.tor else { return };
        drop(stop);
        if timeout(patience, &mut task).await.is_err() {
            // Tor removes a service when the connection that made it ends.
            task.abort();
        }
    }
}

/// The address of an onion service that peers can use by now.
pub(super) fn ready(state: &TorState) -> Option<&PeerAddress> {
    match state {
        TorState::Ready { address } => Some(address),
        _ => None,
    }
}

/// Listens on this address, or on another port when this one is taken (`spec/roles.md` 4.11).
fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    if !listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback { listen });
    }
    let bound = Listener::bind(listen).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Listener::bind((listen.ip(), 0)),
        _ => Err(error),
    });
    let listener = bound.and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    listener.map_err(|source| ServeError::Listen { listen, source })
}

/// Accepts connections for as long as somebody takes them.
pub(super) async fn accept(listener: TcpListener, inputs: mpsc::Sender<Input>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small lines, answered one by one.
                let _ = stream.set_nodelay(true);
                if inputs.send(Input::Accepted(stream)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the listener for peers cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
