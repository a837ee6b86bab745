//! Numbers that cannot be out of their bounds.

use serde::Deserialize;

/// A value that its field does not allow.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OutOfBounds(pub(super) &'static str);

/// An amount in satoshi, at most 21 million coins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "u64")]
pub struct Sats(u64);

impl Sats {
    /// All coins there can be.
    pub const MAX: Self = Self(21_000_000 * 100_000_000);

    /// The number of satoshi.
    #[must_use]
    pub const fn to_sat(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Sats {
    type Error = OutOfBounds;

    fn try_from(sat: u64) -> Result<Self, OutOfBounds> {
        if sat > Self::MAX.0 {
            return Err(OutOfBounds("more than 21 million coins"));
        }
        Ok(Self(sat))
    }
}

/// An amount in satoshi with a sign, at most 21 million coins either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct SignedSats(i64);

impl SignedSats {
    /// It is less than nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The amount without its sign.
    #[must_use]
    pub const fn abs(self) -> Sats {
        Sats(self.0.unsigned_abs())
    }
}

impl TryFrom<i64> for SignedSats {
    type Error = OutOfBounds;

    fn try_from(sat: i64) -> Result<Self, OutOfBounds> {
        Sats::try_from(sat.unsigned_abs()).map(|_| Self(sat))
    }
}

/// A time of at most a day, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Seconds(u32);

impl Seconds {
    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Seconds {
    type Error = OutOfBounds;

    fn try_from(seconds: u32) -> Result<Self, OutOfBounds> {
        if seconds > 86_400 { Err(OutOfBounds("more than a day")) } else { Ok(Self(seconds)) }
    }
}

/// 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u8")]
pub struct Percent(u8);

impl Percent {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = OutOfBounds;

    fn try_from(number: u8) -> Result<Self, OutOfBounds> {
        if number > 100 { Err(OutOfBounds("more than 100 percent")) } else { Ok(Self(number)) }
    }
}
