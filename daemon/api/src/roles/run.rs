//! What a role is started with, and where it reports.

use std::sync::Arc;
use std::time::Duration;

use joinery_roles::maker::{CoinRules, MakerEnd, MakerState, MakerTerms};
use joinery_roles::taker::{Outcome, Progress, TakerPolicy, TakerRequest};
use joinery_wallet::policy::TxFees;
use joinery_wallet::service::WalletHandle;
use tokio_util::sync::CancellationToken;

use super::RoleBoard;
use crate::activity::RoleGuard;
use crate::settings::RoleSettings;

/// Runs the roles: given by the daemon, which knows channels, order book and chain. Neither call waits.
pub trait RoleRunner: Send + Sync + std::fmt::Debug {
    /// Runs one coinjoin in a task of its own.
    fn taker(&self, run: TakerRun);
    /// Runs a maker in a task of its own.
    fn maker(&self, run: MakerRun);
}

/// A coinjoin that was asked for and can work as far as is known.
#[derive(Debug)]
pub struct TakerRun {
    /// The wallet.
    pub wallet: WalletHandle,
    /// What is wanted.
    pub request: TakerRequest,
    /// Settings at this moment.
    pub policy: TakerPolicy,
    /// Fee rule of this request only.
    pub fees: Option<TxFees>,
    /// Where it reports. When it goes away, the role is over for everybody.
    pub desk: TakerDesk,
}

/// A maker that was asked for and has something to offer.
#[derive(Debug)]
pub struct MakerRun {
    /// The wallet.
    pub wallet: WalletHandle,
    /// What is offered.
    pub terms: MakerTerms,
    /// How coins are chosen.
    pub rules: CoinRules,
    /// Settings at this moment.
    pub settings: RoleSettings,
    /// Where it reports. When it goes away, the role is over for everybody.
    pub desk: MakerDesk,
}

/// Where a taker reports.
#[derive(Debug)]
pub struct TakerDesk {
    pub(super) guard: RoleGuard,
    pub(super) board: Arc<RoleBoard>,
    pub(super) generation: u64,
}

impl TakerDesk {
    /// Cancelled when somebody stops the taker.
    #[must_use]
    pub const fn stopped(&self) -> &CancellationToken {
        self.guard.stopped()
    }

    /// The request as it is now; `now` is the clock that its deadlines are on.
    pub fn progress(&self, progress: Progress, now: Duration) {
        self.board.taker_progress(self.generation, progress, now);
    }

    /// How it ended. The state of the daemon returns to idle.
    pub fn finished(self, outcome: Outcome) {
        self.board.taker_finished(self.generation, Some(outcome));
    }
}

impl Drop for TakerDesk {
    fn drop(&mut self) {
        // Of a taker that panicked nothing but this is known.
        self.board.taker_finished(self.generation, None);
    }
}

/// Where a maker reports.
#[derive(Debug)]
pub struct MakerDesk {
    pub(super) guard: RoleGuard,
    pub(super) board: Arc<RoleBoard>,
    pub(super) generation: u64,
}

impl MakerDesk {
    /// Cancelled when somebody stops the maker.
    #[must_use]
    pub const fn stopped(&self) -> &CancellationToken {
        self.guard.stopped()
    }

    /// The maker as it is now.
    pub fn state(&self, state: Arc<MakerState>) {
        self.board.maker_state(self.generation, state);
    }

    /// Where trouble with our onion service is reported, also while the maker is busy.
    #[must_use]
    pub fn reach(&self) -> MakerReach {
        MakerReach { board: Arc::clone(&self.board), generation: self.generation }
    }

    /// How it ended. The state of the daemon returns to idle.
    pub fn finished(self, end: &MakerEnd) {
        self.board.maker_finished(self.generation, Some(end));
    }

    /// It could not be started: why, as a stable word and a sentence.
    pub fn failed(self, code: &'static str, text: &str) {
        self.board.maker_failed(self.generation, code, text);
    }
}

/// Whether takers can reach a maker at all.
#[derive(Debug, Clone)]
pub struct MakerReach {
    board: Arc<RoleBoard>,
    generation: u64,
}

impl MakerReach {
    /// Why takers cannot reach us, for people; `None` when they can.
    pub fn trouble(&self, text: Option<&str>) {
        self.board.maker_trouble(self.generation, text);
    }
}

impl Drop for MakerDesk {
    fn drop(&mut self) {
        self.board.maker_finished(self.generation, None);
    }
}
