//! Questions about fees, on the wallet's connection, and sending transactions; from any thread.

use bdk_wallet::bitcoin::consensus::encode::serialize_hex;
use bdk_wallet::bitcoin::{Transaction, Txid};
use joinery_wallet::chain::{BroadcastError, ChainError, FeeEstimate};
use serde_json::json;

use super::answers::{self, Rate};
use super::client::{Call, Client, SMALL};
use super::engine::Link;
use super::error::{CallError, ServerError};
use super::message::value;
use super::script::ScriptHash;

/// Nobody relays below this, whatever a server says (`spec/wallet.md` 13.7). Satoshi per 1000 vbytes.
const FEE_FLOOR: u64 = 1_000;
/// Size of a full mempool, in vbytes: from here on the lowest rate in it is what it takes to enter.
const MEMPOOL_FULL: f64 = 100_000_000.0;
/// Longest list of fee buckets.
const HISTOGRAM_MAX: usize = 1024 * 1024;
/// Longest history that is looked through for a transaction that was sent.
const HISTORY_MAX: usize = 4 * 1024 * 1024;
/// Outputs whose histories are looked through.
const OUTPUTS_ASKED: usize = 3;

/// Texts by which servers say that a transaction is where it should be. Lower case.
const KNOWN_TEXTS: [&str; 6] = [
    "already in mempool",
    "already in block chain",
    "already in utxo set",
    "txn-already-known",
    "txn-already-in-mempool",
    "already known",
];
/// Texts that speak of the server's own trouble and not of the transaction. Lower case.
const TROUBLE_TEXTS: [&str; 17] = [
    "busy",
    "excessive",
    "timeout",
    "timed out",
    "unavailable",
    "internal error",
    "connect",
    "loading",
    "warming up",
    "starting up",
    "try again",
    "shutting down",
    "too many",
    "rate limit",
    "broken pipe",
    "transport",
    "method not found",
];

fn lie(what: &str) -> ChainError {
    ChainError::Lie { what: what.to_owned() }
}

pub(super) async fn estimate_fee(link: &Link, target: u16) -> Result<FeeEstimate, ChainError> {
    // Targets are 1 to 1008 blocks in bitcoind.
    let call = Call::small("blockchain.estimatefee", json!([target.clamp(1, 1008)]));
    let answer = link.client.call(call).await?;
    match answers::rate(answer.text()) {
        Some(Rate::SatPerKvb(rate)) => Ok(FeeEstimate { sat_per_kvb: Some(rate) }),
        Some(Rate::None) => Ok(FeeEstimate { sat_per_kvb: None }),
        None => Err(lie("an estimated fee rate")),
    }
}

