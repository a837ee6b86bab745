//! Which coins pay: the four merge algorithms and the candidate filter (`spec/wallet.md` 7.3 and 7.4,
//! vectors `wallet_coin_selection.json` and `coin_selection.json`).
//!
//! Everything here is pure. The wallet task locks what was chosen in the same command that chose it.

use std::cmp::Reverse;
use std::collections::HashSet;

use bdk_wallet::bitcoin::{Amount, OutPoint};

use crate::policy::MergeAlgorithm;
use crate::snapshot::Coin;
use crate::types::{Mixdepth, WalletType};

/// The candidates do not reach the target. The text is the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not enough funds, {wanted} vs. {available}.")]
pub struct NotEnoughFunds {
    /// The target, satoshi.
    pub wanted: u64,
    /// Sum of the candidates, satoshi.
    pub available: u64,
}

/// Sum that cannot overflow: fewer than 2^64 values of 64 bits.
pub(crate) fn sum(values: impl IntoIterator<Item = Amount>) -> u128 {
    values.into_iter().map(|value| u128::from(value.to_sat())).sum()
}

/// A sum as satoshi for messages; more than there can ever be is shown as the largest number.
pub(crate) fn clamp(sats: u128) -> u64 {
    u64::try_from(sats).unwrap_or(u64::MAX)
}

/// Chooses positions of `values` whose sum reaches `target` satoshi by one of the merge algorithms.
///
/// No position appears twice, in the order in which the algorithm took them. The reference's `greedy`
/// names the single smallest coin twice when it alone suffices; that is not copied.
///
/// # Errors
/// [`NotEnoughFunds`] when all values together are below the target, or there is none worth anything.
pub fn select(
    algorithm: MergeAlgorithm,
    values: &[Amount],
    target: Amount,
) -> Result<Vec<usize>, NotEnoughFunds> {
    // Every payment has an input, so a target of nothing asks for the least there is.
    let goal = u128::from(target.to_sat()).max(1);
    let total = sum(values.iter().copied());
    if values.is_empty() || total < goal {
        return Err(NotEnoughFunds { wanted: target.to_sat(), available: clamp(total) });
    }
    // Ascending by value; equal values stay in the order they came in.
    let mut ascending: Vec<(usize, u128)> =
        values.iter().map(|value| u128::from(value.to_sat())).enumerate().collect();
    ascending.sort_by_key(|(_, value)| *value);
    let low_count = ascending.partition_point(|(_, value)| *value < goal);
    let (low, high) = ascending.split_at(low_count);
    let low_sum: u128 = low.iter().map(|(_, value)| value).sum();

    let chosen = match algorithm {
        MergeAlgorithm::Default => match high.first() {
            Some((position, _)) => vec![*position],
            None => {
                // Largest first; equal values again in the order they came in.
                let mut descending = low.to_vec();
                descending.sort_by_key(|(position, value)| (Reverse(*value), *position));
                until(descending.iter(), goal)
            }
        },
        MergeAlgorithm::Gradual if low_sum >= goal => window(low, goal),
        MergeAlgorithm::Greediest if low_sum >= goal => until(low.iter(), goal),
        // The small ones do not suffice and the total does: there is a high one.
        MergeAlgorithm::Gradual | MergeAlgorithm::Greediest => {
            high.first().map(|(position, _)| *position).into_iter().collect()
        }
        MergeAlgorithm::Greedy => greedy(&ascending, goal),
    };
    Ok(chosen)
}

/// Takes coins in the given order until they reach the goal.
fn until<'a>(coins: impl Iterator<Item = &'a (usize, u128)>, goal: u128) -> Vec<usize> {
    let mut reached = 0;
    let mut chosen = Vec::new();
    for (position, value) in coins {
        if reached >= goal {
            break;
        }
        reached += value;
        chosen.push(*position);
    }
    chosen
}

/// The window of `gradual`: grows at the large end, then shrinks at the small one.
fn window(low: &[(usize, u128)], goal: u128) -> Vec<usize> {
    let mut reached = 0;
    let mut grown = Vec::new();
    for coin in low {
        reached += coin.1;
        grown.push(*coin);
        if reached >= goal {
            break;
        }
    }
    grown
        .into_iter()
        .skip_while(|(_, value)| {
            let spare = reached - value >= goal;
            if spare {
                reached -= value;
            }
            spare
        })
        .map(|(position, _)| position)
        .collect()
}

