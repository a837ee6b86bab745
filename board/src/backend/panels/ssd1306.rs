//! The small panel: SSD1306, 128 by 64, on I2C.

use std::io;

use embedded_hal::i2c::I2c;
use ssd1306::mode::BufferedGraphicsMode;
use ssd1306::prelude::{Brightness, DisplayConfig, I2CInterface};
use ssd1306::rotation::DisplayRotation;
use ssd1306::size::DisplaySize128x64;
use ssd1306::{I2CDisplayInterface, Ssd1306 as Driver};

use crate::Panel;
use crate::backend::{Display, Renew, Shot};
use crate::screen::Light;

/// An SSD1306 that answers at its address.
#[allow(missing_debug_implementations, reason = "the driver has none")]
pub struct Ssd1306<I> {
    driver: Driver<I2CInterface<I>, DisplaySize128x64, BufferedGraphicsMode<DisplaySize128x64>>,
    light: Light,
}

impl<I: I2c> Ssd1306<I> {
    /// Sets the display up, empty.
    ///
    /// # Errors
    /// When nothing acknowledges at the address.
    pub fn open(bus: I, address: u8) -> io::Result<Self> {
        let interface = I2CDisplayInterface::new_custom_address(bus, address);
        let mut driver = Driver::new(interface, DisplaySize128x64, DisplayRotation::Rotate0)
            .into_buffered_graphics_mode();
        driver.init().map_err(gone)?;
        driver.clear_buffer();
        driver.flush().map_err(gone)?;
        let mut display = Self { driver, light: Light::Full };
        display.set_light(Light::Full)?;
        Ok(display)
    }

    fn set_light(&mut self, light: Light) -> io::Result<()> {
        self.driver.set_display_on(light != Light::Off).map_err(gone)?;
        let brightness =
            if light == Light::Full { Brightness::BRIGHT } else { Brightness::DIMMEST };
        self.driver.set_brightness(brightness).map_err(gone)?;
        self.light = light;
        Ok(())
    }
}

impl<I: I2c> Display for Ssd1306<I> {
    fn panel(&self) -> Panel {
        Panel::Small
    }

    fn show(&mut self, shot: Shot<'_>) -> io::Result<()> {
        shot.picture.draw_mono(&mut self.driver).map_err(gone)?;
        self.driver.flush().map_err(gone)?;
        if self.light != shot.frame.light {
            self.set_light(shot.frame.light)?;
        }
        Ok(())
    }

    /// A display that is not there does not acknowledge; one that was away and has come back is switched off and
    /// empty, which cannot be asked: see [`Display::renew`].
    fn check(&mut self) -> io::Result<()> {
        self.set_light(self.light)
    }

    fn renew(&self) -> Renew {
        Renew::Minutely
    }
}

fn gone(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("the SSD1306 does not answer: {error:?}"))
}
