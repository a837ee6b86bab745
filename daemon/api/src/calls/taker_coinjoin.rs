//! `POST /wallet/{walletname}/taker/coinjoin` (`spec/api.md` 6.18). Everything is checked; the taker itself
//! is not part of this program yet, so where it would start the answer is 503.

use axum::Json;
use serde_json::Value;

use super::{App, Params, State, amount, input_utxos, mixdepth, payment_address, txfee};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::error::ApiError;

/// The word for "to the next mixdepth of this wallet".
const INTERNAL: &str = "INTERNAL";

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Result<Json<Value>, ApiError> {
    let body = body.object()?;
    amount(&body)?;
    txfee(&body)?;
    input_utxos(&body)?;
    if !(1..=99).contains(&body.int("counterparties")?) {
        return Err(ApiError::invalid("counterparties"));
    }
    let destination = body.string("destination")?;
    if destination != INTERNAL {
        payment_address(destination, app.directory.network(), "destination")?;
    }
    body.int("mixdepth")?;
    let wallet = app.loaded(&name)?;
    mixdepth(&body, &wallet.snapshot())?;
    if app.settings.maker_fee_limits().is_none() {
        return Err(ApiError::ConfigNotPresent);
    }
    if app.activity.current().is_some() {
        return Err(ApiError::ServiceAlreadyStarted);
    }
    Err(ApiError::BackendNotReady("taker_not_available"))
}
