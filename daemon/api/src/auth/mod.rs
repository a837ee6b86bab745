//! Who may call: bearer tokens and where they are looked for (`spec/api.md` 3).

mod hs256;
pub(crate) mod tokens;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

use crate::app::AppState;
use crate::error::{ApiError, TokenError};
pub use tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME};
pub(crate) use tokens::{Accepted, Epoch, Family, TokenPair, Tokens};

/// Headers in which a bearer token is looked for, in this order: the first that holds one counts. Browser
/// wallets leave `Authorization` to a proxy's HTTP Basic.
const HEADERS: [&str; 2] = ["x-jm-authorization", "authorization"];

/// The bearer token of a request, if any. Other schemes count as none.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    HEADERS.iter().flat_map(|name| headers.get_all(*name)).find_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    })
}

/// A caller with a good access token. As an argument it comes first, so that the token is checked before
/// anything else is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated(pub(crate) Accepted);

impl FromRequestParts<Arc<AppState>> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers).ok_or(TokenError::Missing)?;
        Ok(Self(app.tokens.check(token)?))
    }
}

/// A caller that may show a token; if it does, the token must be good.
#[derive(Debug, Clone)]
pub(crate) struct MaybeAuthenticated(pub(crate) bool);

impl FromRequestParts<Arc<AppState>> for MaybeAuthenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, ApiError> {
        match bearer(&parts.headers) {
            Some(token) => app.tokens.check(token).map(|_| Self(true)).map_err(ApiError::from),
            None => Ok(Self(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_token_in_the_right_header() {
        type Case = (&'static [(&'static str, &'static str)], Option<&'static str>);
        let cases: [Case; 12] = [
            (&[], None),
            (&[("authorization", "Bearer abc")], Some("abc")),
            (&[("authorization", "bearer abc")], Some("abc")),
            (&[("authorization", "BEARER  abc ")], Some("abc")),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "abc")], None),
            (&[("authorization", "Basic dTpw")], None),
            (&[("authorization", "Basic dTpw"), ("x-jm-authorization", "Bearer abc")], Some("abc")),
            (&[("authorization", "Bearer one"), ("x-jm-authorization", "Bearer two")], Some("two")),
            (&[("authorization", "Bearer one"), ("x-jm-authorization", "Basic two")], Some("one")),
            (&[("cookie", "Bearer abc")], None),
        ];
        for (headers, expected) in cases {
            let map: HeaderMap =
                headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            assert_eq!(bearer(&map), expected, "{headers:?}");
        }
    }
}
