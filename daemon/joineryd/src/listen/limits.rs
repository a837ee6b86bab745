//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections of all listeners together. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Leave to keep one connection open; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Admission {
    /// Allows so many connections in all, and so many from one address other than loopback.
    pub(crate) fn new(total: usize, per_address: usize) -> Self {
        Self(Arc::new(Shared { total, per_address, open: Mutex::default() }))
    }

    /// A permit for a connection from this address, or `None` when there are too many.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Permit> {
        let address = person_behind(address);
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let from_here = open.by_address.get(&address).copied().unwrap_or(0);
        // A proxy on this machine speaks for many people.
        if open.total >= self.0.total || (from_here >= self.0.per_address && !address.is_loopback())
        {
            return None;
        }
        open.total += 1;
        open.by_address.insert(address, from_here + 1);
        Some(Permit { shared: Arc::clone(&self.0), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// The address to count for: IPv4 in IPv6 is the same machine, and one machine has a whole /64 of IPv6.
fn person_behind(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6((u128::from(address) >> 64 << 64).into())
        }
        canonical => canonical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn counts_per_address_and_in_all_and_gets_permits_back() {
        let admission = Admission::new(4, 2);
        let first = admission.admit(ip("192.0.2.1")).unwrap();
        let _second = admission.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(admission.admit(ip("192.0.2.1")).is_none());
        let _other = admission.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        let _third = admission.admit(ip("192.0.2.1")).unwrap();
        let _fourth = admission.admit(ip("fd00::1:2")).unwrap();
        assert!(admission.admit(ip("192.0.2.9")).is_none(), "four in all");
    }

    #[test]
    fn loopback_has_only_the_total_and_ipv6_counts_by_network() {
        let admission = Admission::new(10, 1);
        let _local: Vec<_> = (0..5).map(|_| admission.admit(ip("127.0.0.1")).unwrap()).collect();
        let _one = admission.admit(ip("fd00::1")).unwrap();
        assert!(admission.admit(ip("fd00::2")).is_none());
        assert!(admission.admit(ip("fd00:0:0:1::2")).is_some());
    }

    #[test]
    fn forgets_addresses_that_are_gone() {
        let admission = Admission::new(10, 10);
        drop(admission.admit(ip("192.0.2.1")));
        assert!(admission.0.open.lock().unwrap().by_address.is_empty());
    }
}
