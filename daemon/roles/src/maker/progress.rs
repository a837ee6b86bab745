//! What a conversation asks of the wallet and the chain, step by step (`spec/roles.md` 4.5 to 4.7, 4.10).
//!
//! Taker's coin; round in the journal, coins held and addresses, all at once; that they are told and the proof that they
//! are ours, `!ioauth`; then for each transaction the values of its inputs, that it is signed and the signatures, `!sig`.
//! The wallet proves and signs: no key of a coin comes here. A session that is gone meanwhile leaves nothing open: what
//! comes back for it is ended or forgotten.

use std::time::Duration;

use joinery_proto::conversation::maker::MakerOutput;
use joinery_proto::conversation::{Ended, Fact};
use joinery_proto::podle::Revelation;
use joinery_proto::transaction::fees::Agreement;
use joinery_wallet::service::{MakerRound, RoundAccounts, RoundOutputs};

use super::check::{self, InputCheck};
use super::coins;
use super::desk::Purpose;
use super::session::{Addresses, Cause, LookUp, LookUpState, Session, SessionId, Step};
use super::sessions::{Env, Sessions};
use crate::ask::{Answer, AskError, Question};

/// Most looks at the chain at once.
const MAX_LOOK_UPS: usize = 4;
/// Times that a chain that does not answer is asked for one taker's coin.
const MAX_LOOK_UP_TRIES: u8 = 3;
/// A coin that was not there is not looked for again for so long.
const ABSENT_MEMORY: Duration = Duration::from_secs(60);
/// The lowest rate of the mempool is asked for again after this time.
const FLOOR_MEMORY: Duration = Duration::from_secs(120);
/// Times that coins are chosen for one session: each time the wallet refused one.
const MAX_CHOICES: usize = 4;

impl Sessions {
    /// Does what a conversation wants.
    pub(super) fn act(&mut self, id: SessionId, outputs: Vec<MakerOutput>, env: &mut Env<'_>) {
        for output in outputs {
            let Some(session) = self.all.get_mut(&id) else { return };
            match output {
                MakerOutput::Send(word, payload) => {
                    env.desk.send(session.nick, word, payload, Some(session.via));
                }
                MakerOutput::LookUp(revelation) => self.look_up(id, &revelation, env),
                MakerOutput::ChooseCoins { .. } => self.choose(id, env),
                MakerOutput::Persist(fact) => self.persist(id, fact, env),
                MakerOutput::PublishCommitment(commitment) => {
                    env.commitments.used(commitment, session.nick, env.config, env.desk);
                }
                MakerOutput::Ended(ended) => {
                    self.close(id, &Cause::Conversation(ended), env);
                }
            }
        }
    }

    fn look_up(&mut self, id: SessionId, revelation: &Revelation, env: &mut Env<'_>) {
        let absent = self.absent.get(&revelation.utxo.outpoint);
        let known = absent.is_some_and(|at| env.desk.now < at.saturating_add(ABSENT_MEMORY));
        let Some(session) = self.all.get_mut(&id) else { return };
        if known {
            let outputs = session.machine.coin_found(None);
            self.act(id, outputs, env);
            return;
        }
        let utxo = revelation.utxo.clone();
        session.look_up = Some(LookUp { utxo, state: LookUpState::Waiting, tries: 0 });
        self.ask_look_ups(env);
    }

    /// Asks the chain for coins of takers that wait, as many at once and a second as are good for it.
    pub(super) fn ask_look_ups(&mut self, env: &mut Env<'_>) {
        for (id, session) in &mut self.all {
            let Some(look_up) = &mut session.look_up else { continue };
            let due = match look_up.state {
                LookUpState::Waiting => true,
                LookUpState::RetryAt(at) => at <= env.desk.now,
                LookUpState::Asked => false,
            };
            if !due {
                continue;
            }
            look_up.state = LookUpState::Waiting;
            if self.look_ups_open >= MAX_LOOK_UPS || !self.look_ups.take(env.desk.now) {
                return;
            }
            self.look_ups_open = self.look_ups_open.saturating_add(1);
            look_up.state = LookUpState::Asked;
            look_up.tries = look_up.tries.saturating_add(1);
            let question = Question::LookUp(vec![look_up.utxo.clone()]);
            env.desk.ask(Purpose::Session(*id, Step::LookUp), question);
        }
    }

