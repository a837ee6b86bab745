//! Which coin backs a taker's commitment (`spec/roles.md` 3.7, `spec/protocol.md` 9.6, vector `podle_sourcing.json`).
//!
//! A coin can make a few commitments ([`CommitmentRules::retries`]), each once. Coins of another account are never
//! used: that would tell makers that both belong together.

use std::cmp::Reverse;

use bdk_wallet::bitcoin::OutPoint;

/// `taker_utxo_retries`, `taker_utxo_age`, `taker_utxo_amtpercent`: what makers demand of the coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitmentRules {
    /// Commitments that one coin can make.
    pub retries: u8,
    /// Confirmations that it must have.
    pub age: u32,
    /// Its value must be this part of the amount, percent.
    pub percent: u8,
}

impl Default for CommitmentRules {
    fn default() -> Self {
        Self { retries: 3, age: 5, percent: 20 }
    }
}

impl CommitmentRules {
    /// Value that a coin must have for an amount, satoshi; rounded down.
    #[must_use]
    pub fn least_value(&self, amount: u64) -> u64 {
        let least = u128::from(amount).saturating_mul(self.percent.into()) / 100;
        u64::try_from(least).unwrap_or(u64::MAX)
    }

    /// NUMS index of the next commitment of a coin with these used ones; `None` when it has made all that it can.
    /// Always above the highest used one, as in the reference.
    #[must_use]
    pub fn next_index(&self, used: &[u8]) -> Option<u8> {
        let used = used.iter().filter(|index| **index < self.retries).max();
        let next = used.map_or(0, |index| index.saturating_add(1));
        (next < self.retries).then_some(next)
    }

    /// Commitments that a coin with these used ones can still make.
    #[must_use]
    pub fn tries_left(&self, used: &[u8]) -> u8 {
        self.next_index(used).map_or(0, |index| self.retries.saturating_sub(index))
    }
}

/// A coin that may back a commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitmentCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Satoshi.
    pub value: u64,
    /// `None` when it is spent.
    pub confirmations: Option<u32>,
    /// Whether it has the wallet's ordinary script. An expired bond has not: nobody could check the proof.
    pub standard: bool,
    /// NUMS indexes of commitments that it made.
    pub used: Vec<u8>,
}

/// A commitment that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sourced {
    /// By this coin.
    pub outpoint: OutPoint,
    /// With this NUMS index.
    pub index: u8,
    /// Whether it is one that the user brought along, not a coin of the wallet.
    pub external: bool,
}

/// What can be done when no commitment can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Wait for this many blocks.
    Wait {
        /// Blocks.
        blocks: u32,
    },
    /// Waiting does not help.
    None,
}

/// Why no commitment can be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoCommitment {
    /// Old and large enough, but used up.
    pub exhausted: Vec<OutPoint>,
    /// Below the age, with the number of blocks that are missing.
    pub too_new: Vec<(OutPoint, u32)>,
    /// Below the value; may be too new besides.
    pub too_small: Vec<OutPoint>,
    /// Ordinary coins that were looked at.
    pub looked_at: usize,
}

