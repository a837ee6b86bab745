//! Makers and coins of one attempt, and what it may cost (`spec/roles.md` 3.4 to 3.6).

use std::collections::BTreeSet;

use bdk_wallet::bitcoin::{Amount, OutPoint};
use joinery_proto::offer::{BITCOIN_DUST_THRESHOLD, DUST_THRESHOLD, Offer};
use joinery_proto::transaction::fees::FeeLimits;
use joinery_wallet::fee::{InputKind, TxSize, output_size};
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::select::{NotEnoughFunds, select};

use super::context::Context;
use super::outcome::{Reason, Verdict};
use super::preflight::{MAX_OWN_INPUTS, OUTPUT, no_commitment, usable, value};
use super::request::Destination;
use crate::ask::{AttemptFeeRate, WalletCoin};
use crate::choose::{self, Candidate, Candidates, Counts, Terms};
use crate::podle_source::{self, CommitmentCoin, Sourced};

/// Inputs of a party in the first estimate.
const EXPECTED_INPUTS: u64 = 3;

/// What an attempt has settled; nothing of it changes any more.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Equal amount, satoshi. Makers were told it.
    pub(super) amount: u64,
    pub(super) sweep: bool,
    /// Exactly these are our inputs: outpoint and value.
    pub(super) inputs: Vec<(OutPoint, u64)>,
    pub(super) input_value: u64,
    /// First estimate of the miner fee of the whole transaction, satoshi.
    pub(super) miner_fee: u64,
    /// What all makers together may net: fees minus their shares of the miner fee, satoshi.
    pub(super) maker_budget: i128,
    /// What we pay in all at most, satoshi.
    pub(super) limit: u64,
    pub(super) rate: AttemptFeeRate,
    /// Makers that are wanted.
    pub(super) wanted: usize,
    /// Makers that suffice.
    pub(super) enough: usize,
    /// Bytes of the output that gets the equal amount.
    destination: u64,
}

impl Plan {
    /// Size of a transaction with these numbers of inputs, makers and change outputs of ours.
    fn size(&self, inputs: u64, makers: u64, change: u64) -> TxSize {
        size(inputs, makers.saturating_mul(2).saturating_add(change), self.destination)
    }

    /// Miner fee of the real transaction, satoshi.
    pub(super) fn final_fee(&self, maker_inputs: usize, makers: usize) -> u64 {
        let inputs = count(self.inputs.len()).saturating_add(count(maker_inputs));
        self.size(inputs, count(makers), u64::from(!self.sweep)).fee(self.rate.rate).to_sat()
    }

    /// Fee of a transaction of this size at the lowest rate that is relayed, satoshi.
    pub(super) fn least_fee(&self, maker_inputs: usize, makers: usize, change: bool) -> u64 {
        let inputs = count(self.inputs.len()).saturating_add(count(maker_inputs));
        self.size(inputs, count(makers), u64::from(change)).fee(self.rate.floor).to_sat()
    }
}

/// A plan with the makers that are asked first and the commitment.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) plan: Plan,
    pub(super) makers: Vec<Candidate>,
    pub(super) commitment: Sourced,
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// P2WPKH inputs, P2WPKH outputs and the one that gets our equal amount.
fn size(inputs: u64, outputs: u64, destination: u64) -> TxSize {
    let size = TxSize::new().inputs_of(InputKind::P2wpkh, inputs).output(destination);
    (0..outputs).fold(size, |size, _| size.output(OUTPUT))
}

