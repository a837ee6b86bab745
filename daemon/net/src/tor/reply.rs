//! Replies of the control port, bounded in every direction (control-spec 2.3).

use tokio::io::{AsyncRead, AsyncReadExt};

use super::control::ControlError;

/// Longest line; Tor's own are far shorter.
const MAX_LINE: usize = 4_096;
/// Most lines of one reply, and most asynchronous lines before one.
const MAX_LINES: usize = 64;
/// Bytes read at a time.
const CHUNK: usize = 1_024;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// Texts after the code and its separator, in order; the last one is the end line's.
    pub(super) lines: Vec<String>,
}

/// Cuts the stream into replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
}

impl Replies {
    /// Reads one reply. The caller bounds the time.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Reply, ControlError> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        for _ in 0..2 * MAX_LINES {
            let line = self.line(stream).await?;
            let (code, rest) =
                line.split_at_checked(3).ok_or(ControlError::Protocol("a line without a code"))?;
            let code: u16 = code.parse().map_err(|_| ControlError::Protocol("no number"))?;
            let (separator, text) =
                rest.split_at_checked(1).ok_or(ControlError::Protocol("a line without text"))?;
            if separator == "+" {
                // Data lines follow, up to a dot; nothing that we ask for is answered so.
                return Err(ControlError::Protocol("data that nobody asked for"));
            }
            // Asynchronous events may come in between.
            if code == 650 {
                continue;
            }
            reply.code = code;
            reply.lines.push(text.to_owned());
            match separator {
                " " => return Ok(reply),
                "-" if reply.lines.len() < MAX_LINES => {}
                _ => return Err(ControlError::Protocol("a reply without end")),
            }
        }
        Err(ControlError::Protocol("a reply without end"))
    }

    /// Waits for the end of the stream. What comes instead is kept for the next reply, as far as it is not too much.
    pub(super) async fn lost(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> ControlError {
        let mut chunk = [0; CHUNK];
        loop {
            match stream.read(&mut chunk).await {
                Ok(0) => return ControlError::Closed,
                Ok(count) => self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) => return error.into(),
            }
            if self.buffer.len() > MAX_LINE {
                return ControlError::Protocol("more than anybody asked for");
            }
        }
    }

    async fn line(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<String, ControlError> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return String::from_utf8(line)
                    .map_err(|_| ControlError::Protocol("bytes that are no text"));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ControlError::Protocol("a line without end"));
            }
            match stream.read(&mut chunk).await? {
                0 => return Err(ControlError::Closed),
                count => self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
        }
    }
}

/// The value of `key=value` or `key="quoted value"` among the fields of a line.
pub(super) fn field(line: &str, key: &str) -> Option<String> {
    let start = line.match_indices(key).find_map(|(at, _)| {
        let free = at == 0 || line.get(..at)?.ends_with([' ', ',']);
        let rest = line.get(at + key.len()..)?.strip_prefix('=')?;
        free.then_some(rest)
    })?;
    let Some(quoted) = start.strip_prefix('"') else {
        return start.split(' ').next().map(str::to_owned);
    };
    let (mut value, mut chars) = (Vec::new(), quoted.bytes());
    loop {
        match chars.next()? {
            b'"' => return String::from_utf8(value).ok(),
            b'\\' => value.push(escaped(&mut chars)?),
            byte => value.push(byte),
        }
    }
}

/// What follows a backslash in a quoted string: three octal digits or a character.
fn escaped(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let digit = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| u16::from(byte - b'0'));
    let first = bytes.next()?;
    match (first, digit(first)) {
        (b'n', _) => Some(b'\n'),
        (b't', _) => Some(b'\t'),
        (b'r', _) => Some(b'\r'),
        (_, None) => Some(first),
        (_, Some(high)) => {
            let (middle, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            u8::try_from(high * 64 + middle * 8 + low).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Replies::default().next(&mut &bytes[..]))
    }

    #[test]
    fn replies_are_read_and_events_skipped() {
        let reply = read(b"650 BW 1 2\r\n250-version=1\r\n250 OK\r\n").unwrap();
        assert_eq!((reply.code, &reply.lines[..]), (250, &["version=1".into(), "OK".into()][..]));
        assert!(matches!(read(b"250-version"), Err(ControlError::Closed)));
    }

    #[test]
    fn endless_lines_and_endless_replies_are_refused() {
        for bytes in [
            vec![b'x'; 1 << 20],
            b"250-more\r\n".repeat(10_000),
            b"650 NOISE\r\n".repeat(10_000),
            b"250+data=\r\nx\r\n.\r\n250 OK\r\n".to_vec(),
            b"\r\n".to_vec(),
            b"abc OK\r\n".to_vec(),
            b"250\xff OK\r\n".to_vec(),
        ] {
            assert!(matches!(read(&bytes), Err(ControlError::Protocol(_))));
        }
    }

    #[test]
    fn fields_are_found_with_and_without_quotes() {
        let line = r#"AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/a \"b\"\\c\040d""#;
        assert_eq!(field(line, "METHODS").as_deref(), Some("COOKIE,SAFECOOKIE"));
        assert_eq!(field(line, "COOKIEFILE").as_deref(), Some(r#"/run/a "b"\c d"#));
        assert_eq!(field(line, "FILE"), None);
        assert_eq!(field(r#"X="open"#, "X"), None);
    }
}
