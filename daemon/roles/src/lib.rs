//! What Joinery decides on the market: whom to talk to, what to believe, whom to choose. Everything here is a
//! machine without I/O: inputs and the time come from outside, outputs are values, so that a simulator can run
//! thousands of them under a seeded scheduler (`spec/roles.md`, `spec/protocol.md` 4, 5, 13 to 15).

pub mod ask;
pub mod bond_statistics;
pub mod budget;
pub mod channel;
pub mod choose;
mod complaints;
pub mod directory;
pub mod event;
pub mod irc_channel;
pub mod maker;
pub mod order_book;
pub mod podle_source;
mod recent;
pub mod routes;
pub mod taker;
