//! The face of the box: what its display shows, what its button means, how its light blinks.
//!
//! A status of the daemon ([`link`]), the button ([`button`]) and the time go into the model ([`ui`]); it says which
//! [`screen`] is to be seen, which pattern the light has ([`led`]) and what is told to the daemon. [`render`] turns a
//! screen into pixels for any `DrawTarget`. None of these reads a clock, a file or a socket; [`run`] does that, with
//! a [`backend`] for the hardware at hand.
//!
//! What it deliberately is not: it holds no key, decides nothing about money and depends on no other crate of ours.
//! All it can do to the daemon is in [`link::Message`].

pub mod backend;
pub mod button;
pub mod led;
pub mod link;
pub mod render;
pub mod run;
pub mod screen;
pub mod text;
pub mod ui;
mod words;

/// The display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// 128 by 64, black and white.
    Small,
    /// 240 by 240, colours.
    Large,
}

impl Panel {
    /// Width and height in pixels.
    #[must_use]
    pub const fn size(self) -> (u32, u32) {
        match self {
            Self::Small => (128, 64),
            Self::Large => (240, 240),
        }
    }

    /// `WIDTHxHEIGHT`, as the board link says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "128x64",
            Self::Large => "240x240",
        }
    }
}
