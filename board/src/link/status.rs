//! What the daemon says: whole snapshots, never deltas (`docs/board-link.md`).

use std::fmt;

use serde::Deserialize;

use super::Text;

/// The state of the box at one moment. Fields that are not sent are `None` or empty; their screens show less.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    #[serde(default)]
    pub version: Option<Text<32>>,
    /// What the daemon is doing before it can answer anyone; `None` once it is up.
    #[serde(default)]
    pub starting: Option<Text<64>>,
    /// The machine is being switched off.
    #[serde(default)]
    pub switching_off: bool,
    /// No wallet is open.
    pub locked: bool,
    /// Some client has logged in at least once. `false` lets the pairing screen come first.
    #[serde(default = "yes")]
    pub paired: bool,
    /// Name of the open wallet, or of the one that would be opened.
    #[serde(default)]
    pub wallet: Option<Text<255>>,
    /// Which role runs.
    pub coinjoin_state: CoinjoinState,
    /// One word for the step of the coinjoin as taker.
    #[serde(default)]
    pub phase: Option<Text<16>>,
    /// The coinjoin as taker.
    #[serde(default)]
    pub round: Option<Round>,
    /// What the maker does.
    #[serde(default)]
    pub maker: Option<Maker>,
    /// How far the wallet is synchronised.
    #[serde(default)]
    pub sync: Option<Percent>,
    /// The Electrum server.
    #[serde(default)]
    pub backend: Option<Backend>,
    /// Tor.
    #[serde(default)]
    pub tor: Option<Tor>,
    /// Directories of the market that are connected.
    #[serde(default)]
    pub directories: Option<u16>,
    /// Height of the best block.
    #[serde(default)]
    pub height: Option<u32>,
    /// The chain; `None` is mainnet.
    #[serde(default)]
    pub network: Option<Network>,
    /// Name of the machine on the local network.
    #[serde(default)]
    pub hostname: Option<Text<64>>,
    /// Where the browser wallet is.
    #[serde(default)]
    pub url: Option<Text<255>>,
    /// The phone app's quick-connect URI.
    #[serde(default)]
    pub pairing: Option<Text<1024>>,
    /// SHA-256 of the TLS certificate.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
    /// What is not as it should be. `backend: "down"` and `tor: "down"` need no entry here.
    #[serde(default, deserialize_with = "few_warnings")]
    pub warnings: Vec<Warning>,
    /// The newest transaction of the wallet.
    #[serde(default)]
    pub transaction: Option<Transaction>,
    /// Only when the owner wants it on the panel.
    #[serde(default)]
    pub balance_sat: Option<Sats>,
    /// What waits for the person at the box.
    #[serde(default)]
    pub pending: Option<Pending>,
}

const fn yes() -> bool {
    true
}

/// Warnings in one status at most.
const MAX_WARNINGS: usize = 16;

fn few_warnings<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Warning>, D::Error> {
    let warnings = Vec::<Warning>::deserialize(from)?;
    if warnings.len() > MAX_WARNINGS {
        return Err(serde::de::Error::custom(format_args!("more than {MAX_WARNINGS} warnings")));
    }
    Ok(warnings)
}

/// Which role runs, as numbered by the wallet API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum CoinjoinState {
    /// 0.
    Taker,
    /// 1.
    Maker,
    /// 2.
    Idle,
}

impl TryFrom<u8> for CoinjoinState {
    type Error = OutOfBounds;

    fn try_from(number: u8) -> Result<Self, OutOfBounds> {
        match number {
            0 => Ok(Self::Taker),
            1 => Ok(Self::Maker),
            2 => Ok(Self::Idle),
            _ => Err(OutOfBounds("coinjoin_state is 0, 1 or 2")),
        }
    }
}

/// A value that its field does not allow.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OutOfBounds(&'static str);

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

/// The Electrum server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// It answers.
    Ok,
    /// It is configured and does not answer.
    Down,
    /// None is configured.
    None,
}

/// Tor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tor {
    /// It works.
    Ok,
    /// It is needed and does not work.
    Down,
    /// Nothing needs it.
    Off,
}

/// The chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Real money.
    Mainnet,
    /// The signed test chain.
    Signet,
    /// The test chain.
    Testnet4,
    /// A private chain.
    Regtest,
}

/// SHA-256 of a certificate.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// 64 hexadecimal digits, upper case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        // Pairs with colons between them are how tools write it.
        let text = if text.len() == 95 { text.replace(':', "") } else { text };
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(OutOfBounds("fingerprint is not 64 hexadecimal digits"));
        }
        Ok(Self(text.to_ascii_uppercase()))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transaction id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Txid(String);

impl Txid {
    /// 64 hexadecimal digits, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Txid {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(OutOfBounds("txid is not 64 hexadecimal digits"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// A coinjoin as taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Round {
    /// Makers that were asked in this phase.
    pub asked: u16,
    /// Makers that have answered.
    pub answered: u16,
    /// Until the phase ends.
    pub deadline_s: Seconds,
    /// How long the phase is at most: the full length of the bar.
    pub of_s: Seconds,
}

/// A maker at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Maker {
    /// Offers that are announced.
    pub offers: u16,
    /// Makers in the market, if the order book is watched.
    #[serde(default)]
    pub makers: Option<u16>,
    /// Earned since midnight; less than nothing when mining fees were more than what was earned.
    pub earned_today_sat: SignedSats,
    /// Coinjoins since midnight.
    pub rounds_today: u32,
}

/// Something that is not as it should be. `kind` is a word that this board knows, or any other with a `text`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WireWarning")]
pub enum Warning {
    /// The Electrum server cannot be reached.
    NoServer,
    /// The clock is wrong.
    Clock,
    /// The disk is nearly full.
    Disk(Percent),
    /// The processor is hot, in degrees Celsius.
    Hot(u8),
    /// The power supply is too weak.
    Undervoltage,
    /// Tor is needed and does not work.
    Tor,
    /// A server on a public address sees our coins and our address.
    PublicServer,
    /// A server of strangers behind a proxy sees our coins.
    ForeignServer,
    /// What a newer daemon says, in its own words.
    Other(Text<64>),
}

#[derive(Deserialize)]
struct WireWarning {
    kind: Text<32>,
    #[serde(default)]
    percent: Option<Percent>,
    #[serde(default)]
    celsius: Option<u8>,
    #[serde(default)]
    text: Option<Text<64>>,
}

impl TryFrom<WireWarning> for Warning {
    type Error = OutOfBounds;

    fn try_from(wire: WireWarning) -> Result<Self, OutOfBounds> {
        Ok(match wire.kind.as_str() {
            "no_server" => Self::NoServer,
            "clock" => Self::Clock,
            "disk" => Self::Disk(wire.percent.ok_or(OutOfBounds("disk without percent"))?),
            "hot" => Self::Hot(wire.celsius.ok_or(OutOfBounds("hot without celsius"))?),
            "undervoltage" => Self::Undervoltage,
            "tor" => Self::Tor,
            "public_server" => Self::PublicServer,
            "foreign_server" => Self::ForeignServer,
            _ => Self::Other(wire.text.ok_or(OutOfBounds("unknown warning without text"))?),
        })
    }
}

/// A transaction of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// Its id.
    pub txid: Txid,
    /// What it is.
    pub direction: Direction,
    /// Confirmations; 0 is not in a block yet.
    pub confirmations: u32,
    /// Only when the owner wants amounts on the panel.
    #[serde(default)]
    pub amount_sat: Option<Sats>,
}

/// What a transaction does to the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It pays the wallet.
    In,
    /// It pays others.
    Out,
    /// It mixes.
    Coinjoin,
}

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
