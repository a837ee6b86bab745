//! A [`Store`] without a disk, for unit tests only.
//!
//! The daemon never builds one: a wallet kept here forgets its facts with the process. It keeps the
//! rules of the real store that callers can get wrong: chain data is lost by [`MemoryStore::reopen_after_crash`]
//! unless it was committed, facts never are, and a failing store acknowledges nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdk_wallet::bitcoin::ScriptBuf;
use bdk_wallet::chain::Merge;

use super::{ChainData, Fact, Facts, Statuses, Store, StoreError};
use crate::chain::StatusHash;

/// Appended changes after which [`Store::wants_compaction`] says yes.
const COMPACT_AFTER: usize = 1000;

#[derive(Debug, Default, Clone)]
struct Chain {
    data: ChainData,
    statuses: Statuses,
    appended: usize,
}

#[derive(Debug, Default)]
struct Shared {
    log: Vec<Fact>,
    /// The last facts of the log that were only noted.
    noted: usize,
    durable: Chain,
    current: Chain,
    failing: bool,
    commits: usize,
    records: usize,
    compact_after: Option<usize>,
}

/// Volatile store for tests. Clones made by the `reopen` methods share the same "disk".
#[derive(Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    facts: Facts,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store whose last life ended in a loss of state ([`Store::recovered_from_loss`] is true).
    #[must_use]
    pub fn after_loss() -> Self {
        let mut store = Self::default();
        store.shared().log.push(Fact::StateLost);
        store.facts.apply(&Fact::StateLost);
        store
    }

    /// Another store over the same data, as after a clean close.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut facts = Facts::default();
        {
            let mut shared = self.shared();
            shared.durable = shared.current.clone();
            shared.noted = 0;
            shared.log.iter().for_each(|fact| facts.apply(fact));
        }
        Self { shared: Arc::clone(&self.shared), facts }
    }

    /// Another store over the same data, as after a power cut: only committed chain data is left, and nothing that was
    /// only noted.
    #[must_use]
    pub fn reopen_after_crash(&self) -> Self {
        {
            let mut shared = self.shared();
            shared.current = shared.durable.clone();
            let durable = shared.log.len() - shared.noted;
            shared.log.truncate(durable);
        }
        self.reopen()
    }

    /// From now on compaction pays after so many changes.
    pub fn compact_after(&self, changes: usize) {
        self.shared().compact_after = Some(changes);
    }

    /// From now on every write fails like a full disk (`true`) or works again (`false`).
    pub fn set_failing(&self, failing: bool) {
        self.shared().failing = failing;
    }

    /// A handle to the same data that stays usable when the store itself was given away.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), facts: self.facts.clone() }
    }

    /// Everything recorded through any handle, in order.
    #[must_use]
    pub fn recorded(&self) -> Vec<Fact> {
        self.shared().log.clone()
    }

    /// How often [`Store::record`] made something durable: on a disk, each time is a sync.
    #[must_use]
    pub fn records(&self) -> usize {
        self.shared().records
    }

    /// How often [`Store::commit`] succeeded.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.shared().commits
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self, action: &'static str) -> Result<MutexGuard<'_, Shared>, StoreError> {
        let shared = self.shared();
        if shared.failing {
            return Err(StoreError::Io {
                action,
                path: "memory".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        Ok(shared)
    }
}

impl Store for MemoryStore {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn record(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        let mut shared = self.writable("record")?;
        shared.log.extend_from_slice(facts);
        shared.noted = 0;
        shared.records += 1;
        drop(shared);
        facts.iter().for_each(|fact| self.facts.apply(fact));
        Ok(())
    }

    fn note(&mut self, facts: &[Fact]) {
        let mut shared = self.shared();
        shared.log.extend_from_slice(facts);
        shared.noted += facts.len();
        drop(shared);
        facts.iter().for_each(|fact| self.facts.apply(fact));
    }

    fn load_chain(&mut self) -> Result<(ChainData, Statuses), StoreError> {
        let shared = self.shared();
        Ok((shared.current.data.clone(), shared.current.statuses.clone()))
    }

    fn append_chain(
        &mut self,
        change: &ChainData,
        statuses: &[(ScriptBuf, Option<StatusHash>)],
    ) -> Result<(), StoreError> {
        let mut shared = self.writable("append")?;
        let current = &mut shared.current;
        current.data.chain.merge(change.chain.clone());
        current.data.graph.merge(change.graph.clone());
        for (script, status) in statuses {
            match status {
                Some(hash) => current.statuses.insert(script.clone(), *hash),
                None => current.statuses.remove(script),
            };
        }
        current.appended += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let mut shared = self.writable("commit")?;
        shared.durable = shared.current.clone();
        shared.commits += 1;
        Ok(())
    }

    fn wants_compaction(&self) -> bool {
        let shared = self.shared();
        shared.current.appended > shared.compact_after.unwrap_or(COMPACT_AFTER)
    }

    fn compact(&mut self, merged: &ChainData) -> Result<(), StoreError> {
        let mut shared = self.writable("compact")?;
        shared.current.data = merged.clone();
        shared.current.appended = 0;
        shared.durable = shared.current.clone();
        Ok(())
    }

    fn recovered_from_loss(&self) -> bool {
        self.facts.state_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_a_crash_and_uncommitted_statuses_do_not() {
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let mut store = MemoryStore::new();
        store.record(&[Fact::BondIssued { timenumber: 7 }]).expect("not failing");
        store
            .append_chain(&ChainData::default(), &[(script.clone(), Some([1; 32]))])
            .expect("not failing");
        let mut reopened = store.reopen_after_crash();
        assert!(reopened.facts().bonds.contains(&7));
        assert!(reopened.load_chain().expect("memory").1.is_empty());

        reopened
            .append_chain(&ChainData::default(), &[(script.clone(), Some([2; 32]))])
            .expect("not failing");
        reopened.commit().expect("not failing");
        let statuses = reopened.reopen_after_crash().load_chain().expect("memory").1;
        assert_eq!(statuses.get(&script), Some(&[2; 32]));
    }

    #[test]
    fn a_failing_store_acknowledges_and_keeps_nothing() {
        let mut store = MemoryStore::new();
        store.set_failing(true);
        assert!(store.record(&[Fact::SyncedOnce]).is_err());
        assert!(!store.facts().synced_once);
        store.set_failing(false);
        assert_eq!(store.reopen().facts(), &Facts::default());
    }

    #[test]
    fn a_loss_is_reported_until_the_skip_is_recorded() {
        let mut store = MemoryStore::after_loss();
        assert!(store.recovered_from_loss());
        store.record(&[Fact::IndexesSkipped]).expect("not failing");
        assert!(!store.recovered_from_loss());
        assert!(!store.reopen().recovered_from_loss());
    }
}
