//! Wallet names (`spec/api.md` 1.7).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Longest file name of the usual file systems, bytes.
const MAX_NAME_LEN: usize = 255;
/// Longest name that gets its side files under its own text; beside it must fit a dot and a suffix.
const MAX_STEM_LEN: usize = 200;

/// Why a text is not a wallet name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalletNameError {
    /// Does not end in `.jmdat`, or consists of nothing else.
    #[error("wallet name does not end in .jmdat")]
    Suffix,
    /// Longer than a file name may be.
    #[error("wallet name is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// Starts with a dot.
    #[error("wallet name starts with a dot")]
    Hidden,
    /// Contains a path separator or a control character.
    #[error("wallet name contains a path separator or a control character")]
    Character,
}

/// The file name of a wallet including `.jmdat`: exactly one safe path component.
///
/// Any other text is allowed, also of other scripts and with spaces: the reference made such files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalletName(String);

impl WalletName {
    /// The file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hidden file beside the wallet: `.NAME.SUFFIX`.
    pub(super) fn hidden(&self, suffix: &str) -> String {
        format!(".{}.{suffix}", self.stem())
    }

    /// A visible file beside the wallet: `NAME.SUFFIX`.
    pub(super) fn beside(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.stem())
    }

    /// The name, or for very long names its beginning and a hash, so that side names stay legal.
    fn stem(&self) -> String {
        if self.0.len() <= MAX_STEM_LEN {
            return self.0.clone();
        }
        let mut end = MAX_STEM_LEN - 20;
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        let hash = Sha256::digest(self.0.as_bytes());
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hash}", self.0.get(..end).unwrap_or_default())
    }
}

impl FromStr for WalletName {
    type Err = WalletNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_NAME_LEN {
            return Err(WalletNameError::TooLong);
        }
        if text.starts_with('.') {
            return Err(WalletNameError::Hidden);
        }
        if text.chars().any(|c| matches!(c, '/' | '\\') || c.is_control()) {
            return Err(WalletNameError::Character);
        }
        // A leading dot is excluded, so something stands in front of the suffix.
        if !text.ends_with(".jmdat") {
            return Err(WalletNameError::Suffix);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for WalletName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn wallet_name_is_one_safe_component() {
        for bad in [
            "",
            ".",
            "..",
            ".jmdat",
            "..jmdat",
            ".hidden.jmdat",
            "wallet",
            "wallet.jmdat/",
            "wallet.jmdat.tmp",
            "wallet.JMDAT",
            "/etc/passwd",
            "../../etc/passwd",
            "../x.jmdat",
            "a/../x.jmdat",
            "a/x.jmdat",
            "a\\x.jmdat",
            "/x.jmdat",
            "x\0.jmdat",
            "x.jmdat\0",
            "x\n.jmdat",
            "x\u{7f}.jmdat",
        ] {
            assert!(bad.parse::<WalletName>().is_err(), "{bad:?}");
        }
        let long = format!("{}.jmdat", "x".repeat(249));
        assert_eq!(long.len(), 255);
        assert!(long.parse::<WalletName>().is_ok());
        assert_eq!(format!("x{long}").parse::<WalletName>(), Err(WalletNameError::TooLong));
        for good in [
            "wallet.jmdat",
            "My Wallet.jmdat",
            "%2e%2e.jmdat",
            "محفظة.jmdat",
            "💰.jmdat",
            "a..jmdat",
        ] {
            let name: WalletName = good.parse().expect("valid name");
            assert_eq!(name.to_string(), good);
        }
    }

    #[test]
    fn side_files_have_legal_and_distinct_names() {
        let long = |c: &str| -> WalletName {
            format!("{}{c}.jmdat", "☃".repeat(80)).parse().expect("valid name")
        };
        let (a, b) = (long("a"), long("b"));
        assert_ne!(a.hidden("db"), b.hidden("db"));
        for name in [a.hidden("journal.lock"), b.beside("imported-1700000000")] {
            assert!(name.len() <= 255);
        }
        let short: WalletName = "w.jmdat".parse().expect("valid name");
        assert_eq!(short.hidden("db"), ".w.jmdat.db");
    }

    proptest::proptest! {
        #[test]
        fn every_accepted_name_is_one_normal_component(text in "[./\\\\a-z\0]{0,12}(\\.jmdat)?") {
            if let Ok(name) = text.parse::<WalletName>() {
                let path = Path::new(name.as_str());
                let components: Vec<_> = path.components().collect();
                proptest::prop_assert_eq!(components.len(), 1);
                proptest::prop_assert!(matches!(components[0], Component::Normal(_)));
            }
        }
    }
}
