//! Letters. Each face is one size of a fixed-width font in several alphabets; what none of them has is an empty box.

use embedded_graphics::mono_font::mapping::{
    ISO_8859_1, ISO_8859_2, ISO_8859_5, ISO_8859_7, ISO_8859_9, ISO_8859_13, ISO_8859_15,
    StrGlyphMapping,
};
use embedded_graphics::mono_font::{
    MonoFont, MonoTextStyle, iso_8859_1, iso_8859_2, iso_8859_5, iso_8859_7, iso_8859_9,
    iso_8859_13, iso_8859_15,
};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};

/// One size of letters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Face {
    fonts: [&'static MonoFont<'static>; 7],
    /// Each pixel of the font is a square of so many, with its corners smoothed.
    scale: u32,
}

const ALPHABETS: [&StrGlyphMapping<'static>; 7] =
    [&ISO_8859_1, &ISO_8859_2, &ISO_8859_5, &ISO_8859_7, &ISO_8859_9, &ISO_8859_13, &ISO_8859_15];

macro_rules! face {
    ($name:ident, $font:ident, $scale:literal, $doc:literal) => {
        #[doc = $doc]
        pub(super) const $name: Face = Face {
            fonts: [
                &iso_8859_1::$font,
                &iso_8859_2::$font,
                &iso_8859_5::$font,
                &iso_8859_7::$font,
                &iso_8859_9::$font,
                &iso_8859_13::$font,
                &iso_8859_15::$font,
            ],
            scale: $scale,
        };
    };
}

face!(TINY, FONT_4X6, 1, "32 columns on the small panel: amounts that fit no other way.");
face!(NARROW, FONT_5X8, 1, "25 columns on the small panel.");
face!(TEXT, FONT_6X10, 1, "21 columns on the small panel.");
face!(BIG, FONT_10X20, 1, "12 columns on the small panel, 22 on the large one.");
face!(NOTE, FONT_6X13, 1, "37 columns on the large panel.");
face!(LABEL, FONT_8X13, 1, "27 columns on the large panel.");
face!(
    AMOUNT,
    FONT_9X18_BOLD,
    2,
    "12 columns on the large panel; its digits are bolder than those of HEADLINE."
);
face!(HEADLINE, FONT_10X20, 2, "11 columns on the large panel.");
face!(STATE, FONT_10X20, 3, "7 columns on the large panel.");

impl Face {
    /// Width of a letter in pixels.
    pub(super) const fn width(&self) -> u32 {
        self.fonts[0].character_size.width * self.scale
    }

    /// Height of a letter in pixels.
    pub(super) const fn height(&self) -> u32 {
        self.fonts[0].character_size.height * self.scale
    }

    /// How many letters fit into so many pixels.
    pub(super) fn columns(&self, width: u32) -> usize {
        usize::try_from(width / self.width()).unwrap_or(0)
    }

    /// Calls `dot` for each pixel of a letter, from its top left corner.
    pub(super) fn letter(&self, letter: char, mut dot: impl FnMut(Point)) {
        let mut bits = Bits::new(self.fonts[0].character_size);
        bits.draw(letter, &self.fonts);
        match self.scale {
            1 => bits.dots().for_each(&mut dot),
            2 => bits.scaled(2, twice, &mut dot),
            _ => bits.scaled(3, thrice, &mut dot),
        }
    }
}

/// A letter as bits, with an empty border to look over.
struct Bits {
    size: Size,
    set: Vec<bool>,
}

impl Bits {
    fn new(size: Size) -> Self {
        let count = usize::try_from(size.width * size.height).unwrap_or(0);
        Self { size, set: vec![false; count] }
    }

    fn index(&self, at: Point) -> Option<usize> {
        let (x, y) = (u32::try_from(at.x).ok()?, u32::try_from(at.y).ok()?);
        if x >= self.size.width || y >= self.size.height {
            return None;
        }
        usize::try_from(y * self.size.width + x).ok()
    }

    fn get(&self, x: i32, y: i32) -> bool {
        self.index(Point::new(x, y)).and_then(|index| self.set.get(index)).copied().unwrap_or(false)
    }

    fn put(&mut self, at: Point) {
        if let Some(bit) = self.index(at).and_then(|index| self.set.get_mut(index)) {
            *bit = true;
        }
    }

    fn points(&self) -> impl Iterator<Item = Point> + use<> {
        let (width, height) = (self.size.width.cast_signed(), self.size.height.cast_signed());
        (0..height).flat_map(move |y| (0..width).map(move |x| Point::new(x, y)))
    }

    fn dots(&self) -> impl Iterator<Item = Point> {
        self.points().filter(|at| self.get(at.x, at.y))
    }

    fn draw(&mut self, letter: char, fonts: &[&'static MonoFont<'static>]) {
        let (width, height) = (self.size.width.cast_signed(), self.size.height.cast_signed());
        if letter == '…' {
            // No alphabet has it. Three dots on the line that letters stand on.
            let base = i32::try_from(fonts.first().map_or(0, |font| font.baseline)).unwrap_or(0);
            let step = (width / 3).max(1);
            for index in 0..3 {
                self.put(Point::new(index * step, base));
                if height >= 18 {
                    self.put(Point::new(index * step, base - 1));
                }
            }
            return;
        }
        let known = match letter {
            ' '..='~' => Some(0),
            _ => ALPHABETS.iter().position(|alphabet| alphabet.contains(letter)),
        };
        let Some(font) = known.and_then(|known| fonts.get(known)) else {
            for y in height / 5..height * 4 / 5 {
                for x in 0..width - 1 {
                    let edge =
                        x == 0 || x == width - 2 || y == height / 5 || y == height * 4 / 5 - 1;
                    if edge {
                        self.put(Point::new(x, y));
                    }
                }
            }
            return;
        };
        let mut buffer = [0; 4];
        let style = MonoTextStyle::new(font, BinaryColor::On);
        let text = letter.encode_utf8(&mut buffer);
        // A set of bits cannot fail to be drawn on.
        let _: Result<Point, _> =
            Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(self);
    }

    /// Makes each bit a square of so many; `rule` says which bits of the square are set.
    fn scaled(
        &self,
        scale: i32,
        rule: fn(&Self, Point, &mut dyn FnMut(i32, i32)),
        dot: &mut impl FnMut(Point),
    ) {
        for at in self.points() {
            rule(self, at, &mut |x, y| dot(Point::new(at.x * scale + x, at.y * scale + y)));
        }
    }
}

impl OriginDimensions for Bits {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Bits {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Self::Error> {
        for Pixel(at, color) in pixels {
            if color.is_on() {
                self.put(at);
            }
        }
        Ok(())
    }
}

/// The four neighbours and the bit itself: above, left, right, below, middle.
fn cross(bits: &Bits, at: Point) -> (bool, bool, bool, bool, bool) {
    (
        bits.get(at.x, at.y - 1),
        bits.get(at.x - 1, at.y),
        bits.get(at.x + 1, at.y),
        bits.get(at.x, at.y + 1),
        bits.get(at.x, at.y),
    )
}

/// Scale2x: a corner takes the colour of its two neighbours when they agree and the other two do not.
fn twice(bits: &Bits, at: Point, put: &mut dyn FnMut(i32, i32)) {
    let (up, left, right, down, middle) = cross(bits, at);
    let turns = up != down && left != right;
    let corner = |a: bool, b: bool| if turns && a == b { a } else { middle };
    for (x, y, set) in [
        (0, 0, corner(up, left)),
        (1, 0, corner(up, right)),
        (0, 1, corner(down, left)),
        (1, 1, corner(down, right)),
    ] {
        if set {
            put(x, y);
        }
    }
}

/// Scale3x, by the same thought.
fn thrice(bits: &Bits, at: Point, put: &mut dyn FnMut(i32, i32)) {
    let (up, left, right, down, middle) = cross(bits, at);
    let turns = up != down && left != right;
    let corner = |a: bool, b: bool| if turns && a == b { a } else { middle };
    let beside = |x: i32, y: i32| bits.get(at.x + x, at.y + y);
    // An edge between two corners follows one that bends away from the middle on the other side.
    let edge = |one: (bool, bool), far_one: bool, two: (bool, bool), far_two: bool| {
        let bends = turns
            && ((one.0 == one.1 && middle != far_two && one.0 != middle)
                || (two.0 == two.1 && middle != far_one && two.0 != middle));
        if bends { !middle } else { middle }
    };
    let (nw, ne, sw, se) = (beside(-1, -1), beside(1, -1), beside(-1, 1), beside(1, 1));
    let squares = [
        (0, 0, corner(up, left)),
        (1, 0, edge((up, left), nw, (up, right), ne)),
        (2, 0, corner(up, right)),
        (0, 1, edge((left, up), nw, (left, down), sw)),
        (1, 1, middle),
        (2, 1, edge((right, up), ne, (right, down), se)),
        (0, 2, corner(down, left)),
        (1, 2, edge((down, left), sw, (down, right), se)),
        (2, 2, corner(down, right)),
    ];
    for (x, y, set) in squares {
        if set {
            put(x, y);
        }
    }
}
