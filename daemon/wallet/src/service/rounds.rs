//! Coinjoin rounds in the wallet task: what must be durable before anything leaves, which coins are held, and
//! that only takers get keys (`spec/roles.md` 3.6, 3.7, 4.10). What a maker's round needs besides is in
//! [`super::lending`].
//!
//! The roles decide what is good for us; what is checked here is what must hold whatever they do: a coin is in one
//! round at a time, coins of two accounts never meet, and no commitment is used twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bdk_wallet::bitcoin::consensus::encode::{deserialize, serialize};
use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{OutPoint, Transaction, TxOut, Txid};
use joinery_proto::bond_proof::Certificate;
use joinery_proto::transaction::signing::OwnCoin;

use super::round_error::{RoundError, Unusable};
use super::state::{State, now};
use super::{BondCertificate, RoundNews, WalletEvent};
use crate::keys::SignerKind;
use crate::path::ScriptPlace;
use crate::policy::WalletPolicy;
use crate::round::{
    MAX_COINS, MAX_COUNTERPARTIES, MAX_KEPT_ROUNDS, MAX_SENTENCE, MAX_SIGNED, MAX_TRANSACTION,
    MAX_WORD, Round, RoundBegin, RoundEnd, RoundEvent, RoundId, RoundRole, RoundSums,
};
use crate::snapshot::{Coin, Snapshot};
use crate::store::{Fact, Facts, OwnTxState};
use crate::types::Mixdepth;

/// Rounds as readers see them, ascending by number.
pub(super) type RoundList = Arc<Vec<Arc<Round>>>;

/// What the task keeps about rounds besides the facts.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// For snapshots.
    pub(super) list: RoundList,
    /// What listeners are told once the snapshot shows it.
    news: Vec<(RoundId, RoundNews)>,
    /// When what became of them was looked at last.
    pub(super) looked: Option<Instant>,
}

impl Rounds {
    pub(super) fn new(facts: &Facts) -> Self {
        Self { list: list(facts), ..Self::default() }
    }
}

/// The running rounds and the newest ones that are over.
fn list(facts: &Facts) -> RoundList {
    let mut over = 0;
    let mut rounds: Vec<Arc<Round>> = facts
        .rounds
        .values()
        .rev()
        .filter(|round| {
            over += usize::from(round.is_over());
            !round.is_over() || over <= MAX_KEPT_ROUNDS
        })
        .cloned()
        .collect();
    rounds.reverse();
    Arc::new(rounds)
}

/// Facts that end the rounds of a role which an earlier life of the process left unfinished. What was not signed lets
/// go of its coins by that; what was signed is still followed.
pub(super) fn interrupted(facts: &Facts, role: RoundRole, time: u64) -> Vec<Fact> {
    let unfinished =
        facts.rounds.values().filter(|round| round.end.is_none() && round.begin.role == role);
    let ended = unfinished.map(|round| {
        let text = if round.signed.is_empty() {
            "The wallet was closed in the middle of the round. Nothing was signed."
        } else {
            "The wallet was closed after its inputs were signed. The transaction is still followed."
        };
        let end = RoundEnd { code: "interrupted".to_owned(), text: text.to_owned(), time };
        Fact::Round { round: round.id.0, event: RoundEvent::Ended(end) }
    });
    ended.collect()
}

/// Facts that end the interrupted rounds of the taker, and make their transactions ours to send where the policy says so.
pub(super) fn takers_interrupted(facts: &Facts, policy: &WalletPolicy, time: u64) -> Vec<Fact> {
    let mut ended = interrupted(facts, RoundRole::Taker, time);
    if policy.send_interrupted {
        ended.extend(left_to_send(facts, time));
    }
    ended
}

/// Facts that make the transactions of interrupted rounds ours to send: nobody is left who would fall back to that when
/// a maker does not send it. What a round that ended in order keeps for others stays theirs.
fn left_to_send(facts: &Facts, time: u64) -> Vec<Fact> {
    let interrupted = facts.rounds.values().filter(|round| {
        round.begin.role == RoundRole::Taker && round.end.is_none() && round.seen.is_none()
    });
    let kept = interrupted.filter_map(|round| round.signed.last());
    kept.filter(|(txid, _, _)| !facts.own_txs.contains_key(txid))
        .map(|(txid, raw, _)| Fact::OwnTransaction { txid: *txid, raw: raw.clone(), time })
        .collect()
}

