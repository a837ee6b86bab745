//! What a payment would cost at most, known before the wallet is asked to make it.

use std::time::Duration;

use joinery_roles::ask::WalletCoin;
use joinery_roles::taker::{TakerPolicy, TakerRequest};
use joinery_wallet::bitcoin::{Amount, OutPoint};
use joinery_wallet::chain::ChainError;
use joinery_wallet::fee::{InputKind, TxSize, estimate_target, fee_rate};
use joinery_wallet::policy::TxFees;
use joinery_wallet::select::select;
use joinery_wallet::service::SendRequest;
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::spend::{Plan, SpendContext, plan};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::app::AppState;
use crate::error::ApiError;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Bytes of the outputs of a coinjoin.
const OUTPUT_P2WPKH: u64 = 31;
const OUTPUT_P2TR: u64 = 43;

/// Fee rates of a payment, satoshi per 1000 vbytes: without the random part, and with all of it. The real one will be
/// in between.
///
/// # Errors
/// 503 when the server does not answer, 409 when the rate is absurd.
pub(crate) async fn rates(app: &AppState, fees: TxFees) -> Result<(u64, u64), ApiError> {
    let policy = app.settings.policy().load_full();
    let ask = async {
        let estimate = match estimate_target(fees) {
            Some(target) => app.chain.estimate_fee(target).await?.sat_per_kvb,
            None => None,
        };
        Ok::<_, ChainError>((estimate, app.chain.mempool_min_fee().await?))
    };
    let (estimate, floor) = tokio::time::timeout(PATIENCE, ask)
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or(ApiError::BackendNotReady("electrum"))?;
    let mut rng = StdRng::seed_from_u64(0);
    let rate = fee_rate(fees, estimate, Some(floor), 0.0, policy.absurd_fee_per_kvb, &mut rng)?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // rates are below 2^53 and the factor is between 0 and 1
    let highest = (rate as f64 * (1.0 + policy.tx_fees_factor)) as u64;
    Ok((rate, highest.saturating_add(1).min(policy.absurd_fee_per_kvb)))
}

/// Inputs that each maker is reckoned with.
const MAKER_INPUTS: u64 = 4;
/// Inputs of ours beyond those that would do.
const SPARE_INPUTS: usize = 2;

/// A coinjoin as it is shown to who approves it.
#[derive(Debug)]
pub(crate) struct CoinjoinQuote {
    /// What is mixed; of a sweep the sum of its coins.
    pub(crate) amount: Amount,
    /// What makers and miners get at most.
    pub(crate) fee_max: Amount,
    /// The fee rule that fits it.
    pub(crate) fees: TxFees,
    /// The coins of a sweep.
    pub(crate) inputs: Option<Vec<OutPoint>>,
}

