//! The jmwalletd HTTP and websocket API: routes, tokens, settings, error texts.
//!
//! What it deliberately is not: it opens no listener and knows no TLS (the daemon serves [`router`] and
//! [`websocket_router`]), reads no configuration file of the daemon, holds no key, and decides nothing about
//! coins: the wallet does.
//!
//! The source of every rule is `spec/api.md`; [`openapi`] describes the result.

mod activity;
mod app;
mod auth;
mod body;
mod calls;
mod clock;
mod conditional;
mod config;
mod consent;
#[cfg(feature = "contract")]
pub mod contract;
mod dto;
mod error;
mod files;
mod glance;
mod guard;
mod hub;
mod lifecycle;
mod number;
mod order_book;
mod origin;
mod peer;
mod resume;
mod roles;
mod sends;
mod settings;
mod throttle;
mod update;
mod websocket;

use std::sync::Arc;

use axum::Router;

pub use activity::{Activity, Role, RoleGuard};
pub use app::AppState;
pub use auth::{ACCESS_LIFETIME, REFRESH_LIFETIME};
pub use body::MAX_BODY;
pub use clock::{Clock, ManualClock};
pub use config::{ApiConfig, CertificateEnd, LogTail};
pub use consent::{Asked, Consent, ConsentRules, Payment, PendingRequest, Refusal, Seat};
pub use glance::{Changes, Glance, MakerGlance, TakerGlance, TransactionGlance};
pub use order_book::MarketView;
pub use origin::{Origin, host_is_ours, judge as judge_origin};
pub use roles::{MakerDesk, MakerReach, MakerRun, RoleRunner, TakerDesk, TakerRun};
pub use settings::{
    MakerFeeLimits, RoleSettings, Sections, Settings, SettingsFileError, TxBroadcast,
};
pub use update::{
    BUNDLE, INSTALL, MAX_BUNDLE, REPORT, RESTART, UpdateOutcome, UpdatePaths, UpdateReport,
    UpdateState,
};

/// Path of the one call whose body is larger than [`MAX_BODY`]; it has its own limits of size and time.
pub const UPLOAD_PATH: &str = "/api/v1/update";

/// Everything on the RPC port: `/api/v1`, the websocket at `/jmws`, `/ws` and `/api/v1/ws`, the order book,
/// the helpers of browser wallets and their static files.
pub fn router(app: &Arc<AppState>) -> Router {
    let routes = calls::api().with_state(Arc::clone(app));
    guard::wrap(files::fallback(routes, app.config.static_dir.as_deref()), app)
}

/// The websocket at any path, for a port of its own.
pub fn websocket_router(app: &Arc<AppState>) -> Router {
    let routes =
        Router::new().fallback(axum::routing::any(websocket::upgrade)).with_state(Arc::clone(app));
    guard::wrap(routes, app)
}

/// The order book alone, for a loopback port of its own: web proxies of unmodified Jam set-ups expect the
/// reference's order book watcher there (`spec/roles.md` 7.2). Holds nothing private and changes nothing.
pub fn order_book_router(app: &Arc<AppState>) -> Router {
    guard::survive_panics(calls::order_book().with_state(Arc::clone(app)))
}

/// The OpenAPI document that is served at `/api/v1/openapi.yaml`.
#[must_use]
pub const fn openapi() -> &'static str {
    calls::openapi_document()
}
