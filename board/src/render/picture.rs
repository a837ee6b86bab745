//! The picture in memory.

use std::convert::Infallible;

use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use crate::Panel;

/// All pixels of a panel, row by row. On the small panel they are black or white.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    panel: Panel,
    pixels: Vec<Rgb565>,
}

impl Picture {
    /// A picture of one colour.
    #[must_use]
    pub fn new(panel: Panel, color: Rgb565) -> Self {
        let (width, height) = panel.size();
        // A panel has a few thousand pixels.
        let count = usize::try_from(width * height).unwrap_or(0);
        Self { panel, pixels: vec![color; count] }
    }

    /// The panel that it is for.
    #[must_use]
    pub const fn panel(&self) -> Panel {
        self.panel
    }

    /// The rows from the top, each from the left.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[Rgb565]> + ExactSizeIterator {
        let width = usize::try_from(self.panel.size().0).unwrap_or(1);
        self.pixels.chunks_exact(width)
    }

    /// The pixel's colour; `None` beside the picture.
    #[must_use]
    pub fn pixel(&self, at: Point) -> Option<Rgb565> {
        self.index(at).and_then(|index| self.pixels.get(index)).copied()
    }

    /// Red, green and blue of each pixel, row by row.
    #[must_use]
    pub fn to_rgb(&self) -> Vec<u8> {
        self.pixels
            .iter()
            .flat_map(|pixel| {
                let color = Rgb888::from(*pixel);
                [color.r(), color.g(), color.b()]
            })
            .collect()
    }

    /// Copies the picture.
    ///
    /// # Errors
    /// Those of the target.
    pub fn draw<D>(&self, target: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<Rgb565>,
    {
        let colors = self.pixels.iter().map(|color| D::Color::from(*color));
        target.fill_contiguous(&self.bounding_box(), colors)
    }

    /// Copies the picture to a target of two colours.
    ///
    /// # Errors
    /// Those of the target.
    pub fn draw_mono<D>(&self, target: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<BinaryColor>,
    {
        let colors = self
            .pixels
            .iter()
            .map(|color| D::Color::from(BinaryColor::from(*color != Rgb565::BLACK)));
        target.fill_contiguous(&self.bounding_box(), colors)
    }

    /// Takes two thirds of the light away.
    pub(super) fn dim(&mut self) {
        for pixel in &mut self.pixels {
            *pixel = Rgb565::new(pixel.r() / 3, pixel.g() / 3, pixel.b() / 3);
        }
    }

    fn index(&self, at: Point) -> Option<usize> {
        let (width, height) = self.panel.size();
        let (x, y) = (u32::try_from(at.x).ok()?, u32::try_from(at.y).ok()?);
        if x >= width || y >= height {
            return None;
        }
        usize::try_from(y * width + x).ok()
    }
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        let (width, height) = self.panel.size();
        Size::new(width, height)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb565;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb565>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            if let Some(pixel) = self.index(at).and_then(|index| self.pixels.get_mut(index)) {
                *pixel = color;
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: Rgb565) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        self.draw_iter(area.points().map(|at| Pixel(at, color)))
    }
}
