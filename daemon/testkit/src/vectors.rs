//! Published test vectors: JSON files in `tests/vectors/` of the crate that they test.

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Reads `tests/vectors/NAME` of the crate whose `env!("CARGO_MANIFEST_DIR")` is given.
///
/// # Panics
/// When the file is missing or is not a `T`; the message says where.
#[must_use]
pub fn load<T: DeserializeOwned>(manifest_dir: &str, name: &str) -> T {
    let path = path(manifest_dir, name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes)
        .unwrap_or_else(|e| panic!("{} is not a {}: {e}", path.display(), type_name::<T>()))
}

/// Where a vector file lives, for those that are not JSON.
#[must_use]
pub fn path(manifest_dir: &str, name: &str) -> PathBuf {
    Path::new(manifest_dir).join("tests/vectors").join(name)
}

/// Runs `check` on every case and reports all that fail, each with its index and reason.
///
/// ```
/// joinery_testkit::vectors::each("sums.json", &[(1, 2, 3), (2, 2, 4)], |&(a, b, sum)| {
///     if a + b == sum { Ok(()) } else { Err(format!("{a} + {b} is not {sum}")) }
/// });
/// ```
///
/// # Panics
/// After the last case, when a case returned an error or panicked, and when there are no cases at all: a file
/// that lost its contents must not pass.
pub fn each<T, E: std::fmt::Display>(
    name: &str,
    cases: &[T],
    mut check: impl FnMut(&T) -> Result<(), E>,
) {
    assert!(!cases.is_empty(), "{name}: no cases");
    let mut failures = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        match catch_unwind(AssertUnwindSafe(|| check(case))) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => failures.push(format!("case {index}: {reason:#}")),
            // The panic's own message has been printed above, with its place.
            Err(_) => failures.push(format!("case {index}: panicked, see above")),
        }
    }
    let count = cases.len();
    assert!(
        failures.is_empty(),
        "{name}: {} of {count} cases failed\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_failing_index() {
        let outcome = catch_unwind(|| {
            each("numbers.json", &[1, 2, 3, 4], |number| match number {
                2 => Err("is two"),
                4 => panic!("planned"),
                _ => Ok(()),
            });
        });
        let message = *outcome.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("2 of 4 cases failed"), "{message}");
        assert!(message.contains("case 1: is two"), "{message}");
        assert!(message.contains("case 3: panicked"), "{message}");
    }

    #[test]
    #[should_panic(expected = "no cases")]
    fn refuses_an_empty_file() {
        each::<(), &str>("empty.json", &[], |()| Ok(()));
    }

    #[test]
    #[should_panic(expected = "tests/vectors/absent.json")]
    fn names_a_missing_file() {
        let _: Vec<u8> = load(env!("CARGO_MANIFEST_DIR"), "absent.json");
    }
}
