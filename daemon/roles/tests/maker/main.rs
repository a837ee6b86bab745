//! The maker against scripted takers, with a wallet and a chain that the test holds in its hands.

#![allow(clippy::unwrap_used)] // the stage and its takers are test code, too

mod offers;
mod recorded;
mod rounds;
mod stage;
mod stories;
