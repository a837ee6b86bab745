//! Where a peer can be dialled (`spec/protocol.md` 4.5, 4.7).

use std::fmt;
use std::str::FromStr;

/// Location text of peers without an onion service.
pub const NOT_SERVING: &str = "NOT-SERVING-ONION";
/// Virtual port of every onion service of the network.
pub const ONION_VIRTUAL_PORT: u16 = 5222;
/// Longest location text: 56 characters, `.onion`, a port.
pub const MAX_LOCATION: usize = 72;
/// Characters of a version 3 onion name.
const ONION_NAME: usize = 56;

/// Where a peer says that it can be dialled. A claim: nothing proves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// It serves no onion.
    NotServing,
    /// `host:port`.
    Address(PeerAddress),
}

/// Host and port of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// The text is not a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a location")]
pub struct LocationError;

impl PeerAddress {
    /// The host part.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is a syntactically valid version 3 onion name. Only those are dialled outside
    /// of tests.
    #[must_use]
    pub fn is_onion(&self) -> bool {
        self.host.strip_suffix(".onion").is_some_and(|name| {
            name.len() == ONION_NAME
                && name.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
        })
    }
}

impl FromStr for PeerAddress {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > MAX_LOCATION {
            return Err(LocationError);
        }
        let (host, port) = text.split_once(':').ok_or(LocationError)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(LocationError);
        }
        let port = crate::utxo::canonical_u32(port)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0)
            .ok_or(LocationError)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text == NOT_SERVING { Ok(Self::NotServing) } else { text.parse().map(Self::Address) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServing => f.write_str(NOT_SERVING),
            Self::Address(address) => address.fmt(f),
        }
    }
}
