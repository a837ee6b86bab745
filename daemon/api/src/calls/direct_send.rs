//! `POST /wallet/{walletname}/taker/direct-send` (`spec/api.md` 6.15): an ordinary payment.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;
use http::HeaderMap;
use joinery_wallet::service::{SendRequest, WalletHandle};
use serde_json::json;

use super::{
    App, Params, State, amount, bitcoin_network, idempotency_key, input_utxos, mixdepth,
    payment_address, txfee,
};
use crate::app::AppState;
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::consent::{Asked, Payment, quote};
use crate::dto::transaction::tx_details;
use crate::error::ApiError;
use crate::peer::Peer;
use crate::sends::SendKey;

pub(super) async fn handle(
    State(app): App,
    caller: Authenticated,
    Peer(from): Peer,
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
    let state = Arc::clone(&app);
    state
        .sends
        .submit(&state.tasks, key, || async move {
            // In here: what was paid before a role started is still told to who asks again.
            if app.activity.current().is_some() {
                return Err(ApiError::ActionNotAllowed);
            }
            let script = destination.script_pubkey();
            let mut request =
                SendRequest { mixdepth, amount, destination, fees, inputs, max_fee: None };
            if app.consent.needed_for_send(amount) {
                request = approved(&app, &handle, request, from).await?;
                // A role may have been started in the meantime.
                if app.activity.current().is_some() {
                    return Err(ApiError::ActionNotAllowed);
                }
            }
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

/// Shows the payment at the box and waits for the press; the request bound to what was shown.
async fn approved(
    app: &AppState,
    wallet: &WalletHandle,
    request: SendRequest,
    from: Option<IpAddr>,
) -> Result<SendRequest, ApiError> {
    app.consent.check_free()?;
    let snapshot = wallet.snapshot();
    let quote = quote(app, &snapshot, &request).await?;
    let payment = Payment {
        wallet: wallet.name().to_owned(),
        mixdepth: request.mixdepth,
        amount: quote.amount,
        sweep: request.amount.is_none(),
        destination: request.destination.clone(),
        own: snapshot.owns(&request.destination),
        fee_max: quote.fee_max,
        makers: None,
    };
    let approval = app.consent.ask(Asked::Send(Box::new(payment)), from).await?;
    app.consent.still_good(&approval)?;
    Ok(quote.bind(request))
}
