//! Cuts a stream of bytes into lines of bounded length.

use std::mem;

use super::{LinkError, MAX_LINE};

/// Bytes go in, whole lines come out. Never holds more than one line and [`MAX_LINE`] bytes.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
    /// The present line is too long: its rest is thrown away up to the next line feed.
    skipping: bool,
}

impl Lines {
    /// Takes bytes as they were read and hands every line that they complete, without its line feed, to `each`.
    /// A line that is too long is reported once, when it becomes so. Empty lines are passed over.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Result<&[u8], LinkError>)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            self.grow(line, &mut each);
            let line = mem::take(&mut self.part);
            if !mem::take(&mut self.skipping) && !line.is_empty() {
                each(Ok(&line));
            }
        }
        self.grow(rest, &mut each);
    }

    fn grow(&mut self, bytes: &[u8], each: &mut impl FnMut(Result<&[u8], LinkError>)) {
        if self.skipping {
            return;
        }
        if self.part.len() + bytes.len() > MAX_LINE {
            self.part = Vec::new();
            self.skipping = true;
            each(Err(LinkError::TooLong));
        } else {
            self.part.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| out.push(line.ok().map(<[u8]>::to_vec)));
        }
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let expected = [Some(b"one".to_vec()), Some(b"two".to_vec())];
        assert_eq!(cut(&[b"one\n\ntwo\nthr"]), expected);
        assert_eq!(cut(&[b"on", b"e\n", b"", b"tw", b"o", b"\nthr"]), expected);
    }

    #[test]
    fn a_line_without_end_is_told_once_and_the_next_one_is_read() {
        let much = vec![b'x'; MAX_LINE];
        assert_eq!(cut(&[&much, b"\n"]), [Some(much.clone())]);
        assert_eq!(cut(&[&much, b"y", &much, &much, b"\nnext\n"]), [None, Some(b"next".to_vec())]);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            lines.push(&[b'x'; 4096], |_| ());
            assert!(lines.part.capacity() <= 2 * MAX_LINE);
        }
    }
}
