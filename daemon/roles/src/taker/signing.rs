//! Building the transaction, showing it, collecting signatures (`spec/roles.md` 3.10, 3.11).

use std::collections::BTreeSet;

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::message::InputSignature;
use joinery_proto::nick::Nick;
use joinery_proto::transaction::fees::sweep_fee_is_acceptable;
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::transaction::taker::{BuildError, Coinjoin, TakerShare, VerifiedMaker};
use joinery_wallet::round::RoundSums;
use rand::Rng;

use super::attempt::{Attempt, Flow, Step, WALLET_TIMEOUT, impossible};
use super::context::Context;
use super::guard::{self, Agreement};
use super::outcome::{MakerFailure, Reason, Verdict};
use super::slot::{Slot, Stage};
use crate::event::Source;

/// One lock time in this many is a little old.
const BACKDATED_ONE_IN: u32 = 10;
/// And by this many blocks at most.
const BACKDATED_AT_MOST: u32 = 99;
/// Signatures that fit nothing, after which a maker has failed.
const BAD_SIGNATURES: u8 = 2;
/// Transactions that are shown in one attempt: the first, and one without those that did not sign.
pub(super) const MOST_SHOWN: u8 = 2;

impl Attempt {
    /// Builds the transaction with the makers that are left and records that it is about to be shown.
    pub(super) fn build(&mut self, ctx: &mut Context) -> Flow {
        let plan = self.plan()?.clone();
        let makers: Vec<VerifiedMaker> = self
            .slots
            .iter()
            .filter(|slot| !slot.is_dropped())
            .filter_map(|slot| slot.verified.clone())
            .collect();
        let count = makers.len();
        let maker_inputs = makers.iter().map(|maker| maker.outpoints().count()).sum();
        let destination = self.destination.clone().ok_or_else(|| impossible("no destination"))?;
        let wanted = plan.final_fee(maker_inputs, count);
        let fee = if plan.sweep { plan.miner_fee } else { wanted };
        let share = TakerShare {
            coins: self.own_coins()?,
            amount: plan.amount,
            destination,
            change: self.change.clone(),
        };
        let lock = lock_height(ctx);
        let built = Coinjoin::build(share, makers, fee, lock, |below| {
            if below == 0 { 0 } else { ctx.rng.random_range(0..below) }
        });
        let coinjoin = built.map_err(|error| {
            if let BuildError::InputsTooSmall { inputs, needed } = error {
                // The next attempt selects for what this one was short of.
                ctx.short = ctx.short.saturating_add(needed.saturating_sub(inputs));
            }
            let text = format!("the fee is too large for our inputs: {error}");
            Verdict::new(Reason::FeeOutOfRange, text)
        })?;
        let outputs = coinjoin.transaction().output.len();
        let has_change = outputs > count.saturating_mul(2).saturating_add(1);
        if plan.sweep {
            let change = ctx.setup.policy.max_sweep_fee_change;
            if !sweep_fee_is_acceptable(plan.miner_fee, wanted, change) {
                let text = format!(
                    "unacceptable fee rate for a sweep: {} satoshi were planned, {wanted} would be right",
                    plan.miner_fee
                );
                return Err(Verdict::new(Reason::FeeOutOfRange, text));
            }
        }
        if coinjoin.miner_fee() < plan.least_fee(maker_inputs, count, has_change) {
            let text = format!("a miner fee of {} satoshi is not relayed", coinjoin.miner_fee());
            return Err(Verdict::new(Reason::FeeOutOfRange, text));
        }
        self.coinjoin = Some(coinjoin);
        let sums = self.guarded(ctx)?;
        self.shown = self.shown.saturating_add(1);
        let txid = self.txid()?;
        self.sums = Some(sums.clone());
        ctx.sums = Some(sums.clone());
        self.wait(Step::Show, WALLET_TIMEOUT, ctx);
        self.record_shown(txid, sums, ctx)
    }

    pub(super) fn txid(&self) -> Result<bdk_wallet::bitcoin::Txid, Verdict> {
        let coinjoin = self.coinjoin.as_ref().ok_or_else(|| impossible("no transaction"))?;
        Ok(coinjoin.transaction().compute_txid())
    }

