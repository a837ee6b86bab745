//! Which coins a maker lends (`spec/roles.md` 4.5, 4.6).
//!
//! Every candidate is an ordinary P2WPKH coin of the wallet, so that the key of the first one can sign the
//! `!ioauth`: bonds and coins of other kinds are never [`WalletCoin::free`].

use std::collections::HashSet;

use bdk_wallet::bitcoin::{Amount, OutPoint};
use joinery_proto::maker_offers::InputMixdepthRule;
use joinery_proto::offer::Offer;
use joinery_proto::transaction::fees::required_by_maker;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::select::select;
use joinery_wallet::snapshot::CoinKind;
use joinery_wallet::types::Mixdepth;

use crate::ask::{WalletCoin, WalletView};

/// How coins are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoinRules {
    /// `merge_algorithm` of `[POLICY]`.
    pub merge_algorithm: MergeAlgorithm,
    /// Most coins in one coinjoin: takers drop a maker that names more.
    pub max_inputs: usize,
    /// Which account pays.
    pub mixdepth: InputMixdepthRule,
}

/// Coins for one coinjoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Their account; the change goes back to it.
    pub(super) mixdepth: Mixdepth,
    /// Account of the equal amount output.
    pub(super) next: Mixdepth,
    /// The coins; the first one authorises.
    pub(super) outpoints: Vec<OutPoint>,
    /// Heights of their blocks, in the same order.
    pub(super) heights: Vec<u32>,
}

/// Chooses coins for an amount; `None` when no account has enough free ones. `bonded` is whether a bond is
/// announced. `excluded` are coins that the wallet refused to hold.
pub(super) fn choose(
    view: &WalletView,
    rules: &CoinRules,
    offer: &Offer,
    amount: u64,
    bonded: bool,
    excluded: &HashSet<OutPoint>,
) -> Option<Chosen> {
    let required = required_by_maker(offer, amount)?;
    let count = view.max_mixdepth.checked_add(1)?;
    let free = |mixdepth: u8| {
        view.coins.iter().filter(move |coin| {
            coin.mixdepth.0 == mixdepth
                && coin.free
                && coin.confirmations > 0
                && coin.locktime.is_none()
                && !excluded.contains(&coin.outpoint)
        })
    };
    let mut chosen: Vec<(u8, Vec<&WalletCoin>)> = (0..count)
        .filter_map(|mixdepth| {
            let candidates = free(mixdepth).collect();
            pick(candidates, rules, mixdepth == 0 && bonded, required)
                .map(|coins| (mixdepth, coins))
        })
        .collect();
    let available: Vec<u8> = chosen.iter().map(|(mixdepth, _)| *mixdepth).collect();
    let mixdepth = rules.mixdepth.choose(&available, count)?;
    let position = chosen.iter().position(|(candidate, _)| *candidate == mixdepth)?;
    let (_, coins) = chosen.swap_remove(position);
    let next = mixdepth.checked_add(1).filter(|next| *next < count).unwrap_or(0);
    Some(Chosen {
        mixdepth: Mixdepth(mixdepth),
        next: Mixdepth(next),
        outpoints: coins.iter().map(|coin| coin.outpoint).collect(),
        heights: coins.iter().map(|coin| coin.height.unwrap_or_default()).collect(),
    })
}

/// Coins of one account that reach the target, at most [`CoinRules::max_inputs`].
fn pick<'a>(
    candidates: Vec<&'a WalletCoin>,
    rules: &CoinRules,
    guarded: bool,
    target: u64,
) -> Option<Vec<&'a WalletCoin>> {
    if !guarded {
        return select_from(&candidates, rules, target);
    }
    // `md0_single_input`: deposits beside a bond are not shown to belong together.
    let (proven, mut unproven): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|coin| is_proven(coin));
    if let Some(coins) = select_from(&proven, rules, target) {
        return Some(coins);
    }
    unproven.sort_by_key(|coin| coin.value);
    unproven.into_iter().find_map(|coin| {
        let mut with_one = proven.clone();
        with_one.push(coin);
        select_from(&with_one, rules, target)
    })
}

fn select_from<'a>(
    candidates: &[&'a WalletCoin],
    rules: &CoinRules,
    target: u64,
) -> Option<Vec<&'a WalletCoin>> {
    let values: Vec<Amount> = candidates.iter().map(|coin| Amount::from_sat(coin.value)).collect();
    let few = |algorithm| {
        let positions = select(algorithm, &values, Amount::from_sat(target)).ok()?;
        (positions.len() <= rules.max_inputs).then_some(positions)
    };
    // With too many inputs takers drop us: then the fewest that there are.
    let positions = few(rules.merge_algorithm).or_else(|| few(MergeAlgorithm::Default))?;
    Some(positions.into_iter().filter_map(|position| candidates.get(position).copied()).collect())
}

/// Whether a coin in the account of bonds may be merged with others: only an equal output of a coinjoin is
/// certain to say nothing of a deposit. Change may descend from one, and its history is not known here.
fn is_proven(coin: &WalletCoin) -> bool {
    coin.kind == CoinKind::CoinjoinOutput
}

/// What each account can put into one coinjoin, satoshi, as it is announced: coins that a running session
/// holds count, because an offer that follows them would tell the world of the session.
pub(super) fn announced_balances(view: &WalletView, rules: &CoinRules, bonded: bool) -> Vec<u64> {
    let of = |mixdepth: u8| {
        let coins = view.coins.iter().filter(move |coin| {
            coin.mixdepth.0 == mixdepth
                && coin.confirmations > 0
                && !coin.frozen
                && coin.locktime.is_none()
        });
        let (mut values, unproven): (Vec<_>, Vec<_>) =
            coins.partition(|coin| !(bonded && mixdepth == 0) || is_proven(coin));
        values.extend(unproven.into_iter().max_by_key(|coin| coin.value));
        let mut values: Vec<u64> = values.into_iter().map(|coin| coin.value).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.iter().take(rules.max_inputs).fold(0_u64, |sum, value| sum.saturating_add(*value))
    };
    (0..=view.max_mixdepth).map(of).collect()
}
