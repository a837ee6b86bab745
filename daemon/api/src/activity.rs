//! Which role runs, as the API shows it: `coinjoin_state` (`spec/api.md` 4).
//!
//! The state leaves idle only by way of a [`RoleGuard`] and comes back when that guard goes away, however
//! it goes: a role that fails, panics or is stopped never leaves the state behind (a frequent complaint
//! about the reference, `session_state_always_settles`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A single coinjoin or the tumbler.
    Taker,
    /// The yield generator.
    Maker,
}

/// `coinjoin_state` on the wire.
const fn number(role: Option<Role>) -> u8 {
    match role {
        Some(Role::Taker) => 0,
        Some(Role::Maker) => 1,
        None => 2,
    }
}

#[derive(Debug)]
struct Running {
    role: Role,
    generation: u64,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    running: Option<Running>,
    generation: u64,
}

/// The one role that may run, and the events about it.
#[derive(Debug)]
pub struct Activity {
    inner: Mutex<Inner>,
    hub: Arc<Hub>,
}

impl Activity {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), hub })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The role that runs, if any.
    #[must_use]
    pub fn current(&self) -> Option<Role> {
        self.lock().running.as_ref().map(|running| running.role)
    }

    /// 0 taker, 1 maker, 2 idle.
    #[must_use]
    pub fn coinjoin_state(&self) -> u8 {
        number(self.current())
    }

    /// Takes the state for a role; `None` when one runs already, in which case nothing is changed or said.
    /// Everything that can fail without side effects belongs before this call.
    #[must_use]
    pub fn begin(self: &Arc<Self>, role: Role) -> Option<RoleGuard> {
        let mut inner = self.lock();
        if inner.running.is_some() {
            return None;
        }
        inner.generation += 1;
        let generation = inner.generation;
        let stop = CancellationToken::new();
        inner.running = Some(Running { role, generation, stop: stop.clone() });
        self.announce(&inner);
        Some(RoleGuard { activity: Arc::clone(self), generation, stop })
    }

    /// Stops a role and returns to idle at once, before the role itself has wound up. False when that role
    /// does not run.
    pub fn stop(&self, role: Role) -> bool {
        let mut inner = self.lock();
        match &inner.running {
            Some(running) if running.role == role => {}
            _ => return false,
        }
        self.end(&mut inner);
        true
    }

    /// Stops whatever runs.
    pub fn stop_any(&self) {
        self.end(&mut self.lock());
    }

    fn end(&self, inner: &mut Inner) {
        if let Some(running) = inner.running.take() {
            running.stop.cancel();
            self.announce(inner);
        }
    }

    /// Called with the state already changed and still locked: readers see the new state before any
    /// socket hears of it, and events go out in the order of the changes.
    fn announce(&self, inner: &Inner) {
        let role = inner.running.as_ref().map(|running| running.role);
        self.hub.publish_json(&json!({"coinjoin_state": number(role)}));
    }
}

/// The right to run a role. Dropping it, also by a panic, ends the role for everybody.
#[derive(Debug)]
pub struct RoleGuard {
    activity: Arc<Activity>,
    generation: u64,
    stop: CancellationToken,
}

impl RoleGuard {
    /// Cancelled when somebody stops the role.
    #[must_use]
    pub const fn stopped(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for RoleGuard {
    fn drop(&mut self) {
        let mut inner = self.activity.lock();
        let ours = |running: &Running| running.generation == self.generation;
        // After a stop another role may run already: it is not ours to end.
        if inner.running.as_ref().is_some_and(ours) {
            self.activity.end(&mut inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::Receiver;

    use super::*;
    use crate::hub::News;

    fn activity() -> (Arc<Activity>, Receiver<News>) {
        let hub = Arc::new(Hub::new());
        let events = hub.subscribe();
        (Activity::new(hub), events)
    }

    fn heard(events: &mut Receiver<News>) -> Vec<String> {
        std::iter::from_fn(|| match events.try_recv() {
            Ok(News::Text(text)) => Some(text.to_string()),
            _ => None,
        })
        .collect()
    }

    fn state(number: u8) -> String {
        format!("{{\"coinjoin_state\":{number}}}")
    }

    #[tokio::test]
    async fn session_state_always_settles() {
        let (activity, mut events) = activity();
        // A role that panics.
        let guard = activity.begin(Role::Taker).unwrap();
        assert_eq!(activity.coinjoin_state(), 0);
        let role = tokio::spawn(async move {
            let _guard = guard;
            panic!("planned");
        });
        assert!(role.await.unwrap_err().is_panic());
        assert_eq!(activity.coinjoin_state(), 2);
        // A role that is cancelled in the middle of waiting.
        let guard = activity.begin(Role::Maker).unwrap();
        let role = tokio::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        role.abort();
        assert!(role.await.unwrap_err().is_cancelled());
        assert_eq!(activity.coinjoin_state(), 2);
        // A role that fails to start.
        let start = || -> Option<()> {
            let _guard = activity.begin(Role::Maker)?;
            None
        };
        assert_eq!(start(), None);
        assert_eq!(activity.coinjoin_state(), 2);
        assert_eq!(heard(&mut events), [0, 2, 1, 2, 1, 2].map(state));
    }

    #[test]
    fn a_conflict_changes_and_says_nothing() {
        let (activity, mut events) = activity();
        let guard = activity.begin(Role::Maker).unwrap();
        assert!(activity.begin(Role::Maker).is_none());
        assert!(activity.begin(Role::Taker).is_none());
        assert!(!activity.stop(Role::Taker));
        assert_eq!(activity.coinjoin_state(), 1);
        assert_eq!(heard(&mut events), [state(1)]);
        // The first maker is still the one that can be stopped.
        assert!(!guard.stopped().is_cancelled());
        assert!(activity.stop(Role::Maker));
        assert!(guard.stopped().is_cancelled());
        assert_eq!(heard(&mut events), [state(2)]);
        assert!(!activity.stop(Role::Maker));
        activity.stop_any();
        assert!(heard(&mut events).is_empty());
    }

    #[test]
    fn a_stopped_role_that_winds_up_late_does_not_end_its_successor() {
        let (activity, mut events) = activity();
        let first = activity.begin(Role::Maker).unwrap();
        activity.stop_any();
        let _second = activity.begin(Role::Taker).unwrap();
        drop(first);
        assert_eq!(activity.current(), Some(Role::Taker));
        assert_eq!(heard(&mut events), [1, 2, 0].map(state));
    }
}
