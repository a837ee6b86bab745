//! Answers that a client has already (`spec/api.md` Appendix C 14): `/display` and `/utxos` of a large wallet are
//! long, asked for often, and rarely new.
//!
//! `Cache-Control` forbids keeping them on disk all the same: the tag is for clients that remember the last answer
//! themselves and send `If-None-Match`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

/// Names one state of one answer. Equal tags mean equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(String);

impl Tag {
    /// A tag out of all that the answer depends on: which loading of which wallet (revisions begin anew with each),
    /// the revision of its snapshot, and one more number.
    pub(crate) fn new(loading: u64, revision: u64, other: u64) -> Self {
        Self(format!("\"{loading:016x}-{revision:x}-{other:x}\""))
    }

    /// Whether the client says that it has this state.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(str::trim)
            // Proxies that compress make tags weak.
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.0)
    }
}

/// The answer with its tag, or 304 without a body when the client has it.
pub(crate) fn unless_known<T: Serialize>(
    headers: &HeaderMap,
    tag: &Tag,
    body: impl FnOnce() -> T,
) -> Response {
    let mut response = if tag.is_known(headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(body()).into_response()
    };
    // Digits and letters: always a good header value.
    if let Ok(value) = HeaderValue::from_str(&tag.0) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_lists_strong_or_weak() {
        let tag = Tag::new(1, 2, 3);
        for (value, known) in [
            ("\"0000000000000001-2-3\"", true),
            ("W/\"0000000000000001-2-3\"", true),
            ("\"a\", \"0000000000000001-2-3\" ,\"b\"", true),
            ("*", true),
            ("", false),
            ("0000000000000001-2-3", false),
            ("\"0000000000000001-2-4\"", false),
            ("\"0000000000000001-2-3", false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
            assert_eq!(tag.is_known(&headers), known, "{value}");
        }
        assert!(!tag.is_known(&HeaderMap::new()));
        let different = [(2, 2, 3), (1, 1, 3), (1, 2, 1), (1, 0x23, 0)];
        assert!(different.into_iter().all(|(a, b, c)| Tag::new(a, b, c) != tag));
    }
}
