//! The coinjoin transaction: what a maker checks before it signs, what a taker checks of each maker, how the
//! transaction is built and signatures are put in (`spec/protocol.md` 11, vectors `transaction.json`,
//! `cjfee.json`).
//!
//! Nothing in a transaction tells the inputs of one party from those of another: one sequence number,
//! one script type, everything shuffled (`tx_sent_to_makers_has_no_side_channel`).

pub mod fees;
pub mod maker;
pub mod signing;
pub mod taker;

use bdk_wallet::bitcoin::Transaction;

use crate::offer::MAX_MONEY;

/// What the outputs of a transaction hold together, satoshi; `None` for more than all money, which no
/// chain accepts.
pub(crate) fn output_total(tx: &Transaction) -> Option<u64> {
    tx.output
        .iter()
        .try_fold(0_u64, |sum, output| sum.checked_add(output.value.to_sat()))
        .filter(|sum| *sum <= MAX_MONEY)
}
