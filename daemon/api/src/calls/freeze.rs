//! `POST /wallet/{walletname}/freeze` (`spec/api.md` 6.14).

use axum::Json;
use joinery_wallet::bitcoin::OutPoint;
use serde_json::json;

use super::{Answer, App, Params, State, outpoint};
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;

/// One flag of a request.
pub(super) fn flag(body: &Object) -> Result<(OutPoint, bool), ApiError> {
    Ok((outpoint(body.string("utxo-string")?, "utxo-string")?, body.boolean("freeze")?))
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let change = flag(&body.object()?)?;
    let wallet = app.loaded(&name)?;
    if app.activity.current().is_some() {
        return Err(ApiError::ActionNotAllowed);
    }
    wallet.handle.set_frozen(vec![change]).await?;
    Ok(Json(json!({})))
}
