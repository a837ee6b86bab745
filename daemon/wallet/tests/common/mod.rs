//! Helpers of the store's tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::Path;

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};
use joinery_wallet::store::{self, ChainData, Fact, Facts, Store, StorePaths};

pub const DEK: [u8; 32] = [42; 32];

pub fn paths(dir: &Path) -> StorePaths {
    StorePaths {
        db: dir.join(".w.jmdat.db"),
        journal: dir.join(".w.jmdat.journal"),
        snapshot: dir.join(".w.jmdat.chain"),
    }
}

pub fn open(dir: &Path) -> Box<dyn Store> {
    store::open(paths(dir), &DEK).expect("store opens")
}

pub fn outpoint(n: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([n; 32]), u32::from(n) * 3)
}

pub fn block(height: u32) -> ChainData {
    let mut data = ChainData::default();
    let hash = BlockHash::from_byte_array([height.to_le_bytes()[0]; 32]);
    data.chain.blocks.insert(height, Some(hash));
    data
}

pub fn script(n: u32) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0, 20][..], &n.to_be_bytes(), &[7; 16]].concat())
}

pub fn fold(facts: &[Fact]) -> Facts {
    let mut out = Facts::default();
    facts.iter().for_each(|fact| out.apply(fact));
    out
}

pub fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect()
}

pub fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push(path);
        }
    }
    out
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}
