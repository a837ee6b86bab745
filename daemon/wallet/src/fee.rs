//! Miner fees: the rate and the size of a transaction before it exists (`spec/wallet.md` 8.1 and 8.2,
//! vector `wallet_fee_estimation.json`).

use bdk_wallet::bitcoin::{Amount, Script, VarInt, Weight};
use rand::{Rng, RngCore};

use crate::path::ScriptPlace;
use crate::policy::TxFees;
use crate::service::SendError;
use crate::snapshot::Coin;
use crate::types::WalletType;

/// Rate when the server gives no estimate, and lowest rate when it does not tell its own: satoshi per
/// 1000 vbytes. High enough to confirm in most times, as in the reference.
pub const FALLBACK_RATE: u64 = 20_000;

/// Lowest rate that any released node relays by default, satoshi per 1000 vbytes. A server that claims a
/// lower floor cannot make us build transactions that nobody passes on.
pub const LOWEST_RELAY_RATE: u64 = 100;

/// First timenumber (February 2038) whose lock time needs five bytes in a script.
const FIVE_BYTE_LOCKTIME: u16 = 217;

/// The confirmation target to ask the server about; `None` when the rate is given and nothing is to be
/// asked. No node estimates for the very next block: a target of 1 becomes 2.
#[must_use]
pub fn estimate_target(fees: TxFees) -> Option<u16> {
    match fees {
        TxFees::Blocks(blocks) => Some(blocks.max(2)),
        TxFees::SatPerKvb(_) => None,
    }
}

/// Draws the fee rate of one transaction, satoshi per 1000 vbytes (`spec/wallet.md` 8.1).
///
/// Called once per transaction, so that selection and final fee use the same rate (decision R-20).
/// `estimate` is the server's answer for [`estimate_target`], `floor` its lowest accepted rate; `None`
/// where it has none. `factor` is `tx_fees_factor`, `absurd` is `absurd_fee_per_kb`.
///
/// # Errors
/// [`SendError::AbsurdFee`] when the result is above `absurd`.
pub fn fee_rate(
    fees: TxFees,
    estimate: Option<u64>,
    floor: Option<u64>,
    factor: f64,
    absurd: u64,
    rng: &mut dyn RngCore,
) -> Result<u64, SendError> {
    let factor = if factor.is_finite() { factor.abs() } else { 0.0 };
    let floor = floor.unwrap_or(FALLBACK_RATE).max(LOWEST_RELAY_RATE);
    let drawn_floor = upward(floor, factor, rng);
    let base = match fees {
        TxFees::SatPerKvb(rate) => rate,
        // Without an estimate the reference does not look at the floor. We do: a transaction below it
        // would be refused.
        TxFees::Blocks(_) => estimate.unwrap_or(FALLBACK_RATE),
    };
    let drawn = upward(base, factor, rng);
    let rate = if drawn < floor { drawn_floor } else { drawn };
    if rate > absurd {
        return Err(SendError::AbsurdFee { rate, limit: absurd });
    }
    Ok(rate)
}

/// A uniform draw from `base..base * (1 + factor)`, rounded down. `base` itself when the range is empty.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates that matter are below 2^53; float to integer casts saturate and the value is not negative"
)]
fn upward(base: u64, factor: f64, rng: &mut dyn RngCore) -> u64 {
    let spread = base as f64 * factor * rng.random::<f64>();
    base.saturating_add(spread as u64)
}

/// How a coin is spent, as far as its size matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// Native segwit, one key.
    P2wpkh,
    /// Nested segwit, one key.
    P2shP2wpkh,
    /// Timelocked script of this month.
    Bond {
        /// Months since January 2020.
        timenumber: u16,
    },
    /// Legacy; never ours, only estimated.
    P2pkh,
}

impl InputKind {
    /// The kind of an ordinary coin of a wallet.
    #[must_use]
    pub const fn of_wallet(wallet_type: WalletType) -> Self {
        match wallet_type {
            WalletType::NestedSegwit => Self::P2shP2wpkh,
            WalletType::NativeSegwit | WalletType::FidelityBond => Self::P2wpkh,
        }
    }