    /// Chooses coins, and opens a round with them.
    fn choose(&mut self, id: SessionId, env: &mut Env<'_>) {
        // The wallet's view may not show yet what other sessions hold.
        let others = self.all.iter().filter(|(other, _)| **other != id);
        let mut taken: std::collections::HashSet<_> =
            others.flat_map(|(_, session)| session.outpoints()).collect();
        let Some(session) = self.all.get_mut(&id) else { return };
        taken.extend(&session.refused);
        let tries_left = session.refused.len() < MAX_CHOICES;
        let rules = &env.config.rules;
        let chosen = tries_left
            .then(|| {
                let (offer, amount) = (&session.offer, session.fill.amount);
                coins::choose(env.view, rules, offer, amount, env.bonded, &taken)
            })
            .flatten();
        let Some(chosen) = chosen else {
            session.plan = None;
            let outputs = session.machine.coins_chosen(None);
            self.act(id, outputs, env);
            return;
        };
        // The same taker with the same commitment is told what it was to be told before.
        let spare = self.spare.get(&(session.nick, session.fill.commitment));
        let spare = spare.filter(|spare| spare.mixdepth == chosen.mixdepth);
        let outputs = spare.map_or(
            RoundOutputs::Fresh(RoundAccounts { equal: chosen.next, change: chosen.mixdepth }),
            |spare| RoundOutputs::Known { equal: spare.cj.clone(), change: spare.change.clone() },
        );
        let round = MakerRound {
            time: env.time(),
            mixdepth: chosen.mixdepth,
            nick: env.config.nick.to_string(),
            taker: session.nick.to_string(),
            agreement: Agreement::of(&session.offer, session.fill.amount),
            coins: chosen.outpoints.clone(),
            outputs,
        };
        let question = Question::Open(Box::new(round));
        session.plan = Some(chosen);
        session.opening = true;
        env.desk.ask(Purpose::Session(id, Step::Open), question);
    }

    fn persist(&mut self, id: SessionId, fact: Fact, env: &mut Env<'_>) {
        let Some(session) = self.all.get_mut(&id) else { return };
        match fact {
            Fact::CoinsRevealed { outpoints, commitment, .. } => {
                let Some(round) = session.round else { return };
                let (Some(session_key), Some(coin)) =
                    (session.machine.session_key(), outpoints.first().copied())
                else {
                    return;
                };
                session.revealing = true;
                let question = Question::Reveal { round, commitment, session: session_key, coin };
                env.desk.ask(Purpose::Session(id, Step::Reveal), question);
            }
            Fact::Signed { .. } => self.check(id, env),
            Fact::CommitmentSent { .. } | Fact::TransactionShown { .. } | _ => {}
        }
    }

    /// Begins to ask the chain for the inputs of the agreed transaction.
    fn check(&mut self, id: SessionId, env: &mut Env<'_>) {
        let Some(session) = self.all.get_mut(&id) else { return };
        let Some((tx, share)) = session.machine.agreed() else { return };
        let Some(foreign) = check::foreign_inputs(tx, share) else {
            self.sign(id, env);
            return;
        };
        let until = env.desk.now.saturating_add(env.config.timing.input_check);
        let foreign_known = foreign.is_empty();
        let inputs = foreign_known.then(Vec::new);
        let recent = |at: &Duration| env.desk.now < at.saturating_add(FLOOR_MEMORY);
        let floor = self.floor.filter(|(at, _)| recent(at)).map(|(_, floor)| Some(floor));
        session.check = Some(InputCheck { until, inputs, floor });
        if !foreign_known {
            env.desk.ask(Purpose::Session(id, Step::Inputs), Question::LookUp(foreign));
        }
        if floor.is_none() {
            env.desk.ask(Purpose::Session(id, Step::FeeRate), Question::FeeRate);
        } else if foreign_known {
            self.checked(id, env);
        }
    }

    /// The chain answered, or its time is over.
    fn checked(&mut self, id: SessionId, env: &mut Env<'_>) {
        let Some(session) = self.all.get_mut(&id) else { return };
        let Some(check) = &session.check else { return };
        let late = env.desk.now >= check.until;
        let refusal = match (&check.inputs, check.floor, session.machine.agreed()) {
            (Some(inputs), floor, Some((tx, share))) if floor.is_some() || late => {
                check::by_chain(tx, share, inputs, floor.flatten()).err()
            }
            _ if late => None,
            _ => return,
        };
        session.check = None;
        match refusal {
            Some(refusal) => {
                let outputs = session.machine.refuse_transaction(refusal);
                self.act(id, outputs, env);
            }
            None => self.sign(id, env),
        }
    }

