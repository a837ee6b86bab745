//! A coinjoin that waits for the press as its first phase (`spec/api.md` 6.18).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use joinery_roles::ask::WalletView;
use joinery_roles::taker::{Destination, Outcome, Progress, Reason, Verdict};
use joinery_wallet::bitcoin::Address;
use joinery_wallet::service::WalletHandle;
use joinery_wallet::types::{Branch, Mixdepth};
use tracing::Instrument;

use super::quote::quote_coinjoin;
use super::{Asked, Payment, Refusal};
use crate::app::{AppState, LoadedWallet};
use crate::error::ApiError;
use crate::roles::{RoleRunner, TakerRun};

/// An address of the next mixdepth that was shown at the box and to nobody else: the next request gets it, so that
/// requests that are not approved use up no addresses.
#[derive(Debug, Default)]
pub(crate) struct KeptAddress(Mutex<Option<(u64, Mixdepth, Address)>>);

impl KeptAddress {
    fn keep(&self, loading: u64, mixdepth: Mixdepth, address: Address) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((loading, mixdepth, address));
    }

    /// Takes it if it is of this loading of this wallet and of this mixdepth.
    fn take(&self, loading: u64, mixdepth: Mixdepth) -> Option<Address> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &mut (u64, Mixdepth, Address)| (kept.0, kept.1) == (loading, mixdepth);
        kept.take_if(fits).map(|(_, _, address)| address)
    }
}

/// Shows the coinjoin at the box, waits for the press, and hands it to the taker; in a task of its own. The phase is
/// told before this returns.
pub(crate) fn approve_then_run(
    app: &Arc<AppState>,
    roles: &Arc<dyn RoleRunner>,
    wallet: Arc<LoadedWallet>,
    run: TakerRun,
    from: Option<IpAddr>,
) {
    run.desk.progress(Progress::approving(app.consent.patience()), Duration::ZERO);
    let work = wait_then_run(Arc::clone(app), Arc::clone(roles), wallet, run, from);
    app.tasks.spawn(work.in_current_span());
}

async fn wait_then_run(
    app: Arc<AppState>,
    roles: Arc<dyn RoleRunner>,
    wallet: Arc<LoadedWallet>,
    mut run: TakerRun,
    from: Option<IpAddr>,
) {
    let stopped = run.desk.stopped().clone();
    let approved = tokio::select! {
        biased;
        () = stopped.cancelled() => {
            Err(Verdict::new(Reason::Stopped, "stopped before it was approved at the box"))
        }
        approved = approve(&app, &wallet, &mut run, from) => approved,
    };
    match approved {
        Ok(()) => roles.taker(run),
        Err(verdict) => {
            tracing::info!(reason = verdict.reason.code(), "coinjoin not begun");
            run.desk.finished(Outcome::before_start(verdict));
        }
    }
}

async fn approve(
    app: &AppState,
    wallet: &LoadedWallet,
    run: &mut TakerRun,
    from: Option<IpAddr>,
) -> Result<(), Verdict> {
    let snapshot = wallet.snapshot();
    let view = WalletView::from(&*snapshot);
    let quote = quote_coinjoin(app, &view.coins, &run.request, &run.policy, run.fees)
        .await
        .map_err(|error| unknown_fee(&error))?;
    let mixdepth = run.request.mixdepth;
    let next = Mixdepth(if mixdepth.0 >= view.max_mixdepth { 0 } else { mixdepth.0 + 1 });
    let internal = run.request.destination == Destination::Internal;
    let destination = match &run.request.destination {
        Destination::Address(address) => address.clone(),
        Destination::Internal => {
            let kept = app.kept_address.take(wallet.loading, next);
            let address = match kept {
                Some(address) => address,
                None => issue(&wallet.handle, next).await?,
            };
            app.kept_address.keep(wallet.loading, next, address.clone());
            address
        }
    };
    let payment = Payment {
        wallet: wallet.handle.name().to_owned(),
        mixdepth,
        amount: quote.amount,
        sweep: run.request.is_sweep(),
        own: internal || snapshot.owns(&destination),
        destination: destination.clone(),
        fee_max: quote.fee_max,
        makers: Some(run.request.counterparties),
    };
    let approval = app.consent.ask(Asked::Send(Box::new(payment)), from).await.map_err(refused)?;
    app.consent.still_good(&approval).map_err(refused)?;
    // From here on it is bound to what was shown.
    if internal {
        // Makers will see it.
        app.kept_address.take(wallet.loading, next);
    }
    run.request.destination = Destination::Address(destination);
    run.request.inputs = run.request.inputs.take().or(quote.inputs);
    run.policy.max_cost = Some(quote.fee_max.to_sat());
    run.policy.destination_once = internal;
    run.fees = Some(quote.fees);
    Ok(())
}

async fn issue(wallet: &WalletHandle, mixdepth: Mixdepth) -> Result<Address, Verdict> {
    let issued = wallet.issue_address(mixdepth, Branch::Internal).await;
    issued.map_err(|error| Verdict::new(Reason::Storage, error.to_string()))
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::new(Reason::NotApproved, refusal.to_string())
}

fn unknown_fee(error: &ApiError) -> Verdict {
    match error {
        ApiError::BackendNotReady(_) => {
            Verdict::new(Reason::ChainUnreachable, "the server tells no fee rate")
        }
        error => Verdict::new(Reason::AbsurdFee, error.to_string()),
    }
}
