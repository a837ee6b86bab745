//! Whether a transaction looks like a coinjoin, from its outputs alone (`spec/wallet.md` 6.2, vectors
//! `coinjoin_detection.json`). A guess: where the wallet knows what a transaction was, that comes first.

use std::collections::HashMap;

use bdk_wallet::bitcoin::{Amount, TxOut};

/// The shape of a transaction that looks like a coinjoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoinjoinShape {
    /// The value that its equal outputs share.
    pub amount: Amount,
    /// Number of equal outputs.
    pub participants: usize,
}

/// Recognises a coinjoin: n equal outputs beside n or n - 1 others, n at least 2. Outputs with the same
/// script count once, with the value of the last; among values that are equally frequent the first in
/// output order is the coinjoin amount.
#[must_use]
pub fn coinjoin_shape(outputs: &[TxOut]) -> Option<CoinjoinShape> {
    // Like the reference's dictionary: a script keeps its first position and its last value.
    let mut position = HashMap::with_capacity(outputs.len());
    let mut values: Vec<Amount> = Vec::with_capacity(outputs.len());
    for output in outputs {
        let slot = *position.entry(&output.script_pubkey).or_insert(values.len());
        match values.get_mut(slot) {
            Some(value) => *value = output.value,
            None => values.push(output.value),
        }
    }
    let mut counts: HashMap<Amount, usize> = HashMap::with_capacity(values.len());
    for value in &values {
        *counts.entry(*value).or_default() += 1;
    }
    let participants = counts.values().copied().max()?;
    let amount = *values.iter().find(|value| counts.get(value) == Some(&participants))?;
    let others = values.len() - participants;
    let is_coinjoin = participants > 1 && (participants == others || participants == others + 1);
    is_coinjoin.then_some(CoinjoinShape { amount, participants })
}
