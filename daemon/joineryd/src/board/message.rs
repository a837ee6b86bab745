//! What a board says (`docs/board-link.md`): lines of JSON, bounded, strict.

use serde::Deserialize;

/// Longest line without its line feed, bytes.
pub(super) const MAX_LINE: usize = 256;
/// Longest id of a request, characters.
const MAX_ID: usize = 64;

/// A line of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// First of all, and whenever a panel appears or is lost.
    Hello { panel: bool },
    /// The person approves this request.
    Press(String),
    /// The person refuses this request.
    Refuse(String),
    /// Refuse what waits, lock, stop every role.
    Hold,
    /// Switch the machine off.
    Shutdown,
    /// Something that a later version says.
    Unknown,
}

/// Why the connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadLine {
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("a line cannot be understood")]
    Malformed,
    #[error("the board speaks version {0} of the link")]
    Version(u32),
}

#[derive(Deserialize)]
struct Envelope {
    v: u32,
    r#type: String,
}

#[derive(Deserialize)]
struct Hello {
    panel: String,
}

#[derive(Deserialize)]
struct About {
    pending: String,
}

#[derive(Deserialize)]
struct MaybeAbout {
    pending: Option<String>,
}

fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, BadLine> {
    serde_json::from_slice(line).map_err(|_| BadLine::Malformed)
}

fn id(text: String) -> Result<String, BadLine> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(allowed);
    if fits { Ok(text) } else { Err(BadLine::Malformed) }
}

/// Reads a line.
pub(super) fn parse(line: &[u8]) -> Result<Said, BadLine> {
    let Envelope { v, r#type } = read(line)?;
    if v != 1 {
        return Err(BadLine::Version(v));
    }
    Ok(match r#type.as_str() {
        "hello" => match read::<Hello>(line)?.panel.as_str() {
            "none" => Said::Hello { panel: false },
            "128x64" | "240x240" => Said::Hello { panel: true },
            _ => return Err(BadLine::Malformed),
        },
        "press" => Said::Press(id(read::<About>(line)?.pending)?),
        "refuse" => Said::Refuse(id(read::<About>(line)?.pending)?),
        "hold" => {
            // What waits is refused whichever it is: the id is only checked for its form.
            read::<MaybeAbout>(line)?.pending.map(id).transpose()?;
            Said::Hold
        }
        "shutdown" => Said::Shutdown,
        _ => Said::Unknown,
    })
}

/// Bytes go in, whole lines come out. Holds one line at most.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes as they were read; the lines that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, BadLine> {
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                whole.push(std::mem::take(&mut self.0));
            } else if self.0.len() < MAX_LINE {
                self.0.push(*byte);
            } else {
                return Err(BadLine::TooLong);
            }
        }
        Ok(whole)
    }

    /// Whether a line was begun and not ended.
    pub(super) fn in_line(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_samples_of_the_document() {
        let samples = include_bytes!("../../../../board/tests/link/board-to-daemon.jsonl");
        let mut lines = Lines::default();
        let said: Vec<Said> =
            lines.push(samples).unwrap().iter().map(|line| parse(line).unwrap()).collect();
        let id = || "u-1".to_owned();
        assert_eq!(
            said,
            [
                Said::Hello { panel: true },
                Said::Press(id()),
                Said::Refuse(id()),
                Said::Hold,
                Said::Hold,
                Said::Shutdown,
                Said::Hello { panel: false },
            ]
        );
    }

    #[test]
    fn what_is_not_as_written_is_refused() {
        for good in [
            r#"{"v":1,"type":"dance"}"#,
            r#"{"v":1,"type":"dance","pending":5}"#,
            r#"{"type":"hold","v":1,"more":[1]}"#,
            r#"{"v":1,"type":"hold","pending":null}"#,
        ] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "{}",
            "[]",
            "press",
            r#"{"v":1}"#,
            r#"{"type":"press","pending":"a"}"#,
            r#"{"v":2,"type":"press","pending":"a"}"#,
            r#"{"v":"1","type":"press","pending":"a"}"#,
            r#"{"v":1,"type":"press"}"#,
            r#"{"v":1,"type":"press","pending":null}"#,
            r#"{"v":1,"type":"press","pending":""}"#,
            r#"{"v":1,"type":"press","pending":"a b"}"#,
            r#"{"v":1,"type":"press","pending":["a"]}"#,
            r#"{"v":1,"type":"press","pending":"a","pending":"b"}"#,
            r#"{"v":1,"type":"press","type":"hold","pending":"a"}"#,
            r#"{"v":1,"type":"hold","pending":7}"#,
            r#"{"v":1,"type":"hello"}"#,
            r#"{"v":1,"type":"hello","panel":"128x63"}"#,
            r#"{"v":1,"type":"press","pending":"a"} "x""#,
            "{\"v\":1,\"type\":\"press\",\"pending\":\"\u{e4}\"}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!(r#"{{"v":1,"type":"press","pending":"{}"}}"#, "a".repeat(65));
        assert!(parse(long.as_bytes()).is_err());
    }

    #[test]
    fn lines_are_whole_and_bounded() {
        let mut lines = Lines::default();
        assert!(lines.push(b"ab").unwrap().is_empty());
        assert!(lines.in_line());
        assert_eq!(lines.push(b"c\n\nd").unwrap(), [b"abc".to_vec(), Vec::new()]);
        assert!(lines.push(&[b'x'; MAX_LINE - 1]).unwrap().is_empty());
        assert_eq!(lines.push(b"\n").unwrap()[0].len(), MAX_LINE);
        assert!(lines.push(&[b'x'; MAX_LINE + 1]).is_err());
    }
}
