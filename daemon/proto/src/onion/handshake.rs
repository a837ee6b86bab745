//! Handshakes (`spec/protocol.md` 4.5, 4.6).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::envelope::{parse_object, push_ascii_json};
use super::features::{Features, MAX_FEATURE_NAME, MAX_FEATURES};
use super::location::{Location, MAX_LOCATION};
use crate::nick::Nick;

/// Name of the application; compared exactly.
pub const APP_NAME: &str = "joinmarket";
/// The one protocol version in use.
pub const PROTOCOL_VERSION: i64 = 5;
/// Longest text in a handshake apart from location and message of the day.
const MAX_TEXT: usize = 64;
/// Longest text that is the value of a feature; only `true` means anything, but other values are legal.
const MAX_FEATURE_TEXT: usize = 512;
/// Longest message of the day that is kept, characters.
const MAX_MOTD: usize = 1_024;

/// What we need of a peer's handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHandshake {
    /// The nick it claims; proved only by its first signed message.
    pub nick: Nick,
    /// Where it claims to serve.
    pub location: Location,
    /// Name of the JoinMarket network.
    pub network: String,
    /// Its flags.
    pub features: Features,
}

/// Why a handshake was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not JSON, a key is missing, has the wrong type or is too long.
    #[error("handshake is malformed")]
    Malformed,
    /// Another application.
    #[error("application is not joinmarket")]
    AppName,
    /// A directory where a peer was expected, or the reverse.
    #[error("directory flag is wrong")]
    Directory,
    /// No common version.
    #[error("protocol version is not {PROTOCOL_VERSION}")]
    Version,
    /// Another network.
    #[error("network is {found:?}")]
    Network {
        /// What the peer is on; bounded and printable.
        found: String,
    },
    /// Not a location.
    #[error("location is malformed")]
    Location,
    /// Not a nick.
    #[error("nick is malformed")]
    Nick,
    /// The directory refuses us.
    #[error("the directory refused the handshake")]
    Refused,
}

#[derive(Deserialize)]
struct PeerJson {
    #[serde(rename = "app-name")]
    app_name: String,
    directory: bool,
    #[serde(rename = "location-string")]
    location: String,
    #[serde(rename = "proto-ver")]
    version: i64,
    features: Map<String, Value>,
    nick: String,
    network: String,
}

impl PeerHandshake {
    /// The text of type 793, key order and spacing of the reference.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut text = format!("{{\"app-name\": \"{APP_NAME}\", \"directory\": false, ");
        text.push_str("\"location-string\": ");
        push_ascii_json(&mut text, &self.location.to_string());
        text.push_str(&format!(", \"proto-ver\": {PROTOCOL_VERSION}, \"features\": "));
        push_features(&mut text, &self.features);
        text.push_str(", \"nick\": ");
        push_ascii_json(&mut text, self.nick.as_str());
        text.push_str(", \"network\": ");
        push_ascii_json(&mut text, &self.network);
        text.push('}');
        text
    }

    /// Reads the text of type 793, as a directory does and as peers do on direct connections.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub fn parse(line: &str, our_network: &str) -> Result<Self, HandshakeError> {
        let PeerJson { app_name, directory, location, version, features, nick, network } =
            parse_object(line.as_bytes()).ok_or(HandshakeError::Malformed)?;
        let too_long = location.len() > MAX_LOCATION
            || [&app_name, &nick, &network].iter().any(|text| text.len() > MAX_TEXT)
            || features.len() > MAX_FEATURES
            || !features.iter().all(is_bounded_feature);
        if too_long {
            return Err(HandshakeError::Malformed);
        }
        if app_name != APP_NAME {
            return Err(HandshakeError::AppName);
        }
        if directory {
            return Err(HandshakeError::Directory);
        }
        if version != PROTOCOL_VERSION {
            return Err(HandshakeError::Version);
        }
        if network != our_network {
            return Err(HandshakeError::Network { found: printable(&network, MAX_TEXT) });
        }
        let location = location.parse().map_err(|_| HandshakeError::Location)?;
        let nick = nick.parse().map_err(|_| HandshakeError::Nick)?;
        Ok(Self { nick, location, network, features: Features::from_json(&features) })
    }
}

/// A directory's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryHandshake {
    /// Its nick, as text: nothing is ever sent to it.
    pub nick: String,
    /// Whether it takes us.
    pub accepted: bool,
    /// Name of the JoinMarket network.
    pub network: String,
    /// Its flags.
    pub features: Features,
    /// Message of the day; untrusted text.
    pub motd: String,
}

