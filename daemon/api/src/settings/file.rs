//! The part of the settings that outlives the process: seeded fee limits and overrides of a safe list.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Largest file that is read, bytes. Ours have a few hundred.
const MAX_FILE: u64 = 1 << 20;

/// What is stored. Unknown keys are kept out of the way of older versions by being ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Values of `[POLICY]` that were drawn once for this installation.
    #[serde(default)]
    pub(super) seeded: BTreeMap<String, String>,
    /// Values of `[POLICY]` that a client has set.
    #[serde(default)]
    pub(super) overrides: BTreeMap<String, String>,
    /// Values of other sections that a client has set, by section.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Stored {
    /// Remembers what a client has set.
    pub(super) fn set(&mut self, section: &str, field: String, value: String) {
        let fields = match section {
            "POLICY" => &mut self.overrides,
            _ => self.sections.entry(section.to_owned()).or_default(),
        };
        fields.insert(field, value);
    }
}

/// Why the stored settings could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct SettingsFileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Reads the file. A missing one is empty; a damaged one is set aside, because a daemon that refuses to
/// start over its fee settings locks people out of their coins.
pub(super) fn load(path: &Path) -> Result<Stored, SettingsFileError> {
    let fail = |action| move |source| SettingsFileError { action, path: path.to_owned(), source };
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut text).map_err(fail("read"))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::default()),
        Err(error) => return Err(fail("open")(error)),
    };
    match serde_json::from_slice(&text) {
        Ok(stored) => Ok(stored),
        Err(error) => {
            let aside = path.with_extension("damaged");
            tracing::warn!(%error, path = %path.display(), aside = %aside.display(), "stored settings are damaged and were set aside");
            std::fs::rename(path, &aside).map_err(fail("set aside"))?;
            Ok(Stored::default())
        }
    }
}

/// Replaces the file so that after a power cut either the old or the new one is there, whole.
pub(super) fn save(path: &Path, stored: &Stored) -> Result<(), SettingsFileError> {
    let fail = |action| move |source| SettingsFileError { action, path: path.to_owned(), source };
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail("create"))?;
    let text = serde_json::to_vec_pretty(stored).map_err(|e| fail("encode")(e.into()))?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail("create"))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail("write"))?;
    std::fs::rename(&temporary, path).map_err(fail("replace"))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail("sync"))
}
