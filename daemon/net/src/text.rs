//! Text that came from strangers, made fit for logs and displays.

/// Characters kept of a foreign text.
pub(crate) const FOREIGN_TEXT_MAX: usize = 200;

/// Keeps printable ASCII, writes `?` for everything else (control characters, line breaks, direction
/// marks, anything that could forge a log line or a display), and cuts after [`FOREIGN_TEXT_MAX`].
pub(crate) fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(FOREIGN_TEXT_MAX)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect();
    if text.chars().nth(FOREIGN_TEXT_MAX).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_breaks_escapes_and_direction_marks_become_question_marks() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}c"), "a?b?[31m?c");
    }

    proptest! {
        #[test]
        fn result_is_short_and_printable(text in any::<String>()) {
            let out = printable(&text);
            prop_assert!(out.len() <= FOREIGN_TEXT_MAX + 3);
            prop_assert!(out.chars().all(|c| c.is_ascii_graphic() || c == ' '));
        }
    }
}
