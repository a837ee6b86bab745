//! One socket, from upgrade to close.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::app::AppState;
use crate::auth::Epoch;
use crate::hub::News;

/// Close code for a token that is not good.
const INVALID_TOKEN: u16 = 4001;
/// Standard close code "try again later": too slow, or no place.
const TRY_AGAIN: u16 = 1013;
/// Standard close code "going away".
const GOING_AWAY: u16 = 1001;
/// How long one message may take to leave before the socket counts as dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Pings without any sign of life after which a socket counts as dead.
const MISSED_PINGS: u32 = 4;

/// A listener that has shown a token.
struct Listener {
    epoch: Epoch,
    news: broadcast::Receiver<News>,
}

/// Why a socket ends.
enum End {
    /// The client closed it or broke the protocol.
    Gone,
    /// We close it.
    Close(u16, &'static str),
}

/// Runs a socket to its end.
pub(crate) async fn serve(app: Arc<AppState>, mut socket: WebSocket) {
    let end = run(&app, &mut socket).await.err().unwrap_or(End::Gone);
    if let End::Close(code, reason) = end {
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(Some(frame)))).await;
    }
}

async fn run(app: &AppState, socket: &mut WebSocket) -> Result<(), End> {
    let period = app.config.websocket_ping;
    let mut pings = interval_at(Instant::now() + period, period);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_pings = 0;
    let mut greeted = false;
    let mut listener: Option<Listener> = None;
    let mut idle = Some(app.idle_sockets.enter());
    loop {
        let evicted = idle.as_ref().map(|place| place.evicted.clone());
        tokio::select! {
            // News first: what happened before a lock goes out before the lock is acted upon.
            biased;
            () = app.shutdown.cancelled() => return Err(End::Close(GOING_AWAY, "Shutting down")),
            news = next_news(listener.as_mut()) => match news {
                Ok(News::Text(text)) => send(socket, Message::Text(text.as_ref().into())).await?,
                Ok(News::KeysReset(epoch)) => {
                    if listener.as_ref().is_some_and(|listener| listener.epoch < epoch) {
                        listener = None;
                        idle = Some(app.idle_sockets.enter());
                    }
                }
                Err(RecvError::Lagged(_)) => return Err(End::Close(TRY_AGAIN, "Too slow")),
                Err(RecvError::Closed) => return Err(End::Close(GOING_AWAY, "Shutting down")),
            },
            () = async {
                match &evicted {
                    Some(evicted) => evicted.cancelled().await,
                    None => std::future::pending().await,
                }
            } => return Err(End::Close(TRY_AGAIN, "Too many connections")),
            frame = socket.recv() => {
                silent_pings = 0;
                match frame {
                    None | Some(Err(_)) => return Err(End::Gone),
                    Some(Ok(Message::Close(_))) => return Err(End::Gone),
                    // Pings are answered by the library; binary frames mean nothing.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                    Some(Ok(Message::Text(text))) => {
                        // Subscribed before the check: nothing that follows the check is missed.
                        let news = app.hub.subscribe();
                        let Ok(accepted) = app.tokens.check(text.trim()) else {
                            return Err(End::Close(INVALID_TOKEN, "Invalid token"));
                        };
                        match &mut listener {
                            Some(listener) => listener.epoch = accepted.epoch,
                            None => {
                                listener = Some(Listener { epoch: accepted.epoch, news });
                                idle = None;
                            }
                        }
                        if !greeted {
                            greeted = true;
                            let state = json!({"coinjoin_state": app.activity.coinjoin_state()});
                            send(socket, Message::Text(state.to_string().into())).await?;
                        }
                    }
                }
            },
            _ = pings.tick() => {
                silent_pings += 1;
                if silent_pings > MISSED_PINGS {
                    return Err(End::Gone);
                }
                send(socket, Message::Ping(axum::body::Bytes::new())).await?;
            }
        }
    }
}

/// The next news for an authenticated socket; for others there is none.
async fn next_news(listener: Option<&mut Listener>) -> Result<News, RecvError> {
    match listener {
        Some(listener) => listener.news.recv().await,
        None => std::future::pending().await,
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Gone),
    }
}
