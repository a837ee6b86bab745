//! Draws every screen at both sizes into `board/tests/golden/` and all of them on one sheet, `docs/screens.png`.
//! `make screens` runs it; look at what it drew before you commit it.

#[path = "../tests/gallery/mod.rs"]
mod gallery;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

use anyhow::Context;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X13;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use joinery_board::Panel;
use joinery_board::backend::png;
use joinery_board::render::{Picture, picture};

const COLUMNS: usize = 6;
const CELL: (usize, usize) = (256, 130);
const LARGE_CELL: (usize, usize) = (256, 242);
const CAPTION: usize = 16;
const GAP: usize = 6;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sheet = Sheet { width: COLUMNS * (CELL.0 + GAP) + GAP, rows: Vec::new() };
    for (panel, folder, cell, scale) in
        [(Panel::Small, "small", CELL, 2), (Panel::Large, "large", LARGE_CELL, 1)]
    {
        let directory = root.join("tests/golden").join(folder);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let pictures: Vec<(String, Picture)> = gallery::frames(panel)
            .into_iter()
            .map(|(name, frame)| (name, picture(&frame, panel)))
            .collect();
        for (name, picture) in &pictures {
            std::fs::write(directory.join(format!("{name}.png")), png::encode(picture)?)?;
        }
        for row in pictures.chunks(COLUMNS) {
            sheet.row(row, cell, scale);
        }
    }
    let path = root.join("../docs/screens.png");
    std::fs::write(&path, sheet.encode()?).with_context(|| path.display().to_string())
}

/// Rows of pixels that grow downwards.
struct Sheet {
    width: usize,
    rows: Vec<Rgb888>,
}

impl Sheet {
    fn row(&mut self, pictures: &[(String, Picture)], cell: (usize, usize), scale: i32) {
        let top = self.rows.len() / self.width;
        let height = cell.1 + CAPTION + GAP;
        self.rows.resize((top + height) * self.width, Rgb888::new(70, 70, 78));
        for (column, (name, picture)) in pictures.iter().enumerate() {
            let corner = Point::new(as_i32(GAP + column * (cell.0 + GAP)), as_i32(top));
            let style = MonoTextStyle::new(&FONT_6X13, Rgb888::WHITE);
            let _ = Text::with_baseline(name, corner, style, Baseline::Top).draw(self);
            let corner = corner + Point::new(0, as_i32(CAPTION));
            for at in picture.bounding_box().points() {
                let Some(color) = picture.pixel(at) else { continue };
                for dot in 0..scale * scale {
                    let at = corner + at * scale + Point::new(dot % scale, dot / scale);
                    let _ = Pixel(at, Rgb888::from(color)).draw(self);
                }
            }
        }
    }

    fn encode(&self) -> std::io::Result<Vec<u8>> {
        let rgb: Vec<u8> =
            self.rows.iter().flat_map(|color| [color.r(), color.g(), color.b()]).collect();
        let height = self.rows.len() / self.width;
        png::encode_rgb(as_i32(self.width).cast_unsigned(), as_i32(height).cast_unsigned(), &rgb)
    }
}

fn as_i32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl OriginDimensions for Sheet {
    fn size(&self) -> Size {
        Size::new(
            as_i32(self.width).cast_unsigned(),
            as_i32(self.rows.len() / self.width).cast_unsigned(),
        )
    }
}

impl DrawTarget for Sheet {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Self::Error> {
        for Pixel(at, color) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else { continue };
            if x < self.width
                && let Some(pixel) = self.rows.get_mut(y * self.width + x)
            {
                *pixel = color;
            }
        }
        Ok(())
    }
}
