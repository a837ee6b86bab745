//! Holding coins and making the commitment durable (`spec/roles.md` 3.7, `spec/protocol.md` 9.6).
//!
//! The same steps serve the first commitment and each later one: hold the coin unless it is held, get its key, record
//! that the commitment is used, and only then ask makers.

use bdk_wallet::bitcoin::OutPoint;
use joinery_proto::podle::{Commitment, Proof, Revelation};
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::utxo::{UtxoHint, WireUtxo};
use joinery_wallet::round::RoundEvent;

use super::attempt::{Attempt, Flow, Step, WALLET_TIMEOUT, failure, impossible};
use super::context::{Context, Purpose};
use super::outcome::{Reason, Verdict};
use crate::ask::{AskError, Question};
use crate::podle_source::Sourced;

/// A commitment and what opens it.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) sourced: Sourced,
    /// Counted from 1 in an attempt; 0 until it is durable.
    pub(super) generation: u32,
    proof: Option<Proof>,
}

impl Opening {
    pub(super) const fn new(sourced: Sourced) -> Self {
        Self { sourced, generation: 0, proof: None }
    }

    pub(super) fn commitment(&self) -> Option<Commitment> {
        self.proof.as_ref().map(Proof::commitment)
    }

    /// The text of `!auth`: extended only for makers that announced that they understand it.
    pub(super) fn revelation(&self, extended: bool, ctx: &Context) -> Option<String> {
        let proof = self.proof.clone()?;
        let mut utxo = WireUtxo::plain(self.sourced.outpoint);
        if extended {
            let height = ctx.coin(&self.sourced.outpoint).and_then(|coin| coin.height);
            let [script, ..] = proof.candidate_scripts();
            utxo.hint = height.map(|height| UtxoHint { script, height });
        }
        Some(Revelation { utxo, proof }.to_string())
    }
}

impl Attempt {
    /// Holds what is not held yet: inputs and the coin of the commitment.
    pub(super) fn reserve(&mut self, ctx: &mut Context) -> Flow {
        let missing = self.missing(ctx)?;
        if missing.is_empty() {
            return self.commit(ctx);
        }
        let round = self.round()?;
        self.wait(Step::Reserve, WALLET_TIMEOUT, ctx);
        ctx.ask(Purpose::Reserve, Question::Reserve { round, outpoints: missing });
        Ok(())
    }

    /// Inputs and the coin of the commitment, as far as their keys are not here.
    fn missing(&self, ctx: &Context) -> Result<Vec<OutPoint>, Verdict> {
        let opening = self.opening.as_ref().ok_or_else(|| impossible("no commitment"))?;
        let inputs = self.plan()?.inputs.iter().map(|(outpoint, _)| *outpoint);
        let mut wanted: Vec<OutPoint> = inputs.collect();
        if !wanted.contains(&opening.sourced.outpoint) {
            wanted.push(opening.sourced.outpoint);
        }
        wanted.retain(|outpoint| !ctx.held.contains(outpoint));
        Ok(wanted)
    }

    pub(super) fn reserved(&mut self, held: Result<(), AskError>, ctx: &mut Context) -> Flow {
        if let Err(error) = held {
            if let AskError::Unusable(outpoint) = error {
                ctx.taken.insert(outpoint);
            }
            return Err(failure(&error));
        }
        let missing = self.missing(ctx)?;
        ctx.held.extend(missing.iter().copied());
        let round = self.round()?;
        self.wait(Step::Keys, WALLET_TIMEOUT, ctx);
        ctx.ask(Purpose::Keys, Question::Coins { round, outpoints: missing });
        Ok(())
    }

    pub(super) fn keys(&mut self, coins: Vec<OwnCoin>, ctx: &mut Context) -> Flow {
        self.keys.extend(coins);
        let plan = self.plan()?;
        let has = |outpoint: &OutPoint, value: Option<u64>| {
            self.keys.iter().any(|key| {
                key.outpoint == *outpoint && value.is_none_or(|value| key.value == value)
            })
        };
        let complete = plan.inputs.iter().all(|(outpoint, value)| has(outpoint, Some(*value)))
            && self.opening.as_ref().is_some_and(|opening| has(&opening.sourced.outpoint, None));
        if !complete {
            return Err(impossible("the wallet gave other coins than were asked for"));
        }
        self.commit(ctx)
    }

    /// Makes the proof and records that its commitment is used.
    fn commit(&mut self, ctx: &mut Context) -> Flow {
        let round = self.round()?;
        let opening = self.opening.as_mut().ok_or_else(|| impossible("no commitment"))?;
        let Sourced { outpoint, index, .. } = opening.sourced;
        let key = self.keys.iter().find(|key| key.outpoint == outpoint);
        let key = key.ok_or_else(|| impossible("no key for the commitment"))?;
        let proof =
            Proof::generate(&key.secret_key().keypair(joinery_proto::secp()), &outpoint, index);
        let commitment = *proof.commitment().as_bytes();
        opening.proof = Some(proof);
        // Whatever becomes of the question: this index is not used again.
        ctx.commit(outpoint, index);
        self.wait(Step::Commit, WALLET_TIMEOUT, ctx);
        let event = RoundEvent::CommitmentSent { outpoint: Some(outpoint), index, commitment };
        ctx.record(Purpose::Commit, round, event);
        Ok(())
    }

    /// Takes the next commitment. `Err` carries why there is none.
    pub(super) fn next_commitment(&mut self, ctx: &mut Context) -> Flow {
        let plan = self.plan()?;
        let rules = &ctx.setup.policy.commitment;
        let sourced = super::plan::source(ctx, plan)
            .map_err(|why| Verdict::new(Reason::CommitmentUnavailable, why.summary(rules)))?;
        let generation = self.opening.as_ref().map_or(0, |opening| opening.generation);
        self.opening = Some(Opening { sourced, generation, proof: None });
        self.reserve(ctx)
    }
}
