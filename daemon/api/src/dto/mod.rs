//! What goes over the wire, apart from the domain types it is made of.

pub(crate) mod round;
pub(crate) mod transaction;
pub(crate) mod utxos;
pub(crate) mod wallet_info;
