//! Cuts a byte stream into lines (`spec/protocol.md` 4.3).
//!
//! Peers end lines with CR LF or with LF alone; both are accepted. Memory is bounded by one line.

use super::envelope::MAX_LINE_IN;

/// Reassembles lines from chunks of a stream. It holds no memory between whole lines.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold no line end.
    scanned: usize,
    /// Longest line, bytes without its end.
    limit: usize,
}

/// The peer sent a line that is longer than the limit; the connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line is too long")]
pub struct LineTooLong;

impl Default for LineReader {
    fn default() -> Self {
        Self::with_limit(MAX_LINE_IN)
    }
}

impl LineReader {
    /// A reader that takes lines of at most `limit` bytes without their end. The default is [`MAX_LINE_IN`].
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self { buffer: Vec::new(), scanned: 0, limit }
    }

    /// Whether a line has begun and not ended.
    #[must_use]
    pub const fn is_within_line(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes bytes from the stream. Callers pass at most a few KiB at a time.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end, if there is one.
    ///
    /// # Errors
    /// [`LineTooLong`] as soon as the limit is passed, whether or not the line has ended.
    #[expect(clippy::arithmetic_side_effects, reason = "positions within a buffer in memory")]
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(position) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            // One more byte may be the CR of the line end.
            return if self.buffer.len() > self.limit + 1 { Err(LineTooLong) } else { Ok(None) };
        };
        let rest = self.buffer.split_off(self.scanned + position + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.scanned = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > self.limit { Err(LineTooLong) } else { Ok(Some(line)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LineReader, LineTooLong, MAX_LINE_IN};

    #[test]
    fn endless_line_is_refused_at_the_limit() {
        let mut reader = LineReader::default();
        reader.push(&vec![b'x'; MAX_LINE_IN + 1]);
        assert_eq!(reader.next_line(), Ok(None));
        reader.push(b"x");
        assert_eq!(reader.next_line(), Err(LineTooLong));
        let mut reader = LineReader::default();
        reader.push(&vec![b'x'; MAX_LINE_IN]);
        reader.push(b"\r\n");
        assert_eq!(reader.next_line().unwrap().unwrap().len(), MAX_LINE_IN);
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(
            lines in proptest::collection::vec("[a-z]{0,20}", 0..20),
            cuts in proptest::collection::vec(1_usize..7, 1..50),
        ) {
            let stream: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut bytes = stream.as_bytes();
            let (mut reader, mut out) = (LineReader::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = bytes.split_at((*cut).min(bytes.len()));
                reader.push(now);
                while let Some(line) = reader.next_line().unwrap() {
                    out.push(String::from_utf8(line).unwrap());
                }
                bytes = later;
                if bytes.is_empty() { break }
            }
            prop_assert_eq!(out, lines);
        }
    }
}
