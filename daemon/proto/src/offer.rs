//! Offers: a maker's standing terms (`spec/protocol.md` 6.4, 6.5; vectors `offers.json`,
//! `maker_offers.json`).

use std::fmt;
use std::str::FromStr;

use crate::cjfee::{CjFee, CjFeeError};
use crate::utxo::canonical_u64;

/// Lower bound of `minsize` and of a maker's change, satoshi.
pub const DUST_THRESHOLD: u64 = 27_300;
/// At or below this a taker gives its own change to the miners, satoshi.
pub const BITCOIN_DUST_THRESHOLD: u64 = 2_730;
/// More satoshi than will ever exist are not offered.
pub const MAX_MONEY: u64 = 2_100_000_000_000_000;
/// Largest offer id.
pub const MAX_OFFER_ID: u64 = i64::MAX as u64;

/// The six kinds of offers. Only the `sw0` kinds are for native segwit wallets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderType {
    /// `sw0reloffer`: native segwit, relative fee.
    Sw0Relative,
    /// `sw0absoffer`: native segwit, absolute fee.
    Sw0Absolute,
    /// `swreloffer`: nested segwit, relative fee.
    SwRelative,
    /// `swabsoffer`: nested segwit, absolute fee.
    SwAbsolute,
    /// `reloffer`: legacy, relative fee.
    Relative,
    /// `absoffer`: legacy, absolute fee.
    Absolute,
}

impl OrderType {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sw0Relative => "sw0reloffer",
            Self::Sw0Absolute => "sw0absoffer",
            Self::SwRelative => "swreloffer",
            Self::SwAbsolute => "swabsoffer",
            Self::Relative => "reloffer",
            Self::Absolute => "absoffer",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "sw0reloffer" => Self::Sw0Relative,
            "sw0absoffer" => Self::Sw0Absolute,
            "swreloffer" => Self::SwRelative,
            "swabsoffer" => Self::SwAbsolute,
            "reloffer" => Self::Relative,
            "absoffer" => Self::Absolute,
            _ => return None,
        })
    }

    /// Whether the fee is a fraction of the amount.
    #[must_use]
    pub const fn is_relative(self) -> bool {
        matches!(self, Self::Sw0Relative | Self::SwRelative | Self::Relative)
    }
}

/// Number that tells a maker's offers apart; unique per nick, 0 to 2^63 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(u64);

impl OfferId {
    /// From a number.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        if id <= MAX_OFFER_ID { Some(Self(id)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for OfferId {
    type Err = OfferError;

    fn from_str(text: &str) -> Result<Self, OfferError> {
        canonical_u64(text).and_then(Self::new).ok_or(OfferError::Id)
    }
}

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why an offer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Fewer than five fields.
    #[error("an offer has five fields")]
    Fields,
    /// Not a decimal from 0 to 2^63 - 1.
    #[error("offer id is not a number below 2^63")]
    Id,
    /// A size is not a decimal of satoshi up to the money supply.
    #[error("size is not an amount")]
    Size,
    /// `minsize`, raised to the dust threshold, is above `maxsize`.
    #[error("minimum is above maximum")]
    EmptyRange,
    /// `txfee` is not an amount.
    #[error("transaction fee share is not an amount")]
    TxFee,
    /// The coinjoin fee is malformed or out of range.
    #[error("coinjoin fee: {0}")]
    CjFee(#[from] CjFeeError),
}

/// A maker's standing terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The kind; agrees with the variant of [`Offer::cj_fee`].
    pub order_type: OrderType,
    /// Unique per maker.
    pub id: OfferId,
    /// Smallest amount, satoshi; at least [`DUST_THRESHOLD`].
    pub min_size: u64,
    /// Largest amount, satoshi.
    pub max_size: u64,
    /// What the maker adds to the miner fee, satoshi.
    pub tx_fee: u64,
    /// What the maker asks for.
    pub cj_fee: CjFee,
}

impl Offer {
    /// Parses the fields after the command word: `oid minsize maxsize txfee cjfee`. Further fields are
    /// ignored (they are how the protocol grows). A minimum below the dust threshold is raised to it.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn parse(order_type: OrderType, fields: &str) -> Result<Self, OfferError> {
        let mut fields = fields.split(' ');
        let mut next = || fields.next().ok_or(OfferError::Fields);
        let (id, min_size, max_size, tx_fee, cj_fee) =
            (next()?, next()?, next()?, next()?, next()?);
        let amount = |text| canonical_u64(text).filter(|amount| *amount <= MAX_MONEY);
        let id = id.parse()?;
        let min_size = amount(min_size).ok_or(OfferError::Size)?.max(DUST_THRESHOLD);
        let max_size = amount(max_size).ok_or(OfferError::Size)?;
        if min_size > max_size {
            return Err(OfferError::EmptyRange);
        }
        let tx_fee = amount(tx_fee).ok_or(OfferError::TxFee)?;
        let cj_fee = if order_type.is_relative() {
            CjFee::Relative(cj_fee.parse()?)
        } else {
            CjFee::Absolute(amount(cj_fee).ok_or(CjFeeError::NotDecimal)?)
        };
        Ok(Self { order_type, id, min_size, max_size, tx_fee, cj_fee })
    }

    /// What the maker nets at an amount: fee minus its share of the miner fee. May be negative.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "the difference of two u64 fits an i128")]
    pub fn earning(&self, amount: u64) -> i128 {
        i128::from(self.cj_fee.of(amount)) - i128::from(self.tx_fee)
    }

    /// Whether an amount is within the offer, both ends included (the maker's rule).
    #[must_use]
    pub const fn accepts(&self, amount: u64) -> bool {
        self.min_size <= amount && amount <= self.max_size
    }
}

/// The wire form with the command word: `sw0reloffer 0 100000 5000000000 0 0.00002`.
impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.order_type.word(), self.fields())
    }
}

impl Offer {
    /// The wire form without the command word.
    #[must_use]
    pub fn fields(&self) -> String {
        let Self { id, min_size, max_size, tx_fee, cj_fee, .. } = self;
        format!("{id} {min_size} {max_size} {tx_fee} {cj_fee}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Offer, OrderType};

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(fields in "[0-9.eE+ -]{0,80}", relative in any::<bool>()) {
            let order_type =
                if relative { OrderType::Sw0Relative } else { OrderType::Sw0Absolute };
            if let Ok(offer) = Offer::parse(order_type, &fields) {
                prop_assert_eq!(Offer::parse(order_type, &offer.fields()), Ok(offer));
                prop_assert!(offer.min_size <= offer.max_size);
            }
        }
    }
}
