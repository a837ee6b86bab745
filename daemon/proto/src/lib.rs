//! The JoinMarket protocol without I/O.
//!
//! What it deliberately is not: no sockets, no clock, no files, no async runtime, no randomness of its
//! own. Bytes, events and `now` go in; bytes and events come out.

pub mod fidelity_bond;
pub mod message_signature;
mod secp;

pub use bdk_wallet::bitcoin;
pub use secp::secp;
