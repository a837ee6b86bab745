//! One line of the channel: a JSON object with a type and a text (`spec/protocol.md` 4.3, 4.4).

use serde::Deserialize;

/// Longest line that we accept, bytes without its end.
pub const MAX_LINE_IN: usize = 65_536;
/// Longest line that we send, bytes without its end: the tightest limit of the deployed nodes.
pub const MAX_LINE_OUT: usize = 39_998;
/// Deepest nesting of a received line.
const MAX_DEPTH: usize = 10;
/// Line end of everything that we send. Reference nodes split only here.
pub const LINE_END: &str = "\r\n";

/// Message types on the wire.
///
/// 785, 787 and 797 are internal to reference nodes, which do not filter them: they are never sent and
/// ignored when received. 799 and 801 close a reference node's connection: 799 is only sent in answer to a
/// ping, 801 never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// 685.
    Private,
    /// 687.
    Public,
    /// 789.
    PeerList,
    /// 791.
    GetPeerList,
    /// 793.
    Handshake,
    /// 795.
    DirectoryHandshake,
    /// 798.
    Ping,
    /// 799.
    Pong,
    /// 801.
    Disconnect,
    /// 803.
    NickAuthChallenge,
    /// 805.
    NickAuthProof,
    /// 807.
    NickAuthResult,
    /// Anything else, the internal numbers of the reference among them; to be ignored.
    Unknown(u32),
}

impl MessageType {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Private => 685,
            Self::Public => 687,
            Self::PeerList => 789,
            Self::GetPeerList => 791,
            Self::Handshake => 793,
            Self::DirectoryHandshake => 795,
            Self::Ping => 798,
            Self::Pong => 799,
            Self::Disconnect => 801,
            Self::NickAuthChallenge => 803,
            Self::NickAuthProof => 805,
            Self::NickAuthResult => 807,
            Self::Unknown(number) => number,
        }
    }

    /// The type of a number.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            685 => Self::Private,
            687 => Self::Public,
            789 => Self::PeerList,
            791 => Self::GetPeerList,
            793 => Self::Handshake,
            795 => Self::DirectoryHandshake,
            798 => Self::Ping,
            799 => Self::Pong,
            801 => Self::Disconnect,
            803 => Self::NickAuthChallenge,
            805 => Self::NickAuthProof,
            807 => Self::NickAuthResult,
            other => Self::Unknown(other),
        }
    }
}

/// A decoded line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it is.
    pub kind: MessageType,
    /// Its text.
    pub line: String,
}

/// Why a line was refused. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than the limit for its direction.
    #[error("line of {length} bytes is longer than {limit}")]
    TooLong {
        /// Length in bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Nested deeper than any message is.
    #[error("line is nested too deeply")]
    TooDeep,
    /// Not a JSON object with an integer type from 0 and a text.
    #[error("line is not a message")]
    Malformed,
    /// A type that must not be sent.
    #[error("message type {0} is never sent")]
    Forbidden(u32),
}

#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "type")]
    kind: u32,
    line: String,
}

impl Envelope {
    /// A message to send.
    #[must_use]
    pub fn new(kind: MessageType, line: impl Into<String>) -> Self {
        Self { kind, line: line.into() }
    }

    /// Decodes one line, without its end. Key order is free, further keys are ignored.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn decode(line: &[u8]) -> Result<Self, EnvelopeError> {
        if line.len() > MAX_LINE_IN {
            return Err(EnvelopeError::TooLong { length: line.len(), limit: MAX_LINE_IN });
        }
        if depth(line) > MAX_DEPTH {
            return Err(EnvelopeError::TooDeep);
        }
        let Incoming { kind, line } = parse_object(line).ok_or(EnvelopeError::Malformed)?;
        Ok(Self { kind: MessageType::from_number(kind), line })
    }

    /// Encodes the line with its end. Key order and spacing are those of the reference; everything but
    /// ASCII is escaped.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLong`], and [`EnvelopeError::Forbidden`] for types that would make a
    /// reference node close the connection or believe an event of its own.
    pub fn encode(&self) -> Result<String, EnvelopeError> {
        if matches!(self.kind, MessageType::Disconnect | MessageType::Unknown(_)) {
            return Err(EnvelopeError::Forbidden(self.kind.number()));
        }
        let mut text = format!("{{\"type\": {}, \"line\": ", self.kind.number());
        push_ascii_json(&mut text, &self.line);
        text.push('}');
        if text.len() > MAX_LINE_OUT {
            return Err(EnvelopeError::TooLong { length: text.len(), limit: MAX_LINE_OUT });
        }
        text.push_str(LINE_END);
        Ok(text)
    }
}

/// Parses a JSON object. Serde would also take an array of the values in order.
pub(super) fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Appends a JSON string with everything beyond ASCII escaped as UTF-16.
pub(super) fn push_ascii_json(text: &mut String, value: &str) {
    use std::fmt::Write as _;
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(c),
            c => {
                let mut units = [0_u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

/// Deepest nesting of brackets outside strings: cheap, and before any parser recurses.
#[expect(clippy::arithmetic_side_effects, reason = "counts at most the bytes of a line")]
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Envelope, EnvelopeError, MAX_LINE_IN, MAX_LINE_OUT, MessageType};

    #[test]
    fn long_deep_and_forbidden_lines_are_refused() {
        let long = vec![b' '; MAX_LINE_IN + 1];
        assert!(matches!(Envelope::decode(&long), Err(EnvelopeError::TooLong { .. })));
        let deep =
            format!("{{\"type\":687,\"line\":\"x\",\"y\":{}1{}}}", "[".repeat(11), "]".repeat(11));
        assert_eq!(Envelope::decode(deep.as_bytes()), Err(EnvelopeError::TooDeep));
        for kind in [MessageType::Disconnect, MessageType::Unknown(785), MessageType::Unknown(787)]
        {
            assert!(Envelope::new(kind, "").encode().is_err());
        }
        let fits = "x".repeat(MAX_LINE_OUT - "{\"type\": 687, \"line\": \"\"}".len());
        let envelope = Envelope::new(MessageType::Public, fits);
        assert_eq!(envelope.encode().unwrap().len(), MAX_LINE_OUT + 2);
        let envelope = Envelope::new(MessageType::Public, format!("{}x", envelope.line));
        assert!(matches!(envelope.encode(), Err(EnvelopeError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::decode(&bytes);
        }

        #[test]
        fn lines_round_trip_and_are_ascii(text in ".{0,200}") {
            let envelope = Envelope::new(MessageType::Private, text);
            let wire = envelope.encode().unwrap();
            prop_assert!(wire.is_ascii());
            let line = wire.strip_suffix("\r\n").unwrap();
            prop_assert!(!line.contains(['\r', '\n']));
            prop_assert_eq!(Envelope::decode(line.as_bytes()).unwrap(), envelope);
        }
    }
}
