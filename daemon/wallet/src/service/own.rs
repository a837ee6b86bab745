//! Transactions that we made: building them, and following them until a block holds them or something
//! else took their coins (`spec/wallet.md` 8.3, 13.6).

use std::collections::HashSet;
use std::sync::Arc;

use bdk_wallet::bitcoin::consensus::encode::{deserialize, serialize};
use bdk_wallet::bitcoin::{Transaction, Txid};

use super::command::{Command, Outcome, Prepared};
use super::state::{State, now};
use super::{SendError, SendRequest};
use crate::chain::{BroadcastError, ChainError};
use crate::graph::Position;
use crate::spend;
use crate::store::{Fact, Facts, OwnTxState};
use crate::types::{Branch, Keychain};

/// Our transactions that no block holds yet.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Those that no history has listed yet: their absence there means nothing.
    pub(super) unlisted: HashSet<Txid>,
    /// They are to be sent again as soon as the engine has caught up.
    pub(super) resend: bool,
    /// A block arrived since they were sent the last time.
    pub(super) new_block: bool,
}

impl Own {
    /// Those of which nobody knows whether they left the machine.
    pub(super) fn unsent(&self, facts: &Facts) -> HashSet<Txid> {
        let built = |txid: &&Txid| {
            facts.own_txs.get(*txid).is_some_and(|own| own.state == OwnTxState::Built)
        };
        self.unlisted.iter().filter(built).copied().collect()
    }
}

impl State {
    /// Takes up what an earlier life of the process left unfinished: its coins stay spent, and it is
    /// sent again as soon as there is a connection.
    pub(super) fn resume_own(&mut self) {
        let unfinished: Vec<(Txid, Vec<u8>)> = self
            .store
            .facts()
            .own_txs
            .iter()
            .filter(|(_, own)| matches!(own.state, OwnTxState::Built | OwnTxState::Broadcast))
            .map(|(txid, own)| (*txid, own.raw.clone()))
            .collect();
        for (txid, raw) in unfinished {
            if matches!(self.canonical.positions.get(&txid), Some(Position::Block(_))) {
                continue;
            }
            let Ok(tx) = deserialize::<Transaction>(&raw) else {
                tracing::error!(%txid, "stored transaction cannot be read");
                continue;
            };
            self.own.resend = true;
            self.own.unlisted.insert(txid);
            // One that vanished after the server had it stays away until it is accepted again.
            let vanished = self.graph.tx(txid).is_some() && self.graph.is_evicted(txid);
            let known = self.canonical.positions.contains_key(&txid);
            if !vanished && !known {
                let change = self.graph.insert_own(Arc::new(tx), now());
                self.keep(change);
                self.mark_stale(true);
            }
        }
    }

    /// Selects and locks coins, builds, signs and stores a payment. After this the transaction exists.
    pub(super) fn prepare(
        &mut self,
        request: &SendRequest,
        rate: u64,
    ) -> Result<Prepared, SendError> {
        self.check_full()?;
        if request.mixdepth > self.max_mixdepth() {
            return Err(SendError::NoSuchMixdepth(request.mixdepth));
        }
        self.refresh_if_stale();
        // The engine's tip has the median time; that of a stored chain has not.
        let tip = self.chain.status().borrow().tip.or(self.tip).ok_or_else(|| {
            SendError::Chain(ChainError::Unavailable { reason: "no block is known yet".to_owned() })
        })?;
        let snapshot = self.snapshot.load_full();
        let mut rng = rand::rng();
        let destination = request.destination.script_pubkey();
        let plan = spend::plan(
            &mut spend::SpendContext {
                coins: &snapshot.coins,
                mixdepth: request.mixdepth,
                tip_height: tip.height,
                median_time: tip.median_time,
                rate_sat_per_kvb: rate,
                merge: self.policy.load().merge_algorithm,
                wallet_type: snapshot.wallet_type,
                rng: &mut rng,
            },
            request.amount,
            &destination,
            request.inputs.as_deref(),
        )?;
        if let Some(limit) = request.max_fee.filter(|limit| plan.fee() > *limit) {
            let (fee, limit) = (plan.fee().to_sat(), limit.to_sat());
            return Err(SendError::FeeAboveLimit { fee, limit });
        }
        let change_branch = Keychain { mixdepth: request.mixdepth, branch: Branch::Internal };
        let mut facts = Vec::with_capacity(2);
        let change_script = match plan.change() {
            None => None,
            Some(_) => {
                let (script, fact) = self.next_address(change_branch, Some(&destination))?;
                facts.push(fact);
                Some(script)
            }
        };
        let changes = change_script.is_some();
        let mut tx = plan.build(change_script, &mut rng)?;
        spend::sign(&mut tx, plan.inputs(), self.keys.master())?;
        let txid = tx.compute_txid();
        facts.push(Fact::OwnTransaction { txid, raw: serialize(&tx), time: now() });
        self.record(&facts)?;
        if changes {
            self.issued(change_branch);
        }
        self.locks.hold(tx.input.iter().map(|input| input.previous_output), txid);
        self.publish();
        Ok(Prepared {
            transaction: Arc::new(tx),
            txid,
            fee: plan.fee().to_sat(),
            includes_expired_bond: plan.includes_expired_bond(),
        })
    }

