//! The board link: what the daemon says and what the board answers, one JSON object a line, both ways.
//!
//! `docs/board-link.md` is the format; `tests/link/*.json` are its samples. Parsing makes types that cannot be wrong:
//! texts are bounded and drawable, amounts are possible amounts, a request that is only half understood is an error.
//! Nothing here opens a socket (see `run`) or decides what to do (see [`crate::ui`]).

mod lines;
mod message;
mod number;
mod pending;
mod status;
mod text;

pub use lines::Lines;
pub use message::Message;
pub use number::{OutOfBounds, Percent, Sats, Seconds, SignedSats};
pub use pending::{Amount, Ask, Destination, Fee, Payment, Pending, RequestId};
pub use status::{
    Backend, CoinjoinState, Direction, Fingerprint, Maker, Network, Round, Status, Tor,
    Transaction, Txid, Warning,
};
pub use text::Text;

use serde::Deserialize;

/// Version of the format that this board speaks.
pub const VERSION: u32 = 1;

/// Longest line that is read, without its line feed, in bytes. The longest status with every field at its bound has
/// about 9 KiB, nearly all of it names in letters of four bytes.
pub const MAX_LINE: usize = 16 * 1024;

/// Why a line of the daemon was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// More than [`MAX_LINE`] bytes before the line feed; all of them were thrown away.
    #[error("line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// No JSON, or a field that is missing, of another type or out of its bounds.
    #[error("line cannot be understood")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("the daemon speaks version {found} of the board link, this board version {VERSION}")]
    Version {
        /// What the daemon speaks.
        found: u32,
    },
}

#[derive(Deserialize)]
struct Envelope {
    v: u32,
    r#type: String,
}

/// Reads one line of the daemon; `None` when it is of a type that this version does not know, and may be ignored.
///
/// # Errors
/// When the line is no JSON object of this version, or is a status with a wrong field.
pub fn parse(line: &[u8]) -> Result<Option<Status>, LinkError> {
    if line.len() > MAX_LINE {
        return Err(LinkError::TooLong);
    }
    let envelope: Envelope = serde_json::from_slice(line)?;
    if envelope.v != VERSION {
        return Err(LinkError::Version { found: envelope.v });
    }
    match envelope.r#type.as_str() {
        "status" => Ok(Some(serde_json::from_slice(line)?)),
        _ => Ok(None),
    }
}
