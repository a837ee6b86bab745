//! `POST /token` (`spec/api.md` 6.2): a fresh pair for a refresh token.

use axum::Json;
use http::HeaderMap;
use serde_json::Value;

use super::{Answer, App, State};
use crate::auth::{TokenPair, bearer};
use crate::body::{Object, RawBody};
use crate::error::{ApiError, RefreshError, TokenError};

/// The token answer shared by login and refresh.
pub(super) fn with_wallet(name: &str, tokens: &TokenPair) -> Value {
    let mut body = serde_json::to_value(tokens).unwrap_or_default();
    body["walletname"] = Value::String(name.to_owned());
    body
}

fn refresh_token(body: &Object) -> Result<&str, RefreshError> {
    let text = |key| body.get(key).and_then(Value::as_str).ok_or(RefreshError::Request);
    let grant_type = text("grant_type")?;
    let token = text("refresh_token")?;
    if grant_type != "refresh_token" {
        return Err(RefreshError::GrantType);
    }
    Ok(token)
}

pub(super) async fn handle(State(app): App, headers: HeaderMap, body: RawBody) -> Answer {
    let header = bearer(&headers).ok_or(TokenError::Missing)?;
    let object = body.object();
    // A phone app sends its refresh token in the header, and nothing or the same in the body.
    let same =
        |object: &Object| object.get("refresh_token").and_then(Value::as_str) == Some(header);
    let in_header = match &object {
        Ok(object) => same(object),
        Err(_) => body.is_empty(),
    };
    let token = if in_header && app.tokens.is_good_refresh_token(header) {
        header
    } else {
        app.tokens.check_even_expired(header)?;
        let object = object.as_ref().map_err(|_| RefreshError::Request)?;
        refresh_token(object)?
    };
    let (name, tokens) = app.tokens.refresh(token).map_err(ApiError::from)?;
    Ok(Json(with_wallet(&name, &tokens)))
}
