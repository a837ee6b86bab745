//! `GET /openapi.yaml`: this API, described for programs.

use axum::response::IntoResponse;
use http::header;

/// The document.
pub(crate) const DOCUMENT: &str = include_str!("../../openapi.yaml");

pub(super) async fn handle() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], DOCUMENT)
}