pub(super) fn limited(what: &'static str, size: usize, limit: usize) -> Result<(), RoundError> {
    if size <= limit { Ok(()) } else { Err(RoundError::TooLarge { what, size, limit }) }
}

pub(super) fn check_begin_texts(destination: &str, nick: &str) -> Result<(), RoundError> {
    limited("destination", destination.len(), MAX_WORD)?;
    limited("nick", nick.len(), MAX_WORD)
}

fn check_sums(sums: &RoundSums) -> Result<(), RoundError> {
    limited("list of counterparties", sums.counterparties.len(), MAX_COUNTERPARTIES)?;
    let longest = sums.counterparties.iter().map(String::len).max().unwrap_or(0);
    limited("name of a counterparty", longest, MAX_WORD)
}

/// Cuts a text to a number of bytes, between characters.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let at = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(at);
    }
    text
}

pub(super) const fn unusable(outpoint: OutPoint, reason: Unusable) -> RoundError {
    RoundError::Unusable { outpoint, reason }
}

impl State {
    // --- bookkeeping -----------------------------------------------------------------------------

    /// Takes note of facts about rounds that are recorded: held coins, the list for readers, news.
    pub(super) fn note_rounds(&mut self, facts: &[Fact]) {
        let mut changed = false;
        for fact in facts {
            let Fact::Round { round, event } = fact else { continue };
            let id = RoundId(*round);
            changed = true;
            self.rounds.news.push((id, RoundNews::of(event)));
        }
        if changed {
            self.locks.follow(&self.store.facts().rounds);
            self.rounds.list = list(self.store.facts());
            self.mark_stale(false);
        }
    }

    /// Tells listeners what the snapshot shows by now.
    pub(super) fn tell_rounds(&mut self) {
        for (round, what) in std::mem::take(&mut self.rounds.news) {
            // An error means that nobody listens.
            let _ = self.events.send(WalletEvent::Round { round, what });
        }
    }

    fn round(&self, id: RoundId) -> Result<Arc<Round>, RoundError> {
        self.store.facts().rounds.get(&id).cloned().ok_or(RoundError::NoSuchRound(id))
    }

    /// A round whose conversation goes on, and that this session may work with.
    pub(super) fn running(&self, id: RoundId) -> Result<Arc<Round>, RoundError> {
        let round = self.round(id)?;
        self.check_role(round.begin.role)?;
        if round.end.is_some() { Err(RoundError::Ended(id)) } else { Ok(round) }
    }

    fn check_role(&self, role: RoundRole) -> Result<(), RoundError> {
        if role == RoundRole::Maker {
            return Ok(());
        }
        self.check_full().map_err(RoundError::from)
    }

    pub(super) fn record_event(
        &mut self,
        id: RoundId,
        event: RoundEvent,
    ) -> Result<(), RoundError> {
        self.record_events(&[Fact::Round { round: id.0, event }])
    }

    fn record_events(&mut self, facts: &[Fact]) -> Result<(), RoundError> {
        self.record(facts)?;
        self.publish_or_wait();
        Ok(())
    }

    // --- commands --------------------------------------------------------------------------------

    pub(super) fn begin_round(&mut self, begin: RoundBegin) -> Result<RoundId, RoundError> {
        if begin.role != RoundRole::Taker || begin.agreed.is_some() {
            return Err(RoundError::OutOfOrder("a maker's round is opened with its coins"));
        }
        self.check_role(begin.role)?;
        self.check_mixdepth(Mixdepth(begin.mixdepth))?;
        check_begin_texts(&begin.destination, &begin.nick)?;
        let id = self.store.facts().next_round();
        self.record_event(id, RoundEvent::Begun(begin))?;
        Ok(id)
    }

    pub(super) fn check_mixdepth(&self, mixdepth: Mixdepth) -> Result<(), RoundError> {
        if mixdepth > self.max_mixdepth() {
            return Err(RoundError::NoSuchMixdepth(mixdepth));
        }
        Ok(())
    }

