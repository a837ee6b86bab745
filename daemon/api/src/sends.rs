//! Protection of payments against blind repetition (`spec/api.md` 6.15): a phone app repeats a request
//! that timed out up to twenty times, and each repetition looks like a payment.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderValue, header};
use http_body::{Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::auth::Family;
use crate::clock::Clock;
use crate::error::ApiError;

/// How long an answer that did not reach its client is kept for the client's next try.
const KEEP: Duration = Duration::from_secs(60);

/// What a payment ended with: the JSON body of its answer, or why there is none.
type Outcome = Result<Bytes, ApiError>;

/// Who asked for what: the same client with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SendKey {
    family: Family,
    body: [u8; 32],
}

impl SendKey {
    pub(crate) fn new(family: Family, body: &[u8]) -> Self {
        Self { family, body: Sha256::digest(body).into() }
    }
}

#[derive(Debug)]
struct Entry {
    outcome: watch::Sender<Option<(Outcome, Duration)>>,
    delivered: AtomicBool,
}

impl Entry {
    /// Whether a request like the one that made this entry is answered from it.
    fn answers(&self, now: Duration) -> bool {
        match &*self.outcome.borrow() {
            None => true,
            Some((_, finished)) if now > *finished + KEEP => false,
            Some((Ok(_), _)) => !self.delivered.load(Ordering::SeqCst),
            // Whoever tries again at once must not pay twice: the first payment still stands.
            Some((Err(ApiError::SendUncertain), _)) => true,
            Some((Err(_), _)) => false,
        }
    }
}

/// Payments that run, and those that ended a moment ago.
#[derive(Debug)]
pub(crate) struct Sends {
    clock: Clock,
    entries: Mutex<HashMap<SendKey, Arc<Entry>>>,
}

impl Sends {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SendKey, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: the clients that asked are logged out.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Runs a payment, or joins the one that the same request has started already, or repeats the answer
    /// that the client never got. The payment runs to its end even if nobody waits for it any more.
    pub(crate) async fn submit<F>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        key: SendKey,
        pay: impl FnOnce() -> F,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let entry = {
            let now = self.clock.steady();
            let mut entries = self.lock();
            entries.retain(|_, entry| entry.answers(now));
            if let Some(entry) = entries.get(&key) {
                tracing::info!("a repeated payment request joins the first one");
                Arc::clone(entry)
            } else {
                let entry = Arc::new(Entry {
                    outcome: watch::Sender::new(None),
                    delivered: AtomicBool::new(false),
                });
                entries.insert(key, Arc::clone(&entry));
                let running = Running { entry: Arc::clone(&entry), clock: self.clock.clone() };
                let payment = pay();
                tasks.spawn(async move {
                    let outcome = payment.await;
                    running.finish(outcome);
                });
                entry
            }
        };
        let mut outcome = entry.outcome.subscribe();
        let finished = outcome
            .wait_for(Option::is_some)
            .await
            .map_err(|_| ApiError::Internal("send_failed"))?
            .clone();
        let (outcome, _) = finished.ok_or(ApiError::Internal("send_failed"))?;
        let data = outcome?;
        let length = HeaderValue::from(data.len());
        let mut response = Response::new(Body::new(Delivery { data: Some(data), entry }));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        Ok(response)
    }
}

/// A payment in progress. If it dies without an outcome, that is one: uncertain.
struct Running {
    entry: Arc<Entry>,
    clock: Clock,
}

impl Running {
    fn finish(&self, outcome: Outcome) {
        self.entry.outcome.send_replace(Some((outcome, self.clock.steady())));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.entry.outcome.borrow().is_none() {
            self.finish(Err(ApiError::SendUncertain));
        }
    }
}

/// A body that notes when the connection takes it. A connection that broke before never does.
struct Delivery {
    data: Option<Bytes>,
    entry: Arc<Entry>,
}

