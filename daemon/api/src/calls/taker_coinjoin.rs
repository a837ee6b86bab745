//! `POST /wallet/{walletname}/taker/coinjoin` (`spec/api.md` 6.18): checks what can be known at once, then the taker
//! goes on by itself.

use axum::Json;
use http::StatusCode;
use joinery_proto::cjfee::RelativeFee;
use joinery_proto::transaction::fees::FeeLimits;
use joinery_roles::ask::WalletView;
use joinery_roles::choose::Chooser;
use joinery_roles::podle_source::CommitmentRules;
use joinery_roles::taker::{
    BroadcastPolicy, Destination, Reason, TakerPolicy, TakerRequest, Verdict, preflight,
};
use joinery_wallet::bitcoin::Amount;
use serde_json::{Value, json};

use super::{
    App, Params, State, amount, bitcoin_network, input_utxos, mixdepth, payment_address, txfee,
};
use crate::activity::Role;
use crate::app::AppState;
use crate::auth::Authenticated;
use crate::body::RawBody;
use crate::consent::approve_then_run;
use crate::error::ApiError;
use crate::number;
use crate::peer::Peer;
use crate::roles::TakerRun;
use crate::settings::{MakerFeeLimits, TxBroadcast};

/// The word for "to the next mixdepth of this wallet".
const INTERNAL: &str = "INTERNAL";

pub(super) async fn handle(
    State(app): App,
    _caller: Authenticated,
    Peer(from): Peer,
    Params(name): Params<String>,
    body: RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body = body.object()?;
    let amount = amount(&body)?.map_or(0, Amount::to_sat);
    let fees = txfee(&body)?;
    let inputs = input_utxos(&body)?;
    let counterparties = u8::try_from(body.int("counterparties")?).ok();
    let counterparties = counterparties.filter(|count| (1..=99).contains(count));
    let counterparties = counterparties.ok_or(ApiError::invalid("counterparties"))?;
    let destination = match body.string("destination")? {
        INTERNAL => Destination::Internal,
        text => {
            Destination::Address(payment_address(text, app.directory.network(), "destination")?)
        }
    };
    body.int("mixdepth")?;
    let wallet = app.loaded(&name)?;
    let snapshot = wallet.snapshot();
    let mixdepth = mixdepth(&body, &snapshot)?;
    let limits = app.settings.maker_fee_limits().ok_or(ApiError::ConfigNotPresent)?;
    if app.activity.current().is_some() {
        return Err(ApiError::ServiceAlreadyStarted);
    }
    let roles = app.roles("taker_not_available")?;
    let request = TakerRequest { mixdepth, amount, counterparties, destination, inputs };
    let policy = policy(&app, &limits)?;
    let checked = preflight(&request, &policy, &WalletView::from(&*snapshot), None);
    let checked = checked.map_err(impossible)?;
    for warning in checked.warnings {
        tracing::warn!(warning, "coinjoin");
    }
    let sum = (request.amount > 0).then(|| Amount::from_sat(request.amount));
    let ask = app.consent.needed_for_send(sum);
    if ask {
        app.consent.check_free()?;
    }
    let guard = app.activity.begin(Role::Taker).ok_or(ApiError::ServiceAlreadyStarted)?;
    let desk = app.board.taker_desk(guard);
    let run = TakerRun { wallet: wallet.handle.clone(), request, policy, fees, desk };
    if ask {
        approve_then_run(&app, roles, wallet, run, from);
    } else {
        roles.taker(run);
    }
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// The settings that a taker obeys, as they are now.
fn policy(app: &AppState, limits: &MakerFeeLimits) -> Result<TakerPolicy, ApiError> {
    let roles = app.settings.roles();
    let wallet = app.settings.policy().load_full();
    Ok(TakerPolicy {
        chooser: Chooser::BondWeighted { allowance: roles.bondless_makers_allowance },
        minimum_makers: roles.minimum_makers,
        maker_timeout: roles.maker_timeout,
        unconfirm_timeout: roles.unconfirm_timeout,
        max_sweep_fee_change: roles.max_sweep_fee_change,
        broadcast: match roles.tx_broadcast {
            TxBroadcast::Own => BroadcastPolicy::Own,
            TxBroadcast::RandomPeer => BroadcastPolicy::RandomPeer,
            TxBroadcast::MultiplePeers => BroadcastPolicy::MultiplePeers,
            TxBroadcast::NotSelf => BroadcastPolicy::NotSelf,
        },
        merge: wallet.merge_algorithm,
        commitment: CommitmentRules {
            retries: roles.commitment.retries,
            age: roles.commitment.age,
            // At most 100: the rule for the setting.
            percent: u8::try_from(roles.commitment.amount_percent).unwrap_or(100),
        },
        ..TakerPolicy::new(bitcoin_network(app), fee_limits(limits)?)
    })
}

fn fee_limits(limits: &MakerFeeLimits) -> Result<FeeLimits, ApiError> {
    Ok(FeeLimits { absolute: limits.absolute, relative: relative(&limits.relative_text)? })
}

/// A limit of 1 means: no relative limit that a fee could reach.
fn relative(text: &str) -> Result<RelativeFee, ApiError> {
    let plain = number::plain_decimal(text.trim()).ok_or(ApiError::ConfigNotPresent)?;
    plain.parse().or_else(|_| "0.999999".parse()).map_err(|_| ApiError::ConfigNotPresent)
}

fn impossible(verdict: Verdict) -> ApiError {
    match verdict.reason {
        Reason::NotSynced | Reason::ChainUnreachable => ApiError::BackendNotReady("not_synced"),
        Reason::BadMixdepth => ApiError::invalid("mixdepth"),
        reason => ApiError::CoinjoinImpossible { code: reason.code(), text: verdict.text },
    }
}
