//! The key that the service manager hands to the daemon (`LoadCredentialEncrypted=` in `systemd/joineryd.service`): sealed by
//! the machine's TPM, or by a key of its system disk where there is none.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use joinery_wallet::directory::SealingKey;
use zeroize::Zeroizing;

/// Its name.
const RESUME: &str = "joinery.resume";
/// What the unit gives when no key was made.
const NONE: &[u8] = b"-";

/// Why there is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoKey {
    #[error("the daemon was not started by a service manager that gives credentials")]
    NoDirectory,
    #[error("the credential {RESUME} was not made")]
    Absent,
    #[error("the credential {RESUME} is not of 32 bytes")]
    WrongLength,
    #[error("the credential {RESUME} cannot be read: {0}")]
    Unreadable(ErrorKind),
}

/// The key for going on after a power cut. Without one the daemon runs, and says that it has none.
pub(crate) fn resume_key() -> Option<Arc<SealingKey>> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    match read(directory.as_deref().map(Path::new)) {
        Ok(key) => Some(Arc::new(key)),
        Err(error) => {
            tracing::warn!(%error, "board.resume is on, but after a power cut makers need the password");
            None
        }
    }
}

fn read(directory: Option<&Path>) -> Result<SealingKey, NoKey> {
    let path = directory.ok_or(NoKey::NoDirectory)?.join(RESUME);
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => NoKey::Absent,
        kind => NoKey::Unreadable(kind),
    })?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    file.take(33).read_to_end(&mut bytes).map_err(|error| NoKey::Unreadable(error.kind()))?;
    if *bytes == NONE {
        return Err(NoKey::Absent);
    }
    let secret: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| NoKey::WrongLength)?;
    Ok(SealingKey::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_everything_else_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESUME);
        let why = || read(Some(dir.path())).map(|_| ()).unwrap_err();
        assert_eq!(read(None).map(|_| ()), Err(NoKey::NoDirectory));
        assert_eq!(why(), NoKey::Absent);
        for (content, expected) in [
            (b"-".to_vec(), NoKey::Absent),
            (Vec::new(), NoKey::WrongLength),
            (vec![7; 31], NoKey::WrongLength),
            (vec![7; 33], NoKey::WrongLength),
            (vec![7; 100_000], NoKey::WrongLength),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(why(), expected);
        }
        std::fs::write(&path, [7; 32]).unwrap();
        assert!(read(Some(dir.path())).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(why(), NoKey::Unreadable(_)));
    }
}