    /// Takes the outcome of sending one of our transactions, for the first time or again.
    pub(super) fn sent(&mut self, txid: Txid, outcome: Outcome, first: bool) {
        let Some(own) = self.store.facts().own_txs.get(&txid).cloned() else { return };
        // A peer may have been faster: what the server lists it has, whatever it says of ours.
        let outcome = if self.counts_as_listed(txid) { Outcome::Accepted } else { outcome };
        match outcome {
            Outcome::Accepted => {
                if own.state == OwnTxState::Built {
                    self.set_own_state(txid, OwnTxState::Broadcast);
                }
                self.apply_own(txid, &own.raw);
                if self.announcer.own(txid) {
                    self.tell_of(txid, None);
                }
            }
            Outcome::Unknown => {
                if first {
                    self.apply_own(txid, &own.raw);
                }
                self.own.resend = true;
            }
            // What a server once took may still be in other mempools: it stays until its coins are
            // seen to be spent otherwise.
            Outcome::Rejected if own.state != OwnTxState::Built => {
                tracing::warn!(%txid, "the server does not take our transaction back");
            }
            Outcome::Rejected => {
                self.set_own_state(txid, OwnTxState::Rejected);
                self.own.unlisted.remove(&txid);
                if self.graph.tx(txid).is_some() {
                    let change = self.graph.evict(txid, now());
                    self.keep(change);
                    self.mark_stale(true);
                }
            }
        }
        self.locks.release(txid);
        self.mark_stale(false);
        self.refresh();
        self.commit();
    }

    fn counts_as_listed(&self, txid: Txid) -> bool {
        self.canonical.positions.contains_key(&txid)
            && !self.own.unlisted.contains(&txid)
            && self.graph.tx(txid).is_some_and(|tx| self.is_listed(txid, &tx))
    }

    fn apply_own(&mut self, txid: Txid, raw: &[u8]) {
        match deserialize::<Transaction>(raw) {
            // The server was faster with its news than with its answer.
            Ok(tx) if self.is_listed(txid, &tx) => {}
            Ok(tx) => {
                let change = self.graph.insert_own(Arc::new(tx), now());
                self.keep(change);
                self.own.unlisted.insert(txid);
                self.mark_stale(true);
            }
            Err(error) => tracing::error!(%txid, %error, "stored transaction cannot be read"),
        }
    }

    pub(super) fn set_own_state(&mut self, txid: Txid, state: OwnTxState) {
        if let Err(error) = self.record(&[Fact::OwnTransactionState { txid, state }]) {
            // The old state stands: the transaction is sent again some time, which changes nothing.
            tracing::error!(%txid, %error, "state of a transaction could not be stored");
        }
    }

    /// Follows our transactions after the graph changed: in a block, or beaten by one that is.
    pub(super) fn settle_own(&mut self) {
        let mut news = Vec::new();
        for (txid, own) in &self.store.facts().own_txs {
            if matches!(own.state, OwnTxState::Rejected | OwnTxState::Confirmed) {
                continue;
            }
            match self.canonical.positions.get(txid) {
                Some(Position::Block(_)) => news.push((*txid, OwnTxState::Confirmed)),
                Some(Position::Mempool(_)) => {}
                None if self.is_beaten(*txid) => news.push((*txid, OwnTxState::Rejected)),
                None => {}
            }
        }
        for (txid, state) in news {
            self.set_own_state(txid, state);
            self.own.unlisted.remove(&txid);
        }
    }

    /// Whether a confirmed transaction spends a coin of this one.
    fn is_beaten(&self, txid: Txid) -> bool {
        self.rivals(txid)
            .iter()
            .any(|rival| matches!(self.canonical.positions.get(rival), Some(Position::Block(_))))
    }

    /// Other transactions that count and spend a coin of this one.
    fn rivals(&self, txid: Txid) -> HashSet<Txid> {
        let Some(tx) = self.graph.tx(txid) else { return HashSet::new() };
        tx.input
            .iter()
            .flat_map(|input| self.graph.spenders(input.previous_output))
            .filter(|other| *other != txid && self.canonical.positions.contains_key(other))
            .collect()
    }

    /// With each block, sends again what no server has listed yet. Called with an up-to-date graph.
    pub(super) fn send_again_on_block(&mut self) {
        if self.sync.complete && !self.is_stale() && std::mem::take(&mut self.own.new_block) {
            self.send_again();
        }
    }

    /// Sends again what no server has listed yet.
    pub(super) fn send_again(&mut self) {
        let txids: Vec<Txid> = self.own.unlisted.iter().copied().collect();
        for txid in txids {
            if !self.rivals(txid).is_empty() {
                continue;
            }
            let Some(own) = self.store.facts().own_txs.get(&txid) else { continue };
            let Ok(tx) = deserialize::<Transaction>(&own.raw) else { continue };
            let (chain, commands) = (self.chain.clone(), self.commands.clone());
            let runtime = self.outside.clone().unwrap_or_else(tokio::runtime::Handle::current);
            runtime.spawn(async move {
                let outcome = match chain.broadcast(tx).await {
                    Ok(()) => Outcome::Accepted,
                    Err(BroadcastError::Rejected { text }) => {
                        tracing::warn!(%txid, %text, "our transaction was rejected");
                        Outcome::Rejected
                    }
                    Err(BroadcastError::Unknown(error)) => {
                        tracing::warn!(%txid, %error, "our transaction could not be sent");
                        Outcome::Unknown
                    }
                };
                if let Some(commands) = commands.upgrade() {
                    let sent = Command::Sent { txid, outcome, first: false, reply: None };
                    // An error means that the wallet was closed.
                    let _ = commands.send(sent);
                }
            });
        }
    }
}
