//! `GET|POST /wallet/{walletname}/address/new/{mixdepth}` (`spec/api.md` 6.11): the next deposit address.

use axum::Json;
use joinery_wallet::types::{Branch, Mixdepth};
use serde_json::json;

use super::{Answer, App, Params, State, digits};
use crate::auth::Authenticated;

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params((name, mixdepth)): Params<(String, String)>,
) -> Answer {
    let wallet = app.loaded(&name)?;
    let mixdepth = Mixdepth(digits(&mixdepth, "mixdepth")?);
    let address = wallet.handle.issue_address(mixdepth, Branch::External).await?;
    Ok(Json(json!({"address": address.to_string()})))
}