/// What a coinjoin may cost: all makers at the limits of the settings, and the miner fee of a transaction with a few
/// coins of each of them. A maker that brings more coins than that is too dear.
///
/// # Errors
/// 503 when the server does not answer, 409 when the rate is absurd.
pub(crate) async fn quote_coinjoin(
    app: &AppState,
    coins: &[WalletCoin],
    request: &TakerRequest,
    policy: &TakerPolicy,
    fees: Option<TxFees>,
) -> Result<CoinjoinQuote, ApiError> {
    let fees = fees.unwrap_or(app.settings.policy().load().tx_fees);
    let (low, high) = rates(app, fees).await?;
    let named = |coin: &&WalletCoin| {
        request.inputs.as_ref().is_none_or(|list| list.contains(&coin.outpoint))
    };
    let usable = |coin: &&WalletCoin| {
        coin.free && coin.confirmations > 0 && coin.mixdepth == request.mixdepth
    };
    let usable: Vec<&WalletCoin> = coins.iter().filter(usable).filter(named).collect();
    let all: Amount = usable.iter().map(|coin| Amount::from_sat(coin.value)).sum();
    let amount = if request.is_sweep() { all } else { Amount::from_sat(request.amount) };
    let makers = u64::from(request.counterparties);
    let limits = &policy.fee_limits;
    let dearest = limits.absolute.max(limits.relative.of(amount.to_sat()));
    let for_makers = dearest.saturating_mul(makers);
    let miner = |own: usize| {
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        let inputs = own.saturating_add(makers.saturating_mul(MAKER_INPUTS));
        let outputs = makers.saturating_add(1).saturating_mul(2);
        // The largest script that an address has.
        let size = TxSize::new().inputs_of(InputKind::P2wpkh, inputs).output(OUTPUT_P2TR);
        (1..outputs).fold(size, |size, _| size.output(OUTPUT_P2WPKH)).fee(high).to_sat()
    };
    let own = if request.is_sweep() || request.inputs.is_some() {
        usable.len()
    } else {
        let values: Vec<Amount> = usable.iter().map(|coin| Amount::from_sat(coin.value)).collect();
        let costs = for_makers.saturating_add(miner(usable.len()));
        let target = Amount::from_sat(amount.to_sat().saturating_add(costs));
        // The makers are cheaper than that: when it cannot be had, all coins will do.
        let enough = select(policy.merge, &values, target).map_or(usable.len(), |set| set.len());
        enough.saturating_add(SPARE_INPUTS).min(usable.len())
    };
    Ok(CoinjoinQuote {
        amount,
        fee_max: Amount::from_sat(for_makers.saturating_add(miner(own))),
        fees: TxFees::SatPerKvb(low),
        inputs: request.is_sweep().then(|| usable.iter().map(|coin| coin.outpoint).collect()),
    })
}

/// A payment as it is shown to who approves it, and as the wallet is then bound to make it.
#[derive(Debug)]
pub(crate) struct Quote {
    /// What is paid; of a sweep the sum of its coins.
    pub(crate) amount: Amount,
    /// Miner fee at most.
    pub(crate) fee_max: Amount,
    /// The fee rule that keeps it there.
    pub(crate) fees: TxFees,
    /// The coins of a sweep: what arrives later is not swept.
    pub(crate) inputs: Option<Vec<OutPoint>>,
}

impl Quote {
    /// The request with everything that was shown bound to it.
    pub(crate) fn bind(self, mut request: SendRequest) -> SendRequest {
        request.max_fee = Some(self.fee_max);
        request.fees = Some(self.fees);
        request.inputs = request.inputs.or(self.inputs);
        request
    }
}

/// Plans a payment with the coins that there are now, without holding any of them.
///
/// # Errors
/// As the payment itself, as far as they are foreseeable.
pub(crate) async fn quote(
    app: &AppState,
    snapshot: &Snapshot,
    request: &SendRequest,
) -> Result<Quote, ApiError> {
    let tip = snapshot.tip.ok_or(ApiError::BackendNotReady("electrum"))?;
    let policy = app.settings.policy().load_full();
    let (low, high) = rates(app, request.fees.unwrap_or(policy.tx_fees)).await?;
    let script = request.destination.script_pubkey();
    let at = |rate| -> Result<Plan, ApiError> {
        let mut context = SpendContext {
            coins: &snapshot.coins,
            mixdepth: request.mixdepth,
            tip_height: tip.height,
            median_time: tip.median_time,
            rate_sat_per_kvb: rate,
            merge: policy.merge_algorithm,
            wallet_type: snapshot.wallet_type,
            rng: &mut StdRng::seed_from_u64(0),
        };
        Ok(plan(&mut context, request.amount, &script, request.inputs.as_deref())?)
    };
    // A lower rate may choose other coins, and change that is too small goes to the miner: not always less.
    let (cheap, dear) = (at(low)?, at(high)?);
    let coins = || dear.inputs().iter();
    let sum = coins().map(|coin| coin.value).sum();
    Ok(Quote {
        amount: request.amount.unwrap_or(sum),
        fee_max: cheap.fee().max(dear.fee()),
        fees: TxFees::SatPerKvb(low),
        inputs: request.amount.is_none().then(|| coins().map(|coin| coin.outpoint).collect()),
    })
}
