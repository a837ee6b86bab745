//! Which coins a maker lends (`spec/roles.md` 4.5, 4.6).
//!
//! Every candidate is an ordinary P2WPKH coin of the wallet, so that the key of the first one can sign the
//! `!ioauth`: bonds and coins of other kinds are never [`WalletCoin::free`].

use joinery_proto::maker_offers::InputMixdepthRule;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::snapshot::CoinKind;

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
