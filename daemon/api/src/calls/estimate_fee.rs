//! `POST /wallet/{walletname}/estimate-fee` (`spec/api.md` Appendix C 6): what a direct send would cost,
//! without making one.

use std::time::Duration;

use axum::Json;
use joinery_wallet::bitcoin::hashes::Hash;
use joinery_wallet::bitcoin::{ScriptBuf, WPubkeyHash};
use joinery_wallet::fee::{estimate_target, fee_rate};
use joinery_wallet::spend::{SpendContext, plan};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::{Answer, App, Params, State, amount, input_utxos, mixdepth, payment_address, txfee};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::error::ApiError;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Params(name): Params<String>,
    body: RawBody,
) -> Answer {
    let body = body.object()?;
    let amount = amount(&body)?;
    let fees = txfee(&body)?;
    let inputs = input_utxos(&body)?;
    let script = match body.optional_string("destination")? {
        Some(text) => {
            payment_address(text, app.directory.network(), "destination")?.script_pubkey()
        }
        // Any script of the commonest size.
        None => ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()),
    };
    if body.get("counterparties").is_some() {
        return Err(ApiError::invalid_because(
            "counterparties",
            "not_supported",
            "only direct sends can be estimated",
        ));
    }
    body.int("mixdepth")?;
    let snapshot = app.loaded(&name)?.snapshot();
    let mixdepth = mixdepth(&body, &snapshot)?;
    let tip = snapshot.tip.ok_or(ApiError::BackendNotReady("electrum"))?;
    let policy = app.settings.policy().load_full();
    let fees = fees.unwrap_or(policy.tx_fees);

    let ask = async {
        let estimate = match estimate_target(fees) {
            Some(target) => app.chain.estimate_fee(target).await?.sat_per_kvb,
            None => None,
        };
        Ok::<_, joinery_wallet::chain::ChainError>((estimate, app.chain.mempool_min_fee().await?))
    };
    let (estimate, floor) = tokio::time::timeout(PATIENCE, ask)
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or(ApiError::BackendNotReady("electrum"))?;
    // Without the random part, and then with all of it: the real one will be in between.
    let mut rng = StdRng::seed_from_u64(0);
    let rate = fee_rate(fees, estimate, Some(floor), 0.0, policy.absurd_fee_per_kvb, &mut rng)?;
    let mut context = SpendContext {
        coins: &snapshot.coins,
        mixdepth,
        tip_height: tip.height,
        median_time: tip.median_time,
        rate_sat_per_kvb: rate,
        merge: policy.merge_algorithm,
        wallet_type: snapshot.wallet_type,
        rng: &mut rng,
    };
    let plan = plan(&mut context, amount, &script, inputs.as_deref())?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // rates are below 2^53 and the factor is between 0 and 1
    let highest = (rate as f64 * (1.0 + policy.tx_fees_factor)) as u64;
    Ok(Json(json!({
        "mining_fee_sats": plan.fee().to_sat(),
        "fee_rate_sat_kvb": rate,
        "fee_rate_max_sat_kvb": highest.min(policy.absurd_fee_per_kvb),
        "inputs": plan.inputs().len(),
        "vsize": plan.vsize(),
        "includes_expired_bond": plan.includes_expired_bond(),
    })))
}
