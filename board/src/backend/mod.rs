//! What a board is made of, one module each: the only places that name a hardware crate.

#[cfg(feature = "png")]
pub mod png;
