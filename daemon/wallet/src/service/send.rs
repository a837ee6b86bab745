//! A payment from request to broadcast (`spec/wallet.md` 8.3), as a task of its own.

use bdk_wallet::bitcoin::Txid;
use tokio::sync::oneshot;

use super::command::{Command, Outcome, Prepared};
use super::{
    DrawnRate, RoundError, RoundSent, SendError, SendRequest, SentTransaction, WalletHandle,
};
use crate::chain::{BroadcastError, ChainError, ChainSource};
use crate::fee;
use crate::policy::TxFees;
use crate::round::RoundId;

/// What the fee rule needs from the server, satoshi per 1000 vbytes.
struct Rates {
    estimate: Option<u64>,
    floor: Option<u64>,
}

/// Asks the server. Its refusal to estimate is answered by the fallback of the fee rule; without a
/// connection nothing may be built, because nothing could be sent.
async fn ask_rates(chain: &dyn ChainSource, fees: TxFees) -> Result<Rates, ChainError> {
    let status = chain.status().borrow().clone();
    if !status.configured {
        return Err(ChainError::NotConfigured);
    }
    if !status.connected {
        let reason = status.last_error.unwrap_or_else(|| "not connected".to_owned());
        return Err(ChainError::Unavailable { reason });
    }
    let floor = usable(chain.mempool_min_fee().await)?;
    let estimate = match fee::estimate_target(fees) {
        None => None,
        Some(target) => {
            usable(chain.estimate_fee(target).await)?.and_then(|estimate| estimate.sat_per_kvb)
        }
    };
    Ok(Rates { estimate, floor })
}

fn usable<T>(answer: Result<T, ChainError>) -> Result<Option<T>, ChainError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        // The connection is gone or dying: what is built now could not be sent.
        Err(
            error @ (ChainError::NotConfigured
            | ChainError::Unavailable { .. }
            | ChainError::TimedOut),
        ) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the server has no usable fee information");
            Ok(None)
        }
    }
}

/// What a node relays at least when it does not say so, satoshi per 1000 vbytes.
const USUAL_FLOOR: u64 = 1000;

/// Draws a fee rate by the policy or by a rule of this call only.
pub(super) async fn draw_rate(
    wallet: &WalletHandle,
    fees: Option<TxFees>,
) -> Result<DrawnRate, SendError> {
    let policy = wallet.shared.policy.load_full();
    let fees = fees.unwrap_or(policy.tx_fees);
    let rates = ask_rates(wallet.chain().as_ref(), fees).await?;
    let rate = fee::fee_rate(
        fees,
        rates.estimate,
        rates.floor,
        policy.tx_fees_factor,
        policy.absurd_fee_per_kvb,
        &mut rand::rng(),
    )?;
    Ok(DrawnRate { rate, floor: rates.floor.unwrap_or(USUAL_FLOOR) })
}

/// Reports an unknown outcome if the task ends before the real one is known, so that the coins of a
/// stored transaction never stay in the state "being sent".
struct Report {
    wallet: WalletHandle,
    txid: Txid,
    done: bool,
}

impl Report {
    fn tell(&mut self, outcome: Outcome) -> oneshot::Receiver<()> {
        self.done = true;
        let (reply, applied) = oneshot::channel();
        let command = Command::Sent { txid: self.txid, outcome, first: true, reply: Some(reply) };
        // A closed wallet has the transaction in its store and takes it up when it opens again.
        let _ = self.wallet.shared.commands.send(command);
        applied
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.done {
            drop(self.tell(Outcome::Unknown));
        }
    }
}

/// The whole payment.
pub(super) async fn run(
    wallet: WalletHandle,
    request: SendRequest,
) -> Result<SentTransaction, SendError> {
    let chain = wallet.chain().clone();
    let rate = draw_rate(&wallet, request.fees).await?.rate;
    let request = Box::new(request);
    let prepared: Prepared = wallet.ask(|reply| Command::Prepare { request, rate, reply }).await?;
    let Prepared { transaction, txid, fee, includes_expired_bond } = prepared;
    let mut report = Report { wallet, txid, done: false };
    match chain.broadcast((*transaction).clone()).await {
        Ok(()) => {
            // Applied to the graph before the answer: clients look at once whether the inputs are gone.
            let _ = report.tell(Outcome::Accepted).await;
            Ok(SentTransaction { transaction, fee, includes_expired_bond })
        }
        Err(BroadcastError::Rejected { text }) => {
            let _ = report.tell(Outcome::Rejected).await;
            Err(SendError::Rejected { text })
        }
        Err(BroadcastError::Unknown(error)) => {
            tracing::warn!(%txid, %error, "outcome of the broadcast is unknown");
            let _ = report.tell(Outcome::Unknown).await;
            Err(SendError::Uncertain)
        }
    }
}

/// Sends the complete transaction of a round.
pub(super) async fn run_round(
    wallet: WalletHandle,
    round: RoundId,
) -> Result<RoundSent, RoundError> {
    let chain = wallet.chain().clone();
    let taken = wallet.ask(|reply| Command::TakeTransaction { round, reply }).await?;
    let Some((txid, transaction)) = taken else { return Ok(RoundSent::Accepted) };
    let mut report = Report { wallet, txid, done: false };
    match chain.broadcast(transaction).await {
        Ok(()) => {
            let _ = report.tell(Outcome::Accepted).await;
            Ok(RoundSent::Accepted)
        }
        Err(BroadcastError::Rejected { text }) => {
            tracing::warn!(%txid, %text, "the transaction of a coinjoin was rejected");
            let _ = report.tell(Outcome::Rejected).await;
            Ok(RoundSent::Rejected { text })
        }
        Err(BroadcastError::Unknown(error)) => {
            tracing::warn!(%txid, %error, "outcome of the broadcast of a coinjoin is unknown");
            let _ = report.tell(Outcome::Unknown).await;
            Ok(RoundSent::Unknown)
        }
    }
}
