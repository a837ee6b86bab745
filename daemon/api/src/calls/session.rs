//! `GET /session` (`spec/api.md` 6.3): what every client polls. Answers from what is in memory; nothing
//! here may wait for the wallet, the disk or the network.

use axum::Json;
use joinery_wallet::service::SessionMode;
use serde::Serialize;
use serde_json::Value;

use super::{App, State};
use crate::activity::Role;
use crate::app::AppState;
use crate::auth::MaybeAuthenticated;
use crate::roles::{MakerExtras, offer_list};

/// A certificate that ends within this many seconds is warned about: 30 days.
const CERTIFICATE_WARNING: u64 = 30 * 86_400;

/// The wire name of "no wallet"; old clients compare with it.
const NO_WALLET: &str = "None";

#[derive(Debug, Serialize)]
pub(super) struct Session {
    session: bool,
    maker_running: bool,
    coinjoin_in_process: bool,
    wallet_name: String,
    schedule: Option<Value>,
    offer_list: Option<Vec<Value>>,
    nickname: Option<String>,
    rescanning: bool,
    block_height: Option<u32>,
    /// Additive: the server is connected, and the loaded wallet has caught up with it.
    backend_synced: bool,
    /// Additive: conditions that a person should know of.
    warnings: Vec<&'static str>,
    /// Additive: the wallet was opened at the box without its password, for earning only.
    maker_only: bool,
    #[serde(flatten)]
    maker: MakerExtras,
}

/// Conditions that a person should know of, as codes.
pub(crate) fn warnings(app: &AppState) -> Vec<&'static str> {
    let chain = app.chain_status();
    let mut warnings = Vec::new();
    if !chain.configured {
        warnings.push("backend_not_configured");
    } else if !chain.connected {
        warnings.push("backend_down");
    }
    if chain.public_server {
        warnings.push("public_server");
    }
    if chain.foreign_server {
        warnings.push("foreign_server");
    }
    let end = app.config.certificate_end.as_ref().and_then(|end| end());
    if end.is_some_and(|end| end < app.config.clock.wall().saturating_add(CERTIFICATE_WARNING)) {
        warnings.push("certificate_expires");
    }
    warnings.extend(app.order_book.problem());
    warnings
}

pub(super) async fn handle(
    State(app): App,
    MaybeAuthenticated(authenticated): MaybeAuthenticated,
) -> Json<Session> {
    let wallet = app.wallet.load_full();
    let snapshot = wallet.as_ref().map(|wallet| wallet.snapshot());
    let role = app.activity.current();
    let maker = app.board.maker().filter(|_| role == Some(Role::Maker));
    let height = || {
        let known = snapshot.as_ref().and_then(|snapshot| snapshot.height());
        known.or_else(|| app.chain_status().tip.map(|tip| tip.height))
    };
    Json(Session {
        session: wallet.is_some(),
        maker_running: role == Some(Role::Maker),
        coinjoin_in_process: role == Some(Role::Taker),
        wallet_name: wallet.as_ref().map_or(NO_WALLET, |wallet| wallet.handle.name()).to_owned(),
        // The tumbler's.
        schedule: None,
        offer_list: maker.as_ref().filter(|_| authenticated).map(|maker| offer_list(&maker.offers)),
        nickname: maker.as_ref().filter(|_| authenticated).map(|maker| maker.nick.to_string()),
        rescanning: snapshot.as_ref().is_some_and(|snapshot| snapshot.sync.scanning.is_some()),
        block_height: if authenticated { height() } else { None },
        backend_synced: app.chain_status().connected
            && snapshot.as_ref().is_none_or(|snapshot| snapshot.sync.complete),
        warnings: warnings(&app),
        maker_only: wallet
            .as_ref()
            .is_some_and(|wallet| wallet.handle.mode() == SessionMode::MakerOnly),
        maker: MakerExtras::new(
            maker.as_deref().filter(|_| authenticated),
            app.board.maker_error().filter(|_| authenticated),
        ),
    })
}
