//! The JoinMarket protocol without I/O.
//!
//! What it deliberately is not: no sockets, no clock, no files, no async runtime, no randomness of its
//! own. Bytes, events and `now` go in; bytes and events come out.
//!
//! Every foreign text has a named maximum that is checked before anything is allocated for it. The source of
//! every rule is `spec/protocol.md`; where the two deployed implementations differ, the stricter one decides
//! what is accepted and the common subset what is sent.
//!
//! # Interoperability
#![doc = include_str!("../INTEROPERABILITY.md")]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)
)]

pub mod blacklist;
pub mod bond_proof;
pub mod cjfee;
pub mod conversation;
pub mod fidelity_bond;
pub mod irc;
pub mod line;
pub mod maker_offers;
pub mod message;
pub mod message_signature;
pub mod nacl_box;
pub mod nick;
pub mod offer;
pub mod onion;
pub mod podle;
pub mod private_message;
pub mod public_message;
mod secp;
pub mod signature;
pub mod transaction;
pub mod utxo;
#[cfg(test)]
mod vectors;

pub use bdk_wallet::bitcoin;
pub use secp::secp;
