//! `/update` (additive): what is known of updates of the box, taking a bundle, restarting into an installed one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Answer, App, State};
use crate::app::AppState;
use crate::auth::Authenticated;
use crate::error::ApiError;
use crate::update::{Part, UpdateOutcome, UpdateState, Updates, UploadError};

/// Longest pause within an upload.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest time for a whole upload: the largest bundle at 300 kB/s.
const WHOLE: Duration = Duration::from_secs(30 * 60);
/// Parts that wait for the disk.
const AHEAD: usize = 4;

/// The answer of all three.
#[derive(Debug, Serialize)]
pub(super) struct Update {
    state: &'static str,
    version: String,
    slot: String,
    next_version: Option<String>,
    last: Option<UpdateOutcome>,
}

fn updates(app: &AppState) -> Result<&Arc<Updates>, ApiError> {
    app.updates.as_ref().ok_or(ApiError::UPDATE_NOT_SUPPORTED)
}

fn describe(updates: &Updates) -> Result<Json<Update>, ApiError> {
    let report = updates.report()?;
    let state = match report.state {
        UpdateState::Installing => "installing",
        _ if updates.waiting() => "waiting",
        _ if updates.uploading() => "uploading",
        UpdateState::RestartNeeded => "restart_needed",
        UpdateState::Idle => "idle",
    };
    Ok(Json(Update {
        state,
        version: report.version,
        slot: report.slot,
        next_version: report.next_version,
        last: report.last,
    }))
}

pub(super) async fn show(State(app): App, _caller: Authenticated) -> Answer<Update> {
    describe(updates(&app)?)
}

/// The length that was announced. Without one nobody could tell a whole upload from one that was cut off.
fn length(headers: &HeaderMap) -> Result<u64, ApiError> {
    let text = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = text.and_then(|text| text.parse().ok()).filter(|length| *length > 0);
    let why = "the length of the bundle must be announced";
    length.ok_or_else(|| ApiError::invalid_because("Content-Length", "length_required", why))
}

/// Takes a bundle: to the disk as it comes, and nothing is kept of one that does not arrive whole.
pub(super) async fn upload(
    State(app): App,
    _caller: Authenticated,
    request: Request,
) -> Result<(StatusCode, Json<Update>), ApiError> {
    let updates = Arc::clone(updates(&app)?);
    updates.report()?;
    let expected = length(request.headers())?;
    let turn = updates.begin(expected)?;
    tracing::info!(bytes = expected, "a bundle arrives");
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let storing = {
        let updates = Arc::clone(&updates);
        // It holds the turn: when the client goes away this task still tidies up.
        tokio::task::spawn_blocking(move || {
            let outcome = updates.receive(expected, &mut receiver);
            drop(turn);
            outcome
        })
    };
    let arrived = forward(request, expected, sender).await;
    let stored = storing.await.map_err(|_| ApiError::Internal("update_task"))?;
    match (arrived, stored) {
        (_, Err(UploadError::Io(error))) => return Err(Updates::failed(&error)),
        (Err(error), _) => return Err(error),
        (Ok(()), Err(UploadError::CutOff)) => return Err(ApiError::invalid("body")),
        (Ok(()), Ok(())) => {}
    }
    tracing::info!(bytes = expected, "a bundle waits to be verified and installed");
    Ok((StatusCode::ACCEPTED, describe(&updates)?))
}

/// Passes the body on.
async fn forward(
    request: Request,
    expected: u64,
    sender: mpsc::Sender<Part>,
) -> Result<(), ApiError> {
    let end = Instant::now() + WHOLE;
    let mut body = request.into_body();
    let mut seen: u64 = 0;
    loop {
        let next = timeout_at(end, timeout(PAUSE, body.frame())).await;
        let Ok(Ok(next)) = next else { return Err(ApiError::RequestTimeout) };
        let Some(frame) = next else { break };
        // The client went away or broke the framing: nobody reads this answer.
        let frame = frame.map_err(|_| ApiError::invalid("body"))?;
        let Ok(bytes) = frame.into_data() else { continue };
        seen = seen.saturating_add(bytes.len() as u64);
        if seen > expected {
            return Err(ApiError::BodyTooLarge);
        }
        // Nobody takes it: the disk failed, and whoever waits for the task hears why.
        if sender.send(Part::Bytes(bytes)).await.is_err() {
            return Ok(());
        }
    }
    // As above.
    let _ = sender.send(Part::End).await;
    Ok(())
}

/// Restarts the box into an installed update. The wallet is closed as at any stop.
pub(super) async fn restart(
    State(app): App,
    _caller: Authenticated,
) -> Result<(StatusCode, Json<Update>), ApiError> {
    let updates = updates(&app)?;
    updates.restart()?;
    tracing::info!("a restart into the installed update was asked for");
    Ok((StatusCode::ACCEPTED, describe(updates)?))
}
