//! Where a script of the wallet comes from, and how that is written (`spec/wallet.md` 2).

use std::fmt;

use crate::types::{Branch, Keychain, Mixdepth};

/// The place of one script in the wallet, without purpose and coin type (the wallet knows those).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptPlace {
    /// `m/P'/C'/MIXDEPTH'/BRANCH/INDEX`.
    Ranged {
        /// Mixdepth and branch.
        keychain: Keychain,
        /// BIP32 child index.
        index: u32,
    },
    /// `m/84'/C'/0'/2/TIMENUMBER:LOCKTIME`, only in mixdepth 0 of `sw-fb` wallets.
    Bond {
        /// Month index since January 2020, 0 to 959.
        timenumber: u16,
    },
    /// `imported/MIXDEPTH/INDEX`.
    Imported {
        /// The account it was imported into.
        mixdepth: Mixdepth,
        /// Position in the list of imported keys of that account.
        index: u32,
    },
}

impl ScriptPlace {
    /// The account whose coins may be spent together with this one.
    #[must_use]
    pub const fn mixdepth(&self) -> Mixdepth {
        match self {
            Self::Ranged { keychain, .. } => keychain.mixdepth,
            Self::Bond { .. } => Mixdepth(0),
            Self::Imported { mixdepth, .. } => *mixdepth,
        }
    }

    /// Whether this is a timelocked (fidelity bond) script.
    #[must_use]
    pub const fn is_bond(&self) -> bool {
        matches!(self, Self::Bond { .. })
    }

    /// The branch, for ranged scripts.
    #[must_use]
    pub const fn branch(&self) -> Option<Branch> {
        match self {
            Self::Ranged { keychain, .. } => Some(keychain.branch),
            _ => None,
        }
    }

    /// The path as shown to users, e.g. `m/84'/1'/0'/0/3`, `m/84'/0'/0'/2/100:1840752000` or
    /// `imported/2/0`.
    #[must_use]
    pub fn display(&self, purpose: u32, coin_type: u32) -> String {
        match self {
            Self::Ranged { keychain, index } => format!(
                "m/{purpose}'/{coin_type}'/{}'/{}/{index}",
                keychain.mixdepth,
                keychain.branch.number()
            ),
            Self::Bond { timenumber } => {
                let locktime = joinery_proto::fidelity_bond::locktime_of_month(*timenumber);
                format!("m/{purpose}'/{coin_type}'/0'/2/{timenumber}:{locktime}")
            }
            Self::Imported { mixdepth, index } => format!("imported/{mixdepth}/{index}"),
        }
    }

    /// Reads what [`ScriptPlace::display`] writes; `h` is accepted for `'`, and a bond path without its
    /// lock time. `None` for anything else: another purpose or coin, a missing level, a month or a lock
    /// time that do not fit.
    #[must_use]
    pub fn parse(text: &str, purpose: u32, coin_type: u32) -> Option<Self> {
        // The longest path is far shorter; this bounds the work for hostile ones.
        if text.len() > 64 {
            return None;
        }
        let mut levels = text.split('/');
        match levels.next()? {
            "imported" => {
                let mixdepth = Mixdepth(number(levels.next()?)?);
                let index = number(levels.next()?)?;
                levels.next().is_none().then_some(Self::Imported { mixdepth, index })
            }
            "m" => {
                if hardened::<u32>(levels.next()?)? != purpose
                    || hardened::<u32>(levels.next()?)? != coin_type
                {
                    return None;
                }
                let mixdepth = Mixdepth(hardened(levels.next()?)?);
                let branch: u32 = number(levels.next()?)?;
                let last = levels.next()?;
                if levels.next().is_some() {
                    return None;
                }
                let ranged = |branch| {
                    let index: u32 = number(last)?;
                    let keychain = Keychain { mixdepth, branch };
                    (index >> 31 == 0).then_some(Self::Ranged { keychain, index })
                };
                match branch {
                    0 => ranged(Branch::External),
                    1 => ranged(Branch::Internal),
                    2 if mixdepth == Mixdepth(0) => bond(last),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// A decimal number without sign, spaces or leading zeros.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let short = text == "0" || !text.starts_with('0');
    (plain && short).then(|| text.parse().ok())?
}

fn hardened<T: std::str::FromStr>(text: &str) -> Option<T> {
    number(text.strip_suffix(['\'', 'h'])?)
}

fn bond(text: &str) -> Option<ScriptPlace> {
    let (month, locktime) = match text.split_once(':') {
        Some((month, locktime)) => (month, Some(locktime)),
        None => (text, None),
    };
    let timenumber: u16 = number(month)?;
    if timenumber >= joinery_proto::fidelity_bond::TIMENUMBER_COUNT {
        return None;
    }
    let expected = joinery_proto::fidelity_bond::locktime_of_month(timenumber);
    match locktime {
        Some(text) if number::<u64>(text)? != expected => None,
        _ => Some(ScriptPlace::Bond { timenumber }),
    }
}

impl fmt::Display for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mixdepth, self.branch.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_displayed_path_reads_back() {
        let ranged = |mixdepth, branch, index| ScriptPlace::Ranged {
            keychain: Keychain { mixdepth: Mixdepth(mixdepth), branch },
            index,
        };
        for place in [
            ranged(0, Branch::External, 0),
            ranged(4, Branch::Internal, (1 << 31) - 1),
            ScriptPlace::Bond { timenumber: 0 },
            ScriptPlace::Bond { timenumber: 959 },
            ScriptPlace::Imported { mixdepth: Mixdepth(2), index: 7 },
        ] {
            let text = place.display(84, 1);
            assert_eq!(ScriptPlace::parse(&text, 84, 1), Some(place), "{text}");
            assert_eq!(ScriptPlace::parse(&text.replace('\'', "h"), 84, 1), Some(place), "{text}");
        }
        let without = ScriptPlace::parse("m/84'/0'/0'/2/100", 84, 0);
        assert_eq!(without, Some(ScriptPlace::Bond { timenumber: 100 }));
    }

    #[test]
    fn refuses_paths_that_are_not_of_the_wallet() {
        for text in [
            "",
            "m",
            "m/84'/0'/0'/0",
            "m/84'/0'/0'/0/0/0",
            "m/84/0'/0'/0/0",
            "m/84'/0'/0/0/0",
            "m/84'/0'/0'/0/0'",
            "m/84'/1'/0'/0/0",
            "m/49'/0'/0'/0/0",
            "m/84'/0'/256'/0/0",
            "m/84'/0'/0'/3/0",
            "m/84'/0'/1'/2/100",
            "m/84'/0'/0'/2/960",
            "m/84'/0'/0'/2/100:1840752001",
            "m/84'/0'/0'/2/100:",
            "m/84'/0'/0'/0/2147483648",
            "m/84'/0'/0'/0/-1",
            "m/84'/0'/0'/0/+1",
            "m/84'/0'/0'/0/01",
            "m/84'/0'/0'/0/ 1",
            "M/84'/0'/0'/0/0",
            "imported/0",
            "imported/0/0/0",
            "imported/0'/0",
        ] {
            assert_eq!(ScriptPlace::parse(text, 84, 0), None, "{text}");
        }
    }
}
