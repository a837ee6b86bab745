//! Button, light and lines of the large display of a Raspberry Pi, by rppal; needs `/dev/gpiomem`.

use std::io;
use std::path::Path;
use std::time::Duration;

use rppal::gpio::{Gpio, InputPin, Trigger};

use super::lamp::Lamp;
use super::panels::{self, Line, Lines, Wiring};
use super::{Inputs, Parts, spawn};

/// GPIO numbers.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The button, to ground.
    pub button: u8,
    /// The light in it.
    pub led: u8,
    /// Data or command of the large display.
    pub data: u8,
    /// Reset of the large display.
    pub reset: u8,
    /// Backlight of the large display.
    pub backlight: u8,
}

/// The level is read this often even if no edge was told, in case one was lost.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Whether rppal can work here: kernels without Raspberry Pi's own patches do not have its device, Debian's among them.
#[must_use]
pub fn is_possible() -> bool {
    (0..=4).any(|number| Path::new(&format!("/dev/gpiomem{number}")).exists())
        || Path::new("/dev/gpiomem").exists()
}

/// A board on a Raspberry Pi's header.
///
/// # Errors
/// When this is no Raspberry Pi, or a pin is in use.
pub fn parts(numbers: Numbers, wiring: Wiring) -> io::Result<Parts> {
    let gpio = Gpio::new().map_err(io::Error::other)?;
    let mut button = gpio.get(numbers.button).map_err(io::Error::other)?.into_input_pullup();
    button.set_interrupt(Trigger::Both, None).map_err(io::Error::other)?;
    let led = Lamp::new(output(&gpio, numbers.led)?)?;
    Ok(Parts {
        display: panels::open(wiring, move || {
            Ok(Lines {
                data: output(&gpio, numbers.data)?,
                reset: output(&gpio, numbers.reset)?,
                backlight: output(&gpio, numbers.backlight)?,
            })
        }),
        led: Some(Box::new(led)),
        button: Some(Box::new(|inputs| {
            spawn("button", move || {
                if let Err(error) = watch(&mut button, &inputs) {
                    tracing::error!(%error, "the button cannot be read");
                }
            })
        })),
    })
}

fn watch(button: &mut InputPin, inputs: &Inputs) -> rppal::gpio::Result<()> {
    // Pressed is low: the button connects the pin to ground.
    while inputs.level(button.is_low()) {
        if let Some(edge) = button.poll_interrupt(false, Some(READ_EVERY))?
            && !inputs.level(edge.trigger == Trigger::FallingEdge)
        {
            break;
        }
    }
    Ok(())
}

fn output(gpio: &Gpio, number: u8) -> io::Result<Line> {
    let mut pin = gpio.get(number).map_err(io::Error::other)?.into_output_low();
    Ok(Box::new(move |on| {
        pin.write(on.into());
        Ok(())
    }))
}
