//! `POST /wallet/{walletname}/freeze-batch` (`spec/api.md` 14.7): several flags, all or none.

use std::collections::HashMap;

use axum::Json;
use joinery_wallet::bitcoin::OutPoint;
use serde_json::{Value, json};

use super::{Answer, App, MAX_LIST, Params, State, freeze};
use crate::auth::Authenticated;
use crate::body::{Object, RawBody};
use crate::error::ApiError;

/// The list, bare or under either of two names: the newest client's envelope is not known for sure.
fn changes(body: Value) -> Result<Vec<(OutPoint, bool)>, ApiError> {
    let list = match body {
        Value::Array(list) => list,
        Value::Object(mut map) => match (map.remove("utxos"), map.remove("entries")) {
            (Some(Value::Array(list)), None) | (None, Some(Value::Array(list))) => list,
            _ => return Err(ApiError::invalid("utxos")),
        },
        _ => return Err(ApiError::invalid("body")),
    };
    if list.len() > MAX_LIST {
        return Err(ApiError::invalid("utxos"));
    }
    let mut changes = Vec::with_capacity(list.len());
    let mut seen = HashMap::new();
    for entry in list {
        let Value::Object(map) = entry else { return Err(ApiError::invalid("utxos")) };
        let (coin, frozen) = freeze::flag(&Object::new(map))?;
        // Saying the same twice is harmless; saying both is not.
        match seen.insert(coin, frozen) {
            None => changes.push((coin, frozen)),
            Some(before) if before == frozen => {}
            Some(_) => return Err(ApiError::invalid("utxos")),
        }
    }
    Ok(changes)
}

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let changes = changes(body.value()?)?;
    let wallet = app.loaded(&name)?;
    if app.activity.current().is_some() {
        return Err(ApiError::ActionNotAllowed);
    }
    if !changes.is_empty() {
        wallet.handle.set_frozen(changes).await?;
    }
    Ok(Json(json!({})))
}
