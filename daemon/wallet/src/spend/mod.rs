//! Plain payments as pure functions: plan, build, sign, verify (`spec/wallet.md` 8.3 and 9.4, vector
//! `direct_send.json`).
//!
//! [`plan`] chooses coins and settles amount, fee and change; [`Plan::build`] makes the shuffled unsigned
//! transaction once the change address is durable; [`sign`] signs it and checks every input as the network
//! will. Nothing here reads a clock, draws randomness of its own or touches the store.

mod build;
mod destination;
mod plan;
mod sign;
mod verify;

pub use destination::{DestinationError, MAX_ADDRESS_BYTES, parse_destination};
pub use plan::{CHANGE_FLOOR, Plan, SpendContext, plan};
pub use sign::sign;
pub use verify::{InputError, verify_input};
