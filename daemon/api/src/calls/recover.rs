//! `POST /wallet/recover` (`spec/api.md` 6.6): a wallet from its words. A discovery scan starts by itself.

use axum::Json;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{App, State, create};
use crate::body::RawBody;
use crate::error::ApiError;

/// Longest phrase that is looked at, bytes: 24 words of 8 letters with generous white space.
const MAX_PHRASE: usize = 1024;

/// Widest scan window that can be asked for.
const MAX_SCAN_RANGE: i64 = 10_000;

pub(super) async fn handle(
    State(app): App,
    body: RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    app.check_none_loaded()?;
    let mut body = body.object()?;
    let mut new = create::common(&mut body)?;
    let phrase = body.take_secret("seedphrase")?;
    let shown = phrase.expose_secret().trim().to_owned();
    if shown.is_empty() || shown.len() > MAX_PHRASE {
        return Err(ApiError::invalid("seedphrase"));
    }
    let words: Vec<String> = shown.split_whitespace().map(str::to_lowercase).collect();
    new.phrase = Some(SecretString::from(words.join(" ")));
    new.scan_range = match body.optional_int("scan_range")? {
        None => None,
        Some(range @ 1..=MAX_SCAN_RANGE) => u32::try_from(range).ok(),
        Some(_) => return Err(ApiError::invalid("scan_range")),
    };
    create::make(&app, new, Some(shown)).await
}
