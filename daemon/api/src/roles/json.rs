//! Taker and maker in the words of clients. Never a secret, never a counterparty's coin.

use std::time::Instant;

use joinery_roles::maker::{MakerState, OfferView};
use joinery_roles::taker::{MakerStep, Outcome, Progress, Reason};
use serde::Serialize;
use serde_json::{Value, json};

use super::board::{TakerEnd, TakerRecord};

/// `GET /taker/status` (`spec/api.md` 14.9); everything behind `error` is additive.
#[derive(Debug, Serialize)]
pub(crate) struct TakerStatusJson {
    /// `idle`, `running`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    /// The transaction, once it was shown to makers or signed.
    txid: Option<String>,
    /// The sentence of a coinjoin that failed.
    error: Option<String>,
    /// Stable word of how it ended.
    reason: Option<&'static str>,
    phase: Option<&'static str>,
    attempt: Option<u8>,
    attempts: Option<u8>,
    /// Seconds that the phase may still take.
    deadline_seconds: Option<u64>,
    /// Equal amount, satoshi.
    amount: Option<u64>,
    makers_asked: usize,
    makers_answered: usize,
    makers_dropped: usize,
    makers: Vec<MakerJson>,
    fees: Option<FeesJson>,
    /// Round in `/rounds`.
    round: Option<u64>,
    /// Why the attempt before this one failed.
    last_attempt: Option<VerdictJson>,
    /// A complete transaction that nobody was seen to have, hex: to be sent by hand.
    unsent_transaction: Option<String>,
}

#[derive(Debug, Serialize)]
struct MakerJson {
    nick: String,
    /// Satoshi.
    fee: u64,
    step: &'static str,
    /// Why it was dropped: stable word and sentence.
    dropped: Option<VerdictJson>,
}

#[derive(Debug, Serialize)]
struct VerdictJson {
    reason: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct FeesJson {
    /// sat/kvB.
    fee_rate: u64,
    /// Satoshi.
    coinjoin_fee: u64,
    /// Satoshi, of the whole transaction.
    miner_fee: u64,
    /// What is paid at most, satoshi.
    limit: u64,
}

/// How many of the makers answered, and how many are out.
pub(super) fn counts(progress: &Progress) -> (usize, usize) {
    let dropped =
        progress.makers.iter().filter(|m| matches!(m.step, MakerStep::Dropped(_))).count();
    let silent = progress.makers.iter().filter(|maker| maker.step == MakerStep::Asked).count();
    (progress.makers.len().saturating_sub(dropped).saturating_sub(silent), dropped)
}

fn status_of(outcome: &Outcome) -> &'static str {
    match outcome.verdict.reason {
        Reason::Complete => "completed",
        Reason::Stopped => "cancelled",
        _ => "failed",
    }
}

impl TakerStatusJson {
    pub(super) fn new(record: Option<&TakerRecord>, running: bool) -> Self {
        let progress = record.and_then(|record| record.progress.as_ref());
        let ended = record.and_then(|record| record.ended.as_ref());
        let outcome = match ended {
            Some(TakerEnd::Outcome(outcome)) => Some(outcome.as_ref()),
            _ => None,
        };
        let status = match ended {
            Some(TakerEnd::Vanished) => "failed",
            Some(TakerEnd::Outcome(outcome)) => status_of(outcome),
            None if running => "running",
            // Stopped by a person; what was signed is still followed.
            None if record.is_some() => "cancelled",
            None => "idle",
        };
        let (answered, dropped) = progress.map_or((0, 0), counts);
        let txid = outcome.and_then(|outcome| outcome.txid);
        let txid = txid.or_else(|| progress.and_then(|progress| progress.txid));
        let remaining = |deadline: Instant| {
            deadline.checked_duration_since(Instant::now()).unwrap_or_default().as_secs()
        };
        Self {
            status,
            txid: txid.map(|txid| txid.to_string()),
            error: match ended {
                Some(TakerEnd::Vanished) => Some("the coinjoin ended unexpectedly".to_owned()),
                _ => outcome.filter(|o| !o.is_success()).map(|o| o.verdict.text.clone()),
            },
            reason: match ended {
                Some(TakerEnd::Vanished) => Some("internal"),
                _ => outcome.map(|outcome| outcome.verdict.reason.code()),
            },
            phase: progress.map(|progress| progress.phase.as_str()),
            attempt: progress.map(|progress| progress.attempt),
            attempts: progress.map(|progress| progress.attempts),
            deadline_seconds: record.and_then(|record| record.deadline).map(remaining),
            amount: progress.and_then(|progress| progress.amount),
            makers_asked: progress.map_or(0, |progress| progress.makers.len()),
            makers_answered: answered,
            makers_dropped: dropped,
            makers: progress.map(makers).unwrap_or_default(),
            fees: progress.and_then(|progress| progress.fees).map(|fees| FeesJson {
                fee_rate: fees.rate,
                coinjoin_fee: fees.coinjoin_fee,
                miner_fee: fees.miner_fee,
                limit: fees.limit,
            }),
            round: progress.and_then(|progress| progress.round).map(|round| round.0),
            last_attempt: progress
                .and_then(|progress| progress.last.as_ref())
                .map(|last| VerdictJson { reason: last.reason.code(), text: last.text.clone() }),
            unsent_transaction: outcome
                .and_then(|outcome| outcome.transaction.as_ref())
                .map(|tx| joinery_wallet::bitcoin::consensus::encode::serialize_hex(tx.as_ref())),
        }
    }
}

