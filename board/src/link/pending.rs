//! What waits for the person at the box. A request that is only half understood is none.

use serde::Deserialize;

use super::number::{OutOfBounds, Sats};
use super::text::Text;

/// Name of a request: 1 to 64 of the characters `A-Z a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RequestId(String);

impl RequestId {
    /// The name as the daemon wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(OutOfBounds("id is not 1 to 64 of A-Z a-z 0-9 - _"));
        }
        Ok(Self(text))
    }
}

/// A Bitcoin address: 14 to 90 letters and digits of ASCII, never cut, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Destination(String);

impl Destination {
    /// The address as the daemon wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Destination {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        if !(14..=90).contains(&text.len())
            || !text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(OutOfBounds("destination is not 14 to 90 letters and digits"));
        }
        Ok(Self(text))
    }
}

/// What waits for the person at the box.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WirePending")]
pub struct Pending {
    /// An answer names it.
    pub id: RequestId,
    /// What would happen.
    pub ask: Ask,
    /// Until the daemon gives up, in seconds; `None` waits for ever.
    pub expires_s: Option<u16>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Open the wallet; its password was right.
    Unlock {
        /// Name of the wallet.
        wallet: Text<255>,
        /// Who asks.
        from: Option<Text<64>>,
    },
    /// Open the wallet for the maker only, with the sealed key.
    Resume {
        /// Name of the wallet.
        wallet: Text<255>,
    },
    /// Pay.
    Send(Payment),
    /// Something that this version cannot show, and so cannot approve.
    Unknown {
        /// The daemon's words for it.
        text: Option<Text<255>>,
    },
}

/// A payment, directly or in a coinjoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// How much.
    pub amount: Amount,
    /// To whom.
    pub destination: Destination,
    /// The destination belongs to the wallet itself.
    pub own: bool,
    /// What it costs.
    pub fee: Fee,
    /// Makers of the coinjoin; `None` is a plain payment.
    pub makers: Option<u8>,
    /// The mixdepth that pays, shown as "jar".
    pub jar: Option<u8>,
}

/// How much is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This much.
    Exact(Sats),
    /// All of a jar, which comes to this much if the daemon knows it already.
    Sweep(Option<Sats>),
}

/// What a payment costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fee {
    /// This much.
    Exact(Sats),
    /// At most this much, makers' fees included.
    AtMost(Sats),
}

/// Longest time a request may wait, in seconds.
const MAX_EXPIRES_S: u16 = 3600;

#[derive(Deserialize)]
struct WirePending {
    id: RequestId,
    kind: Text<32>,
    #[serde(default)]
    text: Option<Text<255>>,
    #[serde(default)]
    from: Option<Text<64>>,
    #[serde(default)]
    expires_s: Option<u16>,
    #[serde(default)]
    amount_sat: Option<Sats>,
    #[serde(default)]
    sweep: bool,
    #[serde(default)]
    destination: Option<Destination>,
    #[serde(default)]
    own: bool,
    #[serde(default)]
    fee_sat: Option<Sats>,
    #[serde(default)]
    fee_max_sat: Option<Sats>,
    #[serde(default)]
    makers: Option<u8>,
    #[serde(default)]
    jar: Option<u8>,
}

impl TryFrom<WirePending> for Pending {
    type Error = OutOfBounds;

    fn try_from(wire: WirePending) -> Result<Self, OutOfBounds> {
        if wire.expires_s.is_some_and(|seconds| seconds > MAX_EXPIRES_S) {
            return Err(OutOfBounds("expires_s is more than an hour"));
        }
        let wallet = |text: Option<Text<255>>| {
            text.filter(|text| !text.as_str().is_empty()).ok_or(OutOfBounds("request without text"))
        };
        let ask = match wire.kind.as_str() {
            "unlock" => Ask::Unlock { wallet: wallet(wire.text)?, from: wire.from },
            "resume" => Ask::Resume { wallet: wallet(wire.text)? },
            "send" => Ask::Send(Payment {
                amount: match (wire.amount_sat, wire.sweep) {
                    (amount, true) => Amount::Sweep(amount),
                    (Some(amount), false) if amount.to_sat() > 0 => Amount::Exact(amount),
                    (Some(_), false) => return Err(OutOfBounds("send of nothing")),
                    (None, false) => return Err(OutOfBounds("send without amount_sat or sweep")),
                },
                destination: wire.destination.ok_or(OutOfBounds("send without destination"))?,
                own: wire.own,
                fee: match (wire.fee_sat, wire.fee_max_sat) {
                    (Some(fee), None) => Fee::Exact(fee),
                    (None, Some(fee)) => Fee::AtMost(fee),
                    _ => return Err(OutOfBounds("send needs one of fee_sat and fee_max_sat")),
                },
                makers: wire.makers,
                jar: wire.jar,
            }),
            _ => Ask::Unknown { text: wire.text },
        };
        Ok(Self { id: wire.id, ask, expires_s: wire.expires_s })
    }
}
