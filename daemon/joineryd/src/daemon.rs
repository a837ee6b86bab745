//! The running daemon: build everything, say that it is ready, wait for a reason to end, drain.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use joinery_api::{AppState, MarketView};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::board::{Bridge, Fixed, Parts};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::durable;
use crate::exit::{Exit, Failure, OrExit};
use crate::listen::{Admission, DRAIN, Listener};
use crate::roles::Roles;
use crate::supervise::Supervisor;
use crate::{harden, logging, systemd, wiring};

/// Threads of the runtime. One would do for the load of a household; the second keeps the API answering while
/// the first is in a long computation.
const WORKERS: usize = 2;
/// Threads for blocking work at a time: key derivation (one at a time), wallet files, log tail.
const BLOCKING: usize = 8;
/// Time for the wallet to finish a payment under way and to flush. Longer than any answer of a server is waited for.
const CLOSE: Duration = Duration::from_secs(60);
/// Time for roles to say goodbye.
const ROLES: Duration = Duration::from_secs(10);
/// How often the end of the certificate is looked at.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a running daemon can be reached: `listening.json` in the data directory.
#[derive(Debug, Serialize)]
struct Listening<'a> {
    /// Process id of the daemon.
    pid: u32,
    /// `https://ADDRESS:PORT` of the API, or `http://`.
    rpc: String,
    /// `wss://ADDRESS:PORT` of the websocket, or `ws://`.
    websocket: String,
    /// `http://ADDRESS:PORT` of the order book alone.
    order_book: Option<String>,
    /// File with the certificate.
    certificate: Option<&'a Path>,
    /// Its SHA-256 fingerprint.
    fingerprint: Option<String>,
}

/// Runs until SIGTERM, SIGINT or SIGHUP, or until a part of it dies.
///
/// # Errors
/// When it cannot start or a task died.
pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    let tail = logging::start(&config.log).or_exit(Exit::Software)?;
    let directory = DataDir::open(&config.data_dir).or_exit(Exit::DataDirectory)?;
    let _lock = directory.lock().or_exit(Exit::Busy)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        network = %config.network,
        data_dir = %directory.path().display(),
        "starting"
    );
    let kept = &config.joinmarket;
    tracing::debug!(serving = ?kept.serving(), "kept for the coinjoin roles");
    match harden::keep_out_of_swap() {
        Ok(()) => tracing::debug!("memory is kept out of swap space"),
        Err(error) => tracing::warn!(
            %error,
            "memory cannot be kept out of swap space, and with it keys and passwords; with systemd set LimitMEMLOCK=infinity"
        ),
    }
    let certificate = if config.http.tls {
        let made = Certificate::load_or_make(&directory.ssl(), &config.http);
        Some(Arc::new(made.or_exit(Exit::DataDirectory)?))
    } else {
        None
    };
    let (rpc, websocket) = bind(config, certificate.as_deref())?;
    let order_book = bind_order_book(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_name("runtime")
        .enable_all()
        .build()
        .or_exit(Exit::Software)?;
    let outcome = runtime.block_on(async {
        // Before anything is announced: a signal that comes during the start must not be lost.
        let mut signals = Signals::new().or_exit(Exit::Software)?;
        let daemon = wiring::build(config, &directory, certificate.clone(), tail)?;
        let mut supervisor = Supervisor::default();
        if let Some(certificate) = &certificate {
            let watch = watch_certificate(Arc::clone(certificate), supervisor.stop());
            supervisor.spawn("certificate watch", watch);
        }
        supervisor.spawn("watchdog", systemd::watchdog(supervisor.stop()));
        if let Some(market) = daemon.market {
            let (state, chain) = (Arc::clone(&daemon.state), daemon.chain);
            supervisor.spawn("market", market.run(state, chain, supervisor.stop()));
        }
        let accounts = daemon.bookkeeper.run(Arc::clone(&daemon.state), supervisor.stop());
        supervisor.spawn("bookkeeper", accounts);
        if let Some(bridge) =
            board_bridge(config, &daemon.state, daemon.market_view, &rpc, certificate.as_deref())?
        {
            supervisor.spawn("board bridge", bridge.run(supervisor.stop()));
        }
        announce(&directory, &rpc, &websocket, order_book.as_ref(), certificate.as_deref())?;
        supervisor.spawn("api listener", rpc.serve(daemon.router, supervisor.stop()));
        if let Some(listener) = order_book {
            let serving = listener.serve(daemon.order_book_router, supervisor.stop());
            supervisor.spawn("order book listener", serving);
        }
        let serving = websocket.serve(daemon.websocket_router, supervisor.stop());
        supervisor.spawn("websocket listener", serving);
        systemd::ready();
        let outcome = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                Ok(())
            }
            died = supervisor.first_death() => {
                tracing::error!(error = %died, "stopping because a task died");
                Err(Failure::new(Exit::Software, died))
            }
        };
        systemd::stopping();
        tokio::select! {
            () = drain(&mut supervisor, &daemon.state, &daemon.roles) => {}
            // Whoever asks twice does not want to wait. Everything that matters is durable anyway.
            name = signals.next() => tracing::warn!(signal = name, "ending at once"),
        }
        outcome
    });
    // Tasks that are still there belong to clients that take nothing; blocking ones are harmless to cut.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = std::fs::remove_file(directory.listening()) {
        tracing::debug!(%error, "listening.json cannot be removed");
    }
    tracing::info!("stopped");
    outcome
}

