//! `!push`: which transactions takers may have us send (`spec/protocol.md` 7.6, `spec/roles.md` 4.7).

use std::time::Duration;

use bdk_wallet::bitcoin::{OutPoint, Txid};
use joinery_proto::message;
use joinery_proto::nick::Nick;

use super::desk::{Bounded, Desk, Purpose};
use crate::ask::{Question, WalletView};

/// Most signed transactions that are remembered.
const MAX_SIGNED: usize = 1_024;

/// A transaction that we signed.
#[derive(Debug)]
struct Signed {
    taker: Nick,
    ours: Vec<OutPoint>,
    at: Duration,
    pushed: bool,
}

/// Transactions that were signed in this run.
#[derive(Debug)]
pub(super) struct Pushes(Bounded<Txid, Signed>);

impl Pushes {
    pub(super) fn new() -> Self {
        Self(Bounded::new(MAX_SIGNED))
    }

    pub(super) fn signed(&mut self, txid: Txid, taker: Nick, ours: Vec<OutPoint>, at: Duration) {
        self.0.insert(txid, Signed { taker, ours, at, pushed: false });
    }

    /// A taker wants something sent: once, what we signed for it, while our coins are unspent. Never answered.
    pub(super) fn asked(
        &mut self,
        from: Nick,
        payload: &str,
        view: &WalletView,
        lease: Duration,
        desk: &mut Desk,
    ) {
        let Ok(transaction) = message::parse_push(payload) else { return };
        let Some(signed) = self.0.get_mut(&transaction.compute_txid()) else { return };
        let unspent =
            |outpoint: &OutPoint| view.coins.iter().any(|coin| coin.outpoint == *outpoint);
        let may = signed.taker == from
            && !signed.pushed
            && desk.now < signed.at.saturating_add(lease)
            && signed.ours.iter().all(unspent);
        if may {
            signed.pushed = true;
            desk.ask(Purpose::Push, Question::Push(Box::new(transaction)));
        }
    }
}