    /// A taker's round whose conversation goes on.
    fn takers(&self, id: RoundId) -> Result<Arc<Round>, RoundError> {
        let round = self.running(id)?;
        if round.begin.role == RoundRole::Taker {
            Ok(round)
        } else {
            Err(RoundError::OutOfOrder("it is a maker's round"))
        }
    }

    pub(super) fn reserve(
        &mut self,
        id: RoundId,
        mut outpoints: Vec<OutPoint>,
    ) -> Result<(), RoundError> {
        let round = self.takers(id)?;
        if !round.signed.is_empty() {
            return Err(RoundError::OutOfOrder("coins are held before anything is signed"));
        }
        outpoints.sort_unstable();
        outpoints.dedup();
        limited("list of coins", outpoints.len() + round.coins.len(), MAX_COINS)?;
        self.refresh_if_stale();
        let snapshot = self.snapshot.load_full();
        for outpoint in &outpoints {
            let coin = self.coin(&snapshot, *outpoint)?;
            self.check_coin(id, Mixdepth(round.begin.mixdepth), coin)
                .map_err(|reason| unusable(*outpoint, reason))?;
        }
        outpoints.retain(|outpoint| self.locks.round(outpoint) != Some(id));
        if outpoints.is_empty() {
            return Ok(());
        }
        self.record_event(id, RoundEvent::Reserved { outpoints })
    }

