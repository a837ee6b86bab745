//! `GET /fees` (`spec/api.md` Appendix C 6): what the server says that confirmation in so many blocks costs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use serde::Serialize;

use super::{Answer, App, State};
use crate::auth::Authenticated;
use crate::error::ApiError;

/// Targets of the table, blocks: from the next one to a week.
const TARGETS: [u16; 8] = [1, 2, 3, 6, 12, 36, 144, 1008];
/// How long the server may take to answer everything.
const PATIENCE: Duration = Duration::from_secs(6);

#[derive(Debug, Serialize)]
pub(super) struct Fees {
    /// The rate below which the server takes no transaction.
    minimum_sat_kvb: u64,
    fees: Vec<Fee>,
}

#[derive(Debug, Serialize)]
struct Fee {
    blocks: u16,
    /// Null while the server has no estimate; sends then use a fixed rate.
    sat_kvb: Option<u64>,
}

pub(super) async fn handle(State(app): App, _caller: Authenticated) -> Answer<Fees> {
    // All questions at once: over Tor each takes its time.
    let mut questions = tokio::task::JoinSet::new();
    for blocks in TARGETS {
        let chain = Arc::clone(&app.chain);
        questions.spawn(async move { (blocks, chain.estimate_fee(blocks).await) });
    }
    let ask = async {
        let minimum_sat_kvb = app.chain.mempool_min_fee().await.ok()?;
        let mut fees = Vec::with_capacity(TARGETS.len());
        while let Some(answer) = questions.join_next().await {
            let (blocks, estimate) = answer.ok()?;
            // What nothing relays is no estimate.
            let sat_kvb = estimate.ok()?.sat_per_kvb.map(|rate| rate.max(minimum_sat_kvb));
            fees.push(Fee { blocks, sat_kvb });
        }
        fees.sort_unstable_by_key(|fee| fee.blocks);
        Some(Fees { minimum_sat_kvb, fees })
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await.ok().flatten();
    answer.map(Json).ok_or(ApiError::BackendNotReady("electrum"))
}
