//! Button, light and lines of the large display on the GPIO character device (the second version of its interface).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::chip::{Chip, chips};
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, Offset, Value};

use super::lamp::Lamp;
use super::panels::{self, Line, Lines, Wiring};
use super::{Inputs, Parts, spawn};

/// Numbers of the lines on their chip; on a Raspberry Pi those are the GPIO numbers.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The button, to ground.
    pub button: Offset,
    /// The light in it.
    pub led: Offset,
    /// Data or command of the large display.
    pub data: Offset,
    /// Reset of the large display.
    pub reset: Offset,
    /// Backlight of the large display.
    pub backlight: Offset,
}

/// The level is read this often even if no edge was told, in case one was lost.
const READ_EVERY: Duration = Duration::from_secs(1);

/// A board on a GPIO chip: the one that is named, or the one of a Raspberry Pi's header.
///
/// # Errors
/// When there is no such chip, or the button's or the light's line is in use.
pub fn parts(chip: Option<&Path>, numbers: Numbers, wiring: Wiring) -> io::Result<Parts> {
    let chip = match chip {
        Some(chip) => chip.to_owned(),
        None => find()?,
    };
    let button = Request::builder()
        .on_chip(&chip)
        .with_consumer("joinery-button")
        .with_line(numbers.button)
        .as_input()
        .as_active_low()
        .with_bias(Bias::PullUp)
        .with_edge_detection(EdgeDetection::BothEdges)
        .request()
        .map_err(|error| failed(&chip, numbers.button, &error))?;
    let led = Lamp::new(output(&chip, numbers.led, "joinery-led")?)?;
    Ok(Parts {
        display: panels::open(wiring, move || {
            Ok(Lines {
                data: output(&chip, numbers.data, "joinery-display-data")?,
                reset: output(&chip, numbers.reset, "joinery-display-reset")?,
                backlight: output(&chip, numbers.backlight, "joinery-display-light")?,
            })
        }),
        led: Some(Box::new(led)),
        button: Some(Box::new(|inputs| {
            spawn("button", move || {
                if let Err(error) = watch(&button, &inputs) {
                    tracing::error!(%error, "the button cannot be read");
                }
            })
        })),
    })
}

fn watch(button: &Request, inputs: &Inputs) -> gpiocdev::Result<()> {
    let mut listening = inputs.level(button.lone_value()? == Value::Active);
    while listening {
        if button.wait_edge_event(READ_EVERY)? {
            // An active line's rising edge is a press, whichever way its voltage goes.
            let pressed = button.read_edge_event()?.kind == EdgeKind::Rising;
            listening = inputs.level(pressed);
            if button.has_edge_event()? {
                continue;
            }
        }
        listening = listening && inputs.level(button.lone_value()? == Value::Active);
    }
    Ok(())
}

fn output(chip: &Path, line: Offset, name: &str) -> io::Result<Line> {
    let request = Request::builder()
        .on_chip(chip)
        .with_consumer(name)
        .with_line(line)
        .as_output(Value::Inactive)
        .request()
        .map_err(|error| failed(chip, line, &error))?;
    Ok(Box::new(move |on| request.set_lone_value(on.into()).map(|_| ()).map_err(io::Error::other)))
}

fn failed(chip: &Path, line: Offset, error: &gpiocdev::Error) -> io::Error {
    io::Error::other(format!("{} line {line}: {error}", chip.display()))
}

/// The chip of the header: that of the processor (Pi Zero to 4) or of its I/O chip (Pi 5), else the only one.
fn find() -> io::Result<PathBuf> {
    let all = chips().map_err(io::Error::other)?;
    let labelled = |wanted: &str| {
        all.iter().find(|path| {
            Chip::from_path(path)
                .and_then(|chip| chip.info())
                .is_ok_and(|info| info.label.starts_with(wanted))
        })
    };
    let header =
        ["pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835"].into_iter().find_map(labelled);
    match (header, &all[..]) {
        (Some(header), _) => Ok(header.clone()),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no GPIO chip")),
        (None, _) => {
            Err(io::Error::other("there are several GPIO chips: name one with --gpiochip"))
        }
    }
}
