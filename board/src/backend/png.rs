//! Pictures as files: `--backend png DIR`. Each change of what is seen is a file in DIR, and a line of JSON on stdout
//! tells what it is; lines on stdin press the button ([`Script`]). For tests and for writing documentation.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use super::{Display, Led, Parts, Script, Shot, spawn};
use crate::Panel;
use crate::led::Pattern;
use crate::render::Picture;
use crate::screen::Light;

/// Files that are kept; the oldest ones are deleted.
const KEPT: usize = 1000;

/// A board of files.
#[must_use]
pub fn parts(directory: &Path, panel: Panel) -> Parts {
    let directory = directory.to_owned();
    Parts {
        display: Box::new(move || {
            std::fs::create_dir_all(&directory)?;
            Ok(Box::new(Files {
                directory: directory.clone(),
                panel,
                number: 0,
                kept: VecDeque::new(),
            }))
        }),
        led: Some(Box::new(Told)),
        button: Some(Box::new(|inputs| {
            // The button is up to begin with.
            let told = inputs.level(false);
            spawn("button", move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    match line.parse::<Script>() {
                        Ok(script) if told && script.play(&inputs) => {}
                        Ok(_) => return,
                        Err(error) => tracing::warn!(line, %error, "on stdin"),
                    }
                }
            })
        })),
    }
}

struct Files {
    directory: PathBuf,
    panel: Panel,
    number: u64,
    kept: VecDeque<PathBuf>,
}

impl Display for Files {
    fn panel(&self) -> Panel {
        self.panel
    }

    fn show(&mut self, shot: Shot<'_>) -> io::Result<()> {
        self.number += 1;
        let light = match shot.frame.light {
            Light::Full => "full",
            Light::Dim => "dim",
            Light::Off => "off",
        };
        let screen = shot.frame.screen.name();
        let name = format!("{:06}-{screen}.png", self.number);
        let path = self.directory.join(&name);
        std::fs::write(&path, encode(shot.picture)?)?;
        self.kept.push_back(path);
        if self.kept.len() > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            std::fs::remove_file(oldest)?;
        }
        let warning = shot.frame.warning.as_ref().map(|(worst, _)| worst.line());
        tell(
            &serde_json::json!({"screen": screen, "light": light, "warning": warning, "file": name}),
        )
    }
}

struct Told;

impl Led for Told {
    fn show(&mut self, pattern: Pattern) {
        // Whoever closed stdout does not want to know.
        let _ = tell(&serde_json::json!({"led": pattern.name()}));
    }
}

fn tell(line: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A picture as a PNG file, 8 bits for each of red, green and blue.
///
/// # Errors
/// None that memory could cause; those of the encoder.
pub fn encode(picture: &Picture) -> io::Result<Vec<u8>> {
    let (width, height) = picture.panel().size();
    encode_rgb(width, height, &picture.to_rgb())
}

/// Rows of red, green and blue as a PNG file.
///
/// # Errors
/// When there are more or fewer bytes than pixels.
pub fn encode_rgb(width: u32, height: u32, rgb: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(file)
}
