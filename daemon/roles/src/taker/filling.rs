//! The fill phase: makers are asked, silent and lying ones replaced, until all keys are here (`spec/roles.md` 3.9).
//!
//! Nothing was revealed yet, so replacing a maker is cheap: the same amount, the same commitment. Once `!auth` has
//! gone out makers publish the commitment; later replacements need the next one.

use joinery_proto::conversation::taker::TakerSession;
use joinery_proto::nacl_box::NaclSecretKey;

use super::attempt::{Attempt, Flow, Step, impossible};
use super::context::Context;
use super::outcome::{Reason, Verdict};
use super::plan::net;
use super::slot::{Slot, Stage};
use crate::choose::{self, Terms};

impl Attempt {
    /// The commitment is durable: whoever waits for it is asked, in one burst.
    pub(super) fn committed(&mut self, ctx: &mut Context) -> Flow {
        let opening = self.opening.as_mut().ok_or_else(|| impossible("no commitment"))?;
        opening.generation = opening.generation.saturating_add(1);
        self.ask_makers(ctx)
    }

    /// Sends `!fill` to all that were chosen and not asked with this commitment.
    fn ask_makers(&mut self, ctx: &mut Context) -> Flow {
        let amount = self.plan()?.amount;
        let opening = self.opening.as_ref().ok_or_else(|| impossible("no commitment"))?;
        let generation = opening.generation;
        let commitment = opening.commitment().ok_or_else(|| impossible("no proof"))?;
        let timeout = u64::try_from(ctx.setup.policy.maker_timeout.as_millis()).unwrap_or(u64::MAX);
        // The sessions have the deadlines; this one is for a clock that jumps.
        self.wait(Step::Fill, ctx.setup.policy.maker_timeout, ctx);
        self.asked_at.get_or_insert(ctx.now);
        for index in 0..self.slots.len() {
            // A key of its own for each maker: makers of one round cannot recognise each other by ours.
            let secret = NaclSecretKey::from_bytes(ctx.nonce());
            let now = ctx.millis();
            let Some(slot) = self.slots.get_mut(index) else { break };
            if slot.stage != Stage::Chosen {
                continue;
            }
            let (nick, offer) = (slot.nick, slot.offer);
            // What it wants made durable is: the commitment was recorded for all.
            let (mut session, _) =
                TakerSession::start(nick, offer, amount, secret, commitment, timeout);
            let outputs = session.durable(now);
            slot.session = Some(session);
            slot.stage = Stage::Asked;
            (slot.generation, slot.refused, slot.silent) = (generation, false, false);
            self.handle(index, outputs, ctx)?;
        }
        self.advance(ctx)
    }

    /// Decides what comes next in the fill phase.
    pub(super) fn fill_phase(&mut self, ctx: &mut Context) -> Flow {
        let generation = self.opening.as_ref().map_or(0, |opening| opening.generation);
        let asked = || self.slots.iter().filter(|slot| slot.generation == generation);
        let total = asked().count();
        let refused = asked().filter(|slot| slot.refused).count();
        let silent = asked().filter(|slot| slot.silent).count();
        let waiting = asked().any(|slot| slot.stage == Stage::Asked);
        let majority = |count: usize| count.saturating_mul(2) >= total;
        // The first time half of them suffice; afterwards it takes several, and more than half, so that a liar among
        // few cannot use up all commitments.
        let credible = if generation == 1 {
            refused > 0 && majority(refused)
        } else {
            refused > 1 && refused.saturating_mul(2) > total
        };
        let ready = asked().any(|slot| slot.stage == Stage::Ready);
        // Without a next commitment those that refuse are replaced like any others, as long as somebody accepts it.
        if credible && (self.can_commit(ctx) || !(waiting || ready)) {
            return self.rotate(ctx);
        }
        if waiting {
            return Ok(());
        }
        // joinmarket-ng makers say nothing when they refuse. Silence is believed once only, so that silent makers and
        // one liar cannot use up all commitments.
        let quiet = refused > 0
            && silent > 0
            && generation == 1
            && majority(refused.saturating_add(silent));
        if quiet && self.can_commit(ctx) {
            return self.rotate(ctx);
        }
        let (wanted, enough) = (self.plan()?.wanted, self.plan()?.enough);
        if self.active() < wanted && self.replacements > 0 && self.replace(ctx)? > 0 {
            return self.ask_makers(ctx);
        }
        if self.active() < enough {
            return Err(self.too_few_makers());
        }
        self.addresses(ctx)
    }

    /// Makers that still take part.
    pub(super) fn active(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.is_dropped()).count()
    }

    pub(super) fn can_commit(&self, ctx: &Context) -> bool {
        self.plan.as_ref().is_some_and(|plan| super::plan::source(ctx, plan).is_ok())
    }

    /// Too many makers know the commitment: all that were asked with it are asked again with the next one.
    fn rotate(&mut self, ctx: &mut Context) -> Flow {
        let generation = self.opening.as_ref().map_or(0, |opening| opening.generation);
        for slot in self.slots.iter_mut().filter(|slot| slot.generation == generation) {
            let again =
                slot.refused || slot.silent || matches!(slot.stage, Stage::Asked | Stage::Ready);
            if again {
                slot.stage = Stage::Chosen;
                slot.session = None;
                ctx.failed.remove(&slot.nick);
            }
        }
        self.next_commitment(ctx)
    }

    /// Draws makers for the places that are free; returns how many. Their fees fit into what was budgeted.
    pub(super) fn replace(&mut self, ctx: &mut Context) -> Result<usize, Verdict> {
        self.replacements = self.replacements.saturating_sub(1);
        let plan = self.plan()?;
        let mut excluded = ctx.excluded();
        excluded.extend(self.slots.iter().map(|slot| slot.nick));
        let policy = &ctx.setup.policy;
        let terms =
            Terms { limits: policy.fee_limits, excluded: &excluded, avoided: &ctx.setup.avoid };
        let list = choose::listed(&ctx.book);
        let mut candidates = choose::for_amount(&list, plan.amount, &terms).makers;
        let bonds: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| !slot.is_dropped())
            .filter_map(|slot| list.iter().find(|entry| entry.nick == slot.nick)?.bond)
            .collect();
        candidates.retain(|maker| maker.bond.is_none_or(|bond| !bonds.contains(&bond)));
        let kept = self.slots.iter().filter(|slot| !slot.is_dropped()).map(|slot| &slot.offer);
        let mut left = plan.maker_budget.saturating_sub(net(kept, plan.amount));
        let missing = plan.wanted.saturating_sub(self.active());
        let (amount, wanted, chooser) = (plan.amount, plan.wanted, policy.chooser);
        let mut drawn = 0_usize;
        while drawn < missing {
            candidates.retain(|maker| maker.offer.earning(amount) <= left);
            let maker = choose::draw(chooser, &mut candidates, wanted, &mut ctx.rng);
            let Some(maker) = maker else { break };
            left = left.saturating_sub(maker.offer.earning(amount));
            self.slots.push(Slot::new(maker.nick, maker.offer));
            drawn = drawn.saturating_add(1);
        }
        Ok(drawn)
    }

    /// The end of an attempt for which too few makers are left.
    pub(super) fn too_few_makers(&self) -> Verdict {
        let (active, enough) = (self.active(), self.plan.as_ref().map_or(0, |plan| plan.enough));
        let asked = self.slots.len();
        let text = format!(
            "not enough makers answered: {active} of {asked} that were asked, {enough} are needed"
        );
        Verdict::new(Reason::NotEnoughMakers, text)
    }
}