/// The socket for the board, if there is to be one.
fn board_bridge(
    config: &Config,
    app: &Arc<AppState>,
    market: Option<MarketView>,
    rpc: &Listener,
    certificate: Option<&Certificate>,
) -> Result<Option<Bridge>, Failure> {
    let board = &config.board;
    let Some(path) = &board.socket else { return Ok(None) };
    let fixed = Fixed::new(config.network, certificate, rpc.address(), board.show_balance, market);
    let parts = Parts {
        app: Arc::clone(app),
        fixed,
        user: board.user,
        shutdown: board.shutdown.clone(),
        data: config.data_dir.clone(),
    };
    let bridge = Bridge::bind(path, parts)
        .with_context(|| format!("cannot listen for the board at {}", path.display()));
    bridge.or_exit(Exit::Unavailable).map(Some)
}

/// Both listeners.
fn bind(
    config: &Config,
    certificate: Option<&Certificate>,
) -> Result<(Listener, Listener), Failure> {
    let http = &config.http;
    let tls = certificate.map(Certificate::server_config).transpose();
    let tls = tls.or_exit(Exit::DataDirectory)?.map(Arc::new);
    let admission = Admission::new(http.limits.connections, http.limits.connections_per_address);
    let bind = |address| {
        Listener::bind(address, tls.clone(), admission.clone(), http.limits)
            .with_context(|| format!("cannot listen on {address}"))
            .or_exit(Exit::Unavailable)
    };
    Ok((bind(http.listen)?, bind(http.wss_listen)?))
}

/// The order book's own port, for web proxies. The usual one may be somebody else's.
fn bind_order_book(config: &Config) -> Result<Option<Listener>, Failure> {
    let (book, limits) = (&config.order_book, config.http.limits);
    let Some(address) = book.listen.filter(|_| book.watch != crate::market::Watch::Off) else {
        return Ok(None);
    };
    let admission = Admission::new(limits.connections, limits.connections_per_address);
    match Listener::bind(address, None, admission, limits) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if !book.required => {
            tracing::warn!(%address, %error, "the order book has no port of its own");
            Ok(None)
        }
        Err(error) => {
            let outcome = Err(error).with_context(|| format!("cannot listen on {address}"));
            outcome.or_exit(Exit::Unavailable)
        }
    }
}

/// Writes where we listen to the log and to `listening.json`.
fn announce(
    directory: &DataDir,
    rpc: &Listener,
    websocket: &Listener,
    order_book: Option<&Listener>,
    certificate: Option<&Certificate>,
) -> Result<(), Failure> {
    let secure = if certificate.is_some() { "s" } else { "" };
    let listening = Listening {
        pid: std::process::id(),
        rpc: format!("http{secure}://{}", rpc.address()),
        websocket: format!("ws{secure}://{}", websocket.address()),
        order_book: order_book.map(|listener| format!("http://{}", listener.address())),
        certificate: certificate.map(|certificate| certificate.path.as_path()),
        fingerprint: certificate.map(Certificate::fingerprint),
    };
    tracing::info!(
        rpc = listening.rpc,
        websocket = listening.websocket,
        order_book = listening.order_book.as_deref().unwrap_or("none"),
        fingerprint = listening.fingerprint.as_deref().unwrap_or("none"),
        made_now = certificate.is_some_and(|certificate| certificate.fresh),
        "listening"
    );
    let json = serde_json::to_vec(&listening).or_exit(Exit::Software)?;
    durable::write(&directory.listening(), &json)
        .with_context(|| format!("cannot write {}", directory.listening().display()))
        .or_exit(Exit::DataDirectory)
}

/// Finishes what is under way, then closes the wallet.
async fn drain(supervisor: &mut Supervisor, state: &AppState, roles: &Roles) {
    if timeout(DRAIN + Duration::from_secs(2), supervisor.drain()).await.is_err() {
        tracing::warn!("a task did not end in time");
    }
    if timeout(CLOSE, state.shutdown()).await.is_err() {
        tracing::error!("the wallet did not close in time");
    }
    // After the wallet: whatever a role waits for is answered then.
    if timeout(ROLES, roles.shutdown()).await.is_err() {
        tracing::warn!("a coinjoin role did not end in time");
    }
}

/// Warns each day when the certificate ends soon; `/session` shows it too.
async fn watch_certificate(
    certificate: Arc<Certificate>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut days = tokio::time::interval(DAY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = days.tick() => {}
        }
        if let Some(left) = certificate.ends_soon(OffsetDateTime::now_utc()) {
            tracing::warn!(
                days = left.whole_days(),
                "the TLS certificate ends; make a new one with: joineryd certificate renew"
            );
        }
    }
}

/// The signals that end the daemon.
pub(crate) struct Signals([(&'static str, Signal); 3]);

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self([
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGINT", signal(SignalKind::interrupt())?),
            // The terminal it was started from is gone.
            ("SIGHUP", signal(SignalKind::hangup())?),
        ]))
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        let [(terminate, first), (interrupt, second), (hangup, third)] = &mut self.0;
        tokio::select! {
            _ = first.recv() => terminate,
            _ = second.recv() => interrupt,
            _ = third.recv() => hangup,
        }
    }
}
