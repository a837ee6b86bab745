//! Drivers of the two panels, for any bus of `embedded-hal`; and the buses of Linux that they are on.

mod ssd1306;
mod st7789;

use std::io;
use std::path::PathBuf;

use embedded_hal::digital::{ErrorType, OutputPin};
use linux_embedded_hal::{Delay, I2cdev, SpidevDevice, spidev::SpidevOptions};

pub use ssd1306::Ssd1306;
pub use st7789::St7789;

use super::{Display, OpenDisplay};

/// Which display there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SSD1306, 128 by 64, on I2C.
    Ssd1306,
    /// ST7789, 240 by 240, on SPI.
    St7789,
    /// Whichever is found: the one on I2C, which can be asked, before the one on SPI, which cannot.
    Any,
}

/// Where the displays are.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Which one is looked for.
    pub kind: Kind,
    /// I2C bus of the small one.
    pub i2c: PathBuf,
    /// Its address.
    pub address: u8,
    /// SPI device of the large one.
    pub spi: PathBuf,
}

/// A line of the large display: data or command, reset, backlight.
pub type Line = Box<dyn FnMut(bool) -> io::Result<()> + Send>;

/// The lines of the large display. They are taken when it is first looked for.
pub struct Lines {
    /// Low for a command, high for data.
    pub data: Line,
    /// Low resets.
    pub reset: Line,
    /// High is lit.
    pub backlight: Line,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

/// A line as `embedded-hal` wants it.
struct Pin(Line);

/// A line that could not be set.
#[derive(Debug)]
struct PinError(#[allow(dead_code, reason = "read by Debug")] io::Error);

impl embedded_hal::digital::Error for PinError {
    fn kind(&self) -> embedded_hal::digital::ErrorKind {
        embedded_hal::digital::ErrorKind::Other
    }
}

impl ErrorType for Pin {
    type Error = PinError;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), PinError> {
        self.0(false).map_err(PinError)
    }

    fn set_high(&mut self) -> Result<(), PinError> {
        self.0(true).map_err(PinError)
    }
}

/// 24 MHz: the ST7789 is specified for 15 ns a write, cheap wires are not.
const SPI_HZ: u32 = 24_000_000;

/// Looks for the display of the wiring; `lines` gives those of the large one, each time that it is opened.
pub fn open(wiring: Wiring, mut lines: impl FnMut() -> io::Result<Lines> + 'static) -> OpenDisplay {
    let small = move |wiring: &Wiring| -> io::Result<Box<dyn Display>> {
        let bus = I2cdev::new(&wiring.i2c)
            .map_err(|error| io::Error::other(format!("{}: {error}", wiring.i2c.display())))?;
        Ok(Box::new(Ssd1306::open(bus, wiring.address)?))
    };
    let mut large = move |wiring: &Wiring| -> io::Result<Box<dyn Display>> {
        let mut spi = SpidevDevice::open(&wiring.spi)
            .map_err(|error| io::Error::other(format!("{}: {error}", wiring.spi.display())))?;
        spi.configure(&SpidevOptions::new().bits_per_word(8).max_speed_hz(SPI_HZ).build())?;
        let Lines { data, reset, backlight } = lines()?;
        Ok(Box::new(St7789::open(spi, Pin(data), Pin(reset), backlight, &mut Delay)?))
    };
    Box::new(move || match wiring.kind {
        Kind::Ssd1306 => small(&wiring),
        Kind::St7789 => large(&wiring),
        Kind::Any => small(&wiring).or_else(|on_i2c| {
            large(&wiring).map_err(|on_spi| io::Error::other(format!("{on_i2c}; {on_spi}")))
        }),
    })
}
