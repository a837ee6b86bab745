//! A bound on sockets that have not said who they are: clients may keep one open before any wallet is
//! unlocked, for as long as they like, but not any number of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Unauthenticated sockets of the process, oldest first.
#[derive(Debug)]
pub(crate) struct IdleSockets {
    limit: usize,
    sockets: Mutex<VecDeque<(u64, CancellationToken)>>,
    next: std::sync::atomic::AtomicU64,
}

/// A place in the queue; given back when dropped.
#[derive(Debug)]
pub(crate) struct IdlePlace<'a> {
    sockets: &'a IdleSockets,
    id: u64,
    /// Cancelled when newer sockets need the place.
    pub(crate) evicted: CancellationToken,
}

impl IdleSockets {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit,
            sockets: Mutex::new(VecDeque::new()),
            next: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Takes a place, from the oldest socket if none is left.
    pub(crate) fn enter(&self) -> IdlePlace<'_> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let evicted = CancellationToken::new();
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.push_back((id, evicted.clone()));
        while sockets.len() > self.limit {
            if let Some((_, oldest)) = sockets.pop_front() {
                oldest.cancel();
            }
        }
        IdlePlace { sockets: self, id, evicted }
    }
}

impl Drop for IdlePlace<'_> {
    fn drop(&mut self) {
        let mut sockets = self.sockets.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let sockets = IdleSockets::new(2);
        let first = sockets.enter();
        let second = sockets.enter();
        assert!(!first.evicted.is_cancelled());
        let third = sockets.enter();
        assert!(first.evicted.is_cancelled());
        assert!(!second.evicted.is_cancelled());
        drop(second);
        let fourth = sockets.enter();
        assert!(!third.evicted.is_cancelled());
        assert!(!fourth.evicted.is_cancelled());
    }
}
