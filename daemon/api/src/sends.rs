//! Protection of payments against blind repetition (`spec/api.md` 6.15, Appendix C 31): a phone app repeats a
//! request that timed out up to twenty times, and each repetition looks like a payment.
//!
//! A client that names its request (`Idempotency-Key`) is answered from memory for a day, over locking and
//! unlocking, though not over a restart. One that does not is recognised by its bytes, for a minute and only if
//! the first answer never reached it.

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
use tracing::Instrument;

use crate::auth::Family;
use crate::clock::Clock;
use crate::error::ApiError;

/// How long an answer that did not reach its client is kept for the client's next try.
const KEEP: Duration = Duration::from_secs(60);
/// How long the answer to a named request is kept.
const KEEP_NAMED: Duration = Duration::from_secs(24 * 60 * 60);
/// Most named requests that are remembered; from then on the oldest are forgotten.
const MAX_NAMED: usize = 256;

/// What a payment ended with: the JSON body of its answer, or why there is none.
type Outcome = Result<Bytes, ApiError>;

/// How a repetition is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// The same client with the same bytes.
    Bytes(Family, [u8; 32]),
    /// Any client of the same wallet with the same name for its request.
    Named { wallet: String, name: String },
}

/// Who asked for what.
#[derive(Debug, Clone)]
pub(crate) struct SendKey {
    key: Key,
    /// Hash of the request's body.
    body: [u8; 32],
}

impl SendKey {
    /// A request without a name.
    pub(crate) fn new(family: Family, body: &[u8]) -> Self {
        let body = Sha256::digest(body).into();
        Self { key: Key::Bytes(family, body), body }
    }

    /// A request that the client has named.
    pub(crate) fn named(wallet: &str, name: &str, body: &[u8]) -> Self {
        let key = Key::Named { wallet: wallet.to_owned(), name: name.to_owned() };
        Self { key, body: Sha256::digest(body).into() }
    }
}

#[derive(Debug)]
struct Entry {
    outcome: watch::Sender<Option<(Outcome, Duration)>>,
    delivered: AtomicBool,
    body: [u8; 32],
}

impl Entry {
    /// Whether a request like the one that made this entry is answered from it.
    fn answers(&self, key: &Key, now: Duration) -> bool {
        let named = matches!(key, Key::Named { .. });
        let keep = if named { KEEP_NAMED } else { KEEP };
        match &*self.outcome.borrow() {
            None => true,
            Some((_, finished)) if now > *finished + keep => false,
            Some((Ok(_), _)) => named || !self.delivered.load(Ordering::SeqCst),
            // Whoever tries again at once must not pay twice: the first payment still stands.
            Some((Err(ApiError::SendUncertain), _)) => true,
            // Nothing was paid: the next try is a new one.
            Some((Err(_), _)) => false,
        }
    }
}

type Entries = HashMap<Key, Arc<Entry>>;

/// Payments that run, and those that ended a moment ago.
#[derive(Debug)]
pub(crate) struct Sends {
    clock: Clock,
    entries: Mutex<Entries>,
}

impl Sends {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what only the clients that asked could ask for again: they are logged out.
    pub(crate) fn clear(&self) {
        self.lock().retain(|key, _| matches!(key, Key::Named { .. }));
    }

