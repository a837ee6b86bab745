//! `joineryd key-page`: what the box shows in the place of the daemon while the volume with everything that the daemon
//! keeps is encrypted and closed (`docs/decisions/0014-the-wallets-in-a-volume.md`).
//!
//! One page over HTTPS, on the daemon's port and with a certificate of its own, asks for the password and hands it to
//! the root side through a socket ([`root_side`]). It has no rights itself and keeps nothing. The root side ends it when
//! the volume is open, and starts the daemon.

mod form;
mod page;
mod root_side;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use joinery_api::{ApiConfig, Origin};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::certificate::{self, Certificate};
use crate::cli::KeyPageArguments;
use crate::config::Config;
use crate::daemon::Signals;
use crate::datadir::DataDir;
use crate::durable;
use crate::exit::{Exit, Failure, OrExit};
use crate::listen::{Admission, DRAIN, Listener};
use crate::supervise::Supervisor;
use crate::{harden, logging, systemd};
use form::Form;
use page::{Kind, Notice};
use root_side::{Outcome, RootSide};

/// How long the next try waits after a wrong password. The derivation of the key costs seconds by itself; both together
/// bound what somebody in the network can try.
const AFTER_A_WRONG_ONE: Duration = Duration::from_secs(2);
/// How long a try waits for others to end.
const TURN: Duration = Duration::from_secs(30);

/// What requests need.
struct Shared {
    root_side: RootSide,
    /// Names that we are called by.
    names: ApiConfig,
    /// Held during a try; true when the volume is open.
    open: Mutex<bool>,
}

/// Runs until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// When it cannot start or a task died.
pub(crate) fn run(config: &Config, arguments: &KeyPageArguments) -> Result<(), Failure> {
    logging::start(&config.log).or_exit(Exit::Software)?;
    let directory = DataDir::open(&config.data_dir).or_exit(Exit::DataDirectory)?;
    let _lock = directory.lock().or_exit(Exit::Busy)?;
    if let Err(error) = harden::keep_out_of_swap() {
        tracing::warn!(%error, "memory cannot be kept out of swap space, and with it the password");
    }
    let http = &config.http;
    let certificate = Certificate::load_or_make(&directory.ssl(), http);
    let certificate = certificate.or_exit(Exit::DataDirectory)?;
    let tls = Arc::new(certificate.server_config().or_exit(Exit::DataDirectory)?);
    let limits = http.limits;
    let admission = Admission::new(limits.connections, limits.connections_per_address);
    let listener = Listener::bind(http.listen, Some(tls), admission, limits)
        .with_context(|| format!("cannot listen on {}", http.listen))
        .or_exit(Exit::Unavailable)?;
    let mut hosts = certificate::dns_names(http);
    hosts.extend(certificate.facts.names.iter().map(|name| name.to_ascii_lowercase()));
    let names = ApiConfig { hosts, ..ApiConfig::new(env!("CARGO_PKG_VERSION")) };
    let shared = Arc::new(Shared {
        root_side: RootSide::new(&arguments.root_side, &arguments.volume),
        names,
        open: Mutex::new(false),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_exit(Exit::Software)?.block_on(async {
        let mut signals = Signals::new().or_exit(Exit::Software)?;
        let mut supervisor = Supervisor::default();
        supervisor.spawn("watchdog", systemd::watchdog(supervisor.stop()));
        announce(&directory.listening(), &listener, &certificate)?;
        supervisor.spawn("page", listener.serve(router(&shared), supervisor.stop()));
        systemd::ready();
        let outcome = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                Ok(())
            }
            died = supervisor.first_death() => Err(Failure::new(Exit::Software, died)),
        };
        systemd::stopping();
        // An answer under way is the one that says that the volume is open.
        if timeout(DRAIN, supervisor.drain()).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
        outcome
    })
}

/// Writes where we listen to the log and to `listening.json`, as the daemon does: `joineryd update confirm` asks us by it.
fn announce(path: &Path, listener: &Listener, certificate: &Certificate) -> Result<(), Failure> {
    let fingerprint = certificate.fingerprint();
    tracing::info!(address = %listener.address(), fingerprint, "asking for the password of the volume");
    let listening = serde_json::json!({
        "pid": std::process::id(),
        "rpc": format!("https://{}", listener.address()),
        "certificate": certificate.path,
        "fingerprint": fingerprint,
    });
    durable::write_json(path, &listening)
        .with_context(|| format!("cannot write {}", path.display()))
        .or_exit(Exit::DataDirectory)
}

fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(show).post(attempt))
        .route("/health", get(async || page::health()))
        // Apps and browser wallets look for the API.
        .fallback(async || page::closed())
        .layer(from_fn_with_state(Arc::clone(shared), guard))
        .with_state(Arc::clone(shared))
}

/// Neither a name that somebody points at us nor the page of somebody else reaches the password or sets one.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (headers, uri) = (request.headers(), request.uri());
    let answer = if !joinery_api::host_is_ours(&shared.names, headers, uri) {
        page::refused("This box does not have that name.")
    } else if joinery_api::judge_origin(&shared.names, headers, uri) == Origin::Foreign
        && !request.method().is_safe()
    {
        page::refused("That was sent by the page of somebody else.")
    } else {
        next.run(request).await
    };
    page::protect(answer)
}

async fn show(State(shared): State<Arc<Shared>>) -> Response {
    // A try under way holds it: the page is the one of before.
    let open = shared.open.try_lock().is_ok_and(|open| *open);
    page::answer(if open { Kind::Opened } else { shared.root_side.wants() }, None)
}

async fn attempt(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let form = Form::read(request).await;
    let Ok(mut open) = timeout(TURN, shared.open.lock()).await else {
        return page::answer(shared.root_side.wants(), Some(Notice::Busy));
    };
    if *open {
        return Redirect::to("/").into_response();
    }
    let kind = shared.root_side.wants();
    let password = match form.and_then(|form| form.password(kind == Kind::Choose)) {
        Ok(password) => password,
        Err(error) => return page::answer(kind, Some(Notice::Form(error))),
    };
    // What goes on must not end with the connection of a browser that lost its patience.
    let side = shared.root_side.clone();
    let trying = tokio::spawn(async move { side.open(kind, &password).await });
    let outcome = trying.await.unwrap_or(Outcome::Failed);
    tracing::info!(?outcome, "a password was tried");
    match outcome {
        Outcome::Opened => {
            *open = true;
            page::answer(Kind::Opened, None)
        }
        Outcome::Wrong => {
            tokio::time::sleep(AFTER_A_WRONG_ONE).await;
            page::answer(kind, Some(Notice::Wrong))
        }
        Outcome::NoSpace => page::answer(kind, Some(Notice::NoSpace)),
        Outcome::Failed => page::answer(kind, Some(Notice::Failed)),
    }
}
