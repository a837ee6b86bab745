//! Taker and maker as the API starts and shows them (`spec/roles.md` 3.16, 4.13; `spec/api.md` 6.16 to 6.18, 14.9,
//! App. C 1).
//!
//! The API checks a request, takes the state of the daemon for the role, and hands the rest to a [`RoleRunner`]. What
//! the role reports through its desk is kept here for `/session` and `/taker/status` and told to websockets.

mod board;
mod json;
mod run;

pub(crate) use board::RoleBoard;
pub(crate) use json::{MakerExtras, TakerStatusJson, offer_list};
pub use run::{MakerDesk, MakerReach, MakerRun, RoleRunner, TakerDesk, TakerRun};
