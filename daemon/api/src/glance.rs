//! The daemon at one moment, for a display that shows all of it: from memory, without waiting for anything.

use std::sync::Arc;
use std::time::Instant;

use joinery_wallet::bitcoin::{Amount, Txid};
use joinery_wallet::chain::ChainStatus;
use joinery_wallet::round::{Round, RoundRole};
use joinery_wallet::service::Effect;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::activity::Role;
use crate::app::AppState;
use crate::calls::warnings;
use crate::consent::PendingRequest;
use crate::hub::News;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What the box shows.
#[derive(Debug, Clone)]
pub struct Glance {
    /// File name of the open wallet.
    pub wallet: Option<String>,
    /// 0 taker, 1 maker, 2 idle.
    pub coinjoin_state: u8,
    /// Progress of the wallet's synchronisation, 0 to 100; `None` without a wallet and while it is unknown.
    pub sync: Option<u8>,
    /// The link to the chain.
    pub chain: ChainStatus,
    /// Best block.
    pub height: Option<u32>,
    /// All coins of the open wallet.
    pub balance: Option<Amount>,
    /// The transaction of the open wallet that was seen or confirmed last since it was opened.
    pub transaction: Option<TransactionGlance>,
    /// The codes of `warnings` in `/session`.
    pub warnings: Vec<&'static str>,
    /// The coinjoin that runs.
    pub taker: Option<TakerGlance>,
    /// The maker that runs.
    pub maker: Option<MakerGlance>,
    /// What waits for the person at the box.
    pub pending: Option<Arc<PendingRequest>>,
}

/// A transaction when it was seen or confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionGlance {
    /// Its id.
    pub txid: Txid,
    /// 0 in the mempool.
    pub confirmations: u32,
    /// What it does to the wallet.
    pub effect: Effect,
}

/// A coinjoin at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakerGlance {
    /// Stable word for the phase.
    pub phase: &'static str,
    /// Makers that were asked.
    pub asked: usize,
    /// Makers that have answered.
    pub answered: usize,
    /// When the phase ends at the latest.
    pub deadline: Option<Instant>,
}

/// A maker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MakerGlance {
    /// Offers that are announced.
    pub offers: usize,
    /// Earned since midnight (UTC), satoshi; less than nothing when miners got more than takers paid.
    pub earned_today: i64,
    /// Coinjoins since midnight (UTC).
    pub rounds_today: u32,
}

/// Number and yield of a maker's coinjoins that were seen since a time, seconds since epoch.
fn earned_since(rounds: &[Arc<Round>], start: u64) -> (u32, i64) {
    let ours = rounds.iter().filter(|round| {
        let seen = round.seen.is_some_and(|(_, time)| time >= start);
        round.begin.role == RoundRole::Maker && seen && !round.abandoned
    });
    ours.fold((0, 0), |(count, sum): (u32, i64), round| {
        (count.saturating_add(1), sum.saturating_sub(round.sums.cost))
    })
}

impl AppState {
    /// The daemon as it is now.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let wallet = self.wallet.load_full();
        let snapshot = wallet.as_ref().map(|wallet| wallet.snapshot());
        let chain = self.chain_status();
        let sync = snapshot.as_ref().and_then(|snapshot| match snapshot.sync.scanning {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 100
            Some(part) => Some((part.clamp(0.0, 1.0) * 100.0) as u8),
            None => snapshot.sync.complete.then_some(100),
        });
        let role = self.activity.current();
        let maker = self.board.maker().filter(|_| role == Some(Role::Maker));
        let maker = maker.map(|state| {
            let now = self.config.clock.wall();
            let rounds = wallet.as_ref().map(|wallet| wallet.handle.rounds()).unwrap_or_default();
            let (rounds_today, earned_today) = earned_since(&rounds, now - now % DAY);
            MakerGlance { offers: state.offers.len(), earned_today, rounds_today }
        });
        let height = snapshot.as_ref().and_then(|snapshot| snapshot.height());
        Glance {
            wallet: wallet.as_ref().map(|wallet| wallet.handle.name().to_owned()),
            coinjoin_state: self.activity.coinjoin_state(),
            sync,
            height: height.or_else(|| chain.tip.map(|tip| tip.height)),
            balance: snapshot.map(|snapshot| snapshot.coins.iter().map(|coin| coin.value).sum()),
            transaction: wallet.as_ref().and_then(|wallet| wallet.newest_transaction()),
            chain,
            warnings: warnings(self),
            taker: self.board.taker_glance().filter(|_| role == Some(Role::Taker)),
            maker,
            pending: self.consent.pending().borrow().clone(),
        }
    }

    /// Whether anybody has made or opened a wallet here.
    #[must_use]
    pub fn has_wallets(&self) -> bool {
        self.wallet.load().is_some() || !self.directory.list().is_empty()
    }

    /// Tells when there is something new to look at.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.hub.subscribe())
    }
}

/// See [`AppState::changes`].
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<News>);

impl Changes {
    /// Waits for the next change. Not every change of [`Glance`] is told: look from time to time, too.
    pub async fn next(&mut self) {
        if matches!(self.0.recv().await, Err(RecvError::Closed)) {
            std::future::pending::<()>().await;
        }
    }
}
