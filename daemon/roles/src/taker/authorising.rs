//! The auth phase: the commitment is opened to all makers at once, and what they name is verified before anything of it
//! enters the transaction (`spec/roles.md` 3.9).

use std::time::Duration;

use joinery_proto::transaction::taker::{ForeignCoin, MAX_MAKER_INPUTS};
use joinery_proto::utxo::WireUtxo;
use joinery_wallet::types::Mixdepth;

use super::attempt::{
    Attempt, CHAIN_PAUSE, CHAIN_TIMEOUT, Flow, Step, WALLET_TIMEOUT, failure, impossible,
};
use super::context::{Context, OwnAddress, Purpose};
use super::outcome::{MakerFailure, Reason, Verdict};
use super::request::Destination;
use super::slot::Stage;
use crate::ask::{Answer, AskError, Question};

/// Makers forget a conversation after this (`spec/protocol.md` 13.2).
const MAKER_SESSION: Duration = Duration::from_secs(300);

impl Attempt {
    /// Gets the addresses that are missing. They are issued, durably, before anybody can be shown them; those that
    /// nobody was shown in an earlier attempt serve again.
    pub(super) fn addresses(&mut self, ctx: &mut Context) -> Flow {
        if self.destination.is_some() {
            return self.open(ctx);
        }
        let request = &ctx.setup.request;
        let (mixdepth, accounts) = (request.mixdepth.0, u16::from(ctx.wallet.max_mixdepth));
        let next = (u16::from(mixdepth).saturating_add(1)) % (accounts.saturating_add(1));
        let next = Mixdepth(u8::try_from(next).unwrap_or_default());
        if let Destination::Address(address) = &request.destination {
            ctx.destination = Some(address.script_pubkey());
        }
        let sweep = self.plan()?.sweep;
        let need_destination = ctx.destination.is_none();
        let need_change = !sweep && ctx.change.is_none();
        if !need_destination && !need_change {
            self.destination.clone_from(&ctx.destination);
            self.change = ctx.change.clone().filter(|_| !sweep);
            return self.own_places(ctx);
        }
        if self.step != Step::Addresses {
            self.wait(Step::Addresses, WALLET_TIMEOUT, ctx);
            let wanted = [
                (need_destination, OwnAddress::Destination, next),
                (need_change, OwnAddress::Change, Mixdepth(mixdepth)),
            ];
            for (_, which, mixdepth) in wanted.into_iter().filter(|(needed, ..)| *needed) {
                ctx.ask(Purpose::Address(which), Question::Address { mixdepth });
            }
        }
        Ok(())
    }

    /// An address came; the context keeps it.
    pub(super) fn address(&mut self, _which: OwnAddress, ctx: &mut Context) -> Flow {
        if self.step == Step::Addresses { self.addresses(ctx) } else { Ok(()) }
    }

    /// Nobody may name a coin of ours, whether it is an input or not, or one of our two scripts.
    fn own_places(&mut self, ctx: &mut Context) -> Flow {
        if self.destination == self.change {
            return Err(impossible("destination and change are one address"));
        }
        let coins = ctx.wallet.coins.iter().map(|coin| coin.outpoint);
        let inputs = self.plan()?.inputs.iter().map(|(outpoint, _)| *outpoint);
        let coins: Vec<_> = coins.chain(inputs).collect();
        let scripts: Vec<_> = self.destination.iter().chain(&self.change).cloned().collect();
        self.used.add(coins, scripts);
        self.open(ctx)
    }

    /// The barrier falls: `!auth` to all whose key is here.
    fn open(&mut self, ctx: &mut Context) -> Flow {
        let opening = self.opening.as_ref().ok_or_else(|| impossible("no commitment"))?;
        let plain = opening.revelation(false, ctx).ok_or_else(|| impossible("no proof"))?;
        let extended = opening.revelation(true, ctx).filter(|_| ctx.setup.policy.neutrino_compat);
        let longest = ctx.setup.policy.maker_timeout.saturating_add(CHAIN_TIMEOUT);
        self.wait(Step::Authorise, longest, ctx);
        for index in 0..self.slots.len() {
            let (now, nonce) = (ctx.millis(), ctx.nonce());
            let Some(slot) = self.slots.get_mut(index) else { break };
            let Some(session) = slot.session.as_mut().filter(|_| slot.stage == Stage::Ready) else {
                continue;
            };
            let knows = session.neutrino_compat() == Some(true);
            let text = extended.as_ref().filter(|_| knows).unwrap_or(&plain);
            let outputs = session.authorise(text, nonce, now);
            slot.stage = Stage::Authorising;
            self.handle(index, outputs, ctx)?;
        }
        self.advance(ctx)
    }

