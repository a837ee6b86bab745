//! Where the crates meet: the only place that knows which chain backend, which wallet directory and which API
//! belong together.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use joinery_api::{ApiConfig, AppState, MarketView, Settings};
use joinery_net::ElectrumEngine;
use joinery_wallet::chain::{ChainSource, NoServer};
use joinery_wallet::commitments::Commitments;
use joinery_wallet::directory::WalletDirectory;

use crate::certificate::{self, Certificate};
use crate::config::{self, Config};
use crate::credential;
use crate::datadir::{DataDir, private_directory};
use crate::exit::{Exit, Failure, OrExit};
use crate::logging::LogTail;
use crate::market::Market;
use crate::roles::{Bookkeeper, Roles, RolesParts, Runner};
use crate::update;

/// Everything that the listeners serve.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The API's state, for closing it.
    pub(crate) state: Arc<AppState>,
    /// The API port.
    pub(crate) router: Router,
    /// The websocket port.
    pub(crate) websocket_router: Router,
    /// The port of the order book.
    pub(crate) order_book_router: Router,
    /// The chain, for the market task.
    pub(crate) chain: Arc<dyn ChainSource>,
    /// What the market task shows.
    pub(crate) market_view: Option<MarketView>,
    /// The market task, unless the order book is switched off.
    pub(crate) market: Option<Market>,
    /// Taker and maker, for ending them.
    pub(crate) roles: Arc<Roles>,
    /// What keeps the income statement.
    pub(crate) bookkeeper: Bookkeeper,
}

/// Puts the parts together. Must be called within the runtime.
///
/// # Errors
/// When files of the data directory cannot be used or the chain backend cannot start.
pub(crate) fn build(
    config: &Config,
    directory: &DataDir,
    certificate: Option<Arc<Certificate>>,
    tail: LogTail,
) -> Result<Daemon, Failure> {
    let wallets = WalletDirectory::new(directory.wallets(), config.network, config.wallet.kdf)
        .or_exit(Exit::DataDirectory)?
        .keep_legacy(config.wallet.keep_legacy);
    let resume = if config.board.resume { credential::resume_key() } else { None };
    if resume.is_none() {
        // Switched off, or without the key that opened it: nothing of it stays.
        wallets.forget_sealed().or_exit(Exit::DataDirectory)?;
    }
    let logs = directory.path().join("logs");
    private_directory(&logs).or_exit(Exit::DataDirectory)?;
    let settings_path = directory.path().join("settings.json");
    let settings = Settings::load(config.network, own_settings(config), settings_path)
        .or_exit(Exit::DataDirectory)?;
    let market_config = config::market(config);
    let (market, view) = Market::new(market_config.clone()).unzip();
    let statement = logs.join("yigen-statement.csv");
    let api = ApiConfig {
        market: view.clone(),
        hosts: host_names(config, certificate.as_deref()),
        check_host: config.http.check_host,
        origins: config.http.origins.clone(),
        static_dir: config.http.static_dir.clone(),
        yieldgen_report: Some(statement.clone()),
        public_yieldgen_report: config.http.public_yieldgen_report,
        log_tail: Some(Arc::new(move || tail.bytes())),
        certificate_end: certificate.map(|certificate| -> joinery_api::CertificateEnd {
            let end = u64::try_from(certificate.facts.not_after.unix_timestamp()).ok();
            Arc::new(move || end)
        }),
        consent: config.board.rules,
        resume,
        updates: Some(joinery_api::UpdatePaths {
            inbox: directory.path().join(update::INBOX),
            reports: config.update_dir.clone(),
        }),
        failed_unlocks: Some(directory.path().join("failed_unlocks")),
        ..ApiConfig::new(env!("CARGO_PKG_VERSION"))
    };
    let chain = chain(config)?;
    let state = AppState::new(api, wallets, Arc::clone(&chain), settings);
    let kept = directory.path().join("state");
    private_directory(&kept).or_exit(Exit::DataDirectory)?;
    let commitments = Commitments::open(directory.path(), config.network);
    let roles = Roles::new(RolesParts {
        config: market_config,
        book: view.as_ref().map(|view| view.book.clone()),
        refresh: view.as_ref().map(|view| view.refresh.clone()),
        commitments: Arc::new(commitments.or_exit(Exit::DataDirectory)?),
        state: kept,
        serving: config.joinmarket.serving(),
        statement: statement.clone(),
    });
    state.set_roles(Arc::new(Runner(Arc::clone(&roles))));
    state.resume_after_power_cut();
    Ok(Daemon {
        router: joinery_api::router(&state),
        websocket_router: joinery_api::websocket_router(&state),
        order_book_router: joinery_api::order_book_router(&state),
        chain,
        market,
        roles,
        bookkeeper: Bookkeeper::new(statement),
        market_view: view,
        state,
    })
}

/// The chain backend.
fn chain(config: &Config) -> Result<Arc<dyn ChainSource>, Failure> {
    let Some(electrum) = &config.electrum else {
        tracing::warn!("no Electrum server is configured: set electrum.url or --electrum");
        return Ok(Arc::new(NoServer::default()));
    };
    if electrum.is_public_server() {
        tracing::warn!(
            "the Electrum server is a stranger's and sees our address: it can tell which coins are ours"
        );
    }
    let engine = ElectrumEngine::start(electrum.clone()).or_exit(Exit::Config)?;
    Ok(engine)
}

/// Names that a `Host` header may have.
fn host_names(config: &Config, certificate: Option<&Certificate>) -> Vec<String> {
    let mut names = certificate::dns_names(&config.http);
    let on_certificate = certificate.map(|certificate| certificate.facts.names.as_slice());
    names.extend(on_certificate.unwrap_or_default().iter().map(|name| name.to_ascii_lowercase()));
    names.sort_unstable();
    names.dedup();
    names
}

/// What clients read of our configuration through `configget` (`spec/api.md` 10.2).
fn own_settings(config: &Config) -> joinery_api::Sections {
    let mut sections = joinery_api::Sections::new();
    let directories = &config.joinmarket.directories;
    if !directories.is_empty() {
        let list: Vec<String> = directories.iter().map(ToString::to_string).collect();
        let fields = BTreeMap::from([("directory_nodes".to_owned(), list.join(","))]);
        sections.insert("MESSAGING:onion".to_owned(), fields);
    }
    sections
}