/// Accumulates ascending; on overshoot keeps the last coin and drops smaller ones that are not needed.
fn greedy(ascending: &[(usize, u128)], goal: u128) -> Vec<usize> {
    let mut reached = 0;
    let mut taken = Vec::new();
    for coin in ascending {
        reached += coin.1;
        taken.push(*coin);
        if reached >= goal {
            break;
        }
    }
    if reached == goal {
        return taken.into_iter().map(|(position, _)| position).collect();
    }
    let mut spare = reached - goal;
    let mut backwards = taken.into_iter().rev();
    let mut chosen: Vec<usize> =
        backwards.next().map(|(position, _)| position).into_iter().collect();
    for (position, value) in backwards {
        if value <= spare {
            spare -= value;
        } else {
            chosen.push(position);
        }
    }
    chosen
}

/// Which coins may be chosen at all (`spec/wallet.md` 7.4). Frozen coins, coins held by a running
/// operation and timelocked coins never are.
#[derive(Debug, Clone, Copy)]
pub struct CandidateFilter<'a> {
    /// The one account whose coins are used.
    pub mixdepth: Mixdepth,
    /// Confirmations that a coin must have; 0 admits the mempool.
    pub min_confirmations: u32,
    /// Height of the best block.
    pub tip_height: u32,
    /// Never these. Holds whatever the confirmation limit is (the reference forgets it then).
    pub exclude: Option<&'a HashSet<OutPoint>>,
}

impl CandidateFilter<'_> {
    /// Whether a coin may be chosen.
    #[must_use]
    pub fn admits(&self, coin: &Coin) -> bool {
        coin.mixdepth() == self.mixdepth
            && !coin.frozen
            && !coin.locked
            && !coin.place.is_bond()
            && coin.confirmations(Some(self.tip_height)) >= self.min_confirmations
            && self.exclude.is_none_or(|exclude| !exclude.contains(&coin.outpoint))
    }

    /// The coins that may be chosen, in the order given.
    #[must_use]
    pub fn candidates<'c>(&self, coins: &'c [Coin]) -> Vec<&'c Coin> {
        coins.iter().filter(|coin| self.admits(coin)).collect()
    }
}

/// Chooses among candidates.
///
/// # Errors
/// [`NotEnoughFunds`].
pub fn select_coins<'c>(
    algorithm: MergeAlgorithm,
    candidates: &[&'c Coin],
    target: Amount,
) -> Result<Vec<&'c Coin>, NotEnoughFunds> {
    let values: Vec<Amount> = candidates.iter().map(|coin| coin.value).collect();
    let positions = select(algorithm, &values, target)?;
    Ok(positions.into_iter().filter_map(|position| candidates.get(position).copied()).collect())
}

/// Whether a coin has the ordinary script of its wallet: not a bond, not an imported key of another
/// type. The key of such a coin can sign a maker's authorisation.
#[must_use]
pub fn is_ordinary(coin: &Coin, wallet_type: WalletType) -> bool {
    if coin.place.is_bond() {
        return false;
    }
    match wallet_type {
        WalletType::NestedSegwit => coin.script.is_p2sh(),
        WalletType::NativeSegwit | WalletType::FidelityBond => coin.script.is_p2wpkh(),
    }
}

/// Chooses among candidates so that the first coin is an ordinary one ([`is_ordinary`]), as a maker
/// needs it. When the selection has none, it is tried once more for one satoshi more than it reached.
///
/// # Errors
/// [`NotEnoughFunds`], also when no selection with an ordinary coin was found.
pub fn select_with_ordinary<'c>(
    algorithm: MergeAlgorithm,
    candidates: &[&'c Coin],
    target: Amount,
    wallet_type: WalletType,
) -> Result<Vec<&'c Coin>, NotEnoughFunds> {
    let ordinary_first = |mut coins: Vec<&'c Coin>| {
        let position = coins.iter().position(|coin| is_ordinary(coin, wallet_type))?;
        coins.swap(0, position);
        Some(coins)
    };
    let first = select_coins(algorithm, candidates, target)?;
    let reached = sum(first.iter().map(|coin| coin.value));
    if let Some(coins) = ordinary_first(first) {
        return Ok(coins);
    }
    let not_enough =
        || NotEnoughFunds { wanted: clamp(reached.saturating_add(1)), available: clamp(reached) };
    let higher = Amount::from_sat(u64::try_from(reached + 1).map_err(|_| not_enough())?);
    ordinary_first(select_coins(algorithm, candidates, higher)?).ok_or_else(not_enough)
}
