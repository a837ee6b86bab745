//! One attempt, from the fee rate to the end: its state, and which phase gets what.

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::{ScriptBuf, Txid};
use joinery_proto::conversation::Ended;
use joinery_proto::conversation::taker::TakerOutput;
use joinery_proto::nick::Nick;
use joinery_proto::podle::Commitment;
use joinery_proto::private_message::{PrivateWord, UnverifiedMessage};
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::transaction::taker::{Coinjoin, UsedPlaces};
use joinery_wallet::round::{Round, RoundBegin, RoundEvent, RoundId, RoundRole, RoundSums};

use super::broadcast::Delivery;
use super::commitment::Opening;
use super::context::{Context, Purpose};
use super::outcome::{MakerFailure, Reason, Verdict};
use super::plan::{self, Plan};
use super::progress::{FeeProgress, Phase, Progress};
use super::request::Destination;
use super::slot::{Slot, Stage};
use crate::ask::{Answer, AskError, Question};
use crate::event::Source;

/// Longest wait for the wallet or for a fee rate.
pub(super) const WALLET_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before the chain is asked again after it could not be asked.
pub(super) const CHAIN_PAUSE: Duration = Duration::from_secs(5);
/// Longest time that the chain gets for the coins of makers, beyond the time that makers have.
pub(super) const CHAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// An attempt that has not signed after this many times `maker_timeout_sec` is given up.
const STALLED_AFTER: u32 = 20;

/// `Err` is the end of the attempt, also a good one.
pub(super) type Flow = Result<(), Verdict>;

/// What an attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The fee rate.
    Rate,
    /// The round in the journal.
    Begin,
    /// Coins to be held.
    Reserve,
    /// Keys of these coins.
    Keys,
    /// The commitment to be durable.
    Commit,
    /// `!pubkey` of makers.
    Fill,
    /// Our addresses.
    Addresses,
    /// `!ioauth` of makers, and the chain about their coins.
    Authorise,
    /// The shown transaction to be durable.
    Show,
    /// `!sig` of makers.
    Sign,
    /// The chain about all inputs.
    Recheck,
    /// The complete transaction to be durable, and perhaps sent.
    Deliver,
    /// To be seen.
    Seen,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) step: Step,
    /// The step ends then.
    pub(super) until: Duration,
    /// The attempt ends then unless we have signed.
    stalled: Duration,
    pub(super) round: Option<RoundId>,
    pub(super) plan: Option<Plan>,
    pub(super) keys: Vec<OwnCoin>,
    pub(super) opening: Option<Opening>,
    pub(super) slots: Vec<Slot>,
    /// When makers were asked first.
    pub(super) asked_at: Option<Duration>,
    /// Rounds of replacement that are left.
    pub(super) replacements: u8,
    pub(super) used: UsedPlaces,
    pub(super) destination: Option<ScriptBuf>,
    pub(super) change: Option<ScriptBuf>,
    pub(super) coinjoin: Option<Coinjoin>,
    pub(super) sums: Option<RoundSums>,
    /// How many transactions makers were shown.
    pub(super) shown: u8,
    pub(super) delivery: Option<Delivery>,
    pub(super) ask_again: Option<Duration>,
    /// Longest wait for each answer of a maker.
    answer_time: Duration,
}

impl Attempt {
    pub(super) fn begin(ctx: &mut Context) -> Self {
        let policy = &ctx.setup.policy;
        let stalled = policy.maker_timeout.saturating_mul(STALLED_AFTER);
        let attempt = Self {
            step: Step::Rate,
            until: ctx.after(WALLET_TIMEOUT),
            stalled: ctx.after(stalled),
            round: None,
            plan: None,
            keys: Vec::new(),
            opening: None,
            slots: Vec::new(),
            asked_at: None,
            replacements: policy.replacement_rounds,
            used: UsedPlaces::default(),
            destination: None,
            change: None,
            coinjoin: None,
            sums: None,
            shown: 0,
            delivery: None,
            ask_again: None,
            answer_time: policy.maker_timeout,
        };
        ctx.held.clear();
        ctx.ask(Purpose::FeeRate, Question::FeeRate);
        attempt
    }

    /// Whether our signatures exist: the transaction may appear at any time.
    pub(super) const fn has_signed(&self) -> bool {
        self.delivery.is_some()
    }

    pub(super) fn wait(&mut self, step: Step, wait: Duration, ctx: &Context) {
        (self.step, self.until) = (step, ctx.after(wait));
    }

    /// The plan; it is there from the second step on.
    pub(super) fn plan(&self) -> Result<&Plan, Verdict> {
        self.plan.as_ref().ok_or_else(|| impossible("no plan"))
    }

