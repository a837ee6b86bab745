//! The bond that is announced: choice, certificate, proofs (`spec/roles.md` 4.8, `spec/protocol.md` 10.2).

use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Amount, OutPoint};
use joinery_proto::bond_proof::{BondProof, CERT_PERIOD, Certificate, cert_key};
use joinery_proto::fidelity_bond::{BondTerms, bond_value};
use joinery_proto::nick::Nick;

use super::config::MakerConfig;
use super::desk::{Bounded, Desk, Purpose};
use super::output::BondView;
use crate::ask::{AskError, CertifiedBond, Question, WalletView};

/// Blocks before the end of a certificate at which it is renewed.
const RENEW_BEFORE: u32 = 3;
/// Pause after a certificate was not to be had.
const RETRY: Duration = Duration::from_secs(60);
/// Most proofs that are kept, one for each taker.
const MAX_PROOFS: usize = 1_024;
/// Seconds between two blocks, on average.
const BLOCK_SECONDS: u32 = 600;

/// A bond that takers are shown.
#[derive(Debug)]
struct Active {
    bond: CertifiedBond,
    key: SecretKey,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

/// A certificate that was asked for.
#[derive(Debug)]
struct Wanted {
    outpoint: OutPoint,
    key: SecretKey,
    expiry: u16,
}

/// Keeps the best bond certified.
#[derive(Debug)]
pub(super) struct BondKeeper {
    active: Option<Active>,
    value: f64,
    wanted: Option<Wanted>,
    retry: Option<Duration>,
    proofs: Bounded<Nick, String>,
}

impl BondKeeper {
    pub(super) fn new() -> Self {
        let proofs = Bounded::new(MAX_PROOFS);
        Self { active: None, value: 0.0, wanted: None, retry: None, proofs }
    }

    /// Looks at the wallet: chooses, renews, drops.
    pub(super) fn update(&mut self, view: &WalletView, config: &MakerConfig, desk: &mut Desk) {
        self.retry = self.retry.filter(|retry| desk.now < *retry);
        let Some(height) = view.height else { return };
        let best = best(view, config);
        self.value = best.map_or(0.0, |(_, value)| value);
        // Spent, expired in value, or better than before: what was shown is shown no more.
        let best = best.map(|(outpoint, _)| outpoint);
        let keeps = self.active.as_ref().is_some_and(|active| {
            Some(active.bond.outpoint) == best && height <= valid_until(&active.bond)
        });
        if !keeps && self.active.take().is_some() {
            self.proofs.clear();
        }
        let Some(outpoint) = best else { return };
        let due = self
            .active
            .as_ref()
            .is_none_or(|active| height >= valid_until(&active.bond).saturating_sub(RENEW_BEFORE));
        let asked = self.wanted.as_ref().is_some_and(|wanted| wanted.outpoint == outpoint);
        if !due || asked || self.retry.is_some() {
            return;
        }
        let Some(expiry) = renewed_expiry(height) else { return };
        let (key, cert_key) = cert_key(desk.key());
        self.wanted = Some(Wanted { outpoint, key, expiry });
        desk.ask(Purpose::Bond, Question::CertifyBond { outpoint, cert_key, expiry });
    }

    /// The answer to [`Question::CertifyBond`].
    pub(super) fn certified(
        &mut self,
        answer: Result<Box<CertifiedBond>, AskError>,
        now: Duration,
    ) -> Result<(), AskError> {
        let Some(wanted) = self.wanted.take() else { return Ok(()) };
        match answer {
            Ok(bond)
                if bond.outpoint == wanted.outpoint
                    && bond.certificate.expiry() == wanted.expiry =>
            {
                self.active = Some(Active { bond: *bond, key: wanted.key });
                self.proofs.clear();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.retry = Some(now.saturating_add(RETRY));
                Err(error)
            }
        }
    }

    /// Whether a bond is shown, or will be as soon as it is certified: deposits beside it are not merged.
    pub(super) fn guards_deposits(&self) -> bool {
        self.active.is_some() || self.value > 0.0
    }

    /// The proof for one taker; made once for each.
    pub(super) fn proof(&mut self, taker: Nick, maker: &Nick) -> Option<&str> {
        let active = self.active.as_ref()?;
        if self.proofs.get(&taker).is_none() {
            let CertifiedBond { outpoint, locktime, coin_key, certificate } = &active.bond;
            let proof = BondProof::create(
                maker,
                &taker,
                certificate,
                &active.key,
                coin_key,
                outpoint,
                *locktime,
            );
            self.proofs.insert(taker, proof);
        }
        self.proofs.get(&taker).map(String::as_str)
    }

    pub(super) fn view(&self) -> Option<BondView> {
        self.active.as_ref().map(|active| BondView {
            outpoint: active.bond.outpoint,
            locktime: active.bond.locktime,
            value: self.value,
            certified_until: valid_until(&active.bond),
        })
    }

    /// When a certificate is asked for again.
    pub(super) const fn next_wake(&self) -> Option<Duration> {
        self.retry
    }
}

fn valid_until(bond: &CertifiedBond) -> u32 {
    u32::from(bond.certificate.expiry()).saturating_mul(CERT_PERIOD)
}

/// Period of a new certificate; within [`RENEW_BEFORE`] blocks of a boundary the next but one, so that it is
/// not renewed again at once.
fn renewed_expiry(height: u32) -> Option<u16> {
    let expiry = Certificate::expiry_at(height)?;
    let end = u32::from(expiry).saturating_mul(CERT_PERIOD);
    if height >= end.saturating_sub(RENEW_BEFORE) { expiry.checked_add(1) } else { Some(expiry) }
}

/// The confirmed bond with the highest value now, frozen or not.
fn best(view: &WalletView, config: &MakerConfig) -> Option<(OutPoint, f64)> {
    let (tip, now) = (view.height?, view.median_time?);
    let valued = view.coins.iter().filter_map(|coin| {
        let (locktime, height) = (coin.locktime?, coin.height?);
        // The wallet knows the block's height, not its time. Takers look it up; to choose the best of our
        // own this is near enough.
        let age = tip.saturating_sub(height).saturating_mul(BLOCK_SECONDS);
        let terms = BondTerms {
            amount: Amount::from_sat(coin.value),
            confirmation_time: now.saturating_sub(age).into(),
            locktime: locktime.into(),
        };
        let value = bond_value(&terms, now.into(), config.interest_rate, config.bond_exponent);
        (value > 0.0).then_some((coin.outpoint, value))
    });
    valued.max_by(|(one, a), (other, b)| a.total_cmp(b).then_with(|| other.cmp(one)))
}
