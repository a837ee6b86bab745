//! The home screen of each state, and the pages that a press leafs through.

use std::time::Duration;

use super::Ui;
use crate::Panel;
use crate::link::{Backend, CoinjoinState, Network, Status, Tor, Warning};
use crate::screen::{Access, Home, Notice, Progress, Screen};

/// Which page is asked for; a page that there is nothing for any more is the home screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Home,
    Warning(usize),
    Locked,
    Pairing,
    Fingerprint,
}

/// What the daemon says is wrong, in words of its own or by the state of server and Tor.
pub(super) fn warnings(status: &Status) -> Vec<Notice> {
    let mut warnings = status.warnings.clone();
    if status.backend == Some(Backend::Down) && !warnings.contains(&Warning::NoServer) {
        warnings.push(Warning::NoServer);
    }
    if status.tor == Some(Tor::Down) && !warnings.contains(&Warning::Tor) {
        warnings.push(Warning::Tor);
    }
    warnings.into_iter().map(Notice::Daemon).collect()
}

fn access(status: &Status) -> Access {
    Access {
        hostname: status.hostname.clone(),
        url: status.url.clone(),
        pairing: status.pairing.clone(),
        fingerprint: status.fingerprint.clone(),
    }
}

fn network(status: &Status) -> Option<Network> {
    status.network.filter(|network| *network != Network::Mainnet)
}

impl Ui {
    fn pages(&self, status: &Status, now: Duration) -> Vec<Page> {
        let mut pages = vec![Page::Home];
        pages.extend((0..self.notices(now).len()).map(Page::Warning));
        if status.url.is_some() || status.pairing.is_some() {
            // The small panel's home screen has the QR code already while it is locked; so has any when nobody has
            // paired yet, and then the locked screen is a page.
            let unpaired = status.locked && !status.paired;
            match self.panel {
                Some(Panel::Large) if unpaired => pages.push(Page::Locked),
                Some(Panel::Small) if status.locked => {}
                _ => pages.push(Page::Pairing),
            }
        }
        if status.fingerprint.is_some() {
            pages.push(Page::Fingerprint);
        }
        pages
    }

    pub(super) fn next_page(&mut self, now: Duration) {
        let Some(status) = self.status_now(now).filter(|status| status.starting.is_none()) else {
            return;
        };
        let pages = self.pages(status, now);
        let next = pages.iter().position(|page| *page == self.page).map_or(0, |at| at + 1);
        self.page = pages.get(next).copied().unwrap_or(Page::Home);
        self.page_since = now;
    }

    /// What is to be seen when nothing waits.
    pub(super) fn home(&self, status: &Status, now: Duration) -> Screen {
        if let Some(step) = &status.starting {
            return Screen::Starting { step: step.clone(), version: status.version.clone() };
        }
        if let (Some((_, until)), Some(seen)) = (&self.transaction, &status.transaction)
            && *until > now
        {
            return Screen::Transaction {
                direction: seen.direction,
                confirmations: seen.confirmations,
                amount: seen.amount_sat,
            };
        }
        let locked = || Screen::Locked {
            wallet: status.wallet.clone(),
            access: access(status),
            network: network(status),
        };
        let pairing = || Screen::Pairing { access: access(status), locked: status.locked };
        match self.page {
            Page::Warning(index) => {
                let notices = self.notices(now);
                let count = notices.len();
                if let Some(notice) = notices.into_iter().nth(index) {
                    return Screen::Warning { notice, index, count };
                }
            }
            Page::Locked if status.locked => return locked(),
            Page::Pairing if status.url.is_some() || status.pairing.is_some() => return pairing(),
            Page::Fingerprint => {
                if let Some(fingerprint) = &status.fingerprint {
                    return Screen::Fingerprint { fingerprint: fingerprint.clone() };
                }
            }
            Page::Home | Page::Locked | Page::Pairing => {}
        }
        if status.locked {
            let unpaired = !status.paired && (status.url.is_some() || status.pairing.is_some());
            let small = self.panel == Some(Panel::Small) && status.url.is_some();
            return if unpaired || small { pairing() } else { locked() };
        }
        let home = Home {
            wallet: status.wallet.clone(),
            network: network(status),
            height: status.height,
            syncing: status.sync.filter(|percent| percent.get() < 100),
            server: status.backend.and_then(|backend| match backend {
                Backend::Ok => Some(true),
                Backend::Down => Some(false),
                Backend::None => None,
            }),
            tor: status.tor,
            directories: status.directories,
            balance: status.balance_sat,
        };
        match status.coinjoin_state {
            CoinjoinState::Idle => Screen::Idle { home },
            CoinjoinState::Maker => Screen::Maker { home, maker: status.maker },
            CoinjoinState::Taker => {
                let round = status.round.map(|round| Progress {
                    asked: round.asked,
                    answered: round.answered,
                    left_s: self.left(round.deadline_s.get(), now),
                    of_s: round.of_s.get(),
                });
                Screen::Taker { home, phase: status.phase.clone(), round }
            }
        }
    }

    /// Seconds that are left of what was left when the snapshot came.
    fn left(&self, seconds: u32, now: Duration) -> u32 {
        let since = self.status.as_ref().map_or(Duration::ZERO, |(_, at)| now.saturating_sub(*at));
        seconds.saturating_sub(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }
}
