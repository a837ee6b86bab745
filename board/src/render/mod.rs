//! A [`Frame`] and a size in, pixels out. The picture is drawn in memory, the same for every backend and for the
//! golden images, and then copied to any `DrawTarget` ([`Picture::draw`], [`Picture::draw_mono`]).
//!
//! Every text is laid out by `Sheet`, which remembers where each one stands, so that a test can see that none leaves
//! the panel and no two overlap ([`texts`]).

mod face;
mod large;
mod picture;
mod qr;
mod sheet;
mod small;

pub use picture::Picture;
pub use sheet::Placed;

use sheet::Sheet;

use crate::Panel;
use crate::screen::{Frame, Light};

/// Draws a frame for a panel.
#[must_use]
pub fn picture(frame: &Frame, panel: Panel) -> Picture {
    sheet(frame, panel).finish().0
}

/// The texts of a frame and where they stand, with the names that were cut.
#[must_use]
pub fn texts(frame: &Frame, panel: Panel) -> Vec<Placed> {
    sheet(frame, panel).finish().1
}

fn sheet(frame: &Frame, panel: Panel) -> Sheet {
    let mut sheet = Sheet::new(panel);
    if frame.light != Light::Off {
        match panel {
            Panel::Small => small::draw(frame, &mut sheet),
            Panel::Large => large::draw(frame, &mut sheet),
        }
        // The small panel dims by itself; the large one's backlight is on or off.
        if frame.light == Light::Dim && panel == Panel::Large {
            sheet.dim();
        }
    }
    sheet
}

/// Colours of the large panel, each at a contrast of at least 7 to 1 to [`palette::BACKGROUND`].
pub mod palette {
    use embedded_graphics::pixelcolor::Rgb565;
    use embedded_graphics::prelude::WebColors;

    const fn rgb(red: u8, green: u8, blue: u8) -> Rgb565 {
        Rgb565::new(red >> 3, green >> 2, blue >> 3)
    }

    /// Nearly black.
    pub const BACKGROUND: Rgb565 = rgb(8, 12, 16);
    /// Locked, and everything that is not the matter at hand.
    pub const GREY: Rgb565 = rgb(176, 180, 184);
    /// Idle.
    pub const BLUE: Rgb565 = rgb(120, 184, 255);
    /// Maker.
    pub const GREEN: Rgb565 = rgb(88, 224, 128);
    /// Taker.
    pub const AMBER: Rgb565 = rgb(255, 192, 64);
    /// Something waits for a person.
    pub const WHITE: Rgb565 = Rgb565::CSS_WHITE;
    /// Warning.
    pub const RED: Rgb565 = rgb(255, 136, 120);
    /// Text on a warning.
    pub const BLACK: Rgb565 = Rgb565::CSS_BLACK;
}
