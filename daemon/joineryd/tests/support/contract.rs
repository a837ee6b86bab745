//! Holds each answer that the tests see against the published OpenAPI document.

use std::sync::OnceLock;

use joinery_api::contract::Contract;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};

/// Panics when an answer is not what the document promises. Paths outside of the document (static files, helper
/// pages) are not its business.
pub fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    let contract = CONTRACT.get_or_init(Contract::new);
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if let Err(violation) = contract.check(method.as_str(), path, status.as_u16(), kind, body) {
        panic!("{violation}");
    }
}
