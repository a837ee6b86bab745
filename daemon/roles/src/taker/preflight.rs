//! What can be said of a request before anybody is asked (`spec/roles.md` 3.1).

use std::collections::BTreeSet;

use bdk_wallet::bitcoin::address::NetworkUnchecked;
use bdk_wallet::bitcoin::{Address, OutPoint};
use joinery_proto::offer::{DUST_THRESHOLD, MAX_MONEY};
use joinery_wallet::fee::{InputKind, TxSize};

use super::outcome::{Reason, Verdict};
use super::request::{Destination, TakerPolicy, TakerRequest};
use crate::ask::{WalletCoin, WalletView};
use crate::podle_source::{self, CommitmentCoin, CommitmentRules, Remedy};

/// Most coins of ours in one coinjoin: `!tx` is one line of 40 000 bytes.
pub const MAX_OWN_INPUTS: usize = 300;
/// Most makers of a request.
pub const MAX_COUNTERPARTIES: u8 = 99;
/// Bytes of a P2WPKH output.
pub(super) const OUTPUT: u64 = 31;
/// Part of the amount that the miner fee may be before it is warned, percent.
const FEE_WARNING: u64 = 5;

/// A request that can work, as far as we can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// What could be spent: confirmed, free coins of the account, or the named ones. Satoshi.
    pub available: u64,
    /// Commitments that these coins can still make for the amount.
    pub tries_left: u32,
    /// Rough miner fee at the given rate, satoshi.
    pub miner_fee: Option<u64>,
    /// Sentences for people; the request may go on.
    pub warnings: Vec<String>,
}

/// Whether a request can work: everything that can be known at once. `rate` is a fee rate, satoshi per 1000 virtual
/// bytes, for the warning.
///
/// # Errors
/// A [`Verdict`] with the reason; nothing was begun.
pub fn preflight(
    request: &TakerRequest,
    policy: &TakerPolicy,
    wallet: &WalletView,
    rate: Option<u64>,
) -> Result<Preflight, Verdict> {
    let TakerRequest { mixdepth, amount, counterparties, .. } = request;
    if mixdepth.0 > wallet.max_mixdepth {
        let text =
            format!("there is no account {mixdepth}: the last one is {}", wallet.max_mixdepth);
        return Err(Verdict::new(Reason::BadMixdepth, text));
    }
    if !(1..=MAX_COUNTERPARTIES).contains(counterparties) {
        let text = format!("between 1 and {MAX_COUNTERPARTIES} makers can take part");
        return Err(Verdict::new(Reason::BadCounterparties, text));
    }
    if !request.is_sweep() && !(DUST_THRESHOLD..=MAX_MONEY).contains(amount) {
        let text = format!("the smallest amount of a coinjoin is {DUST_THRESHOLD} satoshi");
        return Err(Verdict::new(Reason::BadAmount, text));
    }
    destination(request, policy)?;
    if !wallet.synced || wallet.height.is_none() {
        let text = "the wallet has not caught up with the chain yet";
        return Err(Verdict::new(Reason::NotSynced, text));
    }
    let coins = usable(request, wallet, &BTreeSet::new())?;
    let available = value(&coins);
    if available < (*amount).max(DUST_THRESHOLD) {
        let wanted = (*amount).max(DUST_THRESHOLD);
        let text = format!(
            "account {mixdepth} has {available} satoshi that are confirmed and free, {wanted} are needed"
        );
        return Err(Verdict::new(Reason::InsufficientFunds, text));
    }
    // A sweep without named coins takes them all.
    let all = request.is_sweep() || request.inputs.is_some();
    if all && coins.len() > MAX_OWN_INPUTS {
        let text = format!(
            "{} coins do not fit into one transaction of this protocol; name at most {MAX_OWN_INPUTS}",
            coins.len()
        );
        return Err(Verdict::new(Reason::TooManyCoins, text));
    }
    let aim = if request.is_sweep() { available } else { *amount };
    let backing = commitment_coins(request, wallet, &coins);
    let rules = &policy.commitment;
    podle_source::source(aim, &backing, &[], &[], rules)
        .map_err(|why| no_commitment(&why, rules))?;
    let tries_left = backing
        .iter()
        .filter(|coin| coin.confirmations.is_some_and(|c| c >= rules.age))
        .filter(|coin| coin.value >= rules.least_value(aim))
        .map(|coin| u32::from(rules.tries_left(&coin.used)))
        .sum();
    let miner_fee = rate.map(|rate| {
        let one = TxSize::new().inputs_of(InputKind::P2wpkh, 2).output(OUTPUT).output(OUTPUT);
        one.fee(rate).to_sat().saturating_mul(u64::from(*counterparties).saturating_add(1))
    });
    let dear = |fee: u64| fee.saturating_mul(100) > aim.saturating_mul(FEE_WARNING);
    let mut warnings = Vec::new();
    if let Some(fee) = miner_fee.filter(|fee| dear(*fee)) {
        warnings.push(format!(
            "the miner fee of about {fee} satoshi is more than {FEE_WARNING} % of the amount"
        ));
    }
    if tries_left == 1 {
        warnings.push("the coins can back only one more commitment".to_owned());
    }
    Ok(Preflight { available, tries_left, miner_fee, warnings })
}