#[derive(Serialize, Deserialize)]
struct DirectoryJson {
    #[serde(rename = "app-name")]
    app_name: String,
    directory: bool,
    #[serde(rename = "proto-ver-min")]
    version_min: i64,
    #[serde(rename = "proto-ver-max")]
    version_max: i64,
    features: Map<String, Value>,
    accepted: bool,
    nick: String,
    network: String,
    #[serde(default)]
    motd: String,
}

impl DirectoryHandshake {
    /// The text of type 795, key order and spacing of the reference.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut text = format!(
            "{{\"app-name\": \"{APP_NAME}\", \"directory\": true, \"proto-ver-min\": \
             {PROTOCOL_VERSION}, \"proto-ver-max\": {PROTOCOL_VERSION}, \"features\": "
        );
        push_features(&mut text, &self.features);
        text.push_str(&format!(", \"accepted\": {}, \"nick\": ", self.accepted));
        push_ascii_json(&mut text, &self.nick);
        text.push_str(", \"network\": ");
        push_ascii_json(&mut text, &self.network);
        text.push_str(", \"motd\": ");
        push_ascii_json(&mut text, &self.motd);
        text.push('}');
        text
    }

    /// Reads the text of type 795, as a client does.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is to be closed.
    pub fn parse(line: &str, our_network: &str) -> Result<Self, HandshakeError> {
        let json: DirectoryJson = parse_object(line.as_bytes()).ok_or(HandshakeError::Malformed)?;
        if json.app_name != APP_NAME {
            return Err(HandshakeError::AppName);
        }
        if !json.directory {
            return Err(HandshakeError::Directory);
        }
        if !(json.version_min..=json.version_max).contains(&PROTOCOL_VERSION) {
            return Err(HandshakeError::Version);
        }
        if !json.accepted {
            return Err(HandshakeError::Refused);
        }
        if json.network != our_network {
            return Err(HandshakeError::Network { found: printable(&json.network, MAX_TEXT) });
        }
        Ok(Self {
            nick: printable(&json.nick, MAX_TEXT),
            accepted: json.accepted,
            network: json.network,
            features: Features::from_json(&json.features),
            motd: printable(&json.motd, MAX_MOTD),
        })
    }
}

/// No directory of the network takes more than this of a peer: short names, no nesting.
fn is_bounded_feature((name, value): (&String, &Value)) -> bool {
    let value_fits = match value {
        Value::Array(_) | Value::Object(_) => false,
        Value::String(text) => text.len() <= MAX_FEATURE_TEXT,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    };
    name.len() <= MAX_FEATURE_NAME && value_fits
}

fn push_features(text: &mut String, features: &Features) {
    text.push('{');
    for (index, name) in features.names().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        push_ascii_json(text, name);
        text.push_str(": true");
    }
    text.push('}');
}

/// Foreign text, cut and without control characters.
fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DirectoryHandshake, HandshakeError, PeerHandshake};

    #[test]
    fn features_are_bounded_and_flat() {
        let parse = |features: &str| {
            let line = format!(
                r#"{{"app-name":"joinmarket","directory":false,"location-string":"NOT-SERVING-ONION",
                "proto-ver":5,"features":{features},"nick":"J5CdDnhVDhc5R7Gg","network":"mainnet"}}"#
            );
            PeerHandshake::parse(&line, "mainnet")
        };
        let many = |count: usize| {
            let flags: Vec<_> = (0..count).map(|flag| format!("\"f{flag}\":true")).collect();
            format!("{{{}}}", flags.join(","))
        };
        let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length));
        let name = |length: usize| format!("{{\"{}\":true}}", "x".repeat(length));
        for fits in [many(32), text(512), name(64), r#"{"a":null,"b":1,"c":false}"#.to_owned()] {
            assert!(parse(&fits).is_ok(), "{fits}");
        }
        for over in [many(33), text(513), name(65), r#"{"a":{}}"#.into(), r#"{"a":[]}"#.into()] {
            assert_eq!(parse(&over), Err(HandshakeError::Malformed), "{over}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in ".{0,200}", name in "[a-z-]{0,12}", number in any::<i64>()) {
            let _ = PeerHandshake::parse(&line, "mainnet");
            let _ = DirectoryHandshake::parse(&line, "mainnet");
            let json = format!("{{\"app-name\":\"joinmarket\",\"{name}\":{number}}}");
            let _ = PeerHandshake::parse(&json, "mainnet");
            let _ = DirectoryHandshake::parse(&json, "mainnet");
        }
    }
}
