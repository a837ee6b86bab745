//! What a board is made of, one module each: the only places that name a hardware crate, a terminal or a file.
//!
//! A backend gives [`Parts`]: a way to a display that may be absent, a light, and something that watches the button
//! and tells its level.

#[cfg(feature = "gpiochip")]
pub mod gpiochip;
#[cfg(any(feature = "gpiochip", feature = "pi"))]
pub mod lamp;
#[cfg(feature = "panels")]
pub mod panels;
#[cfg(feature = "pi")]
pub mod pi;
#[cfg(feature = "png")]
pub mod png;
#[cfg(feature = "terminal")]
pub mod terminal;

mod script;

pub use script::Script;

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::Panel;
use crate::led::Pattern;
use crate::render::Picture;
use crate::screen::Frame;

/// A picture, and what it is a picture of.
#[derive(Debug, Clone, Copy)]
pub struct Shot<'a> {
    /// The pixels.
    pub picture: &'a Picture,
    /// What they show, and how bright.
    pub frame: &'a Frame,
}

/// A display that was found.
pub trait Display {
    /// Its size.
    fn panel(&self) -> Panel;

    /// Shows a picture at the frame's brightness.
    ///
    /// # Errors
    /// When the display does not take it: it is gone until it is opened again.
    fn show(&mut self, shot: Shot<'_>) -> io::Result<()>;

    /// Asks whether it is still there, if that can be asked; called every few seconds.
    ///
    /// # Errors
    /// When it is gone.
    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// When it should be opened anew because nobody can tell whether it was unplugged meanwhile.
    fn renew(&self) -> Renew {
        Renew::Never
    }
}

/// When a display is opened anew although it seems to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    /// It does not forget what it was told.
    Never,
    /// Every minute while it is lit: it takes no time that an eye could see.
    Minutely,
    /// When it is woken: it flickers.
    OnWake,
}

/// Looks for the display; called again every few seconds while there is none.
pub type OpenDisplay = Box<dyn FnMut() -> io::Result<Box<dyn Display>>>;

/// The light in the button.
pub trait Led {
    /// Shows a pattern from now on.
    fn show(&mut self, pattern: Pattern);
}

/// What the button and the signals say.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    /// The button's level is this since then.
    Level {
        /// It is pressed.
        pressed: bool,
        /// When that was seen.
        at: Instant,
    },
    /// The process is to end.
    Stop,
}

/// Where inputs go. A full queue makes the sender wait.
#[derive(Debug, Clone)]
pub struct Inputs(pub(crate) SyncSender<crate::run::Event>);

impl Inputs {
    /// Hands on an input; `false` when nobody listens any more.
    #[must_use]
    pub fn send(&self, input: Input) -> bool {
        self.0.send(crate::run::Event::Input(input)).is_ok()
    }

    /// Hands on the button's level as it is now; `false` when nobody listens any more.
    #[must_use]
    pub fn level(&self, pressed: bool) -> bool {
        self.send(Input::Level { pressed, at: Instant::now() })
    }
}

/// Begins to watch the button, on a thread of its own.
pub type WatchButton = Box<dyn FnOnce(Inputs) -> io::Result<JoinHandle<()>>>;

/// What a backend gives.
pub struct Parts {
    /// The way to the display.
    pub display: OpenDisplay,
    /// The light, if there is one.
    pub led: Option<Box<dyn Led>>,
    /// The button, if there is one.
    pub button: Option<WatchButton>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("led", &self.led.is_some())
            .field("button", &self.button.is_some())
            .finish()
    }
}

/// Starts a thread that needs little memory.
///
/// # Errors
/// When the system has no room for it.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(128 * 1024).spawn(body)
}
