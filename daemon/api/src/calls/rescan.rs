//! `GET|POST /wallet/{walletname}/rescanblockchain/{blockheight}` (`spec/api.md` 6.24).

use axum::Json;
use serde_json::json;

use super::{Answer, App, Params, State, digits};
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params((name, height)): Params<(String, String)>,
) -> Answer {
    let wallet = app.loaded(&name)?;
    // Whole histories are asked for in any case: a height that is too high must not hide funds.
    digits::<u64>(&height, "blockheight")?;
    let now = app.settings.policy().load().gap_limit;
    let gap = now.max(wallet.snapshot().gap_limit);
    wallet.handle.rescan(gap).await?;
    Ok(Json(json!({"walletname": name})))
}