    /// Our inputs with their keys.
    fn own_coins(&self) -> Result<Vec<OwnCoin>, Verdict> {
        let inputs = &self.plan()?.inputs;
        let key = |outpoint: &OutPoint| self.keys.iter().find(|key| key.outpoint == *outpoint);
        let coins: Option<Vec<OwnCoin>> =
            inputs.iter().map(|(outpoint, _)| key(outpoint).cloned()).collect();
        coins.ok_or_else(|| impossible("no key for an input"))
    }

    /// Looks at the whole transaction once more, independently of whoever built it.
    pub(super) fn guarded(&self, ctx: &Context) -> Result<RoundSums, Verdict> {
        let plan = self.plan()?;
        let coinjoin = self.coinjoin.as_ref().ok_or_else(|| impossible("no transaction"))?;
        let makers = self.slots.iter().filter(|slot| !slot.is_dropped());
        let agreement = Agreement {
            amount: plan.amount,
            inputs: &plan.inputs,
            destination: self.destination.as_ref(),
            change: self.change.as_ref(),
            limit: plan.limit,
            makers: makers
                .filter_map(|slot| {
                    let verified = slot.verified.as_ref()?;
                    Some(guard::MakerPart {
                        nick: slot.nick,
                        offer: slot.offer,
                        coins: &slot.coins,
                        scripts: verified.scripts().collect(),
                    })
                })
                .collect(),
        };
        let tx = coinjoin.transaction();
        agreement.check(tx, &ctx.wallet).map_err(|breach| {
            let reason = match breach {
                guard::Breach::Cost { .. } => Reason::FeeOutOfRange,
                guard::Breach::OwnCoinGone(_) => Reason::InputSpent,
                _ => Reason::Internal,
            };
            Verdict::new(reason, breach.to_string())
        })
    }