fn makers(progress: &Progress) -> Vec<MakerJson> {
    let makers = progress.makers.iter().map(|maker| MakerJson {
        nick: maker.nick.to_string(),
        fee: maker.fee,
        step: maker.step.as_str(),
        dropped: match &maker.step {
            MakerStep::Dropped(failure) => {
                Some(VerdictJson { reason: failure.code, text: failure.text.clone() })
            }
            _ => None,
        },
    });
    makers.collect()
}

/// The websocket's word about a coinjoin that goes on.
pub(super) fn taker_phase_event(record: &TakerRecord) -> Value {
    let status = TakerStatusJson::new(Some(record), true);
    json!({
        "event": "phase",
        "phase": status.phase,
        "attempt": status.attempt,
        "attempts": status.attempts,
        "makers_asked": status.makers_asked,
        "makers_answered": status.makers_answered,
        "makers_dropped": status.makers_dropped,
        "deadline_seconds": status.deadline_seconds,
        "txid": status.txid,
    })
}

/// The websocket's word about one that ended.
pub(super) fn taker_finished_event(record: &TakerRecord) -> Value {
    let status = TakerStatusJson::new(Some(record), false);
    json!({
        "event": "finished",
        "success": status.status == "completed",
        "txid": status.txid,
        "reason": status.reason,
        "text": status.error,
    })
}

/// The websocket's word about a maker that changed.
pub(super) fn maker_event(state: &MakerState) -> Value {
    json!({
        "event": "state",
        "offers": offer_list(&state.offers),
        "reachable": state.reachable,
        "sessions_open": state.sessions_open,
        "signed": state.signed,
        "directories_up": state.directories_up,
        "stopping": state.stopping,
    })
}

/// `offer_list` of `/session`: numbers as numbers, the fee as it stands on the wire.
pub(crate) fn offer_list(offers: &[OfferView]) -> Vec<Value> {
    let entry = |offer: &OfferView| {
        json!({
            "oid": offer.oid,
            "ordertype": offer.ordertype,
            "minsize": offer.minsize,
            "maxsize": offer.maxsize,
            "txfee": offer.txfee,
            "cjfee": offer.cjfee,
        })
    };
    offers.iter().map(entry).collect()
}

/// What `/session` says of a maker besides what the reference does.
#[derive(Debug, Serialize)]
pub(crate) struct MakerExtras {
    /// Our own offers were seen coming back from a directory, or a taker found us.
    maker_reachable: Option<bool>,
    maker_sessions_open: Option<usize>,
    /// Coinjoins that were signed since the start.
    maker_signed: Option<u64>,
    /// Value of the announced bond; null without one.
    maker_bond_value: Option<f64>,
    /// What went wrong last, also in a maker that ended.
    maker_last_error: Option<String>,
}

impl MakerExtras {
    pub(crate) fn new(state: Option<&MakerState>, error: Option<String>) -> Self {
        let problem = state.and_then(|state| state.last_error.as_ref());
        Self {
            maker_reachable: state.map(|state| state.reachable),
            maker_sessions_open: state.map(|state| state.sessions_open),
            maker_signed: state.map(|state| state.signed),
            maker_bond_value: state.and_then(|state| state.bond).map(|bond| bond.value),
            maker_last_error: error.or_else(|| problem.map(|problem| problem.text.clone())),
        }
    }
}
