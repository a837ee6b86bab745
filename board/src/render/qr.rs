//! QR codes: black on white, whole pixels a module, a quiet zone, never inverted.

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use qrcodegen::{QrCode, QrCodeEcc, QrSegment, Version};

use super::sheet::Sheet;
use crate::screen::Access;

/// Modules of white around a code; the small panel has room for half of that at least.
const QUIET: u32 = 4;
/// Digits of the fingerprint in the address, at most: 64 bits cannot be made to match.
const DIGITS: usize = 16;

/// A code, and how many pixels it has room for.
pub(super) struct Code {
    code: QrCode,
}

impl Code {
    /// The phone app's URI if it fits into a square of this many pixels, else the address of the browser wallet with
    /// as many digits of the certificate's fingerprint as fit; `None` if neither does.
    pub(super) fn of(access: &Access, pixels: u32, least_quiet: u32) -> Option<Self> {
        let most = largest(pixels, least_quiet)?;
        let pairing = access.pairing.as_ref().and_then(|uri| encode(&[uri.as_str()], most));
        let code = pairing.or_else(|| {
            let url = access.url.as_ref()?.as_str();
            // Scheme and host are the same in capitals, for which the code needs a third less room.
            let upper = url.to_ascii_uppercase();
            let url = if path(url) == "/" { upper.as_str() } else { url };
            let digits = access.fingerprint.as_ref().map_or("", |fingerprint| fingerprint.as_str());
            let with = (4..=DIGITS)
                .rev()
                .find_map(|count| encode(&[url, "#", digits.get(..count)?], most));
            with.or_else(|| encode(&[url], most))
        })?;
        Some(Self { code })
    }

    /// Draws the code into the middle of a white square.
    pub(super) fn draw(&self, sheet: &mut Sheet, square: Rectangle) {
        sheet.fill(square, Rgb565::WHITE);
        let modules = self.code.size().cast_unsigned();
        let room = square.size.width.min(square.size.height);
        // With the quiet zone if there is room for it at two pixels a module, else as large as two pixels are.
        let scale = (room / (modules + 2 * QUIET)).max(2);
        let offset = (room.saturating_sub(modules * scale) / 2).cast_signed();
        for y in 0..self.code.size() {
            for x in 0..self.code.size() {
                if self.code.get_module(x, y) {
                    let at = Point::new(x, y) * scale.cast_signed() + Point::new_equal(offset);
                    sheet.fill(
                        Rectangle::new(square.top_left + at, Size::new_equal(scale)),
                        Rgb565::BLACK,
                    );
                }
            }
        }
    }
}

/// What follows scheme and host.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}

/// The largest version that fits at two pixels a module.
fn largest(pixels: u32, least_quiet: u32) -> Option<Version> {
    let modules = (pixels / 2).checked_sub(2 * least_quiet)?;
    let version = modules.checked_sub(17)? / 4;
    (1..=40).contains(&version).then(|| Version::new(u8::try_from(version).unwrap_or(1)))
}

/// Encodes texts one after the other, each as densely as it can be.
fn encode(texts: &[&str], most: Version) -> Option<QrCode> {
    let segments: Vec<QrSegment> = texts
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| {
            if QrSegment::is_alphanumeric(text) {
                QrSegment::make_alphanumeric(text)
            } else {
                QrSegment::make_bytes(text.as_bytes())
            }
        })
        .collect();
    QrCode::encode_segments_advanced(&segments, QrCodeEcc::Low, Version::MIN, most, None, true).ok()
}
