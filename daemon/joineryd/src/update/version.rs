//! Versions of the system, and which of two is newer (semantic versioning, its precedence rules).

use std::cmp::Ordering;
use std::str::FromStr;

/// `MAJOR.MINOR.PATCH`, with a pre-release after `-`; what follows `+` does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
}

/// A part of a pre-release. Numbers are lower than words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version such as 1.2.3 or 1.2.3-rc.1")]
pub(crate) struct VersionError;

/// Longest text that is taken for a version, bytes.
const LONGEST: usize = 64;

fn number(text: &str) -> Result<u64, VersionError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(VersionError);
    }
    text.parse().map_err(|_| VersionError)
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text.len() > LONGEST {
            return Err(VersionError);
        }
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (release, pre) = match text.split_once('-') {
            Some((release, pre)) => (release, Some(pre)),
            None => (text, None),
        };
        let numbers: Vec<u64> = release.split('.').map(number).collect::<Result<_, _>>()?;
        let numbers = numbers.try_into().map_err(|_| VersionError)?;
        let identifier = |word: &str| match number(word) {
            Ok(number) => Ok(Identifier::Number(number)),
            Err(_) if word.bytes().all(|byte| byte.is_ascii_digit()) => Err(VersionError),
            Err(_) if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => {
                Ok(Identifier::Word(word.to_owned()))
            }
            Err(_) => Err(VersionError),
        };
        let pre = pre.map(|pre| pre.split('.').map(identifier).collect()).transpose()?;
        Ok(Self { numbers, pre: pre.unwrap_or_default() })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // A release is newer than its pre-releases.
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let ordered = [
            "0.1.0-rc.1",
            "0.1.0",
            "0.2.0",
            "0.10.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "10.0.0",
        ]
        .map(|text| text.parse::<Version>().unwrap());
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
        assert_eq!("1.2.3+build.5".parse::<Version>(), "1.2.3".parse());
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3-01",
            "1.2.-3",
            " 1.2.3",
            "1.2.3 ",
            "99999999999999999999.0.0",
            "1.2.3-ü",
            &format!("1.2.3-{}", "a".repeat(64)),
        ] {
            let version = text.parse::<Version>();
            assert!(version.is_err(), "{text:?} is {version:?}");
        }
    }
}
