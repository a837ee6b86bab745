//! The drivers against emulated chips: what is sent over the bus makes the same picture as the golden images, and a
//! chip that goes away is noticed. The emulators are written from the data sheets, not from the drivers.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod gallery;
mod support;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{ErrorKind as PinErrorKind, ErrorType as PinErrorType, OutputPin};
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use embedded_hal::spi::{
    ErrorKind as SpiErrorKind, ErrorType as SpiErrorType, Operation as SpiOperation, SpiDevice,
};
use joinery_board::Panel;
use joinery_board::backend::panels::{Ssd1306, St7789};
use joinery_board::backend::{Display, Shot};
use joinery_board::render::picture;
use joinery_board::screen::{Frame, Light};

/// SSD1306 (data sheet rev 1.1): control byte, commands of section 9, horizontal addressing.
struct Ssd1306Chip {
    present: bool,
    ram: Vec<[u8; 128]>,
    columns: (u8, u8),
    pages: (u8, u8),
    at: (u8, u8),
    on: bool,
    contrast: u8,
    horizontal: bool,
    mirrored: (bool, bool),
    charge_pump: bool,
    command: Vec<u8>,
    written: usize,
}

impl Ssd1306Chip {
    /// Just powered: off, with anything in its memory.
    fn new() -> Self {
        Self {
            present: true,
            ram: vec![[0xa5; 128]; 8],
            columns: (0, 127),
            pages: (0, 7),
            at: (0, 0),
            on: false,
            contrast: 0x7f,
            horizontal: false,
            mirrored: (false, false),
            charge_pump: false,
            command: Vec::new(),
            written: 0,
        }
    }

    fn command(&mut self, byte: u8) {
        self.command.push(byte);
        let arguments = match self.command[0] {
            0x20 | 0x81 | 0x8d | 0xa8 | 0xd3 | 0xd5 | 0xd9 | 0xda | 0xdb => 1,
            0x21 | 0x22 => 2,
            _ => 0,
        };
        if self.command.len() <= arguments {
            return;
        }
        match self.command[..] {
            [0x20, mode] => self.horizontal = mode & 3 == 0,
            [0x21, first, last] => (self.columns, self.at.0) = ((first, last), first),
            [0x22, first, last] => (self.pages, self.at.1) = ((first & 7, last & 7), first & 7),
            [0x81, contrast] => self.contrast = contrast,
            [0x8d, pump] => self.charge_pump = pump & 4 != 0,
            [0xa0 | 0xa1] => self.mirrored.0 = byte == 0xa1,
            [0xc0 | 0xc8] => self.mirrored.1 = byte == 0xc8,
            [0xa6] | [0xa4] | [0x2e] | [0x40..=0x7f] => {}
            [0xa8, rows] => assert_eq!(rows, 63),
            [0xd3, offset] => assert_eq!(offset, 0),
            [0xda, pins] => {
                assert_eq!(pins & 0x30, 0x10, "alternative pins, as 128 by 64 panels have them")
            }
            [0xd5 | 0xd9 | 0xdb, _] => {}
            [0xae | 0xaf] => self.on = byte == 0xaf,
            _ => panic!("unknown command {:x?}", self.command),
        }
        self.command.clear();
    }

    fn data(&mut self, byte: u8) {
        assert!(self.horizontal);
        let (column, page) = self.at;
        self.ram[usize::from(page)][usize::from(column)] = byte;
        self.written += 1;
        self.at = match (column == self.columns.1, page == self.pages.1) {
            (false, _) => (column + 1, page),
            (true, false) => (self.columns.0, page + 1),
            (true, true) => (self.columns.0, self.pages.0),
        };
    }

    /// What is to be seen with the cable at the top, as modules are soldered.
    fn pixel(&self, x: u32, y: u32) -> bool {
        assert_eq!(self.mirrored, (true, true));
        let byte = self.ram[usize::try_from(y / 8).unwrap()][usize::try_from(x).unwrap()];
        byte >> (y % 8) & 1 == 1
    }
}

#[derive(Clone)]
struct I2cBus(Rc<RefCell<Ssd1306Chip>>);

#[derive(Debug)]
struct NoAnswer;

impl embedded_hal::i2c::Error for NoAnswer {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)
    }
}

impl ErrorType for I2cBus {
    type Error = NoAnswer;
}

