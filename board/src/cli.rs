//! The command line. Every flag has a variable, for the unit file.

use std::io;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
#[cfg(any(feature = "terminal", feature = "png"))]
use joinery_board::Panel;
use joinery_board::backend::Parts;

/// Display, button and light of the box.
#[derive(Debug, Parser)]
#[command(name = "joinery-board", version)]
pub(crate) struct Cli {
    /// The daemon's socket.
    #[arg(
        long,
        env = "JOINERY_BOARD_SOCKET",
        value_name = "PATH",
        default_value = "/run/joinery/board.sock"
    )]
    pub(crate) socket: PathBuf,
    /// auto, pi, gpiochip, terminal, or png and a directory.
    #[arg(
        long,
        env = "JOINERY_BOARD_BACKEND",
        value_name = "BACKEND",
        num_args = 1..=2,
        default_value = "auto"
    )]
    backend: Vec<String>,
    /// The display; default whichever is found, for terminal and png the small one.
    #[arg(long, env = "JOINERY_BOARD_DISPLAY", value_name = "DISPLAY")]
    display: Option<DisplayKind>,
    /// GPIO chip of the backend gpiochip; default that of the Raspberry Pi's header.
    #[arg(long, env = "JOINERY_BOARD_GPIOCHIP", value_name = "PATH")]
    gpiochip: Option<PathBuf>,
    /// Line of the button, which connects it to ground.
    #[arg(long, env = "JOINERY_BOARD_BUTTON", value_name = "GPIO", default_value_t = 17)]
    button: u8,
    /// Line of the light in the button.
    #[arg(long, env = "JOINERY_BOARD_LED", value_name = "GPIO", default_value_t = 27)]
    led: u8,
    /// I2C bus of the small display.
    #[arg(long, env = "JOINERY_BOARD_I2C", value_name = "PATH", default_value = "/dev/i2c-1")]
    i2c: PathBuf,
    /// Address of the small display.
    #[arg(
        long,
        env = "JOINERY_BOARD_I2C_ADDRESS",
        value_name = "HEX",
        default_value = "0x3c",
        value_parser = address
    )]
    i2c_address: u8,
    /// SPI device of the large display.
    #[arg(long, env = "JOINERY_BOARD_SPI", value_name = "PATH", default_value = "/dev/spidev0.0")]
    spi: PathBuf,
    /// Line of the large display that tells data from commands.
    #[arg(long, env = "JOINERY_BOARD_DATA", value_name = "GPIO", default_value_t = 25)]
    data: u8,
    /// Reset line of the large display.
    #[arg(long, env = "JOINERY_BOARD_RESET", value_name = "GPIO", default_value_t = 24)]
    reset: u8,
    /// Backlight line of the large display.
    #[arg(long, env = "JOINERY_BOARD_BACKLIGHT", value_name = "GPIO", default_value_t = 23)]
    backlight: u8,
    /// Only says whether there is a display, by the exit code: 0, or 69 without one.
    #[arg(long)]
    pub(crate) probe: bool,
    /// Logs the button's level and what is told to the daemon.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// The displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DisplayKind {
    /// 128 by 64, black and white.
    Ssd1306I2c,
    /// 240 by 240, colours.
    St7789Spi,
}

fn address(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16)
        .ok()
        .filter(|address| (0x08..0x78).contains(address))
        .ok_or_else(|| "not an I2C address from 0x08 to 0x77".to_owned())
}

#[cfg(not(all(feature = "pi", feature = "gpiochip", feature = "terminal", feature = "png")))]
fn missing(backend: &str) -> io::Error {
    io::Error::other(format!("this joinery-board was built without the backend {backend}"))
}

impl Cli {
    /// What the backend that was asked for gives.
    ///
    /// # Errors
    /// When the backend is not known, was not built, or its devices are not there.
    pub(crate) fn parts(&self) -> io::Result<Parts> {
        let backend: Vec<&str> = self.backend.iter().map(String::as_str).collect();
        match backend[..] {
            ["auto"] => self.auto(),
            ["pi"] => self.pi(),
            ["gpiochip"] => self.chip(),
            ["terminal"] => self.terminal(),
            ["png", directory] => self.png(directory),
            ["png"] => Err(io::Error::other("--backend png needs a directory: --backend png DIR")),
            _ => Err(io::Error::other(format!(
                "there is no backend {}: auto, pi, gpiochip, terminal or png DIR",
                self.backend.join(" ")
            ))),
        }
    }

