//! A picture with a ruler: places text, cuts what may be cut, refuses to cut what may not.

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{
    PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment,
};

use super::face::Face;
use super::palette;
use super::picture::Picture;
use crate::Panel;
use crate::text::fit;

/// A text where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// As it is drawn.
    pub text: String,
    /// Its letters' cells.
    pub area: Rectangle,
}

/// Which part of its place a text fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

/// The picture that is being drawn.
pub(super) struct Sheet {
    picture: Picture,
    texts: Vec<Placed>,
}

impl Sheet {
    pub(super) fn new(panel: Panel) -> Self {
        let background = match panel {
            Panel::Small => Rgb565::BLACK,
            Panel::Large => palette::BACKGROUND,
        };
        Self { picture: Picture::new(panel, background), texts: Vec::new() }
    }

    pub(super) fn finish(self) -> (Picture, Vec<Placed>) {
        (self.picture, self.texts)
    }

    pub(super) fn dim(&mut self) {
        self.picture.dim();
    }

    /// Draws text into a place of this width with its top at `y`: in the first face that has room for it, else in the
    /// last one, cut with an ellipsis. Returns the height of its letters.
    pub(super) fn text(&mut self, place: Place, text: &str, align: Align, color: Rgb565) -> u32 {
        let count = text.chars().count();
        let fits = |face: &&Face| face.columns(place.width) >= count;
        let Some(face) = place.faces.iter().find(fits).or_else(|| place.faces.last()) else {
            return 0;
        };
        let text = fit(text, face.columns(place.width));
        let width = face.width() * u32::try_from(text.chars().count()).unwrap_or(0);
        let spare = place.width.saturating_sub(width).cast_signed();
        let x = place.x
            + match align {
                Align::Left => 0,
                Align::Center => spare / 2,
                Align::Right => spare,
            };
        // A smaller face than the first stands in the middle of its line.
        let first = place.faces.first().map_or(0, Face::height);
        let y = place.y + first.saturating_sub(face.height()).cast_signed() / 2;
        self.letters(face, &text, Point::new(x, y), color);
        first
    }

    fn letters(&mut self, face: &Face, text: &str, at: Point, color: Rgb565) {
        let mut x = at.x;
        for letter in text.chars() {
            let corner = Point::new(x, at.y);
            let picture = &mut self.picture;
            face.letter(letter, |dot| {
                // A picture in memory takes every pixel.
                let _: Result<(), _> = Pixel(corner + dot, color).draw(picture);
            });
            x += face.width().cast_signed();
        }
        if !text.is_empty() {
            let count = u32::try_from(text.chars().count()).unwrap_or(0);
            let size = Size::new(face.width() * count, face.height());
            self.texts.push(Placed { text: text.to_owned(), area: Rectangle::new(at, size) });
        }
    }

    /// Fills a rectangle.
    pub(super) fn fill(&mut self, area: Rectangle, color: Rgb565) {
        let _: Result<(), _> =
            area.into_styled(PrimitiveStyle::with_fill(color)).draw(&mut self.picture);
    }

    /// Draws the inner edge of a rectangle.
    pub(super) fn outline(&mut self, area: Rectangle, width: u32, color: Rgb565) {
        let style = PrimitiveStyleBuilder::new()
            .stroke_color(color)
            .stroke_width(width)
            .stroke_alignment(StrokeAlignment::Inside)
            .build();
        let _: Result<(), _> = area.into_styled(style).draw(&mut self.picture);
    }

    /// A bar that is filled by `part` of `whole`.
    pub(super) fn bar(&mut self, area: Rectangle, part: u32, whole: u32, color: Rgb565) {
        self.outline(area, 1, color);
        let inside = area.size.width.saturating_sub(4);
        let part = part.min(whole);
        let filled =
            if whole == 0 { 0 } else { u64::from(inside) * u64::from(part) / u64::from(whole) };
        let filled = u32::try_from(filled).unwrap_or(inside);
        let size = Size::new(filled, area.size.height.saturating_sub(4));
        self.fill(Rectangle::new(area.top_left + Point::new(2, 2), size), color);
    }
}

/// Where a text goes: left edge, top, width, and the faces it may have, the best first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: u32,
    pub(super) faces: &'a [Face],
}