/// Chooses makers and coins.
pub(super) fn choose(ctx: &mut Context, rate: AttemptFeeRate) -> Result<Chosen, Verdict> {
    let request = ctx.setup.request.clone();
    let policy = ctx.setup.policy.clone();
    let wanted = usize::from(request.counterparties);
    let enough = if policy.accept_fewer {
        usize::from(policy.minimum_makers.min(request.counterparties).max(1))
    } else {
        wanted
    };
    let wallet = std::sync::Arc::clone(&ctx.wallet);
    let mut coins = usable(&request, &wallet, &ctx.released)?;
    if request.inputs.is_none() {
        coins.retain(|coin| !ctx.taken.contains(&coin.outpoint));
    }
    let destination = match &request.destination {
        Destination::Internal => OUTPUT,
        Destination::Address(address) => output_size(&address.script_pubkey()),
    };
    let excluded = ctx.excluded();
    let terms = Terms { limits: policy.fee_limits, excluded: &excluded, avoided: &ctx.setup.avoid };
    let list = choose::listed(&ctx.book);
    let mut plan = Plan {
        amount: request.amount,
        sweep: request.is_sweep(),
        inputs: Vec::new(),
        input_value: 0,
        miner_fee: 0,
        maker_budget: 0,
        limit: 0,
        rate,
        wanted,
        enough,
        destination,
    };
    let makers = if plan.sweep {
        settle_inputs(&mut plan, &coins)?;
        let makers = count(wanted);
        let inputs = count(coins.len()).saturating_add(makers.saturating_mul(EXPECTED_INPUTS));
        plan.miner_fee = plan.size(inputs, makers, 0).fee(rate.rate).to_sat();
        let mut candidates = choose::for_sweep(&list, plan.input_value, plan.miner_fee, &terms);
        let wanted = after_signers(ctx, &candidates, wanted, enough);
        if wanted < plan.wanted {
            plan.wanted = wanted;
            let makers = count(wanted);
            let inputs = count(coins.len()).saturating_add(makers.saturating_mul(EXPECTED_INPUTS));
            plan.miner_fee = plan.size(inputs, makers, 0).fee(rate.rate).to_sat();
            candidates = choose::for_sweep(&list, plan.input_value, plan.miner_fee, &terms);
        }
        let counts = candidates.counts;
        let (first, mut rest) = honest_first(ctx, candidates, wanted);
        let sums = (plan.input_value, plan.miner_fee);
        let sweep =
            choose::draw_sweep(policy.chooser, first, &mut rest, wanted, sums, &mut ctx.rng);
        let sweep = sweep.ok_or_else(|| too_few(wanted, &counts))?;
        plan.amount = sweep.amount;
        if plan.amount < DUST_THRESHOLD {
            let text = "after fees less is left than the smallest amount of a coinjoin";
            return Err(Verdict::new(Reason::InsufficientFunds, text));
        }
        plan.maker_budget = net(sweep.makers.iter().map(|maker| &maker.offer), plan.amount);
        plan.limit = plan.input_value.saturating_sub(plan.amount);
        sweep.makers
    } else {
        let candidates = choose::for_amount(&list, plan.amount, &terms);
        let wanted = after_signers(ctx, &candidates, wanted, enough);
        plan.wanted = wanted;
        let counts = candidates.counts;
        let (mut makers, mut rest) = honest_first(ctx, candidates, wanted);
        let missing = wanted.saturating_sub(makers.len());
        makers.extend(choose::draw_many(policy.chooser, &mut rest, missing, &mut ctx.rng));
        if makers.len() < wanted {
            return Err(too_few(wanted, &counts));
        }
        let fees = net(makers.iter().map(|maker| &maker.offer), plan.amount);
        plan.miner_fee = expected_fee(&plan);
        let target = i128::from(plan.amount)
            .saturating_add(fees)
            .saturating_add(plan.miner_fee.into())
            .saturating_add(ctx.short.into());
        let target = u64::try_from(target).unwrap_or(if target < 0 { 0 } else { u64::MAX });
        let picked = pick(&coins, target, policy.merge, request.inputs.is_some())?;
        settle_inputs(&mut plan, &picked)?;
        let spare = i128::from(plan.input_value)
            .saturating_sub(plan.amount.into())
            .saturating_sub(plan.miner_fee.into());
        let accepted = most_accepted(&policy.fee_limits, plan.amount);
        let accepted = i128::from(accepted).saturating_mul(i128::from(count(wanted)));
        plan.maker_budget = fees.max(accepted.min(spare));
        plan.limit = limit(&plan, policy.max_maker_inputs);
        makers
    };
    if let Some(most) = policy.max_cost {
        agreed(&mut plan, &makers, most)?;
    }
    let commitment = source(ctx, &plan).map_err(|why| no_commitment(&why, &policy.commitment))?;
    Ok(Chosen { plan, makers, commitment })
}

