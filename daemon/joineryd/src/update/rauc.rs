//! The program `rauc`, which verifies bundles and writes slots.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

/// Most that is kept of what `rauc` says, bytes.
const MOST: usize = 500;
/// How often RAUC's service is asked, and what lies in between. D-Bus starts it at the first question and waits 25 s for it,
/// which a slow board that has just started may need longer for; three starts without an answer would cost the box its
/// slot.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(5);

/// What a bundle says of itself. The signature was verified before this was read.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    /// Of the system in it.
    #[serde(default)]
    pub(super) version: String,
}

/// What runs, by RAUC.
#[derive(Debug)]
pub(super) struct Slots {
    /// Boot name of the slot that runs.
    pub(super) booted: String,
    /// Boot name of the other one.
    pub(super) other: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    booted: String,
    slots: Vec<std::collections::BTreeMap<String, Slot>>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    bootname: Option<String>,
}

/// Verifies a bundle against the keyring of this machine and reads its manifest.
pub(super) fn info(bundle: &Path) -> Result<Manifest, String> {
    let text = run(&["info", "--output-format=json"], Some(bundle))?;
    serde_json::from_str(&text).map_err(|error| format!("rauc info: {error}"))
}

/// Writes a bundle to the other slot and makes that the next one to start.
pub(super) fn install(bundle: &Path) -> Result<(), String> {
    run(&["install"], Some(bundle)).map(drop)
}

/// The slot that runs has proved itself: its tries are given back.
pub(super) fn mark_good() -> Result<(), String> {
    patiently(PAUSE, || run(&["status", "mark-good", "booted"], None)).map(drop)
}

/// The two slots.
pub(super) fn slots() -> Result<Slots, String> {
    let text = patiently(PAUSE, || run(&["status", "--output-format=json"], None))?;
    let status: Status =
        serde_json::from_str(&text).map_err(|error| format!("rauc status: {error}"))?;
    let names = status.slots.iter().flat_map(|slot| slot.values());
    let names: Vec<&str> = names.filter_map(|slot| slot.bootname.as_deref()).collect();
    match names.as_slice() {
        [a, b] if *a == status.booted => Ok(Slots { booted: (*a).into(), other: (*b).into() }),
        [a, b] if *b == status.booted => Ok(Slots { booted: (*b).into(), other: (*a).into() }),
        _ => Err(format!("rauc status: booted from {:?}, slots {names:?}", status.booted)),
    }
}

/// Asks again what may be asked twice.
fn patiently<T>(pause: Duration, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    for _ in 1..TRIES {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => tracing::warn!(%error, "RAUC is asked again"),
        }
        sleep(pause);
    }
    ask()
}

/// What a run prints, or the end of what it complains about.
fn run(arguments: &[&str], bundle: Option<&Path>) -> Result<String, String> {
    let output = Command::new("rauc")
        .args(arguments)
        .args(bundle)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("rauc cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(last.chars().filter(|c| !c.is_control()).take(MOST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_starts_late_is_asked_again_and_one_that_never_does_is_given_up() {
        let mut asked = 0;
        let mut answers_at = |at: u32| {
            asked = 0;
            let answer = patiently(Duration::ZERO, || {
                asked += 1;
                if asked == at { Ok(at) } else { Err(format!("try {asked}")) }
            });
            (answer, asked)
        };
        assert_eq!(answers_at(1), (Ok(1), 1));
        assert_eq!(answers_at(TRIES), (Ok(TRIES), TRIES));
        assert_eq!(answers_at(TRIES + 1), (Err(format!("try {TRIES}")), TRIES));
    }
}