    pub(super) fn round(&self) -> Result<RoundId, Verdict> {
        self.round.ok_or_else(|| impossible("no round"))
    }

    pub(super) fn answered(&mut self, purpose: Purpose, answer: Answer, ctx: &mut Context) -> Flow {
        match (purpose, answer) {
            (Purpose::FeeRate, Answer::FeeRate(Err(AskError::Unreachable(_)))) => {
                self.ask_again = Some(ctx.after(CHAIN_PAUSE));
                Ok(())
            }
            (Purpose::FeeRate, Answer::FeeRate(rate)) if self.step == Step::Rate => {
                let chosen = plan::choose(ctx, rate.map_err(|error| failure(&error))?)?;
                self.chosen(chosen, ctx);
                Ok(())
            }
            (Purpose::Begin, Answer::Begun(round)) => {
                let round = round.map_err(|error| failure(&error))?;
                self.round = Some(round);
                ctx.rounds.push(round);
                self.reserve(ctx)
            }
            (Purpose::Reserve, Answer::Reserved(held)) => self.reserved(held, ctx),
            (Purpose::Keys, Answer::Coins(coins)) => {
                self.keys(coins.map_err(|error| failure(&error))?, ctx)
            }
            (Purpose::Commit, Answer::Recorded(done)) => {
                done.map_err(|error| failure(&error))?;
                self.committed(ctx)
            }
            (Purpose::Address(which), Answer::Address(address)) => {
                address.map_err(|error| failure(&error))?;
                self.address(which, ctx)
            }
            (Purpose::LookUp(nick), Answer::Found(found)) => self.found(&nick, found, ctx),
            (Purpose::Show, Answer::Recorded(done)) => {
                done.map_err(|error| failure(&error))?;
                self.show(ctx)
            }
            (Purpose::Recheck, Answer::Found(found)) => self.rechecked(found, ctx),
            (Purpose::Broadcast, Answer::Broadcast(result)) => self.delivered(result, ctx),
            _ => Ok(()),
        }
    }

    fn chosen(&mut self, chosen: plan::Chosen, ctx: &mut Context) {
        let plan::Chosen { plan, makers, commitment } = chosen;
        let request = &ctx.setup.request;
        let begin = RoundBegin {
            role: RoundRole::Taker,
            time: ctx.time(),
            mixdepth: request.mixdepth.0,
            amount: plan.amount,
            counterparties: request.counterparties,
            destination: match &request.destination {
                Destination::Internal => "INTERNAL".to_owned(),
                Destination::Address(address) => address.to_string(),
            },
            nick: ctx.setup.nick.to_string(),
            agreed: None,
        };
        self.slots = makers.iter().map(|maker| Slot::new(maker.nick, maker.offer)).collect();
        self.opening = Some(Opening::new(commitment));
        self.plan = Some(plan);
        self.wait(Step::Begin, WALLET_TIMEOUT, ctx);
        ctx.ask(Purpose::Begin, Question::Begin(Box::new(begin)));
    }

