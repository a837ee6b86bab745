//! `POST /wallet/{walletname}/estimate-fee` (`spec/api.md` Appendix C 6): what a direct send would cost,
//! without making one.

use axum::Json;
use joinery_wallet::bitcoin::hashes::Hash;
use joinery_wallet::bitcoin::{ScriptBuf, WPubkeyHash};
use joinery_wallet::spend::{SpendContext, plan};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::{Answer, App, Params, State, amount, input_utxos, mixdepth, payment_address, txfee};
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::consent::rates;
use crate::error::ApiError;

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

    let (rate, highest) = rates(&app, fees).await?;
    let mut rng = StdRng::seed_from_u64(0);
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
    Ok(Json(json!({
        "mining_fee_sats": plan.fee().to_sat(),
        "fee_rate_sat_kvb": rate,
        "fee_rate_max_sat_kvb": highest,
        "inputs": plan.inputs().len(),
        "vsize": plan.vsize(),
        "includes_expired_bond": plan.includes_expired_bond(),
    })))
}