    /// A maker named its coins.
    pub(super) fn named(&mut self, index: usize, utxos: Vec<WireUtxo>, ctx: &mut Context) {
        let most = match ctx.setup.policy.max_maker_inputs {
            0 => MAX_MAKER_INPUTS,
            most => most.min(MAX_MAKER_INPUTS),
        };
        if utxos.len() > most {
            let text = format!("names {} coins, {most} are accepted", utxos.len());
            return self.fail(index, "too_many_inputs", &text, ctx);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.stage = Stage::Checking;
            slot.named.clone_from(&utxos);
            ctx.ask(Purpose::LookUp(slot.nick), Question::LookUp(utxos));
        }
    }

    /// The chain's answer about the coins of a maker. That it could not be asked is nobody's fault.
    pub(super) fn found(
        &mut self,
        nick: &joinery_proto::nick::Nick,
        found: Result<Vec<Option<ForeignCoin>>, AskError>,
        ctx: &mut Context,
    ) -> Flow {
        let Some(index) = self.slots.iter().position(|slot| slot.nick == *nick) else {
            return Ok(());
        };
        let network = ctx.setup.policy.network;
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        if slot.stage != Stage::Checking {
            return Ok(());
        }
        let found = match found {
            Ok(found) => found,
            Err(AskError::Unreachable(_)) => {
                slot.ask_again = Some(ctx.after(CHAIN_PAUSE));
                return Ok(());
            }
            Err(error) => return Err(failure(&error)),
        };
        let Some(session) = &mut slot.session else { return Ok(()) };
        let outputs = session.coins_found(&found, network, &mut self.used);
        slot.coins = found.into_iter().flatten().collect();
        slot.named.clear();
        self.handle(index, outputs, ctx)?;
        self.advance(ctx)
    }

    /// Asks the chain again where it could not be asked. When the phase is over, makers that could not be checked are
    /// left out without blame. Where the chain did answer about others, later attempts prefer those.
    pub(super) fn look_up_again(&mut self, late: bool, ctx: &mut Context) {
        let answered = self.active() > 0;
        for slot in &mut self.slots {
            if late && answered && slot.stage == Stage::Checking {
                ctx.setup.avoid.insert(slot.nick);
            }
            if late && slot.stage == Stage::Checking {
                let text = "the chain could not be asked about its coins".to_owned();
                slot.stage = Stage::Dropped(MakerFailure { code: "chain_unreachable", text });
                slot.ask_again = None;
            } else if slot.ask_again.is_some_and(|again| again <= ctx.now) {
                slot.ask_again = None;
                ctx.ask(Purpose::LookUp(slot.nick), Question::LookUp(slot.named.clone()));
            }
        }
    }

    /// Whether makers that were asked first still know us after another fill and auth phase.
    fn has_time(&self, ctx: &Context) -> bool {
        let longest = ctx.setup.policy.maker_timeout.saturating_mul(2);
        self.asked_at.is_none_or(|asked| ctx.after(longest) < asked.saturating_add(MAKER_SESSION))
    }

    /// Decides what comes next in the auth phase.
    pub(super) fn auth_phase(&mut self, ctx: &mut Context) -> Flow {
        let busy =
            |slot: &super::slot::Slot| matches!(slot.stage, Stage::Authorising | Stage::Checking);
        if self.slots.iter().any(busy) {
            return Ok(());
        }
        let (wanted, enough) = (self.plan()?.wanted, self.plan()?.enough);
        let verified = self.active();
        if verified < wanted && self.replacements > 0 {
            // The commitment is known by now: replacements need the next one. Tries that later attempts would need are
            // not spent on making a sufficient round larger.
            let attempts = ctx.setup.policy.retries.saturating_add(1).saturating_sub(ctx.attempt);
            let needed = if verified < enough { 1 } else { u32::from(attempts).saturating_add(1) };
            let tries = super::plan::tries_left(ctx, self.plan()?);
            let essential = verified < enough;
            if (essential || self.has_time(ctx))
                && tries >= needed
                && self.can_commit(ctx)
                && self.replace(ctx)? > 0
            {
                return self.next_commitment(ctx);
            }
        }
        if verified >= enough {
            return self.build(ctx);
        }
        let unchecked = |slot: &super::slot::Slot| matches!(&slot.stage, Stage::Dropped(failure) if failure.code == "chain_unreachable");
        if self.slots.iter().any(unchecked) {
            let text = "the Electrum server could not be asked about the coins of the makers";
            return Err(Verdict::new(Reason::ChainUnreachable, text));
        }
        Err(self.too_few_makers())
    }
}

impl Context {
    /// Keeps an address that was issued, for whichever attempt uses it.
    pub(super) fn keep_address(&mut self, which: OwnAddress, answer: &Answer) {
        if let Answer::Address(Ok(address)) = answer {
            let script = Some(address.script_pubkey());
            match which {
                OwnAddress::Destination => self.destination = script,
                OwnAddress::Change => self.change = script,
            }
        }
    }
}
