//! Everything the handlers share, handed to them explicitly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use joinery_wallet::chain::{ChainSource, ChainStatus};
use joinery_wallet::directory::WalletDirectory;
use joinery_wallet::service::WalletHandle;
use joinery_wallet::snapshot::Snapshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::Activity;
use crate::auth::Tokens;
use crate::config::ApiConfig;
use crate::consent::{Consent, KeptAddress};
use crate::error::ApiError;
use crate::glance::TransactionGlance;
use crate::hub::Hub;
use crate::order_book::OrderBook;
use crate::resume::Resume;
use crate::roles::{RoleBoard, RoleRunner};
use crate::sends::Sends;
use crate::settings::Settings;
use crate::throttle::Throttle;
use crate::update::Updates;
use crate::websocket::IdleSockets;

/// A wallet that is unlocked.
#[derive(Debug)]
pub(crate) struct LoadedWallet {
    /// Random: tells this loading from any other, also after a restart.
    pub(crate) loading: u64,
    pub(crate) handle: WalletHandle,
    /// The transaction that was seen or confirmed last since it was loaded.
    pub(crate) newest: Mutex<Option<TransactionGlance>>,
    /// Tells the task that turns wallet events into websocket news that no more will come.
    pub(crate) closed: CancellationToken,
    /// That task has passed on the last one.
    pub(crate) drained: CancellationToken,
}

impl LoadedWallet {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.snapshot()
    }

    pub(crate) fn newest_transaction(&self) -> Option<TransactionGlance> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_transaction(&self, transaction: TransactionGlance) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(transaction);
    }
}

/// The API of one daemon.
#[derive(Debug)]
pub struct AppState {
    pub(crate) config: ApiConfig,
    pub(crate) directory: WalletDirectory,
    pub(crate) chain: Arc<dyn ChainSource>,
    chain_status: watch::Receiver<ChainStatus>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tokens: Tokens,
    pub(crate) activity: Arc<Activity>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) throttle: Throttle,
    pub(crate) idle_sockets: IdleSockets,
    pub(crate) sends: Arc<Sends>,
    pub(crate) consent: Arc<Consent>,
    pub(crate) kept_address: KeptAddress,
    pub(crate) resume: Resume,
    pub(crate) order_book: OrderBook,
    pub(crate) updates: Option<Arc<Updates>>,
    pub(crate) board: Arc<RoleBoard>,
    runner: std::sync::OnceLock<Arc<dyn RoleRunner>>,
    /// The loaded wallet. Written only by who holds `lifecycle`.
    pub(crate) wallet: ArcSwapOption<LoadedWallet>,
    /// Held while a wallet is created, opened, switched or locked: one at a time, and with it one key
    /// derivation at a time.
    pub(crate) lifecycle: tokio::sync::Mutex<()>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    stopped: AtomicBool,
}

impl AppState {
    /// The API over a wallet directory and a chain. Starts locked and idle; nothing happens until
    /// requests come in through [`router`](crate::router).
    #[must_use]
    pub fn new(
        config: ApiConfig,
        directory: WalletDirectory,
        chain: Arc<dyn ChainSource>,
        settings: Settings,
    ) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        Arc::new(Self {
            tokens: Tokens::new(config.clock.clone()),
            throttle: Throttle::new(config.clock.clone(), config.failed_unlocks.clone()),
            idle_sockets: IdleSockets::new(config.idle_websockets),
            sends: Arc::new(Sends::new(config.clock.clone())),
            consent: Consent::new(config.consent),
            kept_address: KeptAddress::default(),
            resume: Resume::new(config.resume.clone()),
            order_book: OrderBook::new(config.clock.clone(), config.market.clone()),
            updates: config.updates.clone().map(|paths| Arc::new(Updates::new(paths))),
            board: RoleBoard::new(Arc::clone(&hub)),
            runner: std::sync::OnceLock::new(),
            activity: Activity::new(Arc::clone(&hub)),
            hub,
            chain_status: chain.status(),
            config,
            directory,
            chain,
            settings: Arc::new(settings),
            wallet: ArcSwapOption::empty(),
            lifecycle: tokio::sync::Mutex::new(()),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            stopped: AtomicBool::new(false),
        })
    }

    /// The role that runs and the guard that lets one run.
    #[must_use]
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Hands in what runs the roles; the first one counts. Until then they are answered with 503.
    pub fn set_roles(&self, runner: Arc<dyn RoleRunner>) {
        if self.runner.set(runner).is_err() {
            tracing::error!("the roles were handed in twice");
        }
    }

    /// What runs the roles.
    ///
    /// # Errors
    /// 503 where there is none.
    pub(crate) fn roles(&self, missing: &'static str) -> Result<&Arc<dyn RoleRunner>, ApiError> {
        self.runner.get().ok_or(ApiError::BackendNotReady(missing))
    }

    /// What waits for the button of the box.
    #[must_use]
    pub fn consent(&self) -> &Arc<Consent> {
        &self.consent
    }

    /// The settings that clients see.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The unlocked wallet, if any.
    #[must_use]
    pub fn wallet(&self) -> Option<WalletHandle> {
        self.wallet.load().as_ref().map(|wallet| wallet.handle.clone())
    }

    /// Forgets wrong passwords: somebody has shown to be at the box itself.
    pub fn clear_password_throttle(&self) {
        self.throttle.clear();
    }

    /// State of the link to the chain, without waiting.
    pub(crate) fn chain_status(&self) -> ChainStatus {
        self.chain_status.borrow().clone()
    }

    /// The wallet that a path names.
    ///
    /// # Errors
    /// 404 when none is loaded, 400 when it is another one.
    pub(crate) fn loaded(&self, name: &str) -> Result<Arc<LoadedWallet>, ApiError> {
        let wallet = self.wallet.load_full().ok_or(ApiError::NoWallet("not_loaded"))?;
        if wallet.handle.name() == name { Ok(wallet) } else { Err(ApiError::invalid("walletname")) }
    }

    /// Locks the wallet, ends the websockets and every task. Listeners are to be stopped by their owner.
    pub async fn shutdown(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.consent.close();
        {
            let _turn = self.lifecycle.lock().await;
            self.unload(None).await;
        }
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether [`AppState::shutdown`] has begun: no wallet is opened any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}