impl http_body::Body for Delivery {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take();
        if data.is_some() {
            self.entry.delivered.store(true, Ordering::SeqCst);
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use http_body_util::BodyExt;
    use tokio::sync::Notify;

    use super::*;
    use crate::auth::Tokens;
    use crate::clock::ManualClock;

    struct Bench {
        clock: ManualClock,
        sends: Arc<Sends>,
        tasks: TaskTracker,
        paid: Arc<AtomicU32>,
        family: Family,
    }

    fn bench() -> Bench {
        let clock = ManualClock::new(0);
        let tokens = Tokens::new(clock.clock());
        tokens.reset(Some("w.jmdat"));
        let family = tokens.check(&tokens.login().token).unwrap().family;
        Bench {
            sends: Arc::new(Sends::new(clock.clock())),
            clock,
            tasks: TaskTracker::new(),
            paid: Arc::default(),
            family,
        }
    }

    impl Bench {
        async fn pay(&self, body: &[u8], outcome: Outcome) -> Result<Response, ApiError> {
            let paid = Arc::clone(&self.paid);
            let key = SendKey::new(self.family.clone(), body);
            self.sends
                .submit(&self.tasks, key, || async move {
                    paid.fetch_add(1, Ordering::SeqCst);
                    outcome
                })
                .await
        }

        fn count(&self) -> u32 {
            self.paid.load(Ordering::SeqCst)
        }
    }

    fn good() -> Outcome {
        Ok(Bytes::from_static(b"{}"))
    }

    #[tokio::test]
    async fn a_repetition_of_a_running_payment_joins_it() {
        let bench = bench();
        let go = Arc::new(Notify::new());
        let key = SendKey::new(bench.family.clone(), b"x");
        let wait = Arc::clone(&go);
        let first = bench.sends.submit(&bench.tasks, key, || async move {
            wait.notified().await;
            good()
        });
        let (first, second, ()) = tokio::join!(first, bench.pay(b"x", good()), async {
            tokio::task::yield_now().await;
            go.notify_one();
        });
        assert_eq!(bench.count(), 0, "the second must not have paid");
        assert!(first.is_ok() && second.is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_was_not_delivered_is_repeated_for_a_minute() {
        let bench = bench();
        drop(bench.pay(b"x", good()).await.unwrap());
        bench.clock.advance(60);
        let again = bench.pay(b"x", good()).await.unwrap();
        assert_eq!(bench.count(), 1);
        assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "{}");
        // Delivered now: the same request is a new payment.
        drop(bench.pay(b"x", good()).await.unwrap());
        assert_eq!(bench.count(), 2);
        bench.clock.advance(61);
        drop(bench.pay(b"x", good()).await.unwrap());
        assert_eq!(bench.count(), 3);
    }

    #[tokio::test]
    async fn other_requests_and_other_clients_pay() {
        let bench = bench();
        drop(bench.pay(b"x", good()).await.unwrap());
        drop(bench.pay(b"y", good()).await.unwrap());
        assert_eq!(bench.count(), 2);
        let other = Bench { family: self::bench().family, ..bench };
        drop(other.pay(b"x", good()).await.unwrap());
        assert_eq!(other.count(), 3);
    }

    #[tokio::test]
    async fn failures_may_be_tried_again_but_an_uncertain_payment_may_not() {
        let bench = bench();
        assert!(bench.pay(b"x", Err(ApiError::invalid("a"))).await.is_err());
        drop(bench.pay(b"x", good()).await.unwrap());
        assert_eq!(bench.count(), 2);
        assert!(bench.pay(b"z", Err(ApiError::SendUncertain)).await.is_err());
        assert!(matches!(bench.pay(b"z", good()).await, Err(ApiError::SendUncertain)));
        assert_eq!(bench.count(), 3);
    }

    #[tokio::test]
    async fn a_payment_goes_on_when_its_client_goes_away() {
        let bench = bench();
        let go = Arc::new(Notify::new());
        let key = SendKey::new(bench.family.clone(), b"x");
        let (wait, paid) = (Arc::clone(&go), Arc::clone(&bench.paid));
        {
            let first = bench.sends.submit(&bench.tasks, key, || async move {
                wait.notified().await;
                paid.fetch_add(1, Ordering::SeqCst);
                good()
            });
            tokio::pin!(first);
            assert!(futures_poll(&mut first).await.is_pending());
        }
        go.notify_one();
        assert!(bench.pay(b"x", good()).await.is_ok());
        assert_eq!(bench.count(), 1);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }
}