    /// A private message came, its sender proved.
    pub(super) fn heard(
        &mut self,
        from: &Nick,
        via: Source,
        text: &str,
        ctx: &mut Context,
    ) -> Flow {
        // Otherwise nothing is due from anybody. Conversations that wait for us must not see that their time is over.
        let due = matches!(self.step, Step::Fill | Step::Addresses | Step::Authorise | Step::Sign);
        let Some(index) = self.place(from).filter(|_| due) else { return Ok(()) };
        let Ok(message) = UnverifiedMessage::parse(text) else { return Ok(()) };
        if message.word == PrivateWord::Error && self.is_stale(message.payload) {
            return Ok(());
        }
        let now = ctx.millis();
        let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.is_dropped()) else {
            return Ok(());
        };
        let Some(session) = &mut slot.session else { return Ok(()) };
        let outputs = session.received(message.word, message.payload, now);
        if !outputs.is_empty() {
            slot.via = Some(via);
        }
        self.handle(index, outputs, ctx)?;
        self.advance(ctx)
    }

    /// Whether a complaint is about another commitment than the present one: an answer that was under way when the
    /// commitment was changed, or an old one that a directory repeats.
    fn is_stale(&self, complaint: &str) -> bool {
        let present = self.opening.as_ref().and_then(Opening::commitment);
        let mut named = complaint.split(|c: char| !c.is_ascii_hexdigit());
        let named = named.find_map(|word| Commitment::from_hex(word).ok());
        named.is_some() && named != present
    }

    fn place(&self, nick: &Nick) -> Option<usize> {
        self.slots.iter().position(|slot| slot.nick == *nick)
    }

    /// Carries out what a conversation wants.
    pub(super) fn handle(
        &mut self,
        index: usize,
        outputs: Vec<TakerOutput>,
        ctx: &mut Context,
    ) -> Flow {
        for output in outputs {
            let Some(slot) = self.slots.get_mut(index) else { break };
            match output {
                TakerOutput::Send(word, payload) => ctx.send(slot.nick, word, payload, slot.via),
                TakerOutput::Ready { .. } => slot.stage = Stage::Ready,
                TakerOutput::LookUp(utxos) => self.named(index, utxos, ctx),
                TakerOutput::Answered(verified) => {
                    (slot.stage, slot.verified) = (Stage::Verified, Some(*verified));
                }
                TakerOutput::Signature(signature) => self.signature(index, &signature, ctx),
                // Recorded by the attempt for all makers at once, before it calls `durable`.
                TakerOutput::Persist(_) => {}
                TakerOutput::Ended(end) => self.ended(index, &end, ctx),
            }
        }
        Ok(())
    }

    /// The conversation with a maker is over before it did what it should.
    fn ended(&mut self, index: usize, end: &Ended, ctx: &mut Context) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        match end {
            Ended::Complete | Ended::Stopped => return,
            // It has done all that was asked of it.
            Ended::TimedOut { .. } if slot.stage == Stage::Signed => return,
            Ended::CounterpartyError { text } if slot.stage == Stage::Asked => {
                slot.refused = text.to_ascii_lowercase().contains("blacklist");
            }
            Ended::TimedOut { .. } if slot.stage == Stage::Asked => slot.silent = true,
            _ => {}
        }
        let code = if slot.refused { "commitment_refused" } else { end.code() };
        self.fail(index, code, &end.to_string(), ctx);
    }

    /// A maker takes no part any more, and is not asked again in this request.
    pub(super) fn fail(&mut self, index: usize, code: &'static str, text: &str, ctx: &mut Context) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let failure = MakerFailure { code, text: text.chars().take(256).collect() };
        slot.stage = Stage::Dropped(failure.clone());
        if let Some(session) = &mut slot.session {
            session.stop();
        }
        ctx.failed.insert(slot.nick, failure);
    }

    /// Goes on when everything that a step waits for is there.
    pub(super) fn advance(&mut self, ctx: &mut Context) -> Flow {
        match self.step {
            Step::Fill => self.fill_phase(ctx),
            Step::Authorise => self.auth_phase(ctx),
            Step::Sign => self.sign_phase(ctx),
            _ => Ok(()),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, ctx: &mut Context) -> Flow {
        if !self.has_signed() && ctx.now >= self.stalled {
            let text = format!("given up after {STALLED_AFTER} times the longest wait for a maker");
            return Err(Verdict::new(Reason::Stalled, text));
        }
        let late = ctx.now >= self.until;
        match self.step {
            Step::Fill | Step::Authorise => {
                for index in 0..self.slots.len() {
                    let now = ctx.millis();
                    let Some(slot) = self.slots.get_mut(index) else { break };
                    let session = slot.session.as_mut().filter(|session| !session.is_over());
                    let outputs = session.map(|session| session.tick(now)).unwrap_or_default();
                    self.handle(index, outputs, ctx)?;
                }
                if self.step == Step::Authorise {
                    self.look_up_again(late, ctx);
                }
                self.advance(ctx)
            }
            Step::Sign if late => self.signatures_late(ctx),
            Step::Sign => self.show_again(ctx),
            Step::Recheck => self.recheck_again(late, ctx),
            Step::Deliver | Step::Seen if late => self.not_seen(ctx),
            Step::Rate if !late => {
                if self.ask_again.is_some_and(|again| again <= ctx.now) {
                    self.ask_again = None;
                    ctx.ask(Purpose::FeeRate, Question::FeeRate);
                }
                Ok(())
            }
            Step::Rate => {
                Err(Verdict::new(Reason::ChainUnreachable, "there was no fee rate in time"))
            }
            _ if late => Err(Verdict::new(Reason::Internal, "the wallet did not answer in time")),
            _ => Ok(()),
        }
    }

    pub(super) fn next_wake(&self) -> Duration {
        let mut wake = self.until;
        if !self.has_signed() {
            wake = wake.min(self.stalled);
        }
        if matches!(self.step, Step::Fill | Step::Authorise) {
            let sessions = self.slots.iter().filter_map(|slot| slot.session.as_ref());
            let deadlines = sessions.filter_map(|session| session.deadline());
            wake = deadlines.map(Duration::from_millis).fold(wake, Duration::min);
        }
        if self.step == Step::Sign {
            let half = self.answer_time;
            let silent = |slot: &Slot| slot.stage == Stage::Signing && !slot.repeated;
            if self.slots.iter().any(silent) {
                wake = wake.min(self.until.saturating_sub(half));
            }
        }
        let again = self.slots.iter().filter_map(|slot| slot.ask_again).chain(self.ask_again);
        again.fold(wake, Duration::min)
    }

    pub(super) const fn phase(&self) -> Phase {
        match self.step {
            Step::Rate | Step::Begin => Phase::Choosing,
            Step::Reserve | Step::Keys | Step::Commit | Step::Fill => Phase::Filling,
            Step::Addresses | Step::Authorise => Phase::Authorising,
            Step::Show | Step::Sign => Phase::Signing,
            Step::Recheck => Phase::Rechecking,
            Step::Deliver | Step::Seen => Phase::Broadcasting,
        }
    }

    /// Fills in what is known of the attempt.
    pub(super) fn describe(&self, progress: &mut Progress) {
        progress.round = self.round;
        // Makers' own deadlines are shorter; this is the one of the phase.
        progress.deadline = Some(self.until);
        let Some(plan) = &self.plan else { return };
        progress.amount = Some(plan.amount);
        progress.makers = self.slots.iter().map(|slot| slot.progress(plan.amount)).collect();
        let active = self.slots.iter().filter(|slot| !slot.is_dropped());
        let fees = active.map(|slot| slot.offer.cj_fee.of(plan.amount));
        let (coinjoin_fee, miner_fee) = self.sums.as_ref().map_or_else(
            || (fees.fold(0, u64::saturating_add), plan.miner_fee),
            |sums| (sums.coinjoin_fee, sums.miner_fee),
        );
        let rate = plan.rate.rate;
        progress.fees = Some(FeeProgress { rate, coinjoin_fee, miner_fee, limit: plan.limit });
        if let Some(coinjoin) = &self.coinjoin {
            progress.txid = Some(coinjoin.transaction().compute_txid());
        }
    }

    /// The wallet changed, or its journal did.
    pub(super) fn seen(&mut self, txid: Txid, ctx: &Context) -> Flow {
        let ours = self.has_signed() && ctx.signed.as_ref().is_some_and(|(own, _)| *own == txid);
        if !ours {
            return Ok(());
        }
        Err(Verdict::new(Reason::Complete, "the transaction was seen"))
    }

    /// Whether the wallet shows an output of our transaction.
    pub(super) fn look_in_wallet(&mut self, ctx: &Context) -> Flow {
        let Some((txid, _)) = ctx.signed.as_ref().filter(|_| self.has_signed()) else {
            return Ok(());
        };
        let wallet = Arc::clone(&ctx.wallet);
        let there = wallet.coins.iter().any(|coin| coin.outpoint.txid == *txid);
        if there { self.seen(*txid, ctx) } else { Ok(()) }
    }

    pub(super) fn followed(&mut self, round: &Round, ctx: &Context) -> Flow {
        if self.round != Some(round.id) || !self.has_signed() {
            return Ok(());
        }
        if let Some((txid, _)) = round.seen {
            return self.seen(txid, ctx);
        }
        if round.abandoned {
            let text = "a coin of the transaction was spent by something else";
            return Err(Verdict::new(Reason::InputSpent, text));
        }
        Ok(())
    }

    /// Records that the transaction is about to be shown.
    pub(super) fn record_shown(&mut self, txid: Txid, sums: RoundSums, ctx: &mut Context) -> Flow {
        ctx.record(Purpose::Show, self.round()?, RoundEvent::Shown { txid, sums });
        Ok(())
    }
}

/// What a failure of wallet or chain means for the attempt.
pub(super) fn failure(error: &AskError) -> Verdict {
    let reason = match error {
        AskError::Unusable(_) => Reason::CoinsTaken,
        AskError::Closed => Reason::WalletClosed,
        AskError::Storage(_) => Reason::Storage,
        AskError::Unreachable(_) => Reason::ChainUnreachable,
        AskError::AbsurdFee(_) => Reason::AbsurdFee,
        AskError::Refused(_) | AskError::Internal(_) => Reason::Internal,
    };
    Verdict::new(reason, error.to_string())
}

/// Something that cannot be.
pub(super) fn impossible(what: &str) -> Verdict {
    Verdict::new(Reason::Internal, format!("internal error: {what}"))
}