    /// An unspent coin of ours.
    pub(super) fn coin<'a>(
        &self,
        of: &'a Snapshot,
        outpoint: OutPoint,
    ) -> Result<&'a Coin, RoundError> {
        let coin = of.coins.iter().find(|coin| coin.outpoint == outpoint);
        coin.ok_or_else(|| unusable(outpoint, self.why_missing(outpoint)))
    }

    fn why_missing(&self, outpoint: OutPoint) -> Unusable {
        let unspent = self.canonical.coins.iter().any(|coin| coin.outpoint == outpoint);
        if !unspent && self.graph.is_ours(outpoint) { Unusable::Spent } else { Unusable::Unknown }
    }

    /// Whether a coin may go into a round over coins of this account.
    pub(super) fn check_coin(
        &self,
        round: RoundId,
        mixdepth: Mixdepth,
        coin: &Coin,
    ) -> Result<(), Unusable> {
        let held = self.locks.holder(&coin.outpoint).is_some()
            && self.locks.round(&coin.outpoint) != Some(round);
        match coin {
            _ if held => Err(Unusable::Held),
            _ if coin.place.is_bond() || coin.locktime.is_some() => Err(Unusable::Bond),
            _ if coin.frozen => Err(Unusable::Frozen),
            _ if !coin.script.is_p2wpkh() => Err(Unusable::Script),
            _ if coin.mixdepth() != mixdepth => Err(Unusable::Mixdepth),
            _ => Ok(()),
        }
    }

    pub(super) fn record_round(
        &mut self,
        id: RoundId,
        event: RoundEvent,
    ) -> Result<(), RoundError> {
        if event == RoundEvent::Accounted {
            // The row is written when the conversation is long over.
            let round = self.round(id)?;
            if round.accounted {
                return Ok(());
            }
            return self.record_event(id, event);
        }
        let round = self.takers(id)?;
        let mut facts = Vec::with_capacity(2);
        match &event {
            RoundEvent::Released => {
                if !round.signed.is_empty() {
                    return Err(RoundError::OutOfOrder("signed coins are never let go"));
                }
            }
            RoundEvent::CommitmentSent { outpoint, index, commitment } => {
                facts.extend(self.commitment_fact(&round, *outpoint, *index, *commitment)?);
            }
            RoundEvent::Shown { sums, .. } => check_sums(sums)?,
            _ => return Err(RoundError::OutOfOrder("the event is not for a role to record")),
        }
        facts.push(Fact::Round { round: id.0, event });
        self.record_events(&facts)
    }

    /// The fact that uses a commitment up together with the event; none for an external one.
    fn commitment_fact(
        &self,
        round: &Round,
        outpoint: Option<OutPoint>,
        index: u8,
        commitment: [u8; 32],
    ) -> Result<Option<Fact>, RoundError> {
        let used = &self.store.facts().commitments;
        if used.values().flat_map(|used| used.values()).any(|known| *known == commitment) {
            return Err(RoundError::CommitmentUsed);
        }
        let Some(outpoint) = outpoint else { return Ok(None) };
        if used.get(&outpoint).is_some_and(|used| used.contains_key(&index)) {
            return Err(RoundError::CommitmentUsed);
        }
        // A coin of another account would link the two towards the makers.
        match self.graph.index().txout(outpoint) {
            None => Err(unusable(outpoint, Unusable::Unknown)),
            Some((place, _)) if place.is_bond() => Err(unusable(outpoint, Unusable::Bond)),
            Some((place, _)) if place.mixdepth() != Mixdepth(round.begin.mixdepth) => {
                Err(unusable(outpoint, Unusable::Mixdepth))
            }
            Some(_) => Ok(Some(Fact::CommitmentUsed { outpoint, index, commitment })),
        }
    }

    /// A taker's transaction spends coins of its round and no others of ours.
    fn check_spent(&self, round: &Round, tx: &Transaction) -> Result<(), RoundError> {
        let mut inputs = HashSet::with_capacity(tx.input.len());
        let mut held = false;
        for input in &tx.input {
            let outpoint = input.previous_output;
            if !inputs.insert(outpoint) {
                return Err(RoundError::WrongTransaction("it spends a coin twice"));
            }
            if self.graph.index().txout(outpoint).is_none() {
                continue;
            }
            if self.locks.round(&outpoint) != Some(round.id) {
                return Err(RoundError::NotHeld { round: round.id, outpoint });
            }
            held = true;
        }
        if held {
            Ok(())
        } else {
            Err(RoundError::WrongTransaction("it spends no coin of the round"))
        }
    }

    pub(super) fn coinjoin_coins(
        &mut self,
        id: RoundId,
        outpoints: &[OutPoint],
    ) -> Result<Vec<OwnCoin>, RoundError> {
        self.takers(id)?;
        limited("list of coins", outpoints.len(), MAX_COINS)?;
        self.refresh_if_stale();
        let snapshot = self.snapshot.load_full();
        let mut coins = Vec::with_capacity(outpoints.len());
        for &outpoint in outpoints {
            if self.locks.round(&outpoint) != Some(id) {
                return Err(RoundError::NotHeld { round: id, outpoint });
            }
            self.coin(&snapshot, outpoint)?;
            coins.push(self.own_coin(outpoint)?);
        }
        Ok(coins)
    }

    /// An output that pays us, spent or not.
    pub(super) fn txout(&self, outpoint: OutPoint) -> Result<(ScriptPlace, &TxOut), RoundError> {
        let txout = self.graph.index().txout(outpoint);
        txout.ok_or_else(|| unusable(outpoint, self.why_missing(outpoint)))
    }

    /// A coin of ours with its key.
    pub(super) fn own_coin(&self, outpoint: OutPoint) -> Result<OwnCoin, RoundError> {
        let (place, txout) = self.txout(outpoint)?;
        let signer = self.keys.master().signer(&place);
        let signer =
            signer.map_err(|_| RoundError::KeyCheck("the wallet has no key for a coin"))?;
        let own = OwnCoin::new(outpoint, txout.value.to_sat(), *signer.secret_key());
        let script = &txout.script_pubkey;
        let owns = signer.script_pubkey() == script && own.script() == script;
        if owns && signer.kind() == SignerKind::P2wpkh {
            Ok(own)
        } else {
            Err(RoundError::KeyCheck("a key does not own its coin"))
        }
    }

    pub(super) fn end_round(&mut self, id: RoundId, end: RoundEnd) -> Result<(), RoundError> {
        let round = self.round(id)?;
        if round.end.is_some() {
            return Err(RoundError::Ended(id));
        }
        let RoundEnd { code, text, time } = end;
        let end = RoundEnd { code: cut(code, MAX_WORD), text: cut(text, MAX_SENTENCE), time };
        let end = RoundEvent::Ended(end);
        if round.begin.role == RoundRole::Maker && round.commitment.is_none() {
            // Nobody was told of it: its coins are free at once, whether the disk takes the end or not.
            self.note(&[Fact::Round { round: id.0, event: end }]);
            self.publish_or_wait();
            return Ok(());
        }
        self.record_event(id, end)
    }

    pub(super) fn keep_transaction(
        &mut self,
        id: RoundId,
        tx: &Transaction,
        sums: RoundSums,
        send: bool,
    ) -> Result<(), RoundError> {
        let round = self.takers(id)?;
        check_sums(&sums)?;
        let raw = serialize(tx);
        limited("transaction", raw.len(), MAX_TRANSACTION)?;
        if tx.input.iter().any(|input| input.witness.is_empty() && input.script_sig.is_empty()) {
            return Err(RoundError::WrongTransaction("an input is not signed"));
        }
        let (txid, time) = (tx.compute_txid(), now());
        let known = round.signed.iter().any(|(known, kept, _)| *known == txid && *kept == raw);
        let mut facts = Vec::with_capacity(2);
        if !known {
            let others = round.signed.iter().filter(|(known, _, _)| *known != txid);
            if others.count() >= MAX_SIGNED {
                return Err(RoundError::OutOfOrder("too many transactions are signed already"));
            }
            self.check_spent(&round, tx)?;
            let event = RoundEvent::Signed { txid, raw: raw.clone(), sums, time };
            facts.push(Fact::Round { round: id.0, event });
        }
        if send && !self.store.facts().own_txs.contains_key(&txid) {
            facts.push(Fact::OwnTransaction { txid, raw, time });
        }
        self.record_events(&facts)
    }

    /// The complete transaction of a taker's round, which is ours to send from now on; `None` when a block has it.
    pub(super) fn take_round_transaction(
        &mut self,
        id: RoundId,
    ) -> Result<Option<(Txid, Transaction)>, RoundError> {
        let round = self.round(id)?;
        self.check_role(round.begin.role)?;
        let kept = round.signed.last().filter(|_| round.begin.role == RoundRole::Taker);
        let (txid, raw, _) =
            kept.ok_or(RoundError::OutOfOrder("there is no complete transaction"))?;
        if round.abandoned {
            return Err(RoundError::OutOfOrder("the transaction was given up"));
        }
        if round.confirmed.is_some() {
            return Ok(None);
        }
        let tx: Transaction =
            deserialize(raw).map_err(|_| RoundError::WrongTransaction("it cannot be read"))?;
        match self.store.facts().own_txs.get(txid).map(|own| own.state) {
            None => {
                let (txid, raw, time) = (*txid, raw.clone(), now());
                self.record_events(&[Fact::OwnTransaction { txid, raw, time }])?;
            }
            // Refused before: whoever asks again has a reason to think that it is taken now.
            Some(OwnTxState::Rejected) => {
                let (txid, state) = (*txid, OwnTxState::Built);
                self.record_events(&[Fact::OwnTransactionState { txid, state }])?;
            }
            Some(_) => {}
        }
        Ok(Some((*txid, tx)))
    }

    pub(super) fn certify_bond(
        &mut self,
        outpoint: OutPoint,
        cert_key: &PublicKey,
        expiry: u16,
    ) -> Result<BondCertificate, RoundError> {
        self.refresh_if_stale();
        let snapshot = self.snapshot.load_full();
        let coin = self.coin(&snapshot, outpoint)?;
        let Some(locktime) = coin.locktime.filter(|_| coin.place.is_bond()) else {
            return Err(unusable(outpoint, Unusable::NoBond));
        };
        if coin.height.is_none() {
            return Err(unusable(outpoint, Unusable::Unconfirmed));
        }
        let signer = self.keys.master().signer(&coin.place);
        let signer =
            signer.map_err(|_| RoundError::KeyCheck("the wallet has no key for a bond"))?;
        if *signer.script_pubkey() != coin.script {
            return Err(RoundError::KeyCheck("a key does not own its bond"));
        }
        Ok(BondCertificate {
            outpoint,
            value: coin.value.to_sat(),
            locktime,
            coin_key: signer.public_key().0,
            certificate: Certificate::sign(signer.secret_key(), cert_key, expiry),
        })
    }
}
