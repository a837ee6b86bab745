//! Every error has its answer: status, reference text, code, details.

use std::collections::HashSet;

use bdk_wallet::bitcoin::OutPoint;
use http_body_util::BodyExt;
use joinery_wallet::chain::ChainError;
use joinery_wallet::types::Mixdepth;

use super::*;

/// Status, message, `error_code` and details of every variant.
fn table() -> Vec<(ApiError, u16, &'static str, &'static str, Value)> {
    let seconds = Duration::from_millis;
    vec![
        (ApiError::ActionNotAllowed, 400, "Action not allowed", "action_not_allowed", Value::Null),
        (
            ApiError::PasswordNeeded,
            409,
            "The wallet was opened at the box, for earning only. Unlock it with the password.",
            "password_needed",
            Value::Null,
        ),
        (
            ApiError::invalid("mixdepth"),
            400,
            "Invalid request format.",
            "invalid_request_format",
            json!({"field": "mixdepth"}),
        ),
        (
            ApiError::invalid_because("destination", "bad_address", "no"),
            400,
            "Invalid request format.",
            "bad_address",
            json!({"field": "destination", "reason": "no"}),
        ),
        (
            ApiError::SignWithoutPath,
            400,
            "Error: no key path for signing specified",
            "no_key_path",
            Value::Null,
        ),
        (
            ApiError::SignWithoutMessage,
            400,
            "Error: no message specified",
            "no_message",
            Value::Null,
        ),
        (
            ApiError::InvalidCredentials,
            401,
            "Invalid credentials.",
            "invalid_credentials",
            Value::Null,
        ),
        (
            TokenError::Missing.into(),
            401,
            "No access token was provided.",
            "invalid_token",
            Value::Null,
        ),
        (
            TokenError::Expired.into(),
            401,
            "The access token provided is expired.",
            "invalid_token",
            Value::Null,
        ),
        (
            TokenError::Invalid.into(),
            401,
            "The access token provided is revoked, malformed, or invalid for other reasons.",
            "invalid_token",
            Value::Null,
        ),
        (
            TokenError::Scope.into(),
            403,
            "The request requires higher privileges (scopes) than provided by the scopes granted to the client and represented by the access token.",
            "insufficient_scope",
            Value::Null,
        ),
        (RefreshError::Request.into(), 400, "invalid_request", "invalid_request", Value::Null),
        (
            RefreshError::GrantType.into(),
            400,
            "unsupported_grant_type",
            "unsupported_grant_type",
            Value::Null,
        ),
        (RefreshError::Expired.into(), 400, "invalid_grant", "invalid_grant", Value::Null),
        (RefreshError::Scope.into(), 400, "invalid_scope", "invalid_scope", Value::Null),
        (RefreshError::Invalid.into(), 400, "invalid_grant", "invalid_grant", Value::Null),
        (
            ApiError::NoWallet("not_found"),
            404,
            "No wallet loaded.",
            "no_wallet",
            json!({"reason": "not_found"}),
        ),
        (
            ApiError::NoReport,
            404,
            "Yield generator report not available.",
            "no_yield_generator_report",
            Value::Null,
        ),
        (
            ApiError::ServiceAlreadyStarted,
            401,
            "Service already started.",
            "service_already_started",
            Value::Null,
        ),
        (
            ApiError::ScheduleBusy,
            409,
            "Service already started.",
            "service_already_started",
            Value::Null,
        ),
        (
            ApiError::ServiceNotStarted,
            401,
            "Service cannot be stopped as it is not running.",
            "service_not_started",
            Value::Null,
        ),
        (
            ApiError::WalletAlreadyUnlocked,
            401,
            "Wallet already unlocked.",
            "wallet_already_unlocked",
            Value::Null,
        ),
        (
            ApiError::WalletAlreadyExists,
            409,
            "Wallet file cannot be overwritten.",
            "wallet_already_exists",
            Value::Null,
        ),
        (
            ApiError::LockExists,
            409,
            "Wallet cannot be created/opened, it is locked.",
            "wallet_in_use",
            Value::Null,
        ),
        (
            ApiError::ConfigNotPresent,
            409,
            "Action cannot be performed, config vars are not set.",
            "config_not_present",
            Value::Null,
        ),
        (
            ApiError::TransactionFailed { code: "dust_output", details: json!({"a": 1}) },
            409,
            "Transaction failed.",
            "dust_output",
            json!({"a": 1}),
        ),
        (
            ApiError::SendUncertain,
            503,
            "The payment was made, but the server did not confirm that it got it. It will be sent again by itself: do not repeat it.",
            "send_uncertain",
            Value::Null,
        ),
        (
            ApiError::NoCoinsForMaker,
            409,
            "Maker could not start, no confirmed coins.",
            "no_coins_for_maker",
            Value::Null,
        ),
        (
            ApiError::MinsizeTooLarge { minsize: 2, maxsize: 1 },
            409,
            "Maker could not start, minsize exceeds the available balance.",
            "minsize_too_large",
            json!({"minsize": 2, "maxsize": 1}),
        ),
        (Refusal::Refused.into(), 409, "Refused at the box.", "approval_refused", Value::Null),
        (
            ApiError::CoinjoinImpossible { code: "insufficient_funds", text: "no".to_owned() },
            409,
            "Coinjoin not possible: no.",
            "insufficient_funds",
            Value::Null,
        ),
        (
            ApiError::NoCoinsForTumbler,
            409,
            "Tumbler could not start, no confirmed coins.",
            "no_coins_for_tumbler",
            Value::Null,
        ),
        (ApiError::NoSchedule, 404, "No schedule is running.", "no_schedule", Value::Null),
        (ApiError::NoPlan, 404, "No tumbler plan exists.", "no_plan", Value::Null),
        (
            ApiError::BackendNotReady("electrum"),
            503,
            "Backend daemon not available",
            "backend_not_ready",
            json!({"reason": "electrum"}),
        ),
        (
            ApiError::TooManyAttempts { retry_after: seconds(1500) },
            429,
            "Too many password attempts, try again later.",
            "too_many_attempts",
            json!({"retry_after": 2}),
        ),
        (ApiError::BodyTooLarge, 413, "Request body too large.", "body_too_large", Value::Null),
        (ApiError::RequestTimeout, 408, "Request timed out.", "request_timeout", Value::Null),
        (ApiError::NotFound, 404, "Not found.", "not_found", Value::Null),
        (ApiError::MethodNotAllowed, 405, "Method not allowed.", "method_not_allowed", Value::Null),
        (ApiError::HostNotAllowed, 403, "Host not allowed.", "host_not_allowed", Value::Null),
        (ApiError::OriginNotAllowed, 403, "Origin not allowed.", "origin_not_allowed", Value::Null),
        (
            ApiError::NotAWebsocket,
            400,
            "Websocket handshake expected.",
            "not_a_websocket",
            Value::Null,
        ),
        (ApiError::NoLog, 404, "Log not available.", "no_log", Value::Null),
        (
            ApiError::UPDATE_IN_PROGRESS,
            409,
            "Another update is under way; wait for its end.",
            "update_in_progress",
            Value::Null,
        ),
        (ApiError::Internal("panic"), 500, "Internal server error.", "panic", Value::Null),
    ]
}

