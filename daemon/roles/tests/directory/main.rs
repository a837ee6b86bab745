//! The directory as its peers see it, without sockets: every line that goes in and comes out.
#![allow(clippy::unwrap_used)] // tests, where a panic is the report

mod admission;
mod limits;
mod recorded;
mod relay;
mod room;
