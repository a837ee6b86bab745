//! The page itself: a form, no script.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use super::form::{FormError, LONGEST, SHORTEST};

/// On every answer.
const ALWAYS: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: browsers would hide the origin of the form.
    (header::REFERRER_POLICY, "same-origin"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

const STYLE: &str = "body{font:18px/1.5 sans-serif;max-width:32em;margin:3em auto;padding:0 1em;color:#222;background:#fff}\
    input,button{font:inherit;width:100%;box-sizing:border-box;padding:.5em;margin:.3em 0 1em}\
    .notice{border-left:.3em solid #c00;padding-left:.7em}";

/// What the page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no volume yet: a new password.
    Choose,
    /// The password.
    Enter,
    /// The volume is open.
    Opened,
}

/// What became of the last try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// What was sent is of no use.
    Form(FormError),
    /// The password is wrong.
    Wrong,
    /// Others are trying.
    Busy,
    /// There is too little space.
    NoSpace,
    /// Something went wrong.
    Failed,
}

impl Notice {
    fn status(self) -> StatusCode {
        match self {
            Self::Form(FormError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::Wrong => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Form(FormError::NoForm) => "That was not the form of this page.".to_owned(),
            Self::Form(FormError::NotText) => "That was not text in UTF-8.".to_owned(),
            Self::Form(FormError::Empty) => "Nothing was typed.".to_owned(),
            Self::Form(FormError::TooShort) => {
                format!("Too short: at least {SHORTEST} characters.")
            }
            Self::Form(FormError::TooLarge | FormError::TooLong) => {
                format!("Too long: at most {LONGEST} bytes.")
            }
            Self::Form(FormError::NotTheSame) => "Both are not the same.".to_owned(),
            Self::Wrong => "The password is wrong.".to_owned(),
            Self::Busy => "Other tries are under way. Wait a minute.".to_owned(),
            Self::NoSpace => "There is too little space on the card.".to_owned(),
            Self::Failed => {
                "The volume could not be used. Switch the box off and on, and try once more."
                    .to_owned()
            }
        }
    }
}

/// The page.
pub(super) fn answer(kind: Kind, notice: Option<Notice>) -> Response {
    let status = notice.map_or(StatusCode::OK, Notice::status);
    (status, Html(html(kind, notice))).into_response()
}

fn html(kind: Kind, notice: Option<Notice>) -> String {
    let notice = notice
        .map(|notice| format!("<p class=notice role=alert>{}</p>", notice.text()))
        .unwrap_or_default();
    let refresh =
        if kind == Kind::Opened { "<meta http-equiv=refresh content=\"20;url=/\">" } else { "" };
    let body = match kind {
        Kind::Choose => format!(
            "<p>Everything that this box keeps of your wallets will be encrypted with a password. The box asks for it \
             here whenever it was switched on.</p>\
             <p><strong>Nobody can bring it back.</strong> Without it, wallets come back from their seeds only.</p>{notice}\
             <form method=post action=/>\
             <label>New password, at least {SHORTEST} characters\
             <input type=password name=password minlength={SHORTEST} required autofocus autocomplete=new-password></label>\
             <label>Once more<input type=password name=again minlength={SHORTEST} required autocomplete=new-password></label>\
             <button>Encrypt and start</button></form><p>This takes a minute.</p>"
        ),
        Kind::Enter => format!(
            "<p>What this box keeps is encrypted. It starts when you type the password that you chose for it; that of a \
             wallet comes later.</p>{notice}\
             <form method=post action=/>\
             <label>Password<input type=password name=password required autofocus autocomplete=current-password></label>\
             <button>Start</button></form>"
        ),
        Kind::Opened => {
            "<p>The password is right: the box starts. In half a minute it is at <a href=/>this \
             address</a>, with another certificate: the one that the display shows.</p>"
                .to_owned()
        }
    };
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">{refresh}\
         <title>Joinery</title><style>{STYLE}</style></head><body><h1>Joinery</h1>{body}</body></html>\n"
    )
}

/// For supervisors, as the daemon's.
pub(super) fn health() -> Response {
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "state": "key-page"})).into_response()
}

/// For those who look for something else than the page.
pub(super) fn closed() -> Response {
    let message = "The box waits for the password of its encrypted volume: open / in a browser.";
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"message": message}))).into_response()
}

/// For those who should not be here.
pub(super) fn refused(text: &'static str) -> Response {
    (StatusCode::FORBIDDEN, text).into_response()
}

/// Adds what protects a page.
pub(super) fn protect(mut response: Response) -> Response {
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
