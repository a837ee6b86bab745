//! `joineryd wallet …`: work with a wallet file that no daemon has unlocked.

use std::path::Path;

use anyhow::Context;
use joinery_wallet::directory::{ExportError, OpenError, WalletDirectory, WalletName};

use crate::config::Config;
use crate::datadir::DataDir;
use crate::exit::{Exit, Failure, OrExit};
use crate::terminal;

/// Writes a wallet as a file of the reference.
///
/// # Errors
/// With the exit code that tells why: 64 a name or file that cannot be one, 73 a file that is there already or
/// cannot be read or written, 75 a wallet that is unlocked, 77 a wrong password.
pub(crate) fn export(config: &Config, name: &str, file: &Path) -> Result<(), Failure> {
    let name: WalletName =
        name.parse().with_context(|| format!("{name:?}")).or_exit(Exit::Usage)?;
    let directory = DataDir::open(&config.data_dir).or_exit(Exit::DataDirectory)?;
    let wallets = WalletDirectory::new(directory.wallets(), config.network, config.wallet.kdf)
        .or_exit(Exit::DataDirectory)?;
    // Nobody should type a password for nothing. The export asks again.
    if file.symlink_metadata().is_ok() {
        return Err(failure(ExportError::Exists(file.to_owned())));
    }
    let password = terminal::password(&format!("Password of {name}: "))
        .context("the password cannot be read")
        .or_exit(Exit::Usage)?;
    wallets.export(&name, &password, file).map_err(failure)
}

fn failure(error: ExportError) -> Failure {
    let exit = match &error {
        ExportError::BadTarget(_) | ExportError::NeverOpened => Exit::Usage,
        ExportError::Open(OpenError::WrongPassword) => Exit::NoPermission,
        ExportError::Open(OpenError::InUse) => Exit::Busy,
        _ => Exit::DataDirectory,
    };
    Failure::new(exit, error)
}
