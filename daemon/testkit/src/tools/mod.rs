//! The real `bitcoind` and `electrs` that the bench runs: fetched as source from the crate registry, built
//! once per version and kept in the user's cache directory, outside any build directory.
//!
//! Layout, below `$XDG_CACHE_HOME/joinery/tools` (or `~/.cache/joinery/tools`):
//!
//! ```text
//! build.lock                    held while somebody builds; one build at a time on this account
//! bitcoin-core-VERSION-RECIPE/  source/ build/ build.log bin/bitcoind
//! electrs-VERSION-RECIPE/       build/ install/ build.log bin/electrs
//! ```
//!
//! A file in `bin/` is put there by rename, so it is complete whenever it exists. An interrupted build is
//! continued where it stopped. The intermediate files go away once the program is in place.

mod build;
mod packages;
mod recipes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use build::say;

/// The programs that the bench starts.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Bitcoin Core's daemon, built without a wallet.
    pub bitcoind: PathBuf,
    /// The Electrum server.
    pub electrs: PathBuf,
}

impl Tools {
    /// Returns the programs, building what is missing; says on stderr what it does.
    ///
    /// Safe to call from many processes at once: one builds, the others wait for it.
    ///
    /// # Errors
    /// When Debian packages are missing (the message names them), when a source cannot be fetched or does
    /// not build (the message ends with the last lines of the log), or when there is no cache directory.
    pub fn ensure() -> Result<Self> {
        let root = root()?;
        let tools = Self {
            bitcoind: recipes::BITCOIND.binary(&root),
            electrs: recipes::ELECTRS.binary(&root),
        };
        if tools.complete() {
            return Ok(tools);
        }
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let mut lock = build_lock(&root)?;
        if lock.try_write().is_err() {
            say("another process is building bitcoind and electrs; waiting for it");
        }
        let _guard = lock.write().context("cannot take the build lock")?;
        // electrs first: it is the shorter build, and a missing package shows up sooner.
        for recipe in [&recipes::ELECTRS, &recipes::BITCOIND] {
            if !recipe.binary(&root).is_file() {
                recipe.build(&root)?;
            }
        }
        if !tools.complete() {
            bail!(
                "the build ended without {} or {}",
                tools.bitcoind.display(),
                tools.electrs.display()
            );
        }
        Ok(tools)
    }

    fn complete(&self) -> bool {
        self.bitcoind.is_file() && self.electrs.is_file()
    }
}

fn build_lock(root: &Path) -> Result<fd_lock::RwLock<File>> {
    let path = root.join("build.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(fd_lock::RwLock::new(file))
}

/// The cache directory of this user, as the XDG base directory specification has it: a relative
/// `XDG_CACHE_HOME` counts as unset.
fn root() -> Result<PathBuf> {
    let from_variable = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = match from_variable.filter(|path| path.is_absolute()) {
        Some(path) => path,
        None => std::env::home_dir()
            .filter(|home| home.is_absolute())
            .context("neither XDG_CACHE_HOME nor HOME names a directory for the built tools")?
            .join(".cache"),
    };
    Ok(cache.join("joinery").join("tools"))
}
