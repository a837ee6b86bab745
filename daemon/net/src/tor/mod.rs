//! Our own onion service by Tor's control port (`spec/protocol.md` 4.2): an ephemeral version 3 service whose
//! key nobody keeps, on virtual port 5222, removed when we stop.
//!
//! [`run`] keeps trying, with growing pauses, and tells by a watch what the state is: Tor absent, refusing,
//! still connecting to its network, or ready. The service lives as long as the control connection: a lost
//! connection means a new address, which whoever watches must tell the directories.

mod control;
mod reply;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use joinery_proto::onion::location::{ONION_VIRTUAL_PORT, PeerAddress};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use control::Control;
pub use control::ControlError;

use crate::electrum::backoff::Backoff;

/// Where Tor's control port is and what it is asked for.
#[derive(Debug, Clone)]
pub struct TorConfig {
    /// The control port, on loopback.
    pub control: SocketAddr,
    /// Where connections to the service are to arrive: our listener, on loopback.
    pub target: SocketAddr,
    /// Where the authentication cookie is, in place of where Tor says that it is.
    pub cookie: Option<PathBuf>,
    /// Waiting times.
    pub timing: TorTiming,
}

/// Waiting times.
#[derive(Debug, Clone, Copy)]
pub struct TorTiming {
    /// Longest time for a connection and for each answer.
    pub answer: Duration,
    /// Pause between looks at Tor's progress while it is connecting.
    pub progress: Duration,
    /// Pause between looks when it is ready.
    pub watch: Duration,
    /// First and longest pause before the control port is tried again.
    pub retry: (Duration, Duration),
}

impl Default for TorTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            answer: seconds(10),
            progress: seconds(2),
            watch: seconds(30),
            retry: (seconds(2), seconds(300)),
        }
    }
}

impl TorConfig {
    /// Defaults for everything but the addresses.
    #[must_use]
    pub fn new(control: SocketAddr, target: SocketAddr) -> Self {
        Self { control, target, cookie: None, timing: TorTiming::default() }
    }
}

/// How our onion service does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TorState {
    /// Nothing was tried yet.
    Starting,
    /// Nobody answers on the control port, or not like Tor.
    Absent {
        /// Why, for people.
        reason: String,
    },
    /// Tor is there and does not let us: no readable cookie, a password, or a refused service.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// The service exists, and Tor is still connecting to its network.
    Bootstrapping {
        /// Progress, 0 to 99.
        percent: u8,
        /// What Tor is doing; untrusted, printable.
        summary: String,
        /// Our address.
        address: PeerAddress,
    },
    /// Peers can reach us.
    Ready {
        /// Our address.
        address: PeerAddress,
    },
    /// Stopped on request; the service is removed.
    Stopped,
}

/// Keeps the service up until `stop` is sent or dropped, then removes it.
pub async fn run(
    config: TorConfig,
    state: watch::Sender<TorState>,
    mut stop: oneshot::Receiver<()>,
) {
    let (first, longest) = config.timing.retry;
    let mut backoff = Backoff::new(first, longest);
    loop {
        let began = Instant::now();
        let Err(error) = serve(&config, &state, &mut stop).await else { break };
        let reason = error.to_string();
        tracing::info!(reason, "our onion service is not available");
        state.send_replace(if error.is_refusal() {
            TorState::Refused { reason }
        } else {
            TorState::Absent { reason }
        });
        if began.elapsed() > longest {
            backoff.reset();
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            _ = &mut stop => break,
        }
    }
    state.send_replace(TorState::Stopped);
}

/// One control connection with our service; ends well when we are to stop.
async fn serve(
    config: &TorConfig,
    state: &watch::Sender<TorState>,
    stop: &mut oneshot::Receiver<()>,
) -> Result<(), ControlError> {
    let mut control = tokio::select! {
        control = Control::open(config) => control?,
        _ = &mut *stop => return Ok(()),
    };
    let service = control.add_onion(ONION_VIRTUAL_PORT, config.target).await?;
    let address: PeerAddress = format!("{service}.onion:{ONION_VIRTUAL_PORT}")
        .parse()
        .map_err(|_| ControlError::Protocol("a service that is no onion name"))?;
    tracing::info!("onion service added");
    loop {
        let progress = control.bootstrap().await?;
        let (news, pause) = if progress.percent >= 100 {
            (TorState::Ready { address: address.clone() }, config.timing.watch)
        } else {
            let (percent, summary) = (progress.percent, progress.summary);
            let address = address.clone();
            (TorState::Bootstrapping { percent, summary, address }, config.timing.progress)
        };
        state.send_if_modified(|state| {
            let changed = *state != news;
            *state = news;
            changed
        });
        tokio::select! {
            () = sleep(pause) => {}
            _ = &mut *stop => {
                // Tor removes it anyway when the connection ends; this says so.
                if let Err(error) = control.del_onion(&service).await {
                    tracing::info!(%error, "onion service not removed by request");
                }
                return Ok(());
            }
        }
    }
}
