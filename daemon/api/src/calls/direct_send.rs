//! `POST /wallet/{walletname}/taker/direct-send` (`spec/api.md` 6.15): an ordinary payment.

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;
use http::HeaderMap;
use joinery_wallet::service::SendRequest;
use serde_json::json;

use super::{
    App, Params, State, amount, bitcoin_network, idempotency_key, input_utxos, mixdepth,
    payment_address, txfee,
};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::dto::transaction::tx_details;
use crate::error::ApiError;
use crate::sends::SendKey;

pub(super) async fn handle(
    State(app): App,
    caller: Authenticated,
    Params(name): Params<String>,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, ApiError> {
    let request_name = idempotency_key(&headers)?;
    let object = body.object()?;
    // The shape of the whole body comes before the question which wallet it is for.
    let amount = amount(&object)?;
    let fees = txfee(&object)?;
    let inputs = input_utxos(&object)?;
    let text = object.string("destination")?.to_owned();
    let destination = payment_address(&text, app.directory.network(), "destination")?;
    object.int("mixdepth")?;
    let wallet = app.loaded(&name)?;
    let mixdepth = mixdepth(&object, &wallet.snapshot())?;
    let key = match request_name {
        Some(request_name) => SendKey::named(&name, request_name, &body.0),
        None => SendKey::new(caller.0.family, &body.0),
    };
    let handle = wallet.handle.clone();
    let network = bitcoin_network(&app);
    let activity = Arc::clone(&app.activity);
    app.sends
        .submit(&app.tasks, key, || async move {
            // In here: what was paid before a role started is still told to who asks again.
            if activity.current().is_some() {
                return Err(ApiError::ActionNotAllowed);
            }
            let script = destination.script_pubkey();
            let request = SendRequest { mixdepth, amount, destination, fees, inputs };
            let sent = handle.direct_send(request).await?;
            let txinfo = tx_details(&sent.transaction, network, None, Some((&script, &text)));
            let body = json!({
                "txinfo": txinfo,
                "details": {
                    "fee_sats": sent.fee,
                    "includes_expired_bond": sent.includes_expired_bond,
                },
            });
            Ok(Bytes::from(body.to_string()))
        })
        .await
}
