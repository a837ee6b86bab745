//! The large panel: ST7789, 240 by 240, on SPI. Only rows that have changed are sent.

use std::io;

use embedded_graphics::pixelcolor::Rgb565;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use mipidsi::interface::{Interface, InterfaceKind};
use mipidsi::models::ST7789;
use mipidsi::options::ColorInversion;
use mipidsi::{Builder, Display as Driver};

use super::Line;
use crate::Panel;
use crate::backend::{Display, Renew, Shot};
use crate::render::Picture;
use crate::screen::Light;

/// Bytes sent in one go. spidev takes 4096 unless it is told otherwise.
const CHUNK: usize = 4096;

/// An ST7789. It cannot be asked whether it is there.
#[allow(missing_debug_implementations, reason = "the driver has none")]
pub struct St7789<S, D, R>
where
    S: SpiDevice,
    D: OutputPin,
    R: OutputPin,
{
    driver: Driver<Bus<S, D>, ST7789, R>,
    backlight: Line,
    shown: Option<Picture>,
}

impl<S: SpiDevice, D: OutputPin, R: OutputPin> St7789<S, D, R> {
    /// Resets the display and sets it up, with its backlight off.
    ///
    /// # Errors
    /// When the bus or a line cannot be used.
    pub fn open(
        spi: S,
        data: D,
        reset: R,
        mut backlight: Line,
        delay: &mut impl DelayNs,
    ) -> io::Result<Self> {
        backlight(false)?;
        let bus = Bus { spi, data, buffer: Vec::with_capacity(CHUNK) };
        let driver = Builder::new(ST7789, bus)
            .display_size(240, 240)
            .invert_colors(ColorInversion::Inverted)
            .reset_pin(reset)
            .init(delay)
            .map_err(|error| io::Error::other(format!("the ST7789 cannot be set up: {error:?}")))?;
        Ok(Self { driver, backlight, shown: None })
    }
}

impl<S: SpiDevice, D: OutputPin, R: OutputPin> Display for St7789<S, D, R> {
    fn panel(&self) -> Panel {
        Panel::Large
    }

    fn show(&mut self, shot: Shot<'_>) -> io::Result<()> {
        let before = self.shown.take();
        let changed: Vec<bool> = match &before {
            None => vec![true; shot.picture.rows().len()],
            Some(before) => {
                shot.picture.rows().zip(before.rows()).map(|(new, old)| new != old).collect()
            }
        };
        let rows: Vec<&[Rgb565]> = shot.picture.rows().collect();
        let mut first = 0;
        for run in changed.chunk_by(|one, other| one == other) {
            let next = first + run.len();
            if run.first() == Some(&true) {
                let pixels = rows
                    .get(first..next)
                    .unwrap_or_default()
                    .iter()
                    .flat_map(|row| row.iter().copied());
                // Rows of a panel: at most 240.
                let (top, bottom) =
                    (u16::try_from(first).unwrap_or(0), u16::try_from(next).unwrap_or(0));
                self.driver
                    .set_pixels(0, top, 239, bottom.saturating_sub(1), pixels)
                    .map_err(failed)?;
            }
            first = next;
        }
        (self.backlight)(shot.frame.light != Light::Off)?;
        self.shown = Some(shot.picture.clone());
        Ok(())
    }

    fn renew(&self) -> Renew {
        Renew::OnWake
    }
}

fn failed(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("the ST7789 cannot be written to: {error:?}"))
}

/// SPI with a line that tells commands from data. Owns its buffer, unlike the driver's own.
struct Bus<S, D> {
    spi: S,
    data: D,
    buffer: Vec<u8>,
}

/// Neither bus nor line may fail; it is only said that one did.
#[derive(Debug)]
enum BusError<S, D> {
    #[allow(dead_code, reason = "read by Debug")]
    Spi(S),
    #[allow(dead_code, reason = "read by Debug")]
    Line(D),
}

impl<S: SpiDevice, D: OutputPin> Bus<S, D> {
    fn flush(&mut self) -> Result<(), BusError<S::Error, D::Error>> {
        if !self.buffer.is_empty() {
            self.spi.write(&self.buffer).map_err(BusError::Spi)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl<S: SpiDevice, D: OutputPin> Interface for Bus<S, D> {
    type Word = u8;
    type Error = BusError<S::Error, D::Error>;

    const KIND: InterfaceKind = InterfaceKind::Serial4Line;

    fn send_command(&mut self, command: u8, args: &[u8]) -> Result<(), Self::Error> {
        self.data.set_low().map_err(BusError::Line)?;
        self.spi.write(&[command]).map_err(BusError::Spi)?;
        self.data.set_high().map_err(BusError::Line)?;
        if args.is_empty() { Ok(()) } else { self.spi.write(args).map_err(BusError::Spi) }
    }

    fn send_pixels<const N: usize>(
        &mut self,
        pixels: impl IntoIterator<Item = [u8; N]>,
    ) -> Result<(), Self::Error> {
        for pixel in pixels {
            if self.buffer.len() + N > CHUNK {
                self.flush()?;
            }
            self.buffer.extend_from_slice(&pixel);
        }
        self.flush()
    }

    fn send_repeated_pixel<const N: usize>(
        &mut self,
        pixel: [u8; N],
        count: u32,
    ) -> Result<(), Self::Error> {
        self.send_pixels((0..count).map(|_| pixel))
    }
}