pub(super) async fn mempool_min_fee(link: &Link) -> Result<u64, ChainError> {
    if answers::version_at_least(&link.greeting.protocol, 1, 6) {
        let answer = link.client.call(Call::small("mempool.get_info", json!([]))).await?;
        let rate =
            answers::mempool_info(answer.text()).ok_or_else(|| lie("mempool information"))?;
        return Ok(at_least_floor(rate));
    }
    let relay = Call::small("blockchain.relayfee", json!([]));
    let histogram =
        Call { method: "mempool.get_fee_histogram", params: json!([]), limit: HISTOGRAM_MAX };
    let mut pending = link.client.submit(vec![relay, histogram], false).into_iter();
    let relay = link.client.outcome(pending.next()).await?;
    let relay = at_least_floor(answers::rate(relay.text()).ok_or_else(|| lie("a relay fee rate"))?);
    let lowest = match link.client.outcome(pending.next()).await {
        Ok(answer) => {
            let (size, lowest) =
                answers::fee_histogram(answer.text()).ok_or_else(|| lie("a list of fee rates"))?;
            if size > MEMPOOL_FULL { lowest } else { 0 }
        }
        // A server without the list: what it relays at least is all there is to know.
        Err(CallError::Server(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(relay.max(lowest))
}

fn at_least_floor(rate: Rate) -> u64 {
    match rate {
        Rate::None => FEE_FLOOR,
        Rate::SatPerKvb(rate) => rate.max(FEE_FLOOR),
    }
}

/// What an error in answer to a broadcast means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Known,
    Rejected,
    ServerInTrouble,
}

fn verdict(error: &ServerError) -> Verdict {
    let text = error.text.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
    if says(&KNOWN_TEXTS) {
        Verdict::Known
    } else if says(&TROUBLE_TEXTS) {
        Verdict::ServerInTrouble
    } else {
        Verdict::Rejected
    }
}

pub(super) async fn broadcast(client: &Client, tx: &Transaction) -> Result<(), BroadcastError> {
    let txid = tx.compute_txid();
    let hex = serialize_hex(tx);
    // Some servers repeat the transaction in their error text.
    let limit = SMALL + hex.len();
    let call = Call { method: "blockchain.transaction.broadcast", params: json!([hex]), limit };
    let error = match client.call(call).await {
        Ok(answer) if value::<Txid>(answer.text()) == Some(txid) => return Ok(()),
        Ok(_) => {
            // It sent something, or nothing: only asking tells.
            return if has(client, tx, txid).await {
                Ok(())
            } else {
                Err(BroadcastError::Unknown(lie("the id of another transaction after a broadcast")))
            };
        }
        Err(CallError::Server(error)) => error,
        Err(error) => return Err(BroadcastError::Unknown(error.into())),
    };
    match verdict(&error) {
        Verdict::Known => Ok(()),
        _ if has(client, tx, txid).await => Ok(()),
        Verdict::Rejected => Err(BroadcastError::Rejected { text: error.text }),
        Verdict::ServerInTrouble => {
            Err(BroadcastError::Unknown(ChainError::Server { text: error.text }))
        }
    }
}

/// Whether the transaction is in the mempool or a block. What `transaction.get` finds says nothing of that:
/// electrs 0.10 goes on showing transactions that were replaced. Histories do say.
async fn has(client: &Client, tx: &Transaction, txid: Txid) -> bool {
    let scripts =
        tx.output.iter().map(|out| &out.script_pubkey).filter(|script| !script.is_op_return());
    for script in scripts.take(OUTPUTS_ASKED) {
        let call = Call {
            method: "blockchain.scripthash.get_history",
            params: json!([ScriptHash::of(script).to_string()]),
            limit: HISTORY_MAX,
        };
        // A script with too long a history says nothing; the next one may.
        if let Ok(answer) = client.call(call).await
            && let Some(history) = answers::history(answer.text())
        {
            return history.iter().any(|entry| entry.txid == txid);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_of_known_servers_are_understood() {
        for (text, expected) in [
            ("Transaction already in block chain", Verdict::Known),
            ("Transaction outputs already in utxo set", Verdict::Known),
            (
                "the transaction was rejected by network rules. txn-already-in-mempool",
                Verdict::Known,
            ),
            ("txn-already-known", Verdict::Known),
            ("bad-txns-inputs-missingorspent", Verdict::Rejected),
            ("min relay fee not met, 100 < 141", Verdict::Rejected),
            ("txn-mempool-conflict", Verdict::Rejected),
            ("insufficient fee, rejecting replacement", Verdict::Rejected),
            ("non-mandatory-script-verify-flag (Witness program hash mismatch)", Verdict::Rejected),
            ("non-final", Verdict::Rejected),
            ("server busy - request timed out", Verdict::ServerInTrouble),
            ("excessive resource usage", Verdict::ServerInTrouble),
            ("unavailable index", Verdict::ServerInTrouble),
            ("JSON-RPC error: transport error: Couldn't connect to host", Verdict::ServerInTrouble),
            ("Loading block index...", Verdict::ServerInTrouble),
        ] {
            assert_eq!(verdict(&ServerError { text: text.into() }), expected, "{text}");
        }
    }

    #[test]
    fn rates_below_the_floor_are_lifted() {
        assert_eq!(at_least_floor(Rate::None), 1_000);
        assert_eq!(at_least_floor(Rate::SatPerKvb(100)), 1_000);
        assert_eq!(at_least_floor(Rate::SatPerKvb(2_500)), 2_500);
    }
}