    /// Has the agreed transaction signed.
    fn sign(&mut self, id: SessionId, env: &mut Env<'_>) {
        let Some(session) = self.all.get_mut(&id) else { return };
        let Some(round) = session.round else { return };
        let Some((tx, _)) = session.machine.agreed() else { return };
        let question =
            Question::Sign { round, transaction: Box::new(tx.clone()), time: env.time() };
        env.desk.ask(Purpose::Session(id, Step::Sign), question);
    }

    /// A question of a session was answered.
    pub(super) fn answered(
        &mut self,
        id: SessionId,
        step: Step,
        answer: Answer,
        env: &mut Env<'_>,
    ) {
        if step == Step::LookUp {
            self.look_ups_open = self.look_ups_open.saturating_sub(1);
        }
        if step == Step::End {
            self.closing = self.closing.saturating_sub(1);
        }
        let Some(session) = self.all.get_mut(&id) else {
            self.too_late(id, answer, env);
            return;
        };
        if step == Step::Open {
            session.opening = false;
        }
        match (step, answer) {
            (Step::LookUp, Answer::Found(found)) => self.coin_found(id, found, env),
            (Step::Open, Answer::Opened(Ok(opened))) => {
                let Some(choice) = session.opened(opened) else {
                    self.close(id, &Cause::Wallet, env);
                    return;
                };
                let outputs = session.machine.coins_chosen(Some(choice));
                self.act(id, outputs, env);
            }
            (Step::Open, Answer::Opened(Err(AskError::Unusable(coin)))) => {
                session.refused.insert(coin);
                self.choose(id, env);
            }
            (Step::Reveal, Answer::Revealed(Ok(authorisation))) => {
                session.revealing = false;
                let nonce = env.desk.bytes();
                let outputs = session.machine.revealed(authorisation, env.blacklist, nonce);
                self.act(id, outputs, env);
            }
            (Step::Sign, Answer::Signed(Err(AskError::Refused(refusal)))) => {
                let outputs = session.machine.refuse_transaction(refusal);
                self.act(id, outputs, env);
            }
            (Step::Sign, Answer::Signed(Ok(signatures))) => {
                let txid = session.machine.agreed().map(|(tx, _)| tx.compute_txid());
                session.signed = session.signed.saturating_add(1);
                self.signed = self.signed.saturating_add(1);
                if let Some(txid) = txid {
                    self.remember_signed(txid, id, env.desk.now);
                }
                let Some(session) = self.all.get_mut(&id) else { return };
                let desk = &mut *env.desk;
                let outputs = session.machine.signed(&signatures, || desk.bytes());
                self.act(id, outputs, env);
            }
            (Step::Inputs, Answer::Found(found)) => {
                if let Some(check) = &mut session.check {
                    match found {
                        Ok(inputs) => check.inputs = Some(inputs),
                        // Nobody's fault: signed without.
                        Err(_) => check.until = env.desk.now,
                    }
                    self.checked(id, env);
                }
            }
            (Step::FeeRate, Answer::FeeRate(rate)) => {
                let floor = rate.ok().map(|rate| rate.floor);
                self.floor = floor.map(|floor| (env.desk.now, floor)).or(self.floor);
                if let Some(check) = &mut session.check {
                    check.floor = Some(floor);
                    self.checked(id, env);
                }
            }
            (_, answer) => self.broken(id, answer, env),
        }
    }

    fn coin_found(
        &mut self,
        id: SessionId,
        found: Result<Vec<Option<joinery_proto::transaction::taker::ForeignCoin>>, AskError>,
        env: &mut Env<'_>,
    ) {
        let Some(session) = self.all.get_mut(&id) else { return };
        let Some(look_up) = &mut session.look_up else { return };
        match found {
            Ok(coins) => {
                let coin = coins.into_iter().next().flatten();
                if coin.is_none() {
                    self.absent.insert(look_up.utxo.outpoint, env.desk.now);
                }
                session.look_up = None;
                let outputs = session.machine.coin_found(coin.as_ref());
                self.act(id, outputs, env);
            }
            // The chain is asked again; the taker is not to blame.
            Err(AskError::Unreachable(_)) if look_up.tries < MAX_LOOK_UP_TRIES => {
                let at = env.desk.now.saturating_add(env.config.timing.chain_retry);
                look_up.state = LookUpState::RetryAt(at);
            }
            Err(error) => {
                env.fail(error);
                self.close(id, &Cause::Unreachable, env);
            }
        }
        self.ask_look_ups(env);
    }

    /// The wallet could not, or said something that was not asked: nothing leaves.
    fn broken(&mut self, id: SessionId, answer: Answer, env: &mut Env<'_>) {
        env.fail(error_of(answer));
        self.close(id, &Cause::Wallet, env);
    }

