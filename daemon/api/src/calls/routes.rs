//! Which call answers where (`spec/api.md` 5, 12 to 14).

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

use super::{
    address_label, address_new, address_timelock, change_password, config, configget, configset,
    create, direct_send, display, estimate_fee, fees, fidelity_bonds, freeze, freeze_batch,
    getinfo, getrescaninfo, getseed, health, history, jam, listwallets, lock, logout, maker_start,
    maker_stop, obwatch, openapi, recover, rescan, rounds, session, signmessage, taker_coinjoin,
    taker_schedule, taker_status, taker_stop, token, tumbler, unlock, update, utxos,
    yieldgen_report,
};
use crate::app::AppState;
use crate::error::ApiError;
use crate::websocket;

type Routes = Router<Arc<AppState>>;

/// The calls under `/api/v1`.
fn v1() -> Routes {
    Router::new()
        .route("/getinfo", get(getinfo::handle))
        .route("/health", get(health::handle))
        .route("/openapi.yaml", get(openapi::handle))
        .route("/session", get(session::handle))
        .route("/token", post(token::handle))
        .route("/logout", post(logout::handle))
        .route("/logs", get(jam::log))
        .route("/config", get(config::handle))
        .route("/fees", get(fees::handle))
        .route("/update", get(update::show).post(update::upload))
        .route("/update/restart", post(update::restart))
        .route("/ws", get(websocket::upgrade))
        .route("/wallet/all", get(listwallets::handle))
        .route("/wallet/create", post(create::handle))
        .route("/wallet/recover", post(recover::handle))
        .route("/wallet/yieldgen/report", get(yieldgen_report::handle))
        .nest("/wallet/{walletname}", wallet())
}

/// A call that clients make with GET although it changes something; POST is the careful way.
fn effect<H, T>(handler: H) -> MethodRouter<Arc<AppState>>
where
    H: axum::handler::Handler<T, Arc<AppState>> + Clone,
    T: 'static,
{
    get(handler.clone()).post(handler)
}

/// The calls about one wallet.
fn wallet() -> Routes {
    Router::new()
        .route("/unlock", post(unlock::handle))
        .route("/lock", effect(lock::handle))
        .route("/display", get(display::handle))
        .route("/utxos", get(utxos::handle))
        .route("/address/new/{mixdepth}", effect(address_new::handle))
        .route("/address/timelock/new/{lockdate}", get(address_timelock::handle))
        .route("/address/label", post(address_label::handle))
        .route("/getseed", get(getseed::handle))
        .route("/change-password", post(change_password::handle))
        .route("/freeze", post(freeze::handle))
        .route("/freeze-batch", post(freeze_batch::handle))
        .route("/fidelity-bonds", get(fidelity_bonds::handle))
        .route("/estimate-fee", post(estimate_fee::handle))
        .route("/taker/direct-send", post(direct_send::handle))
        .route("/taker/coinjoin", post(taker_coinjoin::handle))
        .route("/taker/schedule", get(taker_schedule::show).post(taker_schedule::start))
        .route("/taker/status", get(taker_status::handle))
        .route("/taker/stop", effect(taker_stop::handle))
        .route("/maker/start", post(maker_start::handle))
        .route("/maker/stop", effect(maker_stop::handle))
        .route("/tumbler/plan", post(tumbler::plan).merge(delete(tumbler::delete)))
        .route("/tumbler/status", get(tumbler::status))
        .route("/tumbler/start", post(tumbler::start))
        .route("/tumbler/stop", post(tumbler::stop))
        .route("/configget", post(configget::handle))
        .route("/configset", post(configset::handle))
        .route("/rescanblockchain/{blockheight}", effect(rescan::handle))
        .route("/getrescaninfo", get(getrescaninfo::handle))
        .route("/signmessage", post(signmessage::handle))
        .route("/history", get(history::handle))
        .route("/rounds", get(rounds::handle))
}

/// The order book's paths.
fn obwatch_routes() -> Routes {
    Router::new()
        .route("/orderbook.json", get(obwatch::orderbook))
        .route("/refreshorderbook", effect(obwatch::refresh))
}

/// Every route of the order book's own port. Some proxies cut the prefix off, others leave it.
pub(crate) fn order_book() -> Routes {
    obwatch_routes()
        .nest("/obwatch", obwatch_routes())
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
}

/// Every route of the RPC port, without the static files.
pub(crate) fn api() -> Routes {
    Router::new()
        .nest("/api/v1", v1())
        .route("/health", get(health::handle))
        .route("/jmws", get(websocket::upgrade))
        .route("/ws", get(websocket::upgrade))
        .nest("/obwatch", obwatch_routes())
        .route("/jam/api/v0/features", get(jam::features))
        .route("/jam/api/v0/info", get(jam::info))
        .route("/jam/api/v0/log/jmwalletd_stdout.log", get(jam::log))
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
}
