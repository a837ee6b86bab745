//! `licences`: the licences of every crate that is linked into the programs we ship, with their texts, on stdout.
//!
//! Asks cargo which crates those are and reads the texts in their sources. Ends with an error when a crate's licence
//! is none that we have decided to live with, so that a new dependency cannot bring one along unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Deserialize;

/// What we accept: licences that ask for their text to be passed on, and nothing else of a program that only uses the
/// crate. SPDX names.
const ACCEPTED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "LLVM-exception",
    "MIT",
    "MIT-0",
    "MITNFA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Beginnings of the names of files that hold a licence or what it wants to be passed on.
const NAMES: [&str; 6] = ["licen", "copying", "copyright", "notice", "unlicense", "patents"];
/// How deep such files are looked for: C sources that a crate carries have their own.
const DEPTH: usize = 4;
/// Longest text that is taken, bytes.
const LONGEST: u64 = 256 * 1024;

/// The licences of the crates in our programs.
#[derive(Debug, Parser)]
#[command(name = "licences")]
struct Arguments {
    /// Target whose programs are meant: dependencies differ.
    #[arg(long, value_name = "TRIPLE")]
    target: String,
    /// Packages of the programs.
    #[arg(required = true)]
    packages: Vec<String>,
}

/// A crate as `cargo metadata` tells it.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    /// `None` for crates of this workspace.
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

fn main() -> ExitCode {
    match report(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed the exit code still tells.
            let _ = writeln!(std::io::stderr(), "licences: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &Arguments) -> Result<()> {
    let linked = linked(arguments)?;
    let metadata: Metadata = serde_json::from_slice(&cargo(&[
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        &arguments.target,
    ])?)
    .context("cargo metadata")?;
    let mut packages: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| linked.contains(&(package.name.clone(), package.version.clone())))
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    ensure!(packages.len() == linked.len(), "cargo metadata does not know every crate");
    for package in &packages {
        let expression = package.license.as_deref().unwrap_or("none");
        if let Some(other) = unaccepted(expression) {
            bail!(
                "{} {} has licence {expression:?}; {other:?} is not accepted",
                package.name,
                package.version
            );
        }
    }
    std::io::stdout().write_all(text(&packages)?.as_bytes()).context("stdout cannot be written")
}

/// Names and versions of the crates whose code is in the programs: no build scripts, no procedural macros, no tests.
fn linked(arguments: &Arguments) -> Result<BTreeSet<(String, String)>> {
    let mut command = vec![
        "tree",
        "--locked",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--format={p}",
        "--target",
        &arguments.target,
    ];
    for package in &arguments.packages {
        command.extend(["--package", package]);
    }
    let tree = String::from_utf8(cargo(&command)?).context("cargo tree")?;
    let mut found = BTreeSet::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|word| word.strip_prefix('v')));
        let (Some(name), Some(version)) = (name, version) else {
            bail!("cargo tree says {line:?}")
        };
        found.insert((name.to_owned(), version.to_owned()));
    }
    Ok(found)
}

/// What a run of cargo prints.
fn cargo(arguments: &[&str]) -> Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).output().context("cargo cannot be run")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The first licence of an SPDX expression that is not in [`ACCEPTED`].
fn unaccepted(expression: &str) -> Option<&str> {
    let mut words = expression.split([' ', '/', '(', ')']).filter(|word| !word.is_empty());
    words.find(|word| !["OR", "AND", "WITH"].contains(word) && !ACCEPTED.contains(word))
}

/// The whole document.
fn text(packages: &[Package]) -> Result<String> {
    let foreign = || packages.iter().filter(|package| package.source.is_some());
    let mut out = String::from(
        "The programs of this package contain the Rust standard library (MIT OR Apache-2.0, by the Rust project's\n\
         contributors) and the crates below. First who they are, then the texts that they ask to be passed on.\n\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in foreign() {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("none");
        out += &format!("{name}: {licence}");
        for (what, values) in [
            ("by", package.authors.join(", ")),
            ("from", package.repository.clone().unwrap_or_default()),
        ] {
            if !values.is_empty() {
                out += &format!("; {what} {values}");
            }
        }
        let root = package.manifest_path.parent().context("a manifest is in a directory")?;
        let files = licence_files(root, DEPTH)?;
        if files.is_empty() {
            out += "; comes without the text";
        }
        out.push('\n');
        for file in files {
            let text =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim().to_owned();
            let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            texts.entry(text).or_default().push(format!("{name} ({place})"));
        }
    }
    out += "\nCrates that come without the text are under the licence named, in these words, with the copyright of those\n\
            who are named as authors (CC0-1.0 asks for nothing; MITNFA is MIT, and asks who passes on a changed program to\n\
            name its changes):\n\n";
    out += include_str!("../../../../LICENSE-MIT");
    out += "\nand Apache-2.0, which is among the following texts.\n";
    let mut ordered: Vec<_> = texts.into_iter().collect();
    ordered.sort_by(|a, b| a.1.cmp(&b.1));
    for (text, users) in ordered {
        out += &format!("\n{}\n{}\n\n{text}\n", "=".repeat(78), users.join("\n"));
    }
    Ok(out)
}

/// Files that hold licences, in a fixed order.
fn licence_files(directory: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if kind.is_dir() && depth > 1 {
            found.extend(licence_files(&path, depth - 1)?);
        } else if kind.is_file()
            && NAMES.iter().any(|start| name.starts_with(start))
            && !name.ends_with(".rs")
            && entry.metadata()?.len() <= LONGEST
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_taken_apart() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert_eq!(unaccepted(good), None, "{good}");
        }
        for (bad, why) in [
            ("GPL-3.0-only", "GPL-3.0-only"),
            ("MIT AND (GPL-2.0 OR MIT)", "GPL-2.0"),
            ("none", "none"),
        ] {
            assert_eq!(unaccepted(bad), Some(why), "{bad}");
        }
    }

    #[test]
    fn texts_are_found_in_sources_that_a_crate_carries() {
        let root = tempfile::tempdir().unwrap();
        let nested = root.path().join("depend/c/third");
        fs::create_dir_all(&nested).unwrap();
        for name in
            ["LICENSE-MIT", "src.rs", "licence.rs", "depend/c/COPYING", "depend/c/third/NOTICE"]
        {
            fs::write(root.path().join(name), name).unwrap();
        }
        let found = licence_files(root.path(), DEPTH).unwrap();
        let expected = ["LICENSE-MIT", "depend/c/COPYING", "depend/c/third/NOTICE"];
        assert_eq!(found, expected.map(|name| root.path().join(name)));
    }
}
