//! The wallet task as its users see it: through the handle, over a scripted chain.

mod crash;
mod display;
mod fake_chain;
mod following;
mod freezing;
mod issuing;
mod lending;
mod maker_only;
mod opening;
mod pruning;
mod rig;
mod round_sending;
mod round_stage;
mod round_worlds;
mod rounds;
mod sending;
mod syncing;
