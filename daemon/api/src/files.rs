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

/// First path segments that are ours: what is unknown below them is unknown. `/jam` alone is a page of the
/// browser wallet (its scheduler), which a reload must find again.
const RESERVED: [&str; 7] = ["api", "obwatch", "jam", "jmws", "ws", "health", ".well-known"];

fn is_reserved(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    path != "jam" && RESERVED.iter().any(|reserved| first.eq_ignore_ascii_case(reserved))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_wallet_are_not_ours_and_calls_are() {
        for page in [
            "/",
            "/jam",
            "/send",
            "/receive",
            "/earn",
            "/wallet",
            "/settings",
            "/rescan",
            "/apiary",
        ] {
            assert!(!is_reserved(page), "{page}");
        }
        for call in [
            "/api",
            "/api/v9",
            "/API/v1",
            "//api/v1",
            "/jam/",
            "/jam/api/v0/x",
            "/obwatch/x",
            "/jmws",
        ] {
            assert!(is_reserved(call), "{call}");
        }
    }
}
