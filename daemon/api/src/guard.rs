//! What every request passes on its way in and every answer on its way out: host and origin checks, CORS,
//! headers that forbid caching, a last resort against panics, a span that every log line of the request carries (`spec/api.md` 1.4, 1.5).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::app::AppState;
use crate::error::ApiError;
use crate::origin::{self, Origin};

/// On every answer. Balances and seeds must not stay in a browser's cache, and a click must not come from
/// a frame of another page.
const ALWAYS: [(HeaderName, &str); 9] = [
    (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    (header::PRAGMA, "no-cache"),
    (header::EXPIRES, "Sat, 26 Jul 1997 05:00:00 GMT"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=()",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Number of the next request, for the log.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Wraps a router.
pub(crate) fn wrap(router: Router, app: &Arc<AppState>) -> Router {
    survive_panics(router).layer(from_fn_with_state(Arc::clone(app), around))
}

/// Turns panics into answers.
pub(crate) fn survive_panics(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
        // The panic's text went to the log by way of the panic hook.
        ApiError::Internal("panic").into_response()
    }))
}

async fn around(State(app): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    // The pattern, not the path: paths hold wallet names.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let origin = origin::judge(&app.config, request.headers(), request.uri());
    let origin_text = request.headers().get(header::ORIGIN).cloned();
    let span = tracing::info_span!(
        "request",
        id = NEXT.fetch_add(1, Ordering::Relaxed),
        %method,
        route = route.as_deref().unwrap_or("none"),
    );
    let mut response = answer(&app, origin, request, next).instrument(span.clone()).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let (Origin::Allowed, Some(text)) = (origin, origin_text) {
        let set = |headers: &mut http::HeaderMap, name, value| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, text);
        set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, "WWW-Authenticate");
        if method == Method::OPTIONS {
            set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE, OPTIONS");
            set(
                headers,
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, x-jm-authorization, content-type",
            );
        }
    }
    tracing::debug!(
        parent: &span,
        status = response.status().as_u16(),
        micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

async fn answer(app: &AppState, origin: Origin, request: Request, next: Next) -> Response {
    if !origin::host_is_ours(&app.config, request.headers(), request.uri()) {
        return ApiError::HostNotAllowed.into_response();
    }
    let method = request.method();
    if method == Method::OPTIONS {
        return (StatusCode::OK, Body::empty()).into_response();
    }
    // A foreign page can make a browser send a plain GET or POST without asking; it cannot read the
    // answer, but a POST has its effect, and a websocket can be read.
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let harmless = matches!(*method, Method::GET | Method::HEAD) && !upgrade;
    if origin == Origin::Foreign && !harmless {
        return ApiError::OriginNotAllowed.into_response();
    }
    next.run(request).await
}
