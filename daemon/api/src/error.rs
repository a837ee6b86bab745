//! Every way in which a call can fail, and the one function that turns each into an answer
//! (`spec/api.md` 2.2, 3.4, 6.2).
//!
//! The reference texts are kept to the byte because clients show and compare them; what they leave out
//! goes into the additive keys `error_code` and `details`.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use joinery_wallet::service::SendError;
use serde_json::{Value, json};

use crate::consent::Refusal;

/// Why a token on a protected route is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No usable header.
    #[error("No access token was provided.")]
    Missing,
    /// Right signature, but its time is over.
    #[error("The access token provided is expired.")]
    Expired,
    /// Anything else that is wrong with it.
    #[error("The access token provided is revoked, malformed, or invalid for other reasons.")]
    Invalid,
    /// It was made for another wallet.
    #[error(
        "The request requires higher privileges (scopes) than provided by the scopes granted to the client and represented by the access token."
    )]
    Scope,
}

/// Why `POST /token` refuses; RFC 6749 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The body lacks something.
    #[error(
        "The request is missing a required parameter, includes an unsupported parameter value (other than grant type), repeats a parameter, includes multiple credentials, or is otherwise malformed."
    )]
    Request,
    /// `grant_type` is not `refresh_token`.
    #[error("The authorization grant type is not supported by the authorization server.")]
    GrantType,
    /// The refresh token is too old.
    #[error("The provided refresh_token is expired.")]
    Expired,
    /// The refresh token was made for another wallet.
    #[error(
        "The requested scope is invalid, unknown, malformed, or exceeds the scope granted by the resource owner."
    )]
    Scope,
    /// Anything else, used-up tokens included.
    #[error("The provided refresh_token is invalid, revoked, or was issued to another client.")]
    Invalid,
}

impl RefreshError {
    const fn code(self) -> &'static str {
        match self {
            Self::Request => "invalid_request",
            Self::GrantType => "unsupported_grant_type",
            Self::Expired | Self::Invalid => "invalid_grant",
            Self::Scope => "invalid_scope",
        }
    }
}

