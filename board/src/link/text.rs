//! Text of others, made harmless before it can reach a screen.

use std::fmt;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

/// Text of at most `N` characters (after cleaning), composed (NFC), without control characters, without marks that
/// change the direction of reading, and without anything that has no width: what is shown cannot look like another
/// text because of what is not shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text has more characters than its field allows.
#[derive(Debug, thiserror::Error)]
#[error("text has more than {most} characters")]
pub struct TooLongText {
    most: usize,
}

impl<const N: usize> TryFrom<String> for Text<N> {
    type Error = TooLongText;

    fn try_from(text: String) -> Result<Self, TooLongText> {
        let clean: String = text.nfc().filter_map(clean).take(N + 1).collect();
        if clean.chars().count() > N {
            return Err(TooLongText { most: N });
        }
        Ok(Self(clean.trim().to_owned()))
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn clean(c: char) -> Option<char> {
    match c {
        // Combining marks that no composed letter exists for, joiners, direction marks, variation selectors.
        '\u{300}'..='\u{36f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}' => None,
        c if c.is_whitespace() || c.is_control() => Some(' '),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(from: &str) -> String {
        Text::<8>::try_from(from.to_owned()).unwrap().0
    }

    #[test]
    fn composes_and_drops_what_cannot_be_seen() {
        assert_eq!(text("e\u{301}a\u{300}"), "éà");
        assert_eq!(text("a\u{202e}b\u{200b}c\nd\t"), "abc d");
        assert_eq!(text("  \u{feff} "), "");
    }

    #[test]
    fn counts_characters_not_bytes() {
        assert_eq!(text("ЖЖЖЖЖЖЖЖ"), "ЖЖЖЖЖЖЖЖ");
        assert!(Text::<8>::try_from("123456789".to_owned()).is_err());
        assert!(Text::<8>::try_from("x".repeat(1 << 20)).is_err());
    }
}