#[tokio::test]
async fn every_variant_has_its_exact_answer() {
    let mut seen = HashSet::new();
    for (error, status, message, code, details) in table() {
        seen.insert(std::mem::discriminant(&error));
        let name = format!("{error:?}");
        let refresh = matches!(error, ApiError::Refresh(_)).then(|| error.to_string());
        let token = if let ApiError::Token(token) = &error { Some(*token) } else { None };
        let response = error.into_response();
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json", "{name}");
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        assert_eq!(
            challenge,
            token.map(|token| {
                let code =
                    if token == TokenError::Scope { "insufficient_scope" } else { "invalid_token" };
                let text = format!("Bearer, error=\"{code}\", error_description=\"{token}\"");
                HeaderValue::try_from(text).unwrap()
            }),
            "{name}"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["message"], message, "{name}");
        assert_eq!(body["error_code"], code, "{name}");
        assert_eq!(body["details"], details, "{name}");
        assert_eq!(body["error_description"], json!(refresh), "{name}");
    }
    // One discriminant for each variant: whoever adds one is told to add its row.
    assert_eq!(seen.len(), 38, "a variant of ApiError has no row in this table");
}

#[test]
fn every_failed_payment_has_its_answer() {
    let cases = [
        (SendError::NoSuchMixdepth(Mixdepth(5)), 400, "invalid_request_format"),
        (
            SendError::InsufficientFunds { wanted: 3, available: 2, frozen: 1 },
            409,
            "insufficient_funds",
        ),
        (SendError::NothingToSweep(Mixdepth(0)), 409, "nothing_to_sweep"),
        (SendError::DustOutput { value: 1, limit: 2 }, 409, "dust_output"),
        (
            SendError::UnusableInput { outpoint: OutPoint::null(), reason: "frozen" },
            400,
            "unusable_input",
        ),
        (SendError::BadInputList, 400, "invalid_request_format"),
        (SendError::AbsurdFee { rate: 2, limit: 1 }, 409, "absurd_fee"),
        (SendError::FeeAboveLimit { fee: 2, limit: 1 }, 409, "fee_above_limit"),
        (SendError::SigningCheck("x"), 409, "signing_failed"),
        (SendError::Chain(ChainError::NotConfigured), 503, "backend_not_ready"),
        (SendError::Rejected { text: "no".to_owned() }, 409, "broadcast_rejected"),
        (SendError::Uncertain, 503, "send_uncertain"),
        (SendError::Closed, 404, "no_wallet"),
    ];
    for (error, status, code) in cases {
        let name = error.to_string();
        let parts = ApiError::from(error).parts();
        assert_eq!((parts.status.as_u16(), parts.code), (status, code), "{name}");
    }
    let funds = SendError::InsufficientFunds { wanted: 3, available: 2, frozen: 1 };
    assert_eq!(
        ApiError::from(funds).parts().details,
        Some(json!({"wanted_sats": 3, "available_sats": 2, "frozen_sats": 1}))
    );
}
