//! The built browser wallet, served from a directory: unknown paths are the single page's own business
//! and get `index.html` (`spec/api.md` 1.3).

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::Method;
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

use crate::error::ApiError;

/// First path segments that are ours: what is unknown below them is unknown.
const RESERVED: [&str; 7] = ["api", "obwatch", "jam", "jmws", "ws", "health", ".well-known"];

fn is_reserved(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    RESERVED.iter().any(|reserved| first.eq_ignore_ascii_case(reserved))
}

/// Answers everything that no route answers.
pub(crate) fn fallback(router: Router, directory: Option<&Path>) -> Router {
    let Some(directory) = directory else {
        return router.fallback(|| async { ApiError::NotFound });
    };
    let files = ServeDir::new(directory).fallback(ServeFile::new(directory.join("index.html")));
    router.fallback(move |request: Request| serve(files.clone(), request))
}

async fn serve(files: ServeDir<ServeFile>, request: Request) -> Response {
    if is_reserved(request.uri().path()) {
        return ApiError::NotFound.into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::MethodNotAllowed.into_response();
    }
    match files.oneshot(request).await {
        // What is neither a file nor `index.html`, or a path that tries to climb out.
        Ok(response) if response.status().is_client_error() => ApiError::NotFound.into_response(),
        Ok(response) => response.map(Body::new),
        Err(infallible) => match infallible {},
    }
}
