//! What the service manager is told. Without one (`NOTIFY_SOCKET` unset) all of this does nothing.

use std::io;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The listeners are open.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon is ending in an orderly way.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice per watchdog period that the runtime still runs tasks; ends when `stop` is cancelled.
///
/// # Errors
/// None; the type is that of a supervised task.
pub(crate) async fn watchdog(stop: CancellationToken) -> io::Result<()> {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        stop.cancelled().await;
        return Ok(());
    };
    let mut ticks = tokio::time::interval(period / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
