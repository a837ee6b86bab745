//! Our own onion service by Tor's control port (`spec/protocol.md` 4.2): an ephemeral version 3 service whose
//! key nobody keeps, on virtual port 5222, removed when we stop.
//!
//! [`run`] keeps trying, with growing pauses, and tells by a watch what the state is: Tor absent, refusing,
//! still connecting to its network, or ready. The service lives as long as the control connection: a lost
//! connection, which is noticed at once, means a new address, which whoever watches must tell the directories.

mod control;
mod reply;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use joinery_proto::onion::location::{ONION_VIRTUAL_PORT, PeerAddress};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use control::Control;
pub use control::ControlError;

use crate::electrum::backoff::Backoff;

/// Where Tor is controlled: always on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAddress {
    /// A port of a loopback address.
    Tcp(SocketAddr),
    /// The path of a Unix socket, absolute.
    Unix(PathBuf),
}

/// A text names no control port on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a loopback address with a port, as in 127.0.0.1:9051, or unix: and an absolute path"
)]
pub struct ControlAddressError;

impl FromStr for ControlAddress {
    type Err = ControlAddressError;

    /// Parses `ADDRESS:PORT`, `localhost:PORT` or `unix:/PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return path.is_absolute().then_some(Self::Unix(path)).ok_or(ControlAddressError);
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => text.parse().ok(),
        };
        let here = |address: &SocketAddr| address.ip().is_loopback() && address.port() != 0;
        address.filter(here).map(Self::Tcp).ok_or(ControlAddressError)
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where Tor's control port is and what it is asked for.
#[derive(Debug, Clone)]
pub struct TorConfig {
    /// The control port.
    pub control: ControlAddress,
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

impl TorTiming {
    /// Ten seconds for an answer; pauses from two seconds to five minutes.
    pub const USUAL: Self = Self {
        answer: Duration::from_secs(10),
        progress: Duration::from_secs(2),
        watch: Duration::from_secs(30),
        retry: (Duration::from_secs(2), Duration::from_secs(300)),
    };
}

impl TorConfig {
    /// Defaults for everything but the addresses.
    #[must_use]
    pub const fn new(control: ControlAddress, target: SocketAddr) -> Self {
        Self { control, target, cookie: None, timing: TorTiming::USUAL }
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
            error = control.lost() => return Err(error),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_on_this_machine() {
        for text in ["127.0.0.1:9051", "[::1]:9051", "unix:/run/tor/control"] {
            assert_eq!(text.parse::<ControlAddress>().unwrap().to_string(), text);
        }
        let named: ControlAddress = "localhost:9051".parse().unwrap();
        assert_eq!(named.to_string(), "127.0.0.1:9051");
        for text in
            ["", "9051", "127.0.0.1", "127.0.0.1:0", "192.168.0.1:9051", "tor:9051", "unix:tor"]
        {
            assert_eq!(text.parse::<ControlAddress>(), Err(ControlAddressError), "{text}");
        }
    }
}
