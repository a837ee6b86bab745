//! The maker: lends coins to takers for a fee (`spec/roles.md` 4; `spec/protocol.md` 7.3 to 7.6).
//!
//! [`Maker`] opens no sockets, reads no clock and has no keys of the wallet, which signs for it. It is told what the channel
//! heard, what the wallet is and what became of its questions; it says what to send, announce and ask.
//!
//! # Rules for drivers
//!
//! * `now` is a steady clock, the same in every call.
//! * [`check_start`] first: it says at once why a maker cannot work. Then [`Maker::new`] with a nick that was never used.
//! * After every input: take outputs until [`Maker::poll`] returns `None`, then sleep until [`Maker::next_wake`] or the
//!   next input, and call [`Maker::tick`] then.
//! * Questions are answered in any order, but done in the order in which they were asked.
//! * [`Maker::wallet`] at every change of the wallet and at every block; [`Maker::book`] now and then: its makers are
//!   asked to publish commitments, and our own offers in it show that we can be found.
//! * After [`Output::Finished`] nothing comes any more. Rounds that were signed are followed by the wallet.

mod announce;
mod bond;
mod check;
mod coins;
mod config;
mod desk;
mod hp2;
mod machine;
mod offers;
mod output;
mod progress;
mod push;
mod replies;
mod session;
mod sessions;
pub mod statement;

pub use coins::CoinRules;
pub use config::{
    MakerConfig, MakerTerms, MakerTiming, Publication, StartRefusal, TermsError, check_start,
};
pub use machine::Maker;
pub use output::{BondView, MakerEnd, MakerProblem, MakerState, OfferView, Output};
pub use sessions::{MAX_PER_LINK, MAX_SESSIONS};