    /// rppal where its device is, else the GPIO character device.
    fn auto(&self) -> io::Result<Parts> {
        #[cfg(feature = "pi")]
        if joinery_board::backend::pi::is_possible() {
            match self.pi() {
                Ok(parts) => return Ok(parts),
                Err(error) => {
                    tracing::warn!(%error, "rppal cannot be used, trying the GPIO character device")
                }
            }
        }
        self.chip()
    }

    #[cfg(any(feature = "terminal", feature = "png"))]
    const fn panel(&self) -> Panel {
        match self.display {
            Some(DisplayKind::St7789Spi) => Panel::Large,
            Some(DisplayKind::Ssd1306I2c) | None => Panel::Small,
        }
    }

    #[cfg(feature = "panels")]
    fn wiring(&self) -> joinery_board::backend::panels::Wiring {
        use joinery_board::backend::panels::{Kind, Wiring};
        Wiring {
            kind: match self.display {
                Some(DisplayKind::Ssd1306I2c) => Kind::Ssd1306,
                Some(DisplayKind::St7789Spi) => Kind::St7789,
                None => Kind::Any,
            },
            i2c: self.i2c.clone(),
            address: self.i2c_address,
            spi: self.spi.clone(),
        }
    }

    #[cfg(feature = "pi")]
    fn pi(&self) -> io::Result<Parts> {
        use joinery_board::backend::pi::{Numbers, parts};
        let numbers = Numbers {
            button: self.button,
            led: self.led,
            data: self.data,
            reset: self.reset,
            backlight: self.backlight,
        };
        parts(numbers, self.wiring())
    }

    #[cfg(not(feature = "pi"))]
    fn pi(&self) -> io::Result<Parts> {
        Err(missing("pi"))
    }

    #[cfg(feature = "gpiochip")]
    fn chip(&self) -> io::Result<Parts> {
        use joinery_board::backend::gpiochip::{Numbers, parts};
        let numbers = Numbers {
            button: self.button.into(),
            led: self.led.into(),
            data: self.data.into(),
            reset: self.reset.into(),
            backlight: self.backlight.into(),
        };
        parts(self.gpiochip.as_deref(), numbers, self.wiring())
    }

    #[cfg(not(feature = "gpiochip"))]
    fn chip(&self) -> io::Result<Parts> {
        Err(missing("gpiochip"))
    }

    #[cfg(feature = "terminal")]
    fn terminal(&self) -> io::Result<Parts> {
        joinery_board::backend::terminal::parts(self.panel())
    }

    #[cfg(not(feature = "terminal"))]
    fn terminal(&self) -> io::Result<Parts> {
        Err(missing("terminal"))
    }

    #[cfg(feature = "png")]
    #[allow(clippy::unnecessary_wraps, reason = "other backends may fail")]
    fn png(&self, directory: &str) -> io::Result<Parts> {
        Ok(joinery_board::backend::png::parts(directory.as_ref(), self.panel()))
    }

    #[cfg(not(feature = "png"))]
    fn png(&self, _directory: &str) -> io::Result<Parts> {
        Err(missing("png"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["joinery-board"], arguments].concat())
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_design_are_known() {
        let cli = parse(&["--socket", "/s", "--backend", "png", "/d", "--display", "st7789-spi"])
            .unwrap();
        assert_eq!(cli.backend, ["png", "/d"]);
        assert_eq!((cli.panel(), cli.socket), (Panel::Large, "/s".into()));
        assert_eq!(parse(&["--backend", "png", "/a b"]).unwrap().backend, ["png", "/a b"]);
        assert_eq!(parse(&[]).unwrap().backend, ["auto"]);
        assert_eq!(parse(&["--backend", "terminal"]).unwrap().panel(), Panel::Small);
        assert_eq!(parse(&["--i2c-address", "3d"]).unwrap().i2c_address, 0x3d);
        for wrong in [["--display", "other"], ["--i2c-address", "0x80"], ["--button", "300"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn unknown_backends_are_refused_in_one_sentence() {
        for (arguments, reason) in [
            (["--backend", "oled", ""], "there is no backend oled"),
            (["--backend", "png", ""], ""),
        ] {
            let arguments: Vec<&str> =
                arguments.into_iter().filter(|word| !word.is_empty()).collect();
            let error = parse(&arguments).unwrap().parts().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