impl I2c for I2cBus {
    fn transaction(
        &mut self,
        address: u8,
        operations: &mut [Operation<'_>],
    ) -> Result<(), NoAnswer> {
        let mut chip = self.0.borrow_mut();
        if !chip.present || address != 0x3c {
            return Err(NoAnswer);
        }
        let mut control = None;
        for operation in operations {
            let Operation::Write(bytes) = operation else {
                panic!("the display is only written to")
            };
            for byte in *bytes {
                match control {
                    None => control = Some(*byte),
                    Some(0x00) => chip.command(*byte),
                    Some(0x40) => chip.data(*byte),
                    Some(other) => panic!("control byte {other:x}"),
                }
            }
        }
        Ok(())
    }
}

fn show(display: &mut impl Display, frame: &Frame) -> io::Result<()> {
    let picture = picture(frame, display.panel());
    display.show(Shot { picture: &picture, frame })
}

#[test]
fn the_small_panel_shows_every_screen() {
    let chip = Rc::new(RefCell::new(Ssd1306Chip::new()));
    let mut display = Ssd1306::open(I2cBus(chip.clone()), 0x3c).unwrap();
    for (name, frame) in gallery::frames(Panel::Small) {
        show(&mut display, &frame).unwrap();
        let (chip, picture) = (chip.borrow(), picture(&frame, Panel::Small));
        assert!(chip.charge_pump);
        assert_eq!(chip.on, frame.light != Light::Off);
        for y in 0..64 {
            for x in 0..128 {
                let at = Point::new(x, y);
                let lit = picture.pixel(at) != Some(Rgb565::BLACK);
                assert_eq!(chip.pixel(x.cast_unsigned(), y.cast_unsigned()), lit, "{name} at {at}");
            }
        }
    }
}

#[test]
fn the_small_panel_dims_and_goes_dark() {
    let chip = Rc::new(RefCell::new(Ssd1306Chip::new()));
    let mut display = Ssd1306::open(I2cBus(chip.clone()), 0x3c).unwrap();
    let mut frame = gallery::frames(Panel::Small).remove(0).1;
    let mut seen = Vec::new();
    for light in [Light::Full, Light::Dim, Light::Off, Light::Full] {
        frame.light = light;
        show(&mut display, &frame).unwrap();
        seen.push((chip.borrow().on, chip.borrow().contrast));
    }
    let [full, dim, off, again] = seen[..] else { panic!() };
    assert!(full.0 && dim.0 && !off.0 && again.0);
    assert!(dim.1 < full.1 && again.1 == full.1);
}

#[test]
fn a_small_panel_that_goes_away_is_noticed_and_comes_back() {
    let chip = Rc::new(RefCell::new(Ssd1306Chip::new()));
    let mut display = Ssd1306::open(I2cBus(chip.clone()), 0x3c).unwrap();
    let frames = gallery::frames(Panel::Small);
    show(&mut display, &frames[0].1).unwrap();
    display.check().unwrap();
    chip.borrow_mut().present = false;
    assert!(display.check().is_err());
    assert!(show(&mut display, &frames[1].1).is_err());
    assert!(Ssd1306::open(I2cBus(chip.clone()), 0x3c).is_err());
    *chip.borrow_mut() = Ssd1306Chip::new();
    let mut display = Ssd1306::open(I2cBus(chip.clone()), 0x3c).unwrap();
    show(&mut display, &frames[1].1).unwrap();
    assert!(chip.borrow().on);
}

#[test]
fn nothing_answers_at_another_address() {
    let chip = Rc::new(RefCell::new(Ssd1306Chip::new()));
    assert!(Ssd1306::open(I2cBus(chip), 0x3d).is_err());
}

/// ST7789V (data sheet 1.6): 4-line serial interface, 16 bits a pixel.
#[derive(Default)]
struct St7789Chip {
    data: bool,
    reset: bool,
    resets: usize,
    lit: bool,
    awake: bool,
    on: bool,
    inverted: bool,
    format: u8,
    columns: (u16, u16),
    rows: (u16, u16),
    at: (u16, u16),
    ram: Vec<u16>,
    command: u8,
    arguments: Vec<u8>,
    written: usize,
}

impl St7789Chip {
    fn byte(&mut self, byte: u8) {
        assert!(self.reset, "written to while it is reset");
        if !self.data {
            (self.command, self.arguments) = (byte, Vec::new());
            match byte {
                0x11 => self.awake = true,
                0x13 => {}
                0x20 | 0x21 => self.inverted = byte == 0x21,
                0x29 => self.on = true,
                0x2c => self.at = (self.columns.0, self.rows.0),
                0x2a | 0x2b | 0x36 | 0x3a => {}
                _ => panic!("unknown command {byte:x}"),
            }
            return;
        }
        self.arguments.push(byte);
        match (self.command, &self.arguments[..]) {
            (0x2a, [a, b, c, d]) => {
                self.columns = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            (0x2b, [a, b, c, d]) => {
                self.rows = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            (0x36, [order]) => assert_eq!(*order, 0, "upright, red first"),
            (0x3a, [format]) => self.format = *format,
            (0x2c, [high, low]) => {
                let pixel = u16::from_be_bytes([*high, *low]);
                self.pixel(pixel);
                self.arguments.clear();
            }
            (0x2a..=0x2c, _) => {}
            (command, arguments) => panic!("command {command:x} with {arguments:x?}"),
        }
    }

    fn pixel(&mut self, pixel: u16) {
        assert!(self.awake && self.format & 7 == 5);
        let (x, y) = self.at;
        assert!(x < 240 && y < 240);
        self.ram.resize(240 * 240, 0);
        self.ram[usize::from(y) * 240 + usize::from(x)] = pixel;
        self.written += 1;
        self.at = match (x == self.columns.1, y == self.rows.1) {
            (false, _) => (x + 1, y),
            (true, false) => (self.columns.0, y + 1),
            (true, true) => (self.columns.0, self.rows.0),
        };
    }
}

type Shared = Arc<Mutex<St7789Chip>>;

struct SpiBus(Shared);

#[derive(Debug)]
struct Never;

impl embedded_hal::spi::Error for Never {
    fn kind(&self) -> SpiErrorKind {
        SpiErrorKind::Other
    }
}

impl embedded_hal::digital::Error for Never {
    fn kind(&self) -> PinErrorKind {
        PinErrorKind::Other
    }
}

impl SpiErrorType for SpiBus {
    type Error = Never;
}

impl SpiDevice for SpiBus {
    fn transaction(&mut self, operations: &mut [SpiOperation<'_, u8>]) -> Result<(), Never> {
        let mut chip = self.0.lock().unwrap();
        for operation in operations {
            let SpiOperation::Write(bytes) = operation else {
                panic!("the display is only written to")
            };
            assert!(bytes.len() <= 4096, "more than spidev takes at once");
            for byte in *bytes {
                chip.byte(*byte);
            }
        }
        Ok(())
    }
}

struct Wire(Shared, fn(&mut St7789Chip, bool));

impl PinErrorType for Wire {
    type Error = Never;
}

impl OutputPin for Wire {
    fn set_low(&mut self) -> Result<(), Never> {
        (self.1)(&mut self.0.lock().unwrap(), false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Never> {
        (self.1)(&mut self.0.lock().unwrap(), true);
        Ok(())
    }
}

struct NoTime;

impl DelayNs for NoTime {
    fn delay_ns(&mut self, _: u32) {}
}

fn large(chip: &Shared) -> St7789<SpiBus, Wire, Wire> {
    let light = chip.clone();
    St7789::open(
        SpiBus(chip.clone()),
        Wire(chip.clone(), |chip, level| chip.data = level),
        Wire(chip.clone(), |chip, level| {
            chip.resets += usize::from(level && !chip.reset);
            chip.reset = level;
        }),
        Box::new(move |on| {
            light.lock().unwrap().lit = on;
            Ok(())
        }),
        &mut NoTime,
    )
    .unwrap()
}

#[test]
fn the_large_panel_shows_every_screen() {
    let chip = Shared::default();
    let mut display = large(&chip);
    {
        let chip = chip.lock().unwrap();
        assert!(chip.on && chip.awake && chip.inverted && chip.resets == 1);
        assert!(!chip.lit, "dark until there is a picture");
    }
    for (name, frame) in gallery::frames(Panel::Large) {
        show(&mut display, &frame).unwrap();
        let chip = chip.lock().unwrap();
        assert_eq!(chip.lit, frame.light != Light::Off, "{name}");
        let expected: Vec<u16> = picture(&frame, Panel::Large)
            .rows()
            .flatten()
            .map(|color| color.into_storage())
            .collect();
        assert!(chip.ram == expected, "{name}");
    }
}

#[test]
fn the_large_panel_is_sent_only_what_has_changed() {
    let chip = Shared::default();
    let mut display = large(&chip);
    let frames = gallery::frames(Panel::Large);
    let frame = |name: &str| &frames.iter().find(|(other, _)| other == name).unwrap().1;
    show(&mut display, frame("send")).unwrap();
    assert_eq!(chip.lock().unwrap().written, 240 * 240);
    show(&mut display, frame("send")).unwrap();
    assert_eq!(chip.lock().unwrap().written, 240 * 240, "the same picture costs nothing");
    show(&mut display, frame("send-keep-holding")).unwrap();
    let rows = (chip.lock().unwrap().written - 240 * 240) / 240;
    assert!((1..240).contains(&rows), "{rows} rows");
}
