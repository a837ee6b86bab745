//! The machine's GPIO lines from outside, through QEMU's test protocol: the chip is a PL061 with eight lines, of which
//! the machine itself uses number 3 (its power button).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::wait::PATIENCE;

/// Lines of the chip.
const LINES: usize = 8;

/// What the machine drives its lines to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Output {
    /// High.
    pub high: bool,
    /// How often it has changed.
    pub changes: u64,
}

/// The lines of one chip.
#[derive(Debug)]
pub(super) struct Lines {
    stream: UnixStream,
    answers: Receiver<String>,
    outputs: Arc<Mutex<[Output; LINES]>>,
    chip: String,
}

impl Lines {
    /// Lines of the chip with this path in the emulator's tree of objects; its outputs are watched from now on.
    pub(super) fn new(stream: UnixStream, chip: String) -> Result<Self> {
        let (tell, answers) = channel();
        let outputs = Arc::new(Mutex::new([Output::default(); LINES]));
        let seen = outputs.clone();
        let reader = BufReader::new(stream.try_clone()?);
        std::thread::Builder::new().name("gpio".into()).spawn(move || {
            for line in reader.lines().map_while(std::result::Result::ok) {
                match change(&line) {
                    Some((number, high)) => {
                        let mut outputs = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(output) = outputs.get_mut(number)
                            && output.high != high
                        {
                            *output = Output { high, changes: output.changes + 1 };
                        }
                    }
                    None if tell.send(line).is_err() => return,
                    None => {}
                }
            }
        })?;
        let mut lines = Self { stream, answers, outputs, chip };
        lines.order(&format!("irq_intercept_out {}", lines.chip))?;
        Ok(lines)
    }

    /// Connects a line to 3.3 V or to ground.
    pub(super) fn set(&mut self, line: usize, high: bool) -> Result<()> {
        ensure!(line < LINES, "there is no line {line}");
        self.order(&format!("set_irq_in {} unnamed-gpio-in {line} {}", self.chip, u8::from(high)))
    }

    /// What the machine drives a line to.
    pub(super) fn output(&self, line: usize) -> Option<Output> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get(line).copied()
    }

    fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.stream, "{order}").context("the emulator's test socket")?;
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) if answer.starts_with("OK") => Ok(()),
            Ok(answer) => bail!("the emulator answers {answer} to {order}"),
            Err(RecvTimeoutError::Timeout) => bail!("the emulator does not answer {order}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the emulator is gone"),
        }
    }
}

/// Reads `IRQ raise 5` or `IRQ lower 5`.
fn change(line: &str) -> Option<(usize, bool)> {
    let mut words = line.strip_prefix("IRQ ")?.split_whitespace();
    let high = match words.next()? {
        "raise" => true,
        "lower" => false,
        _ => return None,
    };
    Some((words.next()?.parse().ok()?, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_changes_of_lines_from_answers() {
        assert_eq!(change("IRQ raise 6"), Some((6, true)));
        assert_eq!(change("IRQ lower 0"), Some((0, false)));
        for other in ["OK", "IRQ", "IRQ raise", "IRQ raise x", "IRQ toggles 1"] {
            assert_eq!(change(other), None, "{other}");
        }
    }
}