/// Holds a plan to what a person agreed to pay in all.
fn agreed(plan: &mut Plan, makers: &[Candidate], most: u64) -> Result<(), Verdict> {
    let fees = net(makers.iter().map(|maker| &maker.offer), plan.amount).max(0);
    let expected = if plan.sweep {
        plan.limit
    } else {
        u64::try_from(fees).unwrap_or(u64::MAX).saturating_add(plan.miner_fee)
    };
    if expected > most {
        let text = format!(
            "it would cost about {expected} satoshi, more than the {most} that were agreed to"
        );
        return Err(Verdict::new(Reason::FeeOutOfRange, text));
    }
    let left = i128::from(most.saturating_sub(plan.miner_fee));
    plan.maker_budget = plan.maker_budget.min(left.max(fees));
    plan.limit = plan.limit.min(most);
    Ok(())
}

/// Makers that are wanted in this attempt. When enough of them signed in the one before, those and whoever else is
/// left must do: a request does not fail for want of a maker that has just shown that it is not there
/// (`spec/roles.md` 3.15, 5.7).
fn after_signers(ctx: &Context, candidates: &Candidates, wanted: usize, enough: usize) -> usize {
    let makers = &candidates.makers;
    let signed = makers.iter().filter(|maker| ctx.honest.contains(&maker.nick)).count();
    if signed >= enough { wanted.min(makers.len()) } else { wanted }
}

/// Makers that did well in the attempt before come first.
fn honest_first(
    ctx: &Context,
    candidates: Candidates,
    wanted: usize,
) -> (Vec<Candidate>, Vec<Candidate>) {
    let (mut first, rest): (Vec<_>, Vec<_>) =
        candidates.makers.into_iter().partition(|maker| ctx.honest.contains(&maker.nick));
    first.truncate(wanted);
    (first, rest)
}

fn too_few(wanted: usize, counts: &Counts) -> Verdict {
    let text = format!("not enough makers for {wanted} counterparties: {counts}");
    Verdict::new(Reason::NotEnoughOffers, text)
}

/// What these makers net together, satoshi.
pub(super) fn net<'a>(offers: impl Iterator<Item = &'a Offer>, amount: u64) -> i128 {
    offers.fold(0, |sum: i128, offer| sum.saturating_add(offer.earning(amount)))
}

/// Each party with three inputs and two outputs (`spec/roles.md` 3.6.1).
fn expected_fee(plan: &Plan) -> u64 {
    let party = |destination| size(EXPECTED_INPUTS, 1, destination).fee(plan.rate.rate).to_sat();
    let others = count(plan.wanted).saturating_sub(1);
    party(OUTPUT).saturating_mul(others).saturating_add(party(plan.destination))
}

/// Highest fee of one maker that passes the limits, satoshi.
fn most_accepted(limits: &FeeLimits, amount: u64) -> u64 {
    limits.absolute.max(limits.relative.of(amount))
}

/// What is paid in all at most: the makers' budget, and the miner fee when every maker names as many coins as it may;
/// change that is too small goes to the miners.
fn limit(plan: &Plan, max_maker_inputs: usize) -> u64 {
    let makers = count(plan.wanted);
    let inputs =
        count(plan.inputs.len()).saturating_add(makers.saturating_mul(count(max_maker_inputs)));
    let miner = plan.size(inputs, makers, 1).fee(plan.rate.rate).to_sat();
    let most = plan
        .maker_budget
        .max(0)
        .saturating_add(miner.into())
        .saturating_add(BITCOIN_DUST_THRESHOLD.into());
    let all = plan.input_value.saturating_sub(plan.amount);
    u64::try_from(most).unwrap_or(u64::MAX).min(all)
}