fn destination(request: &TakerRequest, policy: &TakerPolicy) -> Result<(), Verdict> {
    let Destination::Address(address) = &request.destination else { return Ok(()) };
    let unchecked: Address<NetworkUnchecked> = address.as_unchecked().clone();
    if !unchecked.is_valid_for_network(policy.network) {
        let text = format!("the destination is not an address of {}", policy.network);
        return Err(Verdict::new(Reason::BadDestination, text));
    }
    Ok(())
}

pub(super) fn value(coins: &[&WalletCoin]) -> u64 {
    coins.iter().fold(0, |sum: u64, coin| sum.saturating_add(coin.value))
}

/// Coins that may be inputs: the named ones, all of which must be usable, or all usable ones of the account. `ours` are
/// coins that the wallet may still show as held although we let go of them.
pub(super) fn usable<'a>(
    request: &TakerRequest,
    wallet: &'a WalletView,
    ours: &BTreeSet<OutPoint>,
) -> Result<Vec<&'a WalletCoin>, Verdict> {
    let free = |coin: &WalletCoin| {
        let released = !coin.frozen && coin.locktime.is_none() && ours.contains(&coin.outpoint);
        (coin.free || released) && coin.confirmations > 0 && coin.mixdepth == request.mixdepth
    };
    let Some(named) = &request.inputs else {
        return Ok(wallet.coins.iter().filter(|coin| free(coin)).collect());
    };
    let bad = |text: String| Verdict::new(Reason::BadInputs, text);
    let distinct: BTreeSet<&OutPoint> = named.iter().collect();
    if named.is_empty() || distinct.len() != named.len() {
        return Err(bad("the list of coins is empty or names one twice".to_owned()));
    }
    named
        .iter()
        .map(|outpoint| {
            let coin = wallet.coins.iter().find(|coin| coin.outpoint == *outpoint);
            coin.filter(|coin| free(coin)).ok_or_else(|| {
                bad(format!("coin {outpoint} is not a confirmed, free coin of this account"))
            })
        })
        .collect()
}

/// The coins of the account that may back a commitment: all that are usable, also besides named inputs.
fn commitment_coins(
    request: &TakerRequest,
    wallet: &WalletView,
    inputs: &[&WalletCoin],
) -> Vec<CommitmentCoin> {
    let others = wallet
        .coins
        .iter()
        .filter(|coin| coin.free && coin.mixdepth == request.mixdepth && !inputs.contains(coin));
    inputs.iter().copied().chain(others).map(commitment_coin).collect()
}

pub(super) fn commitment_coin(coin: &WalletCoin) -> CommitmentCoin {
    CommitmentCoin {
        outpoint: coin.outpoint,
        value: coin.value,
        confirmations: Some(coin.confirmations),
        // Bonds are never free.
        standard: coin.locktime.is_none(),
        used: coin.commitments_used.clone(),
    }
}

pub(super) fn no_commitment(why: &podle_source::NoCommitment, rules: &CommitmentRules) -> Verdict {
    let reason = match why.remedy() {
        Remedy::Wait { .. } => Reason::CommitmentTooNew,
        Remedy::None => Reason::CommitmentUnavailable,
    };
    Verdict::new(reason, why.summary(rules))
}
