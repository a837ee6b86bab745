//! What all parts of the machine write on: outputs, open questions, randomness and the time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::output::Output;
use super::session::{SessionId, Step};
use crate::ask::{Question, QuestionId};
use crate::event::Source;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Certificate of the bond.
    Bond,
    /// A step of a conversation.
    Session(SessionId, Step),
    /// A taker had us send a transaction.
    Push,
    /// Nobody waits for it.
    Nothing,
}

/// The common desk.
#[derive(Debug)]
pub(super) struct Desk {
    /// Latest time that the machine was told.
    pub(super) now: Duration,
    /// Everything random comes out of this.
    pub(super) rng: StdRng,
    outputs: VecDeque<Output>,
    open: BTreeMap<QuestionId, Purpose>,
    next: u64,
}

impl Desk {
    pub(super) fn new(seed: [u8; 32], now: Duration) -> Self {
        let rng = StdRng::from_seed(seed);
        Self { now, rng, outputs: VecDeque::new(), open: BTreeMap::new(), next: 0 }
    }

    pub(super) fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn send(
        &mut self,
        to: Nick,
        word: PrivateWord,
        payload: String,
        prefer: Option<Source>,
    ) {
        self.out(Output::Send { to, word, payload, prefer });
    }

    pub(super) fn ask(&mut self, purpose: Purpose, question: Question) {
        let id = QuestionId(self.next);
        self.next = self.next.wrapping_add(1);
        self.open.insert(id, purpose);
        self.out(Output::Ask(id, question));
    }

    /// What an answer is for; `None` for a number that is not open.
    pub(super) fn take(&mut self, id: QuestionId) -> Option<Purpose> {
        self.open.remove(&id)
    }

    /// Uniform between two numbers.
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        (high - low).mul_add(self.rng.random::<f64>(), low)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A fresh key.
    pub(super) fn key(&mut self) -> SecretKey {
        loop {
            // One in 2^128 draws is not a key.
            if let Ok(key) = SecretKey::from_slice(&self.bytes::<32>()) {
                return key;
            }
        }
    }
}

/// A map that forgets what was put in first when it is full: what strangers fill stays small.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Copy, V> Bounded<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            let Some(oldest) = self.order.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len().max(self.order.len())
    }
}
