//! Log lines: to stderr for the service manager, and the last of them in memory for the log page of browser
//! wallets (`spec/api.md` 13).
//!
//! The tail is kept in memory and not in a file: an SD card should not be written for every line, and the service
//! manager keeps the lines anyway.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{Log, LogFormat};

/// Size of the tail in memory, bytes. The memory is taken as lines come.
const TAIL: usize = 512 * 1024;

/// The last lines of the log. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogTail(Arc<Mutex<VecDeque<u8>>>);

impl LogTail {
    /// The text, from the first whole line that is left.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.make_contiguous().to_vec()
    }

    fn push(&self, line: &[u8]) {
        // A line longer than the tail would push out everything, itself included.
        let line = line.get(..TAIL / 4).unwrap_or(line);
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() + line.len() > TAIL {
            // A quarter at a time, so that not every line moves the rest; then up to the end of a line.
            let excess = bytes.len().min(TAIL / 4 + line.len());
            bytes.drain(..excess);
            let partial = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.drain(..partial);
        }
        bytes.extend(line);
        if !line.ends_with(b"\n") {
            bytes.push_back(b'\n');
        }
    }
}

/// Hands each log line, which arrives in one write, to the tail.
impl Write for LogTail {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogTail {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts logging; from here on a panic of any thread is logged too.
///
/// # Errors
/// When logging was started before.
pub(crate) fn start(log: &Log) -> Result<LogTail, TryInitError> {
    let tail = LogTail::default();
    let for_people = fmt::layer().with_ansi(false).with_writer(tail.clone());
    let to_stderr = match log.format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    let layers = to_stderr.and_then(for_people).with_filter(log.filter.clone());
    Registry::default().with(layers).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        // Not the payload: it may quote what was being worked on.
        tracing::error!(thread = thread.name().unwrap_or("?"), location, "panic");
    }));
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_bounded_and_begins_with_a_whole_line() {
        let tail = LogTail::default();
        for number in 0..20_000 {
            tail.push(format!("line {number:06} {}\n", "x".repeat(50)).as_bytes());
        }
        let text = String::from_utf8(tail.bytes()).unwrap();
        assert!(text.len() <= TAIL && text.len() > TAIL / 2);
        assert!(text.starts_with("line "));
        assert!(text.ends_with(&format!("line 019999 {}\n", "x".repeat(50))));
    }

    #[test]
    fn huge_line_does_not_empty_the_tail() {
        let tail = LogTail::default();
        tail.push(b"before\n");
        tail.push(&vec![b'y'; 3 * TAIL]);
        let text = String::from_utf8(tail.bytes()).unwrap();
        assert!(text.starts_with("before\n"));
        assert_eq!(text.lines().count(), 2);
    }
}