    /// The transaction is durable: it is shown to all that take part.
    pub(super) fn show(&mut self, ctx: &mut Context) -> Flow {
        let coinjoin = self.coinjoin.as_ref().ok_or_else(|| impossible("no transaction"))?;
        let unsigned = coinjoin.unsigned();
        // From now on our two addresses are known to makers.
        if !matches!(ctx.setup.request.destination, super::Destination::Address(_)) {
            ctx.destination = None;
        }
        ctx.change = None;
        let wait = ctx.setup.policy.maker_timeout.saturating_mul(2);
        self.wait(Step::Sign, wait, ctx);
        for index in 0..self.slots.len() {
            let (now, nonce) = (ctx.millis(), ctx.nonce());
            let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.is_dropped()) else {
                continue;
            };
            let Some(session) = &mut slot.session else { continue };
            let _recorded_for_all = session.show_transaction(&unsigned, nonce);
            let outputs = session.durable(now);
            (slot.stage, slot.bad_signatures, slot.repeated) = (Stage::Signing, 0, false);
            self.handle(index, outputs, ctx)?;
        }
        Ok(())
    }

    /// A maker sent a signature. Order and copies do not matter; a signature that fits none of its inputs does.
    pub(super) fn signature(
        &mut self,
        index: usize,
        signature: &InputSignature,
        ctx: &mut Context,
    ) {
        let (Some(slot), Some(coinjoin)) = (self.slots.get_mut(index), &mut self.coinjoin) else {
            return;
        };
        if slot.stage != Stage::Signing {
            return;
        }
        if coinjoin.add_signature(&slot.nick, signature) {
            slot.accepted.push(signature.signature.clone());
            if coinjoin.is_complete(&slot.nick) {
                (slot.stage, slot.has_signed) = (Stage::Signed, true);
            }
            return;
        }
        // A second copy over another directory, perhaps of one for the transaction before this one.
        if slot.accepted.contains(&signature.signature) {
            return;
        }
        slot.bad_signatures = slot.bad_signatures.saturating_add(1);
        if slot.bad_signatures >= BAD_SIGNATURES {
            self.fail(index, "bad_signatures", "its signatures fit none of its inputs", ctx);
        }
    }

    /// Decides what comes next in the signing phase.
    pub(super) fn sign_phase(&mut self, ctx: &mut Context) -> Flow {
        if self.slots.iter().any(|slot| slot.stage == Stage::Signing) {
            return Ok(());
        }
        let complete = self.coinjoin.as_ref().is_some_and(Coinjoin::makers_complete);
        if complete { self.recheck(ctx) } else { self.without_silent(ctx) }
    }

    /// The time for signatures is over.
    pub(super) fn signatures_late(&mut self, ctx: &mut Context) -> Flow {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { break };
            if slot.stage != Stage::Signing {
                continue;
            }
            if slot.has_signed {
                // joinmarket-ng makers close their session with the first transaction: no fault of theirs.
                let text = "did not sign a second transaction".to_owned();
                slot.stage = Stage::Dropped(MakerFailure { code: "signed_once", text });
            } else {
                self.fail(index, "timed_out", "no signature in time", ctx);
            }
        }
        self.without_silent(ctx)
    }

    /// Half of the time for signatures is over: whoever has not signed is shown the transaction once more, on another way.
    /// A directory that drops messages must not cost us a maker that has come so far.
    pub(super) fn show_again(&mut self, ctx: &mut Context) -> Flow {
        let half = ctx.setup.policy.maker_timeout;
        if ctx.after(half) < self.until {
            return Ok(());
        }
        let Some(unsigned) = self.coinjoin.as_ref().map(Coinjoin::unsigned) else { return Ok(()) };
        for index in 0..self.slots.len() {
            let (now, nonce) = (ctx.millis(), ctx.nonce());
            let Some(slot) = self.slots.get_mut(index) else { break };
            if slot.stage != Stage::Signing || std::mem::replace(&mut slot.repeated, true) {
                continue;
            }
            let nick = slot.nick;
            let listed = |via: &Source| {
                let Source::Directory(id) = via else { return false };
                ctx.book.offers.iter().any(|o| o.nick == nick && o.directories.contains(id))
            };
            let other =
                |via: &&Source| !matches!(via, Source::Direct(_)) && Some(**via) != slot.via;
            let ways = ctx.ways.iter().filter(other);
            let Some(via) = ways.copied().max_by_key(listed) else { continue };
            let Some(session) = &mut slot.session else { continue };
            slot.via = Some(via);
            let _recorded_before = session.show_transaction(&unsigned, nonce);
            let outputs = session.durable(now);
            self.handle(index, outputs, ctx)?;
        }
        Ok(())
    }

    /// Makers that signed what they were shown, whatever became of it.
    pub(super) fn signers(&self) -> BTreeSet<Nick> {
        let signed = |slot: &&Slot| match &slot.stage {
            Stage::Signed => true,
            Stage::Dropped(failure) => failure.code == "signed_once",
            _ => false,
        };
        self.slots.iter().filter(signed).map(|slot| slot.nick).collect()
    }

    /// Some makers did not sign: the others are shown a transaction without them, once. They keep their session after
    /// signing; nothing of ours is signed yet (`spec/roles.md` 3.11).
    fn without_silent(&mut self, ctx: &mut Context) -> Flow {
        ctx.honest = self.signers();
        let (signers, enough) = (self.active(), self.plan()?.enough);
        if signers >= enough && self.shown < MOST_SHOWN {
            return self.build(ctx);
        }
        let of = self.slots.iter().filter(|slot| slot.verified.is_some()).count();
        let text = format!("not enough makers signed: {signers} of {of}, {enough} are needed");
        Err(Verdict::new(Reason::NotSigned, text))
    }
}

/// Height of the best block; one time in ten a little less (`spec/roles.md` 1.5).
fn lock_height(ctx: &mut Context) -> u32 {
    let height = ctx.wallet.height.unwrap_or_default();
    if ctx.rng.random_ratio(1, BACKDATED_ONE_IN) {
        height.saturating_sub(ctx.rng.random_range(0..=BACKDATED_AT_MOST)).max(1)
    } else {
        height
    }
}