/// An answer other than success.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Direct send or freeze while a role runs.
    #[error("not allowed while a taker or maker runs")]
    ActionNotAllowed,
    /// The wallet is open for the maker only.
    #[error("the wallet is open for the maker only")]
    PasswordNeeded,
    /// Body or parameter invalid.
    #[error("invalid {field}: {code}")]
    InvalidRequest {
        /// Which field or parameter.
        field: &'static str,
        /// Stable code for programs.
        code: &'static str,
        /// For people; may be shown to the client, never holds a secret.
        reason: Option<String>,
    },
    /// `signmessage` without a path.
    #[error("no path to sign with")]
    SignWithoutPath,
    /// `signmessage` without a message.
    #[error("no message to sign")]
    SignWithoutMessage,
    /// Wrong password.
    #[error("wrong password")]
    InvalidCredentials,
    /// Token trouble.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Refresh trouble.
    #[error(transparent)]
    Refresh(#[from] RefreshError),
    /// No wallet is loaded, or the file to load is none; the code says which.
    #[error("no wallet: {0}")]
    NoWallet(&'static str),
    /// The yield generator report does not exist.
    #[error("no yield generator report")]
    NoReport,
    /// Something else runs.
    #[error("a role is already running")]
    ServiceAlreadyStarted,
    /// Something else runs, in the tumbler's words.
    #[error("a role is already running")]
    ScheduleBusy,
    /// Nothing to stop.
    #[error("no such role is running")]
    ServiceNotStarted,
    /// Create or recover while a wallet is loaded.
    #[error("a wallet is already unlocked")]
    WalletAlreadyUnlocked,
    /// The file exists.
    #[error("the wallet file exists")]
    WalletAlreadyExists,
    /// Another process holds the wallet.
    #[error("the wallet is locked by another process")]
    LockExists,
    /// A wallet's data cannot be read or written: what was asked for was not done.
    #[error("storage failed: {0}")]
    Storage(&'static str),
    /// Unknown or unset configuration value.
    #[error("config value not present")]
    ConfigNotPresent,
    /// A payment was not made.
    #[error("transaction failed: {code}")]
    TransactionFailed {
        /// Stable code for programs.
        code: &'static str,
        /// Numbers and texts that explain it.
        details: Value,
    },
    /// A payment may or may not have been sent.
    #[error("it is unknown whether the transaction was sent")]
    SendUncertain,
    /// Nothing a maker could offer.
    #[error("no confirmed coins for the maker")]
    NoCoinsForMaker,
    /// The smallest amount offered is above the largest that could be.
    #[error("minsize {minsize} exceeds maxsize {maxsize}")]
    MinsizeTooLarge {
        /// Satoshi.
        minsize: u64,
        /// Satoshi.
        maxsize: u64,
    },
    /// A coinjoin that cannot work; found before anybody was asked.
    #[error("coinjoin cannot be made: {code}")]
    CoinjoinImpossible {
        /// Stable code for programs.
        code: &'static str,
        /// The sentence; never holds a secret.
        text: String,
    },
    /// It had to be approved at the box and was not.
    #[error("not approved at the box: {0}")]
    NotApproved(#[from] Refusal),
    /// Nothing to tumble.
    #[error("no confirmed coins for the tumbler")]
    NoCoinsForTumbler,
    /// No schedule to show.
    #[error("no schedule is running")]
    NoSchedule,
    /// No tumbler plan to show, start or delete.
    #[error("no tumbler plan")]
    NoPlan,
    /// The server, or the part of the program that would do the work, is not there; the code says which.
    #[error("backend not ready: {0}")]
    BackendNotReady(&'static str),
    /// Too many wrong passwords.
    #[error("too many password attempts")]
    TooManyAttempts {
        /// When to try again.
        retry_after: Duration,
    },
    /// The body is above the limit.
    #[error("body too large")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("the body took too long")]
    RequestTimeout,
    /// No such route.
    #[error("no such route")]
    NotFound,
    /// No such method on that route.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The Host header is none of ours.
    #[error("host not allowed")]
    HostNotAllowed,
    /// The Origin header is of a page that is none of ours.
    #[error("origin not allowed")]
    OriginNotAllowed,
    /// An upgrade was expected.
    #[error("not a websocket handshake")]
    NotAWebsocket,
    /// This installation keeps no log that could be shown.
    #[error("no log")]
    NoLog,
    /// It is not the moment, or not the machine, for an update.
    #[error("update not possible: {code}")]
    UpdateImpossible {
        /// Stable code for programs.
        code: &'static str,
        /// The sentence.
        text: &'static str,
    },
    /// Our own fault, or the disk's. The log has the cause.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// What an answer is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorParts {
    /// HTTP status.
    pub status: StatusCode,
    /// `message`: the reference text.
    pub message: Cow<'static, str>,
    /// `error_code`: snake case.
    pub code: &'static str,
    /// `details`.
    pub details: Option<Value>,
    /// `error_description`, for `/token` only.
    pub description: Option<String>,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

impl ErrorParts {
    const fn new(status: StatusCode, message: &'static str, code: &'static str) -> Self {
        Self {
            status,
            message: Cow::Borrowed(message),
            code,
            details: None,
            description: None,
            challenge: None,
            retry_after: None,
        }
    }

    fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl ApiError {
    /// This machine is not updated by bundles.
    pub(crate) const UPDATE_NOT_SUPPORTED: Self = Self::UpdateImpossible {
        code: "update_not_supported",
        text: "This machine is not updated here, but by the packages of its system.",
    };
    /// Another bundle arrives or is being installed.
    pub(crate) const UPDATE_IN_PROGRESS: Self = Self::UpdateImpossible {
        code: "update_in_progress",
        text: "Another update is under way; wait for its end.",
    };
    /// There is nothing to restart into.
    pub(crate) const UPDATE_NOT_INSTALLED: Self = Self::UpdateImpossible {
        code: "update_not_installed",
        text: "No update waits for a restart.",
    };

    /// An invalid field or parameter without more to say.
    #[must_use]
    pub const fn invalid(field: &'static str) -> Self {
        Self::InvalidRequest { field, code: "invalid_request_format", reason: None }
    }

    /// An invalid field with a code of its own and a sentence.
    #[must_use]
    pub fn invalid_because(
        field: &'static str,
        code: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self::InvalidRequest { field, code, reason: Some(reason.into()) }
    }

    /// Wallet files or the wallet's store failed. Logs the error, which names files.
    pub(crate) fn storage(error: &(dyn std::error::Error + 'static)) -> Self {
        use std::io::ErrorKind as K;
        tracing::error!(error, "wallet storage failed");
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let full = causes.any(|error| {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            matches!(kind, Some(K::StorageFull | K::QuotaExceeded | K::FileTooLarge))
        });
        Self::Storage(if full { "storage_full" } else { "storage_failed" })
    }

    /// The answer. The only place where texts and statuses are decided.
    #[must_use]
    #[allow(clippy::too_many_lines)] // a table
    pub fn parts(&self) -> ErrorParts {
        use StatusCode as S;
        let new = ErrorParts::new;
        match self {
            Self::ActionNotAllowed => {
                new(S::BAD_REQUEST, "Action not allowed", "action_not_allowed")
            }
            Self::PasswordNeeded => new(
                S::CONFLICT,
                "The wallet was opened at the box, for earning only. Unlock it with the password.",
                "password_needed",
            ),
            Self::InvalidRequest { field, code, reason } => {
                let details = match reason {
                    Some(reason) => json!({"field": field, "reason": reason}),
                    None => json!({"field": field}),
                };
                new(S::BAD_REQUEST, "Invalid request format.", code).details(details)
            }
            Self::SignWithoutPath => {
                new(S::BAD_REQUEST, "Error: no key path for signing specified", "no_key_path")
            }
            Self::SignWithoutMessage => {
                new(S::BAD_REQUEST, "Error: no message specified", "no_message")
            }
            Self::InvalidCredentials => {
                new(S::UNAUTHORIZED, "Invalid credentials.", "invalid_credentials")
            }
            Self::Token(error) => {
                let (status, code) = match error {
                    TokenError::Scope => (S::FORBIDDEN, "insufficient_scope"),
                    _ => (S::UNAUTHORIZED, "invalid_token"),
                };
                let text = error.to_string();
                ErrorParts {
                    challenge: Some(format!(
                        "Bearer, error=\"{code}\", error_description=\"{text}\""
                    )),
                    message: Cow::Owned(text),
                    ..new(status, "", code)
                }
            }
            Self::Refresh(error) => ErrorParts {
                description: Some(error.to_string()),
                ..new(S::BAD_REQUEST, error.code(), error.code())
            },
            Self::NoWallet(reason) => new(S::NOT_FOUND, "No wallet loaded.", "no_wallet")
                .details(json!({"reason": reason})),
            Self::NoReport => new(
                S::NOT_FOUND,
                "Yield generator report not available.",
                "no_yield_generator_report",
            ),
            Self::ServiceAlreadyStarted => {
                new(S::UNAUTHORIZED, "Service already started.", "service_already_started")
            }
            Self::ScheduleBusy => {
                new(S::CONFLICT, "Service already started.", "service_already_started")
            }
            Self::ServiceNotStarted => new(
                S::UNAUTHORIZED,
                "Service cannot be stopped as it is not running.",
                "service_not_started",
            ),
            Self::WalletAlreadyUnlocked => {
                new(S::UNAUTHORIZED, "Wallet already unlocked.", "wallet_already_unlocked")
            }
            Self::WalletAlreadyExists => {
                new(S::CONFLICT, "Wallet file cannot be overwritten.", "wallet_already_exists")
            }
            Self::LockExists => {
                new(S::CONFLICT, "Wallet cannot be created/opened, it is locked.", "wallet_in_use")
            }
            Self::ConfigNotPresent => new(
                S::CONFLICT,
                "Action cannot be performed, config vars are not set.",
                "config_not_present",
            ),
            Self::TransactionFailed { code, details } => {
                new(S::CONFLICT, "Transaction failed.", code).details(details.clone())
            }
            Self::SendUncertain => new(
                S::SERVICE_UNAVAILABLE,
                "The payment was made, but the server did not confirm that it got it. It will be sent again by itself: do not repeat it.",
                "send_uncertain",
            ),
            Self::NoCoinsForMaker => {
                new(S::CONFLICT, "Maker could not start, no confirmed coins.", "no_coins_for_maker")
            }
            Self::MinsizeTooLarge { minsize, maxsize } => new(
                S::CONFLICT,
                "Maker could not start, minsize exceeds the available balance.",
                "minsize_too_large",
            )
            .details(json!({"minsize": minsize, "maxsize": maxsize})),
            Self::CoinjoinImpossible { code, text } => {
                let sentence = Cow::Owned(format!("Coinjoin not possible: {text}."));
                ErrorParts { message: sentence, ..new(S::CONFLICT, "", code) }
            }
            Self::NotApproved(refusal) => ErrorParts {
                message: Cow::Owned(refusal.to_string()),
                ..new(S::CONFLICT, "", refusal.code())
            },
            Self::NoCoinsForTumbler => new(
                S::CONFLICT,
                "Tumbler could not start, no confirmed coins.",
                "no_coins_for_tumbler",
            ),
            Self::NoSchedule => new(S::NOT_FOUND, "No schedule is running.", "no_schedule"),
            Self::NoPlan => new(S::NOT_FOUND, "No tumbler plan exists.", "no_plan"),
            Self::BackendNotReady(reason) => {
                new(S::SERVICE_UNAVAILABLE, "Backend daemon not available", "backend_not_ready")
                    .details(json!({"reason": reason}))
            }
            Self::TooManyAttempts { retry_after } => {
                // Rounded up: a client that waits this long is let in.
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                ErrorParts {
                    retry_after: Some(seconds),
                    ..new(
                        S::TOO_MANY_REQUESTS,
                        "Too many password attempts, try again later.",
                        "too_many_attempts",
                    )
                }
                .details(json!({"retry_after": seconds}))
            }
            Self::BodyTooLarge => {
                new(S::PAYLOAD_TOO_LARGE, "Request body too large.", "body_too_large")
            }
            Self::RequestTimeout => {
                new(S::REQUEST_TIMEOUT, "Request timed out.", "request_timeout")
            }
            Self::NotFound => new(S::NOT_FOUND, "Not found.", "not_found"),
            Self::MethodNotAllowed => {
                new(S::METHOD_NOT_ALLOWED, "Method not allowed.", "method_not_allowed")
            }
            Self::HostNotAllowed => new(S::FORBIDDEN, "Host not allowed.", "host_not_allowed"),
            Self::OriginNotAllowed => {
                new(S::FORBIDDEN, "Origin not allowed.", "origin_not_allowed")
            }
            Self::NotAWebsocket => {
                new(S::BAD_REQUEST, "Websocket handshake expected.", "not_a_websocket")
            }
            Self::NoLog => new(S::NOT_FOUND, "Log not available.", "no_log"),
            Self::Storage(code) => new(
                S::INTERNAL_SERVER_ERROR,
                match *code {
                    "storage_full" => {
                        "The disk is full. Nothing was done; free some space and try again."
                    }
                    _ => "The wallet's data cannot be read or written. Nothing was done.",
                },
                code,
            ),
            Self::UpdateImpossible { code, text } => new(S::CONFLICT, text, code),
            Self::Internal(code) => new(S::INTERNAL_SERVER_ERROR, "Internal server error.", code),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(code) = &self {
            tracing::error!(code, "internal error");
        }
        let parts = self.parts();
        let mut body = json!({"message": parts.message, "error_code": parts.code});
        if let Some(details) = parts.details {
            body["details"] = details;
        }
        if let Some(description) = parts.description {
            body["error_description"] = Value::String(description);
        }
        let mut response = (parts.status, axum::Json(body)).into_response();
        let challenge = parts.challenge.and_then(|text| HeaderValue::try_from(text).ok());
        if let Some(value) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = parts.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let failed = |code, details| Self::TransactionFailed { code, details };
        match error {
            SendError::NoSuchMixdepth(_) => Self::invalid("mixdepth"),
            SendError::InsufficientFunds { wanted, available, frozen } => failed(
                "insufficient_funds",
                json!({"wanted_sats": wanted, "available_sats": available, "frozen_sats": frozen}),
            ),
            SendError::NothingToSweep(mixdepth) => {
                failed("nothing_to_sweep", json!({"mixdepth": mixdepth.0}))
            }
            SendError::DustOutput { value, limit } => {
                failed("dust_output", json!({"value_sats": value, "limit_sats": limit}))
            }
            SendError::UnusableInput { outpoint, reason } => Self::invalid_because(
                "input_utxos",
                "unusable_input",
                format!("{outpoint}: {reason}"),
            ),
            SendError::BadInputList => Self::invalid("input_utxos"),
            SendError::AbsurdFee { rate, limit } => failed(
                "absurd_fee",
                json!({"fee_rate_sat_kvb": rate, "limit_sat_kvb": limit,
                    "reason": SendError::AbsurdFee { rate, limit }.to_string()}),
            ),
            SendError::FeeAboveLimit { fee, limit } => {
                failed("fee_above_limit", json!({"fee_sats": fee, "limit_sats": limit}))
            }
            SendError::SigningCheck(what) => failed("signing_failed", json!({"reason": what})),
            SendError::Chain(error) => {
                tracing::warn!(error = %error, "chain not available for a payment");
                Self::BackendNotReady("electrum")
            }
            SendError::Rejected { text } => failed("broadcast_rejected", json!({"reason": text})),
            SendError::Uncertain => Self::SendUncertain,
            SendError::Store(error) => Self::storage(&error),
            SendError::Closed => Self::NoWallet("locked_meanwhile"),
            SendError::MakerOnly => Self::PasswordNeeded,
            other => {
                tracing::error!(error = %other, "payment failed");
                Self::Internal("send_failed")
            }
        }
    }
}

#[cfg(test)]
mod tests;
