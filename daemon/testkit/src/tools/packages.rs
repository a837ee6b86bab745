//! What must be installed before the tools can be built.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Debian packages that the two builds need, each with the program that proves its presence where there is one.
/// `Makefile` installs the same list.
const NEEDED: [(&str, Option<&str>); 8] = [
    ("cmake", Some("cmake")),
    ("ninja-build", Some("ninja")),
    ("g++", Some("g++")),
    ("pkg-config", Some("pkg-config")),
    ("clang", Some("clang")),
    ("libclang-dev", None),
    ("libboost-dev", None),
    ("libevent-dev", None),
];

/// Needed by electrs only; its header is looked at because distributions name the package alike.
const ROCKSDB: &str = "librocksdb-dev";

/// Refuses with one sentence that names every missing package.
///
/// # Errors
/// When something is missing. On a system without `dpkg-query` only the programs are looked for.
pub(super) fn require() -> Result<()> {
    let programs = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |program: &str| {
        std::env::split_paths(&programs).any(|directory| directory.join(program).is_file())
    };
    let debian = in_path("dpkg-query");
    let mut missing: Vec<&str> = Vec::new();
    for (package, program) in NEEDED.into_iter().chain([(ROCKSDB, None)]) {
        let present = match program {
            Some(program) if in_path(program) => true,
            Some(_) if !debian => false,
            _ => !debian || installed(package),
        };
        if !present {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "bitcoind and electrs cannot be built without these packages: {0} \
         (run `make deps`, or as root: apt-get install --no-install-recommends {0})",
        missing.join(" ")
    );
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Where Debian keeps the shared libraries of this machine's architecture, for the linker of electrs.
pub(super) fn library_directory() -> &'static str {
    let multiarch = match std::env::consts::ARCH {
        "x86_64" => "/usr/lib/x86_64-linux-gnu",
        "aarch64" => "/usr/lib/aarch64-linux-gnu",
        "arm" => "/usr/lib/arm-linux-gnueabihf",
        "riscv64" => "/usr/lib/riscv64-linux-gnu",
        _ => "/usr/lib",
    };
    if Path::new(multiarch).is_dir() { multiarch } else { "/usr/lib" }
}
