//! A board in a terminal: two pixels a character, in their colours, and keys for the button.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::time::Duration;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr,
};

use super::{Display, Input, Led, Parts, Script, Shot, spawn};
use crate::Panel;
use crate::led::Pattern;
use crate::screen::Light;

const HELP: &str = "space press  a hold 1.6 s  l hold 3.2 s  o hold 10.2 s  q quit";

/// A board in the terminal that the process runs in.
///
/// # Errors
/// When stdin and stdout are no terminal.
pub fn parts(panel: Panel) -> io::Result<Parts> {
    if !isatty(io::stdin()) || !isatty(io::stdout()) {
        return Err(io::Error::other("stdin and stdout are no terminal"));
    }
    let mut screen = Some(Raw::enter()?);
    Ok(Parts {
        display: Box::new(move || {
            let raw = screen.take().ok_or_else(|| io::Error::other("the terminal is gone"))?;
            Ok(Box::new(Window { _raw: raw, panel }))
        }),
        led: Some(Box::new(Line)),
        button: Some(Box::new(|inputs| {
            let told = inputs.level(false);
            spawn("keys", move || {
                for key in io::stdin().lock().bytes().map_while(Result::ok) {
                    let press = |tenths: u64| {
                        Script::Press(Duration::from_millis(tenths * 100)).play(&inputs)
                    };
                    let listening = told
                        && match key {
                            b' ' => press(1),
                            b'a' => press(16),
                            b'l' => press(32),
                            b'o' => press(102),
                            b'q' => inputs.send(Input::Stop),
                            _ => true,
                        };
                    if !listening {
                        return;
                    }
                }
            })
        })),
    })
}

/// The terminal without echo and line editing, on its other screen; as it was when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let raw = Self { before };
        put("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = put("\x1b[0m\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

struct Window {
    _raw: Raw,
    panel: Panel,
}

impl Display for Window {
    fn panel(&self) -> Panel {
        self.panel
    }

    fn show(&mut self, shot: Shot<'_>) -> io::Result<()> {
        // The large panel's picture is dimmed already, the small one dims by itself.
        let dim = shot.frame.light == Light::Dim && self.panel == Panel::Small;
        put(&format!("\x1b[H{}\x1b[0m\r\n\x1b[K\r\n{HELP}\x1b[K", half_blocks(shot, dim)))
    }
}

/// Two rows of pixels are one row of characters: the upper pixel is the letter's colour, the lower one its background.
fn half_blocks(shot: Shot<'_>, dim: bool) -> String {
    let shade = |color: embedded_graphics::pixelcolor::Rgb565| {
        let color = Rgb888::from(color);
        let divide = if dim { 3 } else { 1 };
        (color.r() / divide, color.g() / divide, color.b() / divide)
    };
    let rows: Vec<_> = shot.picture.rows().collect();
    let mut text = String::with_capacity(64 * 1024);
    for pair in rows.chunks(2) {
        let [upper, lower] = pair else { break };
        let mut last = None;
        for (one, other) in upper.iter().zip(lower.iter()) {
            let colors = (shade(*one), shade(*other));
            if last != Some(colors) {
                let ((r, g, b), (r2, g2, b2)) = colors;
                let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{r2};{g2};{b2}m");
                last = Some(colors);
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\r\n");
    }
    text
}

struct Line;

impl Led for Line {
    fn show(&mut self, pattern: Pattern) {
        // Below the picture there is a line for it; where that is depends on the picture, so it goes to the title.
        let _ = put(&format!("\x1b]0;light: {}\x07", pattern.name()));
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::picture;
    use crate::ui::Ui;

    #[test]
    fn a_character_is_two_pixels() {
        for panel in [Panel::Small, Panel::Large] {
            let frame = Ui::new(Duration::ZERO).frame(Duration::ZERO);
            let picture = picture(&frame, panel);
            let text = half_blocks(Shot { picture: &picture, frame: &frame }, false);
            let (width, height) = panel.size();
            let lines: Vec<&str> = text.split_terminator("\r\n").collect();
            assert_eq!(lines.len(), usize::try_from(height / 2).unwrap());
            for line in lines {
                assert_eq!(line.matches('▀').count(), usize::try_from(width).unwrap());
            }
        }
    }
}
