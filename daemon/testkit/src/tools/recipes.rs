//! How each program is made.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::build::{cargo, install, run, say};
use super::packages;

/// Bitcoin Core, from the sources that the crate `libbitcoinkernel-sys` carries.
pub(super) const BITCOIND: Recipe = Recipe {
    directory: "bitcoin-core-0.4.0-1",
    program: "bitcoind",
    intermediate: &["build", "source"],
    steps: bitcoind,
};

/// electrs from the crate registry, linked to the system's RocksDB (building RocksDB takes far longer than all the rest).
pub(super) const ELECTRS: Recipe = Recipe {
    directory: "electrs-0.10.10-1",
    program: "electrs",
    intermediate: &["build", "install"],
    steps: electrs,
};

const KERNEL_VERSION: &str = "0.4.0";
const ELECTRS_VERSION: &str = "0.10.10";

/// One program and how to build it.
pub(super) struct Recipe {
    /// Directory in the cache: name, version, and a number to raise when the way of building changes.
    directory: &'static str,
    program: &'static str,
    /// Directories that are removed once the program is in place.
    intermediate: &'static [&'static str],
    /// Builds in the directory, returns where the program is.
    steps: fn(&Path, &mut File) -> Result<PathBuf>,
}

impl Recipe {
    pub(super) fn binary(&self, root: &Path) -> PathBuf {
        root.join(self.directory).join("bin").join(self.program)
    }

    /// Builds the program; continues an interrupted build. The caller holds the build lock.
    pub(super) fn build(&self, root: &Path) -> Result<()> {
        packages::require()?;
        let directory = root.join(self.directory);
        fs::create_dir_all(&directory)?;
        let log_path = directory.join("build.log");
        let mut log = File::options().create(true).append(true).open(&log_path)?;
        say(&format!("building {} (once; log in {})", self.program, log_path.display()));
        let built = (self.steps)(&directory, &mut log).with_context(|| {
            format!("cannot build {}; log: {}", self.program, log_path.display())
        })?;
        install(&built, &self.binary(root))?;
        for name in self.intermediate {
            // Only disk space is at stake; the program is in place.
            let _ = fs::remove_dir_all(directory.join(name));
        }
        say(&format!("{} is ready: {}", self.program, self.binary(root).display()));
        Ok(())
    }
}

/// Compilers at once: one for each processor, as far as there is memory for them; the largest C++ files take
/// nearly a gigabyte each, and a small board would rather swap itself to death than finish.
fn jobs() -> String {
    const PER_JOB_KIB: usize = 1024 * 1024;
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    memory.map_or(processors, |free| processors.min(free / PER_JOB_KIB).max(1)).to_string()
}

fn bitcoind(directory: &Path, log: &mut File) -> Result<PathBuf> {
    let source = directory.join("source");
    let core = source.join("vendor/libbitcoinkernel-sys/bitcoin");
    let complete = source.join("complete");
    if !complete.is_file() {
        // A half-fetched tree cannot be told from a whole one by looking, so it is fetched anew.
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        fs::create_dir_all(source.join("src"))?;
        fs::write(source.join("src/lib.rs"), "")?;
        fs::write(
            source.join("Cargo.toml"),
            format!(
                "[package]\nname = \"joinery-tool-sources\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
                 publish = false\n\n[workspace]\n\n[dependencies]\n\
                 libbitcoinkernel-sys = \"={KERNEL_VERSION}\"\n"
            ),
        )?;
        run("fetching the Bitcoin Core sources", cargo(&source).args(["vendor", "vendor"]), log)?;
        fs::write(&complete, "")?;
    }
    let build = directory.join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&core).arg("-B").arg(&build).args(["-G", "Ninja"]).args([
        "-DCMAKE_BUILD_TYPE=Release",
        "-DENABLE_WALLET=OFF",
        "-DBUILD_TESTS=OFF",
        "-DENABLE_IPC=OFF",
        "-DWITH_EMBEDDED_ASMAP=OFF",
        "-DENABLE_EXTERNAL_SIGNER=OFF",
    ]);
    run("configuring Bitcoin Core", &configure, log)?;
    let mut compile = Command::new("ninja");
    compile.arg("-C").arg(&build).args(["-j", &jobs(), "bitcoind"]);
    run("compiling Bitcoin Core (about nine minutes on two cores)", &compile, log)?;
    Ok(build.join("bin/bitcoind"))
}

fn electrs(directory: &Path, log: &mut File) -> Result<PathBuf> {
    let install = directory.join("install");
    let mut command = cargo(directory);
    command
        .env("ROCKSDB_INCLUDE_DIR", "/usr/include")
        .env("ROCKSDB_LIB_DIR", packages::library_directory())
        .env("CARGO_TARGET_DIR", directory.join("build"))
        .args(["install", "electrs", "--locked", "--no-track", "--force", "--jobs", &jobs()])
        .arg(format!("--version={ELECTRS_VERSION}"))
        .arg("--root")
        .arg(&install);
    run("compiling electrs (about five minutes on two cores)", &command, log)?;
    Ok(install.join("bin/electrs"))
}