    /// An answer for a session that is gone.
    fn too_late(&mut self, id: SessionId, answer: Answer, env: &mut Env<'_>) {
        match answer {
            Answer::Opened(Ok(opened)) => {
                if let Some((nick, commitment, mixdepth)) = self.late.get(&id).copied() {
                    let (cj, change) = (opened.equal, opened.change);
                    self.spare.insert((nick, commitment), Addresses { mixdepth, cj, change });
                }
                self.end_round(id, opened.id, &Cause::Gone, env);
            }
            // A coin that was taken meanwhile, and a transaction that is not good, are no failures of ours.
            Answer::Opened(Err(AskError::Unusable(_)))
            | Answer::Signed(Err(AskError::Refused(_))) => {}
            Answer::Opened(Err(error))
            | Answer::Revealed(Err(error))
            | Answer::Signed(Err(error))
            | Answer::Recorded(Err(error)) => env.fail(error),
            _ => {}
        }
        self.ask_look_ups(env);
    }

    /// Time passed.
    pub(super) fn tick(&mut self, env: &mut Env<'_>) {
        let now = env.millis();
        let ids: Vec<SessionId> = self.all.keys().copied().collect();
        for id in ids {
            let Some(session) = self.all.get_mut(&id) else { continue };
            let outputs = session.machine.tick(now);
            let late = session.check.as_ref().is_some_and(|check| env.desk.now >= check.until);
            self.act(id, outputs, env);
            if late {
                self.checked(id, env);
            }
        }
        self.ask_look_ups(env);
    }

    /// The wallet changed: sessions whose coins are gone are over.
    pub(super) fn wallet(&mut self, env: &mut Env<'_>) {
        let unspent: std::collections::HashSet<_> =
            env.view.coins.iter().map(|coin| coin.outpoint).collect();
        let gone = |session: &Session| {
            session.round.is_some()
                && session.outpoints().any(|outpoint| !unspent.contains(&outpoint))
        };
        let over: Vec<(SessionId, Cause)> = self
            .all
            .iter()
            .filter(|(_, session)| gone(session))
            .map(|(id, session)| {
                // Spent by the coinjoin itself, as it should be.
                let signed = session.machine.has_signed();
                let complete = Cause::Conversation(Ended::Complete);
                (*id, if signed { complete } else { Cause::Wallet })
            })
            .collect();
        for (id, cause) in over {
            self.close(id, &cause, env);
        }
    }

    /// The maker stops: sessions that have shown nothing, or have signed, are over at once. With `all` every one is.
    pub(super) fn stop(&mut self, all: bool, env: &mut Env<'_>) {
        let ids: Vec<SessionId> = self.all.keys().copied().collect();
        for id in ids {
            let Some(session) = self.all.get_mut(&id) else { continue };
            let machine = &mut session.machine;
            if all || machine.has_signed() || !machine.has_revealed() {
                let outputs = machine.stop();
                self.act(id, outputs, env);
            }
        }
    }

    /// When something is to be done.
    pub(super) fn next_wake(&self, now: Duration) -> Option<Duration> {
        let waiting = |session: &Session| {
            let look_up = session.look_up.as_ref()?;
            match look_up.state {
                // The budget, or one of those that are asked, lets it go on.
                LookUpState::Waiting if self.look_ups_open < MAX_LOOK_UPS => {
                    Some(self.look_ups.ready_at(1, now))
                }
                LookUpState::RetryAt(at) => Some(at),
                LookUpState::Waiting | LookUpState::Asked => None,
            }
        };
        let wakes = self.all.values().flat_map(|session| {
            let deadline = Duration::from_millis(session.machine.deadline());
            let check = session.check.as_ref().map(|check| check.until);
            [Some(deadline), check, waiting(session)]
        });
        wakes.flatten().min()
    }
}

/// The error in an answer.
fn error_of(answer: Answer) -> AskError {
    let error = match answer {
        Answer::Begun(answer) => answer.err(),
        Answer::Opened(answer) => answer.err(),
        Answer::Revealed(answer) => answer.err(),
        Answer::Signed(answer) => answer.err(),
        Answer::Reserved(answer) | Answer::Recorded(answer) => answer.err(),
        Answer::Address(answer) => answer.err(),
        Answer::Coins(answer) => answer.err(),
        Answer::Found(answer) => answer.err(),
        Answer::FeeRate(answer) => answer.err(),
        Answer::Certified(answer) => answer.err(),
        Answer::Broadcast(answer) => answer.err(),
    };
    error.unwrap_or_else(|| AskError::Internal("an answer to another question".to_owned()))
}