    /// The kind of a coin.
    #[must_use]
    pub fn of_coin(coin: &Coin) -> Self {
        match coin.place {
            ScriptPlace::Bond { timenumber } => Self::Bond { timenumber },
            _ if coin.script.is_p2sh() => Self::P2shP2wpkh,
            _ => Self::P2wpkh,
        }
    }

    /// Bytes outside the witness: outpoint, sequence and scriptSig.
    #[must_use]
    pub const fn base_size(self) -> u64 {
        match self {
            Self::P2wpkh | Self::Bond { .. } => 41,
            Self::P2shP2wpkh => 64,
            Self::P2pkh => 148,
        }
    }

    /// Witness bytes, with a signature of 72 bytes (the longest there is with a low S).
    ///
    /// Bonds are counted exactly: item count, signature and script of 42 or 43 bytes, each with its length
    /// byte (decision R-21; the references count 116 and 118).
    #[must_use]
    pub const fn witness_size(self) -> u64 {
        match self {
            Self::P2wpkh | Self::P2shP2wpkh => 108,
            Self::Bond { timenumber } if timenumber < FIVE_BYTE_LOCKTIME => 117,
            Self::Bond { .. } => 118,
            Self::P2pkh => 0,
        }
    }
}

/// Bytes of an output that pays `script`. Exact for every script, so that unusual but valid destinations
/// do not end below the wanted rate.
#[must_use]
pub fn output_size(script: &Script) -> u64 {
    let length = script.len() as u64;
    8 + VarInt(length).size() as u64 + length
}

/// Bytes of a change output of a wallet.
#[must_use]
pub const fn change_size(wallet_type: WalletType) -> u64 {
    match wallet_type {
        WalletType::NestedSegwit => 32,
        WalletType::NativeSegwit | WalletType::FidelityBond => 31,
    }
}

/// Size of a transaction that does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxSize {
    inputs: u64,
    outputs: u64,
    base: u64,
    witness: u64,
}

impl TxSize {
    /// No inputs, no outputs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input.
    #[must_use]
    pub const fn input(mut self, kind: InputKind) -> Self {
        self.inputs += 1;
        self.base += kind.base_size();
        self.witness += kind.witness_size();
        self
    }

    /// Adds `count` inputs of a kind.
    #[must_use]
    pub const fn inputs_of(mut self, kind: InputKind, count: u64) -> Self {
        self.inputs += count;
        self.base += kind.base_size() * count;
        self.witness += kind.witness_size() * count;
        self
    }

    /// Adds an output of so many bytes ([`output_size`], [`change_size`]).
    #[must_use]
    pub const fn output(mut self, size: u64) -> Self {
        self.outputs += 1;
        self.base += size;
        self
    }

    /// Bytes outside the witness, with version, lock time and both counts (one byte each up to 252).
    #[must_use]
    pub const fn base_size(&self) -> u64 {
        8 + VarInt(self.inputs).size() as u64 + VarInt(self.outputs).size() as u64 + self.base
    }

    /// Witness bytes, with marker and flag when there is any.
    #[must_use]
    pub const fn witness_size(&self) -> u64 {
        if self.witness == 0 { 0 } else { 2 + self.witness }
    }