impl NoCommitment {
    /// Whether waiting helps. As in the reference a coin that is too new counts even if it is too small, too.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        // The soonest of those that are large enough; of the others if there is none.
        let soonest = |small: bool| {
            let coins = self.too_new.iter().filter(|(o, _)| self.too_small.contains(o) == small);
            coins.map(|(_, blocks)| *blocks).min()
        };
        match soonest(false).or_else(|| soonest(true)) {
            Some(blocks) => Remedy::Wait { blocks },
            None => Remedy::None,
        }
    }

    /// One sentence for people.
    #[must_use]
    pub fn summary(&self, rules: &CommitmentRules) -> String {
        let Self { exhausted, too_new, too_small, .. } = self;
        let lists = [
            (exhausted.len(), format!("used {} times already", rules.retries)),
            (too_new.len(), format!("below {} confirmations", rules.age)),
            (too_small.len(), format!("worth less than {} % of the amount", rules.percent)),
        ];
        let parts: Vec<String> = lists
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| {
                format!("{count} coin{} {what}", if count == 1 { "" } else { "s" })
            })
            .collect();
        let found = if parts.is_empty() { "no ordinary coin".to_owned() } else { parts.join(", ") };
        let advice = match self.remedy() {
            Remedy::Wait { blocks } => format!("try again in {blocks} blocks"),
            Remedy::None if !exhausted.is_empty() => {
                "pay a coin of the needed size into this account and wait until it is old enough"
                    .to_owned()
            }
            Remedy::None => "ask for a smaller amount or pay a larger coin in".to_owned(),
        };
        format!("no commitment can be made: {found}; {advice}")
    }

    /// The long text: three lists in the order of the reference, then advice. Names our own coins: for the owner only.
    #[must_use]
    pub fn report(&self, rules: &CommitmentRules) -> String {
        let mut text = String::new();
        let mut list = |title: String, coins: &mut dyn Iterator<Item = String>| {
            let lines: Vec<String> = coins.collect();
            if !lines.is_empty() {
                text.push_str(&format!("{title}\n  {}\n", lines.join("\n  ")));
            }
        };
        let CommitmentRules { retries, age, percent } = rules;
        list(
            format!("Coins that made {retries} commitments already:"),
            &mut self.exhausted.iter().map(ToString::to_string),
        );
        list(
            format!("Coins with fewer than {age} confirmations:"),
            &mut self.too_new.iter().map(|(o, n)| format!("{o}: {n} more blocks")),
        );
        list(
            format!("Coins worth less than {percent} % of the amount:"),
            &mut self.too_small.iter().map(ToString::to_string),
        );
        text.push_str(&self.summary(rules));
        text
    }
}

/// What a coin is for an amount.
enum Fitness {
    Usable(u8, u32),
    Exhausted,
    Unfit { missing: Option<u32>, small: bool },
    Never,
}

fn fitness(coin: &CommitmentCoin, amount: u64, rules: &CommitmentRules) -> Fitness {
    let Some(confirmations) = coin.confirmations.filter(|_| coin.standard) else {
        return Fitness::Never;
    };
    let missing = rules.age.checked_sub(confirmations).filter(|missing| *missing > 0);
    let small = coin.value < rules.least_value(amount);
    if missing.is_some() || small {
        return Fitness::Unfit { missing, small };
    }
    match rules.next_index(&coin.used) {
        Some(index) => Fitness::Usable(index, confirmations),
        None => Fitness::Exhausted,
    }
}

/// The best usable coin: the one with the fewest commitments, then the oldest.
fn best(coins: &[CommitmentCoin], amount: u64, rules: &CommitmentRules) -> Option<(OutPoint, u8)> {
    let usable = coins.iter().filter_map(|coin| match fitness(coin, amount, rules) {
        Fitness::Usable(index, confirmations) => Some((index, Reverse(confirmations), coin)),
        _ => None,
    });
    let best = usable.min_by_key(|(index, age, _)| (*index, *age));
    best.map(|(index, _, coin)| (coin.outpoint, index))
}

/// Finds a commitment: first by an input of the transaction, then by another coin of the account, then by one that the
/// user brought along.
///
/// `selected` are the inputs, `account` all coins of the account that may be used, with or without the inputs.
///
/// # Errors
/// [`NoCommitment`] says of every ordinary coin why it does not serve.
pub fn source(
    amount: u64,
    selected: &[CommitmentCoin],
    account: &[CommitmentCoin],
    external: &[CommitmentCoin],
    rules: &CommitmentRules,
) -> Result<Sourced, NoCommitment> {
    let lists = [(selected, false), (account, false), (external, true)];
    let found = lists.into_iter().find_map(|(coins, external)| {
        let (outpoint, index) = best(coins, amount, rules)?;
        Some(Sourced { outpoint, index, external })
    });
    if let Some(sourced) = found {
        return Ok(sourced);
    }
    let mut why = NoCommitment::default();
    let mut seen = std::collections::BTreeSet::new();
    for coin in selected.iter().chain(account).chain(external) {
        if !seen.insert(coin.outpoint) {
            continue;
        }
        let what = fitness(coin, amount, rules);
        why.looked_at = why.looked_at.saturating_add(usize::from(!matches!(what, Fitness::Never)));
        match what {
            Fitness::Exhausted => why.exhausted.push(coin.outpoint),
            Fitness::Unfit { missing, small } => {
                why.too_new.extend(missing.map(|missing| (coin.outpoint, missing)));
                why.too_small.extend(small.then_some(coin.outpoint));
            }
            Fitness::Usable(..) | Fitness::Never => {}
        }
    }
    Err(why)
}
