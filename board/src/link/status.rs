//! What the daemon says: whole snapshots, never deltas (`docs/board-link.md`).

use std::fmt;

use serde::Deserialize;

use super::number::{OutOfBounds, Percent, Sats, Seconds, SignedSats};
use super::pending::Pending;
use super::text::Text;

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