fn pick<'a>(
    coins: &[&'a WalletCoin],
    target: u64,
    merge: MergeAlgorithm,
    named: bool,
) -> Result<Vec<&'a WalletCoin>, Verdict> {
    let available = value(coins);
    let insufficient = |wanted: u64| {
        let text = format!(
            "unable to select sufficient coins: amount and expected fees come to {wanted} satoshi, {available} are confirmed and free"
        );
        Verdict::new(Reason::InsufficientFunds, text)
    };
    if named {
        return if available >= target { Ok(coins.to_vec()) } else { Err(insufficient(target)) };
    }
    let values: Vec<Amount> = coins.iter().map(|coin| Amount::from_sat(coin.value)).collect();
    let with = |merge| -> Result<Vec<&'a WalletCoin>, NotEnoughFunds> {
        let places = select(merge, &values, Amount::from_sat(target))?;
        Ok(places.into_iter().filter_map(|place| coins.get(place).copied()).collect())
    };
    let picked = with(merge).map_err(|short| insufficient(short.wanted))?;
    if picked.len() <= MAX_OWN_INPUTS {
        return Ok(picked);
    }
    // Largest first needs the fewest.
    with(MergeAlgorithm::Default).map_err(|short| insufficient(short.wanted))
}

fn settle_inputs(plan: &mut Plan, coins: &[&WalletCoin]) -> Result<(), Verdict> {
    if coins.is_empty() || coins.len() > MAX_OWN_INPUTS {
        let text = format!("{} coins cannot be the inputs of one coinjoin", coins.len());
        return Err(Verdict::new(Reason::TooManyCoins, text));
    }
    plan.inputs = coins.iter().map(|coin| (coin.outpoint, coin.value)).collect();
    plan.input_value = value(coins);
    Ok(())
}

/// The next commitment for a plan (`spec/roles.md` 3.7).
pub(super) fn source(ctx: &Context, plan: &Plan) -> Result<Sourced, podle_source::NoCommitment> {
    let (selected, account) = backing(ctx, plan);
    podle_source::source(plan.amount, &selected, &account, &[], &ctx.setup.policy.commitment)
}

/// Commitments that can still be made for a plan.
pub(super) fn tries_left(ctx: &Context, plan: &Plan) -> u32 {
    let rules = &ctx.setup.policy.commitment;
    let (selected, account) = backing(ctx, plan);
    let fit = |coin: &&CommitmentCoin| {
        coin.standard
            && coin.confirmations.is_some_and(|confirmations| confirmations >= rules.age)
            && coin.value >= rules.least_value(plan.amount)
    };
    let coins = selected.iter().chain(&account).filter(fit);
    coins.map(|coin| u32::from(rules.tries_left(&coin.used))).sum()
}

/// Our inputs, and the other free coins of the account.
fn backing(ctx: &Context, plan: &Plan) -> (Vec<CommitmentCoin>, Vec<CommitmentCoin>) {
    let inputs: BTreeSet<OutPoint> = plan.inputs.iter().map(|(outpoint, _)| *outpoint).collect();
    let mixdepth = ctx.setup.request.mixdepth;
    let mut selected = Vec::new();
    let mut account = Vec::new();
    for coin in ctx.wallet.coins.iter().filter(|coin| coin.mixdepth == mixdepth) {
        if inputs.contains(&coin.outpoint) {
            selected.push(ctx.commitment_coin(coin));
        } else if ctx.may_use(coin) {
            account.push(ctx.commitment_coin(coin));
        }
    }
    (selected, account)
}
