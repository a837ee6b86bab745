//! Entries of `/rounds` (`spec/api.md` App. C 1 and 5): what became of each coinjoin. Never a counterparty's coin.

use joinery_wallet::round::{Round, RoundRole};
use serde::Serialize;

/// One coinjoin round of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RoundJson {
    id: u64,
    /// `taker` or `maker`.
    role: &'static str,
    /// Unix time.
    started: u64,
    mixdepth: u8,
    /// Equal amount, satoshi; 0 for a sweep that did not get so far.
    amount: u64,
    /// Makers that were wanted; 1 for a maker's round.
    counterparties_wanted: u8,
    /// Nicks of those that took part in the transaction.
    counterparties: Vec<String>,
    /// Our nick in it.
    nick: String,
    /// Where a taker's equal amount goes: address or `INTERNAL`; null for a maker.
    destination: Option<String>,
    /// `running`, `signed`, `unconfirmed`, `confirmed`, `failed` or `abandoned`.
    state: &'static str,
    /// How the conversation ended: stable word and sentence.
    reason: Option<String>,
    text: Option<String>,
    /// Unix time at which it ended.
    ended: Option<u64>,
    txid: Option<String>,
    /// Block of the transaction.
    height: Option<u32>,
    /// Our inputs.
    input_count: u32,
    /// Satoshi.
    input_value: u64,
    /// Taker: fees of all makers. Maker: our fee. Satoshi.
    coinjoin_fee: u64,
    /// Taker: the miner fee of the whole transaction. Maker: our part. Satoshi.
    miner_fee: u64,
    /// What it cost us; negative: what we earned. Satoshi.
    cost: i64,
}

impl From<&Round> for RoundJson {
    fn from(round: &Round) -> Self {
        let txid = round.seen.map(|(txid, _)| txid);
        let txid = txid.or_else(|| round.signed.last().map(|(txid, _, _)| *txid));
        let signed = !round.signed.is_empty();
        let state = match round {
            Round { abandoned: true, .. } => "abandoned",
            Round { confirmed: Some(_), .. } => "confirmed",
            Round { seen: Some(_), .. } => "unconfirmed",
            _ if signed => "signed",
            Round { end: Some(_), .. } => "failed",
            _ => "running",
        };
        let taker = round.begin.role == RoundRole::Taker;
        Self {
            id: round.id.0,
            role: if taker { "taker" } else { "maker" },
            started: round.begin.time,
            mixdepth: round.begin.mixdepth,
            amount: round.sums.amount,
            counterparties_wanted: round.begin.counterparties,
            counterparties: round.sums.counterparties.clone(),
            nick: round.begin.nick.clone(),
            destination: taker.then(|| round.begin.destination.clone()),
            state,
            reason: round.end.as_ref().map(|end| end.code.clone()),
            text: round.end.as_ref().map(|end| end.text.clone()),
            ended: round.end.as_ref().map(|end| end.time),
            txid: txid.map(|txid| txid.to_string()),
            height: round.confirmed.map(|(height, _)| height),
            input_count: round.sums.input_count,
            input_value: round.sums.input_value,
            coinjoin_fee: round.sums.coinjoin_fee,
            miner_fee: round.sums.miner_fee,
            cost: round.sums.cost,
        }
    }
}