    /// Weight units. No transaction with these parts weighs more.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        Weight::from_wu(self.base_size() * 4 + self.witness_size())
    }

    /// Virtual bytes, rounded up.
    #[must_use]
    pub const fn vsize(&self) -> u64 {
        self.weight().to_vbytes_ceil()
    }

    /// The fee at a rate in satoshi per 1000 vbytes, rounded up (decision R-22: rounding down gives
    /// 0.999 sat/vB at the relay limit).
    #[must_use]
    pub fn fee(&self, sat_per_kvb: u64) -> Amount {
        let fee = (u128::from(self.vsize()) * u128::from(sat_per_kvb)).div_ceil(1000);
        Amount::from_sat(u64::try_from(fee).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const ABSURD: u64 = 350_000;

    fn draw(fees: TxFees, estimate: Option<u64>, floor: Option<u64>, seed: u64) -> u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        fee_rate(fees, estimate, floor, 0.2, ABSURD, &mut rng).expect("not absurd")
    }

    #[test]
    fn rates_are_spread_upwards_by_at_most_the_factor() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..2000 {
            let rate = draw(TxFees::SatPerKvb(10_000), None, Some(1000), seed);
            assert!((10_000..=12_000).contains(&rate), "{rate}");
            seen.insert(rate / 200);
            let rate = draw(TxFees::Blocks(3), Some(5000), Some(1000), seed);
            assert!((5000..=6000).contains(&rate), "{rate}");
        }
        assert!(seen.len() >= 10, "the draw covers its range");
        // The sign of the factor is ignored, as in the reference; nonsense does not spread.
        let mut rng = StdRng::seed_from_u64(1);
        for factor in [-0.2, f64::NAN, f64::INFINITY, 0.0] {
            let rate =
                fee_rate(TxFees::SatPerKvb(10_000), None, Some(1000), factor, ABSURD, &mut rng);
            assert!((10_000..=12_000).contains(&rate.expect("not absurd")));
        }
    }

    #[test]
    fn fee_floor_and_cap() {
        for seed in 0..200 {
            // Below the floor: the floor with a draw of its own.
            for (fees, estimate) in [
                (TxFees::SatPerKvb(1001), None),
                (TxFees::Blocks(6), Some(1001)),
                (TxFees::Blocks(6), Some(0)),
            ] {
                let rate = draw(fees, estimate, Some(30_000), seed);
                assert!((30_000..=36_000).contains(&rate), "{rate}");
            }
            // No estimate: never a silent 1 sat/vB.
            let rate = draw(TxFees::Blocks(3), None, Some(1000), seed);
            assert!((20_000..=24_000).contains(&rate), "{rate}");
            // Neither: the floor is the fallback, too.
            let rate = draw(TxFees::SatPerKvb(1001), None, None, seed);
            assert!((20_000..=24_000).contains(&rate), "{rate}");
            // A server that claims to relay for nothing.
            assert!(draw(TxFees::Blocks(3), Some(0), Some(0), seed) >= LOWEST_RELAY_RATE);
        }
        let mut rng = StdRng::seed_from_u64(1);
        for (fees, estimate, floor) in [
            (TxFees::SatPerKvb(ABSURD + 1), None, Some(1000)),
            (TxFees::SatPerKvb(u64::MAX), None, Some(1000)),
            (TxFees::Blocks(3), Some(u64::MAX), Some(1000)),
            (TxFees::Blocks(3), Some(1000), Some(u64::MAX)),
        ] {
            let error = fee_rate(fees, estimate, floor, 1.0, ABSURD, &mut rng);
            assert!(matches!(error, Err(SendError::AbsurdFee { limit: ABSURD, .. })), "{error:?}");
        }
        // Exactly at the limit is not above it.
        let rate = fee_rate(TxFees::SatPerKvb(ABSURD), None, None, 0.0, ABSURD, &mut rng);
        assert_eq!(rate.expect("at the limit"), ABSURD);
    }

    #[test]
    fn asks_for_estimates_only_when_blocks_are_wanted() {
        assert_eq!(estimate_target(TxFees::Blocks(1)), Some(2));
        assert_eq!(estimate_target(TxFees::Blocks(1000)), Some(1000));
        assert_eq!(estimate_target(TxFees::SatPerKvb(1001)), None);
    }

    #[test]
    fn counts_of_more_than_252_take_more_bytes() {
        let size = |inputs| TxSize::new().inputs_of(InputKind::P2wpkh, inputs).output(31);
        assert_eq!(size(252).base_size(), 10 + 252 * 41 + 31);
        assert_eq!(size(253).base_size(), 12 + 253 * 41 + 31);
    }

    #[test]
    fn bonds_of_2038_and_later_have_a_longer_script() {
        assert_eq!(InputKind::Bond { timenumber: 216 }.witness_size(), 117);
        assert_eq!(InputKind::Bond { timenumber: 217 }.witness_size(), 118);
    }

    #[test]
    fn no_size_or_rate_overflows() {
        let size = TxSize::new().inputs_of(InputKind::P2shP2wpkh, 1_000_000_000).output(1 << 40);
        assert_eq!(size.fee(u64::MAX), Amount::MAX);
    }
}