    /// Runs a payment, or joins the one that the same request has started already, or repeats the answer
    /// that the client never got. The payment runs to its end even if nobody waits for it any more.
    pub(crate) async fn submit<F>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        asked: SendKey,
        pay: impl FnOnce() -> F,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let entry = {
            let now = self.clock.steady();
            let mut entries = self.lock();
            entries.retain(|key, entry| entry.answers(key, now));
            if let Some(entry) = entries.get(&asked.key) {
                if entry.body != asked.body {
                    return Err(ApiError::invalid_because(
                        "Idempotency-Key",
                        "idempotency_key_reused",
                        "another request had the same key",
                    ));
                }
                tracing::info!("a repeated payment request joins the first one");
                Arc::clone(entry)
            } else {
                make_room(&mut entries);
                let entry = Arc::new(Entry {
                    outcome: watch::Sender::new(None),
                    delivered: AtomicBool::new(false),
                    body: asked.body,
                });
                entries.insert(asked.key, Arc::clone(&entry));
                let running = Running { entry: Arc::clone(&entry), clock: self.clock.clone() };
                let payment = pay();
                let work = async move {
                    let outcome = payment.await;
                    running.finish(outcome);
                };
                tasks.spawn(work.in_current_span());
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

/// Forgets the oldest named requests when there are too many.
fn make_room(entries: &mut Entries) {
    let mut named: Vec<(Duration, Key)> = entries
        .iter()
        .filter(|(key, _)| matches!(key, Key::Named { .. }))
        .filter_map(|(key, entry)| Some((entry.outcome.borrow().as_ref()?.1, key.clone())))
        .collect();
    if let Some(excess) = (named.len() + 1).checked_sub(MAX_NAMED).filter(|excess| *excess > 0) {
        named.sort_unstable_by_key(|(finished, _)| *finished);
        named.iter().take(excess).for_each(|(_, key)| drop(entries.remove(key)));
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

    impl Bench {
        async fn pay_named(&self, wallet: &str, name: &str, body: &[u8]) -> Result<Response, u16> {
            let paid = Arc::clone(&self.paid);
            let key = SendKey::named(wallet, name, body);
            let outcome = self.sends.submit(&self.tasks, key, || async move {
                paid.fetch_add(1, Ordering::SeqCst);
                good()
            });
            outcome.await.map_err(|error| error.parts().status.as_u16())
        }
    }

    #[tokio::test]
    async fn a_named_request_is_answered_for_a_day_whoever_asks() {
        let bench = bench();
        for _ in 0..3 {
            let answer = bench.pay_named("w.jmdat", "a", b"x").await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{}");
            // A lock in between logs everybody out and forgets nothing of this.
            bench.sends.clear();
        }
        bench.clock.advance(24 * 60 * 60);
        assert!(bench.pay_named("w.jmdat", "a", b"x").await.is_ok());
        assert_eq!(bench.count(), 1);
        assert_eq!(bench.pay_named("w.jmdat", "a", b"y").await.unwrap_err(), 400);
        // Another name and another wallet are other payments.
        drop(bench.pay_named("w.jmdat", "b", b"x").await.unwrap());
        drop(bench.pay_named("v.jmdat", "a", b"x").await.unwrap());
        assert_eq!(bench.count(), 3);
        bench.clock.advance(1);
        drop(bench.pay_named("w.jmdat", "a", b"y").await.unwrap());
        assert_eq!(bench.count(), 4);
    }

    #[tokio::test]
    async fn named_requests_are_bounded_and_the_oldest_is_forgotten() {
        let bench = bench();
        for number in 0..MAX_NAMED + 10 {
            drop(bench.pay_named("w.jmdat", &number.to_string(), b"x").await.unwrap());
            bench.clock.advance(1);
        }
        assert_eq!(bench.sends.lock().len(), MAX_NAMED);
        let paid = bench.count();
        drop(bench.pay_named("w.jmdat", &(MAX_NAMED + 9).to_string(), b"x").await.unwrap());
        assert_eq!(bench.count(), paid);
        drop(bench.pay_named("w.jmdat", "0", b"x").await.unwrap());
        assert_eq!(bench.count(), paid + 1);
    }

    #[tokio::test]
    async fn a_named_request_that_failed_may_be_tried_again() {
        let bench = bench();
        let key = || SendKey::named("w.jmdat", "a", b"x");
        let fail = |error| async move { Err(error) };
        let refused = ApiError::invalid("a");
        let outcome = bench.sends.submit(&bench.tasks, key(), || fail(refused)).await;
        assert_eq!(outcome.unwrap_err().parts().status, 400);
        let uncertain = bench.sends.submit(&bench.tasks, key(), || fail(ApiError::SendUncertain));
        assert_eq!(uncertain.await.unwrap_err().parts().status, 503);
        // Not again, though: the first may have been sent.
        assert_eq!(bench.pay_named("w.jmdat", "a", b"x").await.unwrap_err(), 503);
        assert_eq!(bench.count(), 0);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }
}
